"""`rankwise compare`, really: arms at equal FLOPs in processes of their own; killed in the middle and started again."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.compare.budget import final_steps
from rankwise.compare.folder import Folder
from rankwise.errors import JobError, RankwiseError, RunError, UsageError
from rankwise.store import Run
from tests.training import cli, end, start, toy_job, toy_model, toy_rows, wait_for, write_jsonl

METHODS = "base,lora:r=4,full"
FLOPS = 1e10


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with probes and general rows, for which a comparison takes seconds."""
    folder = tmp_path_factory.mktemp("comparing")
    model = toy_model(folder / "model")
    probes = [{"question": f"{n} open", "answer": "open", "choices": ["open", "no"]} for n in range(8)]
    write_jsonl(folder / "facts.jsonl", probes)
    write_jsonl(folder / "general.jsonl", toy_rows(8, seed=5))
    data = {"train": "train.jsonl", "validation": 0.25, "facts": "facts.jsonl"}
    return toy_job(folder, model, rows=40, data={**data, "general": {"path": "general.jsonl", "share": 0.05}})


def wanted(**changes: Any) -> api.Wanted:
    values = {"methods": METHODS, "unit": "flops", "budget": FLOPS, "seeds": 2, "rates": 2}
    return api.Wanted(**{**values, **changes})


def called(job: Path, out: Path, *more: str) -> tuple[str, ...]:
    options = ("--methods", METHODS, "--budget-flops", str(FLOPS), "--seeds", "2", "--lr-sweep", "2")
    return ("compare", str(job), *options, "--out", str(out), *more)


@pytest.fixture(scope="module")
def compared(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Folder, dict[str, int], Any]]:
    """(a comparison that was killed in the middle of an arm and started again, when its trials were written before
    the kill, what the second call printed)
    """
    out = tmp_path_factory.mktemp("out") / "comparison"
    first = start(*called(job, out))
    try:
        wait_for((out / "trials" / "lora-r=4-seed-0.json").is_file, first)
        first.send_signal(signal.SIGKILL)
        first.wait()
    finally:
        end(first)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}
    second = CliRunner().invoke(app, called(job, out, "--json"))
    assert second.exit_code == 0, second.output
    yield Folder(out), before, json.loads(second.stdout)


def test_a_killed_comparison_goes_on_and_repeats_no_finished_trial(
    compared: tuple[Folder, dict[str, int], Any],
) -> None:
    folder, before, said = compared
    after = {path.name: path.stat().st_mtime_ns for path in (folder.path / "trials").iterdir()}
    assert {"base-seed-0.json", "lora-r=4-seed-0.json"} <= before.keys() and "full-seed-1.json" not in before
    assert {name: after[name] for name in before} == before
    swept = {f"{arm}-sweep-{rate:g}.json" for arm, rate in _rates(folder)}
    finals = {f"{arm}-seed-{seed}.json" for arm in ("lora-r=4", "full") for seed in (0, 1)}
    assert after.keys() == swept | finals | {"base-seed-0.json"}
    assert said == folder.outcome().model_dump(mode="json")
    assert {r["arm"] for r in said["results"]} == {"base", "lora:r=4", "full"} and said["verdict"]
    assert folder.report_path.read_text().startswith("<!")


def _rates(folder: Folder) -> list[tuple[str, float]]:
    return [(a.arm.name.replace(":", "-"), rate) for a in folder.bakeoff().allowances for rate in a.learning_rates]


def test_arms_are_given_equal_flops_and_take_the_steps_they_were_given(
    compared: tuple[Folder, dict[str, int], Any],
) -> None:
    folder, _, _ = compared
    bakeoff, trials = folder.bakeoff(), folder.trials()
    trained = [a for a in bakeoff.allowances if a.config]
    assert abs(trained[0].flops - trained[1].flops) <= max(a.step_flops or 0.0 for a in trained)
    for allowance in trained:
        own = [t for t in trials if t.arm == allowance.arm.name]
        finals = sorted((t for t in own if t.purpose == "final"), key=lambda t: t.seed)
        assert [t.steps for t in finals] == [final_steps(allowance, n) for n in range(2)]
        assert {t.steps for t in own if t.purpose == "sweep"} == {allowance.sweep_steps}
        sweep = {t.learning_rate: t.chosen_by for t in own if t.purpose == "sweep" and t.chosen_by is not None}
        assert {t.learning_rate for t in finals} == {min(sweep, key=lambda rate: (sweep[rate], rate))}
        # Real lengths differ from the mean one that the budget was dealt by.
        assert sum(t.flops or 0.0 for t in own) == pytest.approx(allowance.flops, rel=0.05)


def test_each_seed_sees_its_rows_in_one_order_whatever_the_arm(
    compared: tuple[Folder, dict[str, int], Any],
) -> None:
    folder, _, _ = compared
    tokens = {}
    for seed in (0, 1):
        runs = [Run(folder.runs / f"{arm}-seed-{seed}") for arm in ("lora-r=4", "full")]
        steps = [[(e.tokens, e.supervised_tokens) for e in run.events() if e.event == "step"] for run in runs]
        common = min(map(len, steps))
        assert common > 3 and steps[0][:common] == steps[1][:common]
        tokens[seed] = steps[0][:common]
    assert tokens[0] != tokens[1]


