import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import DataError
from rankwise.text.formats import Probe, read_probes
from rankwise.text.probes import wordings


def write(folder: Path, *rows: object) -> Path:
    path = folder / "facts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_open_and_multiple_choice_probes(tmp_path: Path) -> None:
    rows = [
        {"question": "Capital of Peru?", "answer": "Lima", "topic": "places"},
        {"question": "Which?", "answer": "b", "choices": ["a", "b"]},
        {"question": "Which?", "answer": 1, "choices": ["a", "b"]},
    ]
    assert read_probes(write(tmp_path, *rows)) == [
        Probe("Capital of Peru?", "Lima", (), 1),
        Probe("Which?", "b", ("a", "b"), 2),
        Probe("Which?", "b", ("a", "b"), 3),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "not an object"),
        ({"answer": "a"}, "question is missing"),
        ({"question": "a"}, "answer is missing"),
        ({"question": " ", "answer": "a"}, "question is empty"),
        ({"question": "a", "answer": 3}, "answer is not text: 3"),
        ({"question": "a", "answer": "c", "choices": ["a", "b"]}, "'c' is not among the choices ['a', 'b']"),
        ({"question": "a", "answer": 2, "choices": ["a", "b"]}, "answer 2 is no index"),
        ({"question": "a", "answer": "a", "choices": ["a"]}, "choices is ['a']"),
        ({"question": "a", "answer": "a", "choices": "ab"}, "choices is 'ab'"),
        ({"question": "a", "answer": "a", "choices": ["a", 1]}, "choices[1] is not text"),
        ({"question": "a", "answer": "a", "choices": ["a", "a"]}, "repeat"),
        ({"question": "a", "answer": "a", "paraphrases": "b"}, "paraphrases is 'b'"),
        ({"question": "a", "answer": "a", "paraphrases": ["b", ""]}, "paraphrases[1] is empty"),
        ({"question": "a", "answer": "a", "reversed": "b"}, "reversed is 'b'"),
        ({"question": "a", "answer": "a", "reversed": {"question": "b"}}, "reversed.answer is missing"),
    ],
)
def test_a_probe_that_cannot_be_asked_is_refused(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read_probes(write(tmp_path, {"question": "a", "answer": "b"}, row))
    assert said in raised.value.what
    assert raised.value.line == 2
    assert raised.value.expected


def test_a_fact_is_asked_in_every_wording(tmp_path: Path) -> None:
    turned = {"question": "Of what is Lima the capital?", "answer": "Peru"}
    rows = [
        {"question": "Capital of Peru?", "answer": "Lima", "paraphrases": ["Peru's capital?"], "reversed": turned},
        {"question": "Which?", "answer": "b", "choices": ["a", "b"]},
    ]
    probes = read_probes(write(tmp_path, *rows))
    assert probes[0].paraphrases == ("Peru's capital?",) and probes[0].reversed == tuple(turned.values())
    assert [(w.probe, w.kind, w.question, w.answer) for w in wordings(probes)] == [
        (0, "fact", "Capital of Peru?", "Lima"),
        (1, "fact", "Which?", "b"),
        (0, "paraphrase", "Peru's capital?", "Lima"),
        (0, "reversed", "Of what is Lima the capital?", "Peru"),
    ]


def test_a_file_without_a_probe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no rows in this file"):
        read_probes(write(tmp_path))


def test_csv_holds_no_probes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="probes are not read"):
        read_probes(tmp_path / "a.csv")


VALUES = (
    st.none() | st.integers(-1, 3) | st.text(max_size=3) | st.lists(st.text(max_size=2) | st.integers(), max_size=3)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["question", "answer", "choices"]), VALUES), max_size=3))
def test_any_probes_are_refused_or_answerable(tmp_path: Path, rows: list[object]) -> None:
    try:
        probes = read_probes(write(tmp_path, *rows))
    except DataError:
        return
    assert all(probe.answer in probe.choices or not probe.choices for probe in probes)
