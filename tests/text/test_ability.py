"""What general ability is watched on: our own sets are sound, and a job's are read or refused with a reason."""

import json
from pathlib import Path

import pytest

from rankwise.errors import DataError
from rankwise.records import Job
from rankwise.text import ability
from rankwise.text.ability import OWN_ANSWERS, OWN_QUESTIONS, OWN_TEXT, ability_sets, described_facts, watched_facts
from rankwise.text.formats import read_rows
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.probes import read_probes
from rankwise.text.template import ChatText
from tests.tiny import tiny_tokenizer


@pytest.fixture
def chat(tmp_path: Path) -> ChatText:
    tiny_tokenizer(tmp_path)
    return ChatText.from_folder(tmp_path)


def job(**forgetting: object) -> Job:
    content = {"goal": "task", "model": "m", "data": {"examples": 10}, "forgetting": forgetting}
    return Job.model_validate(content)


def lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_our_own_sets_are_sound() -> None:
    texts = [row.text for row in read_rows(OWN_TEXT).rows]
    assert 40 <= len(texts) == len(set(texts)) and all(text and 150 < len(text) < 500 for text in texts)
    asked = [row.messages for row in read_rows(OWN_ANSWERS).rows]
    assert all(m is not None and [turn["role"] for turn in m] == ["user", "assistant"] for m in asked)
    assert 20 <= len(asked) == len({m[0]["content"] for m in asked if m})
    probes = read_probes(OWN_QUESTIONS)
    assert 60 <= len(probes) == len({p.question for p in probes})
    assert all(len(p.choices) == 4 for p in probes)
    places = [p.choices.index(p.answer) for p in probes]
    assert all(10 <= places.count(place) <= 30 for place in range(4))  # the place gives nothing away


def test_texts_are_labelled_throughout_without_their_end(chat: ChatText) -> None:
    text, answers, questions = ability_sets(job(), chat, [])
    (row,) = text.items[0]
    assert row.ids == row.labels and row.ids[-1] != chat.eos_token_id and len(row.ids) <= ability.LONGEST
    assert (text.name, text.metric, text.chance) == ("general text", "general_loss", None)
    assert (questions.name, questions.metric, questions.chance) == ("general questions", "choice", 0.25)
    (said,) = answers.items[0]
    assert answers.name == "general answers" and IGNORE in said.labels
    assert said.labels[-1] == said.ids[-1]  # cut within the answer: a token of this tokenizer is a byte


def test_a_model_that_cannot_converse_is_asked_no_answers(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    names = [s.name for s in ability_sets(job(), ChatText.from_folder(tmp_path), [])]
    assert names == ["general text", "general questions"]


def test_of_a_question_the_choices_alone_are_labelled(chat: ChatText) -> None:
    *_, questions = ability_sets(job(), chat, [])
    for item, right, probe in zip(questions.items, questions.right, read_probes(OWN_QUESTIONS), strict=True):
        prompts = {row.ids[: sum(label == IGNORE for label in row.labels)] for row in item}
        assert len(prompts) == 1
        said = [chat.decode([label for label in row.labels if label != IGNORE]).strip() for row in item]
        assert tuple(said) == probe.choices and said[right] == probe.answer
        assert chat.decode(item[0].ids).startswith(f"Question: {probe.question}\nAnswer: ")


def test_general_rows_that_are_not_trained_on_are_a_slice_of_their_own(chat: ChatText) -> None:
    rows = [Encoded((5, 6, 7, n + 8), (IGNORE, IGNORE, 7, n + 8), n) for n in range(250)]
    names = [s.name for s in ability_sets(job(), chat, rows)]
    assert names == ["general text", "general answers", "general rows", "general questions"]
    drawn, again = (ability_sets(job(), chat, rows)[2] for _ in range(2))
    assert len(drawn.items) == ability.MOST_ITEMS and drawn.content == again.content
    context = [Encoded((5, 6), (IGNORE, IGNORE), 1), *rows[:7]]
    assert len(ability_sets(job(), chat, context)[2].items) == 7


def test_what_is_asked_has_a_hash(chat: ChatText) -> None:
    text, _, questions = ability_sets(job(), chat, [])
    assert text.content != questions.content and text.first(5).content != text.content
    assert text.first(None).content == text.content and len(questions.first(5).right) == 5


def test_the_cost_is_that_of_the_rows(chat: ChatText) -> None:
    text, answers, questions = watched_facts(ability_sets(job(), chat, []))
    assert (text.items, answers.items, questions.items) == (48, 24, 80)
    assert 0.9 * text.tokens < text.labelled < text.tokens  # a first token is predicted from nothing
    assert questions.labelled < questions.tokens
    described = described_facts()
    assert [(s.name, s.metric, s.items, s.chance) for s in described] == [
        (s.name, s.metric, s.items, s.chance) for s in (text, answers, questions)
    ]


GOOD = {"question": "q?", "choices": ["a", "b"], "answer": "a"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "questions.jsonl"),
        ([{"question": "q?", "answer": "a"}] * 6, "questions.jsonl:1: a question without choices"),
        ([GOOD] * 5, "5 questions cannot show"),
        ([GOOD] * 6 + [{"question": "q?", "choices": ["a", "b"], "answer": "c"}], "questions.jsonl:7"),
        ([GOOD] * 6 + ["q?"], "questions.jsonl:7: the row is not an object"),
    ],
    ids=["empty", "without choices", "too few", "answer not a choice", "no object"],
)
def test_bad_questions_are_refused(chat: ChatText, tmp_path: Path, rows: list[object], said: str) -> None:
    path = lines(tmp_path / "questions.jsonl", rows)
    with pytest.raises(DataError) as refused:
        ability_sets(job(questions=str(path)), chat, [])
    assert said in refused.value.what and (refused.value.expected or refused.value.fix)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "general.jsonl"),
        ([{"text": "one sentence"}] * 3, "3 rows cannot show"),
        ([{"txt": "x"}] * 6, "general.jsonl:1"),
    ],
    ids=["empty", "too few", "malformed"],
)
def test_bad_texts_are_refused(chat: ChatText, tmp_path: Path, rows: list[object], said: str) -> None:
    path = lines(tmp_path / "general.jsonl", rows)
    with pytest.raises(DataError) as refused:
        ability_sets(job(general=str(path)), chat, [])
    assert said in refused.value.what


def test_acting_without_looking_is_refused() -> None:
    with pytest.raises(ValueError, match="watch_steps: 0"):
        job(action="stop", watch_steps=0)
