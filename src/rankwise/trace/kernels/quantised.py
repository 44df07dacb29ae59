"""Linear layers with 4- and 8-bit weights on `meta`: the packed weight and its scales as stored, the dequantised copy
in forward and backward as bitsandbytes and GPTQ kernels make it.

Sizes: NF4 packs two weights in a byte, one scale for 64 weights (fp32; with double quantisation one byte, and one fp32
for 256 of those): Dettmers et al. 2023 and bitsandbytes' QuantState. LLM.int8: a byte a weight and an fp32 per output
row. GPTQ int4: eight weights in an int32, scales fp16 and packed zeros per group, one int32 index per input.
"""

from typing import Any, Protocol

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import QuantState
from torch import Tensor, nn

from rankwise.trace.meter import launched, launched_product, named, unpacked
from rankwise.trace.work import moved

BLOCK, NESTED_BLOCK = 64, 256


class _Dequantised(torch.autograd.Function):
    """x (…, in) @ W^T with W rebuilt in x's dtype for the product and dropped; again in backward. Saves no input."""

    @staticmethod
    @named("dequantised product")
    def forward(ctx: Any, x: Tensor, packed: Tensor, layer: "Quantised") -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(packed, *([x] if layer.keeps_input else []))
        return torch.nn.functional.linear(x, layer.dequantised(x))

    @staticmethod
    @named("dequantised product backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return torch.matmul(grad, ctx.layer.dequantised(grad)), None, None


class Quantised(Protocol):
    """A layer whose weight is rebuilt for a product: `dequantised(like)` makes the temporaries of that."""

    keeps_input: bool

    def dequantised(self, like: Tensor) -> Tensor: ...


class Linear4bit(bnb.nn.Linear4bit):  # type: ignore[misc]
    """bitsandbytes' Linear4bit with a packed weight on `meta`."""

    keeps_input = False  # bitsandbytes before 0.42 saved it

    def __init__(self, linear: nn.Linear, compute_dtype: torch.dtype, double_quant: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.compute_dtype, self.compute_type_is_set = compute_dtype, True
        self.quant_storage = torch.uint8
        self.support_avx512bf16_for_cpu = False
        self.bias = linear.bias
        numel = linear.weight.numel()
        state = _state(linear.weight, double_quant)
        self.weight = bnb.nn.Params4bit(
            torch.empty((numel + 1) // 2, 1, dtype=torch.uint8, device="meta"),
            requires_grad=False,
            quant_state=state,
            compress_statistics=double_quant,
            quant_type="nf4",
            bnb_quantized=True,
            module=self,
        )
        self.quant_state = state

    def forward(self, x: Tensor) -> Tensor:
        given = x.dtype
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        out: Tensor = _Dequantised.apply(x, self.weight, self)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.to(given)

    def dequantised(self, like: Tensor) -> Tensor:
        numel = self.in_features * self.out_features
        scales = None
        if self.weight.compress_statistics:
            scales = torch.empty(-(-numel // BLOCK), device="meta")  # fp32 block scales, rebuilt first
            scales = scales + 0.0  # plus the offset
        weight = torch.empty(self.out_features, self.in_features, dtype=like.dtype, device="meta")
        del scales
        unpacked(numel // 2 + 4 * numel // BLOCK, weight)
        return weight


def _state(weight: Tensor, double_quant: bool) -> QuantState:
    blocks = -(-weight.numel() // BLOCK)
    code = torch.empty(16, device="meta")
    if not double_quant:
        absmax = torch.empty(blocks, device="meta")
        return QuantState(
            absmax=absmax, shape=weight.shape, code=code, blocksize=BLOCK, quant_type="nf4", dtype=weight.dtype
        )
    nested = QuantState(
        absmax=torch.empty(-(-blocks // NESTED_BLOCK), device="meta"),
        code=torch.empty(256, device="meta"),
        blocksize=NESTED_BLOCK,
        dtype=torch.float32,
    )
    return QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8, device="meta"),
        shape=weight.shape,
        code=code,
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=weight.dtype,
        offset=torch.empty((), device="meta"),
        state2=nested,
    )


class Linear8bitLt(bnb.nn.Linear8bitLt):  # type: ignore[misc]
    """bitsandbytes' Linear8bitLt: the input is quantised row by row, the product is int32, backward rebuilds the
    weight in 16 bit. On a CPU both passes rebuild it.
    """

    keeps_input = True

    def __init__(self, linear: nn.Linear, on_cpu: bool = False) -> None:
        nn.Module.__init__(self)
        self.on_cpu = on_cpu  # bitsandbytes trains there by rebuilding the weight (MatMul8bitFp)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.state = bnb.MatmulLtState()
        self.state.has_fp16_weights = False
        self.state.threshold = 6.0
        self.index = None
        self.bias = linear.bias
        data = torch.empty(self.out_features, self.in_features, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(data, requires_grad=False)
        self.register_buffer("SCB", torch.empty(self.out_features, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        if not self.on_cpu:
            out: Tensor = _Int8.apply(x, self.weight, self)
            return out
        out = _Dequantised.apply(x, self.weight, self)
        return out if self.bias is None else out + self.bias

    def dequantised(self, like: Tensor) -> Tensor:
        return torch.empty(self.out_features, self.in_features, dtype=like.dtype, device="meta").mul_(1.0)


class _Int8(torch.autograd.Function):
    @staticmethod
    @named("int8 product")
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: Linear8bitLt) -> Tensor:
        ctx.layer = layer
        half = x.to(torch.float16)
        rows = half.shape[:-1]
        quantised = torch.empty(*rows, layer.in_features, dtype=torch.int8, device="meta")
        statistics = torch.empty(rows, device="meta")
        product = torch.empty(*rows, layer.out_features, dtype=torch.int32, device="meta")
        out = torch.empty(*rows, layer.out_features, dtype=torch.float16, device="meta")
        launched(half, quantised, statistics)
        launched_product(x.numel() // layer.in_features, layer.out_features, layer.in_features, "int8")
        launched(product, statistics, out)
        del half, quantised, statistics, product
        return out.to(x.dtype)

    @staticmethod
    @named("int8 product backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        return torch.matmul(grad, ctx.layer.dequantised(grad)), None, None


class GptqLinear(nn.Module):
    """GPTQ int4 (a group size of -1 is one group a column), as AutoGPTQ's Triton kernel trains it: fp16, the weight
    rebuilt for each product.
    """

    keeps_input = False
    qweight: Tensor

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        groups = 1 if group_size == -1 else -(-self.in_features // group_size)
        self.register_buffer(
            "qweight", torch.empty(self.in_features // 8, self.out_features, dtype=torch.int32, device="meta")
        )
        self.register_buffer("qzeros", torch.empty(groups, self.out_features // 8, dtype=torch.int32, device="meta"))
        self.register_buffer("scales", torch.empty(groups, self.out_features, dtype=torch.float16, device="meta"))
        self.register_buffer("g_idx", torch.empty(self.in_features, dtype=torch.int32, device="meta"))
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """PEFT asks for the device and shape of a layer's weight."""
        return self.qweight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Dequantised.apply(x, self.qweight, self)
        return out if self.bias is None else out + self.bias

    def dequantised(self, like: Tensor) -> Tensor:
        weight = torch.empty(self.out_features, self.in_features, dtype=like.dtype, device="meta")
        unpacked(moved((self.qweight, self.qzeros, self.scales)), weight)
        return weight
