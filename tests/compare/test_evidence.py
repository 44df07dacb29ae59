"""The file of finished comparisons: what is written is found again by jobs on the same base, and by no other."""

from pathlib import Path

import pytest

from rankwise.compare.evidence import LATEST, VARIABLE, evidence_path, past_of, remember
from rankwise.errors import RunError
from rankwise.records import Bakeoff, Outcome
from tests.builders import sha
from tests.compare.test_conclude import of_four, planned

BASE = sha("b")
STEPS = {"base": 0, "fewshot": 0, "lora:r=8": 20, "full": 20}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kept" / "comparisons.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


@pytest.fixture(scope="module")
def finished() -> tuple[Bakeoff, Outcome]:
    return planned(STEPS).model_copy(update={"base_hash": BASE}), of_four()


def test_it_is_found_again_by_its_base(file: Path, finished: tuple[Bakeoff, Outcome], tmp_path: Path) -> None:
    bakeoff, outcome = finished
    assert past_of(BASE) is None
    assert remember(bakeoff, outcome, tmp_path / "run")
    found = past_of(BASE)
    assert found is not None and len(found.here) == 1 and found.elsewhere == ()
    entry = found.here[0]
    assert (entry.folder, entry.goal, entry.seeds) == (str(tmp_path / "run"), bakeoff.job.goal, 3)
    assert [(a.name, a.method, a.steps) for a in entry.arms] == [
        ("base", None, 0), ("fewshot", None, 0), ("lora:r=8", "lora", 20), ("full", "full", 20)
    ]  # fmt: skip
    assert {(c.side, c.first, c.second): (c.difference, c.interval, c.answer) for c in entry.contrasts} == {
        (c.side, c.first, c.second): (c.difference, c.adjusted, c.answer) for c in outcome.contrasts
    }


def test_another_base_is_counted_and_not_used(file: Path, finished: tuple[Bakeoff, Outcome], tmp_path: Path) -> None:
    remember(*finished, tmp_path / "run")
    for base in (sha("d"), None):
        found = past_of(base)
        assert found is not None and found.here == () and found.elsewhere == (finished[0].job.model,)


def test_a_comparison_that_ended_twice_counts_once(
    file: Path, finished: tuple[Bakeoff, Outcome], tmp_path: Path
) -> None:
    for folder in ("one", "one", "two"):
        remember(*finished, tmp_path / folder)
    found = past_of(BASE)
    assert found is not None and [Path(e.folder).name for e in found.here] == ["two", "one"]


def test_the_newest_are_looked_at(file: Path, finished: tuple[Bakeoff, Outcome], tmp_path: Path) -> None:
    for number in range(LATEST + 3):
        remember(*finished, tmp_path / str(number))
    found = past_of(BASE)
    assert found is not None and len(found.here) == LATEST
    assert Path(found.here[0].folder).name == str(LATEST + 2)
    assert found.elsewhere == ()


def test_torn_lines_are_counted(file: Path, finished: tuple[Bakeoff, Outcome], tmp_path: Path) -> None:
    remember(*finished, tmp_path / "run")
    with file.open("a") as more:
        more.write('{"version": 2}\n{"version": 1, "at": "2026')
    remember(*finished, tmp_path / "next")
    found = past_of(BASE)
    assert found is not None and (len(found.here), found.unreadable) == (2, 2)


def test_off_is_off(finished: tuple[Bakeoff, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    assert not remember(*finished, tmp_path / "run")
    assert past_of(BASE) is None and list(tmp_path.iterdir()) == []
    monkeypatch.delenv(VARIABLE)
    assert evidence_path() == tmp_path / "comparisons.jsonl"


def test_a_base_without_a_hash_is_not_kept(file: Path, finished: tuple[Bakeoff, Outcome], tmp_path: Path) -> None:
    assert not remember(finished[0].model_copy(update={"base_hash": None}), finished[1], tmp_path)
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_an_error(
    finished: tuple[Bakeoff, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))  # a folder
    with pytest.raises(RunError, match=r"the file of comparisons .* cannot be written") as error:
        remember(*finished, tmp_path / "run")
    assert f"{VARIABLE}=off" in error.value.fix
