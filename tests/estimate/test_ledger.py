"""The ledger's file under two writers and a torn line, and the factor that follows from its entries."""

import math
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import RunError
from rankwise.estimate.ledger import (
    FAR,
    FORMULA,
    LATEST,
    append,
    correction,
    entries,
    entry_of,
    fitted,
    ledger_path,
    training_entries,
    unreadable,
    workload_of,
)
from rankwise.records import Actual, DeviceFacts, FlopsByPhase, Setup, TimeEstimate
from rankwise.records.ledger import LedgerEntry, Workload

WORK = Workload(method="lora", rows=4, length=95.0, dtype="bf16")
CPU = DeviceFacts(
    kind="cpu",
    name="a processor (2 cores)",
    count=1,
    cores=2,
    memory_bytes=8_000_000_000,
    available_bytes=6_000_000_000,
    bf16=True,
    matmul_flops={"bf16": 4e11, "fp32": 1e11},
    matmul_measured=True,
    compute_capability=None,
    context_bytes=None,
    disk_free_bytes=50_000_000_000,
    source="made up",
)
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache" / "ledger.jsonl"
    monkeypatch.setenv("RANKWISE_LEDGER", str(path))
    return path


def entry(ratio: float, number: int = 0, **changes: Any) -> LedgerEntry:
    """One that took `ratio` times what the formula said, `number` hours after the first."""
    predicted = changes.pop("predicted", 2.0)
    content: dict[str, Any] = {
        "at": (BEGIN + timedelta(hours=number)).isoformat(),
        "device": CPU.name,
        "device_rate": "measured",
        "family": "adapter",
        "quantity": "step",
        "model": "embedded",
        "work": WORK,
        "predicted": predicted,
        "corrected": predicted,
        "actual": predicted * ratio,
        "source": "calibrate",
        "formula": FORMULA,
        "rankwise_version": "0",
    }
    return LedgerEntry(**(content | changes))


def line_of(ratios: list[float]) -> list[LedgerEntry]:
    return [entry(ratio, number) for number, ratio in enumerate(ratios)]


def width(ratios: list[float]) -> float:
    found = fitted(line_of(ratios))
    return math.log(found.high / found.low)


# -- the file --------------------------------------------------------------------------------------


def test_where_the_ledger_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ledger_path() is None  # the tests' own setting
    monkeypatch.delenv("RANKWISE_LEDGER")
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    assert ledger_path() == tmp_path / "ledger.jsonl"
    monkeypatch.setenv("RANKWISE_LEDGER", "/elsewhere/l.jsonl")
    assert ledger_path() == Path("/elsewhere/l.jsonl")


def test_switched_off_nothing_is_read_or_written() -> None:
    assert append(entry(2.0)) == 0 and entries() == () and correction(CPU, "adapter", "step") is None


def test_what_is_appended_is_read_back_oldest_first(ledger: Path) -> None:
    late, early = entry(1.2, 5), entry(0.8, 1)
    assert append(late) == 1 and append(early) == 1
    assert entries() == (early, late) and ledger.read_text().count("\n") == 2


def test_torn_and_foreign_lines_are_left_out_and_told(ledger: Path) -> None:
    append(entry(1.5))
    with ledger.open("ab") as file:
        file.write(b'{"a": 1}\n\xff\xfe\n\n[]\n' + entry(9.0).model_dump_json().encode()[:40])
    append(entry(1.5, 1))
    assert len(entries()) == 2 and unreadable() == 4
    known = correction(CPU, "adapter", "step")
    assert known is not None and known.count == 2 and known.factor == pytest.approx(1.5)
    assert "4 unreadable lines" in known.source
    undated = entry(3.0).model_dump_json().replace(BEGIN.isoformat()[:10], "yesterday.")
    ledger.write_text(undated + "\n")
    assert entries() == () and unreadable() == 1


def test_a_file_that_cannot_be_read_is_no_ledger(ledger: Path) -> None:
    ledger.mkdir(parents=True)
    assert entries() == () and correction(CPU, "adapter", "step") is None
    with pytest.raises(RunError, match="cannot be written") as told:
        append(entry(1.0))
    assert "RANKWISE_LEDGER=off" in told.value.fix


WRITER = """
import sys
from tests.estimate.test_ledger import entry
from rankwise.estimate.ledger import append
for number in range(40):
    append(*(entry(1.0, number, model=sys.argv[1] * 3000) for _ in range(2)))
"""


def test_processes_that_append_at_one_time_leave_whole_lines(ledger: Path) -> None:
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name], env=env, cwd=root) for name in "abc"]
    assert [w.wait(timeout=120) for w in writers] == [0, 0, 0]
    found = entries()
    assert unreadable() == 0 and {e.model[0] for e in found} == set("abc") and len(found) == 240


