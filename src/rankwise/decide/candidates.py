"""Job x Facts -> the Candidates worth pricing, each with a configuration that can be executed as it stands."""

import math
from dataclasses import dataclass

from rankwise.decide.capacity import power_of_two_below, rank_for
from rankwise.methods import METHODS, Method
from rankwise.records import Candidate, Facts, Job, TrainConfig

# A fact must be seen about 100 times before it can be asked for in other words, in about 10 wordings (E14, C12).
FACT_EPOCHS = 100 / 10
# Two cores trained 92-token rows at 276 tokens/s one by one, 377 in pairs and 451 in fours (docs/log.md): small
# matrices do not fill them. Rows of one forward pass have similar lengths, so that little is padded.
CPU_TOKENS = 512


@dataclass(frozen=True)
class Sizes:
    """Rows and steps that follow from the data: the same for every candidate."""

    rows: int
    epochs: float
    micro_batch: int
    accumulation: int
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
    planned = {
        "num_train_epochs": size.epochs,
        "max_steps": size.max_steps,
        "learning_rate": learning_rate(facts, method, size.max_steps),
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(0.05 * size.max_steps)),
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "per_device_train_batch_size": size.micro_batch,
        "gradient_accumulation_steps": size.accumulation,
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
    """Effective batch of 8 to 32 rows that leaves about 100 steps or more; epochs by goal (E14)."""
    rows = max(1, round(facts.data.rows * (1 + _replay_rows_per_row(job, facts))))
    epochs = job.train.num_train_epochs or (FACT_EPOCHS if job.goal == "knowledge" else 2.0)
    wished = min(32, max(8, power_of_two_below(rows * epochs / 100)))
    batch = min(wished, power_of_two_below(rows))
    at_once = _rows_at_once(facts)
    said_micro, said_accumulation = job.train.per_device_train_batch_size, job.train.gradient_accumulation_steps
    micro = said_micro or max(1, min(at_once, batch // (said_accumulation or 1)))
    accumulation = said_accumulation or max(1, batch // micro)
    per_step = micro * accumulation * facts.device.count
    steps = job.train.max_steps or max(1, math.ceil(round(rows * epochs) / per_step))
    return Sizes(rows, epochs, micro, accumulation, steps)


def _rows_at_once(facts: Facts) -> int:
    """Rows that go through the model together: as many short ones as fill CPU_TOKENS on a CPU, 8 on a GPU."""
    if facts.device.kind == "gpu":
        return 8
    return power_of_two_below(CPU_TOKENS / facts.data.mean_length)


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
    """A prior for one run, not a substitute for a sweep (E6): 5e-5 (2000 / h)^0.78 for full fine-tuning, at most
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
    """Frozen weights in bf16, trained weights in fp32 under bf16 autocast (E30); fp32 all through where bf16 is
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
    said = {}
    if job.method and job.method.name == method.name:
        said = job.method.model_dump(exclude={"name"}, exclude_none=True)
    # Facts and general instruction data want more than a format does (E4, X2).
    least = 16 if job.goal == "knowledge" or job.format is None else 8
    targets = said.get("target_modules", options["target_modules"])
    options |= {"target_modules": targets, "r": said.get("r") or rank_for(job, facts, least, targets)}
    options["lora_alpha"] = 2.0 * options["r"]  # alpha = 2 r holds the scale when only the rank changes
    return options | said
