"""Traces remembered: one for equal steps, from the disk without torch, made again when damaged."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rankwise.estimate import traced as module
from rankwise.estimate.traced import shapes_of, simplified, traced
from rankwise.records import Setup
from tests import builders

ROOT = Path(__file__).parents[2]


def setup(**changes: Any) -> Setup:
    content: dict[str, Any] = {
        "config": builders.llama_config(2, 128, 256, 64, 320, True, 512),
        "method": "lora",
        "r": 4,
        "target_modules": "all-linear",
        "dtype": "bf16",
        "per_device_train_batch_size": 1,
        "max_length": 64,
        "device": "gpu-8.0",
    }
    return Setup.model_validate(content | changes)


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in the process and on the disk."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_seen", {})
    return tmp_path / "traces"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"lora_alpha": 8.0}, {"lora_alpha": 16.0}, True),
        ({"lora_dropout": 0.1}, {"lora_dropout": 0.2}, True),
        ({"lora_dropout": 0.0}, {"lora_dropout": 0.2}, False),
        ({"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 9}, True),
        ({"gradient_accumulation_steps": 1}, {"gradient_accumulation_steps": 2}, False),
        ({"labelled_share": 0.5}, {"labelled_share": 0.9}, True),
        ({"labelled_share": 0.5, "loss": "labelled"}, {"labelled_share": 0.9, "loss": "labelled"}, False),
        ({"labelled_share": 0.5, "loss": "labelled"}, {"labelled_share": 0.501, "loss": "labelled"}, True),
        ({"world_size": 1}, {"world_size": 2}, True),
        ({"world_size": 2, "parallel": "zero3"}, {"world_size": 4, "parallel": "zero3"}, False),
        ({"optimizer_in_backward": False}, {"optimizer_in_backward": True}, False),
        ({"max_length": 64}, {"max_length": 65}, False),
    ],
)
def test_steps_that_hold_the_same_are_one(one: dict[str, Any], other: dict[str, Any], equal: bool) -> None:
    assert (simplified(setup(**one)) == simplified(setup(**other))) is equal


@pytest.mark.parametrize("change", [{"lora_alpha": 8.0}, {"lora_dropout": 0.5}, {"gradient_accumulation_steps": 4}])
def test_what_simplifying_leaves_out_changes_no_byte(change: dict[str, Any], forgetful: Path) -> None:
    from rankwise.trace.peaks import trace

    assert trace(setup(**change)) == trace(simplified(setup(**change)))


def test_a_step_is_traced_once(forgetful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = traced(setup())
    (file,) = files(forgetful)
    file.unlink()
    assert traced(setup(lora_alpha=3.0)) is found and files(forgetful) == []
    monkeypatch.setattr(module, "_seen", {})
    assert traced(setup()) == found and files(forgetful) == [file]


@pytest.mark.parametrize("content", ["", "{", "{}", '{"peak_allocated": 1}', "\x00"])
def test_a_damaged_file_is_made_again(content: str, forgetful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = traced(setup())
    (file,) = files(forgetful)
    whole = file.read_text()
    file.write_text(content)
    monkeypatch.setattr(module, "_seen", {})
    assert traced(setup()) == found and file.read_text() == whole


def test_another_library_makes_another_answer(forgetful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced(setup())
    versions = module._versions()
    assert {"rankwise", "code", "torch", "transformers", "peft", "bitsandbytes"} == set(versions)
    monkeypatch.setattr(module, "_seen", {})
    monkeypatch.setattr(module, "_versions", lambda: versions | {"torch": "9.9"})
    traced(setup())
    assert len(files(forgetful)) == 2


def test_the_shapes_are_those_of_the_built_class() -> None:
    model = builders.smollm2()
    found = shapes_of(model.config)
    assert found.total_params == model.total_params and found.tied
    assert {(s.name, s.out_features, s.in_features, s.count) for s in found.linears} == {
        (s.name, s.out_features, s.in_features, s.count) for s in model.linears
    }
    assert not shapes_of(builders.llama3_8b().config).tied


TELL = """
import json, sys, time
from rankwise.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(set(sys.modules) & {{"torch", "transformers", "peft", "bitsandbytes"}})), file=sys.stderr)
"""


def test_a_remembered_answer_needs_no_torch_and_no_second(tmp_path: Path) -> None:
    arguments = ["estimate", "--model", "smollm2-135m", "--gpu", "L4", "--seq-len", "128", "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "RANKWISE_CACHE": str(tmp_path)}
    outcomes = []
    for _ in range(3):
        began = time.perf_counter()
        code = TELL.format(arguments=arguments)
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        modules = json.loads(done.stderr.splitlines()[-1])
        outcomes.append((json.loads(done.stdout), modules, time.perf_counter() - began))
    first, *later = outcomes
    assert "torch" in first[1] and all(answer == first[0] and modules == [] for answer, modules, _ in later)
    assert min(seconds for *_, seconds in later) < 1.0
