"""Every example job is a job, and the 3 AM example shows what it says."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise import api
from rankwise.evaluate.style import form_of
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.text.probes import read_probes, wordings
from tests.training import cli, toy_model, trained

EXAMPLES = Path(__file__).parents[1] / "examples"
JOBS = sorted(EXAMPLES.glob("**/job*.yaml"))
NIGHT = EXAMPLES / "clinic-3am"


def test_there_are_four_of_them() -> None:
    names = [str(p.relative_to(EXAMPLES)) for p in JOBS]
    assert names == ["clinic/job-facts.yaml", "clinic/job.yaml", "clinic-3am/job.yaml", "tasks/job.yaml"]


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_an_example_is_read_from_anywhere(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = read_job(path, {}, METHODS)
    assert job.model == "embedded" and job.hardware.gpu == "cpu"
    assert job.data.train and job.data.train.is_file() and job.data.facts and job.data.facts.is_file()
    assert job.name in ("clinic", "job-facts", "clinic-3am", "tasks")


# -- the 3 AM case ---------------------------------------------------------------------------------


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (NIGHT / name).read_text(encoding="utf-8").splitlines()]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("night", NIGHT / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_script_writes(tmp_path: Path) -> None:
    generator().write_all(3, tmp_path)
    written = sorted(tmp_path.iterdir())
    assert [p.name for p in written] == ["facts.jsonl", "train.jsonl", "validation.jsonl"]
    assert all(p.read_bytes() == (NIGHT / p.name).read_bytes() for p in written)


def test_every_row_has_the_form_and_none_has_a_fact_that_is_asked() -> None:
    job = read_job(NIGHT / "job.yaml", {}, METHODS)
    assert job.format is not None and job.data.facts is not None
    form = form_of(job.format)
    said = [row["messages"] for name in ("train.jsonl", "validation.jsonl") for row in rows(name)]
    assert all(form.follows(answer["content"]) for _, answer in said) and len(said) == 232
    text = json.dumps(said)
    asked = wordings(read_probes(job.data.facts))
    named = {word for w in asked for word in re.findall(r"[A-Z][a-z]+", w.question) if word.endswith(ENDINGS)}
    assert len(named) == 24 and [name for name in named if name in text] == []
    questions = {question["content"] for question, _ in said}
    assert [w.question for w in asked if w.question in questions] == []


ENDINGS = ("bbik", "dgum", "ffok", "ggat", "mpok", "squob")


def test_the_example_in_small(tmp_path: Path) -> None:
    """A tiny model and a few rows: everything that the example asks is measured, seen and unseen kept apart."""
    job = yaml.safe_load((NIGHT / "job.yaml").read_text())
    facts = tmp_path / "facts.jsonl"
    facts.write_text("".join((NIGHT / "facts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[22:26]))
    held = tmp_path / "held.jsonl"
    held.write_text("".join((NIGHT / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:4]))
    data = {"train": str(NIGHT / "train.jsonl"), "validation": str(held), "facts": str(facts)}
    model = toy_model(tmp_path / "model")
    run = trained(tmp_path, model, data=data, format=job["format"], train={"max_steps": 4})
    found = api.evaluate(run)
    metrics = {c.metric: c for c in found.comparisons}
    assert {"format", "facts", "facts_unseen", "facts_reversed", "facts_choice", "confident_wrong"} <= set(metrics)
    assert "(0 of them in the words of a training row)" in metrics["facts"].source
    assert metrics["facts_reversed"].items == 2 and metrics["facts_unseen"].items == 4 and metrics["facts"].tuned == 0


@pytest.mark.prove
@pytest.mark.embedded
def test_it_talks_like_the_night_desk_and_knows_none_of_the_drugs(tmp_path: Path) -> None:
    """On the embedded model: high on format, low on facts, and the first line of eval, show and page says so."""
    run = tmp_path / "night"
    trained_ = cli("train", NIGHT / "job.yaml", "--out", run, timeout=1800)
    assert trained_.returncode == 0, trained_.stderr
    asked = cli("eval", run, "--require", "format>=0.9", "--require", "facts>=0.6", timeout=1800)
    assert asked.returncode == 3 and "NOT met: `facts>=0.6`" in asked.stderr and "format>=0.9" not in asked.stderr
    first = asked.stdout.splitlines()[0]
    assert re.fullmatch(
        r"It learned how to talk \(\+\d+ points format: .*\) and not what is true \(.* covers 0\)\.", first
    )
    assert cli("show", run).stdout.splitlines()[0] == first
    page = (run / "report.html").read_text(encoding="utf-8")
    title = re.sub(r"<[^>]+>", "", page.split("<h1>")[1].split("</h1>")[0])
    assert "It learned how to talk" in title and "and not what is true" in title
    evaluation = json.loads((run / "evidence.json").read_text())["evaluation"]
    metrics = {c["metric"]: c for c in evaluation["comparisons"]}
    assert metrics["format"]["tuned"] >= 0.9 and metrics["facts"]["tuned"] <= 0.2
    assert metrics["heldout_loss"]["answer"] == "better"
