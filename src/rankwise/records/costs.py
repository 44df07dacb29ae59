"""What a piece of work costs: time, money, storage, serving, velocity. `null` is unknown, never 0."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record

Pricing = Literal["on-demand", "spot"]
ServingFormat = Literal["bf16", "fp8", "awq", "gptq", "nf4"]


class Billing(Record):
    """What money depends on beside the time."""

    prices: Path | None = Field(None, description="A file of your own prices (YAML, JSON, TOML); they go before ours.")
    pricing: Pricing = Field("on-demand", description="Which price of a GPU: on-demand or spot.")
    runs: int | None = Field(None, ge=1, description="Training runs until the model is right; null: 10 to 20.")
    sweep: int | None = Field(None, ge=1, description="Runs of a planned sweep, which take the place of `runs`.")
    failure_rate: float = Field(0.1, ge=0, lt=1, description="Share of runs that die before their end, and resume.")
    energy: bool = Field(False, description="Also the electricity: kWh, and USD where the price file has a rate.")
    write_bandwidth: float = Field(1e9, gt=0, description="Bytes per second at which weights are read and written.")


class ServingLoad(Record):
    """What a server has to carry."""

    serving_format: ServingFormat = Field("bf16", description="Weights of the base in the server.")
    context: int = Field(4096, ge=1, description="Tokens of one served conversation.")
    concurrency: int = Field(8, ge=1, description="Conversations open at one time, over all tenants.")
    slots: int = Field(8, ge=1, description="Adapters that lie in the GPU's memory at one time.")
    zipf: float = Field(1.0, ge=0, description="Popularity of tenants: share of requests ~ rank^-zipf; 0 is uniform.")


class CostOptions(Billing, ServingLoad):
    """What a bill depends on beside the training step."""

    variants: int = Field(1, ge=1, description="Tenants that each get their own model.")
    keep_best: int = Field(1, ge=0, description="Checkpoints kept for their validation loss.")
    keep_last: int = Field(2, ge=0, description="Checkpoints kept because they are the newest.")
    save_steps: int | None = Field(None, ge=1, description="Optimizer steps between checkpoints; null: four in a run.")
    eval_steps: int | None = Field(None, ge=1, description="Optimizer steps between validations; null: four in a run.")
    eval_examples: int = Field(0, ge=0, description="Rows of one validation; 0: none is made.")


class Tariff(Record):
    """Prices that are no GPU's."""

    usd_per_gb_month: float | None = Field(description="Of storage; a GB is 1e9 bytes.")
    electricity_usd_per_kwh: float | None
    source: str = Field(description="Of the price of storage, with its date.")


class FlopsByPhase(Record):
    """Floating-point operations of one optimizer step, a multiply-add counted as two."""

    forward: float
    backward: float
    optimizer: float


class StepSeconds(Record):
    """Seconds of one optimizer step by what takes them; they add up to `step_seconds`."""

    forward: float
    backward: float
    optimizer: float
    communication: float = Field(description="Between devices, what arithmetic does not hide.")
    offload: float = Field(description="Between device and host, and the update on the host.")
    data: float = Field(description="Waiting for the next batch.")


class WatchEstimate(Record):
    """How often a run looks at general ability, at how much of it, and what that costs."""

    steps: int = Field(description="Optimizer steps between two looks; there is one at the end in any case.")
    items: int = Field(description="Rows or questions of each set, at most.")
    looks: int = Field(description="Of the whole run, that at the untouched base counted.")
    seconds: float | None = Field(description="Of all of them; None where no rate is known.")
    share: float | None = Field(description="Of train_seconds.")


class TimeEstimate(Record):
    """Seconds, of a run that is not interrupted."""

    flops_per_token: float
    flops: FlopsByPhase
    tokens_per_second: float | None = Field(description="Real tokens of training steps, over all devices.")
    step_seconds: float | None
    step: StepSeconds | None = Field(None, description="The step by its parts.")
    load_seconds: float | None = Field(None, description="Starting the process and reading the weights.")
    evaluation_seconds: float | None = Field(None, description="All validations of the run.")
    save_seconds: float | None = Field(None, description="All checkpoints of the run.")
    watch: WatchEstimate | None = Field(None, description="Of forgetting, during the run; null: it is not watched.")
    merge_seconds: float | None = Field(None, description="Folding the adapter into its base, after the run.")
    train_seconds: float | None = Field(description="The whole run: load, steps, validations, checkpoints and watches.")
    interval: Interval | None = Field(description="Of train_seconds.")
    relative: Interval | None = Field(None, description="Low and high factor on every predicted duration.")
    correction: float | None = Field(
        None, description="Factor of this machine's ledger in the seconds of a step; null: by formula alone."
    )


