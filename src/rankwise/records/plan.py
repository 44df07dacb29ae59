"""Candidate, Estimate and Plan: what could be done, what it would cost, and what to do."""

from typing import Any, Literal

from pydantic import Field

from rankwise.records.base import Interval, Record
from rankwise.records.costs import (
    CostOptions,
    MoneyEstimate,
    ServingEstimate,
    StorageEstimate,
    TimeEstimate,
    VelocityEstimate,
)
from rankwise.records.facts import Facts
from rankwise.records.job import Job, NewTokenRows, OnLong
from rankwise.records.lineage import Lineage
from rankwise.records.setup import Offload, Parallel


class TrainConfig(Record):
    """Everything `train` needs, by Hugging Face names; executed as it stands."""

    method: str
    r: int | None = Field(None, description="LoRA rank.")
    lora_alpha: float | None = None
    lora_dropout: float | None = None
    target_modules: str | tuple[str, ...] | None = None
    adapter: str | None = Field(None, description="Folder of the adapter that training goes on from.")
    loraplus_lr_ratio: float | None = Field(None, description="LoRA+: learning rate of B over that of A.")
    init_lora_weights: str | None = Field(None, description="PiSSA: how the SVD is computed; None: exactly.")
    num_virtual_tokens: int | None = Field(None, description="Prompt and prefix methods: learned positions.")
    bottleneck_size: int | None = Field(None, description="Bottleneck adapters: their inner width.")
    num_train_epochs: float
    max_steps: int = Field(description="Optimizer steps of the whole run.")
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float = Field(description="0: gradients are not clipped.")
    optim: str
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    packing: bool = Field(
        False, description="Documents of a step end to end in rows of at most max_length, attention within each alone."
    )
    optimizer_in_backward: bool = Field(
        False, description="Each parameter is updated as soon as its gradient is there, and the gradient freed."
    )
    bf16_stochastic_round: bool = Field(
        False, description="Updates of trained bf16 weights are rounded up or down by chance."
    )
    dtype: Literal["bf16", "fp32"] = Field(description="Of the loaded base weights.")
    autocast: Literal["bf16"] | None = Field(description="Arithmetic of the forward pass where it differs from dtype.")
    new_token_ids: tuple[int, ...] | None = Field(None, description="Rows that the base's embedding does not have.")
    new_token_rows: NewTokenRows | None = Field(None, description="How an adapter trains them; None: as `method` says.")
    max_length: int
    on_long: OnLong
    replay_share: float = Field(description="Share of supervised tokens from data.general.")
    eval_steps: int
    save_steps: int
    save_total_limit: int
    save_top_k: int = Field(1, description="Kept for their held-out loss, weights alone.")
    save_url: str | None = Field(None, description="Checkpoints are copied there, by fsspec.")
    logging_steps: int
    watch_steps: int | None = Field(None, description="Between two looks at general ability; None: no look is taken.")
    watch_items: int | None = Field(None, description="Rows or questions of each set that a look takes; None: all.")
    seed: int
    deepspeed: dict[str, Any] | None = Field(None, description="DeepSpeed's JSON, for zero2 and zero3.")
    fsdp_config: dict[str, Any] | None = Field(
        None, description="`fsdp_config` of transformers' TrainingArguments, for fsdp."
    )

    @property
    def effective_batch(self) -> int:
        """Rows per optimizer step on one device."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def costs(self, job: Job, facts: Facts) -> CostOptions:
        """What the bill depends on: said in the job, and done by this configuration."""
        return CostOptions(
            **job.costs.model_dump(),
            **job.serving.model_dump(exclude={"engine"}),
            variants=job.variants,
            keep_last=self.save_total_limit,
            keep_best=self.save_top_k + (job.forgetting.action == "rollback"),  # what was green last is kept, too
            save_steps=self.save_steps,
            eval_steps=self.eval_steps,
            eval_examples=facts.data.validation_rows,
        )


class Candidate(Record):
    """One way to do the job."""

    id: str = Field(description="Short name, unique in the plan, e.g. lora-r8.")
    recipe: str = Field(description="Method with its precision and optimizer, e.g. full-8bit; rungs of it share it.")
    method: str
    parallel: Parallel
    offload: Offload = "none"
    config: TrainConfig


class MemoryEstimate(Record):
    """Bytes on one device; `None` where it is not computed."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    peak_allocated: int
    peak_reserved: int | None
    peak_device: int
    peak_phase: str | None
    peak_op: str | None
    eval_peak: int | None
    save_peak: int | None
    merge_peak: int | None
    capacity: int | None
    interval: Interval
    fits: bool | None = Field(description="True when the upper end of the interval is within capacity.")

    @property
    def room(self) -> int:
        """The capacity of a device that is known, as that of every plan is."""
        assert self.capacity is not None
        return self.capacity


class Estimate(Record):
    """One candidate priced. `null` is unknown, never 0."""

    id: str | None
    model: str
    method: str
    trainable_params: int
    total_params: int
    memory: MemoryEstimate
    time: TimeEstimate
    money: MoneyEstimate
    storage: StorageEstimate
    serving: ServingEstimate
    velocity: VelocityEstimate
    sources: dict[str, str] = Field(description="Where each group of numbers comes from.")
    notes: tuple[str, ...]


