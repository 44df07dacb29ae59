"""`rankwise eval --tasks`: before and after on a run, alone on a model, kept in the run, shown and on the page."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise import api
from rankwise.api import benchmarks
from rankwise.cli import app
from rankwise.evaluate.harness_tasks import Asked
from rankwise.records import Benchmarks
from rankwise.report import words
from rankwise.store import Run
from tests.lmtasks import QUESTIONS, write_tasks
from tests.training import toy_job, toy_model, trained

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model") / "tiny", positions=512)


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"), model, train={"max_steps": 8})


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_before_and_after_are_one_document_and_stay_in_the_run(run: Run, tasks: Path) -> None:
    asked = ("--tasks", "small_group,small_texts", "--tasks-path", tasks, "--limit", 10)
    done = call("eval", run.folder, *asked, "--json")
    assert done.exit_code == 0, done.output
    found = Benchmarks.model_validate_json(done.stdout)
    named = [(r.tuned.task, r.tuned.metric) for r in found.results]
    arc = [(task, metric) for task in ("small_arc", "small_arc_bare") for metric in ("acc", "acc_norm")]
    assert named[:5] == [("small_group", "acc"), *arc] and len(named) == 8
    for one in found.results:
        assert one.base and one.difference == one.tuned.value - one.base.value
        assert one.interval and one.interval[0] <= one.difference <= one.interval[1] and one.answer
    assert found.results[0].tuned.subtasks == {"small_arc": 0.5, "small_arc_bare": 0.5}
    assert found.results[0].tuned.items == 20 and found.results[1].tuned.items == 10
    assert run.evidence().benchmarks == found

    shown = json.loads(call("show", run.folder, "--json").stdout)["benchmarks"]
    assert shown == json.loads(done.stdout)
    said = call("show", run.folder).stdout
    assert "Benchmarks" in said and "small_texts word_perplexity: " in said
    assert "small_arc acc" not in said  # the tasks of a group stand in the file
    page = run.report_path.read_text(encoding="utf-8")
    assert '<h2 id="benchmarks">' in page and "small_group" in page and "word_perplexity" in page


def test_the_tuned_side_is_the_adapter_and_the_base_the_untouched_model(run: Run, model: Path, tasks: Path) -> None:
    asked = Asked(("small_texts",), tasks)
    found = api.benchmark(run, asked)
    alone = api.benchmark_model(str(model), asked)
    for one, other in zip(found.results, alone.results, strict=True):
        assert one.base == other.tuned and one.tuned.value != other.tuned.value
    decided = run.plan()
    tuned, _ = benchmarks.load_tuned(run, decided)
    assert tuned.active_adapters == ["default"]


def test_what_is_asked_later_is_added_and_what_is_asked_again_replaced(run: Run, tasks: Path) -> None:
    api.benchmark(run, Asked(("small_texts",), tasks))
    api.benchmark(run, Asked(("small_arc",), tasks, limit=4))
    api.benchmark(run, Asked(("small_arc",), tasks, limit=6))
    kept = run.evidence().benchmarks
    assert kept and {(r.tuned.task, r.tuned.items) for r in kept.results} >= {("small_texts", 4), ("small_arc", 6)}
    assert ("small_arc", 4) not in {(r.tuned.task, r.tuned.items) for r in kept.results}


def test_a_base_is_asked_once(run: Run, tasks: Path, cache: Path) -> None:
    def asked_of(**more: Any) -> set[str]:
        told: list[str] = []
        found.append(api.benchmark(run, Asked(("small_arc",), tasks, **more), lambda what, *_: told.append(what)))
        return set(told)

    found: list[Benchmarks] = []
    assert asked_of() == {"small_arc, base", "small_arc, tuned"}
    assert asked_of() == {"small_arc, tuned"}
    assert found[0].results == found[1].results
    assert "small_arc, base" in asked_of(limit=5) and "small_arc, base" in asked_of(num_fewshot=1)
    for kept in (cache / "benchmarks").iterdir():
        kept.write_text("{")
    assert "small_arc, base" in asked_of()  # what cannot be read is made again
    changed = [*QUESTIONS[:-1], {**QUESTIONS[-1], "answer": 0}]
    write_tasks(tasks.parent / "changed", questions=changed)
    tasks = tasks.parent / "changed"
    assert "small_arc, base" in asked_of()


def test_a_task_without_its_data_costs_the_others_nothing(run: Run, tasks: Path) -> None:
    asked = ("--tasks", "not_here, small_arc", "--tasks-path", tasks, "--limit", 4)
    done = call("eval", run.folder, *asked, "--json")
    assert done.exit_code == 1
    found = Benchmarks.model_validate_json(done.stdout)
    assert {r.tuned.task for r in found.results} == {"small_arc"}
    assert [f.task for f in found.failures] == ["not_here"] and run.evidence().benchmarks
    plain = call("eval", run.folder, *asked)
    assert plain.exit_code == 1 and "small_arc" in plain.stdout
    assert "the dataset nobody/nothing is not on this machine" in plain.stderr and "Traceback" not in plain.output


def test_where_no_task_can_be_run_it_is_an_error(run: Run, tasks: Path) -> None:
    done = call("eval", run.folder, "--tasks", "not_here,no_file", "--tasks-path", tasks, "--json")
    error = json.loads(done.stdout)["error"]
    assert done.exit_code == 1 and error["kind"] == "BenchmarkError"
    assert "nobody/nothing" in error["what"] and "no_file" in error["what"] and "load_dataset" in error["fix"]


def test_a_task_that_fails_while_it_is_asked_is_left_out(run: Run, tmp_path: Path) -> None:
    mine = write_tasks(tmp_path / "mine", ["small_arc", "small_answers"])
    text = (mine / "small_answers.yaml").read_text().replace("max_gen_toks: 6", "max_gen_toks: 6000")
    (mine / "small_answers.yaml").write_text(text)
    found = api.benchmark(run, Asked(("small_answers", "small_arc"), mine, limit=2))
    assert {r.tuned.task for r in found.results} == {"small_arc"}
    assert "small_answers could not be put to the base model: AssertionError" in found.failures[0].what


def test_a_model_alone_and_a_model_beside_the_base_of_a_job(model: Path, tasks: Path, tmp_path: Path) -> None:
    said = call("eval", model, "--tasks", "small_arc", "--tasks-path", tasks)
    assert said.exit_code == 0 and "small_arc" in said.stdout and "tuned is" not in said.stdout
    job = toy_job(tmp_path / "job", model)
    other = toy_model(tmp_path / "other", positions=512, seed=4)
    done = call("eval", other, "--job", job, "--tasks", "small_texts", "--tasks-path", tasks, "--json")
    (first, *_) = Benchmarks.model_validate_json(done.stdout).results
    assert first.base and first.base.value != first.tuned.value


def test_wrong_calls_are_usage_errors(run: Run, tasks: Path) -> None:
    def refused(*more: object) -> dict[str, Any]:
        done = call("eval", run.folder, *more, "--json")
        assert done.exit_code == 2, done.output
        error: dict[str, Any] = json.loads(done.stdout)["error"]
        return error

    assert refused("--limit", 3)["what"] == "--limit without --tasks"
    assert refused("--tasks-path", tasks, "--apply-chat-template")["what"].startswith("--tasks-path, --apply-chat-")
    assert refused("--tasks", " , ")["what"] == "--tasks names no task"
    assert "is not a folder" in refused("--tasks", "small_arc", "--tasks-path", tasks / "no")["what"]


def test_a_page_survives_what_a_task_may_be_called(run: Run, tasks: Path) -> None:
    found = api.benchmark(run, Asked(("small_arc",), tasks, limit=2))
    evil = found.results[0].tuned.model_copy(update={"task": "<script>x</script>"})
    results = (found.results[0].model_copy(update={"tuned": evil}),)
    assert words.benchmark_rows(found.model_copy(update={"results": results}))[0].task == "<script>x</script>"
    evidence = run.evidence().model_copy(update={"benchmarks": found.model_copy(update={"results": results})})
    from rankwise.report.page import run_page

    page = run_page(run.plan(), run.events(), evidence, run.artifact(), "finished")
    assert "<script>x" not in page and "&lt;script&gt;x" in page