def test_every_model_is_asked_the_same_and_its_curve_is_kept(compared: tuple[Folder, dict[str, int], Any]) -> None:
    folder, _, _ = compared
    finals = [t for t in folder.trials() if t.purpose == "final"]
    shape = [[(s.metric, len(s.values)) for s in t.scores] for t in finals]
    assert all(one == shape[0] for one in shape)
    assert {"heldout_loss", "facts", "facts_choice", "general_loss"} <= {name for name, _ in shape[0]}
    for trial in (t for t in finals if t.arm != "base"):
        assert trial.curve[0].step == 0 and trial.curve[-1].step == trial.steps
        assert len(trial.curve) >= 4 and trial.curve[-1].flops == trial.flops
        assert trial.curve[-1].loss == trial.chosen_by and trial.stored_bytes and trial.trainable_params
    lora = next(t for t in finals if t.arm == "lora:r=4")
    assert lora.curve[-1].loss < lora.curve[0].loss


def test_a_run_of_a_comparison_is_a_run(compared: tuple[Folder, dict[str, int], Any]) -> None:
    folder, _, _ = compared
    run = Run(folder.runs / "full-seed-1")
    assert run.state() == "finished" and (run.model / "model.safetensors").is_file()
    assert run.plan().split_seed == 0 and run.plan().verdict.config.seed == 1  # type: ignore[union-attr]
    assert not run.checkpoints.exists()


def test_another_comparison_is_refused_its_folder(compared: tuple[Folder, dict[str, int], Any], job: Path) -> None:
    folder, _, _ = compared
    with pytest.raises(RunError, match="another comparison: --methods changed"):
        api.prepare_comparison(job, wanted(methods="base,full"), folder.path)
    with pytest.raises(RunError, match="the budget, --seeds changed"):
        api.prepare_comparison(job, wanted(budget=2e10, seeds=3), folder.path)
    with pytest.raises(RunError, match="holds no comparison"):
        api.prepare_comparison(job, wanted(), job.parent)


def test_a_budget_that_is_too_small_says_the_least_that_works(job: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not pay for one step of each arm in 2 seeds and 2 runs") as refused:
        api.prepare_comparison(job, wanted(budget=1e6), tmp_path / "small")
    least = float(refused.value.expected.split()[-1])
    folder = api.prepare_comparison(job, wanted(budget=least), tmp_path / "least")
    trained = [a for a in folder.bakeoff().allowances if a.config]
    assert min(a.steps for a in trained) == 1 and all(a.sweep_steps >= 1 for a in trained)
    with pytest.raises(UsageError):
        api.prepare_comparison(job, wanted(budget=0.98 * least), tmp_path / "less")


def test_nothing_is_compared_that_nothing_could_judge(job: Path, tmp_path: Path) -> None:
    told = {"train": "train.jsonl", "validation": 0.25}
    write_jsonl(tmp_path / "train.jsonl", toy_rows(24))
    bare = toy_job(tmp_path, job.parent / "model", data=told)
    with pytest.raises(JobError, match="retrieval is an arm, and the job has no probes"):
        api.prepare_comparison(bare, wanted(methods="base,retrieval"), tmp_path / "out")
    with pytest.raises(JobError, match="the goal is knowledge, and the job has no probes"):
        api.prepare_comparison(bare, wanted(methods="base,lora"), tmp_path / "out", {"goal": "knowledge"})
    described = toy_job(tmp_path / "described", job.parent / "model", data={"examples": 100})
    with pytest.raises(JobError, match="describes its data"):
        api.prepare_comparison(described, wanted(), tmp_path / "out")
    folder = api.prepare_comparison(bare, wanted(), tmp_path / "out")
    assert any("no probes (data.facts)" in note for note in folder.bakeoff().notes)


def test_a_cost_needs_a_price(job: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the price of an hour"):
        api.prepare_comparison(job, wanted(unit="usd", budget=1.0), tmp_path / "cost")


def test_the_plan_is_printed_and_nothing_runs(job: Path, tmp_path: Path) -> None:
    out = tmp_path / "dry"
    done = CliRunner().invoke(app, called(job, out, "--dry-run"))
    assert done.exit_code == 0, done.output
    for word in ("lora:r=4", "3 arms, 2 seeds, 8 training runs", "can be told with 8 probes", str(out)):
        assert word in done.stdout
    assert (out / "comparison.json").is_file() and not (out / "trials").exists()


def test_one_budget_is_given(job: Path) -> None:
    done = CliRunner().invoke(app, ["compare", str(job), "--methods", METHODS, "--json"])
    assert done.exit_code == 2 and "exactly one" in json.loads(done.stdout)["error"]["expected"]


def test_an_arm_that_cannot_run_is_named(job: Path, tmp_path: Path) -> None:
    with pytest.raises(RankwiseError, match="r is 999"):
        api.prepare_comparison(job, wanted(methods="base,lora:r=999"), tmp_path / "out")


@pytest.mark.prove
def test_a_budget_of_minutes_is_measured_kept_and_gone_on_with(job: Path, tmp_path: Path) -> None:
    out = tmp_path / "minutes"
    options = ("--methods", "base,lora:r=4", "--budget-minutes", "2", "--seeds", "1", "--lr-sweep", "2")
    call = ("compare", str(job), *options, "--out", str(out))
    began = time.monotonic()
    first = start(*call)
    try:
        wait_for(lambda: list((out / "runs").glob("lora-r=4-seed-0/events.jsonl")), first)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
    finally:
        end(first)
    assert first.returncode == 1 and f"--out {out} goes on" in said
    done = cli(*call)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 180
    lora = Folder(out).bakeoff().allowances[1]
    assert lora.training_seconds is not None and 5 < lora.training_seconds < 120
    assert lora.interval is not None and lora.interval[0] <= lora.interval[1]
    assert " left" in done.stderr
