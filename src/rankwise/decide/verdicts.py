"""Outcomes of all recipes -> the winner, the order of what can run, and a rejection for every other candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.decide.comparisons import RULE, method_of, shown_better
from rankwise.decide.exclusions import GB, engine_serves, first_broken, reject
from rankwise.decide.forgetting import spares
from rankwise.decide.ladder import Outcome, climb_one
from rankwise.decide.preference import (
    attention_only,
    capacity_suffices,
    discouraged,
    headroom,
    precision_trap,
    takeable,
    variant_needs_sweep,
)
from rankwise.decide.priced import Price, Priced
from rankwise.records import Facts, Job, Rejection


@dataclass(frozen=True)
class Decision:
    """The call without its words.

    Attributes:
        winner: None when nothing that may be taken runs.
        runner_up: the best of another recipe that runs, else another rung of the winner's.
        rejected: every other candidate, priced or not.
    """

    winner: Priced | None
    runner_up: Priced | None
    rejected: tuple[Rejection, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def priced(self) -> list[Priced]:
        return [p for outcome in self.outcomes for p in outcome.priced]


def decide(job: Job, facts: Facts, outcomes: Sequence[Outcome]) -> Decision:
    """The first recipe in the order of preference that has a rung which runs."""
    winner = winner_of(job, facts, outcomes)
    rejected = [r for o in outcomes for r in o.rejected]
    for outcome in outcomes:
        rejected += [_rejection(job, facts, outcome, p, winner, outcomes) for p in outcome.priced if p is not winner]
    return Decision(winner, _runner_up(job, facts, outcomes, winner), tuple(rejected), tuple(outcomes))


def serves(job: Job, outcome: Outcome) -> Priced | None:
    """The best of a recipe that the engine can serve."""
    best = outcome.best
    return best if best is not None and engine_serves(job, best.candidate) is None else None


def winner_of(job: Job, facts: Facts, outcomes: Sequence[Outcome]) -> Priced | None:
    """The best of the first recipe, in the order of preference, that runs and that the engine can serve."""
    by_name = {o.recipe.name: o for o in outcomes}
    best = (serves(job, by_name[r.name]) for r in takeable(job, facts) if r.name in by_name)
    return next((p for p in best if p is not None), None)


def first_that_runs(job: Job, facts: Facts, price: Price) -> Priced | None:
    """The winner alone: recipes are looked at in the order of preference, and no further than needed."""
    for recipe in takeable(job, facts):
        if (found := serves(job, climb_one(job, facts, recipe, price))) is not None:
            return found
    return None


def _runner_up(job: Job, facts: Facts, outcomes: Sequence[Outcome], winner: Priced | None) -> Priced | None:
    if winner is None:
        return None
    free = job.model_copy(update={"method": None})
    by_name = {o.recipe.name: o for o in outcomes}
    others = [by_name[r.name] for r in takeable(free, facts) if r.name in by_name and r.name != winner.candidate.recipe]
    found = [p for o in others if (p := serves(job, o)) is not None]
    rungs = [p for p in by_name[winner.candidate.recipe].priced if p is not winner and not first_broken(job, facts, p)]
    return next(iter([*found, *rungs]), None)


def soft(job: Job, facts: Facts, priced: Priced) -> Rejection | None:
    """The first rule by which this candidate is not the better call, whatever the others are."""
    recipe, candidate = priced.recipe, priced.id
    return (
        discouraged(job, facts, recipe, candidate)
        or variant_needs_sweep(job, facts, recipe, candidate)
        or attention_only(job, recipe, candidate)
        or precision_trap(job, facts, recipe, candidate)
        or capacity_suffices(job, facts, priced)
    )


def _rejection(
    job: Job, facts: Facts, outcome: Outcome, priced: Priced, winner: Priced | None, outcomes: Sequence[Outcome]
) -> Rejection:
    """Hard before soft, soft before preference."""
    return (
        first_broken(job, facts, priced)
        or engine_serves(job, priced.candidate)
        or soft(job, facts, priced)
        or _beside_its_own(outcome, priced)
        or _shown_worse(job, facts, priced, winner)
        or _beside_the_winner(job, facts, priced, winner)
        or _less_preferred(job, priced)
    )


def _beside_its_own(outcome: Outcome, priced: Priced) -> Rejection | None:
    """A rung that saves memory which is not short."""
    best = outcome.best
    if best is None or best is priced:
        return None
    memory, config = best.estimate.memory, priced.candidate.config
    room = f"{memory.interval[1] / GB:.2f} GB needed without, {memory.room / GB:.2f} GB there"
    if config.gradient_checkpointing and not best.candidate.config.gradient_checkpointing:
        text = "Activations fit, so computing them twice only costs time."
        return reject(priced.id, "recomputation_needed", text, room, "the activations did not fit")
    if priced.candidate.parallel != best.candidate.parallel:
        text = "A whole copy fits on each device, so splitting it only costs communication."
        return reject(priced.id, "sharding_needed", text, room, "no whole copy fitted a device")
    return None


def _shown_worse(job: Job, facts: Facts, priced: Priced, winner: Priced | None) -> Rejection | None:
    """Beaten by the winner's method in the owner's own comparison."""
    shown = shown_better(job, facts, priced.recipe.method)
    if winner is None or shown is None or method_of(shown[0], shown[1].winner) != winner.recipe.method:
        return None
    return reject(
        priced.id,
        RULE,
        f"Your {shown[0].told} shows {shown[1].winner} better than {shown[1].loser}.",
        shown[1].gap(),
        "a comparison with more seeds, other ranks or a wider sweep said otherwise",
    )


def _beside_the_winner(job: Job, facts: Facts, priced: Priced, winner: Priced | None) -> Rejection | None:
    if winner is None or job.method is not None:
        return None
    recipe, best = priced.recipe, winner.recipe
    if recipe.name == "qlora" and best.name == "lora":
        memory = winner.estimate.memory
        return reject(
            priced.id,
            "quantisation_needed",
            "Plain LoRA fits, and 4-bit weights cost time in every pass and quality that nobody has to pay here.",
            f"LoRA needs {memory.interval[1] / GB:.2f} GB at the upper end of {memory.room / GB:.2f} GB",
            "LoRA fitted in no way",
        )
    if recipe.trains_weights and not best.trains_weights and spares(job):
        return reject(
            priced.id,
            "adapter_forgets_less",
            "A strong shift without replay: an adapter learns less and keeps more.",
            f"budget {job.forgetting.budget_nats:g} nats",
            "replay were allowed, or the forgetting budget were larger",
        )
    if recipe.trains_weights and not best.trains_weights and (times := headroom(job, facts, best)) >= 0.5:
        ours, theirs = winner.estimate.storage.checkpoint_bytes, priced.estimate.storage.checkpoint_bytes
        return reject(
            priced.id,
            "adapter_suffices",
            f"An adapter holds {times:,.1f} times what this data teaches, so training every weight buys nothing that "
            "this goal needs.",
            f"checkpoint {theirs / 1e6:,.0f} MB against {ours / 1e6:,.0f} MB" + _copies(job, priced, winner),
            "the data taught more than the adapter can hold",
        )
    return None


def _copies(job: Job, full: Priced, adapter: Priced) -> str:
    """What several variants need in a server's memory, as copies and as adapters; nothing to say for one."""
    if job.variants == 1:
        return ""
    copies, shared = (p.estimate.serving.all_variants_bytes / 1e6 for p in (full, adapter))
    return (
        f"; {job.variants} variants take {copies:,.0f} MB of memory as copies, {shared:,.0f} MB as adapters on one base"
    )


def _less_preferred(job: Job, priced: Priced) -> Rejection:
    why = f"The job forces {job.method.name}." if job.method else "It would run, but the choice above comes first."
    return Rejection(method=priced.id, rule="preference", number=None, text=why, would_flip_if=None)
