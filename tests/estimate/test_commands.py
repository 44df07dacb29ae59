"""Seconds of `rankwise eval` and `rankwise merge`: what they grow with, and what the ledger makes of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from rankwise.estimate.commands import (
    Served,
    Times,
    estimate_evaluation,
    estimate_merge,
    evaluation_entries,
    forward_seconds,
    generation_seconds,
    load_seconds,
    merge_entry,
)
from rankwise.estimate.efficiency import ON_CPU
from rankwise.estimate.ledger import append, entries
from rankwise.records import LinearShape
from rankwise.records.ledger import AnswerBatch, EvaluationWork
from tests.estimate.test_ledger import CPU

# SmolLM2-135M: 30 layers of width 576, 3 key and value heads of 64, feed-forward 1536, vocabulary 49,152, tied.
SHAPES = {
    "q_proj": (576, 576),
    "k_proj": (192, 576),
    "v_proj": (192, 576),
    "o_proj": (576, 576),
    "gate_proj": (1536, 576),
    "up_proj": (1536, 576),
    "down_proj": (576, 1536),
}
LINEARS = tuple(LinearShape(name=n, out_features=o, in_features=i, count=30) for n, (o, i) in SHAPES.items())
SERVED = Served(
    device=CPU,
    model="embedded",
    method="lora",
    total=134_515_008,
    linears=LINEARS,
    tied=True,
    dtype="bf16",
    targets="all-linear",
    stored_bytes=269_060_552,
    adapter_bytes=9_780_000,
)
WORK = EvaluationWork(
    rows=100, tokens=9_500, labelled=3_000, batches=tuple(AnswerBatch(rows=16, prompt=64, steps=60) for _ in range(8))
)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_LEDGER", str(tmp_path / "ledger.jsonl"))


def seconds_of(served: Served, work: EvaluationWork) -> tuple[float, float]:
    forward, answers = forward_seconds(served, work), generation_seconds(served, work)
    assert forward is not None and answers is not None
    return forward, answers


def test_parameters_are_counted_by_where_they_work() -> None:
    assert SERVED.linear == 106_168_320 and SERVED.modules == 210
    assert SERVED.head == 134_515_008 - 106_168_320  # the tied embedding, and norms of 0.03 %
    assert SERVED.head == pytest.approx(49_152 * 576, rel=0.002)
    untied = replace(SERVED, tied=False, total=SERVED.total + 49_152 * 576)
    assert untied.head == pytest.approx(49_152 * 576, rel=0.002)
    assert replace(SERVED, targets=("q_proj", "v_proj")).modules == 60 and replace(SERVED, targets=None).modules == 0


def test_twice_the_work_takes_twice_as_long() -> None:
    twice = EvaluationWork(
        rows=2 * WORK.rows, tokens=2 * WORK.tokens, labelled=2 * WORK.labelled, batches=2 * WORK.batches
    )
    assert seconds_of(SERVED, twice) == pytest.approx([2 * s for s in seconds_of(SERVED, WORK)])
    nothing = EvaluationWork(rows=0, tokens=0, labelled=0, batches=())
    assert seconds_of(SERVED, nothing) == (0.0, 0.0)


def test_a_forward_pass_is_two_operations_a_parameter_and_token() -> None:
    one = EvaluationWork(rows=1, tokens=1_000_000, labelled=0, batches=())
    found = forward_seconds(SERVED, one)
    assert found == pytest.approx(2 * 106_168_320 * 1e6 / (0.29 * 4e11), rel=1e-3)


def test_a_token_reads_all_weights_however_few_rows_ask_for_it() -> None:
    def tokens(rows: int) -> float:
        batches = [AnswerBatch(rows=rows, prompt=8, steps=s) for s in (10, 110)]
        less, more = (
            generation_seconds(SERVED, EvaluationWork(rows=0, tokens=0, labelled=0, batches=(b,))) for b in batches
        )
        assert less is not None and more is not None
        return (more - less) / 100

    bound = replace(SERVED, device=CPU.model_copy(update={"matmul_flops": {"bf16": 1e15}}))
    batch = EvaluationWork(rows=0, tokens=0, labelled=0, batches=(AnswerBatch(rows=1, prompt=1, steps=101),))
    found = generation_seconds(bound, batch)
    assert found is not None and found > 100 * SERVED.bytes / 10e9
    assert tokens(16) < 4 * tokens(1)


def test_other_devices_and_unmeasured_precisions_are_unknown() -> None:
    gpu = CPU.model_copy(update={"kind": "gpu"})
    away = replace(SERVED, device=gpu)
    assert estimate_evaluation(away, WORK) is None and estimate_merge(away) is None
    half = replace(SERVED, dtype="fp16")
    assert forward_seconds(half, WORK) is None and generation_seconds(half, WORK) is None


def test_without_a_ledger_the_interval_is_a_factor_of_two() -> None:
    told, merged = estimate_evaluation(SERVED, WORK), estimate_merge(SERVED)
    assert told is not None and merged is not None
    assert told.raw == told.seconds == pytest.approx(sum(seconds_of(SERVED, WORK)) + load_seconds(SERVED))
    for one in (told, merged):
        assert one.interval == pytest.approx([one.seconds * end for end in ON_CPU])


@pytest.mark.usefixtures("ledger")
def test_each_part_is_corrected_by_its_own_factor() -> None:
    before = estimate_evaluation(SERVED, WORK)
    assert before is not None
    forward, answers = seconds_of(SERVED, WORK)
    times = Times(whole=90.0, forward=2 * forward, generation=0.5 * answers)
    made = evaluation_entries(SERVED, before, WORK, times, "run first")
    assert {e.quantity: e.actual / e.predicted for e in made} == pytest.approx(
        {"forward": 2.0, "generation": 0.5, "evaluation": 90.0 / before.raw}
    )
    assert append(*made) == 3
    after = estimate_evaluation(SERVED, WORK)
    assert after is not None and after.raw == before.raw
    assert after.seconds == pytest.approx(load_seconds(SERVED) + 2 * forward + 0.5 * answers)
    assert after.interval[0] > before.interval[0] * 0.5 and after.interval[0] < after.seconds < after.interval[1]


@pytest.mark.usefixtures("ledger")
def test_a_merge_is_corrected_by_merges() -> None:
    first = estimate_merge(SERVED)
    assert first is not None
    append(merge_entry(SERVED, first, 1.3 * first.raw, "run first"))
    second = estimate_merge(SERVED)
    assert second is not None and second.seconds == pytest.approx(1.3 * first.raw) and second.raw == first.raw
    assert (entries()[0].quantity, entries()[0].corrected) == ("merge", first.seconds)
    larger = estimate_merge(replace(SERVED, total=10 * SERVED.total, stored_bytes=10 * SERVED.stored_bytes))
    assert larger is not None and larger.raw > 5 * first.raw


@pytest.mark.usefixtures("ledger")
def test_answers_that_ended_early_do_not_make_the_machine_look_fast() -> None:
    told = estimate_evaluation(SERVED, WORK)
    assert told is not None
    short = WORK.model_copy(update={"batches": tuple(b.model_copy(update={"steps": 6}) for b in WORK.batches)})
    forward, answers = seconds_of(SERVED, short)
    made = evaluation_entries(SERVED, told, short, Times(20.0, forward, answers), "run first")
    ratios = {e.quantity: e.actual / e.predicted for e in made}
    assert ratios["generation"] == pytest.approx(1.0) and ratios["evaluation"] < 1
