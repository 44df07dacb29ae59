"""The data audit: of a data file, of a job, and before each training."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rankwise.api.loading import probes_of
from rankwise.api.observing import LONGEST, model_of
from rankwise.api.planning import load_job
from rankwise.api.progress import Progress, quiet
from rankwise.errors import AnswerIsNo, DataError, JobError
from rankwise.records import Audit, Job
from rankwise.text.sources import ENDINGS, ending_of
from rankwise.text.template import ChatText
from rankwise.text.tokens import forget_below
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


def check_handed_over(
    name: str, content: BinaryIO, options: Mapping[str, Any], progress: Progress = quiet, *, show: int = 2
) -> Audit:
    """As `check`, of rows that lie nowhere: they are looked at in a temporary folder, and nothing of them is kept.

    Args:
        name: how their file was called. It stands in what is said, and never in a path; its ending says what it is.

    Raises:
        DataError: as `check`, with this name in the place of a path.
    """
    ending = ending_of(Path(name))
    if ending not in ENDINGS:
        what = f"'{ending}' files are not read here" if ending else "its name has no ending, so its kind is unknown"
        raise DataError(name, None, what, expected="a file that ends in " + ", ".join(ENDINGS))
    with tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
        file = Path(folder) / f"rows{ending}"
        try:
            with file.open("wb") as written:
                shutil.copyfileobj(content, written)
            return _named(check(file, options, progress, show=show), file, name)
        except DataError as fault:
            texts = (fault.what.removeprefix(f"{fault.path}:{fault.line}: "), fault.expected, fault.fix)
            what, expected, fix = (text.removeprefix(f"{file}: ").replace(str(file), name) for text in texts)
            raise DataError(name, fault.line, what, expected=expected, fix=fix) from None
        finally:
            forget_below(Path(folder))


def _named(found: Audit, file: Path, name: str) -> Audit:
    """Each place by the name that the file came with."""
    said = found.model_dump_json().replace(_inside_json(str(file)), _inside_json(name))
    return Audit.model_validate_json(said)


def _inside_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


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
