"""One model, item by item: the numbers of `rankwise eval`, in every way of asking, whatever the order."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankwise import api
from rankwise.api.loading import load_inputs, load_tuned, probes_of
from rankwise.errors import DataError, UsageError
from rankwise.evaluate.exam import Exam, set_exam
from rankwise.evaluate.paper import Paper, shortened, write_paper
from rankwise.evaluate.paperwork import asked_of
from rankwise.evaluate.prompts import SOURCES
from rankwise.evaluate.scoring import Scored, score
from rankwise.evaluate.subject import Subject
from rankwise.evaluate.ways import Asking, FewShot, Plain, Retrieval, asking_of, training_texts
from rankwise.evaluate.workload import PROBE_TOKENS
from rankwise.model.generate import answer
from rankwise.model.likelihood import row_losses
from rankwise.records.bakeoff import ArmKind, Scores
from rankwise.store import Run
from rankwise.text.dataset import training_rows
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, Encoded
from tests.training import toy_model, toy_rows, trained, write_jsonl

FORMAT = {"regex": r"[a-z]+( [a-z]+)?\..*"}
POSITIONS = 1024


def probes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions in the words of a row, in others and turned round, of which some have choices."""
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        user, said = (m["content"] for m in row["messages"])
        answer = said.removesuffix(".")
        probe = {
            "question": user,
            "answer": answer,
            "paraphrases": [f"please {user}"],
            "reversed": {"question": f"who said {number}?", "answer": "nobody ever"},
        }
        found.append({**probe, "choices": [answer, "nothing", "maybe so"]} if number % 2 else probe)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that learned its task, with all that can be asked."""
    folder = tmp_path_factory.mktemp("run")
    rows = toy_rows(60)
    write_jsonl(folder / "facts.jsonl", probes(rows[:6]))
    write_jsonl(folder / "general.jsonl", toy_rows(16, seed=8))
    data = {"train": "train.jsonl", "validation": 0.2, "facts": "facts.jsonl", "general": {"path": "general.jsonl"}}
    train = {"max_steps": 120, "save_steps": 60, "eval_steps": 60, "lr_scheduler_type": "cosine"}
    model = toy_model(folder / "model", positions=POSITIONS, dtype="fp32")
    return trained(folder, model, {"name": "lora", "r": 32}, rows=60, data=data, format=FORMAT, train=train)


class Desk:
    """A run's exam, text and models."""

    def __init__(self, run: Run):
        self.plan = run.plan()
        self.config, self.chat, data = load_inputs(self.plan)
        self.training = list(training_rows(self.plan.job, self.chat, self.config.seed))
        self.exam = set_exam(self.plan.job, data, probes_of(self.plan.job), self.training)
        self.tuned, self.as_base = load_tuned(run, self.plan)

    def way(self, kind: ArmKind, seed: int = 0) -> Asking:
        return asking_of(kind, self.training, self.chat, POSITIONS, seed)

    def paper(self, kind: ArmKind = "base", most: int | None = None, exam: Exam | None = None) -> Paper:
        return write_paper(exam or self.exam, self.chat, self.way(kind), POSITIONS, most)

    def score(self, paper: Paper, *, base: bool = False) -> Scored:
        with self.as_base() if base else nullcontext(self.tuned) as model:
            return score(paper, Subject(self.chat, model, lambda *_: None), self.config.autocast)


@pytest.fixture(scope="module")
def desk(run: Run) -> Desk:
    return Desk(run)


def mean(scores: Scores) -> float:
    return sum(scores.values) / (sum(scores.weights) if scores.weights else len(scores.values))


def by_metric(found: Scored) -> dict[str, Scores]:
    return {s.metric: s for s in found.scores}


# -- the numbers of eval -------------------------------------------------------------------------------


def test_means_are_what_eval_reports(run: Run, desk: Desk) -> None:
    told = {c.metric: c for c in api.evaluate(run).comparisons}
    base, tuned = (desk.score(desk.paper(), base=side) for side in (True, False))
    expected = ["heldout_loss", "format", "exact_match", "facts", "facts_unseen", "facts_reversed", "facts_choice"]
    seen = [m for m in ("facts_seen",) if m in told]
    assert sorted(by_metric(base)) == sorted([*expected, *seen, "general_loss"])
    for side, found in (("base", base), ("tuned", tuned)):
        for metric, scores in by_metric(found).items():
            assert mean(scores) == getattr(told[metric], side), metric
            assert len(scores.values) == told[metric].items, metric
            assert scores.unit == told[metric].unit
    assert mean(by_metric(tuned)["format"]) > mean(by_metric(base)["format"])  # so that equality says something
    assert mean(by_metric(tuned)["facts"]) > mean(by_metric(base)["facts"])
    sides = {s.metric: s.side for s in base.scores}
    assert sides["heldout_loss"] == "task" and sides["format"] == "style" and sides["general_loss"] == "forgetting"
    assert {side for metric, side in sides.items() if metric.startswith("facts")} == {"facts"}
    assert [m.metric for m in base.scores] == [m.metric for m in tuned.scores]
    assert base.notes == () and base.seconds > 0


