"""The bytes of adapter_model.safetensors, known before it is written: of a model on `meta` too."""

import json
from collections.abc import Mapping
from typing import Any

import peft
import torch
from torch import Tensor, nn

from rankwise.model.bottleneck import BottleneckModel
from rankwise.model.vocabulary import keeps_embeddings

# safetensors' names, in the order in which its writer lays the tensors out: last first, then by name.
DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
}
ORDER = {dtype: place for place, dtype in enumerate(reversed(DTYPES))}
LENGTH_FIELD = 8  # bytes before the header; the header is padded with spaces to a multiple of as many
METADATA = {"format": "pt"}  # as PEFT and transformers write it


def adapter_bytes(model: nn.Module) -> int:
    """Bytes of the tensors that adapter_model.safetensors would hold, without its header of a few kB."""
    return sum(tensor.numel() * tensor.element_size() for tensor in saved_tensors(model).values())


def adapter_file_bytes(model: nn.Module) -> int:
    """Bytes of the whole adapter_model.safetensors, header included."""
    return safetensors_bytes(saved_tensors(model))


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = METADATA) -> int:
    """Size of the file that `safetensors.torch.save_file` makes of these tensors, which may be on `meta`.

    The format (huggingface.co/docs/safetensors): the header's length in 8 bytes, a JSON header without spaces that
    gives dtype, shape and offsets of each tensor, padding, and the tensors without gaps.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (ORDER[item[1].dtype], item[0])):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return LENGTH_FIELD + text + -text % LENGTH_FIELD + end


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What `save_pretrained` of a model with an adapter would write, by the names in the file."""
    if isinstance(model, BottleneckModel):
        return model.adapter_state()
    if _saves_prompt(model):
        return {"prompt_embeddings": _prompt(model)}
    # A 4-bit weight cannot be listed without its values; nothing of it is saved.
    four_bit = any(getattr(p, "quant_state", None) is not None for p in model.parameters())
    listed = dict(model.named_parameters()) if four_bit else None
    adapted: Any = model
    embeddings = keeps_embeddings(adapted.active_peft_config, adapted.get_base_model())
    return dict(peft.get_peft_model_state_dict(model, state_dict=listed, save_embedding_layers=embeddings))


def _saves_prompt(model: Any) -> bool:
    """Does the file hold the prompt that the encoder makes, instead of the encoder's own weights?"""
    config = model.active_peft_config
    return config.is_prompt_learning and config.peft_type in ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CARTRIDGE")


def _prompt(model: Any) -> Tensor:
    encoder, tokens = model.prompt_encoder["default"], model.prompt_tokens["default"].unsqueeze(0)
    first = next(encoder.parameters())
    count = model.active_peft_config.num_virtual_tokens
    with torch.no_grad():
        prompt: Tensor = encoder(tokens[:, :count].to(first.device))[0]
    return prompt
