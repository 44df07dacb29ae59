"""What stands below the verdict: rungs, reasons, rejections by rule, flips, offers, questions."""

import pytest

from rankwise.records import Reason, Rejection, Rung
from rankwise.report import words
from rankwise.report.plan_words import Citation
from tests.report.conftest import build_flip, build_plan
from tests.report.plans import build_13b
from tests.report.test_verdict_words import NOTHING


def reject(method: str, rule: str = "memory_fits", number: str | None = None, text: str = "") -> Rejection:
    text = text or f"{method} does not fit."
    return Rejection(method=method, rule=rule, number=number, text=text, would_flip_if=None)


def test_the_passages_say_everything_in_the_plan() -> None:
    passages = words.plan_lines(build_13b())
    assert [(p.title, len(p.lines)) for p in passages] == [
        ("Below training", 3),
        ("Why", 3),
        ("Rejected", 7),
        ("What would change the call", 3),
        ("What could be rented", 3),
        ("Other warnings", 1),
        ("Questions", 2),
    ]
    lines = {p.title: p.lines[0] for p in passages}
    assert lines["Why"] == (
        "The adapter may be too small for what the data teaches (62.6 Mbit held, 102.4 Mbit to learn). Evidence: E6."
    )
    assert lines["What would change the call"] == (
        "If the device had 38.10 GB instead of 80.0 GB: prompting first, then qlora instead of prompting first, then "
        "lora."
    )
    assert lines["Below training"] == (
        "prompting (try it first): Four examples in the prompt show what prompting alone can do (2,048 tokens more in "
        "each request). 1.7 GB of key-value cache a conversation. Evidence: E12."
    )
    assert lines["What could be rented"].endswith("22.10 USD (17.68 to 27.62). Cheapest that fits.")


def test_empty_passages_are_left_out() -> None:
    changes = ("reasons", "rejected", "flips", "warnings", "questions", "rungs", "offers")
    assert words.plan_lines(build_plan(verdict=NOTHING, **dict.fromkeys(changes, ()))) == []


def test_one_rule_is_one_line() -> None:
    rejected = (
        reject("full", number="9 GB"),
        reject("qlora-r8", "quantisation_needed", text="LoRA fits."),
        reject("full-zero3", number="7 GB"),
        reject("full-zero2", number="8 GB"),
        *(reject(f"full-{n}") for n in range(2)),
    )
    lines = [words.group_line(g) for g in words.rejected_groups(rejected)]
    assert lines == [
        "memory_fits: full does not fit (9 GB). Likewise full-zero3 (7 GB), full-zero2, full-0, full-1.",
        "quantisation_needed: qlora-r8: LoRA fits.",
    ]
    named = [m.method for g in words.rejected_groups(rejected) for m in g.members]
    assert sorted(named) == sorted(r.method for r in rejected)


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        ("It fits", "2 GB", "It fits (2 GB)."),
        ("It needs 2 GB.", "2 GB", "It needs 2 GB."),
        ("It fits.", None, "It fits."),
        ("Is it?", None, "Is it?"),
    ],
)
def test_a_number_is_said_once(text: str, number: str | None, expected: str) -> None:
    reason = Reason(step="need", rule="r", text=text, number=number, evidence=())
    assert words.reason_line(reason) == expected


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("lora-r64", "lora-r64 does not fit", "lora-r64 does not fit."),
        ("ia3", "IA3 loses.", "IA3 loses."),
        ("ia3", "It loses.", "ia3: It loses."),
    ],
)
def test_an_option_is_named_once(method: str, text: str, expected: str) -> None:
    assert words.rejection_line(reject(method, text=text)) == expected


def test_evidence_is_taken_apart() -> None:
    assert words.cited("E4: LoRA. 7B: 0.5. The other side: 0.6 (E7).") == Citation("E4", "LoRA. 7B: 0.5.", "0.6 (E7).")
    assert words.cited("E4") == Citation("E4", "", "")


def test_all_evidence_is_listed_once_by_number() -> None:
    found = words.all_evidence(build_13b())
    assert [c.id for c in found] == ["E4", "E6", "E12", "E13", "E25", "E30"]
    assert all(c.text for c in found)
    assert [c.id for c in found if c.other_side] == ["E4", "E25"]
    assert [c.id for c in words.all_evidence(build_plan())] == ["E1", "E4", "X1"]
    assert words.all_evidence(build_plan())[0].text, "the entry that is spelled out is kept"


def test_what_a_rung_costs_is_said_where_it_is_worth_trying() -> None:
    rung = Rung(
        name="retrieval",
        first=True,
        rule="retrieval_first",
        text="put the source into the prompt",
        number=None,
        tokens_per_request=364.0,
        kv_cache_bytes=8_386_560,
        evidence=(),
    )
    assert words.rung_line(rung) == (
        "retrieval (try it first): put the source into the prompt. 364 prompt tokens more in each request, 8.4 MB of "
        "key-value cache a conversation."
    )
    assert words.rung_line(rung.model_copy(update={"first": False})) == "retrieval: put the source into the prompt."
    unknown = rung.model_copy(update={"tokens_per_request": None, "kv_cache_bytes": None})
    assert words.rung_line(unknown).endswith("prompt.")


def test_a_flip_is_a_sentence() -> None:
    flip = build_flip("there were 4 of these GPUs instead of 2", "full instead of lora", "hardware.count", 4, 2, "GPUs")
    assert words.flip_line(flip) == "If there were 4 of these GPUs instead of 2: full instead of lora."
