"""On the CPU, autocast, dropout and attention on `meta` do what torch does there: same dtypes, same tensors kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rankwise.trace.kernels.attention import implementation
from rankwise.trace.kernels.numeric import Autocast

F = torch.nn.functional
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: F.linear(x, x),
    "matmul": lambda x: x @ x,
    "mm": lambda x: torch.mm(x, x),
    "bmm": lambda x: torch.bmm(x[None], x[None]),
    "addmm": lambda x: torch.addmm(x, x, x),
    "baddbmm": lambda x: torch.baddbmm(x[None], x[None], x[None]),
    "einsum": lambda x: torch.einsum("ij,jk->ik", x, x),
    "conv1d": lambda x: F.conv1d(x[None], x[:, :, None]),
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "pow": lambda x: x.pow(2),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "sum": lambda x: x.sum(),
    "cumsum": lambda x: x.cumsum(-1),
    "exp": lambda x: torch.exp(x),
    "softplus": lambda x: F.softplus(x),
    "silu": lambda x: F.silu(x),
    "gelu": lambda x: F.gelu(x),
    "mse_loss": lambda x: F.mse_loss(x, x),
    "add": lambda x: x + x,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_autocast_gives_the_dtype_that_torch_gives_on_a_cpu(name: str, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        expected = OPERATIONS[name](torch.randn(8, 8, dtype=dtype))
    with Autocast(torch.bfloat16, "cpu"):
        found = OPERATIONS[name](torch.empty(8, 8, dtype=dtype, device="meta"))
    assert found.dtype == expected.dtype and found.shape == expected.shape


def test_autocast_on_a_cpu_is_not_that_of_a_gpu() -> None:
    x = torch.empty(8, 8, dtype=torch.bfloat16, device="meta")
    with Autocast(torch.bfloat16, "cpu"):
        on_cpu = F.softmax(x, -1).dtype
    with Autocast(torch.bfloat16, "cuda"):
        on_gpu = F.softmax(x, -1).dtype
    assert (on_cpu, on_gpu) == (torch.bfloat16, torch.float32)


class Outputs(TorchDispatchMode):
    """Shapes and dtypes of everything that operations return while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.seen.append((tuple(tensor.shape), tensor.dtype))
        return out


def test_dropout_keeps_its_noise_on_a_cpu_as_it_does_on_meta() -> None:
    kept = []
    for device in ("cpu", "meta"):
        with Outputs() as outputs:
            F.dropout(torch.empty(4, 6, device=device).fill_(1.0).requires_grad_(), 0.5).sum()
        kept.append([o for o in outputs.seen if o[0] == (4, 6)])
    assert kept[0] == kept[1] and all(dtype == torch.float32 for _, dtype in kept[0])


@pytest.mark.parametrize("asked", ["sdpa", "eager"])
def test_a_cpu_has_attention_of_its_own(asked: str) -> None:
    assert implementation(asked, "cpu") == {"sdpa": "traced_sdpa_cpu", "eager": "eager"}[asked]
    assert implementation(asked, "gpu-8.0") != "traced_sdpa_cpu"