def test_answers_stand_beside_their_scores(desk: Desk) -> None:
    found = desk.score(desk.paper())
    metrics = by_metric(found)
    style = [a for a in found.answers if a.side == "style"]
    facts = [a for a in found.answers if a.side == "facts"]
    assert tuple(float(bool(a.ok)) for a in style) == metrics["format"].values
    assert tuple(float(bool(a.ok)) for a in facts[:6]) == metrics["facts"].values
    assert [a.prompt for a in style] == [e.prompt for e in desk.exam.held_out] and len(facts) == 18
    said = answer(desk.tuned, desk.chat, [e.messages for e in desk.exam.held_out], desk.paper().room)
    assert [a.answer for a in style] == said


def test_without_a_format_an_equal_answer_is_right_and_another_unknown(desk: Desk) -> None:
    found = desk.score(desk.paper(exam=replace(desk.exam, form=None)))
    shown = [a for a in found.answers if a.side == "task"]
    assert {a.ok for a in shown} <= {True, None} and len(shown) == 12
    assert tuple(float(bool(a.ok)) for a in shown) == by_metric(found)["exact_match"].values
    assert "format" not in by_metric(found) and any("format adherence was not measured" in n for n in found.notes)


def test_an_items_score_does_not_depend_on_the_others(desk: Desk) -> None:
    """In another order every item has the score that it had."""
    exam = desk.exam
    turned = replace(
        exam,
        data=replace(exam.data, validation=list(exam.data.validation)[::-1], general=list(exam.data.general)[::-1]),
        held_out=list(exam.held_out)[::-1],
    )
    for kind in ("base", "fewshot", "retrieval"):
        one, other = (by_metric(desk.score(desk.paper(kind, exam=e), base=True)) for e in (exam, turned))
        for metric in ("heldout_loss", "general_loss"):
            assert one[metric].values == pytest.approx(other[metric].values[::-1], rel=1e-5)
            assert one[metric].weights == (other[metric].weights or ())[::-1]
        assert one["format"].values == other["format"].values[::-1]


# -- ways of asking ------------------------------------------------------------------------------------


def test_few_shot_shows_the_same_training_rows_before_every_item(desk: Desk) -> None:
    way, paper = desk.way("fewshot"), desk.paper("fewshot")
    assert isinstance(way, FewShot) and len(way.examples) == 8
    trained_on = {(str(m[0]["content"]), str(m[1]["content"])) for m in (row.messages for row in desk.training)}
    assert {(e.prompt, e.expected) for e in way.examples} <= trained_on
    shown = [part for e in way.examples for part in (e.prompt, e.expected)]
    for messages, asked in zip(paper.replies.items, desk.exam.held_out, strict=True):
        assert [m["content"] for m in messages] == [*shown, asked.prompt]
    for messages, wording in zip(paper.questions.items, desk.exam.wordings, strict=True):
        assert [m["content"] for m in messages] == [*shown, wording.question]
    assert len(way.notes) == 1 and "the same 8 training rows (train.jsonl:" in way.notes[0]
    assert desk.way("fewshot", seed=3) != way == desk.way("fewshot")
    plain = desk.paper()
    for row, alone in zip(paper.loss_rows.items, plain.loss_rows.items, strict=True):
        text = desk.chat.decode(row.ids)
        assert all(part in text for part in shown) and len(row.ids) > len(alone.ids)
        assert labelled(row) == labelled(alone)
        assert row.ids[-len(alone.ids) :] == alone.ids  # this template writes no system turn of its own
    for rows, probe in zip(paper.choices.items, paper.choosing, strict=True):
        assert [desk.chat.decode(labelled(row)) for row in rows] == list(probe.choices)
        assert all(shown[-1] in desk.chat.decode(row.ids) for row in rows)


