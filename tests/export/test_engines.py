"""`rankwise export --check`: what an engine refuses is told before it is started, and what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from rankwise.cli import app
from rankwise.export.engines import limits
from rankwise.store import Run
from tests.training import toy_model, trained

FEW = {"max_steps": 2, "save_steps": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def lora(model: Path, tmp_path: Path) -> Run:
    return trained(tmp_path, model, "lora", train=FEW)


def check(run: Run, engine: str = "vllm") -> tuple[int, dict[str, Any]]:
    said = CliRunner().invoke(app, ["export", str(run.folder), "--check", engine, "--json"])
    return said.exit_code, json.loads(said.stdout)


def failed(fit: dict[str, Any]) -> dict[str, str]:
    return {c["name"]: c["number"] for c in fit["checks"] if not c["passed"]}


def config(**values: Any) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        file = run.adapter / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def another_tensor(run: Run) -> None:
    file = run.adapter / "adapter_model.safetensors"
    new = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    save_file({**load_file(file), new: torch.zeros(2, 4)}, file)


def no_file(run: Run) -> None:
    (run.adapter / "adapter_model.safetensors").write_bytes(b"no")


def test_a_lora_adapter_fits(lora: Run) -> None:
    code, fit = check(lora)
    assert code == 0 and fit["loads"] and fit["form"] == "adapter" and not failed(fit) and not fit["advice"]
    rank = json.loads((lora.adapter / "adapter_config.json").read_text())["r"]
    flag = [] if rank in (9, 16) else [f"--max-lora-rank {next(r for r in limits('vllm')['ranks'] if r >= rank)}"]
    assert fit["options"] == ["--enable-lora", *flag]
    assert "0.32.0" in fit["source"]


def test_the_rank_that_the_engine_is_started_with_is_one_that_it_takes(lora: Run) -> None:
    config(r=40)(lora)
    assert check(lora)[1]["options"] == ["--enable-lora", "--max-lora-rank 64"]


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        (config(r=1024), "rank", "r = 1024"),
        (config(rank_pattern={"q_proj": 600}), "rank", "r = 600"),
        (config(modules_to_save=["lm_head"]), "settings", "whole modules"),
        (config(use_dora=True), "settings", "DoRA"),
        (config(bias="lora_only"), "settings", "biases"),
        (config(lora_bias=True), "settings", "bias on B"),
        (config(init_lora_weights="pissa"), "settings", "changes the base"),
        (another_tensor, "tensors", "trainable_tokens_delta"),
        (no_file, "tensors", "cannot be read"),
    ],
)
def test_what_vllm_refuses_is_told_with_what_to_do(
    lora: Run, change: Callable[[Run], None], name: str, why: str
) -> None:
    change(lora)
    code, fit = check(lora)
    assert code == 3 and not fit["loads"] and why in failed(fit)[name]
    assert fit["advice"] and fit["options"] == []


def test_inits_that_leave_the_base_alone_fit(lora: Run) -> None:
    for init in (True, False, "gaussian", "orthogonal"):
        config(init_lora_weights=init)(lora)
        assert check(lora)[0] == 0


@pytest.mark.parametrize(("method", "advice"), [("dora", "merge it"), ("prompt", "runs at every request")])
def test_methods_that_vllm_does_not_run_are_merged_or_not_served(
    model: Path, tmp_path: Path, method: str, advice: str
) -> None:
    run = trained(tmp_path, model, method, train=FEW)
    code, fit = check(run)
    assert code == 3 and "vLLM reads LoRA" in failed(fit)["method"] and advice in fit["advice"][0]
    assert check(run, "ollama")[0] == (0 if method == "dora" else 3)


def test_an_architecture_without_lora_there_is_merged(lora: Run) -> None:
    plan = lora.plan()
    model = plan.facts.model.model_copy(update={"architecture": "GPT2LMHeadModel"})
    plan = plan.model_copy(update={"facts": plan.facts.model_copy(update={"model": model})})
    lora.plan_path.write_text(plan.model_dump_json(by_alias=True))
    code, fit = check(lora)
    assert code == 3 and failed(fit) == {"architecture": "GPT2LMHeadModel"} and "merge" in fit["advice"][0]


def test_a_full_model_is_looked_at_as_a_whole(model: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, model, "full", train=FEW)
    code, fit = check(run)
    assert code == 0 and fit["form"] == "model" and [c["name"] for c in fit["checks"]] == ["architecture"]


def test_new_tokens_are_none_that_the_engine_knows(tmp_path: Path, model: Path) -> None:
    data = {"train": "train.jsonl", "validation": 0.25, "new_tokens": ["<unit>"]}
    run = trained(tmp_path, model, "lora", data=data, train=FEW)
    code, fit = check(run)
    assert code == 3 and "rows, and the base has" in failed(fit)["vocabulary"] and "tensors" in failed(fit)


def test_a_template_of_its_own_has_to_be_given_to_the_engine(tmp_path: Path, model: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text((model / "chat_template.jinja").read_text().replace("assistant", "Assistant"))
    run = trained(tmp_path, model, "lora", chat_template=str(template), train=FEW)
    assert "--chat-template ADAPTER/chat_template.jinja" in check(run)[1]["options"]


def test_ollama_takes_the_merged_model(lora: Run) -> None:
    code, fit = check(lora, "ollama")
    assert code == 0 and fit["form"] == "model" and "rankwise export RUN --to gguf" in fit["options"]
    assert any("ADAPTER" in option for option in fit["options"])