class MoneyEstimate(Record):
    """US dollars."""

    usd_per_hour: float | None = Field(None, description="Of one device, as it is charged.")
    train_usd: float | None = Field(description="One run that is not interrupted, on all devices.")
    interval: Interval | None = Field(description="Of train_usd.")
    runs: Interval | None = Field(None, description="Expected number of runs, low and high.")
    failures_usd: float | None = Field(None, description="Expected extra of one run for failures and restarts.")
    project_usd: float | None = Field(None, description="All runs with their failures.")
    project_interval: Interval | None = None
    energy_kwh: float | None = Field(None, description="Of one run; null when it was not asked for.")
    energy_usd: float | None = None


class StorageEstimate(Record):
    """Bytes on disk."""

    checkpoint_bytes: int = Field(description="One resumable checkpoint.")
    weights_only_bytes: int | None = Field(None, description="One checkpoint without optimizer state.")
    adapter_bytes: int | None = Field(description="The adapter alone; null for full fine-tuning.")
    merged_bytes: int | None = Field(None, description="The model with its adapter folded in; null where it cannot be.")
    checkpoints: int | None = Field(
        None, description="Checkpoints that a run writes; null where its steps are unknown."
    )
    kept: int | None = Field(None, description="Of those, how many retention leaves.")
    run_bytes: int = Field(description="The most that the run folder holds at one time.")
    unpruned_bytes: int | None = Field(None, description="What the run would hold if nothing were removed.")
    write_seconds: float | None = Field(None, description="To write one resumable checkpoint.")
    usd_per_month: float | None = Field(description="To keep what one run leaves.")


class Slots(Record):
    """Adapters in GPU memory against how often each tenant asks: a simulation of the least-recently-used order."""

    slots: int
    zipf: float
    hit_rate: float = Field(description="Share of requests whose adapter lies in a slot.")
    interval: Interval = Field(description="Of the hit rate, 95 %, over simulated days.")
    miss_seconds: float | None = Field(description="Time to the first token that a miss adds: the transfer alone.")
    active_tenants: float = Field(
        description="Different tenants among `concurrency` conversations; more than slots, and a miss waits for one."
    )


class ServingEstimate(Record):
    """Bytes and prices of N variants: as full copies, and as adapters on one base."""

    base_bytes: int = Field(description="Weights of the base as it is served.")
    per_variant_bytes: int = Field(description="What one more variant takes.")
    all_variants_bytes: int = Field(description="All variants the way this method serves them, weights only.")
    copies_bytes: int | None = Field(None, description="All variants as full copies, weights only.")
    kv_cache_bytes_per_token: int | None = Field(None, description="Of one conversation; null where unknown.")
    kv_cache_bytes: int | None = Field(None, description="Of `concurrency` conversations of `context` tokens.")
    gpus: int | None = Field(None, description="GPUs that serve all variants the way this method does.")
    copies_gpus: int | None = Field(None, description="GPUs that serve all variants as full copies.")
    usd_per_month: float | None = None
    copies_usd_per_month: float | None = None
    unmerged_penalty: Interval | None = Field(None, description="Share of throughput that unmerged adapters cost.")
    break_even_variants: int | None = Field(None, description="From this many on, one base with adapters is cheaper.")
    slots: Slots | None = None


class VelocityEstimate(Record):
    """How fast a team learns: a run and its evaluation, one after the other."""

    turnaround_seconds: float | None = Field(description="From start to a judged model: run, evaluation, failures.")
    interval: Interval | None = None
    runs_per_week: float | None = Field(description="One after the other on this hardware, day and night.")
    runs_per_usd: float | None
