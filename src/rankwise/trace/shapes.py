"""The weight matrices of a model class: built on `meta` from a config, looked at, thrown away."""

from collections import Counter
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from rankwise.model.attach import total_params
from rankwise.records import LinearShape, Setup, Shapes
from rankwise.trace.build import load


def shapes(config: dict[str, Any]) -> Shapes:
    """Linear layers inside the numbered blocks.

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
    """
    model = load(Setup(config=config, method="full", dtype="bf16", per_device_train_batch_size=1, max_length=8))
    counts: Counter[tuple[str, int, int]] = Counter()
    for name, module in model.named_modules():
        size = _size(module)
        if size is not None and any(part.isdigit() for part in name.split(".")):
            counts[(name.rpartition(".")[2], *size)] += 1
    rows = [LinearShape(name=n, out_features=o, in_features=i, count=c) for (n, o, i), c in sorted(counts.items())]
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return Shapes(total_params=total_params(model), linears=tuple(rows), tied=head.weight is embedding.weight)


def _size(module: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a linear layer; None for anything else. Conv1D keeps its weight transposed."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        return int(module.nf), int(module.nx)
    return None
