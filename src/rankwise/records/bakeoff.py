"""A comparison of methods: what is planned (Bakeoff), what each model scored (Trial), and what follows (Outcome).

`Comparison` is one metric of two models; a bake-off holds many of them."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record
from rankwise.records.job import Job, MethodChoice
from rankwise.records.past import Side
from rankwise.records.plan import TrainConfig

BudgetUnit = Literal["flops", "minutes", "usd"]
ArmKind = Literal["base", "fewshot", "retrieval", "trained"]


class Arm(Record):
    """One way to answer the job, as it was asked for."""

    name: str = Field(description="As written: base, fewshot, lora:r=8. No two arms of a comparison share one.")
    kind: ArmKind
    method: MethodChoice | None = Field(description="Of a trained arm: what the job's `method` becomes.")


class Allowance(Record):
    """What one arm may spend, and what is expected of it. FLOPs count a multiply-add as two."""

    arm: Arm
    config: TrainConfig | None = Field(description="Of its final runs but for learning rate and seed; None: untrained.")
    step_flops: float | None = Field(description="Traced, of one optimizer step at the mean length of the rows.")
    step_seconds: float | None = Field(description="Measured here where the budget is time, else predicted.")
    steps: int = Field(description="Optimizer steps of each final run; 0: untrained.")
    odd_steps: int = Field(0, description="The final runs of so many seeds, the first ones, take one step more.")
    sweep_steps: int = Field(description="Optimizer steps of each run of the sweep; 0: no sweep.")
    learning_rates: tuple[float, ...] = Field(description="Of the sweep; one where nothing is swept.")
    flops: float = Field(description="Of all its training, sweep included.")
    training_seconds: float | None = Field(description="The same in seconds.")
    evaluation_seconds: float | None = Field(description="Of all its answers.")
    interval: Interval | None = Field(description="Of training_seconds + evaluation_seconds.")
    peak_memory: float | None = Field(description="Predicted bytes of the process.")
    stored_bytes: float | None = Field(description="Predicted, of what it publishes for one model.")
    heldout_loss: float | None = Field(None, description="Expected by an earlier comparison, nats per token.")


class Detectable(Record):
    """The smallest difference that this comparison can tell, printed before it runs."""

    metric: str
    unit: str
    items: int
    difference: float = Field(description="Found in 80 % of repeats at a family-wise error of 5 %.")
    source: str


class Bakeoff(Record):
    """The plan of a comparison: `comparison.json`."""

    version: Literal[1] = 1
    job: Job
    job_hash: str
    base_hash: str | None = Field(description="Of the base's weights, so that evidence is found again; None: unknown.")
    unit: BudgetUnit
    budget: float = Field(description="Of the whole comparison, in `unit`: sweep, seeds and evaluation included.")
    seeds: tuple[int, ...]
    most_items: int | None = Field(
        None, description="Held-out rows, prompts, probes and general rows that are asked at most; None: all."
    )
    allowances: tuple[Allowance, ...]
    detectable: tuple[Detectable, ...]
    notes: tuple[str, ...]


class Scores(Record):
    """One metric of one model, item by item; the same items in the same order for every model."""

    metric: str
    unit: str
    side: Side
    higher_is_better: bool
    values: tuple[float, ...] = Field(description="Of a loss the nats of the item's tokens, summed.")
    weights: tuple[float, ...] | None = Field(
        None, description="Tokens of each item, of a loss, whose mean is sum(values) / sum(weights); None: all alike."
    )


class CurvePoint(Record):
    """Where a run was."""

    step: int
    flops: float
    seconds: float = Field(description="Of training, without validations and looks.")
    loss: float = Field(description="On the rows that rates are chosen on, nats per token.")


class Said(Record):
    """What one model answered to one prompt."""

    prompt: str
    expected: str
    answer: str
    ok: bool | None = Field(description="None: nobody can say by machine.")
    side: Side


class Trial(Record):
    """One finished run of an arm, in `trials/`: of the sweep or of one seed."""

    version: Literal[1] = 1
    arm: str
    purpose: Literal["sweep", "final"]
    seed: int
    learning_rate: float | None
    steps: int
    flops: float | None = Field(description="Of training, traced step by step.")
    tokens: int
    training_seconds: float
    evaluation_seconds: float
    peak_memory: float | None = Field(description="Bytes of the process.")
    stored_bytes: int | None = Field(description="Of the published weights; None: none are.")
    trainable_params: int | None
    chosen_by: float | None = Field(
        description="Loss on the rows that rates are chosen on; None: diverged or untrained."
    )
    curve: tuple[CurvePoint, ...]
    scores: tuple[Scores, ...] = Field(description="Of final runs only.")
    answers: tuple[Said, ...]
    notes: tuple[str, ...]


class Contrast(Record):
    """Two arms on one metric, over the same items and seeds."""

    metric: str
    unit: str
    side: Side
    first: str
    second: str
    difference: float = Field(description="first - second.")
    interval: Interval = Field(description="95 %, of this pair alone.")
    adjusted: Interval = Field(description="At the level that holds 95 % for all contrasts of this metric together.")
    p_value: float = Field(description="Corrected for all contrasts of this metric.")
    answer: Literal["better", "worse", "cannot tell"] = Field(description="Of `first`.")
    items: int
    seeds: int
    more_items: int | None = Field(description="Further items needed to tell a difference as large as the one seen.")
    source: str


class ArmResult(Record):
    """What an arm reached, over its seeds."""

    arm: str
    learning_rate: float | None = Field(description="The one that the sweep chose.")
    at_the_edge: bool = Field(description="The chosen rate is the lowest or highest that was tried.")
    means: dict[str, float] = Field(description="Metric -> mean over items and seeds.")
    intervals: dict[str, Interval]
    flops: float | None = Field(description="Of one final run.")
    seconds: float = Field(description="Of one final run's training, mean.")
    peak_memory: float | None
    stored_bytes: float | None


class Conclusion(Record):
    """What can be said of one side of the job."""

    side: Side
    metric: str
    best: tuple[str, ...] = Field(description="Arms that no other is shown to beat; more than one: cannot tell.")
    text: str


class Outcome(Record):
    """What a comparison found: `outcome.json`."""

    version: Literal[1] = 1
    bakeoff_hash: str
    results: tuple[ArmResult, ...]
    contrasts: tuple[Contrast, ...]
    conclusions: tuple[Conclusion, ...]
    verdict: str = Field(description="One paragraph.")
    spent_flops: float
    spent_seconds: float
    spent_usd: float | None
    notes: tuple[str, ...]
