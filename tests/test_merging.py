"""`rankwise merge` as a person calls it: one run, several by weights, and back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.errors import RunError
from rankwise.records import Merge
from rankwise.store import Run
from tests.tiny import tiny_moe
from tests.training import toy_model, trained

ADAPTER = "adapter_model.safetensors"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(code: int, *arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    return error


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    made = {"a": ("lora", 0), "b": ("rslora", 1), "q": ("qlora", 0), "prompt": ("prompt", 0)}
    return {
        name: trained(tmp_path_factory.mktemp(name), model, method, train={"seed": seed})
        for name, (method, seed) in made.items()
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_one_run_is_merged_proven_and_recorded(runs: dict[str, Run], tmp_path: Path) -> None:
    said = document(run("merge", runs["q"].folder, "--out", tmp_path / "out", "--json"))
    assert said["verification"]["passed"] and said["model"] == str(tmp_path / "out")
    done = Merge.model_validate(said["merge"])
    assert (done.how, done.stored_as, done.base_hash) == ("sum", "nf4", runs["q"].plan().facts.model.weights_hash)
    assert all(t.quantisation_error and t.delta_norm for t in done.changed)
    assert done == api.merge_record(tmp_path / "out")
    text = run("merge", runs["q"].folder, "--out", tmp_path / "again")
    assert text.exit_code == 0 and "quantisation error in the median layer" in text.stdout


def test_two_runs_by_weights(runs: dict[str, Run], tmp_path: Path, model: Path) -> None:
    both = (runs["a"].folder, runs["b"].folder)
    halves = ("--weights", "0.5,0.5")
    said = document(run("merge", *both, *halves, "--out", tmp_path / "linear", "--json"))
    assert said["merge"]["how"] == "linear" and [a["weight"] for a in said["merge"]["adapters"]] == [0.5, 0.5]
    alone = [tmp_path / name for name in ("a", "b")]
    for name, folder in zip("ab", alone, strict=True):
        api.merge(runs[name], folder)
    base, linear = weights(model), weights(tmp_path / "linear")
    one, other = (weights(folder) for folder in alone)
    for name, tensor in linear.items():
        expected = (one[name] + other[name]) / 2
        assert torch.allclose(tensor, expected, rtol=2e-2, atol=2e-3), name
    assert any(not torch.equal(linear[name], base[name]) for name in base)
    card = (tmp_path / "linear" / "README.md").read_text()
    assert "- 0.5 of run (LoRA" in card or "- 0.5 of " in card
    more = ("--how", "ties", "--density", "0.5", "--out", tmp_path / "ties")
    text = run("merge", *both, *halves, *more)
    assert text.exit_code == 0 and "by TIES, 50% of each kept" in text.stdout and "No proof covers" in text.stdout
    seeded = ("--how", "dare_linear", "--density", "0.5", "--seed", "7", "--out", tmp_path / "dare")
    assert document(run("merge", *both, *seeded, "--json"))["merge"]["seed"] == 7


def test_a_merge_is_taken_back(runs: dict[str, Run], tmp_path: Path, model: Path) -> None:
    api.merge(runs["a"], tmp_path / "merged")
    said = document(run("merge", runs["a"].folder, "--undo", tmp_path / "merged", "--out", tmp_path / "back", "--json"))
    assert said["merge"]["undone_difference"] < 0.02 and said["merge"]["undone_equal"] > 0.5
    base, back = weights(model), weights(tmp_path / "back")
    most = max(float((back[n] - base[n]).abs().max()) for n in base)
    assert most == pytest.approx(said["merge"]["undone_difference"], abs=1e-6)


def test_calls_that_cannot_be_meant(runs: dict[str, Run], tmp_path: Path) -> None:
    one, both = runs["a"].folder, (runs["a"].folder, runs["b"].folder)
    out = ("--out", tmp_path / "out")
    assert "several runs" in refused(2, "merge", one, "--weights", "1", *out)["what"]
    assert "needs a folder" in refused(2, "merge", *both)["what"]
    assert "needs a folder" in refused(2, "merge", one, "--undo", tmp_path)["what"]
    assert "several runs were given" in refused(2, "merge", *both, "--undo", tmp_path, *out)["what"]
    assert "--undo takes the way" in refused(2, "merge", one, "--undo", tmp_path, "--rounding", "nearest", *out)["what"]
    assert "--weights a,b" in refused(2, "merge", *both, "--weights", "a,b", *out)["what"]
    assert "3 weights for 2 runs" in refused(2, "merge", *both, "--weights", "1,2,3", *out)["what"]
    assert "no such way" in refused(2, "merge", *both, "--how", "slerp", *out)["what"]
    assert "density" in refused(2, "merge", *both, "--how", "ties", *out)["what"]
    assert not (tmp_path / "out").exists()


def test_runs_that_do_not_belong_together_are_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "held nf4" in refused(1, "merge", runs["a"].folder, runs["q"].folder, *out)["what"]
    error = refused(1, "merge", runs["a"].folder, runs["prompt"].folder, *out)
    assert "runs at every request" in error["what"]
    other = trained(tmp_path / "other", toy_model(tmp_path / "model", seed=3), "lora")
    assert "their hashes differ" in refused(1, "merge", runs["a"].folder, other.folder, *out)["what"]
    assert not (tmp_path / "out").exists()


def test_a_base_that_changed_since_is_refused(tmp_path: Path) -> None:
    base = toy_model(tmp_path / "base")
    done = trained(tmp_path / "run", base, "lora")
    changed = toy_model(tmp_path / "changed", seed=5)
    shutil.copy2(changed / "model.safetensors", base / "model.safetensors")
    with pytest.raises(RunError, match="is not the one that"):
        api.merge(done, tmp_path / "out")
    (base / "config.json").unlink()
    with pytest.raises(RunError, match="is gone"):
        api.merge(done, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- experts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_mixture_of_experts_is_trained_merged_and_proven(tmp_path: Path, family: str) -> None:
    """Files hold its experts one by one and name them otherwise than the model does. Its linear layers train, as the
    plan counted them.
    """
    base = tiny_moe(tmp_path / "base", family)
    done = trained(tmp_path, base, "lora", train={"max_steps": 20, "save_steps": 20})
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in load_file(done.adapter / ADAPTER)}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}
    api.merge(done)
    outcome, artifact = api.verify(done)
    assert outcome.passed and artifact is not None, outcome
    before, after = (load_file(folder / "model.safetensors") for folder in (base, done.model))
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if "self_attn" in name and name.endswith("proj.weight")
    }
