"""What depends on the device and `meta` does otherwise than CUDA: autocast, dropout, softmax, attention."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rankwise.trace.kernels.attention import scaled_dot_product_attention
from rankwise.trace.meter import launched, named

F = torch.nn.functional
# torch/amp, CUDA: ops that autocast to the lower precision, and ops that autocast to fp32 (the ones that models call).
LOWER: set[Any] = {
    F.linear,
    torch.matmul,
    torch.bmm,
    torch.mm,
    torch.addmm,
    torch.baddbmm,
    torch.einsum,
    F.conv1d,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
    Tensor.mm,
    Tensor.addmm,
    Tensor.baddbmm,
}
SOFTMAX: set[Any] = {F.softmax, torch.softmax, Tensor.softmax}
FLOAT: set[Any] = {
    F.log_softmax,
    torch.log_softmax,
    F.cross_entropy,
    F.nll_loss,
    F.layer_norm,
    torch.pow,
    Tensor.pow,
    Tensor.__pow__,
    torch.rsqrt,
    Tensor.rsqrt,
    torch.exp,
    torch.log,
    torch.cumsum,
    torch.sum,
    torch.prod,
    Tensor.sum,
    Tensor.cumsum,
    torch.norm,
    F.softplus,
}
# The same for the CPU: products alone are lowered (torch's attention among them, see kernels/attention.py); softmax,
# norms and powers stay as they come.
CPU_LOWER: set[Any] = {*LOWER, F.conv2d, torch.addbmm, Tensor.addbmm, F.prelu}
CPU_FLOAT: set[Any] = {F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.binary_cross_entropy_with_logits}


class CudaNumerics(TorchFunctionMode):
    """Dropout with a mask of one byte an element, where the composite that `meta` runs keeps a noise tensor; softmax
    that reads 16 bit and writes fp32 in one kernel, whose backward makes a product of gradient and output first
    (softmax_backward_cuda_out).
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func in (F.dropout, torch.dropout):
            return _dropout(*args, **kwargs)
        if func in SOFTMAX:
            return _softmax(*args, **kwargs)
        return func(*args, **kwargs)

    def _attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *_: Any, enable_gqa: bool = False, **__: Any
    ) -> Tensor:
        return scaled_dot_product_attention(q, k, v, self.device, mask=attn_mask, grouped=enable_gqa)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **_: Any) -> Tensor:
    if not training or p == 0.0:
        return input
    out: Tensor = torch.ops.aten.native_dropout(input, p, True)[0]
    return out


def _softmax(input: Tensor, dim: int | None = None, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    out: Tensor = _Softmax.apply(input, dtype or input.dtype)
    return out


class _Softmax(torch.autograd.Function):
    @staticmethod
    @named("softmax")
    def forward(ctx: Any, input: Tensor, dtype: torch.dtype) -> Tensor:
        out = torch.empty_like(input, dtype=dtype)
        ctx.given = input.dtype
        ctx.save_for_backward(out)
        launched(input, out)
        return out

    @staticmethod
    @named("softmax backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        product = torch.empty_like(grad)
        result = torch.empty_like(grad, dtype=ctx.given)
        launched(grad, ctx.saved_tensors[0], product)
        launched(product, grad, result)
        del product
        return result, None


class Autocast(TorchFunctionMode):
    """torch.autocast(device) by torch's published op lists, for tensors that no autocast key is dispatched for.

    fp32 leaves that require a gradient are cast once while it is open, as torch's weight cache does.
    """

    def __init__(self, dtype: torch.dtype, device: str = "cuda") -> None:
        super().__init__()
        self.dtype, self.device = dtype, device
        self.lower, self.float = (CPU_LOWER, CPU_FLOAT) if device == "cpu" else (LOWER, FLOAT)
        self.cache: dict[int, Tensor] = {}

    def __enter__(self) -> Any:
        torch.set_autocast_enabled(self.device, True)
        torch.set_autocast_dtype(self.device, self.dtype)
        return TorchFunctionMode.__enter__(self)

    def __exit__(self, *error: Any) -> None:
        self.cache.clear()
        torch.set_autocast_enabled(self.device, False)
        TorchFunctionMode.__exit__(self, *error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        cast: Callable[[Tensor], Tensor] | None = None
        if func is F.cross_entropy and self.device == "cpu":
            return _cpu_cross_entropy(*args, **kwargs)
        if func in self.lower:
            cast = self._lower
        elif func in SOFTMAX and self.device == "cuda":
            # one kernel: no fp32 copy of its input
            kwargs = kwargs | {"dtype": kwargs.get("dtype") or torch.float32}
        elif func in self.float:
            cast = _raise
        if cast is not None:
            args = _each(cast, args)
            kwargs = {name: _each(cast, value) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _lower(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype == self.dtype:
            return tensor
        if not (tensor.is_leaf and tensor.requires_grad and tensor.dtype == torch.float32):
            return tensor.to(self.dtype)
        if id(tensor) not in self.cache:
            self.cache[id(tensor)] = tensor.to(self.dtype)
        return self.cache[id(tensor)]


def _each(cast: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Tensors cast, in an argument or a list of them."""
    if isinstance(value, Tensor):
        return cast(value)
    return type(value)(_each(cast, part) for part in value) if type(value) in (list, tuple) else value


def _cpu_cross_entropy(input: Tensor, target: Tensor, label_smoothing: float = 0.0, **options: Any) -> Tensor:
    """Of its two parts autocast raises the second alone: the log-probabilities stay as they come, and are copied."""
    if label_smoothing:
        return F.cross_entropy(input, target, label_smoothing=label_smoothing, **options)
    return F.nll_loss(_raise(F.log_softmax(input, min(1, input.dim() - 1))), target, **options)


def _raise(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
