"""A person's own DeepSpeed JSON (`train.deepspeed`): what it says about batch, clipping, rate and precision is taken as
if the job said it; what contradicts the job, or what no part here carries out, is refused by its name.
"""

from typing import Any

from rankwise.errors import JobError
from rankwise.records import Facts, Job

# key of the JSON -> key of the job's `train`
SAME = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "bf16.enabled": "bf16",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.weight_decay": "weight_decay",
}
# What torch's AdamW, which is given to DeepSpeed, has; a job has no key for them.
ADAMW: dict[str, Any] = {
    "optimizer.params.betas": [0.9, 0.999],
    "optimizer.params.eps": 1e-8,
    "optimizer.params.adam_w_mode": True,
}
REFUSED = {
    "scheduler": "the schedule is the job's (train.lr_scheduler_type, train.warmup_steps)",
    "zero_optimization.offload_optimizer": "training does not move states to the host",
    "zero_optimization.offload_param": "training does not move parameters to the host",
    "amp": "NVIDIA's apex is not used",
}


def with_deepspeed(job: Job, facts: Facts) -> Job:
    """The job with what its DeepSpeed JSON says.

    Raises:
        JobError: the two contradict each other (both values are said), or something of it is not carried out.
    """
    if facts.deepspeed is None:
        return job
    settings = facts.deepspeed
    _refuse_foreign(settings)
    said: dict[str, Any] = {}
    for key, name in SAME.items():
        value = _value(settings, key)
        if value is None:
            continue
        ours = getattr(job.train, name)
        if ours is not None and ours != value:
            raise _contradicts(key, value, f"train.{name}", ours)
        said[name] = value
    train = job.train.model_validate(job.train.model_dump() | said)
    _require_batch(settings, train, facts.device.count)
    return job.model_copy(update={"train": train})


def own_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What DeepSpeed is started with: the optimizer is ours, with the rates that the file says."""
    return {key: value for key, value in settings.items() if key != "optimizer"}


def _refuse_foreign(settings: dict[str, Any]) -> None:
    for key, why in REFUSED.items():
        value = _value(settings, key)
        if value not in (None, {}) and (not isinstance(value, dict) or value.get("device") != "none"):
            raise JobError(f"train.deepspeed sets {key}: {why}", fix=f"remove {key} from the file")
    if _value(settings, "fp16.enabled") is True:
        raise JobError("train.deepspeed sets fp16.enabled: training is in bf16 or fp32", fix="use bf16.enabled")
    kind = _value(settings, "optimizer.type")
    if kind is not None and str(kind).lower() not in ("adam", "adamw"):
        raise JobError(f"train.deepspeed asks for the optimizer {kind}", expected="AdamW, or none and train.optim")
    for key, ours in ADAMW.items():
        if (value := _value(settings, key)) is not None and value != ours:
            raise JobError(f"train.deepspeed sets {key} to {value}, and training has {ours}", fix=f"set {key} to auto")


def _require_batch(settings: dict[str, Any], train: Any, devices: int) -> None:
    whole = _value(settings, "train_batch_size")
    if whole is None:
        return
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    if micro is None or accumulation is None:
        raise JobError(
            f"train.deepspeed sets train_batch_size to {whole}, and not how many rows are in one pass",
            expected="train_micro_batch_size_per_gpu and gradient_accumulation_steps beside it",
            fix="give these two, or set train_batch_size to auto",
        )
    if whole != micro * accumulation * devices:
        ours = f"{micro} rows x {accumulation} passes x {devices} devices"
        raise _contradicts("train_batch_size", whole, ours, micro * accumulation * devices)


def _contradicts(key: str, theirs: Any, name: str, ours: Any) -> JobError:
    return JobError(
        f"train.deepspeed sets {key} to {theirs}, and the job says {ours} ({name})",
        expected="one value",
        fix=f"set {key} to auto in the file, or remove {name} from the job",
    )


def _value(settings: dict[str, Any], dotted: str) -> Any:
    """None where it is not said, or said to be `auto`."""
    found: Any = settings
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return None if found == "auto" else found
