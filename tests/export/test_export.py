"""`rankwise export`: proven files in forms that others load, nothing without proof, nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rankwise import api
from rankwise.api import exporting
from rankwise.cli import app
from rankwise.errors import SpaceError
from rankwise.files import hash_folder, read_record
from rankwise.records import Artifact
from rankwise.store import Run
from tests.training import toy_model, trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = toy_model(tmp_path_factory.mktemp("model"))
    (base / "LICENSE").write_text("Do what you like.\n")
    return base


@pytest.fixture(scope="module")
def proven(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """An adapter alone, an adapter with its merged model, and a full model."""
    runs = {}
    for name, method in (("adapter", "lora"), ("merged", "lora"), ("full", "full")):
        run = trained(tmp_path_factory.mktemp(name), model, method, train={"max_steps": 6, "save_steps": 6})
        if name == "merged":
            api.merge(run)
        assert api.verify(run)[1] is not None
        runs[name] = run
    return runs


@pytest.fixture
def copy_of(proven: dict[str, Run], tmp_path: Path) -> Callable[[str], Run]:
    def copy(name: str) -> Run:
        shutil.copytree(proven[name].folder, tmp_path / name)
        return Run(tmp_path / name)

    return copy


def call(*arguments: object) -> tuple[int, Any, str]:
    """(exit code, the JSON document, what was said on standard error)"""
    said = CliRunner().invoke(app, ["export", *(str(a) for a in arguments), "--json"])
    return said.exit_code, json.loads(said.stdout), said.stderr


def test_the_adapter_is_plain_peft_with_card_licence_and_lineage(
    proven: dict[str, Run], model: Path, tmp_path: Path
) -> None:
    run, out = proven["merged"], tmp_path / "out"
    code, made, _ = call(run.folder, "--to", "peft", "--out", out)
    assert code == 0 and made["form"] == "peft" and made["folder"] == str(out)
    assert {"adapter_model.safetensors", "README.md", "LICENSE", "lineage.json", "artifact.json"} <= set(made["files"])
    assert made["predicted_bytes"] <= made["bytes"] < made["predicted_bytes"] + 20_000
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), out)
    ids = torch.tensor([AutoTokenizer.from_pretrained(out)("open please")["input_ids"]])
    with torch.no_grad(), loaded.disable_adapter():
        base = loaded(ids).logits
    with torch.no_grad():
        assert not torch.allclose(loaded(ids).logits, base)
    record = read_record(out / "artifact.json", Artifact)
    assert record.kind == "adapter" and record.adapter == "." and record.model is None
    files = hash_folder(out)
    files.pop("artifact.json")
    assert record.files == files and record.verification.passed
    assert "## Evidence" in (out / "README.md").read_text()


@pytest.mark.parametrize("name", ["merged", "full"])
def test_the_model_is_a_transformers_folder(proven: dict[str, Run], tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    code, made, _ = call(proven[name].folder, "--to", "transformers", "--out", out)
    assert code == 0 and made["form"] == "transformers"
    ours, theirs = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (proven[name].model, out))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert read_record(out / "artifact.json", Artifact).model == "."


def test_without_out_it_lies_in_the_run_and_is_written_anew(copy_of: Callable[[str], Run]) -> None:
    run = copy_of("adapter")
    for _ in range(2):
        code, made, _ = call(run.folder, "--to", "peft")
        assert code == 0 and Path(made["folder"]) == run.folder / "export" / "peft"


@pytest.mark.parametrize(
    ("name", "form", "why"),
    [
        ("full", "peft", "is a full model, and has no adapter"),
        ("adapter", "transformers", "has no merged model in its artifact"),
        ("adapter", "gguf", "has no merged model in its artifact"),
    ],
)
def test_a_form_that_was_not_proven_is_answered_with_no(
    proven: dict[str, Run], tmp_path: Path, name: str, form: str, why: str
) -> None:
    code, told, _ = call(proven[name].folder, "--to", form, "--out", tmp_path / "out")
    assert code == 3 and why in told["error"]["what"] and told["error"]["fix"]
    assert not (tmp_path / "out").exists()


def test_nothing_is_exported_without_proof(copy_of: Callable[[str], Run], tmp_path: Path) -> None:
    run = copy_of("adapter")
    run.artifact_path.unlink()
    code, told, _ = call(run.folder, "--to", "peft", "--out", tmp_path / "out")
    assert code == 3 and "no proven artifact" in told["error"]["what"] and "rankwise verify" in told["error"]["fix"]
    assert not (tmp_path / "out").exists()


def test_files_that_changed_since_the_proof_are_not_exported(copy_of: Callable[[str], Run], tmp_path: Path) -> None:
    run = copy_of("adapter")
    config = run.adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": ', '"r":  '))
    code, told, _ = call(run.folder, "--to", "peft", "--out", tmp_path / "out")
    assert code == 3 and "adapter/adapter_config.json changed since" in told["error"]["what"]
    assert not (tmp_path / "out").exists()


def test_a_card_that_a_person_went_on_with_is_exported(copy_of: Callable[[str], Run], tmp_path: Path) -> None:
    run = copy_of("adapter")
    card = run.adapter / "README.md"
    card.write_text(card.read_text() + "\nNot for children.\n")
    code, _, _ = call(run.folder, "--to", "peft", "--out", tmp_path / "out")
    assert code == 0 and "Not for children." in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_in_use_is_left_alone(proven: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, told, _ = call(proven["adapter"].folder, "--to", "peft", "--out", tmp_path)
    assert code == 1 and "already in use" in told["error"]["what"]
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_disk_without_room_is_told_before_the_first_byte(
    proven: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankwise.files.free_bytes", lambda folder: 10)
    with pytest.raises(SpaceError, match="not enough disk for the export"):
        exporting.export(proven["merged"], "transformers", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_nothing(
    proven: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exporting.export(proven["merged"], "transformers", tmp_path / "out", progress=told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "one of --to and --check"),
        (("--to", "peft", "--check", "vllm"), "one of --to and --check"),
        (("--to", "hub"), "needs a repository"),
        (("--to", "peft", "--public"), "is about the hub"),
        (("--to", "hub", "--repo", "a/b", "--out", "x"), "writes no folder"),
        (("--to", "hub", "--repo", "../../etc"), "names no repository"),
    ],
)
def test_calls_that_mean_nothing_are_refused(proven: dict[str, Run], options: tuple[str, ...], why: str) -> None:
    code, told, _ = call(proven["adapter"].folder, *options)
    assert code == 2 and why in told["error"]["what"]
