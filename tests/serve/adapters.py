"""Adapter folders as PEFT writes them, made by hand in milliseconds, and a base that they fit."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rankwise.records import ModelFacts
from tests import builders

BASE: ModelFacts = builders.tiny()
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "auto_mapping": None,
    "megatron_core": "megatron.core",
    "megatron_config": None,
}
PREFIX = "base_model.model.model.layers"


def tensors(base: ModelFacts = BASE, r: int = 4, module: str = "q_proj") -> dict[str, np.ndarray]:
    """A and B of one module in every layer."""
    shape = next(s for s in base.linears if s.name == module)
    found = {}
    for layer in range(base.num_hidden_layers):
        at = f"{PREFIX}.{layer}.self_attn.{module}"
        found[f"{at}.lora_A.weight"] = np.full((r, shape.in_features), 0.01, np.float32)
        found[f"{at}.lora_B.weight"] = np.full((shape.out_features, r), 0.02, np.float32)
    return found


def adapter(folder: Path, values: Mapping[str, np.ndarray] | None = None, **config: Any) -> Path:
    """A folder with adapter_config.json and adapter_model.safetensors."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(dict(tensors() if values is None else values), folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "README.md").write_text("# An adapter\n")
    return folder


def raw(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> None:
    """A file with any header at all: a mapping, or text as it is to stand there."""
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
