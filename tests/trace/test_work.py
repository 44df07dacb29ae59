"""The work counted on `meta` is that of the real step on the CPU, product by product, by the rules of each method."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from rankwise.records.setup import PhaseWork, Setup
from rankwise.trace.extend import TRACED, extend
from rankwise.trace.meter import Meter
from rankwise.trace.peaks import trace
from rankwise.trace.run import run_step
from rankwise.trace.stream import Stream
from rankwise.trace.work import Work, size
from tests.tiny import tiny_gpt2, tiny_llama
from tests.trace.families import setup as family_setup

ROWS, LENGTH, RANK = 2, 24, 4
TOKENS = ROWS * LENGTH
aten = torch.ops.aten
Shapes = Counter[tuple[int, int, int, int]]


class Operands(TorchDispatchMode):
    """Shapes of the products that really run, by their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Shapes = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        if packet in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
            one, other = args[-2:]
            batch = one.shape[0] if one.dim() == 3 else 1
            self.seen[batch, one.shape[-2], other.shape[-1], one.shape[-1]] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=3)


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def setup(folder: Path, method: str = "full", **changes: Any) -> Setup:
    values: dict[str, Any] = {
        "dtype": "fp32",
        "attn_implementation": "eager",
        "per_device_train_batch_size": ROWS,
        "max_length": LENGTH,
        "device": "gpu-8.0",
        **({} if method == "full" else {"r": RANK, "target_modules": "all-linear"}),
    }
    return Setup(config=config_of(folder), method=method, **(values | changes))


def shapes(work: PhaseWork) -> Shapes:
    """Products of a micro-batch; their dtype is left out."""
    found: Shapes = Counter()
    for p in work.products:
        assert p.count == int(p.count)
        found[p.batch, p.m, p.n, p.k] += int(p.count)
    return found


def arithmetic(products: Shapes) -> int:
    return sum(2 * batch * m * n * k * count for (batch, m, n, k), count in products.items())


# -- against the real step -------------------------------------------------------------------------


def real_model(folder: Path, method: str, checkpointing: bool) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return model.train()  # type: ignore[no-any-return]


def real_products(folder: Path, method: str, checkpointing: bool) -> dict[str, tuple[Shapes, int]]:
    """forward, backward: the products by their operands, and torch's own count of their FLOPs."""
    model = real_model(folder, method, checkpointing)
    ids = torch.ones(ROWS, LENGTH, dtype=torch.int64)
    with FlopCounterMode(display=False) as flops, Operands() as ran:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    forward = ran.seen, flops.get_total_flops()
    with FlopCounterMode(display=False) as flops, Operands() as ran:
        loss.backward()
    return {"forward": forward, "backward": (ran.seen, flops.get_total_flops())}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_products_are_those_of_the_real_step(llama: Path, method: str, checkpointing: bool) -> None:
    real = real_products(llama, method, checkpointing)
    found = trace(setup(llama, method, gradient_checkpointing=checkpointing))
    for phase, (ran, flops) in real.items():
        assert shapes(found.work[phase]) == ran, phase
        assert arithmetic(shapes(found.work[phase])) == found.flops[phase] == flops, phase
    assert shapes(found.work["eval"]) == real["forward"][0]


def test_products_with_a_bias_are_those_of_the_real_step(tmp_path: Path) -> None:
    gpt2 = tiny_gpt2(tmp_path)
    found = trace(setup(gpt2)).work
    for phase, (ran, flops) in real_products(gpt2, "full", False).items():
        assert shapes(found[phase]) == ran
        assert arithmetic(ran) == flops


@pytest.mark.parametrize(
    ("dtype", "autocast", "expected"), [("bf16", None, "bf16"), ("fp32", None, "fp32"), ("fp32", "bf16", "bf16")]
)
def test_a_product_has_the_dtype_of_its_arithmetic(llama: Path, dtype: str, autocast: str, expected: str) -> None:
    work = trace(setup(llama, dtype=dtype, autocast=autocast)).work
    for phase in ("forward", "backward", "eval"):
        assert {p.dtype for p in work[phase].products} == {expected}


# -- what a kernel moves ---------------------------------------------------------------------------


def metered(compute: Any, *tensors: torch.Tensor) -> Work:
    """The work of a few operations."""
    meter = Meter(0)
    with meter, meter.during("forward"):
        compute(*tensors)
    return Stream.of(meter.close()).work.get("forward", Work())


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16, device="meta")


