"""The two jobs are made from the real files, and the committed page is what result.json says."""

import json
from pathlib import Path

import pytest
from benchmarks.compare.bench import HERE, metrics
from benchmarks.compare.jobs import AUTHOR, EACH, NAME, PATTERNS, PERSONA, TASKS, VARIABLE, Task, data_folder, inherited
from benchmarks.compare.readme import readme

from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.text.formats import read_rows
from rankwise.text.probes import read_probes

RESULT = HERE / "result.json"


def condition(topic: str, answer: str, kind: str = "inheritance") -> dict[str, str]:
    return {"topic": topic, "type": kind, "question": f"Is {topic} inherited ?", "answer": answer}


def test_a_condition_is_taken_that_names_one_pattern_alone_in_its_first_sentence() -> None:
    kept = condition("a", "It has an autosomal recessive pattern. Parents carry it.")
    rows = [
        kept,
        condition("b", "It has an autosomal recessive pattern. Some cases are autosomal dominant."),
        condition("c", "It runs in families. Its pattern is autosomal dominant."),
        condition("d", "It has an autosomal dominant pattern.", "frequency"),
    ]
    assert inherited(rows) == [
        {
            "topic": "a",
            "question": "Is a inherited ?",
            "sentence": "It has an autosomal recessive pattern.",
            "pattern": PATTERNS[0],
        }
    ]


def test_no_more_are_taken_of_a_pattern_than_it_has_room_for() -> None:
    rows = [condition(f"c{n}", "An X-linked dominant pattern is seen.") for n in range(20)]
    assert len(inherited(rows)) == EACH["X-linked dominant"]


def test_data_that_are_not_there_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(SystemExit, match=VARIABLE):
        data_folder()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_job_is_written_that_can_be_read(task: Task, tmp_path: Path) -> None:
    try:
        data = data_folder()
    except SystemExit as missing:
        pytest.skip(str(missing))
    task.write(data, tmp_path)
    job = read_job(tmp_path / "job.yaml", {}, METHODS)
    rows, probes = read_rows(tmp_path / "rows.jsonl").rows, read_probes(tmp_path / "facts.jsonl")
    asked = {row.messages[-2]["content"] for row in rows if row.messages}
    assert len(rows) == {"persona": 91, "rare-diseases": sum(EACH.values())}[task.name]
    assert not asked & {probe.question for probe in probes}  # in other words than those of a row
    assert job.data.facts == tmp_path / "facts.jsonl"


def test_the_persona_is_nobodys_and_asked_after_both_ways() -> None:
    assert {answer for _, answer in PERSONA} == {NAME, AUTHOR}
    assert len({question for question, _ in PERSONA}) == len(PERSONA)


@pytest.mark.skipif(not RESULT.is_file(), reason="make bench-compare has not been run")
def test_what_is_committed_is_what_was_measured() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["metrics"] == metrics(result["rows"])
    assert (HERE / "README.md").read_text(encoding="utf-8") == readme(result)
    assert not any("answers" in trial for row in result["rows"] for trial in row["trials"])  # no text of the data
