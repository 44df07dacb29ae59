"""PiSSA (Meng et al. 2024, arXiv 2404.02948): A and B begin as the r largest singular values and vectors of a weight W,
the base keeps the rest, and both are trained from there.

    W_res = W - s B0 A0          what the base holds while it trains; s = alpha / r
    W_res + s B A                the model in training
    W + s [B, -B0] [A; A0]       the same over the untouched W: LoRA of rank 2 r, and that is what is saved

So a saved adapter loads on the plain base with plain PEFT, and one file holds both the trained values and the first
ones: training is resumed, and the residual base rebuilt, from it alone. PEFT converts in the same way
(`path_initial_model_for_weight_conversion`), through a folder and a second adapter on the model in training.
The decomposition and the residual are computed in fp32; W_res is then rounded to the precision of the base.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import transpose
from safetensors.torch import load_file, save_file
from torch import Tensor

from rankwise.errors import RunError

ADAPTER = "adapter_model.safetensors"
State = dict[str, Tensor]


def is_residual(model: Any) -> bool:
    """Does this model train over a base that an adapter's first values were taken from?"""
    return hasattr(model, "first_values")


def decompose(model: Any, how: str) -> None:
    """Take the first values of a plain LoRA adapter out of the weights that it sits on, and keep a copy of them in the
    host's memory.

    PEFT does this while it attaches an adapter; it then rounds A0 and B0 to the precision of the base, which the
    residual knows nothing of: on a tiny bf16 model the two did not add up to W by up to 0.004. Here they stay fp32.

    Args:
        how: `pissa`, or `pissa_niter_N` for torch.svd_lowrank, which draws random numbers.
    """
    for layer in _layers(model):
        layer.pissa_init("default", how)
    model.first_values = _copied(get_peft_model_state_dict(model))


def _layers(model: Any) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, BaseTunerLayer) and "default" in getattr(m, "lora_A", {})]


def take_first_values(model: Any, folder: Path) -> None:
    """Begin where the adapter in `folder` began: A0 and B0 from there, and the residual of this base that belongs to
    them. The model has a plain LoRA adapter of the same rank. Another machine's decomposition would differ in its last
    bits.
    """
    _, first = _halves(load_file(folder / ADAPTER))
    _load(model, first)
    model.first_values = first
    for layer in _layers(model):
        _subtract(layer)


@torch.no_grad()
def _subtract(layer: Any) -> None:
    """As peft.tuners.lora.layer.LoraLayer.pissa_init does it after the decomposition, product for product."""
    base = layer.get_base_layer()
    a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
    weight = transpose(base.weight.to(torch.float32), layer.fan_in_fan_out)
    weight = weight - layer.scaling["default"] * b @ a
    base.weight.data = transpose(weight.to(base.weight.dtype), layer.fan_in_fan_out)


def save_converted(model: Any, folder: Path) -> None:
    """Write the adapter as LoRA of twice the rank over the untouched base, with PEFT's configuration of it."""
    now = _copied(get_peft_model_state_dict(model))
    first = model.first_values
    doubled = {name: _joined(name, tensor, first[name]) for name, tensor in now.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(doubled, folder / ADAPTER, {"format": "pt"})
    config = copy.deepcopy(model.peft_config["default"])
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha  # alpha / r stays what it was
    config.init_lora_weights, config.inference_mode = True, True
    config.save_pretrained(folder)


def _joined(name: str, now: Tensor, first: Tensor) -> Tensor:
    """[A; A0], or [B, -B0]."""
    return torch.cat([now, first], 0) if "lora_A" in name else torch.cat([now, -first], 1)


def _halves(saved: State) -> tuple[State, State]:
    """(now, first values) of a saved adapter."""
    now, first = {}, {}
    for name, tensor in saved.items():
        side = 0 if "lora_A" in name else 1
        one, other = tensor.chunk(2, side)
        now[name], first[name] = one.contiguous(), (other if side == 0 else -other).contiguous()
    return now, first


def restore_converted(model: Any, folder: Path) -> None:
    """Put a saved adapter back. Raises RunError where it began with other values, over another residual base."""
    now, first = _halves(load_file(folder / ADAPTER))
    known = model.first_values
    if first.keys() != known.keys() or any(not torch.equal(first[name], known[name]) for name in first):
        raise RunError(
            f"{folder} was trained over another residual of the base than this model holds",
            expected="the decomposition that the run began with",
            fix="resume the run, which rebuilds it from the checkpoint",
        )
    _load(model, now)


def _load(model: Any, tensors: State) -> None:
    outcome = set_peft_model_state_dict(model, tensors)
    if outcome.unexpected_keys:
        raise RunError(f"the adapter does not fit the model: unknown {outcome.unexpected_keys[:3]}")


def _copied(tensors: State) -> State:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