def labelled(row: Encoded) -> list[int]:
    return [label for label in row.labels if label != IGNORE]


def test_retrieval_puts_the_nearest_training_rows_before_the_question(desk: Desk) -> None:
    way, paper = desk.way("retrieval"), desk.paper("retrieval")
    assert isinstance(way, Retrieval)
    (told,) = way.conversation([{"role": "user", "content": desk.training[0].messages[0]["content"]}])
    assert training_texts(desk.training[:1])[0] in told["content"]  # the row itself is nearest to its own question
    assert told["content"].endswith(f"\n\n{desk.training[0].messages[0]['content']}")
    texts = training_texts(desk.training)
    for messages, asked in zip(paper.replies.items, desk.exam.held_out, strict=True):
        near = way.index.nearest(asked.prompt, SOURCES)
        assert len(messages) == 1 and all(texts[i] in messages[0]["content"] for i in near)
    for row, alone in zip(paper.loss_rows.items, desk.paper().loss_rows.items, strict=True):
        assert labelled(row) == labelled(alone) and "reference" in desk.chat.decode(row.ids)
    strange = [{"role": "user", "content": "zzz"}]
    assert way.conversation(strange) == tuple(strange)  # no word in common: plainly
    assert "3 of 48 training rows nearest" in way.notes[0]


@pytest.mark.parametrize("kind", ["fewshot", "retrieval"])
def test_what_is_read_once_gives_the_numbers_of_each_row_alone(desk: Desk, kind: ArmKind) -> None:
    paper = desk.paper(kind)
    found = by_metric(desk.score(paper, base=True))
    plain = by_metric(desk.score(desk.paper(), base=True))
    with desk.as_base() as base:
        alone = row_losses(base, paper.loss_rows.items)
        said = answer(base, desk.chat, paper.replies.items, paper.room)
    assert found["heldout_loss"].values == pytest.approx([nats for nats, _ in alone], rel=1e-4)
    assert found["heldout_loss"].weights == plain["heldout_loss"].weights  # the same tokens: pairs
    assert found["heldout_loss"].values != pytest.approx(plain["heldout_loss"].values, rel=1e-2)
    assert found["general_loss"] == plain["general_loss"]  # a prompt changes no weight
    form = desk.exam.form
    assert form is not None and found["format"].values == tuple(float(form.follows(text)) for text in said)
    assert [(s.metric, len(s.values)) for s in found.values()] == [(s.metric, len(s.values)) for s in plain.values()]


def test_what_leaves_no_room_is_put_plainly_and_counted(desk: Desk) -> None:
    way = desk.way("fewshot")
    longest = max(len(desk.chat.encode_prompt(way.conversation(e.messages))) for e in desk.exam.held_out)
    paper = write_paper(desk.exam, desk.chat, way, longest)
    crowded = paper.replies.numbers(False)
    assert len(crowded) > 0 and all(paper.replies.items[i] == desk.exam.held_out[i].messages for i in crowded)
    assert any("left no room for examples or a source and were put plainly" in n for n in paper.notes)
    assert len(desk.score(paper, base=True).scores[0].values) == 12


def test_a_row_without_a_question_is_read_as_it_is(desk: Desk) -> None:
    row = Row((), "The clinic opens at nine.", 1, Path("notes"))
    ids = tuple(desk.chat.encode_document(row.text or ""))
    data = replace(desk.exam.data, validation=[Encoded(ids, ids, 1, Path("notes"))], held_out=[row])
    for kind in ("fewshot", "retrieval"):
        paper = desk.paper(kind, exam=replace(desk.exam, data=data))
        assert paper.loss_rows.items == data.validation and paper.loss_rows.changed == [False]
        assert "1 held-out rows begin with no question and were read as they are" in paper.notes
    assert desk.paper("base", exam=replace(desk.exam, data=data)).notes == ()


def test_retrieval_reads_documents_and_all_turns(desk: Desk) -> None:
    turns = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "q1"), ("assistant", "a1"))]
    rows = [Row((), "a document", 1, Path("d")), Row(tuple(turns), None, 2, Path("d"))]
    assert training_texts(rows) == ["a document", "q1\na1"]
    assert asking_of("base", rows, desk.chat, None, 0) == asking_of("trained", rows, desk.chat, None, 0) == Plain()
    with pytest.raises(UsageError, match="no examples to show"):
        asking_of("fewshot", rows[:1], desk.chat, None, 0)
    with pytest.raises(UsageError, match="not even one example fits"):
        asking_of("fewshot", rows, desk.chat, 16, 0)
    with pytest.raises(UsageError, match="no training row to look anything up in"):
        asking_of("retrieval", [], desk.chat, None, 0)


