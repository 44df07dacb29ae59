"""How a job says that training is spread over devices: `train.parallel`, or the stage of its own DeepSpeed JSON; and
what of it this version's `train` carries out.
"""

from typing import cast

from rankwise.decide.compatibility import Refusal, refused
from rankwise.decide.recipes import Recipe
from rankwise.errors import JobError
from rankwise.records import Facts, Job, TrainConfig
from rankwise.records.setup import Parallel

# Optimizers whose states can be split over processes: torch's own. bitsandbytes' are blocks of a whole tensor.
SPLITTABLE = ("adamw_torch", "adamw_torch_fused", "sgd")


SPLIT = ("zero3", "fsdp")  # no process has the whole model
NEW_TOKENS = "rows of the embedding are added and saved where a process has the model whole"


def forced_parallel(job: Job, facts: Facts) -> Parallel | None:
    """What the job says; None leaves it to the plan."""
    if facts.deepspeed is not None:
        return cast(Parallel, f"zero{facts.deepspeed['zero_optimization']['stage']}")
    return job.train.parallel


def carries(method: str, parallel: str) -> Refusal | None:
    """Why this version does not train a method spread in this way; None where it does."""
    return refused(method, f"training under {parallel}")


def spreads_of(job: Job, facts: Facts, recipe: Recipe) -> tuple[Parallel, ...]:
    """How a recipe may be spread, the quickest first; empty: not at all, or not as the job forces."""
    if facts.device.count == 1 and recipe.offload == "none":
        return ("none",)
    forced = forced_parallel(job, facts)
    if forced is None:
        return recipe.shards
    splits = recipe.optim in SPLITTABLE and not recipe.pure_bf16 and recipe.offload == "none" and recipe.shards != ()
    possible = forced in recipe.shards or splits
    return (forced,) if possible and carries(recipe.method, forced) is None else ()


def unspread(job: Job, facts: Facts, recipe: Recipe) -> tuple[str, str | None]:
    """(why a recipe cannot be spread, who says so), for one that has no way."""
    forced = forced_parallel(job, facts)
    found = carries(recipe.method, forced) if forced else None
    if found is not None:
        return f"{recipe.name} is not trained under {forced}, which the job forces: {found.why}.", found.source
    if forced and recipe.shards:
        return f"{recipe.name} is not spread by {forced}, which the job forces.", None
    alone = refused(recipe.method, "optimizer_in_backward on several devices")
    assert alone is not None
    return f"{recipe.name} runs on one device alone: {alone.why}.", alone.source


def not_carried_out(method: str, parallel: str, config: TrainConfig) -> str | None:
    """Why `train` does not do this on several devices; None where it does."""
    if (found := carries(method, parallel)) is not None:
        return f"{method} under {parallel}: {found.why}"
    if config.new_token_ids and parallel in SPLIT:
        return f"new tokens under {parallel}: {NEW_TOKENS}"
    if parallel not in ("none", "ddp") and config.optim not in SPLITTABLE:
        return f"{config.optim} under {parallel}: its states are not split over devices"
    return None


def require_possible(job: Job, facts: Facts) -> None:
    """Raises JobError where the job forces a way of spreading that its devices or its method do not have."""
    forced = forced_parallel(job, facts)
    if forced is None:
        return
    key = "train.deepspeed" if facts.deepspeed is not None else "train.parallel"
    if job.train.parallel not in (None, forced):
        raise JobError(
            f"train.parallel is {job.train.parallel}, and the file of train.deepspeed says stage {forced[-1]}",
            fix="remove train.parallel, or set zero_optimization.stage in the file",
        )
    if facts.device.count == 1:
        raise JobError(
            f"{key} asks for {forced}, and this job has one device",
            expected="hardware.count times hardware.nodes of 2 or more",
            fix=f"remove {key}, or set hardware.count",
        )
    if facts.new_tokens is not None and forced in SPLIT:
        raise JobError(
            f"{key} asks for {forced}, and new tokens are not trained under it: {NEW_TOKENS}",
            fix="set train.parallel to ddp or zero2, or name no new tokens",
        )
    if job.method is not None and (found := carries(job.method.name, forced)) is not None:
        raise JobError(
            f"{key} asks for {forced}, and {job.method.name} is not trained under it: {found.why}",
            fix="choose another way of spreading (train.parallel: ddp), or another method",
        )
