"""What training changes, written to a folder and put back exactly."""

from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from rankwise.errors import RunError
from rankwise.model.bottleneck import BottleneckModel

# Weights of p-tuning's encoder: adapter_model.safetensors holds the prompt that it makes, which cannot be trained on.
ENCODER = "prompt_encoder.safetensors"


def save_weights(model: Any, folder: Path, *, encodes: bool, state: dict[str, Any] | None = None) -> None:
    """As PEFT or transformers save them; with `encodes`, the encoder of the adapter's prompt beside it.

    Args:
        state: whole tensors by name, where the model itself holds parts of them.
    """
    model.save_pretrained(folder, **({} if state is None else {"state_dict": state}))
    if encodes:
        state = model.prompt_encoder["default"].state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / ENCODER)


def restore_weights(model: Any, folder: Path) -> None:
    """Load saved weights into a model of the same shape.

    Raises:
        RunError, ModelError: a trained tensor is missing, or one has no place.
    """
    if (folder / ENCODER).is_file():
        model.prompt_encoder["default"].load_state_dict(load_file(folder / ENCODER))
        return
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    if isinstance(model, BottleneckModel):
        model.load_adapter_state(tensors, folder)
        return
    if isinstance(model, PeftModel):
        outcome = set_peft_model_state_dict(model, tensors)
        prompt = {"prompt_embeddings"} if model.active_peft_config.is_prompt_learning else set()
        unknown, missing = sorted(set(outcome.unexpected_keys) - prompt), []
    else:
        outcome = model.load_state_dict(tensors, strict=False)
        model.tie_weights()
        tied = set(getattr(model, "all_tied_weights_keys", None) or {})
        unknown, missing = list(outcome.unexpected_keys), [k for k in outcome.missing_keys if k not in tied]
    if unknown or missing:
        raise RunError(f"{folder} does not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")
