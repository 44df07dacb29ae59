"""What one change would do: each is a traced step, and only what helps is told."""

import pytest

from rankwise.estimate.changes import WORTH, Change, single_changes
from rankwise.estimate.configure import configure
from rankwise.estimate.options import typed
from rankwise.estimate.price import price_configuration
from rankwise.records import Configuration
from tests import builders

GB, TARIFF = builders.GB, builders.tariff()
CONFIG = builders.llama_config(6, 512, 1408, 256, 32_000, False, 2048)


def asked(**said: object) -> Configuration:
    return configure(typed({"model": "small", "batch": 4, "seq_len": 512, **said}), CONFIG)


def changes(wanted: Configuration, **device: object) -> list[Change]:
    here = builders.a100(name="A", **device)
    larger = [builders.a100(name=f"A{n}", memory_bytes=n * GB) for n in (1, 2, 40)]
    return single_changes(wanted, price_configuration(wanted, here, TARIFF), here, larger, TARIFF, lambda *_: None)


@pytest.fixture(scope="module")
def found() -> list[Change]:
    return changes(asked(dropout=0.1), memory_bytes=2 * GB)


def test_what_fits_stands_first_and_the_smallest_peak_before_the_larger(found: list[Change]) -> None:
    order = [(not c.estimate.memory.fits, c.estimate.memory.peak_device) for c in found]
    assert order == sorted(order) and len(found) >= 4


def test_only_what_helps_is_told(found: list[Change]) -> None:
    before = price_configuration(asked(dropout=0.1), builders.a100(memory_bytes=2 * GB), TARIFF).memory.peak_device
    assert all(c.estimate.memory.fits or c.estimate.memory.peak_device < (1 - WORTH) * before for c in found)


def test_each_change_is_the_changed_step(found: list[Change]) -> None:
    by_words = {c.words: c.estimate for c in found}
    half = price_configuration(asked(dropout=0.1, seq_len=256), builders.a100(memory_bytes=2 * GB), TARIFF)
    assert by_words["--seq-len 256"].memory == half.memory
    fused = price_configuration(
        asked(dropout=0.1, loss="fused-linear", stack="today"), builders.a100(memory_bytes=2 * GB), TARIFF
    )
    assert by_words["--loss fused-linear"].memory == fused.memory
    one = by_words["--batch 1 --grad-accum 4"]
    assert one.time.flops.forward == pytest.approx(half.time.flops.forward * 2, rel=0.05)


def test_the_smallest_device_that_fits_is_told(found: list[Change]) -> None:
    assert [c.words for c in found if c.words.startswith("--gpu")] == ["--gpu A40"]


def test_a_change_that_is_already_made_is_not_offered() -> None:
    lean = asked(gradient_checkpointing=True, batch=1, loss="fused-linear", method="qlora", optimizer="adamw_8bit")
    words = " ".join(c.words for c in changes(lean, memory_bytes=GB // 2))
    assert not any(w in words for w in ("checkpointing", "batch", "loss", "qlora", "optimizer", "dropout"))
