"""Optimizer and precision that a job asks for: which recipes they leave, and what they do not go with."""

from rankwise.decide.compatibility import Refusal, refused
from rankwise.decide.recipes import Recipe
from rankwise.errors import JobError
from rankwise.records import Facts, Job, TrainConfig

USUAL = "adamw_torch_fused"  # a recipe with another optimizer is that optimizer


# Between bf16 numbers, by their size: 2^-8 to 2^-7 (eight bits of precision). A weight that moves less is mostly
# rounded back to where it was (docs/log.md, full fine-tuning in bf16).
ROUNDING_STEP = 0.00390625
# Spread of a linear layer's weights where config.json names none: transformers' own default.
INITIALIZER_RANGE = 0.02


def unseen_updates(facts: Facts, config: TrainConfig) -> str | None:
    """Full fine-tuning of weights stored in bf16, kept in fp32 and computed with in bf16: the forward pass rounds them
    to where they began until they have moved by a step of bf16. AdamW moves a weight by the learning rate a step at
    the most. None where they move farther, or nothing is rounded.
    """
    rounds = config.method == "full" and config.dtype == "fp32" and config.autocast == "bf16"
    if not rounds or facts.model.dtype != "bf16":
        return None
    farthest = config.learning_rate * config.max_steps
    step = ROUNDING_STEP * float(facts.model.config.get("initializer_range") or INITIALIZER_RANGE)
    if farthest >= step:
        return None
    return (
        f"{config.max_steps} steps at {config.learning_rate:g} move a weight by at most {farthest:.1e}, and bf16 tells "
        f"weights of a usual size apart from {step:.1e} on: the forward pass will see little of it; train longer, or "
        "set train.dtype: fp32 and train.bf16: false, or on one device train.dtype: bf16 with bf16_stochastic_round"
    )


def as_asked(job: Job, recipe: Recipe) -> bool:
    """Would this recipe be carried out with the optimizer and the precision that the job names?"""
    said = job.train
    if said.optim is not None and recipe.optim not in (USUAL, said.optim):
        return False
    if said.optimizer_in_backward is False and recipe.optimizer_in_backward:
        return False
    if said.optimizer_in_backward and recipe.offload != "none":
        return False
    if not recipe.trains_weights:
        return True
    if said.dtype is None:
        return not (recipe.pure_bf16 and said.bf16 is False)
    return recipe.pure_bf16 == (said.dtype == "bf16")


def refused_update(job: Job, facts: Facts, config: TrainConfig) -> Refusal | None:
    """What a configuration's optimizer does not go with: on this device, or of what the job says beside it."""
    if config.optim.startswith("paged") and facts.device.kind == "cpu":
        return refused(config.method, "a paged optimizer on a CPU")
    if not config.optimizer_in_backward:
        return None
    if config.gradient_accumulation_steps > 1:
        return refused(config.method, "optimizer_in_backward with gradient_accumulation")
    if job.train.max_grad_norm is not None:
        return refused(config.method, "optimizer_in_backward with max_grad_norm")
    if facts.device.count > 1:
        return refused(config.method, "optimizer_in_backward on several devices")
    return None


def require_sound_updates(job: Job, facts: Facts, config: TrainConfig) -> None:
    """Raises JobError when optimizer and precision of the job do not go with each other or with the device.

    Args:
        config: of the recipe that would be tried first.
    """
    said = job.train
    asked = said.optim is not None or said.optimizer_in_backward
    if asked and (never := refused_update(job, facts, config)) is not None:
        raise JobError(f"the job asks for {never.feature}, and {never.why}", fix="leave one of the two out of `train`")
    if said.dtype == "bf16" and said.bf16 is False:
        raise JobError("train.dtype is bf16 and train.bf16 is false", fix="leave one of the two out")
    full = job.method is not None and job.method.name == "full"
    if said.bf16_stochastic_round and not (full and said.dtype == "bf16"):
        raise JobError(
            "train.bf16_stochastic_round is for trained weights in bf16, and this job does not say that it has them",
            expected="`method: full` and `train.dtype: bf16` beside it",
            fix="add them, or leave it out",
        )
    if said.bf16_stochastic_round and facts.device.count > 1:
        raise JobError(
            f"train.bf16_stochastic_round works on one device, and there are {facts.device.count}",
            fix="leave it out, or plan for one device",
        )
