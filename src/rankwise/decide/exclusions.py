"""Named exclusions of a priced candidate: each rule is a function -> Rejection with the number that broke it, or None.

A hard rule says that a candidate cannot run here, or may not be taken; a forced method does not override it."""

from collections.abc import Callable

from rankwise.decide.bound import least_bytes
from rankwise.decide.compatibility import refused
from rankwise.decide.priced import Priced
from rankwise.decide.recipes import Recipe
from rankwise.decide.rulebook import cite, threshold
from rankwise.decide.updates import refused_update
from rankwise.records import Candidate, Facts, Job, Rejection

GB = 1e9
MB = 1e6
Hard = Callable[[Job, Facts, Priced], Rejection | None]


def reject(
    candidate: str, rule: str, text: str, number: str | None = None, would_flip_if: str | None = None
) -> Rejection:
    """A rejection with the evidence of its rule."""
    return Rejection(
        method=candidate, rule=rule, number=number, text=text, would_flip_if=would_flip_if, evidence=cite(rule)
    )


# -- before anything is priced ---------------------------------------------------------------------


def unkept(recipe: Recipe) -> Rejection | None:
    """A recipe whose library is no longer kept is named and not taken."""
    if recipe.kind != "unkept":
        return None
    return reject(
        recipe.name,
        "kept_library",
        f"{recipe.name} needs a package without a release for {threshold('kept_library', 'months'):.0f} months.",
        f"last release: {recipe.package}",
        "a kept library carried it",
    )


def states_fit(facts: Facts, candidate: Candidate) -> Rejection | None:
    """What is held between two steps alone exceeds the device."""
    least, room = least_bytes(facts, candidate), facts.device.memory_bytes
    assert room is not None  # a plan is made for a device that is known
    if least <= room:
        return None
    return reject(
        candidate.id,
        "states_fit",
        f"{candidate.id} does not fit {facts.device.name} before any activation.",
        f"at least {least / GB:.1f} GB of weights, gradients and optimizer states, {room / GB:.1f} GB there",
        f"the device had more than {least / GB:.0f} GB",
    )


def works_together(job: Job, facts: Facts, candidate: Candidate) -> Rejection | None:
    """Combinations that the libraries refuse."""
    config = candidate.config
    found = refused(candidate.method, "gradient_checkpointing") if config.gradient_checkpointing else None
    if found is None and config.packing:
        found = refused(candidate.method, "packing")
    found = found or refused_update(job, facts, config)
    if found is None and job.data.named_tokens:
        found = refused(candidate.method, "new tokens")
    if found is None:
        return None
    return reject(
        candidate.id,
        "works_together",
        f"{candidate.method} does not work with {found.feature}: {found.why}.",
        found.source,
    )


def engine_serves(job: Job, candidate: Candidate) -> Rejection | None:
    """vLLM must load the result: as an adapter for several tenants, as a merged model for one."""
    if job.serving.engine != "vllm" or candidate.method == "full":
        return None
    unmerged, merged = refused(candidate.method, "vllm unmerged"), refused(candidate.method, "merge")
    if unmerged is None or (job.variants == 1 and merged is None):
        return None
    return reject(
        candidate.id,
        "engine_serves",
        f"vLLM does not serve adapters of {candidate.method}: {unmerged.why}.",
        None if job.variants == 1 else f"{job.variants} tenants",
        "serving.engine were embedded",
    )


# -- of a priced candidate -------------------------------------------------------------------------


def memory_fits(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    memory = priced.estimate.memory
    if memory.fits:
        return None
    return reject(
        priced.id,
        "memory_fits",
        f"{priced.id} does not fit into the memory of {facts.device.name}.",
        f"{memory.interval[1] / GB:.2f} GB needed at the upper end, {memory.room / GB:.2f} GB there",
        f"the device had {memory.interval[1] / GB:.1f} GB",
    )


def within_hours(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    seconds, hours = priced.estimate.time.train_seconds, job.budget.hours
    if hours is None or seconds is None or seconds <= hours * 3600:
        return None
    return reject(
        priced.id,
        "within_hours",
        f"{priced.id} takes longer than the budget allows.",
        f"{seconds / 3600:.2f} h predicted, budget {hours:g} h",
        f"the budget were {seconds / 3600:.2f} h",
    )


def within_usd(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    """One run for each tenant."""
    each = priced.estimate.money.train_usd
    if job.budget.usd is None or each is None or each * job.variants <= job.budget.usd:
        return None
    usd = each * job.variants
    runs = "one run" if job.variants == 1 else f"one run for each of {job.variants} tenants"
    return reject(
        priced.id,
        "within_usd",
        f"{priced.id} costs more than the budget allows.",
        f"{usd:,.2f} USD predicted for {runs}, budget {job.budget.usd:,.2f} USD",
        f"the budget were {usd:,.2f} USD",
    )


def disk_fits(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    needed, free = priced.estimate.storage.run_bytes, facts.device.disk_free_bytes
    if free is None or needed <= free:
        return None
    return reject(
        priced.id,
        "disk_fits",
        f"The run folder of {priced.id} does not fit on this disk.",
        f"{_disk(needed)} needed, {_disk(free)} free",
        f"{_disk(needed)} were free, or train.save_total_limit were lower",
    )


def _disk(size: int) -> str:
    return f"{size / GB:.2f} GB" if size >= GB else f"{size / MB:,.0f} MB"


HARD: tuple[Hard, ...] = (memory_fits, within_hours, within_usd, disk_fits)


def first_broken(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    """The first hard rule that a priced candidate breaks."""
    return next((broken for rule in HARD if (broken := rule(job, facts, priced))), None)
