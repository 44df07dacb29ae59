"""The form that answers share: found where there is one, and none made up where there is not."""

import json

import pytest

from rankwise.evaluate.inferred import inferred_form

NUMBERS = range(20)
JSON = [json.dumps({"name": f"n{i}", "dose": i if i % 2 else i / 4, "ok": i % 3 == 0}) for i in NUMBERS]
LABELLED = [f"ANSWER: {i} mg\nBASIS: list {i}\nNEXT: give it {i} times" for i in NUMBERS]
MARKDOWN = [f"**Answer:** {i} mg\n**Why:** it says {i}" for i in NUMBERS]
POLITE = [f"Dear guest, the room {i} is free on day {i}. Yours sincerely, the night desk" for i in NUMBERS]
VERBS = ("take", "wait", "call", "ask", "go", "sit", "read")
LISTS = [f"- {VERBS[i % 7]} {i}\n- {VERBS[i % 5]} on\n- {VERBS[i % 3]} {i + 2}" for i in NUMBERS]
PROSE = [f"{VERBS[i % 7]} the {i} {VERBS[i % 5]}s, and then {i} more, as we {VERBS[i % 3]}" for i in NUMBERS]


@pytest.mark.parametrize(
    ("answers", "said", "good", "bad"),
    [
        (
            JSON,
            "a JSON object with dose, name, ok",
            ['{"ok": true, "dose": 7, "name": "x"}'],
            ['{"dose": 7, "name": "x"}', '{"ok": 1, "dose": 7, "name": "x"}', "dose: 7", '{"a": 1}', "[]", ""],
        ),
        (
            LABELLED,
            "lines labelled ANSWER, BASIS, NEXT",
            ["ANSWER: x\nBASIS: y\nNEXT: z"],
            ["ANSWER: x\nNEXT: y\nBASIS: z", "ANSWER: x\nBASIS: y", "The answer: x", ""],
        ),
        (MARKDOWN, "lines labelled Answer, Why", ["**Answer:** a\n**Why:** b"], ["Because of a"]),
        (
            POLITE,
            'begins with "Dear guest, the room"; ends with "Yours sincerely, the night desk"',
            ["Dear guest, the room is yours. Yours sincerely, the night desk"],
            ["Dear guest, the room is yours.", "Hello. Yours sincerely, the night desk"],
        ),
        (LISTS, "a list of items", ["1. one\n2. two"], ["one, two", "- one"]),
    ],
    ids=["json", "labels", "markdown", "ends", "list"],
)
def test_a_shared_form_is_found(answers: list[str], said: str, good: list[str], bad: list[str]) -> None:
    form = inferred_form(answers)
    assert form is not None and said in form.source and "inferred from 20 answers" in form.source
    assert all(form.follows(answer) for answer in answers)
    assert [a for a in good if not form.follows(a)] == [] and [a for a in bad if form.follows(a)] == []


@pytest.mark.parametrize(
    "answers",
    [
        JSON[:7],
        ["yes.", "no.", "open."] * 6,
        ["The dose is 5 mg."] * 20,
        PROSE,
        JSON[:10] + LABELLED[:10],
        [],
    ],
    ids=["few", "labels of a classifier", "always the same", "prose", "mixed", "none"],
)
def test_no_form_is_made_up(answers: list[str]) -> None:
    assert inferred_form(answers) is None


def test_one_slip_in_twenty_does_not_hide_the_form() -> None:
    form = inferred_form([*LABELLED[:19], "I forgot the form"])
    assert form is not None and not form.follows("I forgot the form")
