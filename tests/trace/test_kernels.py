"""Each stand-in keeps what the kernel keeps that it stands for: compared with the real one on the CPU, or on `meta`."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from rankwise.trace.kernels.attention import Efficient, Flash
from rankwise.trace.kernels.numeric import Autocast, CudaNumerics
from rankwise.trace.kernels.optimizers import optimizer
from rankwise.trace.kernels.quantised import GptqLinear, Linear4bit, Linear8bitLt
from rankwise.trace.meter import Meter
from rankwise.trace.run import run_step
from tests.trace.families import FAMILIES, setup


def saved(compute: Callable[[], Tensor]) -> Counter[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of the tensors that autograd keeps, without random seeds."""
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        compute()
    return Counter((tuple(t.shape), t.dtype) for t in kept if t.numel() > 2)


def heads(count: int, size: int = 64) -> Tensor:
    return torch.empty(2, count, 96, size, dtype=torch.bfloat16, device="meta", requires_grad=True)


@pytest.mark.parametrize(
    ("stand_in", "real"),
    [
        (Flash, lambda q, k, v: torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True)[0]),
        (
            Efficient,
            lambda q, k, v: torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True)[0],
        ),
    ],
)
@pytest.mark.parametrize("size", [64, 128])
def test_attention_keeps_what_torchs_kernel_keeps(stand_in: Any, real: Any, size: int) -> None:
    q, k, v = heads(8, size), heads(8, size), heads(8, size)
    kept = saved(lambda: stand_in.apply(q, k, v))
    assert kept == saved(lambda: real(q, k, v))
    assert sum(kept.values()) == 5  # q, k, v, the output and the log-sum-exp


def test_attention_gradients_have_the_shape_of_their_inputs() -> None:
    q, k, v = heads(8), heads(2), heads(2)
    for made, given in zip(torch.autograd.grad(Flash.apply(q, k, v).sum(), (q, k, v)), (q, k, v), strict=True):
        assert (made.shape, made.dtype) == (given.shape, given.dtype)


def test_dropout_keeps_a_byte_an_element() -> None:
    here, there = torch.ones(64, 32, requires_grad=True), torch.ones(64, 32, requires_grad=True, device="meta")
    with CudaNumerics("gpu-8.0"):
        kept = saved(lambda: F.dropout(there, 0.1))
    assert kept == saved(lambda: torch.ops.aten.native_dropout(here, 0.1, True)[0])
    assert kept == {((64, 32), torch.bool): 1}


# -- quantised weights -----------------------------------------------------------------------------


def state_bytes(state: Any) -> Counter[tuple[str, int]]:
    """Sizes of a bitsandbytes QuantState's tensors by name, the nested one's too."""
    own = Counter((name, t.nbytes) for name, t in vars(state).items() if isinstance(t, Tensor))
    return own + state_bytes(state.state2) if getattr(state, "state2", None) is not None else own


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(256, 512), (96, 160)])
def test_nf4_is_stored_as_bitsandbytes_stores_it(double: bool, rows: int, columns: int) -> None:
    real = bnb.nn.Linear4bit(columns, rows, bias=False, compress_statistics=double, quant_type="nf4")
    real.load_state_dict({"weight": torch.randn(rows, columns, dtype=torch.bfloat16)})
    real = real.to("cpu")
    if real.weight.dtype != torch.uint8:
        real.weight = real.weight._quantize("cpu")
    ours = Linear4bit(nn.Linear(columns, rows, bias=False, device="meta"), torch.bfloat16, double)
    assert real.weight.dtype == ours.weight.dtype == torch.uint8
    assert real.weight.nbytes == ours.weight.nbytes == rows * columns // 2
    assert state_bytes(real.weight.quant_state) == state_bytes(ours.quant_state)


def test_int8_is_stored_as_bitsandbytes_stores_it() -> None:
    weight = torch.randn(96, 160)
    packed, scales, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    ours = Linear8bitLt(nn.Linear(160, 96, bias=False, device="meta"))
    assert (ours.weight.shape, ours.weight.dtype) == (packed.shape, packed.dtype)
    assert (ours.SCB.shape, ours.SCB.dtype) == (scales.shape, scales.dtype)


@pytest.mark.parametrize("method", ["4-bit", "8-bit", "gptq"])
def test_a_quantised_product_keeps_no_input_and_has_its_gradient(method: str) -> None:
    linear = nn.Linear(256, 128, bias=False, device="meta")
    layer: nn.Module = {
        "4-bit": lambda: Linear4bit(linear, torch.bfloat16, True),
        "8-bit": lambda: Linear8bitLt(linear),
        "gptq": lambda: GptqLinear(linear, 128),
    }[method]()
    x = torch.empty(2, 32, 256, dtype=torch.bfloat16, device="meta", requires_grad=True)
    assert ((2, 32, 256), torch.bfloat16) not in saved(lambda: layer(x))
    out = layer(x)
    assert (out.shape, out.dtype) == ((2, 32, 128), torch.bfloat16)
    assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape


