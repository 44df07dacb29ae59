"""What the arms of a comparison need beside their steps: measured seconds, or FLOPs by formula."""

from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.compare.budget import Ask
from rankwise.compare.measured import Measured
from rankwise.estimate.counted import counter_of
from rankwise.estimate.efficiency import ON_CPU
from rankwise.records import Arm, Bakeoff, Interval, ModelFacts, Plan
from rankwise.records.bakeoff import ArmKind
from rankwise.records.ledger import EvaluationWork

DISK_BYTES_PER_SECOND = 0.3e9  # of published weights, until they are on the disk
POINTS = 4  # looks of a final run at its loss, after that at its start

Costs = Mapping[str, Mapping[int, float]]  # arm -> items of each kind at most -> of all answers of one model


@dataclass(frozen=True)
class Bill:
    """What each arm needs, in FLOPs or in seconds.

    Attributes:
        step: of one step; None: untrained. step_flops: the same in FLOPs, traced.
        look: at the loss on the rows set aside. load: of one run. start: of one process. answers: of one model.
        measured: of the trained arms, where the budget is time.
        items: metric that is a share -> its items, where all are asked.
        source: where the numbers come from.
    """

    bakeoff: Bakeoff
    step: Mapping[str, float | None]
    step_flops: Mapping[str, float | None]
    look: Mapping[str, float]
    load: Mapping[str, float]
    start: Mapping[str, float]
    answers: Costs
    measured: Mapping[str, Measured]
    items: Mapping[str, int]
    source: str

    @property
    def all_items(self) -> int:
        """The most items of a kind that there are."""
        return max(max(by) for by in self.answers.values())

    def sizes_within(self, limit: float) -> list[int]:
        """Items of each kind with which all answers stay within `limit`, the most first; the fewest that are worth
        asking in any case.
        """
        fewest, *others = sorted(next(iter(self.answers.values())))
        return [*sorted((most for most in others if self._answering(most) <= limit), reverse=True), fewest]

    def _answering(self, most: int) -> float:
        return sum(self._runs(a.arm) * self.answers[a.arm.name][most] for a in self.bakeoff.allowances)

    def _runs(self, arm: Arm) -> int:
        return len(self.bakeoff.seeds) if arm.kind == "trained" else 1

    def asks(self, most: int) -> list[Ask]:
        """What `budget.deal` deals by."""
        return [self._ask(a.arm, len(a.learning_rates), most) for a in self.bakeoff.allowances]

    def _ask(self, arm: Arm, rates: int, most: int) -> Ask:
        name, seeds = arm.name, self._runs(arm)
        swept = rates if rates > 1 else 0
        looks = 1 + swept + seeds * POINTS if arm.kind == "trained" else 0
        beside = self.start[name] + (swept + seeds) * self.load[name] + looks * self.look[name]
        return Ask(name, self.step[name], beside + seeds * self.answers[name][most])

    def step_seconds(self, name: str) -> float | None:
        """Measured, or as predicted."""
        if name in self.measured:
            return self.measured[name].step
        return next(a.step_seconds for a in self.bakeoff.allowances if a.arm.name == name)

    def answer_seconds(self, arm: Arm, most: int) -> float | None:
        """Of one model; None: not known."""
        return self.answers[arm.name][most] if self.measured else None

    def spread(self, name: str, plan: Plan) -> Interval:
        """Low and high factor on an arm's seconds: what was measured of its steps, or the prediction's own."""
        estimate = plan.chosen()
        if self.measured:
            of = self.measured.get(name) or next(iter(self.measured.values()))
            return of.spread
        return estimate.time.relative if estimate and estimate.time.relative else ON_CPU


def bill_of(bakeoff: Bakeoff, measured: Mapping[str, Measured]) -> Bill:
    """Seconds. An arm that was not measured is asked by the quickest model that was."""
    quickest = min(measured.values(), key=lambda m: m.load)

    def of(arm: Arm) -> Measured:
        return measured.get(arm.name, quickest)

    def answers(kind: ArmKind) -> dict[int, float]:
        tables = [m.answers[kind] for m in measured.values()]
        return {most: min(table[most] for table in tables) for most in tables[0]}

    arms = [a.arm for a in bakeoff.allowances]
    stored = {a.arm.name: a.stored_bytes or 0.0 for a in bakeoff.allowances}
    return Bill(
        bakeoff,
        step={arm.name: of(arm).step if arm.kind == "trained" else None for arm in arms},
        step_flops={arm.name: of(arm).step_flops if arm.kind == "trained" else None for arm in arms},
        look={arm.name: of(arm).look for arm in arms},
        load={arm.name: of(arm).load + stored[arm.name] / DISK_BYTES_PER_SECOND for arm in arms},
        start={arm.name: of(arm).start for arm in arms},
        answers={arm.name: of(arm).answers["trained"] if arm.kind == "trained" else answers(arm.kind) for arm in arms},
        measured=measured,
        items=quickest.items,
        source="reserved first, by seconds measured here",
    )


def read_bill(bakeoff: Bakeoff, plans: Mapping[str, Plan]) -> Bill:
    """FLOPs, by what every arm will be asked. Raises DataError, UsageError: there is nothing to ask."""
    plan = next(iter(plans.values()))
    from rankwise.api.papers import works  # here: it imports torch

    asked = works(bakeoff, plan)
    steps = {a.arm.name: _step_flops(plans[a.arm.name]) if a.config else None for a in bakeoff.allowances}
    model = plan.facts.model
    row = 2 * plan.facts.data.mean_length * (model.linear_params + _head(model))
    return Bill(
        bakeoff,
        step=steps,
        step_flops=steps,
        look={a.arm.name: row * asked.aside for a in bakeoff.allowances},
        load={a.arm.name: 0.0 for a in bakeoff.allowances},
        start={a.arm.name: 0.0 for a in bakeoff.allowances},
        answers={
            a.arm.name: {most: answer_flops(work, model) for most, work in asked.works[a.arm.kind].items()}
            for a in bakeoff.allowances
        },
        measured={},
        items=asked.items,
        source="reserved first, two FLOPs for each weight that a token meets",
    )


def _step_flops(plan: Plan) -> float:
    return counter_of(plan).mean_step(plan)


def answer_flops(work: EvaluationWork, model: ModelFacts) -> float:
    """Of likelihoods and greedy answers; attention, which grows with the square of short prompts, is left out."""
    said = sum(batch.rows * batch.steps for batch in work.batches)
    prompts = sum(batch.rows * batch.prompt for batch in work.batches)
    return 2.0 * (model.linear_params * (work.tokens + prompts + said) + _head(model) * (work.labelled + said))


def _head(model: ModelFacts) -> float:
    """Parameters of the product with the vocabulary."""
    return (model.total_params - model.linear_params) / (1 if model.tie_word_embeddings else 2)
