"""Adapters for which there is no operation of ours: PEFT's own layer merges, given the weights of that one layer.

The adapter is attached to a model whose weights are a single zero, repeated without memory; a layer is lent the real
rows while it is merged.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from rankwise.errors import ModelError
from rankwise.export.adapterparts import Parts
from rankwise.export.changes import Apply, Shape, Tally
from rankwise.export.mergebase import BaseFiles
from rankwise.export.shards import Stored
from rankwise.model.adapterproducts import PREFIX, AdapterFolder
from rankwise.model.load import quiet_transformers
from rankwise.model.skeleton import skeleton

# What these train is a part of a decomposition that they take of the base's weights while they are attached.
FROM_THE_WEIGHTS = ("OSF", "PSOFT", "FROD", "ADAMSS")
AT_EVERY_REQUEST = {
    "POLY": "it mixes its matrices by the task of each request",
    "LILY": "a router mixes its matrices at every token",
    "XLORA": "it mixes adapters at every token",
    "SHADOW": "it is a small model that runs beside the frozen one",
}


@dataclass(frozen=True)
class PeftLayer:
    """PEFT's `merge` of one layer.

    Attributes:
        parameter: `weight` or `bias` of the base's layer.
    """

    layer: Any
    parameter: str
    kind: str

    @property
    def name(self) -> str:
        return f"PEFT's {self.kind}"

    def fits(self, shape: Shape) -> str:
        expected = tuple(getattr(self.layer.get_base_layer(), self.parameter).shape)
        return "" if expected == shape else f"its layer is {' x '.join(str(n) for n in expected)}"

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        base_layer = self.layer.get_base_layer()
        placeholders = dict(base_layer._parameters)
        given = rows(0, weight.rows)
        merged = self._merged(base_layer, given.clone())
        for name, placeholder in placeholders.items():
            base_layer._parameters[name] = placeholder
        tally.delta += float(torch.linalg.norm(given.sub_(merged)).square())
        del given

        def apply(chunk: Tensor, start: int) -> None:
            chunk.copy_(merged[start : start + len(chunk)])

        return apply

    def _merged(self, base_layer: Any, given: Tensor) -> Tensor:
        for name, placeholder in base_layer._parameters.items():
            if placeholder is not None:
                real = given if name == self.parameter else torch.zeros(placeholder.shape)
                base_layer._parameters[name] = nn.Parameter(real, requires_grad=False)
        try:
            self.layer.merge(safe_merge=True)
        except (ValueError, NotImplementedError) as error:
            raise ModelError(f"PEFT refuses to merge {self.kind}: {error}") from error
        self.layer.merged_adapters.clear()
        found: Tensor = base_layer._parameters[self.parameter].data
        return found


def parts_of_layers(adapter: AdapterFolder, base: BaseFiles) -> Parts:
    """The parts of an adapter of any of PEFT's tuners that merges.

    Raises:
        ModelError: it changes no weights, or what it changes them by is not in its file.
    """
    model = _attached(adapter, base)
    parts = Parts()
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and hasattr(layer, "base_layer") and _is_outermost(layer):
            path = name.removeprefix(PREFIX)
            for parameter, value in layer.get_base_layer()._parameters.items():
                if value is not None:
                    parts.add(_places(base, f"{path}.{parameter}"), PeftLayer(layer, parameter, adapter.kind))
    if not parts.changes:
        raise _no_merge(adapter, "it is attached to no layer of this base")
    return parts


def _places(base: BaseFiles, parameter: str) -> list[Stored]:
    """Raises ModelError where the files hold it in another form than the model: nothing of it may be left out."""
    if found := base.places(parameter):
        return found
    raise ModelError(
        f"the files of {base.folder} do not have {parameter} as the model does, and a layer is merged as a whole",
        fix="save the base with transformers' save_pretrained(save_original_format=False), and merge into that",
    )


def _is_outermost(layer: Any) -> bool:
    return not isinstance(layer.base_layer, BaseTunerLayer)


def _attached(adapter: AdapterFolder, base: BaseFiles) -> Any:
    if adapter.kind in FROM_THE_WEIGHTS:
        raise _no_merge(adapter, "what it trains is a part of a decomposition of the base's weights as a whole")
    if adapter.kind in AT_EVERY_REQUEST:
        raise _no_merge(adapter, AT_EVERY_REQUEST[adapter.kind])
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attached = PeftModel.from_pretrained(_placeholders(base), adapter.folder)
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"the adapter {adapter.folder} does not fit this base: {str(error).strip().splitlines()[0]}",
            expected="the base model that it was trained on",
            fix="adapter_config.json names that base",
        ) from error
    if not isinstance(attached.base_model, BaseTuner):
        raise _no_merge(adapter, "it runs at every request and is not a change of the weights")
    return attached.eval()


def _no_merge(adapter: AdapterFolder, why: str) -> ModelError:
    return ModelError(
        f"an adapter of {adapter.kind.lower()} cannot be merged: {why}", expected="a method that changes weights"
    )


def _placeholders(base: BaseFiles) -> Any:
    model = skeleton(base.folder)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                zero = torch.zeros(1).expand(parameter.shape)
                module._parameters[name] = nn.Parameter(zero, requires_grad=False)
    return model