def test_a_write_that_fails_leaves_the_file_as_it_was(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(entry(1.0))
    before = ledger.read_bytes()
    real, calls = os.write, []

    def half(file: int, data: bytes) -> int:
        calls.append(file)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(file, data[: len(data) // 2])

    monkeypatch.setattr("rankwise.files.os.write", half)
    with pytest.raises(Exception, match="No space left"):
        append(entry(1.0, 1), entry(1.0, 2))
    assert ledger.read_bytes() == before and len(calls) == 2


# -- the factor ------------------------------------------------------------------------------------

RATIOS = st.lists(st.floats(0.2, 5.0), min_size=1, max_size=LATEST)


@given(st.floats(0.05, 20.0), st.integers(1, LATEST))
@settings(deadline=None)
def test_a_factor_that_all_entries_share_is_recovered(ratio: float, count: int) -> None:
    found = fitted(line_of([ratio] * count))
    assert found.factor == pytest.approx(ratio) and found.low < 1 < found.high


@given(st.floats(0.3, 3.0), st.floats(0.02, 0.15), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_factor_under_noise_is_recovered_within_its_interval(ratio: float, spread: float, seed: int) -> None:
    draw = random.Random(seed)
    found = fitted(line_of([ratio * math.exp(draw.gauss(0, spread)) for _ in range(LATEST)]))
    assert abs(math.log(found.factor / ratio)) < 4 * spread / math.sqrt(10) + 1e-9
    assert found.factor * found.low < ratio < found.factor * found.high


def test_the_interval_holds_nine_of_ten_further_pieces_of_work() -> None:
    draw, held, tried = random.Random(3), 0, 2000
    for _ in range(tried):
        ratios = [math.exp(draw.gauss(0, 0.12)) for _ in range(draw.randint(1, 12))]
        found = fitted(line_of(ratios[:-1] or ratios))
        then = math.exp(draw.gauss(0, 0.12))
        held += found.factor * found.low <= then <= found.factor * found.high
    assert 0.88 < held / tried < 0.97


def test_one_calibration_claims_little_and_many_more() -> None:
    found = fitted(line_of([1.5]))
    assert found.low < 0.75 and found.high > 1.35
    widths = [width([1.5] * n) for n in (1, 2, 3, 5, 10, 20)]
    assert widths == sorted(widths, reverse=True) and widths[-1] < widths[0] / 3
    assert fitted(line_of([1.5] * 20)).high >= 1.05


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=LATEST // 2))
@settings(deadline=None)
def test_more_of_the_same_narrows_the_interval(ratios: list[float]) -> None:
    """Of entries that agree better than the prior expects: where they do not, the prior gives way and it may widen."""
    assert width([r for r in ratios for _ in range(2)]) < width(ratios)


@given(RATIOS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_lines_is_nothing(ratios: list[float], draw: random.Random) -> None:
    with pytest.MonkeyPatch.context() as patch:
        place = Path(f"/tmp/rankwise-ledger-{os.getpid()}.jsonl")
        patch.setenv("RANKWISE_LEDGER", str(place))
        try:
            made = line_of(ratios)
            append(*made)
            first = correction(CPU, "adapter", "step")
            place.unlink()
            draw.shuffle(made)
            append(*made)
            assert correction(CPU, "adapter", "step") == first
        finally:
            place.unlink(missing_ok=True)


@given(st.floats(0.5, 2.0), st.integers(4, 12), st.floats(5.0, 100.0), st.data())
@settings(deadline=None)
def test_one_run_beside_a_busy_neighbour_moves_little(ratio: float, count: int, busy: float, data: Any) -> None:
    at = data.draw(st.integers(0, count - 1))
    ratios = [ratio] * count
    ratios[at] = ratio * busy
    found = fitted(line_of(ratios))
    mean = math.exp(sum(map(math.log, ratios)) / count)
    assert found.factor < 1.12 * ratio and found.factor < mean
    assert width(ratios) > width([ratio] * count)


def test_newer_entries_count_more() -> None:
    assert fitted(line_of([1.0] * 10 + [1.2] * 10)).factor > 1.1 > fitted(line_of([1.2] * 10 + [1.0] * 10)).factor


# -- which entries ---------------------------------------------------------------------------------


def test_entries_of_another_device_quantity_rate_or_formula_say_nothing(ledger: Path) -> None:
    append(
        entry(2.0, device="another"),
        entry(2.0, quantity="merge"),
        entry(2.0, device_rate="datasheet"),
        entry(2.0, formula=FORMULA + 1),
    )
    assert correction(CPU, "adapter", "step") is None


def test_only_the_latest_count(ledger: Path) -> None:
    append(*line_of([9.0] * 10 + [1.0] * LATEST))
    known = correction(CPU, "adapter", "step")
    assert known is not None and (known.factor, known.count) == (pytest.approx(1.0), LATEST)


def test_another_family_helps_out_with_a_wider_interval(ledger: Path) -> None:
    append(*line_of([1.3] * 5))
    own, other = correction(CPU, "adapter", "step"), correction(CPU, "quantised", "step")
    assert own is not None and other is not None and other.factor == pytest.approx(own.factor)
    assert other.high > own.high and other.low < own.low
    assert "adapter methods (none of this family yet)" in other.source and "family" not in own.source
    append(entry(0.7, 9, family="quantised"))
    known = correction(CPU, "quantised", "step")
    assert known is not None and (known.factor, known.count) == (pytest.approx(0.7), 1)


def test_work_of_like_size_counts_more_and_far_sizes_not_at_all(ledger: Path) -> None:
    append(*(entry(1.5, n, predicted=0.5) for n in range(5)), *(entry(1.0, n, predicted=50.0) for n in range(5)))
    small, large = correction(CPU, "adapter", "step", near=0.5), correction(CPU, "adapter", "step", near=50.0)
    assert small is not None and large is not None and small.factor > 1.25 > 1.2 > large.factor
    between = correction(CPU, "adapter", "step", near=5.0)
    assert between is not None and large.factor < between.factor < small.factor
    assert correction(CPU, "adapter", "step", near=50.0 * FAR * 1.01) is None
    alone = [fitted([entry(1.0)], near=2.0), fitted([entry(1.0)], near=60.0)]
    assert alone[1].high > alone[0].high * 1.1


def test_the_source_says_how_many_of_what_and_when(ledger: Path) -> None:
    append(entry(1.0), entry(1.0, 1, source="run first"), entry(1.0, 2, source="run second"))
    known = correction(CPU, "adapter", "step")
    assert known is not None
    assert known.source == f"1 calibration and 2 runs on {CPU.name}, last 2026-11-01"


# -- entries from runs -----------------------------------------------------------------------------


def clock(**changes: Any) -> TimeEstimate:
    flops = FlopsByPhase(forward=1.0, backward=2.0, optimizer=0.0)
    content: dict[str, Any] = {
        "flops_per_token": 1.0,
        "flops": flops,
        "tokens_per_second": 10.0,
        "step_seconds": 3.0,
        "load_seconds": 12.0,
        "evaluation_seconds": 6.0,
        "save_seconds": 2.0,
        "train_seconds": 12.0 + 30.0 + 6.0 + 2.0,
        "interval": (40.0, 60.0),
        "relative": (0.8, 1.2),
        "correction": 1.5,
    }
    return TimeEstimate(**(content | changes))


def actuals(**seconds: float) -> list[Actual]:
    return [
        Actual(quantity=f"{name}_seconds", unit="s", predicted=1.0, interval=None, actual=value, source="")
        for name, value in seconds.items()
    ]


SETUP = Setup(
    config={"model_type": "llama"}, method="lora", r=8, dtype="bf16", per_device_train_batch_size=4, max_length=128
)


def kept(told: TimeEstimate, **seconds: float) -> dict[str, LedgerEntry]:
    made = training_entries(told, CPU, SETUP, 95.0, actuals(**seconds), model="embedded", source="run first")
    return {e.quantity: e for e in made}


def test_a_run_is_kept_by_formula_as_told_and_as_it_was() -> None:
    found = kept(clock(), step=2.4, train=44.0)
    step, train = found["step"], found["train"]
    assert (step.predicted, step.corrected, step.actual) == (2.0, 3.0, 2.4)
    assert train.predicted == pytest.approx(12.0 + 20.0 + 4.0 + 2.0) and (train.corrected, train.actual) == (50.0, 44.0)
    assert step.work == workload_of(SETUP, 95.0) and step.work.rows == 4 and step.family == "adapter"


def test_what_was_not_told_or_not_measured_is_not_kept() -> None:
    assert kept(clock(step_seconds=None, train_seconds=None, interval=None), step=2.0, train=40.0) == {}
    assert set(kept(clock(train_seconds=None, interval=None), step=2.0, train=40.0)) == {"step"}
    assert set(kept(clock(), train=40.0)) == {"train"}


def test_the_ledger_converges_on_a_machine_that_is_slower_than_the_formula(ledger: Path) -> None:
    """Each run is told by what the ledger knew before it; what is kept is the formula, so that nothing compounds."""
    facts: DeviceFacts = CPU
    for number in range(6):
        known = correction(facts, "adapter", "step", near=2.0)
        told = 2.0 * (known.factor if known else 1.0)
        assert told == pytest.approx(2.0 if number == 0 else 3.4, rel=1e-6)
        made = entry_of(
            facts, "lora", "step", predicted=2.0, corrected=told, actual=3.4, model="m", work=WORK, source="run x"
        )
        assert append(made) == 1
