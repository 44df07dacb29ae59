"""Sharded setups share the run of a step: they get the trace that each would have had alone."""

from typing import Any

import pytest

from rankwise.records.setup import Setup, Trace
from rankwise.trace import peaks
from rankwise.trace.lastruns import LastRuns
from rankwise.trace.run import run_step
from rankwise.trace.stack import unsharded
from tests.trace.families import setup

SHARDED: list[dict[str, Any]] = [
    {},
    {"capacity": 1 << 40},
    {"parallel": "ddp", "world_size": 2},
    {"parallel": "zero1", "world_size": 2},
    {"parallel": "zero2", "world_size": 8, "offload": "optimizer"},
    {"parallel": "zero3", "world_size": 8},
    {"parallel": "fsdp", "world_size": 2},
    {"parallel": "fsdp", "world_size": 8, "offload": "all"},
]
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("full", {"dtype": "fp32", "autocast": "bf16"}),  # FSDP computes on 16-bit weights
    ("lora", {"gradient_checkpointing": True, "stack": "4.48"}),
    ("qlora", {"kbit_upcast": True}),  # a sharded base is not raised
    ("prefix", {"num_virtual_tokens": 4}),  # whole
]


def remembering(of: Setup, memory: LastRuns, monkeypatch: pytest.MonkeyPatch) -> Trace:
    monkeypatch.setattr(peaks, "_last", memory)
    return peaks.trace(of)


@pytest.mark.parametrize(("method", "step"), STEPS)
def test_a_shared_run_changes_no_byte(method: str, step: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shared = LastRuns(24)
    allowed = [s for s in SHARDED if not (method == "qlora" and s.get("parallel") == "zero3")]
    for sharded in [*allowed, *reversed(allowed)]:
        of = setup("llama", method, **step, **sharded)
        with_it = remembering(of, shared, monkeypatch)
        assert with_it == remembering(of, LastRuns(1), monkeypatch)


@pytest.mark.parametrize(
    ("method", "step", "runs"), [("lora", {}, 1), ("full", {"dtype": "fp32", "autocast": "bf16"}, 2)]
)
def test_a_step_is_run_once(method: str, step: dict[str, Any], runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Setup] = []

    def run(setup: Setup, layers: int | None = None) -> Any:
        seen.append(setup)
        return run_step(setup, layers)

    monkeypatch.setattr(peaks, "run_step", run)
    memory = LastRuns(24)
    for sharded in SHARDED:
        remembering(setup("llama", method, **step, **sharded), memory, monkeypatch)
    assert len(seen) == runs


def test_the_oldest_answer_is_given_up() -> None:
    asked: list[str] = []

    def method(setup: Setup, layers: int | None) -> str:
        asked.append(setup.method)
        return setup.method

    memory = LastRuns(2)
    for name in ("lora", "full", "lora", "dora", "lora", "full"):
        assert memory.ask(method, setup("llama", name), 5) == name
    assert asked == ["lora", "full", "dora", "full"]
    memory.ask(method, setup("llama", "full"), 4)
    assert len(asked) == 5  # of another number of layers


@pytest.mark.parametrize("sharded", SHARDED)
def test_what_a_run_looks_at_is_kept(sharded: dict[str, Any]) -> None:
    of = setup("llama", "qlora", kbit_upcast=True, **sharded)
    alone = unsharded(of)
    kept = set(Setup.model_fields) - {"parallel", "world_size", "offload", "capacity", "kbit_upcast"}
    assert alone.model_dump(include=kept) == of.model_dump(include=kept)
    assert alone.kbit_upcast is (of.parallel not in ("zero3", "fsdp"))
    assert unsharded(alone) == alone
