"""The rungs of a recipe, the quickest first, until one runs: how it is spread over devices, how many rows at a time,
with or without recomputation. A rung whose states alone do not fit is named without a trace."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rankwise.decide.bound import least_bytes
from rankwise.decide.capacity import (
    bits_per_parameter,
    floor_of,
    need_bits,
    power_of_two_below,
    rank_for,
)
from rankwise.decide.compatibility import refused
from rankwise.decide.configure import Rung, configure, sizes
from rankwise.decide.exclusions import first_broken, reject, states_fit, unkept, works_together
from rankwise.decide.parallel import forced_parallel, spreads_of, unspread
from rankwise.decide.priced import Price, Priced
from rankwise.decide.recipes import Recipe
from rankwise.decide.rulebook import threshold
from rankwise.methods import TUNERS
from rankwise.methods.lora import lora_params
from rankwise.records import Candidate, Facts, Job, Rejection

# What is priced one rung further after a rung that runs, so that what it would save or cost can be told.
COMPARED = ("lora", "full")
DEEP = 32  # decoder layers beyond which what spans them all takes seconds to trace
NEARLY = 1.15  # of the room: a rung beyond it is not tried with its rows in one pass
Climbing = Generator[Candidate, Priced, None]


@dataclass
class Outcome:
    """What came of one recipe.

    Attributes:
        priced: its candidates in the order of the ladder.
        rejected: its candidates that were not priced, with the rule that a bound or a table gave.
        best: the first that breaks no hard rule.
    """

    recipe: Recipe
    priced: list[Priced] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    best: Priced | None = None


def candidate_of(job: Job, facts: Facts, recipe: Recipe, rung: Rung) -> Candidate:
    """A recipe on a rung, with its configuration and its name."""
    config = configure(job, facts, recipe, rung)
    parts = [recipe.name]
    if config.r:
        parts.append(f"r{config.r}")
    if rung.parallel not in ("none", "ddp") and recipe.offload == "none":
        parts.append(rung.parallel)
    if rung.gradient_checkpointing:
        parts.append("checkpointing")
    if rung.micro_batch is not None and config.per_device_train_batch_size != sizes(job, facts).micro_batch:
        parts.append(f"b{config.per_device_train_batch_size}")
    if rung.optim is not None:
        parts.append("paged" if rung.optim.startswith("paged") else rung.optim)
    return Candidate(
        id="-".join(parts),
        recipe=recipe.name,
        method=recipe.method,
        parallel=rung.parallel,
        offload=rung.offload,
        config=config,
    )


def climb(job: Job, facts: Facts, outcome: Outcome, *, thorough: bool) -> Climbing:
    """Yields the candidates of a recipe to be priced one after the other, and is sent each of them priced.

    Args:
        thorough: price one rung of a recipe that cannot fit, and one rung beyond the first that runs.
    """
    recipe = outcome.recipe
    last: Rung | None = None
    for start in _starts(job, facts, recipe, outcome):
        last = _leanest(job, recipe, start)
        named = candidate_of(job, facts, recipe, start)
        if (broken := states_fit(facts, named)) is not None:
            outcome.rejected.append(broken)
            continue
        if start.rank in _lower_ranks(job, facts, recipe):
            yield from _price(job, facts, outcome, last)
        else:
            yield from _spread(job, facts, outcome, start)
        if outcome.best is not None or _stopped_by_budget(job, facts, outcome):
            break
    if thorough and not outcome.priced and last is not None:
        yield from _price(job, facts, outcome, last)
        shown = {p.id for p in outcome.priced}
        outcome.rejected = [r for r in outcome.rejected if r.method not in shown]
    if thorough and outcome.best is not None and recipe.name in COMPARED:
        yield from _beyond(job, facts, outcome)


def _starts(job: Job, facts: Facts, recipe: Recipe, outcome: Outcome) -> Iterator[Rung]:
    """The quickest rung of each way of spreading; all of them at the higher rank before the lower one."""
    spreads = spreads_of(job, facts, recipe)
    if not spreads:
        outcome.rejected.append(reject(recipe.name, "works_together", *unspread(job, facts, recipe)))
    for rank in _ranks(job, facts, recipe):
        for parallel in spreads:
            yield Rung(parallel=parallel, offload=recipe.offload, rank=rank)


def _ranks(job: Job, facts: Facts, recipe: Recipe) -> tuple[int | None, ...]:
    """The rank that the need asks for, the lower floor of code and math, and the halves below them that are still
    enough: the highest that runs is taken.
    """
    if not recipe.low_rank or (job.method is not None and job.method.name == recipe.method and job.method.r):
        return (None,)
    wished = _wished_ranks(job, facts, recipe)
    return (*wished, *_lower_ranks(job, facts, recipe))


def _wished_ranks(job: Job, facts: Facts, recipe: Recipe) -> tuple[int, ...]:
    targets = _targets(job, recipe)
    return tuple(dict.fromkeys(rank_for(job, facts, targets, roomy=roomy) for roomy in (True, False)))


def _lower_ranks(job: Job, facts: Facts, recipe: Recipe) -> tuple[int, ...]:
    """Halves of the lowest wished rank, down to the floor and to what may hold the need (rule `capacity_suffices`);
    down to the floor where not even the wished rank may, since then any is taken against that rule.
    """
    if not recipe.low_rank:
        return ()
    lowest, targets = _wished_ranks(job, facts, recipe)[-1], _targets(job, recipe)
    needed = threshold("capacity_suffices", "least") * need_bits(job, facts) / bits_per_parameter(job)
    enough = needed / lora_params(facts.model, 1, targets)
    least = max(floor_of(job, roomy=False), enough if enough <= lowest else 0)
    halves = (lowest >> step for step in range(1, lowest.bit_length()))
    return tuple(rank for rank in halves if rank >= least)


def _targets(job: Job, recipe: Recipe) -> str | tuple[str, ...]:
    said = job.method.target_modules if job.method and job.method.name == recipe.method else None
    return said or "all-linear"


def _recomputing(job: Job, recipe: Recipe) -> tuple[bool, ...]:
    """Without and with gradient checkpointing, unless the job says which or the method refuses it."""
    said = job.train.gradient_checkpointing
    if said is not None:
        return (said,)
    return (False,) if refused(recipe.method, "gradient_checkpointing") else (False, True)


def _leanest(job: Job, recipe: Recipe, start: Rung) -> Rung:
    """The least memory that this way of spreading can take."""
    micro = None if job.train.per_device_train_batch_size else 1
    return replace(start, micro_batch=micro, gradient_checkpointing=_recomputing(job, recipe)[-1])


def _spread(job: Job, facts: Facts, outcome: Outcome, start: Rung) -> Climbing:
    """Rungs of one way of spreading: as planned, with fewer rows at a time, then both with recomputation."""
    leanest = _leanest(job, outcome.recipe, start)
    tried: set[str] = set()
    for recomputing in _recomputing(job, outcome.recipe):
        rung = replace(start, gradient_checkpointing=recomputing)
        for step in range(2):
            named = candidate_of(job, facts, outcome.recipe, rung)
            tried.add(named.id)
            yield from _price(job, facts, outcome, rung)
            found = outcome.priced[-1] if outcome.priced else None
            if found is None or found.id != named.id or found.estimate.memory.fits:
                return
            fewer = _rows_that_fit(facts, found)
            if step or job.train.per_device_train_batch_size or fewer < 1:
                break
            rung = replace(rung, micro_batch=fewer)
    if candidate_of(job, facts, outcome.recipe, leanest).id not in tried:
        yield from _price(job, facts, outcome, leanest)
    optim = outcome.recipe.lean_optim
    if optim and facts.device.kind == "gpu" and outcome.best is None and job.train.optim is None:
        yield from _price(job, facts, outcome, replace(leanest, optim=optim))


def _rows_that_fit(facts: Facts, priced: Priced) -> int:
    """Rows at a time that would fit if all that is not states grew with them; 0: none would, or as many as now."""
    memory, config = priced.estimate.memory, priced.candidate.config
    states = least_bytes(facts, priced.candidate)
    a_row = (memory.interval[1] - states) / config.per_device_train_batch_size
    rows = (memory.room - states) / a_row if a_row > 0 else 0
    fewer = power_of_two_below(rows) if rows >= 1 else 0
    return min(fewer, config.per_device_train_batch_size // 2)


def _price(job: Job, facts: Facts, outcome: Outcome, rung: Rung) -> Climbing:
    """One candidate, unless the libraries refuse it."""
    candidate = candidate_of(job, facts, outcome.recipe, rung)
    if (broken := works_together(job, facts, candidate)) is not None:
        outcome.rejected.append(broken)
        return
    priced = yield candidate
    outcome.priced.append(priced)
    if outcome.best is None and first_broken(job, facts, priced) is None:
        outcome.best = priced


def _stopped_by_budget(job: Job, facts: Facts, outcome: Outcome) -> bool:
    """The last rung fitted the memory, and a budget or the disk broke: no later rung is quicker or smaller."""
    return bool(outcome.priced) and outcome.priced[-1].estimate.memory.fits is True


def _beyond(job: Job, facts: Facts, outcome: Outcome) -> Climbing:
    """What recomputation, or sharding, would save beside the rung that runs."""
    best = outcome.best
    assert best is not None
    config = best.candidate.config
    rung = Rung(
        parallel=best.candidate.parallel,
        offload=best.candidate.offload,
        micro_batch=config.per_device_train_batch_size,
        gradient_checkpointing=config.gradient_checkpointing,
        rank=config.r,
    )
    further = []
    if not config.gradient_checkpointing and True in _recomputing(job, outcome.recipe):
        further.append(replace(rung, gradient_checkpointing=True))
    if rung.parallel == "ddp" and "fsdp" in outcome.recipe.shards and forced_parallel(job, facts) is None:
        further.append(replace(rung, parallel="fsdp"))
    for other in further:
        yield from _price(job, facts, outcome, other)


def climb_all(job: Job, facts: Facts, recipes: Sequence[Recipe], price: Price) -> list[Outcome]:
    """Every recipe to its end; what the recipes want priced next is priced together."""
    outcomes = [Outcome(recipe) for recipe in recipes]
    _together(job, facts, {id(o): climb(job, facts, o, thorough=True) for o in outcomes}, price)
    return outcomes


def place_all(job: Job, facts: Facts, recipes: Sequence[Recipe], price: Price, beside: Priced | None) -> list[Outcome]:
    """Recipes that are looked at to be able to say why not, each on one rung: that of the call, so that it stands side
    by side with it, or its leanest where nothing is called or it spreads otherwise.
    """
    outcomes = [Outcome(recipe) for recipe in recipes]
    _together(job, facts, {id(o): _placed(job, facts, o, beside) for o in outcomes}, price)
    return outcomes


def _placed(job: Job, facts: Facts, outcome: Outcome, beside: Priced | None) -> Climbing:
    recipe = outcome.recipe
    if (broken := unkept(recipe)) is not None:
        outcome.rejected.append(broken)
        return
    tuner = TUNERS[recipe.method]
    if recipe.kind == "discouraged" and tuner.spans_layers and facts.model.num_hidden_layers > DEEP:
        text = f"{recipe.name} loses to LoRA at equal cost in published comparisons, and is not priced for deep models."
        outcome.rejected.append(reject(recipe.name, "discouraged", text))
        return
    starts = list(_starts(job, facts, recipe, outcome))
    if not starts:
        return
    alike = [s for s in starts if beside is not None and s.parallel == beside.candidate.parallel]
    if beside is None or not alike or recipe.trains_weights != beside.recipe.trains_weights:
        yield from _price(job, facts, outcome, _leanest(job, recipe, starts[-1]))
        return
    config = beside.candidate.config
    recomputing = config.gradient_checkpointing if config.gradient_checkpointing in _recomputing(job, recipe) else False
    rung = replace(
        alike[-1],
        micro_batch=config.per_device_train_batch_size,
        gradient_checkpointing=recomputing,
        rank=config.r if recipe.low_rank else None,
    )
    yield from _price(job, facts, outcome, rung)


def _together(job: Job, facts: Facts, climbing: dict[int, Climbing], price: Price) -> None:
    wanted = {key: next(steps, None) for key, steps in climbing.items()}
    while asked := {key: candidate for key, candidate in wanted.items() if candidate is not None}:
        estimates = price(job, facts, list(asked.values()))
        for (key, candidate), estimate in zip(asked.items(), estimates, strict=True):
            wanted[key] = _send(climbing[key], Priced(candidate, estimate))
        wanted = {key: wanted[key] for key in asked}


def first_steps(job: Job, facts: Facts, recipes: Sequence[Recipe]) -> Iterator[Candidate]:
    """What `climb_one` prices first of each recipe."""
    for recipe in recipes:
        if (first := next(_one(job, facts, Outcome(recipe)), None)) is not None:
            yield first


def first_places(job: Job, facts: Facts, recipes: Sequence[Recipe], beside: Priced | None) -> Iterator[Candidate]:
    """What `place_all` prices."""
    for recipe in recipes:
        if (first := next(_placed(job, facts, Outcome(recipe), beside), None)) is not None:
            yield first


def climb_one(job: Job, facts: Facts, recipe: Recipe, price: Price) -> Outcome:
    """One recipe until a rung runs. Without a budget to keep, whether its leanest rungs run is enough."""
    outcome = Outcome(recipe)
    steps = _one(job, facts, outcome)
    candidate = next(steps, None)
    while candidate is not None:
        candidate = _send(steps, Priced(candidate, price(job, facts, [candidate])[0]))
    return outcome


def _one(job: Job, facts: Facts, outcome: Outcome) -> Climbing:
    hurried = job.budget.hours is not None or job.budget.usd is not None
    return climb(job, facts, outcome, thorough=False) if hurried else _lean(job, facts, outcome)


def _lean(job: Job, facts: Facts, outcome: Outcome) -> Climbing:
    """One row at a time, and all planned rows at once: a single pass holds no gradients of the pass before it."""
    for start in _starts(job, facts, outcome.recipe, outcome):
        leanest = _leanest(job, outcome.recipe, start)
        if states_fit(facts, candidate_of(job, facts, outcome.recipe, leanest)) is not None:
            continue
        for rung in dict.fromkeys((leanest, replace(leanest, micro_batch=None))):
            yield from _price(job, facts, outcome, rung)
            if outcome.best is not None:
                return
            memory = outcome.priced[-1].estimate.memory if outcome.priced else None
            if memory is None or memory.interval[1] > NEARLY * memory.room:
                break


def _send(steps: Climbing, priced: Priced) -> Candidate | None:
    try:
        return steps.send(priced)
    except StopIteration:
        return None
