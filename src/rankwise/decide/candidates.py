"""Job x Facts -> the Candidates worth pricing, each with a configuration that can be executed as it stands."""

import math
from dataclasses import dataclass

from rankwise.methods import METHODS, Method
from rankwise.records import Candidate, Facts, Job, TrainConfig

# A fact must be seen about 100 times before it can be asked for in other words, in about 10 wordings (E14, C12).
FACT_EPOCHS = 100 / 10


@dataclass(frozen=True)
class Sizes:
    """Rows and steps that follow from the data: the same for every candidate."""

    rows: int
    epochs: float
    effective_batch: int
    max_steps: int


def candidates(job: Job, facts: Facts) -> list[Candidate]:
    """Every method, with and without gradient checkpointing where that changes what fits. Unless the job says which."""
    found = []
    for method in METHODS.values():
        for checkpointing in _checkpointing(job):
            config = configure(job, facts, method, gradient_checkpointing=checkpointing)
            rank = f"-r{config.r}" if config.r else ""
            name = f"{method.name}{rank}{'-checkpointing' if checkpointing else ''}"
            parallel = "ddp" if facts.device.count > 1 else "none"
            found.append(Candidate(id=name, method=method.name, parallel=parallel, config=config))
    return found


def _checkpointing(job: Job) -> tuple[bool, ...]:
    said = job.train.gradient_checkpointing
    return (False, True) if said is None else (said,)


def configure(job: Job, facts: Facts, method: Method, *, gradient_checkpointing: bool) -> TrainConfig:
    """The configuration of one method; what the job says about `train` and `method` wins over what we would choose."""
    size = sizes(job, facts)
    micro = 1 if facts.device.kind == "cpu" else min(8, size.effective_batch)
    planned = {
        "num_train_epochs": size.epochs,
        "max_steps": size.max_steps,
        "learning_rate": learning_rate(facts, method, size.max_steps),
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(0.05 * size.max_steps)),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, size.effective_batch // micro),
        "max_length": _max_length(facts),
        "on_long": "drop",
        "eval_steps": max(1, math.ceil(size.max_steps / 4)),
        "save_steps": max(1, math.ceil(size.max_steps / 4)),
        "save_total_limit": 2,
        "logging_steps": 1,
        "seed": 0,
    }
    said = job.train.model_dump(exclude={"bf16", "gradient_checkpointing", "report_to"}, exclude_none=True)
    if "save_steps" in said:
        said.setdefault("eval_steps", said["save_steps"])
    return TrainConfig(
        method=method.name,
        gradient_checkpointing=gradient_checkpointing,
        replay_share=replay_share(job),
        **_precision(job, facts, method),
        **_adapter_options(job, facts, method),
        **(planned | said),
    )


def sizes(job: Job, facts: Facts) -> Sizes:
    """Effective batch of 4 to 32 rows that leaves about 100 steps or more (C7); epochs by goal (C8, C12)."""
    rows = max(1, round(facts.data.rows * (1 + _replay_rows_per_row(job, facts))))
    epochs = job.train.num_train_epochs or (FACT_EPOCHS if job.goal == "knowledge" else 2.0)
    given_micro, given_accumulation = job.train.per_device_train_batch_size, job.train.gradient_accumulation_steps
    wished = min(32, max(8, 2 ** int(math.log2(max(1.0, rows * epochs / 100)))))
    batch = min(wished, rows)
    if given_micro or given_accumulation:
        batch = (given_micro or 1) * (given_accumulation or max(1, batch // (given_micro or 1)))
    per_step = batch * facts.device.count
    steps = job.train.max_steps or max(1, math.ceil(round(rows * epochs) / per_step))
    return Sizes(rows, epochs, batch, steps)


def _replay_rows_per_row(job: Job, facts: Facts) -> float:
    """General rows per training row, from the share of supervised tokens that should be general."""
    share, general = replay_share(job), facts.data.general_supervised_per_row
    if not share or not general or not facts.data.rows:
        return 0.0
    return share / (1 - share) * facts.data.supervised_tokens / facts.data.rows / general


def replay_share(job: Job) -> float:
    if job.data.general is None or not job.forgetting.replay_allowed:
        return 0.0
    return job.data.general.share


def learning_rate(facts: Facts, method: Method, steps: int) -> float:
    """A prior for one run, not a substitute for a sweep (C5): 5e-5 (2000 / h)^0.78 for full fine-tuning, at most
    1e-4; ten times that for adapters, fifteen times under 100 steps, at most 1e-3."""
    full = min(1e-4, 5e-5 * (2000 / facts.model.hidden_size) ** 0.781)
    if method.trains == "weights":
        return _two_digits(full)
    return _two_digits(min(1e-3, full * (15 if steps < 100 else 10)))


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def _max_length(facts: Facts) -> int:
    """The longest row, so that nothing is lost, unless the model cannot see that far."""
    limit = facts.model.max_position_embeddings or facts.data.longest
    return max(8, min(limit, facts.data.longest))


def _precision(job: Job, facts: Facts, method: Method) -> dict[str, str | None]:
    """Frozen weights in bf16, trained weights in fp32 under bf16 autocast (C19); fp32 all through where bf16 is
    slow.
    """
    bf16 = job.train.bf16 if job.train.bf16 is not None else facts.device.bf16
    if not bf16:
        return {"dtype": "fp32", "autocast": None}
    return {"dtype": "fp32" if method.trains == "weights" else "bf16", "autocast": "bf16"}


def _adapter_options(job: Job, facts: Facts, method: Method) -> dict[str, object]:
    if method.trains == "weights":
        return {}
    options = dict(method.defaults)
    if job.goal == "knowledge" or job.format is None:
        options |= {
            "r": 16,
            "lora_alpha": 32.0,
        }  # facts and general instruction data want more than a format does (C2, X2)
    if job.method and job.method.name == method.name:
        said = job.method.model_dump(exclude={"name"}, exclude_none=True)
        if "r" in said and "lora_alpha" not in said:
            said["lora_alpha"] = 2.0 * said["r"]  # hold the scale when only the rank is given
        options |= said
    return options
