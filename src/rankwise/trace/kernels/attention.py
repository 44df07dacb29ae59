"""Attention on `meta` by the kernel that a GPU would pick.

Flash (Dao, flash_attn_interface.py; torch's _scaled_dot_product_flash_attention): saves q, k, v, the output and the
log-sum-exp in fp32; backward makes dq, dk, dv (expanded over the query groups first, when keys and values have fewer
heads), an fp32 accumulator of dq and the row sums of grad x output in fp32.
Memory-efficient (torch's _scaled_dot_product_efficient_attention, the kernel of GPUs before compute capability 8.0):
the same tensors with keys and values repeated to the number of query heads before the call; backward keeps fp32
accumulators only where the head size passes 128.
CPU (torch's _scaled_dot_product_flash_attention_for_cpu): saves what flash saves, for keys and values as they are
grouped; the blocks it works in are inside the kernel, some hundred KiB a thread, and are left out.
Eager is transformers' own code and needs no stand-in.
FLOPs: causal kernels skip the upper triangle, so a forward pass is 2 products of length^2 / 2 x head size, backward 5.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward, use_gqa_in_sdpa
from transformers.masking_utils import sdpa_mask

from rankwise.trace.meter import launched, named

# A name with `flash` in it would be looked up on the hub.
FUSED = {
    "flash-repeated": "traced_fa2_repeated",
    "flash": "traced_fa2",
    "sdpa-flash": "traced_sdpa_fa2",
    "sdpa-efficient": "traced_sdpa_efficient",
    "sdpa-cpu": "traced_sdpa_cpu",
}
FLASH_ROWS = 128  # the kernels pad the rows of their fp32 work tensors to their tile


class Flash(torch.autograd.Function):
    """q (batch, heads, length, size), k and v (batch, kv_heads, length, size) -> (batch, heads, length, size).

    The output lies in memory as (batch, length, heads, size), as the kernel writes it.
    """

    @staticmethod
    @named("flash attention")
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]).transpose(1, 2)
        lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, out, lse)
        _count(q, k, 2, v, out)
        return out

    @staticmethod
    @named("flash attention backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, _ = ctx.saved_tensors
        _count(q, k, 5, v, out, grad, q, k, v)
        batch, heads, length, size = q.shape
        rows = -(-length // FLASH_ROWS) * FLASH_ROWS
        work = [
            torch.empty(batch, heads, rows, device=q.device),
            torch.empty(batch, heads, rows, -(-size // 32) * 32, device=q.device),
        ]
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        if k.shape[1] != heads:
            wide = [t.new_empty(batch, heads, t.shape[2], t.shape[3]) for t in (k, v)]
            dk = torch.sum(wide[0].unflatten(1, (k.shape[1], -1)), dim=2)
            dv = torch.sum(wide[1].unflatten(1, (k.shape[1], -1)), dim=2)
            del wide
        del work
        return dq, dk, dv


class Efficient(torch.autograd.Function):
    """As Flash, for equal numbers of heads."""

    @staticmethod
    @named("memory-efficient attention")
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]).transpose(1, 2)
        lse = torch.empty(*q.shape[:2], -(-q.shape[2] // 32) * 32, dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, out, lse)
        _count(q, k, 2, v, out)
        return out

    @staticmethod
    @named("memory-efficient attention backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, _ = ctx.saved_tensors
        _count(q, k, 5, v, out, grad, q, k, v)
        work = [torch.empty(q.shape[:-1], device=q.device)]
        if q.shape[-1] > 128:
            work += [torch.empty(t.shape, device=q.device) for t in (q, k, v)]
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _count(q: Tensor, k: Tensor, products: int, *moved: Tensor) -> None:
    """`moved`: what the kernel reads or writes beside q and k."""
    batch, heads, length, size = q.shape
    work = products * batch * heads * length * k.shape[2] * size  # 2 a multiply-add, half of the square
    launched(q, k, *moved, attention=work)


def _half(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flash kernels take 16-bit only: transformers casts what PEFT's k-bit preparation turned into fp32."""
    if q.dtype != torch.float32:
        return q, k, v
    config: Any = module.config
    target: torch.dtype = config.dtype or torch.bfloat16
    if target == torch.float32:
        target = torch.bfloat16
    return q.to(target), k.to(target), v.to(target)


