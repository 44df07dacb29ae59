"""Benchmarks in words: shares as percent and points, other numbers as they are, groups without their tasks."""

from typing import Any

from rankwise.records import BenchmarkFailure, BenchmarkResult, Benchmarks
from rankwise.report.benchmark_words import benchmark_line, benchmark_rows, benchmark_source, failure_line
from tests.builders import benchmark_score as scored


def found(*results: BenchmarkResult) -> Benchmarks:
    return Benchmarks(results=results, failures=(), notes=(), seconds=75.0)


def beside(base: Any, tuned: Any, **changes: Any) -> BenchmarkResult:
    content = {
        "base": base,
        "tuned": tuned,
        "difference": tuned.value - base.value if base else None,
        "interval": (-0.01, 0.05) if base else None,
        "answer": "cannot tell" if base else None,
        "source": "paired",
    }
    return BenchmarkResult(**(content | changes))


def test_a_share_is_percent_with_its_error_in_points() -> None:
    (row,) = benchmark_rows(found(beside(scored((1.0, 0.0)), scored((1.0, 0.0), value=0.52))))
    assert benchmark_line(row) == "small_arc acc: 50 % -> 52 %, +2 points (95 %: -1 to +5), 2 items: cannot tell"
    assert (row.base_error, row.shots) == ("± 5.0 points", "0")


def test_another_number_stays_what_it_is() -> None:
    kind: dict[str, Any] = {"unit": "perplexity", "metric": "word_perplexity", "filter": "flexible-extract"}
    one, other = scored((), value=20.5, stderr=None, **kind), scored((), value=18.25, stderr=None, **kind)
    (row,) = benchmark_rows(found(beside(one, other, interval=(-3.5, -1.0), answer="better")))
    assert benchmark_line(row) == (
        "small_arc word_perplexity, flexible-extract: 20.5 -> 18.2, -2.25 (95 %: -3.5 to -1), 100 items: better"
    )
    unknown = beside(one, other, interval=None)
    assert "(95 %: unknown)" in benchmark_line(benchmark_rows(found(unknown))[0])


def test_a_model_alone_has_no_difference() -> None:
    (row,) = benchmark_rows(found(beside(None, scored((1.0, 0.0), num_fewshot=None))))
    assert benchmark_line(row) == "small_arc acc: 50 % (± 5.0 points), 2 items"
    assert (row.base, row.difference, row.answer, row.shots) == ("", "", "", "unknown")


def test_the_tasks_of_a_group_are_left_to_the_file() -> None:
    group = scored((), task="both", aggregation="subtasks", subtasks={"small_arc": 1.0})
    whole = found(beside(group, group), beside(scored((1.0,)), scored((1.0,))))
    assert [row.task for row in benchmark_rows(whole)] == ["both"]
    assert benchmark_source(whole) == (
        "lm-evaluation-harness 0.4.13; the last call took 1 min 15 s. Tasks inside groups: 1, in evidence.json."
    )


def test_a_failure_is_one_line() -> None:
    failed = BenchmarkFailure(task="arc", what="the dataset x is not here", expected="", fix="fetch it")
    assert failure_line(failed) == "the dataset x is not here; fix: fetch it"
