"""Seconds of a phase: which limit binds, what a faster device or a longer row does, and what stays unknown."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.estimate.efficiency import Efficiency
from rankwise.estimate.roofline import CROSSING, Ideal, Rates, ideal, rates_of, seconds
from rankwise.records import DeviceFacts, PhaseWork, Product, Setup
from tests import builders

PEAKS = Rates(narrow=300e12, wide=20e12, bandwidth=2e12)
# 2 n^3 / 300e12 against 3 n^2 x 2 bytes / 2e12: equal at n = 450.
RIDGE = 3 * 2 * PEAKS.narrow / (2 * PEAKS.bandwidth)
WHOLE = Efficiency(
    products=1.0,
    wide_products=1.0,
    attention=1.0,
    traffic=1.0,
    unpacking=1.0,
    gptq_unpacking=1.0,
    launch=0.0,
    step=0.0,
    link=1.0,
    overlap=1.0,
)
REAL = replace(
    WHOLE, products=0.8, wide_products=0.7, attention=0.4, traffic=0.75, unpacking=0.2, gptq_unpacking=0.1, launch=1e-5
)
ROWS, LENGTH = 4, 512
TOKENS = ROWS * LENGTH


def setup(**changes: Any) -> Setup:
    content: dict[str, Any] = {
        "config": {"model_type": "llama"},
        "method": "lora",
        "dtype": "bf16",
        "per_device_train_batch_size": ROWS,
        "max_length": LENGTH,
        "device": "gpu-8.0",
    }
    return Setup(**(content | changes))


def product(m: int, n: int, k: int, *, batch: int = 1, dtype: str = "bf16", count: float = 1.0) -> Product:
    return Product(batch=batch, m=m, n=n, k=k, dtype=dtype, count=count)


def work(*products: Product, **changes: float) -> PhaseWork:
    content: dict[str, Any] = {"attention_flops": 0.0, "moved_bytes": 0.0, "unpacked_bytes": 0.0, "kernels": 0.0}
    return PhaseWork(products=products, **(content | changes))


def at_peak(of: PhaseWork, mean_length: float = LENGTH, **changes: Any) -> Ideal:
    return ideal(of, setup(**changes), PEAKS, mean_length)


MIXED = work(
    product(TOKENS, 4096, 1024, count=7),
    product(4096, 1024, TOKENS, count=7),
    product(TOKENS, 16, 4096, dtype="fp32", count=14),
    product(LENGTH, LENGTH, 64, batch=128, count=2),
    attention_flops=3e12,
    moved_bytes=4e9,
    unpacked_bytes=2e9,
    kernels=900.0,
)


# -- which limit binds -----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "by_arithmetic"), [(round(0.9 * RIDGE), False), (round(1.1 * RIDGE), True)])
def test_a_product_is_bound_on_its_side_of_the_ridge(size: int, by_arithmetic: bool) -> None:
    plain = seconds(at_peak(work(product(size, size, size))), WHOLE)
    arithmetic, operands = 2 * size**3 / PEAKS.narrow, 6 * size**2 / PEAKS.bandwidth
    assert plain == pytest.approx(max(arithmetic, operands))
    assert (arithmetic > operands) is by_arithmetic
    slower = {"products": 0.999, "traffic": 0.999}
    moved = {
        name: seconds(at_peak(work(product(size, size, size))), replace(WHOLE, **{name: v}))
        for name, v in slower.items()
    }
    assert (moved["products"] > plain) is by_arithmetic
    assert (moved["traffic"] > plain) is not by_arithmetic


def test_a_thin_product_takes_the_time_of_its_operands() -> None:
    """Rank 16 over 2,048 tokens: 60 times as much time for the operands as for the arithmetic."""
    found = at_peak(work(product(TOKENS, 16, 4096)))
    ((arithmetic, operands),) = found.products
    assert operands / arithmetic == pytest.approx(
        2 * (TOKENS * 4096 + 16 * 4096 + TOKENS * 16) / 2e12 / (2 * TOKENS * 16 * 4096 / 300e12)
    )
    assert seconds(found, WHOLE) == pytest.approx(operands)


@pytest.mark.parametrize(
    ("dtype", "wide", "width"), [("bf16", False, 2), ("fp16", False, 2), ("int8", False, 1), ("fp32", True, 4)]
)
def test_a_product_goes_by_the_peak_and_the_width_of_its_dtype(dtype: str, wide: bool, width: int) -> None:
    found = at_peak(work(product(100, 200, 300, batch=2, dtype=dtype, count=3.0)))
    peak = PEAKS.wide if wide else PEAKS.narrow
    expected = (2 * 3 * 2 * 100 * 200 * 300 / peak, 3 * 2 * width * (100 * 300 + 300 * 200 + 100 * 200) / 2e12)
    one, none = (found.wide_products, found.products) if wide else (found.products, found.wide_products)
    assert one == (pytest.approx(expected),)
    assert none == ()


def test_each_kind_of_work_has_its_own_efficiency() -> None:
    kinds = {
        "attention": (work(attention_flops=3e12), 3e12 / 300e12),
        "traffic": (work(moved_bytes=4e9), 4e9 / 2e12),
        "unpacking": (work(unpacked_bytes=2e9), 2e9 / 2e12),
    }
    for name, (of, whole) in kinds.items():
        assert seconds(at_peak(of), WHOLE) == pytest.approx(whole)
        for field in fields(Efficiency):
            halved = seconds(at_peak(of), replace(WHOLE, **{field.name: 0.5 if field.name != "launch" else 0.0}))
            assert halved == pytest.approx(whole * (2 if field.name == name else 1))


def test_gptqs_kernels_have_an_efficiency_of_their_own() -> None:
    of, slow = work(unpacked_bytes=2e9), replace(WHOLE, unpacking=0.25, gptq_unpacking=0.5)
    found = {m: seconds(at_peak(of, method=m), slow) for m in ("qlora", "lora-8bit", "gptq-lora")}
    assert found == pytest.approx({"qlora": 4e-3, "lora-8bit": 4e-3, "gptq-lora": 2e-3})


def test_parts_of_the_device_add_up() -> None:
    parts = [
        work(*MIXED.products),
        work(attention_flops=MIXED.attention_flops),
        work(moved_bytes=MIXED.moved_bytes),
        work(unpacked_bytes=MIXED.unpacked_bytes),
    ]
    without_host = replace(REAL, launch=0.0)
    assert seconds(at_peak(MIXED), without_host) == pytest.approx(sum(seconds(at_peak(p), without_host) for p in parts))


# -- device and host -------------------------------------------------------------------------------


def test_the_slower_of_device_and_host_sets_the_pace() -> None:
    of = work(moved_bytes=2e9, kernels=1000.0)  # 1 ms on the device

    def with_launch(each: float) -> float:
        return seconds(at_peak(of), replace(WHOLE, launch=each))

    assert with_launch(0.0) == pytest.approx(1e-3)
    assert with_launch(1e-8) == pytest.approx(1e-3, rel=1e-4)
    assert with_launch(1e-4) == pytest.approx(0.1, rel=1e-4)
    assert with_launch(1e-6) == pytest.approx(1e-3 * 2 ** (1 / CROSSING))


@given(st.floats(1e-6, 10), st.floats(1e-6, 10))
def test_together_they_take_more_than_the_slower_and_less_than_both(device: float, host: float) -> None:
    of = work(moved_bytes=device * PEAKS.bandwidth, kernels=host / 1e-5)
    found = seconds(at_peak(of), replace(WHOLE, launch=1e-5))
    assert max(device, host) * (1 - 1e-9) <= found <= (device + host) * (1 + 1e-9)
    assert found == pytest.approx((device**4 + host**4) ** 0.25)


# -- faster devices, longer rows -------------------------------------------------------------------

SHARES = ("products", "wide_products", "attention", "traffic", "unpacking")
shares = st.floats(0.05, 1.0)


@given(st.sampled_from(SHARES), st.lists(shares, min_size=5, max_size=5), st.floats(1.01, 3.0))
def test_seconds_fall_when_an_efficiency_rises(name: str, of: list[float], factor: float) -> None:
    reached = replace(REAL, **dict(zip(SHARES, of, strict=True)))
    better = replace(reached, **{name: getattr(reached, name) * factor})
    before, after = seconds(at_peak(MIXED), reached), seconds(at_peak(MIXED), better)
    assert after <= before
    if name in ("attention", "unpacking"):  # nothing else can hide them
        assert after < before


@given(st.sampled_from(["narrow", "wide", "bandwidth"]), st.floats(1.01, 10.0))
def test_seconds_fall_when_a_peak_rises(name: str, factor: float) -> None:
    faster = replace(PEAKS, **{name: getattr(PEAKS, name) * factor})
    before, after = (seconds(ideal(MIXED, setup(), peaks, LENGTH), REAL) for peaks in (PEAKS, faster))
    assert after < before if name != "wide" else after <= before


@given(st.floats(1.0, LENGTH), st.floats(1.001, 4.0))
def test_seconds_grow_with_the_length_of_the_rows(length: float, factor: float) -> None:
    longer = min(float(LENGTH), length * factor)
    before, after = (seconds(at_peak(MIXED, n), REAL) for n in (length, longer))
    assert before < after or longer == length


def test_rows_of_the_traced_length_are_the_traced_work() -> None:
    found = at_peak(MIXED)
    expected = [2 * p.count * p.batch * p.m * p.n * p.k for p in MIXED.products]
    assert [a for a, _ in found.products] == pytest.approx(
        [e / 300e12 for e in (expected[0], expected[1], expected[3])]
    )
    assert [a for a, _ in found.wide_products] == pytest.approx([expected[2] / 20e12])
    assert found.attention == MIXED.attention_flops / PEAKS.narrow
    assert found.traffic == MIXED.moved_bytes / PEAKS.bandwidth
    assert found.kernels == MIXED.kernels


def test_half_the_length_halves_tokens_and_quarters_attention() -> None:
    whole, half = at_peak(MIXED), at_peak(MIXED, LENGTH / 2)
    (forward, gradient, scores), (thin,) = (
        zip(whole.products, half.products, strict=True),
        zip(whole.wide_products, half.wide_products, strict=True),
    )
    for before, after in (forward, gradient, thin):
        assert after[0] == pytest.approx(before[0] / 2)
    assert scores[1][0] == pytest.approx(scores[0][0] / 4)  # eager attention: both sides are lengths
    assert half.attention == whole.attention / 4
    assert half.traffic == whole.traffic / 2
    assert (half.unpacking, half.kernels) == (whole.unpacking, whole.kernels)


def test_shorter_rows_shrink_the_side_of_the_tokens_alone() -> None:
    forward = at_peak(work(product(TOKENS, 4096, 1024)), LENGTH / 2).products[0][1]
    assert forward == pytest.approx(2 * (TOKENS / 2 * 1024 + 1024 * 4096 + TOKENS / 2 * 4096) / 2e12)
    gradient = at_peak(work(product(4096, 1024, TOKENS)), LENGTH / 2).products[0][1]
    assert gradient == pytest.approx(2 * (4096 * TOKENS / 2 + TOKENS / 2 * 1024 + 4096 * 1024) / 2e12)


# -- unknown stays unknown -------------------------------------------------------------------------


def device(flops: dict[str, float], **changes: Any) -> DeviceFacts:
    return builders.a100(matmul_flops=flops, **changes)


@pytest.mark.parametrize(
    ("flops", "changes"),
    [
        ({}, {}),
        ({"bf16": 312e12}, {}),  # no fp32: norms and adapters run there
        ({"fp32": 19.5e12}, {}),
        ({"fp16": 125e12, "fp32": 15.7e12}, {}),  # bf16 is emulated on a V100: nobody knows how fast
        ({"fp32": 19.5e12}, {"dtype": "fp32", "autocast": "bf16"}),
        ({"fp8": 1979e12, "int8": 624e12}, {}),
    ],
)
def test_a_peak_that_is_not_known_is_unknown(flops: dict[str, float], changes: dict[str, Any]) -> None:
    assert rates_of(device(flops), setup(**changes)) is None


def test_a_bandwidth_that_is_not_known_is_unknown() -> None:
    assert rates_of(builders.a100(bandwidth=None), setup()) is None
    assert rates_of(builders.a100(), setup()) == Rates(312e12, 19.5e12, 2039e9)


def test_fp16_runs_as_bf16_where_only_that_is_known() -> None:
    half = setup(dtype="fp16")
    assert rates_of(device({"bf16": 312e12, "fp32": 19.5e12}), half) == Rates(312e12, 19.5e12, 2039e9)
    assert rates_of(device({"bf16": 1.0, "fp16": 65e12, "fp32": 8e12}), half) == Rates(65e12, 8e12, 2039e9)


@pytest.mark.parametrize(
    ("dtype", "autocast", "narrow"), [("bf16", None, 312e12), ("fp32", None, 19.5e12), ("fp32", "bf16", 312e12)]
)
def test_the_arithmetic_sets_the_peak(dtype: str, autocast: str | None, narrow: float) -> None:
    found = rates_of(builders.a100(), setup(dtype=dtype, autocast=autocast))
    assert found is not None and (found.narrow, found.wide) == (narrow, 19.5e12)
