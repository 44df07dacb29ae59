"""The data audit: of a data file, of a job, and before each training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.api.loading import probes_of
from rankwise.api.observing import LONGEST, model_of
from rankwise.api.planning import load_job
from rankwise.api.progress import Progress, quiet
from rankwise.errors import AnswerIsNo, DataError, JobError
from rankwise.records import Audit, Job
from rankwise.text.formats import Row, read_rows
from rankwise.text.split import hold_out
from rankwise.text.template import ChatText
from rankwise.train.audit.audit import Material, audit

JOB_FILES = (".yaml", ".yml")


def check(
    target: Path, options: Mapping[str, Any], progress: Progress = quiet, *, near: bool = True, show: int = 2
) -> Audit:
    """Look at the rows of a data file or of a job as training would see them.

    Args:
        target: rows, or a job file that names them.
        options: job keys by dotted name; for a data file the model is `embedded` unless they say otherwise.
        near: look for near duplicates, too.
        show: rows to decode.

    Raises:
        JobError: the job only describes its data. DataError: no row can be read. ModelError: no tokenizer, or no chat
            template for conversations.
    """
    if target.suffix.lower() in JOB_FILES:
        return check_job(load_job(target, options), progress, near=near, show=show)
    said = {"goal": "unsure", "model": "embedded"} | dict(options) | {"data.train": str(target)}
    return check_job(load_job(None, said), progress, near=near, show=show)


def check_job(job: Job, progress: Progress = quiet, *, near: bool = True, show: int = 2) -> Audit:
    """As `check`, of a job."""
    if job.data.train is None:
        raise JobError(
            "this job only describes its data, and there is nothing to look at",
            expected="`data.train`: a file of rows",
            fix="give the rows",
        )
    facts = model_of(job)
    positions = min(facts.max_position_embeddings or LONGEST, LONGEST)
    return audit(
        _material(job),
        ChatText.from_folder(facts.path, job.data.named_tokens),
        model=job.model,
        max_length=min(job.train.max_length or positions, facts.max_position_embeddings or LONGEST),
        on_long=job.train.on_long or "drop",
        progress=progress,
        near=near,
        show=show,
    )


def require_sound(job: Job) -> None:
    """Raises AnswerIsNo where training on this job's rows would go wrong. Near duplicates are not looked for."""
    found = check_job(job, near=False, show=0)
    if not found.faults:
        return
    first = found.faults[0]
    where = f" ({first.places[0].path}:{first.places[0].line})" if first.places else ""
    more = f", and {len(found.faults) - 1} more faults" if len(found.faults) > 1 else ""
    raise AnswerIsNo(
        f"the data would train the wrong thing: {first.text}{where}{more}",
        fix=f"{first.fix}; `rankwise check {job.data.train}` shows all of it",
    )


def _material(job: Job) -> Material:
    assert job.data.train is not None
    unread: list[DataError] = []
    given = read_rows(job.data.train, unread)
    training, held_out = _split(job, given.rows, unread)
    return Material(given.format, training, held_out, unread, probes_of(job))


def _split(job: Job, rows: list[Row], unread: list[DataError]) -> tuple[list[Row], list[Row]]:
    """As training splits them; rows too few to be split are all looked at."""
    share_or_path = job.data.validation
    if isinstance(share_or_path, float):
        return hold_out(rows, share_or_path, job.train.seed or 0) if len(rows) > 1 else (rows, [])
    return rows, read_rows(share_or_path, unread).rows
