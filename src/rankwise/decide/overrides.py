"""What the job's `train` and `method` blocks changed against what the plan would take for the same way of training."""

from rankwise.decide.configure import Rung, configure
from rankwise.decide.priced import Priced
from rankwise.records import Facts, Job, MethodChoice, TrainConfig, TrainOptions


def overrides(job: Job, facts: Facts, winner: Priced) -> list[str]:
    """One sentence for each value that differs."""
    candidate = winner.candidate
    free = job.model_copy(update={"train": TrainOptions(), "method": MethodChoice(name=candidate.method)})
    rung = Rung(parallel=candidate.parallel, offload=candidate.offload)
    ours, theirs = _options(configure(free, facts, winner.recipe, rung)), _options(candidate.config)
    said = {f"train.{k}": k for k in job.train.model_dump(exclude_none=True)}
    if job.method:
        said |= {f"method.{k}": k for k in job.method.model_dump(exclude={"name", "adapter"}, exclude_none=True)}
    return [
        f"{key}: {theirs[name]} is the job's, the plan would take {ours[name]}"
        for key, name in said.items()
        if name in ours and ours[name] != theirs[name]
    ]


def _options(config: TrainConfig) -> dict[str, object]:
    return {**config.model_dump(), "bf16": "bf16" in (config.dtype, config.autocast)}
