"""A folder with a job on a tiny model."""

from pathlib import Path

import pytest

from tests.training import toy_job, toy_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    toy_job(work, toy_model(work / "model"))
    monkeypatch.chdir(work)
    return work