@pytest.mark.parametrize(
    ("compute", "moved", "kernels"),
    [
        (lambda x, w: x + x, 3 * 2 * 8 * 16 * 32, 1),
        (lambda x, w: x.float(), (2 + 4) * 8 * 16 * 32, 1),
        (lambda x, w: x.view(128, 32).t().unsqueeze(0).detach(), 0, 0),
        (lambda x, w: torch.empty_like(x), 0, 0),
        (lambda x, w: torch.nn.functional.linear(x, w), 0, 1),  # its operands are the product's; the result is no copy
        (lambda x, w: torch.matmul(x, w.t()), 0, 1),
        (lambda x, w: meta(1, 32).expand(8, 32) * 1, 2 * 32 + 2 * 8 * 32, 1),
        (lambda x, w: torch.nn.functional.embedding(meta(5).long(), w), (2 + 8) * 5 + 2 * 2 * 5 * 32, 2),
    ],
    ids=["add", "cast", "views", "allocation", "linear", "matmul", "expanded", "embedding"],
)
def test_bytes_and_kernels_of_an_operation(compute: Any, moved: int, kernels: int) -> None:
    work = metered(compute, meta(8, 16, 32), meta(64, 32))
    assert (work.bytes, work.kernels) == (moved, kernels)


def test_an_expanded_tensor_has_the_bytes_of_its_storage() -> None:
    assert size(meta(4, 1).expand(4, 100)) == 4 * 2
    assert size(meta(4, 100)) == 4 * 100 * 2


# -- a few layers for many -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("full", {"optim": "adamw_torch_fused", "gradient_checkpointing": True, "attn_implementation": "eager"}),
        ("qlora", {"gradient_accumulation_steps": 2, "dtype": "fp32", "autocast": "bf16"}),
    ],
)
def test_extended_work_is_that_of_all_layers(method: str, options: dict[str, Any]) -> None:
    layers = 9
    of = family_setup("llama", method, config={"num_hidden_layers": layers}, **options)
    recording = run_step(of, TRACED).recording
    short, whole, long = Stream.of(recording), Stream.of(run_step(of).recording), extend(recording, layers)
    phases = set(whole.work)
    assert phases == {"forward", "backward", "optimizer", "eval"} | ({"load"} & phases)
    for phase in phases:
        found, expected, less = (of.work[phase] for of in (long, whole, short))
        assert found == expected
        assert phase == "load" or (less.kernels < found.kernels and less.bytes < found.bytes)


# -- rules -----------------------------------------------------------------------------------------


def test_causal_attention_is_half_of_the_square(llama: Path) -> None:
    eager, fused = (trace(setup(llama, attn_implementation=a)).work for a in ("eager", "sdpa"))
    config = config_of(llama)
    layers, width = config["num_hidden_layers"], config["num_attention_heads"] * config["head_dim"]
    square = 2 * ROWS * LENGTH**2 * width * layers  # one product over all heads, nothing left out
    assert fused["forward"].attention_flops == fused["eval"].attention_flops == square  # 2 products, a half each
    assert fused["backward"].attention_flops == 2.5 * square
    assert eager["forward"].attention_flops == eager["backward"].attention_flops == 0
    beside = {p: arithmetic(shapes(eager[p])) - arithmetic(shapes(fused[p])) for p in ("forward", "backward")}
    assert beside == {"forward": 2 * square, "backward": 4 * square}  # eager: 2 and 4 whole products


def layers_only(whole: Shapes, config: dict[str, Any]) -> Shapes:
    """Without the head."""
    head = (1, TOKENS, config["vocab_size"], config["hidden_size"])
    assert whole[head] == 1
    return Counter({shape: n for shape, n in whole.items() if shape != head})


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stack", ["4.48", "today"])
def test_checkpointing_runs_the_layers_forward_once_more(llama: Path, stack: str, attention: str) -> None:
    changes = {"stack": stack, "attn_implementation": attention, "loss": "full-logits"}
    plain, again = (trace(setup(llama, gradient_checkpointing=c, **changes)).work for c in (False, True))
    config = config_of(llama)
    added = layers_only(shapes(plain["forward"]), config)
    if stack == "today":  # torch stops where the last saved tensor is: before the layer's last product
        added[1, TOKENS, config["hidden_size"], config["intermediate_size"]] -= config["num_hidden_layers"]
    assert shapes(again["backward"]) - shapes(plain["backward"]) == +added
    assert not shapes(plain["backward"]) - shapes(again["backward"])
    more = again["backward"].attention_flops - plain["backward"].attention_flops
    assert more == plain["forward"].attention_flops
    assert again["forward"] == plain["forward"] and again["eval"] == plain["eval"]


