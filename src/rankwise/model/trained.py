"""What training changes, written to a folder and put back exactly."""

from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from rankwise.errors import RunError
from rankwise.model.bottleneck import BottleneckModel
from rankwise.model.pissa import is_residual, restore_converted, save_converted
from rankwise.model.vocabulary import keeps_embeddings, trains_vocabulary

# Weights of p-tuning's encoder: adapter_model.safetensors holds the prompt that it makes, which cannot be trained on.
ENCODER = "prompt_encoder.safetensors"


def publish_weights(model: Any, folder: Path, state: dict[str, Any] | None = None) -> None:
    """What others load, as PEFT or transformers save it: PiSSA as LoRA over the untouched base.

    Args:
        state: whole tensors by name, where the model itself holds parts of them (methods that change nothing when they
            are saved, and no new tokens).
    """
    if state is not None:
        model.save_pretrained(folder, state_dict=state)
    elif is_residual(model):
        save_converted(model, folder)
    elif _trains_vocabulary(model):
        base = model.get_base_model()
        model.save_pretrained(folder, save_embedding_layers=keeps_embeddings(model.active_peft_config, base))
    else:
        model.save_pretrained(folder)


def _trains_vocabulary(model: Any) -> bool:
    """Does the adapter sit on the embedding? PEFT would then save every embedding of a base that was resized."""
    return isinstance(model, PeftModel) and trains_vocabulary(model.active_peft_config, model.get_base_model())


def save_weights(model: Any, folder: Path, *, encodes: bool, state: dict[str, Any] | None = None) -> None:
    """As `publish_weights`; with `encodes`, the encoder of the adapter's prompt beside it."""
    publish_weights(model, folder, state)
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
    if is_residual(model):
        restore_converted(model, folder)
        return
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    if isinstance(model, BottleneckModel):
        model.load_adapter_state(tensors, folder)
        return
    if isinstance(model, PeftModel):
        try:
            outcome = set_peft_model_state_dict(model, tensors)
        except RuntimeError as error:
            raise RunError(f"{folder} does not fit the model: {str(error).strip().splitlines()[-1].strip()}") from error
        prompt = {"prompt_embeddings"} if model.active_peft_config.is_prompt_learning else set()
        unknown, missing = sorted(set(outcome.unexpected_keys) - prompt), []
    else:
        outcome = model.load_state_dict(tensors, strict=False)
        model.tie_weights()
        tied = set(getattr(model, "all_tied_weights_keys", None) or {})
        unknown, missing = list(outcome.unexpected_keys), [k for k in outcome.missing_keys if k not in tied]
    if unknown or missing:
        raise RunError(f"{folder} does not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")