Step = Literal["need", "capacity", "feasibility", "cost", "risk", "configuration"]


class Reason(Record):
    step: Step = Field(description="Which question it answers; `configuration`: why a value of the run is what it is.")
    rule: str = Field(description="Name of the rule in decide/rules.py.")
    text: str
    number: str | None = Field(description="The number that decided it, with its unit.")
    evidence: tuple[str, ...] = Field(description="Ids in decide/evidence.toml, spelled out with source.")


class Rejection(Record):
    method: str = Field(description="Id of a candidate, priced or not.")
    rule: str
    number: str | None
    text: str
    would_flip_if: str | None
    evidence: tuple[str, ...] = Field((), description="As in a reason.")


class Flip(Record, populate_by_name=True, serialize_by_alias=True):
    """Found by deciding again with one input changed."""

    if_: str = Field(alias="if")
    then: str
    axis: str = Field(description="The input that was changed, as a job key or a fact, e.g. budget.usd.")
    at: float = Field(description="Its value from which on the call is another one, in `unit`.")
    now: float = Field(description="Its value in this job.")
    unit: str


class Rung(Record):
    """A way below fine-tuning: nothing is trained."""

    name: Literal["nothing", "prompting", "retrieval"]
    first: bool = Field(description="Try it before training?")
    rule: str
    text: str
    number: str | None
    tokens_per_request: float | None = Field(description="Prompt tokens that each request carries more.")
    kv_cache_bytes: int | None = Field(description="That they take in the server, a conversation.")
    evidence: tuple[str, ...]


class QualityPrior(Record):
    """Expected share of what full fine-tuning without limits would gain: a prior from published head-to-heads."""

    value: float
    interval: Interval
    source: str


class Offer(Record):
    """A candidate on hardware that could be rented."""

    gpu: str
    count: int
    candidate: str
    method: str
    parallel: Parallel
    peak_device: int = Field(description="Bytes on the fullest device.")
    capacity: int
    train_seconds: float | None
    usd: float | None = Field(description="One run.")
    usd_interval: Interval | None
    why: str = Field(description="What it is the best of, e.g. cheapest that fits.")
    source: str


class Verdict(Record):
    method: str = Field(description="A method name, or `none` when nothing can run.")
    candidate: str | None = Field(description="Id of the chosen candidate; None when nothing can run.")
    parallel: str | None
    config: TrainConfig | None
    confidence: Literal["high", "medium", "low"]
    confidence_because: str
    executable: bool = Field(description="Can this version's `train` carry it out?")
    first_try: tuple[str, ...] = Field(description="Cheaper rungs to try before training; they never hide the verdict.")


class Plan(Record):
    """The call: a verdict with reasons, what it rejected, and what would change it."""

    version: Literal[2] = 2
    verdict: Verdict
    runner_up: str | None = Field(description="Id of the next best candidate.")
    reasons: tuple[Reason, ...]
    rejected: tuple[Rejection, ...]
    flips: tuple[Flip, ...]
    warnings: tuple[str, ...]
    questions: tuple[str, ...] = Field(description="At most two: those whose answers would change the call.")
    need_bits: float | None = Field(None, description="Bits that the rows teach at most; None in older plans.")
    held_bits: float | None = Field(
        None, description="Bits that the adapter of the call is planned to hold; None: all weights train, or no call."
    )
    rungs: tuple[Rung, ...] = Field(description="Doing nothing, prompting, retrieval.")
    offers: tuple[Offer, ...] = Field(description="What could be rented instead, cheapest first.")
    candidates: tuple[Estimate, ...]
    priors: dict[str, QualityPrior] = Field(description="By id of a candidate.")
    job: Job = Field(description="With absolute paths.")
    facts: Facts
    job_hash: str
    base_hash: str | None = Field(description="Of the base weights; None when they are not here.")
    data_hash: str
    hardware_hash: str
    rankwise_version: str

    def estimate(self, candidate_id: str) -> Estimate:
        """The priced candidate of that id. Raises KeyError."""
        return {e.id: e for e in self.candidates}[candidate_id]

    def chosen(self) -> Estimate | None:
        """The estimate of the verdict; None when the verdict is `none`."""
        return next((e for e in self.candidates if e.id == self.verdict.candidate), None)

    @property
    def split_seed(self) -> int:
        """What decides which rows are held out: the job's seed, which runs of a comparison share whatever their own."""
        return self.job.train.seed or 0

    def lineage(self) -> Lineage:
        """Hashes of what this plan's result comes from. The files of its base are here."""
        assert self.base_hash is not None  # nothing is trained without its files
        return Lineage(
            job=self.job_hash,
            facts=self.facts.content_hash(),
            plan=self.content_hash(),
            base_weights=self.base_hash,
            data=self.data_hash,
            chat_template=self.facts.model.template_hash,
            parent=self.facts.parent,
        )

    def content_hash(self) -> str:
        """As of every record; where the base lies on this machine is no part of it, for the base has its own hash."""
        model = self.facts.model.model_copy(update={"folder": None})
        return Record.content_hash(self.model_copy(update={"facts": self.facts.model_copy(update={"model": model})}))

    def contract(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        return self.model_dump(mode="json", by_alias=True)
