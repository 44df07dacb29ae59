"""What passes between devices and to the host in a step: rings by hand."""

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.estimate.communication import (
    ADAM_BYTES,
    HOPPER_NETWORK_CARD,
    HOST_LINK,
    NETWORK_CARD,
    Moves,
    exposed,
    host_rate,
    link_rate,
    moves,
)
from rankwise.estimate.efficiency import efficiency_of
from rankwise.records import Buckets, DeviceFacts, PhaseWork, Setup, Trace
from tests import builders

W, T = 1600, 800  # bytes of all parameters, and of the trained ones
PARAMS = 400


def setup(parallel: str = "none", devices: int = 1, **changes: Any) -> Setup:
    content: dict[str, Any] = {
        "config": {"model_type": "llama"},
        "method": "lora",
        "dtype": "bf16",
        "per_device_train_batch_size": 1,
        "max_length": 8,
        "parallel": parallel,
        "world_size": devices,
        "device": "gpu-8.0",
    }
    return Setup(**(content | changes))


NOTHING = PhaseWork(products=(), attention_flops=0, moved_bytes=0, unpacked_bytes=0, kernels=0)
TRACE = Trace(
    buckets=Buckets(weights=W, gradients=T, optimizer=0, activations=0, logits=0, workspace=0),
    peak_allocated=W + T,
    peak_reserved=W + T,
    peak_phase="backward",
    peak_op="aten.mm",
    resident=W,
    eval_peak=None,
    save_peak=None,
    merge_peak=None,
    trainable_params=PARAMS,
    total_params=1200,
    flops={},
    work={"forward": NOTHING},
    parameter_bytes=W,
    trained_bytes=T,
)


def ring(parallel: str, devices: int, **changes: Any) -> Moves:
    return moves(TRACE, setup(parallel, devices, **changes))


# -- between devices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parallel", "devices", "forward", "backward", "step"),
    [
        # All-reduce of the gradients: 2 (n - 1) / n of 800 bytes.
        ("ddp", 2, 0, 0, 800),
        ("ddp", 8, 0, 0, 1400),
        # ZeRO-1: the gradients are reduced once a step, the new weights gathered.
        ("zero1", 2, 0, 0, 800),
        ("zero1", 8, 0, 0, 1400),
        # ZeRO-2: gradients are scattered after each micro-batch, the new weights gathered.
        ("zero2", 2, 0, 400, 400),
        ("zero2", 8, 0, 700, 700),
        # ZeRO-3 and FSDP: all weights gathered twice, the gradients scattered.
        ("zero3", 2, 800, 800 + 400, 0),
        ("zero3", 8, 1400, 1400 + 700, 0),
        ("fsdp", 2, 800, 800 + 400, 0),
        ("fsdp", 8, 1400, 1400 + 700, 0),
    ],
)
def test_bytes_of_a_ring(parallel: str, devices: int, forward: float, backward: float, step: float) -> None:
    found = ring(parallel, devices)
    assert (found.forward, found.backward, found.step) == pytest.approx((forward, backward, step))
    assert (found.host, found.host_update) == (0, 0)


@pytest.mark.parametrize("parallel", ["none", "ddp", "zero1", "zero2", "zero3", "fsdp"])
def test_a_device_alone_sends_nothing(parallel: str) -> None:
    assert set(asdict(ring(parallel, 1)).values()) == {0.0}


@given(st.sampled_from(["ddp", "zero1", "zero2", "zero3", "fsdp"]), st.integers(1, 500))
def test_more_devices_send_more_and_never_twice_the_whole(parallel: str, devices: int) -> None:
    fewer, more = ring(parallel, devices), ring(parallel, devices + 1)
    for name in ("forward", "backward", "step"):
        assert getattr(fewer, name) <= getattr(more, name)
    total = more.forward + more.backward + more.step
    assert fewer.forward + fewer.backward + fewer.step < total
    assert total < (2 * W + T if parallel in ("zero3", "fsdp") else 2 * T)


# -- links -----------------------------------------------------------------------------------------


def test_within_a_machine_the_link_counts() -> None:
    assert link_rate(builders.a100(), setup("ddp", 8), nodes=1) == 300e9
    assert link_rate(builders.a100(link_bytes_per_second=None), setup("ddp", 8), nodes=1) is None


def test_between_machines_the_slower_of_network_and_link_counts() -> None:
    eight_a_node = setup("fsdp", 16)
    assert link_rate(builders.a100(), eight_a_node, nodes=2) == 8 * NETWORK_CARD == 200e9
    assert link_rate(builders.a100(), setup("fsdp", 4), nodes=2) == 2 * NETWORK_CARD
    hopper = builders.a100(compute_capability=9.0, link_bytes_per_second=450e9)
    assert link_rate(hopper, eight_a_node, nodes=2) == 8 * HOPPER_NETWORK_CARD == 400e9
    assert link_rate(builders.a100(link_bytes_per_second=32e9), eight_a_node, nodes=2) == 32e9
    assert link_rate(builders.a100(link_bytes_per_second=None), eight_a_node, nodes=2) == 200e9


def test_the_host_is_reached_over_pcie() -> None:
    def over(link: str | None, rate: float | None) -> DeviceFacts:
        return builders.a100(link=link, link_bytes_per_second=rate)

    assert host_rate(over("NVLink 3", 300e9)) == HOST_LINK
    assert host_rate(over("PCIe 3.0 x16", 15.75e9)) == 15.75e9
    assert host_rate(over("PCIe 5.0 x16", 63e9)) == HOST_LINK
    assert host_rate(over(None, None)) == HOST_LINK


# -- overlap ---------------------------------------------------------------------------------------

FITTED = efficiency_of(builders.a100())
positive = st.floats(0, 100)


@pytest.mark.parametrize(
    ("overlap", "arithmetic", "communication", "expected"),
    [
        (1.0, 5.0, 3.0, 0.0),
        (1.0, 3.0, 5.0, 2.0),
        (0.0, 5.0, 3.0, 3.0),
        (0.0, 3.0, 5.0, 5.0),
        (0.5, 4.0, 2.0, 1.0),
        (0.5, 2.0, 4.0, 3.0),
    ],
)
def test_what_does_not_hide(overlap: float, arithmetic: float, communication: float, expected: float) -> None:
    assert exposed(arithmetic, communication, replace(FITTED, overlap=overlap)) == expected


@given(positive, positive, st.floats(0, 1))
def test_together_they_take_at_least_the_longer_and_at_most_both(
    arithmetic: float, sent: float, overlap: float
) -> None:
    whole = arithmetic + exposed(arithmetic, sent, replace(FITTED, overlap=overlap))
    assert max(arithmetic, sent) - 1e-9 <= whole <= arithmetic + sent + 1e-9
    assert exposed(arithmetic, 0.0, FITTED) == 0.0


# -- offload ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [1, 4])
def test_bytes_to_the_host(devices: int) -> None:
    optimizer, everything = (ring("zero3", devices, offload=o) for o in ("optimizer", "all"))
    # The gradients go there, and the new weights come back.
    assert optimizer.host == pytest.approx(T / devices) == optimizer.host_step
    # All weights come twice in a micro-batch, the gradients go there.
    assert everything.host == pytest.approx((2 * W + T) / devices) and everything.host_step == 0
    assert optimizer.host_update == everything.host_update == pytest.approx(ADAM_BYTES * PARAMS / devices)
    assert optimizer.forward == ring("zero3", devices).forward
