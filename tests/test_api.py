"""The verbs: what is refused, in which words, and what is left behind."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest

from rankwise import api, files
from rankwise.errors import AnswerIsNo, PlanError, RunError, SpaceError, UsageError
from rankwise.files import read_record
from rankwise.records import Plan
from rankwise.store import Run
from tests.datafiles import cache_dataset, write_rows
from tests.training import carry_out, losses, toy_job, toy_model, toy_rows, toy_run, trained, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("finished"), model)


# -- plans -----------------------------------------------------------------------------------------


def planned(folder: Path, model: Path) -> Path:
    """A plan in a folder of its own."""
    return api.write_plan(api.plan(toy_job(folder, model)), folder / "planned") / "plan.json"


def test_a_plan_is_carried_out_as_it_stands(model: Path, tmp_path: Path) -> None:
    path = planned(tmp_path, model)
    run = api.prepare(path, tmp_path / "run", {})
    assert run.plan() == read_record(path, Plan)
    assert carry_out(run)[-1].event == "finished"
    in_place = api.prepare(path.parent, path.parent, {})
    assert in_place.folder == path.parent and carry_out(in_place)[-1].event == "finished"


def test_a_plan_takes_no_options(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.seed would change it"):
        api.prepare(planned(tmp_path, model), tmp_path / "run", {"train.seed": 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["data", "no data", "base", "device"])
def test_a_stale_plan_is_refused_and_named(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model(tmp_path / "model")
    path = planned(tmp_path, model)
    expected = {"data": "data in", "no data": "data in", "base": "base model", "device": "device"}[change]
    if change == "data":
        with (tmp_path / "train.jsonl").open("a") as file:
            file.write('{"prompt": "one more", "completion": "row"}\n')
    elif change == "no data":
        (tmp_path / "train.jsonl").unlink()
    elif change == "base":
        content = bytearray((model / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (model / "model.safetensors").write_bytes(content)
    else:
        monkeypatch.setattr("rankwise.observe.devices.usable_cores", lambda: 77)
    with pytest.raises(PlanError, match=f"is stale: the {expected}") as error:
        api.prepare(path, tmp_path / "run", {})
    assert "plan again" in error.value.fix and not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["content", "name", "gone"])
def test_a_plan_is_stale_when_a_shard_of_its_folder_changed(tmp_path: Path, model: Path, change: str) -> None:
    shards = [write_rows(tmp_path / "rows" / f"{n}.parquet", toy_rows(12, n)) for n in range(2)]
    job = toy_job(tmp_path, model, data={"train": "rows", "validation": 0.25})
    path = api.write_plan(api.plan(job), tmp_path / "planned") / "plan.json"
    assert api.prepare(path, tmp_path / "first", {}).plan().facts.data.files.keys() == {str(tmp_path / "rows")}
    if change == "content":
        write_rows(shards[1], toy_rows(12, 7))
    elif change == "name":
        shards[1].rename(tmp_path / "rows" / "a.parquet")
    else:
        shutil.rmtree(tmp_path / "rows")
    with pytest.raises(PlanError, match=r"is stale: the data in .*rows changed"):
        api.prepare(path, tmp_path / "run", {})


def test_rows_train_alike_from_a_file_a_folder_and_the_hub(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    rows = toy_rows(24)
    write_rows(tmp_path / "rows" / "0.parquet", rows[:10])
    write_rows(tmp_path / "rows" / "1.parquet", rows[10:])
    cache_dataset(tmp_path / "hub", "org/alike", {"data/train-00000-of-00001.parquet": rows})
    seen = {}
    for name in ("train.jsonl", "rows", "org/alike"):
        job = toy_job(tmp_path, model, data={"train": name, "validation": 0.25})
        run = api.prepare(job, tmp_path / f"run-{name.replace('/', '-')}", {})
        seen[name] = losses(carry_out(run))
        assert str(run.plan().job.data.train).endswith(name)
    assert len(seen["rows"]) == 6 and seen["rows"] == seen["train.jsonl"] == seen["org/alike"]


def test_a_resumed_run_must_not_be_stale_either(tmp_path: Path) -> None:
    model = toy_model(tmp_path / "model")
    run = toy_run(tmp_path, model)
    carry_out(run, stop_after=2)
    write_jsonl(tmp_path / "train.jsonl", [{"prompt": "a", "completion": str(i)} for i in range(30)])
    with pytest.raises(PlanError, match="stale"):
        next(api.train(run, resume=True))


def test_a_described_job_cannot_be_trained(model: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        f"goal: instruction\nmodel: {model}\nhardware: cpu\ndata: {{examples: 100, tokens_per_example: 20}}\n"
    )
    with pytest.raises(PlanError, match="describes its data"):
        api.prepare(tmp_path / "job.yaml", tmp_path / "run", {})


def test_a_job_that_cannot_fit_is_answered_with_no(model: Path, tmp_path: Path) -> None:
    job = toy_job(tmp_path, model, budget={"hours": 1e-9})
    with pytest.raises(AnswerIsNo, match="nothing can run here") as error:
        api.prepare(job, tmp_path / "run", {})
    assert error.value.exit_code == 3 and error.value.fix and not (tmp_path / "run").exists()


# -- folders and disks -----------------------------------------------------------------------------


def test_a_folder_in_use_is_left_alone(finished: Run, model: Path, tmp_path: Path) -> None:
    before = files.hash_folder(finished.folder)
    with pytest.raises(RunError, match="already in use") as error:
        api.prepare(toy_job(tmp_path, model), finished.folder, {})
    assert "--resume" in error.value.fix and files.hash_folder(finished.folder) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="already in use"):
        api.prepare(toy_job(tmp_path, model), tmp_path / "other", {})
    with pytest.raises(RunError, match="is a file"):
        api.prepare(toy_job(tmp_path, model), tmp_path / "train.jsonl", {})


def test_too_small_a_disk_is_refused_before_the_first_byte(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = toy_job(tmp_path, model)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000, total=0, used=0))
    with pytest.raises(SpaceError, match=r"not enough disk for this run") as error:
        api.prepare(job, tmp_path / "run", {})
    assert error.value.exit_code == 1 and not (tmp_path / "run").exists()


def test_a_really_small_disk(model: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a small disk")
    try:
        with pytest.raises(SpaceError, match="not enough disk"):
            api.prepare(toy_job(tmp_path, model), disk / "run", {})
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- a run and what may be done with it ------------------------------------------------------------


VERBS: dict[str, Any] = {
    "evaluate": api.evaluate,
    "merge": api.merge,
    "verify": api.verify,
    "chat": api.chat,
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", ["planned", "stopped"])
def test_an_unfinished_run_has_no_model(model: Path, tmp_path: Path, verb: str, state: str) -> None:
    run = toy_run(tmp_path, model)
    if state == "stopped":
        carry_out(run, stop_after=1)
    with pytest.raises(RunError, match=f"is {state}, not finished") as error:
        VERBS[verb](run)
    assert "train" in error.value.fix


def test_a_finished_run_is_not_resumed(finished: Run) -> None:
    with pytest.raises(RunError, match="has finished"):
        next(api.train(finished, resume=True))


def test_the_newest_unfinished_run_is_the_one_to_resume(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pytest.raises(RunError, match="can be resumed"):
        api.latest_unfinished(root)
    for age, (name, stop) in enumerate([("old", 2), ("newer", 3), ("done", None)]):
        run = api.prepare(toy_job(tmp_path / name, model), root / name, {})
        carry_out(run, stop_after=stop)
        os.utime(run.plan_path, (1000 + age, 1000 + age))
    assert api.latest_unfinished(root).name == "newer"
    lines = api.runs(root)
    assert [(line["run"].rpartition("/")[2], line["state"]) for line in lines] == [
        ("old", "stopped"),
        ("newer", "stopped"),
        ("done", "finished"),
    ]
    (root / "old" / "plan.json").write_text("{")
    assert {line["state"] for line in api.runs(root)} == {"damaged", "stopped", "finished"}


def test_a_merge_goes_into_an_empty_folder_only(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    with pytest.raises(RunError, match="already in use"):
        api.merge(finished, tmp_path / "used")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["x"]
    (tmp_path / "empty").mkdir()
    assert api.merge(finished, tmp_path / "empty") == tmp_path / "empty"


def test_a_merge_that_does_not_fit_writes_nothing(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10, total=0, used=0))
    with pytest.raises(SpaceError, match="the merged model"):
        api.merge(finished, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_show_says_everything_that_is_known(finished: Run) -> None:
    shown = api.show(finished)
    json.dumps(shown, allow_nan=False)
    assert shown["state"] == "finished" and shown["verdict"]["method"] == "lora" and shown["steps"] == 6
    assert shown["losses"]["base_validation_loss"] > shown["losses"]["best_validation_loss"]
    assert {a["quantity"] for a in shown["actuals"]} >= {"train_seconds", "peak_memory", "checkpoint"}


def test_a_run_is_found_by_its_name(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    api.prepare(toy_job(tmp_path / "job", model), Path("runs/mine"), {})
    assert api.open_run(Path("mine")).folder == Path("runs/mine")
    with pytest.raises(RunError, match="there is no run"):
        api.open_run(Path("yours"))
    with pytest.raises(RunError, match="not a run folder"):
        api.open_run(tmp_path / "job")


def test_chat_answers_as_tuned_and_as_base(finished: Run) -> None:
    question = [{"role": "user", "content": "3 yes"}]
    tuned = "".join(api.chat(finished)(question, 8))
    base = "".join(api.chat(finished, base=True)(question, 8))
    assert tuned != base
    assert "".join(api.chat(finished)(question, 8)) == tuned


def test_the_report_comes_from_the_folder_alone(finished: Run, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(finished.folder, moved)
    page = api.report(Run(moved)).read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "lora" in page.lower()
