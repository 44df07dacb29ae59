"""`rankwise launch`: what it writes and says, what it refuses, and that a plan may lie elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise import api
from rankwise.api import training
from rankwise.cli import app
from rankwise.errors import PlanError
from rankwise.files import read_record, write_record
from rankwise.records import Plan
from tests.training import toy_job, toy_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plans(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """plan.json of the same job for one A100, and for this machine's CPU."""
    folder = tmp_path_factory.mktemp("plans")
    found = {}
    for name, hardware in (("gpu", {"gpu": "A100-80GB"}), ("cpu", "cpu")):
        job = toy_job(folder / name, model, hardware=hardware)
        found[name] = api.write_plan(api.plan(job), folder / name / "planned") / "plan.json"
    return found


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["launch", *map(str, arguments)])


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    ("on", "names", "start"),
    [
        ("slurm", ["train.sbatch"], "sbatch "),
        ("skypilot", ["task.yaml"], "sky jobs launch "),
        ("kubernetes", ["volume.yaml", "upload.sh", "trainjob.yaml"], "bash "),
        ("ray", ["train_on_ray.py", "runtime_env.yaml"], "ray job submit "),
    ],
)
def test_files_are_written_and_the_next_command_said(
    on: str, names: list[str], start: str, plans: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = document(run(plans["gpu"], "--on", on, "--json"))
    assert set(said) == {"files", "start", "notes"} and said["start"].startswith(start) and len(said["notes"]) >= 4
    files = [Path(file) for file in said["files"]]
    assert [file.name for file in files] == names and all(file.is_file() for file in files)
    assert str(files[0].parent) in said["start"]
    whole = "".join(file.read_text() for file in files)
    data = plans["gpu"].parents[1] / "train.jsonl"  # relative in the job, absolute where nobody knows its folder
    assert str(plans["gpu"]) in whole and (str(data) in whole or any(str(data) in note for note in said["notes"]))
    plain = run(plans["gpu"].parent, "--on", on)
    assert plain.exit_code == 0 and f"Start: {said['start']}" in plain.stdout


def test_wishes_reach_the_files(plans: dict[str, Path], tmp_path: Path) -> None:
    wishes = ["--package", "git+https://example.org/rankwise", "--hours", 2, "--accelerator", "tesla"]
    assert run(plans["gpu"], "--on", "slurm", "--shared", "/scratch", "--out", tmp_path, *wishes).exit_code == 0
    text = (tmp_path / "train.sbatch").read_text()
    for part in ("pip install git+https://example.org/rankwise", "--time=0-02:00:00", "gpu:tesla:1", "=/scratch/runs/"):
        assert part in text, part
    assert run(plans["gpu"], "--on", "skypilot", "--image", "me/mine:1", "--out", tmp_path).exit_code == 0
    assert "image_id: docker:me/mine:1" in (tmp_path / "task.yaml").read_text()


def test_what_a_person_edited_is_not_written_over(plans: dict[str, Path], tmp_path: Path) -> None:
    call = (plans["gpu"], "--on", "kubernetes", "--out", tmp_path)
    assert [run(*call).exit_code, run(*call).exit_code] == [0, 0]
    (tmp_path / "trainjob.yaml").write_text("mine\n")
    (tmp_path / "volume.yaml").unlink()
    result = run(*call)
    assert result.exit_code == 1 and "trainjob.yaml is there already" in result.stderr and "--out" in result.stderr
    assert (tmp_path / "trainjob.yaml").read_text() == "mine\n" and not (tmp_path / "volume.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--on", "slurm", "--shared", "runs"], 2, "not an absolute path"),
        (["--on", "nomad"], 2, "nomad"),
        (["--on", "slurm", "--hours", "0"], 2, "hours"),
        ([], 2, "--on"),
    ],
)
def test_a_wrong_call_is_one_of_usage(
    arguments: list[str], code: int, words: str, plans: dict[str, Path], tmp_path: Path
) -> None:
    result = run(plans["gpu"], *arguments, "--out", tmp_path / "out")
    assert result.exit_code == code and words in result.stderr and not (tmp_path / "out").exists()


def test_a_plan_for_this_cpu_is_not_for_rented_machines(plans: dict[str, Path], tmp_path: Path) -> None:
    result = run(plans["cpu"], "--on", "skypilot", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1 and document(result)["error"]["kind"] == "PlanError"
    assert "hardware.gpu" in document(result)["error"]["fix"] and not (tmp_path / "out").exists()
    taken = document(run(plans["cpu"], "--on", "slurm", "--out", tmp_path / "out", "--json"))
    assert any("this machine's CPU" in note for note in taken["notes"])


def test_a_stale_plan_is_not_launched(model: Path, tmp_path: Path) -> None:
    path = api.write_plan(api.plan(toy_job(tmp_path, model, hardware="cpu")), tmp_path / "planned") / "plan.json"
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"prompt": "one more", "completion": "row"}\n')
    result = run(path, "--on", "slurm", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "is stale: the data in" in result.stderr and not (tmp_path / "out").exists()


def test_a_plan_that_cannot_be_carried_out_is_not_launched(plans: dict[str, Path], tmp_path: Path) -> None:
    plan = read_record(plans["gpu"], Plan)
    verdict = plan.verdict.model_copy(update={"executable": False})
    write_record(tmp_path / "plan.json", plan.model_copy(update={"verdict": verdict}))
    result = run(tmp_path, "--on", "slurm", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "does not carry out" in result.stderr
    nothing = plan.verdict.model_copy(update={"config": None, "method": "none", "candidate": None})
    write_record(tmp_path / "plan.json", plan.model_copy(update={"verdict": nothing}))
    assert run(tmp_path, "--on", "slurm", "--out", tmp_path / "out").exit_code == 3
    missing = run(tmp_path / "no" / "plan.json", "--on", "slurm")
    assert missing.exit_code == 1 and "does not exist" in missing.stderr


# -- the other end: a plan where it was not made ---------------------------------------------------


def test_a_plan_for_a_named_gpu_is_refused_where_there_is_none_and_launch_is_named(
    plans: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="A100-80GB, of which a node needs 1, and this machine has 0") as error:
        api.prepare(plans["gpu"], tmp_path / "run", {})
    assert "rankwise launch" in error.value.fix and not (tmp_path / "run").exists()


def test_a_plan_for_a_named_gpu_is_taken_where_the_driver_shows_it(
    plans: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [{"name": "NVIDIA A100-SXM4-80GB", "total": 0, "free": 0, "capability": 8.0}]
    monkeypatch.setattr(training, "gpus_here", lambda: seen)
    assert api.prepare(plans["gpu"], tmp_path / "run", {}).plan() == read_record(plans["gpu"], Plan)
    seen[0]["name"] = "NVIDIA A100-SXM4-40GB"
    with pytest.raises(PlanError, match="this machine has 0"):
        api.prepare(plans["gpu"], tmp_path / "other", {})


def test_a_base_is_taken_from_where_it_lies_here(plans: dict[str, Path], tmp_path: Path) -> None:
    plan = read_record(plans["cpu"], Plan)
    there = plan.facts.model.model_copy(update={"folder": "/home/planner/.cache/huggingface/hub/base"})
    moved = plan.model_copy(update={"facts": plan.facts.model_copy(update={"model": there})})
    write_record(tmp_path / "plan.json", moved)
    assert api.prepare(tmp_path / "plan.json", tmp_path / "run", {}).plan() == plan