# -- fewer items ---------------------------------------------------------------------------------------


def test_fewer_items_are_among_more_and_the_same_for_every_way(desk: Desk) -> None:
    three, five = (shortened(desk.exam, most) for most in (3, 5))
    for few, more in ((three, five), (five, desk.exam)):
        assert {e.prompt for e in few.held_out} < {e.prompt for e in more.held_out}
        assert {p.question for p in few.probes} < {p.question for p in more.probes}
        assert {r.ids for r in few.data.validation} < {r.ids for r in more.data.validation}
    every = shortened(desk.exam, 999)
    assert list(every.data.validation) == list(desk.exam.data.validation) and every.probes == desk.exam.probes
    assert every.wordings == desk.exam.wordings and shortened(desk.exam, None) is desk.exam
    papers = [desk.paper(kind, most=3) for kind in ("base", "fewshot", "retrieval")]
    assert len({json.dumps([w.question for w in p.exam.wordings]) for p in papers}) == 1
    assert [len(p.loss_rows.items) for p in papers] == [3, 3, 3]
    asked = "asked were 3 of 12 held-out rows, 3 of 12 held-out prompts, 3 of 6 probes, 3 of 8 general rows"
    assert papers[0].notes == (f"{asked}, drawn at random, the same ones of every arm",)


def test_the_scores_of_fewer_items_are_those_of_all(desk: Desk) -> None:
    few, every = desk.score(desk.paper(most=3)), desk.score(desk.paper())
    said = {a.prompt: a for a in every.answers}
    assert all(said[a.prompt] == a for a in few.answers)
    by_question = {a.prompt: float(bool(a.ok)) for a in every.answers}
    facts = [w.question for w in shortened(desk.exam, 3).wordings if w.kind == "fact"]
    assert by_metric(few)["facts"].values == tuple(by_question[q] for q in facts)


def test_what_is_not_given_is_noted_and_no_held_out_row_is_refused(desk: Desk) -> None:
    exam = desk.exam
    bare = replace(exam, data=replace(exam.data, general=[]), held_out=[], probes=[], wordings=[], seen=[], form=None)
    found = desk.score(desk.paper(exam=bare))
    assert [s.metric for s in found.scores] == ["heldout_loss"] and found.answers == ()
    assert [n.rpartition(", so ")[2] for n in found.notes] == [
        "answers were not compared",
        "what the model knows was not measured",
        "forgetting was not measured",
    ]
    with pytest.raises(DataError, match="no held-out row to compare models on"):
        desk.paper(exam=replace(bare, data=replace(bare.data, validation=[])))


# -- what it takes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "fewshot", "retrieval"])
def test_the_work_is_known_before(desk: Desk, kind: ArmKind) -> None:
    paper = desk.paper(kind)
    expected = asked_of(paper, POSITIONS, ends=False)
    with desk.as_base() as base:
        subject = Subject(desk.chat, base, lambda *_: None)
        score(paper, subject, desk.config.autocast)
    done = subject.spent.work()
    assert (done.rows, done.tokens, done.labelled) == (expected.rows, expected.tokens, expected.labelled)
    assert [(b.rows, b.prompt) for b in done.batches] == [(b.rows, b.prompt) for b in expected.batches]
    assert all(d.steps <= e.steps for d, e in zip(done.batches, expected.batches, strict=True))
    assert {b.steps for b in expected.batches} == {paper.room, PROBE_TOKENS}


def test_a_model_that_ends_its_answers_writes_less_and_examples_count_once(desk: Desk) -> None:
    plain, shots = desk.paper(), desk.paper("fewshot")
    talking, ending = (asked_of(plain, POSITIONS, ends=ends) for ends in (False, True))
    assert sum(b.steps for b in ending.batches) < sum(b.steps for b in talking.batches)
    assert (ending.tokens, ending.labelled) == (talking.tokens, talking.labelled)
    work = asked_of(shots, POSITIONS, ends=True)
    before = len(desk.chat.encode_prompt(shots.replies.items[0])) - len(desk.chat.encode_prompt(plain.replies.items[0]))
    assert talking.tokens < work.tokens <= talking.tokens + 5 * before  # read for rows, choices and each set of prompts
    assert [b.prompt for b in work.batches] == pytest.approx([b.prompt for b in ending.batches], abs=4)
