"""The whole diagnosis on a tiny model, and everything that can be wrong with a job."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise import api
from rankwise.api.diagnoses import remembered
from rankwise.errors import DataError, JobError, ModelError
from rankwise.evaluate.asking import Asked, Base, Way, encode_answer, fact_tokens, first_labels
from rankwise.evaluate.prompts import cut
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base
from rankwise.records import Diagnosis, Job
from rankwise.text.masks import IGNORE, encode_row
from rankwise.text.template import ChatText
from tests.training import toy_model, write_jsonl

WORDS = ("open", "prices", "hours", "clinic", "answer")


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{i} {WORDS[i % 5]}?", "completion": f"It is {WORDS[i % 5]}."} for i in range(count)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("tiny"), dtype="fp32", positions=1024)


def job(folder: Path, model: Path | str, given: Sequence[Any] | None = None, **data: Any) -> Job:
    train = write_jsonl(folder / "train.jsonl", rows(40) if given is None else given)
    return Job(goal="unsure", model=str(model), data={"train": train, "validation": 0.25, **data})


def test_every_way_of_asking_is_measured_with_intervals(tmp_path: Path, model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = api.diagnose(job(tmp_path, model), lambda *a: told.append(a))
    assert [c.name for c in found.conditions] == ["zero-shot", "few-shot-1", "few-shot-4", "few-shot-8", "with-source"]
    for condition in found.conditions:
        assert {"loss", "loss_rest", "exact_match"} <= condition.measurements.keys()
        for m in condition.measurements.values():
            assert m.interval[0] <= m.value <= m.interval[1] and m.items > 0 and "95 %" in m.source
    assert found.rows == 10 and len(found.examples) == 8 and found.reasons
    assert all(example.question.endswith("?") for example in found.examples)
    assert {what.split(",")[0] for what, _, _ in told} == {c.name for c in found.conditions}
    assert all(0 < done <= total for _, done, total in told)


def test_the_base_loss_is_that_of_training_on_the_same_rows(tmp_path: Path, model: Path) -> None:
    held = write_jsonl(tmp_path / "held.jsonl", rows(12))
    found = api.diagnose(job(tmp_path, model, validation=held))
    from rankwise.text.formats import read_rows

    chat, base = ChatText.from_folder(model), load_base(model, dtype="fp32")
    losses = row_losses(base, [encode_row(row, chat) for row in read_rows(held).rows])
    assert found.base_loss.value == pytest.approx(sum(x for x, _ in losses) / sum(n for _, n in losses), rel=1e-4)
    assert found.base_loss.items == sum(n for _, n in losses)


def test_examples_come_from_training_rows_alone(tmp_path: Path, model: Path) -> None:
    given = job(tmp_path, model)
    from rankwise.text.dataset import split_rows
    from rankwise.text.formats import read_rows

    assert given.data.train is not None
    training, held = split_rows(given, read_rows(given.data.train).rows, 0)
    shown = {example.question for example in api.diagnose(given).examples}
    assert shown <= {str(row.messages[0]["content"]) for row in training}
    assert not shown & {str(row.messages[0]["content"]) for row in held}


def test_the_same_question_has_the_same_answer_and_is_asked_once(tmp_path: Path, model: Path, cache: Path) -> None:
    given = job(tmp_path, model)
    first = api.diagnose(given)
    (file,) = (cache / "diagnoses").iterdir()
    told: list[str] = []
    assert api.diagnose(given, lambda what, *_: told.append(what)) == first and told == []
    file.unlink()
    again = api.diagnose(given)
    assert again.model_copy(update={"seconds": first.seconds}) == first


def test_a_plan_finds_what_is_remembered_until_the_data_changes(tmp_path: Path, model: Path, cache: Path) -> None:
    given = job(tmp_path, model)
    facts = api.observe(given)
    assert remembered(given, facts) is None
    few, all_ = api.diagnose(given, rows=6), api.diagnose(given)
    assert few.rows == 6 and all_.rows == 10 and remembered(given, facts) == all_
    for file in (cache / "diagnoses").iterdir():
        file.write_text("{")  # a damaged file can be made again
    assert remembered(given, facts) is None and api.diagnose(given).rows == 10
    other = job(tmp_path, model, rows(44))
    assert remembered(other, api.observe(other)) is None


def test_a_held_out_file_of_another_name_with_the_same_rows_is_the_same_question(tmp_path: Path, model: Path) -> None:
    one, two = (write_jsonl(tmp_path / name, rows(8)) for name in ("a.jsonl", "b.jsonl"))
    found = api.diagnose(job(tmp_path, model, validation=one))
    other = job(tmp_path, model, validation=two)
    assert remembered(other, api.observe(other)) == found


def test_few_positions_leave_out_examples_and_say_so(tmp_path: Path) -> None:
    small = toy_model(tmp_path / "small", dtype="fp32", positions=256)
    found = api.diagnose(job(tmp_path, small))
    assert "few-shot-8" not in [c.name for c in found.conditions]
    assert any("8 examples was not asked" in note for note in found.notes)


def test_two_training_rows_are_enough_to_ask(tmp_path: Path, model: Path) -> None:
    held = write_jsonl(tmp_path / "held.jsonl", rows(7))
    found = api.diagnose(job(tmp_path, model, rows(2), validation=held))
    assert [c.name for c in found.conditions] == ["zero-shot", "few-shot-1", "with-source"]


def test_probes_are_asked_with_their_source_where_a_training_row_states_the_answer(tmp_path: Path, model: Path) -> None:
    probes = [
        {"question": f"number {i} {WORDS[i % 5]}?", "answer": WORDS[i % 5], "choices": list(WORDS)} for i in range(8)
    ]
    probes.append(
        {"question": "1 prices?", "answer": "prices", "choices": list(WORDS), "paraphrases": ["which prices?"]}
    )
    probes.append({"question": "who?", "answer": "nobody knows", "choices": ["nobody knows", "open"]})
    found = api.diagnose(job(tmp_path, model, facts=write_jsonl(tmp_path / "facts.jsonl", probes)))
    zero, source = found.conditions[0].measurements, found.conditions[-1].measurements
    assert zero["facts"].items == 11 and zero["facts_choice"].items == 11 and zero["calibration_error"].items == 11
    assert source["facts"].items == 10  # nobody states the last one
    assert any("1 of 11 closed-book questions stand in no training row" in note for note in found.notes)


def test_open_questions_are_calibrated_by_what_was_said(tmp_path: Path, model: Path) -> None:
    probes = [{"question": f"{i} {WORDS[i % 5]}?", "answer": WORDS[i % 5]} for i in range(8)]
    found = api.diagnose(job(tmp_path, model, facts=write_jsonl(tmp_path / "facts.jsonl", probes)))
    m = found.conditions[0].measurements["calibration_error"]
    assert "tokens said" in m.source and 0 <= m.value <= 1 and 0 < m.items <= 8


def test_a_context_beside_the_row_is_its_source(tmp_path: Path, model: Path) -> None:
    held = [{**row, "context": "The clinic is open."} for row in rows(8)]
    found = api.diagnose(job(tmp_path, model, validation=write_jsonl(tmp_path / "held.jsonl", held)))
    assert any("own `context`" in note for note in found.notes)


def test_a_context_is_that_of_the_rows_own_file(tmp_path: Path, model: Path) -> None:
    (tmp_path / "held").mkdir()
    with_context = [{**row, "context": "The clinic is open."} for row in rows(8)[:4]]
    write_jsonl(tmp_path / "held" / "a.jsonl", with_context)
    write_jsonl(tmp_path / "held" / "b.jsonl", rows(8)[4:])  # the same lines, without a context
    found = api.diagnose(job(tmp_path, model, validation=tmp_path / "held"))
    assert found.rows == 8 and not any("own `context`" in note for note in found.notes)
    write_jsonl(tmp_path / "held" / "b.jsonl", [{**row, "context": "It has prices."} for row in rows(8)[4:]])
    found = api.diagnose(job(tmp_path, model, validation=tmp_path / "held"))
    assert any("own `context`" in note for note in found.notes)


def test_long_answers_are_not_compared_letter_by_letter(tmp_path: Path, model: Path) -> None:
    long = [{"prompt": f"{i}?", "completion": "the clinic answers " * 30} for i in range(40)]
    found = api.diagnose(job(tmp_path, model, long))
    assert "exact_match" not in found.conditions[0].measurements
    assert any("right answers are long" in note for note in found.notes)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ({"examples": 100, "tokens_per_example": 10}, JobError, "only describes its data"),
        ({"train": "documents.jsonl", "validation": 0.5}, DataError, "no training row with a question"),
        ({"train": "missing.jsonl"}, DataError, "there is no such file"),
        ({"train": "one.jsonl"}, DataError, "cannot be split"),
        ({"train": "train.jsonl", "validation": "long.jsonl"}, DataError, "no held-out question fits into 256 tokens"),
    ],
)
def test_what_cannot_be_asked_is_said(
    data: dict[str, Any],
    error: type[Exception],
    said: str,
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", rows(20))
    write_jsonl(tmp_path / "documents.jsonl", [{"text": "a"}, {"text": "b"}])
    write_jsonl(tmp_path / "one.jsonl", rows(1))
    write_jsonl(tmp_path / "long.jsonl", [{"prompt": "word " * 2000, "completion": "yes"}])
    with pytest.raises(error, match=said) as fault:
        api.diagnose(Job(goal="unsure", model=str(model), data=data))
    assert "expected:" in str(fault.value) or "fix:" in str(fault.value)


def test_a_model_that_is_not_here_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        api.diagnose(job(tmp_path, tmp_path / "nowhere"))


# -- the parts that ask --------------------------------------------------------------------------------


def test_fact_tokens_are_those_of_the_name_and_no_other(model: Path) -> None:
    chat = ChatText.from_folder(model)
    asked = Asked(({"role": "user", "content": "Who made it?"},), "It was Anna, in 1999.", 0, None)
    marks = fact_tokens(asked, chat, 1000)
    ids = [i for i in encode_answer(asked.messages, asked.expected, chat).labels if i != IGNORE]
    assert len(marks) == len(ids)
    said = "".join(chat.decode([i]) for i, mark in zip(ids, marks, strict=True) if mark)
    assert said.replace(" ", "") == "Anna1999"
    assert not fact_tokens(asked, chat, 1000, shown="Anna 1999").any()
    assert len(fact_tokens(asked, chat, 5)) == 5


def test_an_answer_is_cut_at_its_last_scored_token(model: Path) -> None:
    chat = ChatText.from_folder(model)
    row = encode_answer(({"role": "user", "content": "q"},), "The clinic answers.", chat)
    short = first_labels(row, 2)
    assert short.supervised == 2 and short.labels[-1] != IGNORE and short.ids == row.ids[: len(short.ids)]
    assert first_labels(row, 1000).ids == row.ids


def test_a_source_changes_the_loss_and_examples_are_not_labelled(model: Path) -> None:
    chat, base = ChatText.from_folder(model), load_base(model, dtype="fp32")
    from rankwise.evaluate.style import Exchange

    example = Exchange(({"role": "user", "content": "q1"},), "a1 of many words")
    asker = Base(base, chat, [[example]], lambda *_: None)
    asked = [Asked(({"role": "user", "content": f"open {i}?"},), "yes", 0, "The clinic is open.") for i in range(3)]
    ways = [Way("a", 0), Way("b", 1), Way("c", 1, source=True)]
    found = [asker.answer_losses("x", asked, way, 9) for way in ways]
    assert all([len(x) for x in side] == [len(x) for x in found[0]] for side in found)
    assert len({round(float(side[0].sum()), 6) for side in found}) == 3
    assert torch.isfinite(torch.tensor([float(x.sum()) for side in found for x in side])).all()


def test_cut_never_grows(model: Path) -> None:
    chat = ChatText.from_folder(model)
    assert cut("prices and hours", 2, chat) in "prices and hours"


def test_the_record_reads_back(tmp_path: Path, model: Path) -> None:
    found = api.diagnose(job(tmp_path, model), rows=6)
    assert Diagnosis.model_validate(json.loads(found.model_dump_json())) == found
    assert found.base_hash and len(found.data_hash) == 64


def test_answers_are_few_where_no_conclusion_rests_on_them(tmp_path: Path, model: Path) -> None:
    held = write_jsonl(tmp_path / "held.jsonl", rows(20))
    found = api.diagnose(job(tmp_path, model, validation=held))
    items = {c.name: c.measurements["exact_match"].items for c in found.conditions}
    assert items == {"zero-shot": 20, "few-shot-1": 16, "few-shot-4": 16, "few-shot-8": 20, "with-source": 16}
    assert len({c.measurements["loss"].items for c in found.conditions}) == 1
