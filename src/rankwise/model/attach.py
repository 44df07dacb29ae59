"""Attach a method to a loaded base: what trains, in which precision; and take the adapter away again."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from rankwise.errors import ModelError
from rankwise.methods import METHODS
from rankwise.records import TrainConfig


def attach(model: PreTrainedModel, config: TrainConfig) -> PreTrainedModel | PeftModel:
    """The model ready to train by `config.method`, in training mode.

    Full: every parameter trains, in the precision it was loaded in. Adapters: the base is frozen as loaded (nothing of
    a 4-bit base is raised to fp32, unlike PEFT's k-bit preparation), the new weights are fp32 and drawn from
    `config.seed` without touching torch's global generator.

    Raises:
        ModelError: full fine-tuning of a 4-bit base, or targets that the model does not have.
    """
    method = METHODS[config.method]
    if method.peft_config is None:
        if _is_four_bit(model):
            raise ModelError(
                "4-bit weights cannot be trained in full", fix="load the base in 16 or 32 bit, or use qlora"
            )
        model.requires_grad_(True)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        if method.trains == "adapter":
            model.enable_input_require_grads()
    if method.peft_config is None:
        model.train()
        return model
    kind, options = method.peft_config(config)
    attached = _with_adapter(model, kind, options, config.seed)
    allow_packing(attached, False)
    attached.train()
    return attached


def allow_packing(model: nn.Module, allowed: bool) -> None:
    """May bitsandbytes repack 4-bit weights for its CPU kernel at the next forward pass in evaluation mode?

    That kernel is twice as fast and has no backward: once packed, and they stay so, training would go on with gradients
    that skip every frozen layer.
    """
    layers: list[Any] = list(model.modules())  # Any: the switch is bitsandbytes' own attribute
    for module in layers:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            from bitsandbytes.functional import has_avx512bf16

            module.support_avx512bf16_for_cpu = allowed and has_avx512bf16()


def _with_adapter(model: PreTrainedModel, kind: str, options: dict[str, Any], seed: int) -> PeftModel:
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)  # GPT-2: PEFT sets it right
        try:
            attached = peft.get_peft_model(model, getattr(peft, kind)(**options), autocast_adapter_dtype=True)
        except ValueError as error:
            raise ModelError(
                f"{kind} cannot be attached to {type(model).__name__}: {str(error).splitlines()[0]}",
                expected="target_modules that name linear layers of this model, or all-linear",
            ) from error
    return attached


def load_adapter(base: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The adapter of `folder` on `base`; in evaluation mode unless trainable.

    Raises:
        ModelError: the folder holds no adapter in safetensors, or one of another shape than the base.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder} holds no adapter: {name} is missing",
                expected="a folder written by PEFT's save_pretrained, in safetensors",
            )
    try:
        adapted = PeftModel.from_pretrained(base, folder, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the adapter {folder} does not fit this base: {str(error).strip().splitlines()[0]}",
            expected="the base model that it was trained on",
            fix="adapter_config.json names that base",
        ) from error
    adapted.train(trainable)
    return adapted


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the model answers as its base does: the adapter is off. Raises ModelError for a model without adapter."""
    if not isinstance(model, PeftModel):
        raise ModelError(
            "this model has no adapter to switch off: full fine-tuning changed the base itself",
            fix="load the base again beside it",
        )
    with model.disable_adapter():
        yield model


def trainable_params(model: nn.Module) -> int:
    """Numbers that an optimizer would change; a tied parameter counts once."""
    return sum(_count(p) for p in model.parameters() if p.requires_grad)


def total_params(model: nn.Module) -> int:
    """All numbers of the model, adapters included; tied once, packed 4-bit weights at their real size."""
    return sum(_count(p) for p in model.parameters())


def _count(parameter: nn.Parameter) -> int:
    """bitsandbytes packs two weights in a byte and keeps the real shape in `quant_state`."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def _is_four_bit(model: nn.Module) -> bool:
    return any(getattr(p, "quant_state", None) is not None for p in model.parameters())
