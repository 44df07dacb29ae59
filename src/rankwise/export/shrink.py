"""An adapter of fewer directions, as plain PEFT: each product cut to its strongest by truncated SVD."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rankwise.errors import ModelError, UsageError
from rankwise.model.adapterproducts import CONFIG, WEIGHTS, AdapterFolder
from rankwise.model.products import truncated


def write_shrunk(adapter: AdapterFolder, rank: int, folder: Path) -> None:
    """Write `adapter` cut to `rank` into an existing folder: adapter_config.json and adapter_model.safetensors.

    Products keep their lower ranks where they have such; whatever else the adapter holds (the lengths of DoRA, rows of
    tokens, whole modules) stays as it is. Its scale is 1: alpha = r.

    Raises:
        UsageError: the rank is none below the adapter's.
        ModelError: it has no products.
    """
    if why := adapter.no_spectrum():
        raise ModelError(f"{adapter.folder} cannot be cut to a lower rank: {why}", expected="a LoRA adapter")
    ranks = {product.module: product.rank for product in adapter.products()}
    if not 1 <= rank < max(ranks.values()):
        raise UsageError(
            f"rank {rank} for an adapter of rank {max(ranks.values())}",
            expected=f"a rank from 1 to {max(ranks.values()) - 1}",
        )
    own = {module: known for module, known in ranks.items() if known < rank}
    save_file(_tensors(adapter, rank), folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(_config(adapter, rank, own), indent=2, sort_keys=True) + "\n")


def _tensors(adapter: AdapterFolder, rank: int) -> dict[str, Tensor]:
    factors = {name for pair in adapter.pairs.values() for name in pair}
    others = [name for name in adapter.names if name not in factors]
    found = dict(zip(others, adapter.tensors(others), strict=True))
    for module, names in adapter.pairs.items():
        a, b = adapter.tensors(names)
        near = truncated(adapter.product(module, names[0], a, b), rank)
        found[names[0]] = near.a.reshape(near.rank, *a.shape[1:]).to(a.dtype)
        found[names[1]] = near.b.reshape(b.shape[0], near.rank, *b.shape[2:]).to(b.dtype)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _config(adapter: AdapterFolder, rank: int, own: dict[str, int]) -> dict[str, Any]:
    """alpha = r everywhere, so that alpha / r is 1; under rsLoRA it would be alpha / sqrt(r)."""
    return {
        **adapter.config,
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "init_lora_weights": True,
        "rank_pattern": own,
        "alpha_pattern": own,
        "inference_mode": True,
    }
