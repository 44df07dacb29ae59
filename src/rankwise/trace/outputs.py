"""The results of elementwise operations and reductions on `meta`, remembered.

torch finds their shapes, strides and dtypes in Python, a tenth of a millisecond each, and a step asks for the same few
hundreds of times: a third of a trace's time. FakeTensorMode keeps such a cache, too.
"""

from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten
# Each makes one new tensor, and what it looks like depends on its arguments' shapes, strides and dtypes alone.
PURE = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.neg.default,
    aten.pow.Tensor_Scalar,
    aten.rsqrt.default,
    aten.mean.dim,
    aten.sum.dim_IntList,
    aten.linalg_vector_norm.default,
    aten.cat.default,
}
PLAIN = (Tensor, nn.Parameter)
MOST = 4096
_made: dict[Any, tuple[torch.Size, tuple[int, ...], torch.dtype]] = {}


class _Foreign(Exception):
    """An argument that a key cannot hold."""


def output(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`func(*args, **kwargs)`; from the second time on without asking torch's Python code."""
    if func not in PURE:
        return func(*args, **kwargs)
    try:
        key = (func, _key(args), _key(sorted(kwargs.items())))
    except _Foreign:
        return func(*args, **kwargs)
    if key in _made:
        shape, stride, dtype = _made[key]
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    out = func(*args, **kwargs)
    if _is_plain(out):
        if len(_made) >= MOST:
            _made.clear()
        _made[key] = out.shape, out.stride(), out.dtype
    return out


def _is_plain(out: Any) -> bool:
    """Would `empty_strided` make the same tensor, storage and all?"""
    if type(out) is not Tensor or out.device.type != "meta" or out.storage_offset():
        return False
    alike = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device="meta")
    return alike.untyped_storage().nbytes() == out.untyped_storage().nbytes()


def _key(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_key(v) for v in value)
    if isinstance(value, Tensor):
        if type(value) not in PLAIN or value.device.type != "meta" or value.layout is not torch.strided:
            raise _Foreign
        return value.shape, value.stride(), value.dtype
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return type(value), value
    raise _Foreign
