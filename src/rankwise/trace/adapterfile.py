"""How large an adapter's file will be: of all layers, on `meta`.

Where the decoder layers are alike, a model of a few of them has every shape, and the names of the others differ by
their number. The base is still built in all its depth, once for many methods, to see that they are.
"""

import re
from collections import defaultdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.methods import TUNERS
from rankwise.methods.vocabulary import MODULES_TO_SAVE
from rankwise.model.adapterfile import safetensors_bytes, saved_tensors
from rankwise.records.setup import Setup
from rankwise.trace.build import DTYPES, build, load, spans_layers
from rankwise.trace.layers import decoder_layers
from rankwise.trace.run import decoder_layers_of
from rankwise.trace.stack import SIXTEEN_BIT

SHORT = 3
Sizes = dict[str, tuple[Any, tuple[int, ...]]]  # name -> dtype, shape


def adapter_file(setup: Setup, *, whole: bool = False) -> int | None:
    """Bytes of adapter_model.safetensors, header included; None for full fine-tuning.

    How the base is quantised changes nothing in the file.

    Args:
        whole: attach the adapter to every layer, whatever the layers are.

    Raises:
        ModelError: transformers does not know the architecture.
        UsageError: a method that this model cannot have.
    """
    if setup.method == "full":
        return None
    plain = setup.model_copy(update={"method": SIXTEEN_BIT.get(setup.method, setup.method)})
    layers = decoder_layers_of(plain)
    if not whole and layers > SHORT and not spans_layers(plain):
        tensors = _lengthened(plain, layers)
        if tensors is not None:
            return safetensors_bytes(_as_published(plain, tensors))
    return safetensors_bytes(_as_published(plain, saved_tensors(build(plain))))


def _as_published(setup: Setup, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """PiSSA's file has the values that it began with beside those that it ended with; embedding and head that train
    whole are published in the precision of the base.
    """
    if setup.new_token_rows == MODULES_TO_SAVE:
        dtype = DTYPES[setup.dtype]
        return {name: t.to(dtype) if "lora_" not in name else t for name, t in tensors.items()}
    if not (setup.method in TUNERS and TUNERS[setup.method].residual):
        return tensors
    return {name: torch.cat([t, t], 0 if "lora_A" in name else 1) for name, t in tensors.items()}


def _lengthened(setup: Setup, layers: int) -> dict[str, Tensor] | None:
    """The tensors that a model of `layers` layers would save; None where a short one does not tell."""
    stack = _alike_layers(_OfConfig(setup.config))
    if stack is None:
        return None
    short, shorter = (_by_layer(saved_tensors(build(setup, depth)), stack) for depth in (SHORT, SHORT - 1))
    for depth, found in ((SHORT, short), (SHORT - 1, shorter)):
        if set(found) - {None} != set(range(depth)):
            return None
    told = [_sizes(found[layer]) for found in (short, shorter) for layer in found if layer is not None]
    if any(one != told[0] for one in told) or _sizes(short[None]) != _sizes(shorter[None]):
        return None
    tensors = dict(short[None])
    for layer in range(layers):
        tensors |= {name.replace("#", str(layer), 1): tensor for name, tensor in short[0].items()}
    return tensors


def _by_layer(tensors: dict[str, Tensor], stack: str) -> dict[int | None, dict[str, Tensor]]:
    """Layer (None: outside of them) -> its tensors, the layer's number in their names turned into `#`."""
    numbered = re.compile(rf"(?:(?<=\.)|^){re.escape(stack)}\.(\d+)(?=\.)")
    found: dict[int | None, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        at = numbered.search(name)
        layer = int(at.group(1)) if at else None
        found[layer][f"{name[: at.start(1)]}#{name[at.end(1) :]}" if at else name] = tensor
    return found


def _sizes(tensors: dict[str, Tensor]) -> Sizes:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


class _OfConfig:
    """A model's config as a key: equal by what it says."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.setup = Setup(config=config, method="full", dtype="bf16", per_device_train_batch_size=1, max_length=8)
        self.hash = self.setup.content_hash()

    def __hash__(self) -> int:
        return hash(self.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OfConfig) and other.hash == self.hash


@lru_cache(maxsize=4)
def _alike_layers(of: _OfConfig) -> str | None:
    """The name of the list of decoder layers, where all of them have the same modules of the same shapes."""
    model = load(of.setup)
    name, stack = decoder_layers(model, decoder_layers_of(of.setup))
    first = _modules(stack[0])
    return name if all(_modules(layer) == first for layer in stack) else None


def _modules(layer: nn.Module) -> list[tuple[str, type, list[tuple[int, ...]]]]:
    return [
        (name, type(module), [tuple(p.shape) for p in module.parameters(recurse=False)])
        for name, module in layer.named_modules()
    ]