def linear_weights(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Name and elements of each linear weight of one layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    yield from (("q", hidden * hidden), ("k", hidden * kv), ("v", hidden * kv), ("o", hidden * hidden))
    yield from ((name, hidden * inner) for name in ("gate", "up", "down"))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_quantised_base_is_unpacked_in_each_pass(llama: Path, checkpointing: bool) -> None:
    config = config_of(llama)
    work = trace(setup(llama, "qlora", dtype="bf16", gradient_checkpointing=checkpointing)).work
    # Read: half a byte a weight, and an fp32 scale for 64 of them. Written: 16 bit.
    bytes_of = {name: n * (0.5 + 4 / 64 + 2) for name, n in linear_weights(config)}
    once = config["num_hidden_layers"] * sum(bytes_of.values())
    first = bytes_of["q"] + bytes_of["k"] + bytes_of["v"]  # without checkpointing nobody asks for the input's gradient
    assert work["forward"].unpacked_bytes == work["eval"].unpacked_bytes == once
    assert work["backward"].unpacked_bytes == (2 * once if checkpointing else once - first)
    assert work["optimizer"].unpacked_bytes == 0
    assert all(w.unpacked_bytes == 0 for w in trace(setup(llama, "lora", dtype="bf16")).work.values())


def test_frozen_weights_have_no_gradient_products(llama: Path) -> None:
    full, lora = (shapes(trace(setup(llama, m)).work["backward"]) for m in ("full", "lora"))

    def of_weights(products: Shapes) -> Shapes:
        return Counter({s: n for s, n in products.items() if s[0] == 1 and s[3] == TOKENS})

    layers = config_of(llama)["num_hidden_layers"]
    assert sum(of_weights(full).values()) == 7 * layers + 1  # and the head
    adapters = of_weights(lora)
    assert all(RANK in (m, n) for _, m, n, _ in adapters)
    assert sum(adapters.values()) == 2 * 7 * layers


# -- the optimizer ---------------------------------------------------------------------------------

CLIPPING = 3  # the norm reads each gradient, scaling reads and writes it


@pytest.mark.parametrize(
    ("optimizer", "tensors"),
    [
        ("adamw_torch_fused", 7),  # weight, gradient and two moments read, all but the gradient written
        ("sgd", 3),  # weight and gradient read, weight written
    ],
)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_optimizer_moves_its_tensors(llama: Path, method: str, optimizer: str, tensors: int) -> None:
    found = trace(setup(llama, method, optim=optimizer))
    params = 4 * found.trainable_params
    moved = found.work["optimizer"].moved_bytes
    assert found.trained_bytes == params
    assert (tensors + CLIPPING) * params <= moved
    assert moved == pytest.approx((tensors + CLIPPING) * params, abs=20_000)  # the norms of single tensors
    assert found.work["optimizer"].products == ()


def test_foreach_adamw_moves_more_than_the_fused_one(llama: Path) -> None:
    fused, foreach = (trace(setup(llama, optim=o)).work["optimizer"] for o in ("adamw_torch_fused", "adamw_torch"))
    assert foreach.moved_bytes > 2 * fused.moved_bytes


def test_sixteen_bit_states_move_half(llama: Path) -> None:
    wide, narrow = (trace(setup(llama, optim="adamw_torch_fused", dtype=d)).work["optimizer"] for d in ("fp32", "bf16"))
    assert narrow.moved_bytes == pytest.approx(wide.moved_bytes / 2, rel=0.01)


@pytest.mark.parametrize("steps", [2, 4])
def test_accumulation_leaves_the_optimizers_step_alone(llama: Path, steps: int) -> None:
    one, several = (trace(setup(llama, gradient_accumulation_steps=n)).work for n in (1, steps))
    assert several["optimizer"] == one["optimizer"]
    assert shapes(several["forward"]) == shapes(one["forward"])
    assert shapes(several["backward"]) == shapes(one["backward"])
    assert several["backward"].moved_bytes > one["backward"].moved_bytes  # a gradient is added to the one before


def test_bytes_of_parameters(llama: Path) -> None:
    full, lora, qlora = (trace(setup(llama, m, dtype="bf16")) for m in ("full", "lora", "qlora"))
    assert full.parameter_bytes == full.trained_bytes == 2 * full.total_params
    adapter = 4 * lora.trainable_params
    assert (lora.parameter_bytes, lora.trained_bytes) == (full.parameter_bytes + adapter, adapter)
    packed = sum(n for _, n in linear_weights(config_of(llama))) * config_of(llama)["num_hidden_layers"]
    assert qlora.parameter_bytes == lora.parameter_bytes - packed * 3 // 2
    assert qlora.trained_bytes == adapter
