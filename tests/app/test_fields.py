"""The form of Decide: its fields are keys of a job, its values become one, and its faults stand where they belong."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.app.fields import FIELDS, FIRST, job_file, placed, read_form
from rankwise.errors import DataError, JobError, ModelError
from rankwise.options import JOB_OPTIONS

SMALL = {"goal": "task", "model": "tiny", "data.examples": "20", "hardware.gpu": "A100-80GB"}
VALUES = {"choice": None, "whole": "9", "number": "2.5"}


def test_every_field_is_a_key_of_a_job() -> None:
    assert set(FIELDS) <= {key for key, *_ in JOB_OPTIONS.values()}
    assert all(field.hint.endswith(".") for field in FIELDS.values())


@pytest.mark.parametrize("key", [k for k in FIELDS if k not in ("data.train", "model", "goal", "hardware.gpu")])
def test_every_field_reaches_the_job_and_its_file(key: str, root: Path) -> None:
    field = FIELDS[key]
    value = next((c for c, _ in reversed(field.choices) if c), None) or VALUES.get(field.kind) or field.example
    given = SMALL | {key: value}
    job = read_form(given, root)
    found: Any = job.model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    assert str(found).lower() == value
    assert _said(yaml.safe_load(job_file(job, root, given)), key) == found


def _said(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content[part]
    return content


def test_a_file_of_the_list_takes_the_place_of_its_size(root: Path) -> None:
    given = SMALL | {"data.train": "rows.jsonl", "data.examples": "7", "data.tokens_per_example": "9"}
    job = read_form(given, root)
    assert job.data.train == root / "rows.jsonl" and job.data.examples is None and job.model == str(root / "tiny")
    file = yaml.safe_load(job_file(job, root, given))
    assert file["data"] == {"train": "rows.jsonl"} and file["model"] == "tiny"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.train", "../rows.jsonl"),
        ("data.train", "/etc/passwd"),
        ("data.train", "comparisons/clinic/comparison.json"),
        ("model", "/etc"),
        ("model", "../other"),
        ("model", "~/models"),
        ("model", "tiny/../../other"),
        ("model", "src/rankwise"),
        ("model", "."),
    ],
)
def test_no_path_of_a_form_reaches_the_disk(key: str, value: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(JobError) as refused:
        read_form(SMALL | {key: value}, root)
    assert set(placed(refused.value)) == {key}


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("hardware.count", "two", "'two' is no whole number"),
        ("hardware.count", "0", "0 should be greater than or equal to 1"),
        ("budget.usd", "-5", "should be greater than 0"),
        ("budget.hours", "soon", "'soon' is no number"),
        ("goal", "knowlege", "did you mean knowledge?"),
        ("goal", "", "missing"),
        ("method.name", "lorra", "there is no method 'lorra'"),
        ("method.name", "dpo", "supervised fine-tuning"),
        ("data.examples", "", "no file and no number of rows"),
        ("data.new_tokens", "/etc/hostname", "is no whole number a whole number"),
        ("train.max_length", "1", "greater than or equal to 8"),
    ],
)
def test_a_fault_stands_at_its_field_with_what_was_expected(key: str, value: str, what: str, root: Path) -> None:
    with pytest.raises(JobError) as refused:
        read_form(SMALL | {key: value}, root)
    faults = placed(refused.value)
    assert set(faults) == {key}
    fault = faults[key]
    assert re.search(re.escape(what), " ".join(fault[1:]), re.IGNORECASE), fault
    assert fault.expected or fault.fix


def test_several_faults_stand_at_several_fields(root: Path) -> None:
    with pytest.raises(JobError) as refused:
        read_form(SMALL | {"hardware.count": "x", "variants": "0", "goal": "?"}, root)
    assert set(placed(refused.value)) == {"hardware.count", "variants", "goal"}


def test_what_the_plan_finds_stands_at_its_field() -> None:
    assert set(placed(ModelError("no such model"))) == {"model"}
    assert set(placed(DataError("rows.jsonl", 3, "not JSON"))) == {"data.train"}
    assert set(placed(JobError("hardware.gpu A1000: no such GPU is known"))) == {"hardware.gpu"}
    assert set(placed(JobError("train.deepspeed sets stage: it is the plan's"))) == {""}


def test_the_form_opens_with_a_job_that_is_one(root: Path) -> None:
    assert read_form(FIRST, root).goal == "instruction"
