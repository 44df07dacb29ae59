"""`rankwise diagnose`: what a person and a program see, and what is refused."""

import json
import signal
from pathlib import Path

import pytest

from rankwise.records import Condition, Diagnosis, Job, Measurement
from rankwise.records.diagnosis import Shown
from rankwise.report import diagnosis_words as words
from rankwise.report.diagnosis_page import diagnosis_page
from tests.training import cli, start, toy_model, write_jsonl

WORDS = ("open", "prices", "hours", "clinic", "answer")


def rows(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{i} {WORDS[i % 5]}?", "completion": f"It is {WORDS[i % 5]}."} for i in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, rows, and a job that names them."""
    folder = tmp_path_factory.mktemp("diagnose")
    toy_model(folder / "tiny", dtype="fp32", positions=1024)
    write_jsonl(folder / "train.jsonl", rows(40))
    (folder / "job.yaml").write_text("goal: unsure\nmodel: tiny\ndata: {train: train.jsonl, validation: 0.25}\n")
    return folder


@pytest.fixture(autouse=True)
def cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(place / "cache"))


def test_json_is_one_diagnosis_and_the_page_has_its_numbers(place: Path) -> None:
    done = cli("diagnose", "job.yaml", "--json", "--out", "out", cwd=place)
    assert done.returncode == 0, done.stderr
    found = Diagnosis.model_validate(json.loads(done.stdout))
    assert found.rows == 10 and found.conditions[0].name == "zero-shot"
    assert Diagnosis.model_validate(json.loads((place / "out" / "diagnosis.json").read_text())) == found
    page = (place / "out" / "diagnosis.html").read_text()
    assert words.conclusion_sentence(found) in page and "loss-data" in page and "http://" not in page


def test_a_person_sees_conclusion_table_reasons_and_next_steps(place: Path) -> None:
    done = cli("diagnose", "job.yaml", cwd=place)
    assert done.returncode == 0, done.stderr
    for part in (
        "zero-shot",
        "few-shot-8",
        "with-source",
        "Why",
        "Next",
        "threshold",
        "95 %",
        "Base loss",
        "loss: rest",
    ):
        assert part in done.stdout, part
    assert done.stdout.splitlines()[0] in words.CONCLUSIONS.values()


def test_rows_are_capped_as_asked(place: Path) -> None:
    done = cli("diagnose", "job.yaml", "--rows", "6", "--json", cwd=place)
    assert json.loads(done.stdout)["rows"] == 6
    assert cli("diagnose", "job.yaml", "--rows", "5", cwd=place).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "nothing to diagnose"),
        (["--model", "tiny", "--goal", "unsure", "--examples", "9", "--tokens-per-example", "9"], 2, "only describes"),
        (["job.yaml", "--model", "nowhere"], 1, "no such folder"),
        (["job.yaml", "--train", "nothing.jsonl"], 2, "no such file"),
        (["job.yaml", "--goal", "sytle"], 2, "goal"),
    ],
)
def test_errors_are_one_message_with_a_code(arguments: list[str], code: int, said: str, place: Path) -> None:
    done = cli("diagnose", *arguments, "--json", cwd=place)
    assert done.returncode == code, done.stderr
    assert said in json.loads(done.stdout)["error"]["what"] and "Traceback" not in done.stderr


def test_ctrl_c_ends_it_in_one_sentence_and_remembers_nothing(place: Path) -> None:
    write_jsonl(place / "many.jsonl", rows(400))
    process = start("diagnose", "job.yaml", "--train", "many.jsonl", cwd=place)
    assert process.stderr is not None
    line = process.stderr.readline()  # the first piece of work is done: it is asking
    assert "zero-shot" in line, line
    before = set((place / "cache" / "diagnoses").glob("*"))
    process.send_signal(signal.SIGINT)
    _, noise = process.communicate(timeout=120)
    assert process.returncode == 1 and "stopped" in noise and "Traceback" not in noise
    assert set((place / "cache" / "diagnoses").glob("*")) == before


# -- words and page from records ---------------------------------------------------------------------


def measurement(value: float, unit: str = "share") -> Measurement:
    return Measurement(value=value, interval=(value - 0.1, value + 0.1), unit=unit, items=32, source="asked; bootstrap")


def diagnosis(conclusion: str, **more: object) -> Diagnosis:
    loss = measurement(2.0, "nats per token")
    zero = Condition(name="zero-shot", measurements={"loss": loss, "format": measurement(0.25)})
    values = {
        "conclusion": conclusion,
        "behaviour": measurement(0.5),
        "knowledge": None,
        "prompting": None,
        "base_loss": loss,
        "reasons": ("Manner: <b>it</b> lacks.",),
        "conditions": (zero, Condition(name="few-shot-1", measurements={"loss": loss})),
        "examples": (Shown(question="hi <i>", answer="hello"),),
        "would_tell": ("more rows",),
        "rows": 32,
        "seconds": 75.0,
        "base_hash": "a" * 64,
        "data_hash": "b" * 64,
        "notes": ("a note",),
    }
    return Diagnosis(**{**values, **more})


@pytest.mark.parametrize("conclusion", list(words.CONCLUSIONS))
def test_every_conclusion_has_a_sentence_and_a_next_step(conclusion: str) -> None:
    found = diagnosis(conclusion)
    assert words.conclusion_sentence(found) and words.next_lines(found)
    titles = [p.title for p in words.passages(found)]
    assert ("Examples of the prompt" in titles) == (conclusion == "prompting")


def test_cells_have_intervals_and_what_is_not_measured_is_a_dash() -> None:
    found = diagnosis("style")
    assert words.heads(found) == ["", "zero-shot", "few-shot-1"]
    assert words.rows(found) == [
        ["format", "25 % (15 to 35)", "-"],
        ["loss", "2.00 (1.90 to 2.10)", "2.00 (1.90 to 2.10)"],
    ]


def test_a_share_that_is_not_known_is_said_to_be_unknown() -> None:
    assert words.share_lines(diagnosis("style")) == [
        "behaviour: 50 % (95 %: 40 to 60) (asked)",
        "knowledge: unknown",
        "prompting: unknown",
    ]


def test_the_page_escapes_what_rows_say() -> None:
    page = diagnosis_page(diagnosis("prompting"), Job(goal="unsure", model="m", data={"train": "x.jsonl"}), version="1")
    assert "<b>it</b>" not in page and "&lt;b&gt;it" in page and "hi &lt;i&gt;" in page
