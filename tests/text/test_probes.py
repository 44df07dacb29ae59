import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.errors import DataError
from rankwise.text.formats import Probe, read_probes


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
    ],
)
def test_a_probe_that_cannot_be_asked_is_refused(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read_probes(write(tmp_path, {"question": "a", "answer": "b"}, row))
    assert said in raised.value.what
    assert raised.value.line == 2
    assert raised.value.expected


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
