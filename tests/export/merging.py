"""What the tests of merging stand on: tiny bases, adapters with random values, and PEFT's own merge beside ours."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from rankwise.model.load import load_base


def adapter_of(base: Path, folder: Path, config: Any, seed: int = 0) -> Path:
    """An adapter whose every float tensor was moved from where PEFT begins it; returns `folder`."""
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model: Any = get_peft_model(load_base(base, dtype="fp32"), config)
        model.save_pretrained(folder)
        file = folder / "adapter_model.safetensors"
        tensors = {name: moved(t) for name, t in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    return folder


def moved(tensor: Tensor) -> Tensor:
    return tensor + 0.1 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor


def peft_merged(base: Path, adapter: Path, **options: Any) -> PreTrainedModel:
    """merge_and_unload over the base in fp32."""
    model: Any = load_base(base, dtype="fp32", **options)
    if options:
        model = model.dequantize().to(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged: PreTrainedModel = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    return merged


def state(folder: Path) -> dict[str, Tensor]:
    """A merged folder as plain transformers loads it, in the precision of the files."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    return dict(model.state_dict())


def difference(ours: dict[str, Tensor], model: PreTrainedModel) -> tuple[float, float]:
    """(share of the numbers that are the same bits, largest difference in steps of their precision at their size)."""
    theirs = model.state_dict()
    assert ours.keys() == theirs.keys()
    same = count = 0
    most = 0.0
    for name, tensor in ours.items():
        other = theirs[name].to(tensor.dtype)
        same += int((tensor == other).sum())
        count += tensor.numel()
        step = torch.finfo(tensor.dtype).eps * other.float().abs().clamp(min=1e-3)
        most = max(most, float(((tensor.float() - other.float()).abs() / step).max()))
    return same / count, most
