"""Every example job is a job."""

from pathlib import Path

import pytest

from rankwise.jobfile import read_job
from rankwise.methods import METHODS

EXAMPLES = Path(__file__).parents[1] / "examples"
JOBS = sorted(EXAMPLES.glob("**/job*.yaml"))


def test_there_are_three_of_them() -> None:
    assert [str(p.relative_to(EXAMPLES)) for p in JOBS] == [
        "clinic/job-facts.yaml",
        "clinic/job.yaml",
        "tasks/job.yaml",
    ]


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_an_example_is_read_from_anywhere(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = read_job(path, {}, METHODS)
    assert job.model == "embedded" and job.hardware.gpu == "cpu"
    assert job.data.train and job.data.train.is_file() and job.data.facts and job.data.facts.is_file()
    assert job.name in ("clinic", "job-facts", "tasks")
