"""`rankwise doctor`: the environment, and the self-check on a machine without a GPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from rankwise.api import doctoring
from rankwise.cli import app
from rankwise.estimate import selfcheck
from rankwise.records.selfcheck import NEVER_RUN_ON_GPU, SelfCheck
from tests.test_layers import fresh, heavy
from tests.tiny import tiny_llama

torch.set_num_threads(1)


def called(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    return done.exit_code, done.stdout


def test_the_environment_as_a_table_and_as_json() -> None:
    code, said = called("--json")
    document = json.loads(said)
    assert code == (0 if document["sound"] else 3)
    assert {"Python", "torch", "cache folder", "embedded model"} <= {c["name"] for c in document["conditions"]}
    code, said = called()
    assert "cache folder" in said and all(feature in said for feature in NEVER_RUN_ON_GPU)


def test_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "from rankwise import api\napi.environment()"
    assert heavy(fresh(code, tmp_path, RANKWISE_CACHE=str(tmp_path / "cache"))) == []


def test_without_a_gpu_the_gpu_self_check_names_what_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = called("--gpu", "--json")
    error = json.loads(said)["error"]
    assert code == 1 and "nvidia-smi" in error["what"] and "doctor --gpu" in error["fix"]
    assert called("--gpu", "--cpu", "--json")[0] == 2


def test_the_self_check_on_the_cpu_writes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The road of --gpu, on the device that is here and with a tiny model in place of the embedded one."""
    folder = tiny_llama(tmp_path / "tiny", hidden=64, intermediate=128)
    monkeypatch.setattr(doctoring, "locate", lambda name: folder)
    kept = ("full bf16", "qlora, checkpointing")
    every = selfcheck.cases_of
    monkeypatch.setattr(selfcheck, "cases_of", lambda *given: {k: v for k, v in every(*given).items() if k in kept})
    code, said = called("--cpu", "--out", str(tmp_path / "ledger"), "--json")
    document = json.loads(said)
    assert code == 0 and [r["id"] for r in document["rows"]] == list(kept)
    assert "torch" in document["versions"] and document["never_run_on_gpu"] == list(NEVER_RUN_ON_GPU)
    written = SelfCheck.model_validate_json(Path(document["file"]).read_text())
    assert Path(document["file"]).parent == tmp_path / "ledger"
    for row in written.rows:
        assert row.allocated_error is not None and abs(row.allocated_error) < 0.05
        assert row.predicted_seconds is not None and row.measured is not None and row.measured.step_seconds