def _fa2(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, **_: Any
) -> tuple[Tensor, None]:
    """transformers' flash_attention_2: no mask, 16-bit, heads stay grouped."""
    q, k, v = _half(module, q, k, v)
    return Flash.apply(q, k, v).transpose(1, 2), None


def _fa2_repeated(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, **_: Any
) -> tuple[Tensor, None]:
    """As classes of transformers up to 4.47 called it: keys and values repeated first, and kept so."""
    q, k, v = _half(module, q, k, v)
    groups = q.shape[1] // k.shape[1]
    return Flash.apply(q, repeat_kv(k, groups), repeat_kv(v, groups)).transpose(1, 2), None


def _sdpa_fa2(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, **_: Any
) -> tuple[Tensor, None]:
    """torch's scaled_dot_product_attention on a GPU from compute capability 8.0 on, in 16 bit and without a mask."""
    if q.dtype == torch.float32 or attention_mask is not None:
        return _sdpa_efficient(module, q, k, v, attention_mask)
    return Flash.apply(q, k, v).transpose(1, 2).contiguous(), None


def _sdpa_efficient(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, **_: Any
) -> tuple[Tensor, None]:
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)
    return Efficient.apply(q, k, v).transpose(1, 2).contiguous(), None


def _sdpa_cpu(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """torch's scaled_dot_product_attention on a CPU: the flash kernel there has a `meta` form and its own derivative.
    Dropout and values of another size than the keys go the plain way, as they do on `meta`.
    """
    if torch.is_autocast_enabled("cpu"):
        lower = torch.get_autocast_dtype("cpu")
        q, k, v = q.to(lower), k.to(lower), v.to(lower)
    if options.get("dropout") or q.shape[-1] != v.shape[-1]:
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, q, k, v, attention_mask, **options)
        return plain
    if not use_gqa_in_sdpa(attention_mask, k, v):
        groups = q.shape[1] // k.shape[1]
        k, v = repeat_kv(k, groups), repeat_kv(v, groups)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        attention_mask = torch.where(attention_mask, q.new_zeros(()), q.new_full((), -torch.inf))
    with named("flash attention"):
        out, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, attention_mask is None, attn_mask=attention_mask
        )
    _count(q, k, 2, v, out)
    return out.transpose(1, 2).contiguous(), None


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, device: str, *, mask: Any, grouped: bool) -> Tensor:
    """torch's function, where a model class calls it itself: the kernel that `device` would pick, output as q."""
    if grouped or k.shape[1] == q.shape[1]:
        function = _sdpa_cpu if device == "cpu" else _sdpa_fa2 if _capability(device) >= 8.0 else _sdpa_efficient
        out, _ = function(nn.Identity(), q, k, v, mask)
        return out.transpose(1, 2)
    attended: Tensor = Efficient.apply(q, k.expand_as(q), v.expand(*q.shape[:-1], v.shape[-1]))
    return attended


def _capability(device: str) -> float:
    return float(device.partition("-")[2] or 8.0)


def register() -> None:
    """Make the stand-ins known to transformers by their names in FUSED."""
    for name, function in (("flash", _fa2), ("flash-repeated", _fa2_repeated), ("sdpa-flash", _sdpa_fa2)):
        AttentionInterface.register(FUSED[name], function)
    AttentionInterface.register(FUSED["sdpa-efficient"], _sdpa_efficient)
    AttentionInterface.register(FUSED["sdpa-cpu"], _sdpa_cpu)
    for name in (FUSED["sdpa-flash"], FUSED["sdpa-efficient"], FUSED["sdpa-cpu"]):
        AttentionMaskInterface.register(name, sdpa_mask)


def implementation(asked: str, device: str, *, repeat_kv: bool = False) -> str:
    """The name to give transformers. `device`: `cpu`, or `gpu-<compute capability>`."""
    if asked == "flash":
        return FUSED["flash-repeated" if repeat_kv else "flash"]
    if asked == "eager":
        return "eager"
    if device == "cpu":
        return FUSED["sdpa-cpu"]
    return FUSED["sdpa-flash" if _capability(device) >= 8.0 else "sdpa-efficient"]