# -- optimizers ------------------------------------------------------------------------------------


def states(made: torch.optim.Optimizer, params: list[Tensor]) -> Counter[int]:
    """Sizes of what an optimizer keeps after a step, but for step counts and bitsandbytes' code tables in common."""
    for p in params:
        p.grad = torch.ones_like(p)
    made.step()
    kept = {t.untyped_storage()._cdata: t for s in made.state.values() for t in s.values() if isinstance(t, Tensor)}
    return Counter(t.nbytes for t in kept.values() if t.numel() > 1 and t.numel() != 256)


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("adamw_torch_fused", lambda p: torch.optim.AdamW(p, fused=True)),
        ("adamw_torch", lambda p: torch.optim.AdamW(p, foreach=True)),
        ("adamw_bnb_8bit", lambda p: bnb.optim.AdamW8bit(p)),
        ("lion_8bit", lambda p: bnb.optim.Lion8bit(p)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p)),
    ],
)
def test_an_optimizer_keeps_the_states_of_the_real_one(name: str, real: Any) -> None:
    shapes = [(128, 96), (96,), (64, 128)]
    here: list[Tensor] = [nn.Parameter(torch.ones(s)) for s in shapes]
    there: list[Tensor] = [nn.Parameter(torch.ones(s, device="meta")) for s in shapes]
    found, expected = states(optimizer(name, there), there), states(real(here), here)
    assert found == expected
    assert len(expected) > 1


# -- autocast --------------------------------------------------------------------------------------

X: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": F.linear,
    "matmul": lambda x, w: x @ w.T,
    "softmax": lambda x, w: F.softmax(x, dim=-1),
    "layer_norm": lambda x, w: F.layer_norm(x, (16,)),
    "cross_entropy": lambda x, w: F.cross_entropy(x, torch.zeros(16, dtype=torch.int64, device=x.device)),
    "pow": lambda x, w: x.pow(2),
    "add": lambda x, w: x + w,
}


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", X)
def test_autocast_on_the_cpu_is_torchs(name: str, given: torch.dtype) -> None:
    here, there = torch.ones(16, 16, dtype=given), torch.ones(16, 16, dtype=given, device="meta")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        real = X[name](here, here)
    with Autocast(torch.bfloat16, "cpu"):
        assert X[name](there, there).dtype == real.dtype


@pytest.mark.parametrize("name", X)
def test_autocast_for_cuda_follows_torchs_lists(name: str) -> None:
    """pytorch.org/docs, amp: CUDA ops that autocast to 16 bit, to float32, and to the widest input."""
    there = torch.ones(16, 16, dtype=torch.bfloat16, device="meta")
    with Autocast(torch.bfloat16):
        assert X[name](there, there).dtype == (torch.bfloat16 if name in ("linear", "matmul", "add") else torch.float32)
        assert X[name](there.float(), there.float()).dtype == (
            torch.bfloat16 if name in ("linear", "matmul") else torch.float32
        )


def test_autocast_casts_a_weight_once() -> None:
    weight = nn.Parameter(torch.empty(64, 64, device="meta"))
    x = torch.empty(8, 64, device="meta")
    meter = Meter(0)
    with meter, meter.during("forward"), Autocast(torch.bfloat16):
        kept = [F.linear(x, weight), F.linear(x, weight)]
    casts = [b for b in meter.close().births if b.bytes == 64 * 64 * 2]
    assert len(casts) == 1
    assert len(kept) == 2


# -- arithmetic ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_flops_are_those_of_torchs_counter(family: str) -> None:
    given = FAMILIES[family] | {"num_hidden_layers": 2, "n_layer": 2}
    config = AutoConfig.for_model(given["model_type"], **{k: v for k, v in given.items() if k != "model_type"})
    config.num_hidden_layers = 2
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").train()
    ids = torch.ones(2, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    layers = {"n_layer": 2} if family == "gpt2" else {"num_hidden_layers": 2}
    run = run_step(setup(family, attn_implementation="eager", config=layers))
    counted: Counter[str] = Counter()
    for (phase, _), count in run.recording.flops.items():
        counted[phase] += count
    assert counted["forward"] // run.micro_batches == forward.get_total_flops()
    assert counted["backward"] // run.micro_batches == backward.get_total_flops()
