"""Seconds of a step and of a run: parts add up, methods stand in the order that was measured, unknown stays unknown."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rankwise.estimate.communication import exposed, host_rate, moves
from rankwise.estimate.efficiency import efficiency_of, relative_error
from rankwise.estimate.processor import EFFICIENCY, PARAMS_PER_SECOND, SHORT_ROWS
from rankwise.estimate.roofline import ideal, rates_of, seconds
from rankwise.estimate.time import (
    ADAMW_OPERATIONS,
    CHECKPOINT_SECONDS,
    START_SECONDS,
    Course,
    Passes,
    estimate_time,
    passes,
    step_flops,
    times,
)
from rankwise.estimate.traced import traced
from rankwise.observe.catalogue import find_architecture
from rankwise.records import CostOptions, DeviceFacts, Setup, StepSeconds, TimeEstimate, Trace
from rankwise.records.ledger import Correction
from tests import builders

A100, CPU = builders.a100(), builders.laptop()
COSTS = CostOptions(write_bandwidth=5e8)
WIDE = builders.llama_config(2, 1024, 4096, 1024, 32_000, True, 512)  # its bytes count, not the launches
SMALL = builders.llama_config(2, 128, 256, 64, 320, True, 512)
COURSE = Course(max_steps=100, evaluation_rows=50, read_bytes=10**9, checkpoint_bytes=2 * 10**9)


def setup(method: str = "lora", **changes: Any) -> Setup:
    content: dict[str, Any] = {
        "config": SMALL,
        "method": method,
        "dtype": "bf16",
        "per_device_train_batch_size": 2,
        "max_length": 64,
        "device": "gpu-8.0",
        **({} if method == "full" else {"r": 8, "target_modules": "all-linear"}),
    }
    return Setup(**(content | changes))


def found(of: Setup, device: DeviceFacts = A100, mean_length: float | None = None, **changes: Any) -> Passes:
    made = passes(traced(of), of, device, mean_length=mean_length or of.max_length, **changes)
    assert made is not None
    return made


def told(
    of: Setup,
    device: DeviceFacts = A100,
    course: Course = COURSE,
    costs: CostOptions = COSTS,
    mean_length: float | None = None,
    correction: Correction | None = None,
) -> TimeEstimate:
    length = mean_length or of.max_length
    trace = traced(of)
    by_formula = passes(trace, of, device, mean_length=length)
    return estimate_time(trace, of, device, costs, course, by_formula, mean_length=length, correction=correction)


# -- a step ----------------------------------------------------------------------------------------

KINDS: dict[str, tuple[Setup, DeviceFacts]] = {
    "cpu": (setup(device="cpu"), CPU),
    "gpu": (setup(), A100),
    "full": (setup("full", gradient_accumulation_steps=3), A100),
    "ddp": (setup(parallel="ddp", world_size=4), builders.a100(count=4)),
    "fsdp": (setup("full", parallel="fsdp", world_size=8), builders.a100(count=8)),
    "offload": (setup("full", parallel="zero3", world_size=2, offload="all"), builders.a100(count=2)),
}
each_kind = pytest.mark.parametrize(("of", "device"), KINDS.values(), ids=KINDS)


@each_kind
def test_the_parts_add_up_to_the_step(of: Setup, device: DeviceFacts) -> None:
    time = told(of, device)
    assert time.step is not None
    parts = time.step.model_dump()
    assert min(parts.values()) >= 0 and parts["forward"] > 0 and parts["backward"] > 0
    assert sum(parts.values()) == pytest.approx(time.step_seconds)
    assert time.step_seconds == found(of, device).total


def test_which_parts_a_step_has() -> None:
    steps = {name: found(*kind).step for name, kind in KINDS.items()}
    assert [name for name, step in steps.items() if step.communication] == ["ddp", "fsdp", "offload"]
    assert [name for name, step in steps.items() if step.offload] == ["offload"]
    assert [name for name, step in steps.items() if not step.optimizer] == [
        "offload"
    ]  # the host's update is in `offload`
    assert [name for name, step in steps.items() if not step.data] == ["cpu"]


def test_a_step_on_a_gpu_is_its_phases_by_the_roofline() -> None:
    of = setup("full", parallel="zero2", world_size=2, gradient_accumulation_steps=3)
    device = builders.a100(count=2)
    trace, reached, rates = traced(of), efficiency_of(device), rates_of(device, of)
    assert rates is not None
    forward, backward, evaluation = (
        seconds(ideal(trace.work[p], of, rates, 64), reached) for p in ("forward", "backward", "eval")
    )
    sent, link = moves(trace, of), 300e9 * reached.link
    half = trace.work["optimizer"].model_copy(update={"moved_bytes": trace.work["optimizer"].moved_bytes / 2})
    made = found(of, device)
    assert made.evaluation == evaluation
    assert made.step == StepSeconds(
        forward=3 * forward,
        backward=3 * backward,
        optimizer=seconds(ideal(half, of, rates, 64), reached),
        communication=3 * exposed(backward, sent.backward / link, reached)
        + exposed(backward, sent.step / link, reached),
        offload=0.0,
        data=3 * reached.step,
    )


def test_what_is_offloaded_passes_the_host() -> None:
    of = setup("full", parallel="zero3", world_size=2, offload="all", gradient_accumulation_steps=2)
    device, sent = builders.a100(count=2), moves(traced(of), of)
    step = found(of, device).step
    assert step.offload == pytest.approx(2 * sent.host / host_rate(device) + sent.host_update / 50e9)
    assert step.optimizer == 0.0


def test_a_sharded_optimizer_takes_its_share() -> None:
    alone, sharded, copied = (
        found(setup("full", config=WIDE, parallel=p, world_size=n), builders.a100(count=n)).step.optimizer
        for p, n in (("none", 1), ("fsdp", 8), ("ddp", 8))
    )
    assert sharded < 0.5 * alone
    assert copied == alone


def test_accumulation_repeats_the_passes_and_not_the_update() -> None:
    one, four = (found(setup(gradient_accumulation_steps=n)) for n in (2, 4))  # the trace of two stands for more
    for part in ("forward", "backward", "data"):
        assert getattr(four.step, part) == pytest.approx(2 * getattr(one.step, part))
    assert four.step.optimizer == one.step.optimizer
    assert four.evaluation == one.evaluation


def test_efficiencies_can_be_given() -> None:
    fitted = replace(efficiency_of(A100), launch=0.0)
    of = setup(config=WIDE, max_length=512)
    assert found(of, reached=efficiency_of(A100)) == found(of)
    for name in ("products", "traffic", "attention", "step"):
        slower = replace(fitted, **{name: getattr(fitted, name) * (2 if name == "step" else 0.5)})
        assert found(of, reached=slower).total > found(of, reached=fitted).total


# -- tokens and FLOPs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("accumulation", "devices"), [(1, 1), (4, 1), (1, 8), (4, 8)])
def test_tokens_count_rows_accumulation_and_devices(accumulation: int, devices: int) -> None:
    parallel = "none" if devices == 1 else "ddp"
    of = setup(gradient_accumulation_steps=accumulation, parallel=parallel, world_size=devices)
    time = told(of, builders.a100(count=devices), mean_length=40)
    assert time.step_seconds is not None
    assert time.tokens_per_second == pytest.approx(40 * 2 * accumulation * devices / time.step_seconds)


def test_flops_are_those_of_the_trace() -> None:
    of = setup("full", gradient_accumulation_steps=2)
    trace = traced(of)
    whole, half = step_flops(trace, of, 64), step_flops(trace, of, 32)
    assert (whole.forward, whole.backward) == (2 * trace.flops["forward"], 2 * trace.flops["backward"])
    assert whole.optimizer == half.optimizer == ADAMW_OPERATIONS * trace.trainable_params
    attention = 2 * trace.work["forward"].attention_flops
    assert 0 < attention < whole.forward
    assert half.forward == pytest.approx((whole.forward - attention) / 2 + attention / 4)
    assert told(of).flops_per_token == (whole.forward + whole.backward) / (64 * 2 * 2)


@examples(max_examples=30, deadline=None)
@given(st.floats(1, 64), st.floats(1.01, 3.0), st.sampled_from(["gpu", "cpu", "fsdp", "full"]))
def test_longer_rows_never_take_less_time(length: float, factor: float, kind: str) -> None:
    of, device = KINDS[kind]
    longer = min(64.0, factor * length)
    assert found(of, device, length).total <= found(of, device, longer).total


# -- a run -----------------------------------------------------------------------------------------


@each_kind
def test_a_run_is_its_start_its_steps_its_validations_and_its_checkpoints(of: Setup, device: DeviceFacts) -> None:
    costs = COSTS.model_copy(update={"eval_steps": 30, "save_steps": 25})
    time = told(of, device, costs=costs)
    assert time.step_seconds is not None
    assert time.load_seconds == START_SECONDS + 1e9 / 5e8
    batches = -(-50 // (2 * of.world_size))
    assert time.evaluation_seconds == pytest.approx(5 * batches * found(of, device).evaluation)  # 0, 30, 60, 90, 100
    assert time.save_seconds == pytest.approx(4 * (CHECKPOINT_SECONDS + 2e9 / 5e8))
    assert time.train_seconds == pytest.approx(
        time.load_seconds + 100 * time.step_seconds + time.evaluation_seconds + time.save_seconds
    )


@each_kind
def test_an_interval_is_relative_to_the_run(of: Setup, device: DeviceFacts) -> None:
    time = told(of, device)
    assert time.train_seconds is not None
    assert time.relative == relative_error(device, of)
    assert time.interval == tuple(time.train_seconds * factor for factor in time.relative)
    assert time.correction is None


@pytest.mark.parametrize(
    ("max_steps", "every", "expected"),
    [
        (100, None, 4),
        (100, 25, 4),
        (100, 30, 4),
        (100, 100, 1),
        (100, 1000, 1),
        (10, 1, 10),
        (3, None, 3),
        (1, None, 1),
        (5, None, 3),
    ],
)
def test_how_often_it_is_done(max_steps: int, every: int | None, expected: int) -> None:
    """Every so many steps and at the end; four times where nothing is said, or as many as whole steps allow."""
    assert times(max_steps, every) == expected
    step = every or -(-max_steps // 4)
    assert times(max_steps, every) == len({*range(step, max_steps, step), max_steps})


def test_without_rows_nothing_is_evaluated() -> None:
    time = told(setup(), course=replace(COURSE, evaluation_rows=0))
    assert time.evaluation_seconds == 0.0


def test_without_a_number_of_steps_the_run_is_unknown_and_the_step_is_not() -> None:
    time = told(setup(), course=replace(COURSE, max_steps=None))
    assert time.step_seconds is not None and time.tokens_per_second is not None
    assert time.load_seconds == START_SECONDS + 2.0
    assert (time.train_seconds, time.interval, time.evaluation_seconds, time.save_seconds) == (None,) * 4


@pytest.mark.parametrize(
    ("of", "device"),
    [
        (setup(), builders.a100(matmul_flops={})),
        (setup(), builders.a100(bandwidth=None)),
        (setup(parallel="ddp", world_size=2), builders.a100(count=2, link_bytes_per_second=None)),
        (setup(dtype="fp16", device="cpu"), CPU),
    ],
    ids=["no peak", "no bandwidth", "no link", "no measured rate"],
)
def test_a_rate_that_is_not_known_leaves_time_unknown(of: Setup, device: DeviceFacts) -> None:
    time = told(of, device)
    unknown = ("tokens_per_second", "step_seconds", "step", "train_seconds", "interval", "relative", "load_seconds")
    assert all(getattr(time, name) is None for name in unknown)
    assert time.flops.forward > 0 and time.flops_per_token > 0


def test_the_link_of_a_device_alone_does_not_matter() -> None:
    assert found(setup(), builders.a100(link=None, link_bytes_per_second=None)) == found(setup())


def test_the_network_between_machines_is_slower_than_the_link() -> None:
    of, device = setup("full", parallel="fsdp", world_size=8), builders.a100(count=8)
    one, four = (found(of, device, nodes=n).step for n in (1, 4))
    assert four.communication > one.communication
    assert four.forward == one.forward


# -- corrections -----------------------------------------------------------------------------------


@each_kind
def test_a_correction_multiplies_what_was_measured_and_is_recorded(of: Setup, device: DeviceFacts) -> None:
    ledger = Correction(factor=1.5, low=0.9, high=1.2, count=3, source="3 runs")
    plain, corrected = told(of, device), told(of, device, correction=ledger)
    assert plain.step is not None and corrected.step is not None
    assert corrected.correction == 1.5
    assert corrected.relative == (0.9, 1.2)
    for part, value in plain.step.model_dump().items():
        assert getattr(corrected.step, part) == pytest.approx(1.5 * value)
    assert corrected.step_seconds == pytest.approx(1.5 * (plain.step_seconds or 0))
    assert corrected.evaluation_seconds == pytest.approx(1.5 * (plain.evaluation_seconds or 0))
    assert corrected.tokens_per_second == pytest.approx((plain.tokens_per_second or 0) / 1.5)
    assert (corrected.load_seconds, corrected.save_seconds) == (plain.load_seconds, plain.save_seconds)
    assert corrected.interval == tuple(pytest.approx((corrected.train_seconds or 0) * f) for f in (0.9, 1.2))
    assert corrected.flops == plain.flops


# -- on a CPU --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "kind"), [("full", "full"), ("lora", "adapter"), ("qlora", "quantised")])
def test_a_step_on_a_cpu_goes_by_the_measured_rate(method: str, kind: str) -> None:
    of = setup(method, device="cpu", gradient_accumulation_steps=3)
    trace, made = traced(of), found(of, CPU, 40)
    tokens, flops = 2 * 40, step_flops(traced(of), of, 40)
    rate = 4e11 * EFFICIENCY[kind] * tokens / (tokens + SHORT_ROWS)
    assert made.step.forward == pytest.approx(flops.forward / rate)
    assert made.step.backward == pytest.approx(flops.backward / rate)
    assert made.step.optimizer == pytest.approx(trace.trainable_params / PARAMS_PER_SECOND)
    assert made.evaluation == pytest.approx(made.step.forward / 3)


def test_a_cpu_without_bf16_goes_by_its_fp32() -> None:
    slow, fast = (found(setup(device="cpu", dtype=d), CPU).step.forward for d in ("fp32", "bf16"))
    assert slow == pytest.approx(fast * 4.0e11 / 1.2e11)


# -- methods against each other, on a real model ---------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> dict[str, Any]:
    """Llama-3.2-1B."""
    entry = find_architecture("llama-3.2-1b")
    assert entry is not None
    return entry.config


def on_a100(
    config: dict[str, Any], method: str, batch: int = 4, length: int = 2048, **changes: Any
) -> tuple[Trace, Passes]:
    of = setup(
        method,
        config=config,
        per_device_train_batch_size=batch,
        max_length=length,
        **({"r": 16} if method != "full" else {}),
        **changes,
    )
    return traced(of), found(of)


@pytest.mark.parametrize("batch", [1, 4])
def test_qlora_is_slower_than_lora_by_what_was_measured(llama: dict[str, Any], batch: int) -> None:
    """Published pairs: 2 to 22 % less throughput at full batches; more where the weights outweigh the tokens."""
    changes = {"attn_implementation": "flash", "kbit_upcast": False}
    lora, qlora = (on_a100(llama, m, batch, **changes)[1].total for m in ("lora", "qlora"))
    assert 1.0 < qlora / lora < (1.22 if batch == 4 else 1.6)


def recomputing(config: dict[str, Any], **changes: Any) -> float:
    """Time of a step of full fine-tuning with checkpointing, by that without."""
    plain, again = (on_a100(config, "full", gradient_checkpointing=c, **changes)[1].total for c in (False, True))
    return again / plain


@pytest.mark.parametrize("stack", ["today", "4.48"])
def test_checkpointing_costs_20_to_40_percent(stack: str) -> None:
    entry = find_architecture("llama-2-7b")
    assert entry is not None
    assert 1.20 <= recomputing(entry.config, stack=stack) <= 1.40


def test_checkpointing_costs_less_where_much_is_not_recomputed(llama: dict[str, Any]) -> None:
    """The head, a fifth of this model, and from torch's early stop on each layer's last product are left out."""
    reentrant, early_stop = (recomputing(llama, stack=s) for s in ("4.48", "today"))
    assert 1.10 <= early_stop < reentrant <= 1.40


@pytest.mark.parametrize("length", [512, 2048])
def test_lora_saves_a_third_of_the_flops(llama: dict[str, Any], length: int) -> None:
    """Full fine-tuning is 6 operations a parameter and token, LoRA 4 and what the adapter adds."""

    def flops(method: str) -> int:
        trace = on_a100(llama, method, length=length)[0]
        return trace.flops["forward"] + trace.flops["backward"]

    assert 1.33 <= flops("full") / flops("lora") <= 1.55


def test_an_adapter_in_fp32_costs_what_it_saves(llama: dict[str, Any]) -> None:
    """PEFT raises each layer's input to the dtype of its adapter: on a small model that is much of the traffic."""
    full, narrow, wide = (
        on_a100(llama, m, **o)[1] for m, o in (("full", {}), ("lora", {"adapter_dtype": "bf16"}), ("lora", {}))
    )
    assert narrow.total < full.total
    assert narrow.step.forward < wide.step.forward
    assert narrow.step.optimizer < 0.5 * full.step.optimizer


def test_a_faster_gpu_takes_less_time(llama: dict[str, Any]) -> None:
    of = setup("full", config=llama, per_device_train_batch_size=4, max_length=2048)
    h100 = builders.a100(
        name="H100", compute_capability=9.0, matmul_flops={"bf16": 989e12, "fp32": 67e12}, bandwidth=3350e9
    )
    ratio = found(of).total / found(of, h100).total
    assert 1.3 < ratio < 989 / 312


def test_a_tiny_batch_is_bound_by_the_host(llama: dict[str, Any]) -> None:
    """Rows of 16 tokens or of 32 take as long: the GPU waits for the launches."""
    of = setup(config=llama, r=16, per_device_train_batch_size=1, max_length=32)
    short, twice = (found(of, mean_length=n).total for n in (16, 32))
    assert twice / short < 1.1
    kernels = sum(traced(of).work[p].kernels for p in ("forward", "backward"))
    assert short > kernels * efficiency_of(A100).launch
