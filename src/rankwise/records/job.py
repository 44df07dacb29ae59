"""Job: what a person writes. Every field has its sentence; unknown keys are refused by `jobfile.read_job`."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rankwise.records.base import Record
from rankwise.records.costs import Billing, ServingLoad

Goal = Literal["instruction", "knowledge", "task", "unsure"]
Domain = Literal["general", "code", "math", "language"]
TrackerName = Literal["none", "tensorboard", "wandb", "mlflow", "trackio"]
Trackers = TrackerName | tuple[TrackerName, ...]
# Fields of PEFT's LoraConfig.
NewTokenRows = Literal["trainable_token_indices", "target_modules", "modules_to_save"]
OnLong = Literal["drop", "truncate", "split", "error"]
Optim = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "sgd",
    "adafactor",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "lion_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
]


class GeneralData(Record):
    """General rows mixed into training so that the model keeps what it could do before."""

    path: Path | None = Field(None, description="Rows in any training format.")
    self_generated: int | None = Field(
        None, ge=4, description="In the place of a path: rows that the base writes itself, once, before training."
    )
    share: float = Field(0.05, ge=0, lt=1, description="Share of the supervised tokens that are general.")

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        if (self.path is None) == (self.self_generated is None):
            raise ValueError("give either `path` (a file of general rows) or `self_generated` (a number of rows)")
        return self


class JobData(Record):
    """Training data given, or only described (`examples`, `tokens_per_example`) when planning comes first.

    A path names a file, a folder of files, `folder:split`, or a dataset of the hub: `org/name`, `org/name:split`.
    """

    train: Path | None = Field(None, description="Training rows: messages, alpaca, sharegpt, prompt/completion, text.")
    validation: float | Path = Field(0.1, description="Held-out rows: a share of the training rows, or a path.")
    general: GeneralData | None = Field(None, description="General rows for replay and for the forgetting check.")
    facts: Path | None = Field(None, description="Closed-book probes: question, answer and optional choices.")
    domain: Domain | None = Field(
        None, description="How far it lies from what the base saw: general, code, math, language (a new one)."
    )
    base_loss: float | None = Field(
        None, gt=0, description="Nats per answer token that the base does not know, where you measured it."
    )
    new_tokens: Annotated[int, Field(ge=0)] | tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        0,
        description="Tokens that the vocabulary does not have yet: a list, or a file with one a line, to train them; "
        "their number, to plan.",
    )
    examples: int | None = Field(None, ge=1, description="Number of training rows, when there is no file yet.")
    tokens_per_example: int | None = Field(
        None, ge=1, description="Mean tokens per row, when there is no file yet; null: 512 are assumed, and it is said."
    )

    @property
    def named_tokens(self) -> tuple[str, ...]:
        """New tokens that are known by their text; none where there is only a number."""
        return () if isinstance(self.new_tokens, int) else self.new_tokens

    @property
    def new_token_count(self) -> int:
        return self.new_tokens if isinstance(self.new_tokens, int) else len(self.new_tokens)

    @field_validator("new_tokens")
    @classmethod
    def _each_once(cls, value: int | tuple[str, ...]) -> int | tuple[str, ...]:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a token is named twice")
        return value

    @field_validator("validation")
    @classmethod
    def _share_is_a_share(cls, value: float | Path) -> float | Path:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a share lies between 0 and 1; give a path to use a file")
        return value

    @model_validator(mode="after")
    def _files_or_description(self) -> Self:
        if self.train is None and self.examples is None:
            raise ValueError("give `train` (a file), or describe the data with `examples` and `tokens_per_example`")
        if self.train is not None and (self.examples is not None or self.tokens_per_example is not None):
            raise ValueError(
                "`examples` and `tokens_per_example` describe data that is not there yet; drop them or `train`"
            )
        return self


class Hardware(Record):
    """What to run on. `gpu: cpu` is this machine's processor; nothing given means this machine as it is."""

    gpu: str | None = Field(None, description="A GPU name from `devices.toml`, or `cpu`; empty: this machine, probed.")
    count: int = Field(1, ge=1, description="Devices per node.")
    nodes: int = Field(1, ge=1, description="Machines.")


class Budget(Record):
    """What one training run may cost."""

    usd: float | None = Field(None, gt=0, description="US dollars.")
    hours: float | None = Field(None, gt=0, description="Wall-clock hours.")


