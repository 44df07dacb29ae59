"""Style or knowledge? The untouched base is asked; what came of it is remembered for the plan."""

from dataclasses import dataclass
from pathlib import Path

from rankwise.api.diagnoses import given_files, known_at, place
from rankwise.api.loading import probes_of
from rankwise.api.observing import model_of
from rankwise.api.progress import Progress, quiet
from rankwise.errors import JobError, RunError
from rankwise.files import write_record, write_text
from rankwise.observe.devices import gpus_here
from rankwise.observe.machine import has_native_bf16
from rankwise.records import Diagnosis, Job, ModelFacts, content_hash
from rankwise.report.diagnosis_page import diagnosis_page
from rankwise.text.containers import read_records
from rankwise.text.dataset import split_rows
from rankwise.text.formats import Row, read_rows
from rankwise.text.hashes import cached_hash
from rankwise.text.probes import Probe
from rankwise.text.sources import hash_source
from rankwise.text.template import ChatText
from rankwise.version import __version__

ROWS = 64  # held-out rows asked at most: 1 to 5 minutes with the embedded model


def diagnose(job: Job, progress: Progress = quiet, rows: int = ROWS) -> Diagnosis:
    """Ask the base zero-shot, with examples and with sources on held-out rows and closed-book probes, and conclude.

    The same base, files and settings were asked once: the answer is remembered in the cache folder.

    Args:
        rows: held-out rows asked at most.

    Raises:
        JobError: the data is only described.
        DataError: a file cannot be read, no held-out row is a conversation, or none fits the model's positions.
        ModelError: the model's files are not here, or it has no chat template.
    """
    _require_rows(job)
    facts, read = model_of(job), _read_data(job)
    files = {str(source): hash_source(source, cached_hash) for source in given_files(job)}
    path = place(job, facts, files, rows)
    if known := known_at(path):
        return known
    found = _ask(job, facts, read, rows, progress)
    found = found.model_copy(update={"base_hash": facts.weights_hash, "data_hash": content_hash(files)})
    write_record(path, found)
    return found


def write_diagnosis(found: Diagnosis, job: Job, out: Path) -> Path:
    """diagnosis.json and diagnosis.html in a folder; returns the page. Raises RunError where they cannot be written."""
    page = out / "diagnosis.html"
    try:
        write_record(out / "diagnosis.json", found)
        write_text(page, diagnosis_page(found, job, version=__version__))
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error}", fix="name another folder with --out") from None
    return page


@dataclass(frozen=True)
class _Data:
    """What a job's files hold; they are refused before a model is loaded."""

    training: list[Row]
    held_out: list[Row]
    probes: list[Probe]
    contexts: dict[tuple[Path, int], str]


def _read_data(job: Job) -> _Data:
    assert job.data.train is not None
    training, held_out = split_rows(job, read_rows(job.data.train).rows, job.train.seed or 0)
    return _Data(training, held_out, probes_of(job), _contexts(held_out))


def _ask(job: Job, facts: ModelFacts, read: _Data, rows: int, progress: Progress) -> Diagnosis:
    from rankwise.evaluate.diagnose import Material, diagnose
    from rankwise.model.load import load_base

    chat = ChatText.for_job(job, facts.path)
    device, bf16 = _device()
    model = load_base(facts.path, dtype="bf16" if bf16 and facts.dtype != "fp32" else "fp32", device=device)
    material = Material(read.training, read.held_out, read.probes, read.contexts)
    return diagnose(job, material, model, chat, rows=rows, seed=job.train.seed or 0, progress=progress)


def _device() -> tuple[str, bool]:
    """(torch's name of this machine's first GPU, or the CPU; whether it has bf16 arithmetic)."""
    if gpus := gpus_here():
        return "cuda:0", gpus[0]["capability"] >= 8.0
    return "cpu", has_native_bf16()


def _require_rows(job: Job) -> None:
    if job.data.train is None:
        raise JobError(
            "a diagnosis asks the base about rows, and this job only describes its data",
            expected="`data.train`: a file of conversations",
            fix="give the rows; a hundred that are like the others are enough",
        )


def _contexts(held_out: list[Row]) -> dict[tuple[Path, int], str]:
    """(file, line) -> the row's own `context`, where a file gives one beside question and answer."""
    records = [record for path in sorted({row.path for row in held_out}) for record in read_records(path)]
    values = {(r.path, r.line): r.value.get("context") for r in records if isinstance(r.value, dict)}
    return {place: text for place, text in values.items() if isinstance(text, str) and text.strip()}
