"""What engines that split parameters have in common: whole tensors are gathered one by one to be saved, and dealt out
again when they come back, so that no process ever needs room for more than one of them beside its share.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn

from rankwise.errors import RunError
from rankwise.train.engines.engine import Engine, per_rank


class Sharded(Engine, ABC):
    """Parameters live in parts. A subclass says how one is gathered and how one is put back."""

    splits = True

    @abstractmethod
    def gather(self, parameter: nn.Parameter) -> Tensor | None:
        """The whole parameter on the CPU of the first process; None in the others. All must call it."""

    @abstractmethod
    def put(self, parameter: nn.Parameter, whole: Callable[[], Tensor]) -> None:
        """Set a parameter from its whole value, which `whole` reads. All must call it."""

    def full_state(self, *, trained_only: bool) -> dict[str, Tensor] | None:
        state = {}
        for name, parameter in self.bare.named_parameters():
            if parameter.requires_grad or not trained_only:
                whole = self.gather(parameter)
                if whole is not None:
                    state[name] = whole
        if self.group.first and not trained_only:
            kept = set(self.bare.state_dict())
            state |= {name: b.detach().cpu().clone() for name, b in self.bare.named_buffers() if name in kept}
        return state

    def restore_weights(self, folder: Path) -> None:
        parameters = dict(self.bare.named_parameters())
        names = saved_names(self.bare)
        unknown, seen = [], set()
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                    name = names.get(key, key)
                    if name not in parameters:
                        unknown.append(key)
                        continue
                    seen.add(name)
                    self.put(parameters[name], partial(tensors.get_tensor, key))
        missing = sorted({n for n, p in parameters.items() if p.requires_grad} - seen)
        unknown = sorted(set(unknown) - set(dict(self.bare.named_buffers())))
        if unknown or missing:
            raise RunError(f"{folder} does not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")

    def optimizer_files(self) -> tuple[str, ...]:
        return per_rank(self.group)

    def own_optimizer_file(self, folder: Path) -> Path:
        """Where this process keeps its part."""
        return folder / per_rank(self.group)[self.group.rank]


def saved_names(model: Any) -> dict[str, str]:
    """Key in adapter_model.safetensors -> name of the parameter, as PEFT itself renames them; empty for other models,
    whose files carry the names of the parameters.
    """
    if not isinstance(model, PeftModel):
        return {}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    numbered = {name: torch.tensor(i) for i, name in enumerate(trained)}
    saved = get_peft_model_state_dict(model, state_dict=numbered, save_embedding_layers=False)
    return {key: trained[int(number)] for key, number in saved.items()}