class MethodChoice(Record):
    """A method that the person forces, with the options they care about; the rest comes from the plan."""

    name: str = Field(
        description="full, lora, qlora, lora-8bit, rslora, dora, pissa, ia3, prompt, prefix, p_tuning or bottleneck."
    )
    r: int | None = Field(None, ge=1, description="LoRA rank.")
    lora_alpha: float | None = Field(None, gt=0, description="LoRA alpha; the scale is alpha / r.")
    lora_dropout: float | None = Field(None, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: str | tuple[str, ...] | None = Field(None, description="`all-linear` or module names.")
    adapter: Path | None = Field(None, description="Go on from this adapter: a run, or a folder that PEFT wrote.")
    loraplus_lr_ratio: float | None = Field(
        None, ge=1, description="LoRA+: learning rate of B over that of A (train.learning_rate)."
    )
    init_lora_weights: str | None = Field(
        None,
        pattern=r"^pissa(_niter_[1-9][0-9]*)?$",
        description="PiSSA: `pissa` (exact SVD), or `pissa_niter_N`: a fast one of N subspace iterations.",
    )
    num_virtual_tokens: int | None = Field(None, ge=1, description="Prompt methods: learned positions.")
    bottleneck_size: int | None = Field(None, ge=1, description="Bottleneck adapters: their inner width.")


class Forgetting(Record):
    """How much general ability the run may cost."""

    budget_nats: float = Field(0.03, gt=0, description="Allowed rise of general cross-entropy, nats per token.")
    action: Literal["warn", "lower_lr", "stop", "rollback"] = Field(
        "warn", description="What to do when it is exceeded."
    )
    replay_allowed: bool = Field(True, description="May general rows be mixed into training?")
    general: Path | None = Field(
        None, description="Texts or rows that general ability is watched on; null: a short set of our own."
    )
    questions: Path | None = Field(
        None, description="Multiple-choice questions that it is watched on; null: a short set of our own."
    )
    watch_steps: int | None = Field(
        None, ge=0, description="Optimizer steps between two looks at it; null: the plan chooses, 0: none."
    )

    tasks: tuple[str, ...] = Field(
        (),
        description="Tasks of lm-evaluation-harness (extra `eval`) to watch as well, beyond the planned cost.",
    )
    tasks_path: Path | None = Field(None, description="A folder with YAML files of more tasks.")
    limit: int = Field(50, ge=6, description="Items of each of these tasks that are looked at.")

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_with_commas(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _acts_on_what_it_sees(self) -> Self:
        if self.watch_steps == 0 and self.action != "warn":
            raise ValueError(f"`action: {self.action}` acts on what is seen, and `watch_steps: 0` has nobody look")
        if self.watch_steps == 0 and self.tasks:
            raise ValueError("`tasks` are looked at while the run trains, and `watch_steps: 0` has nobody look")
        if self.tasks_path is not None and not self.tasks:
            raise ValueError("`tasks_path` holds `tasks`; name those that shall be looked at")
        return self


class AnswerFormat(Record):
    """What `answers in our style` means, checkable by a machine."""

    json_schema: Path | None = Field(None, description="JSON schema that a whole answer must satisfy.")
    regex: str | None = Field(None, description="Regular expression that a whole answer must match.")

    @field_validator("regex")
    @classmethod
    def _regex_is_one(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.json_schema is None) == (self.regex is None):
            raise ValueError("give either json_schema or regex")
        return self


class Evaluating(Record):
    """What `rankwise eval` asks beyond the rest of the job."""

    metrics: tuple[str, ...] = Field(
        (), description="Functions of your own that score answers, each as FILE.py:FUNCTION; they are run here."
    )

    @field_validator("metrics")
    @classmethod
    def _file_and_function(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for said in value:
            file, _, name = said.rpartition(":")
            if not file.endswith(".py") or not name.isidentifier():
                raise ValueError(f"{said!r} is not FILE.py:FUNCTION")
        return value


class Serving(ServingLoad):
    """Where the result will be served, and what it has to carry; limits of the engine enter the choice of method."""

    engine: Literal["embedded", "vllm"] = Field("embedded", description="Serving engine.")


class TrainOptions(Record):
    """Hugging Face names; whatever is set here overrides the plan, and the plan says so."""

    num_train_epochs: float | None = Field(None, gt=0, description="Passes over the training rows.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides num_train_epochs.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate.")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] | None = Field(
        None, description="Learning-rate schedule."
    )
    warmup_steps: int | None = Field(None, ge=0, description="Steps of linear warm-up.")
    weight_decay: float | None = Field(None, ge=0, description="AdamW weight decay.")
    max_grad_norm: float | None = Field(None, gt=0, description="Gradient norm is clipped to this.")
    optim: Optim | None = Field(None, description="Optimizer, by Hugging Face's name.")
    optimizer_in_backward: bool | None = Field(
        None, description="Update each parameter in the backward pass and free its gradient; nothing is clipped."
    )
    dtype: Literal["bf16", "fp32"] | None = Field(
        None, description="Of the loaded weights; bf16 of full fine-tuning: no fp32 copy of what trains."
    )
    bf16_stochastic_round: bool | None = Field(
        None, description="Trained bf16 weights: round updates up or down by chance, so that small ones count."
    )
    per_device_train_batch_size: int | None = Field(None, ge=1, description="Rows in one forward pass.")
    gradient_accumulation_steps: int | None = Field(None, ge=1, description="Forward passes in one optimizer step.")
    gradient_checkpointing: bool | None = Field(None, description="Recompute activations in the backward pass.")
    packing: bool | None = Field(None, description="Several documents in one row, none of which sees another.")
    bf16: bool | None = Field(None, description="bfloat16 arithmetic (needs a device that has it).")
    new_token_rows: NewTokenRows | None = Field(
        None,
        description="How an adapter trains data.new_tokens: their rows alone (trainable_token_indices), LoRA on "
        "embedding and head (target_modules), or both whole (modules_to_save).",
    )
    max_length: int | None = Field(None, ge=8, description="Longest row in tokens.")
    on_long: OnLong | None = Field(None, description="What to do with longer rows; whatever it is, it is counted.")
    eval_steps: int | None = Field(None, ge=1, description="Optimizer steps between validations.")
    save_steps: int | None = Field(None, ge=1, description="Optimizer steps between checkpoints.")
    save_total_limit: int | None = Field(None, ge=1, description="Checkpoints to keep, and resume from: the last n.")
    save_top_k: int | None = Field(
        None, ge=1, description="Checkpoints to keep beside them: the k with the lowest held-out loss, weights alone."
    )
    save_url: str | None = Field(
        None, description="Where checkpoints are copied to, as fsspec has it: s3://bucket/run, gs://..., file:///..."
    )
    logging_steps: int | None = Field(None, ge=1, description="Optimizer steps between printed lines.")
    seed: int | None = Field(None, ge=0, description="Seed of data order, adapter initialisation and dropout.")
    parallel: Literal["ddp", "zero1", "zero2", "zero3", "fsdp"] | None = Field(
        None, description="Force how several devices share the work; null lets the plan choose."
    )
    deepspeed: Path | None = Field(None, description="Your own DeepSpeed JSON, `auto` where it takes the run's value.")
    report_to: Trackers | None = Field(None, description="Experiment trackers; none where nothing is said.")

    @field_validator("save_url")
    @classmethod
    def _url_without_secrets(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError("a URL names its protocol, as in s3://bucket/run or file:///mnt/runs/first")
        if value is not None and "@" in value:
            raise ValueError("a URL with a password would stand in the plan; give credentials by the environment")
        return value

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of the trackers that are told."""
        said = (self.report_to,) if isinstance(self.report_to, str) else self.report_to or ()
        return tuple(name for name in said if name != "none")


class Job(Record):
    """A fine-tuning problem as its owner states it."""

    version: Literal[1] = Field(1, description="Version of this record.")
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run folder.")
    goal: Goal = Field(description="instruction | knowledge | task | unsure.")
    model: str = Field(description="Hub id, local folder, or `embedded`.")
    chat_template: Path | None = Field(None, description="A jinja file in the place of the model's chat template.")
    data: JobData = Field(description="What to learn from.")
    hardware: Hardware = Field(Hardware(), description="What to run on.")
    budget: Budget = Field(Budget(), description="What it may cost.")
    method: MethodChoice | None = Field(None, description="Force a method; null lets the plan choose.")
    variants: int = Field(1, ge=1, description="Tenants that each get their own model.")
    forgetting: Forgetting = Field(Forgetting(), description="How much general ability the run may cost.")
    retrieval: Literal["possible", "no"] | None = Field(None, description="Could answers be looked up at run time?")
    format: AnswerFormat | None = Field(None, description="What a well-formed answer is.")
    eval: Evaluating = Field(Evaluating(), description="What an evaluation asks beyond the rest of the job.")
    serving: Serving = Field(Serving(), description="Where it will be served.")
    costs: Billing = Field(Billing(), description="What the bill depends on.")
    train: TrainOptions = Field(TrainOptions(), description="Overrides of the plan, by Hugging Face names.")

    @field_validator("eval", mode="before")
    @classmethod
    def _one_metric(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("metrics"), str):
            return {**value, "metrics": value["metrics"].split(",")}
        return value

    @field_validator("hardware", mode="before")
    @classmethod
    def _short_hardware(cls, value: Any) -> Any:
        return {"gpu": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _short_method(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("retrieval", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads a bare `no` as false
