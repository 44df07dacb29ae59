"""What a device does in a step beside holding tensors: products by shape, attention, bytes moved, kernels launched.

A roofline needs no more: a product takes the time of its arithmetic or of its operands, whichever is longer, everything
else the time of its bytes, and each kernel at least the time that the host needs to launch it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Shape = tuple[int, int, int, int, str]  # batch, m, n, k, dtype
# No kernel: memory that is asked for, and a view whose schema does not say that it is one.
IDLE = {aten.empty, aten.new_empty, aten.empty_like, aten.empty_strided, aten.new_empty_strided, aten._unsafe_view}
# These read as many rows of a table as they return, not the table.
LOOKS_UP = {aten.embedding, aten.index, aten.index_select, aten.gather}
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.int8: "int8"}


@dataclass(slots=True)
class Work:
    """Of one phase and one layer. `attention` is in operations (a multiply-add as two), `bytes` are read and written
    outside of products, `unpacked` are those of rebuilding quantised weights.
    """

    products: Counter[Shape] = field(default_factory=Counter)
    attention: int = 0
    bytes: int = 0
    unpacked: int = 0
    kernels: int = 0

    def add(self, other: "Work", times: int = 1) -> None:
        for shape, count in other.products.items():
            self.products[shape] += count * times
        self.attention += other.attention * times
        self.bytes += other.bytes * times
        self.unpacked += other.unpacked * times
        self.kernels += other.kernels * times

    def see(self, func: Any, args: Any, kwargs: Any, out: Any, flops: int | None) -> None:
        """One operation that is no view; `flops` where it is a product."""
        packet = func._overloadpacket
        if packet in IDLE:
            return
        self.kernels += 1
        if flops is not None:
            self.products[_shape(out, flops)] += 1
        elif packet in LOOKS_UP:
            self.bytes += 2 * moved([out])
        else:
            self.bytes += moved((args, kwargs)) + moved(out)


def _shape(out: Any, flops: int) -> Shape:
    """Of a product by its result (…, n) and its arithmetic, which is 2 x elements x k."""
    result = tensors_in(out)[0]
    batch = result.shape[0] if result.dim() == 3 else 1
    n = result.shape[-1] if result.dim() else 1
    elements = max(1, result.numel())
    return batch, elements // (batch * n), n, max(1, flops // (2 * elements)), NAMES.get(result.dtype, "fp32")


def moved(tensors: Any) -> int:
    """Bytes of all tensors in a structure; an expanded one has no more than its storage."""
    return sum(map(size, tensors_in(tensors)))


def tensors_in(structure: Any) -> list[Tensor]:
    """Of what an operation takes or gives: in order. torch's `tree_leaves` takes a tenth of a trace's time."""
    if isinstance(structure, Tensor):
        return [structure]
    if isinstance(structure, (list, tuple)):
        return [tensor for part in structure for tensor in tensors_in(part)]
    if isinstance(structure, dict):
        return [tensor for part in structure.values() for tensor in tensors_in(part)]
    return []


def size(tensor: Tensor) -> int:
    whole = tensor.numel() * tensor.element_size()
    return whole if tensor.is_sparse else min(whole, tensor.untyped_storage().nbytes())
