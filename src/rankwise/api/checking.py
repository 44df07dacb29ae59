"""The data audit: of a data file, of a job, and before each training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.api.loading import probes_of
from rankwise.api.observing import LONGEST, model_of
from rankwise.api.planning import load_job
from rankwise.api.progress import Progress, quiet
from rankwise.errors import AnswerIsNo, JobError
from rankwise.records import Audit, Job
from rankwise.text.template import ChatText
from rankwise.train.audit.audit import Material, audit
from rankwise.train.audit.reading import of_source, split_source

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
    chat = ChatText.for_job(job, facts.path)
    positions = min(facts.max_position_embeddings or LONGEST, LONGEST)
    return audit(
        _material(job, chat, progress),
        chat,
        model=job.model,
        max_length=min(job.train.max_length or positions, facts.max_position_embeddings or LONGEST),
        on_long=job.train.on_long or "drop",
        progress=progress,
        near=near,
        show=show,
    )


def require_sound(job: Job, progress: Progress = quiet) -> None:
    """Raises AnswerIsNo where training on this job's rows would go wrong. Near duplicates are not looked for."""
    found = check_job(job, progress, near=False, show=0)
    if not found.faults:
        return
    first = found.faults[0]
    where = f" ({first.places[0].path}:{first.places[0].line})" if first.places else ""
    more = f", and {len(found.faults) - 1} more faults" if len(found.faults) > 1 else ""
    raise AnswerIsNo(
        f"the data would train the wrong thing: {first.text}{where}{more}",
        fix=f"{first.fix}; `rankwise check {job.data.train}` shows all of it",
    )


def _material(job: Job, chat: ChatText, progress: Progress) -> Material:
    """As training splits it."""
    assert job.data.train is not None
    source, seed, validation = job.data.train, job.train.seed or 0, job.data.validation
    if isinstance(validation, float):
        training, held_out = split_source(source, chat, validation, seed, progress)
    else:
        training = of_source(source, chat, seed, progress)
        held_out = of_source(validation, chat, seed, progress)
    return Material(training.format, training, held_out, probes_of(job))
