"""A metric of the user's own: loaded from its file, asked item by item, and its faults told with their line."""

from pathlib import Path

import pytest

from rankwise.errors import DataError, UsageError
from rankwise.evaluate.custom import compare_own, load_metric

SOURCE = '''
def words(prompt, expected, answer):
    """How many words it says."""
    return len(answer.split())

words.higher_is_better = False

def about_yes(prompt: str, expected: str, answer: str) -> float | None:
    return None if expected != "yes" else float("yes" in answer)

def broken(prompt, expected, answer):
    return 1 / len(answer)

def nothing_said(prompt, expected, answer):
    return None

def text(prompt, expected, answer):
    return "good"

def endless(prompt, expected, answer):
    return float("nan")

limit = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


ITEMS = [("p", "yes", "a b c", "yes"), ("p", "no", "a b", "no"), *[("p", "yes", "x y", "yes")] * 6]


def test_the_scores_of_both_models_are_compared_item_by_item(file: Path) -> None:
    found = compare_own(load_metric(f"{file}:words"), "words", ITEMS, "answers")
    assert found is not None and (found.metric, found.unit, found.items) == ("words", "score", 8)
    assert found.base == pytest.approx((3 + 7 * 2) / 8) and found.tuned == 1
    assert found.answer == "better" and found.difference_interval[1] < 0  # fewer are better, as the function says
    assert "scored by mine.py:words" in found.source


def test_items_without_a_score_are_left_out_and_counted(file: Path) -> None:
    found = compare_own(load_metric(f"{file}:about_yes"), "about_yes", ITEMS, "answers")
    assert found is not None and found.items == 7 and (found.base, found.tuned) == (0, 1)
    assert "nothing to say of 1" in found.source
    assert compare_own(load_metric(f"{file}:nothing_said"), "nothing_said", ITEMS, "answers") is None


def test_a_failing_function_is_told_with_its_line(file: Path) -> None:
    with pytest.raises(DataError, match="ZeroDivisionError") as error:
        load_metric(f"{file}:broken").score("p", "e", "")
    assert error.value.line == SOURCE.splitlines().index("    return 1 / len(answer)") + 1
    assert str(file) in error.value.what


@pytest.mark.parametrize(("name", "said"), [("text", "returned 'good'"), ("endless", "returned nan")])
def test_what_is_no_number_is_refused(file: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_metric(f"{file}:{name}").score("p", "e", "a")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("mine.py", "FILE.py:FUNCTION"),
        ("mine.txt:words", "FILE.py:FUNCTION"),
        ("nowhere.py:words", "there is no file"),
        ("mine.py:wrods", "has no function wrods"),
        ("mine.py:limit", "has no function limit"),
    ],
)
def test_what_cannot_be_loaded_is_a_usage_error(
    file: Path, said: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(UsageError, match=what):
        load_metric(said)


@pytest.mark.parametrize(("source", "line"), [("import os\nx = = 1\n", 2), ("a = 1\nraise KeyError(a)\n", 2)])
def test_a_file_that_cannot_be_run_is_told_with_its_line(tmp_path: Path, source: str, line: int) -> None:
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(DataError) as error:
        load_metric(f"{tmp_path / 'bad.py'}:f")
    assert error.value.line == line
