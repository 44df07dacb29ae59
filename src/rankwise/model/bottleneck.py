"""Bottleneck adapters: x + up(relu(down(x))) after the MLP of each decoder layer (Pfeiffer) or after attention and MLP
(Houlsby), with their own files, because PEFT's registry refuses foreign methods.

The output is added before the layer's own residual: `residual + adapter(mlp(x))`, as in both papers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rankwise.errors import ModelError, UsageError
from rankwise.methods.bottleneck import PLACES, inner_width

TYPE = "RANKWISE_BOTTLENECK"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What the attention and the MLP of a decoder layer are called in transformers' model classes.
NAMES = {
    "attention": ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer"),
    "mlp": ("mlp", "feed_forward", "block_sparse_moe", "ffn", "moe", "shared_mlp", "fc2", "mixer"),
}


@dataclass(frozen=True)
class BottleneckConfig:
    """As it stands in adapter_config.json, beside `"type"`."""

    bottleneck_size: int
    placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
    base_model_name_or_path: str | None = None


class Bottleneck(nn.Module):
    """hidden (…, hidden_size) -> the same; the identity until it is trained, because `up` starts at zero."""

    def __init__(self, hidden_size: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, width, dtype=dtype)
        self.up = nn.Linear(width, hidden_size, dtype=dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.enabled = True

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.enabled:
            return hidden
        inner = torch.nn.functional.relu(self.down(hidden.to(self.down.weight.dtype)))
        out: Tensor = self.up(inner)
        return hidden + out.to(hidden.dtype)


class Adapted(nn.Module):
    """A sublayer of the base and the adapter behind it; other outputs of the sublayer pass through."""

    def __init__(self, sublayer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.sublayer = sublayer
        self.bottleneck = adapter

    def __getattr__(self, name: str) -> Any:
        """Model code reads attributes of its sublayers (`layer.self_attn.is_sliding`)."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("sublayer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.sublayer(*args, **kwargs)
        if isinstance(out, tuple):
            return (self.bottleneck(out[0]), *out[1:])
        return self.bottleneck(out)


class BottleneckModel(nn.Module):
    """A frozen causal LM with bottleneck adapters; called as the LM itself is."""

    def __init__(self, model: PreTrainedModel, config: BottleneckConfig) -> None:
        """Puts the adapters into `model`, on the devices of its layers. Raises UsageError for an unknown layer."""
        super().__init__()
        model.requires_grad_(False)
        self.base_model, self.adapter_config, self.config = model, config, model.config
        hidden = model.config.get_text_config().hidden_size
        for path, layer in decoder_layers(model):
            for place in PLACES[config.placement]:
                name = _sublayer(layer, place, path)
                device = next(layer.parameters()).device
                with torch.device(device):
                    adapter = Bottleneck(hidden, config.bottleneck_size)
                setattr(layer, name, Adapted(getattr(layer, name), adapter))

    def __getattr__(self, name: str) -> Any:
        """What it does not have itself is the model's: `generate`, its settings, `device`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)

    def get_base_model(self) -> PreTrainedModel:
        return self.base_model

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside, the model answers as its base does."""
        adapters = [m for m in self.modules() if isinstance(m, Bottleneck)]
        for adapter in adapters:
            adapter.enabled = False
        try:
            yield
        finally:
            for adapter in adapters:
                adapter.enabled = True

    def adapter_state(self) -> dict[str, Tensor]:
        """The trained tensors by their names in the base model."""
        state = self.base_model.state_dict()
        return {name: tensor for name, tensor in state.items() if ".bottleneck." in name}

    def load_adapter_state(self, state: dict[str, Tensor], folder: Path) -> None:
        """Put trained tensors back. Raises ModelError, which names `folder`, unless names and shapes are these."""
        if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in self.adapter_state().items()}:
            raise ModelError(
                f"the adapter {folder} does not fit this base: its tensors have other names or shapes",
                expected="the base model that it was trained on",
            )
        self.base_model.load_state_dict(state, strict=False)

    def save_pretrained(self, folder: str | Path) -> None:
        """adapter_config.json of our own type, and the adapters alone in safetensors."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps({"type": TYPE, **asdict(self.adapter_config)}, indent=2) + "\n")
        save_file({n: t.contiguous() for n, t in self.adapter_state().items()}, folder / WEIGHTS, {"format": "pt"})


def is_bottleneck(folder: Path) -> bool:
    """Does the folder's adapter_config.json say that it holds bottleneck adapters?"""
    return bool(json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("type") == TYPE)


def load_bottleneck(model: PreTrainedModel, folder: str | Path, *, trainable: bool = False) -> BottleneckModel:
    """The adapters of `folder` on `model`; frozen and in evaluation mode unless trainable.

    Raises:
        ModelError: they are of another kind or shape.
    """
    folder = Path(folder)
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if written.pop("type", None) != TYPE:
        raise ModelError(f"{folder} holds no bottleneck adapter", expected=f'"type": "{TYPE}" in {CONFIG}')
    adapted = BottleneckModel(model, BottleneckConfig(**written))
    adapted.load_adapter_state(load_file(folder / WEIGHTS), folder)
    if not trainable:
        adapted.requires_grad_(False)
    return adapted.train(trainable)


def attach_bottleneck(
    model: PreTrainedModel, bottleneck_size: int | None, placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
) -> BottleneckModel:
    """Adapters of width `bottleneck_size` (None: a sixteenth of the hidden width) on a model, ready to train."""
    hidden = model.config.get_text_config().hidden_size
    if bottleneck_size is not None and not 1 <= bottleneck_size <= hidden:
        raise UsageError(
            f"bottleneck size {bottleneck_size} for a hidden size of {hidden}", expected=f"a width from 1 to {hidden}"
        )
    if placement not in PLACES:
        raise UsageError(f"placement {placement} is unknown", expected=f"one of {', '.join(PLACES)}")
    return BottleneckModel(
        model, BottleneckConfig(inner_width(hidden, bottleneck_size), placement, model.name_or_path or None)
    )


def decoder_layers(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """(name, layer) of every decoder layer. Raises UsageError for a model without a list of them."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return [(f"{name}.{i}", layer) for i, layer in enumerate(module)]
    raise UsageError(f"{type(model).__name__} has no list of {count} decoder layers to put bottleneck adapters into")


def _sublayer(layer: nn.Module, place: str, path: str) -> str:
    children = dict(layer.named_children())
    name = next((n for n in NAMES[place] if n in children), None)
    if name is None:
        raise UsageError(
            f"{path} ({type(layer).__name__}) has no {place} that bottleneck adapters are known to follow",
            expected=f"a child module named {', '.join(NAMES[place])}",
        )
    return name
