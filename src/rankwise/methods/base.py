"""What a method must declare. Torch-free: planning prices a method without importing the library that runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rankwise.errors import JobError
from rankwise.records import LinearShape, ModelFacts, TrainConfig


@dataclass(frozen=True)
class Method:
    """One way to change a model.

    Attributes:
        name: as in `--method`.
        trains: `weights` (the model's own) or `adapter` (a few new ones beside frozen weights).
        base_bits: bits per frozen linear weight while training; 16 means `config.dtype` decides.
        defaults: options that the plan starts from, by Hugging Face names.
        trainable_params: (facts of the model, config) -> number of trained parameters, exact.
        peft_config: config -> (name of the PEFT config class, its arguments); None where PEFT is not used.
        vllm: can vLLM serve the result without merging?
    """

    name: str
    trains: Literal["weights", "adapter"]
    base_bits: int
    defaults: Mapping[str, Any]
    trainable_params: Callable[[ModelFacts, TrainConfig], int]
    peft_config: Callable[[TrainConfig], tuple[str, dict[str, Any]]] | None
    vllm: bool


def targeted(facts: ModelFacts, target_modules: str | tuple[str, ...] | None) -> tuple[LinearShape, ...]:
    """The linear layers that `target_modules` names. Raises JobError when it names none of this model's."""
    if target_modules in (None, "all-linear"):
        return facts.linears
    wanted = {target_modules} if isinstance(target_modules, str) else set(target_modules or ())
    hit = tuple(s for s in facts.linears if s.name in wanted)
    if not hit:
        have = ", ".join(sorted({s.name for s in facts.linears}))
        raise JobError(
            f"method.target_modules {', '.join(sorted(wanted))}: no linear layer of {facts.name} has such a name",
            expected=f"all-linear, or some of {have}",
        )
    return hit
