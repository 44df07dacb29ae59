"""What a person may pass where a job or a run is meant."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise import api
from rankwise.compare.folder import Folder
from rankwise.errors import RunError, UsageError
from rankwise.options import by_key
from rankwise.records import Job
from rankwise.store import Run

AnyJob = str | Path | Mapping[str, Any] | Job | None
AnyRun = str | Path | Run


def job_of(job: AnyJob, options: Mapping[str, Any]) -> Job:
    """A job file, a mapping with the keys of one, or a Job, with options laid over it.

    Raises:
        JobError: a key or a value that cannot be. UsageError: an option that is none, or nothing was said.
    """
    said = by_key(options)
    if job is None and not said:
        raise UsageError("nothing is said of the job", fix="give a job file, a mapping, or options such as model=")
    if job is None or isinstance(job, str | Path):
        return api.load_job(None if job is None else Path(job), said)
    if isinstance(job, Job):
        if not said:
            return job
        job = job.model_dump(mode="json", exclude_defaults=True, exclude={"version"})
    return api.load_job(None, _leaves(json.loads(json.dumps(job, default=str))) | said)


def _leaves(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted keys, so that options are laid over single values."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = isinstance(value, dict) and value
        found |= _leaves(value, f"{before}{key}.") if inner else {before + str(key): value}
    return found


def run_of(run: AnyRun) -> Run:
    """A run, its folder, or its name below runs/. Raises RunError."""
    return run if isinstance(run, Run) else api.open_run(Path(run))


def comparison_of(folder: str | Path | Folder) -> Folder:
    """A comparison, its folder, or its name below comparisons/. Raises RunError."""
    found = folder if isinstance(folder, Folder) else api.find_comparison(Path(folder))
    if found is None:
        raise RunError(f"there is no comparison {folder}", fix="`rankwise runs` lists those of this folder")
    return found
