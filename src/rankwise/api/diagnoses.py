"""Where diagnoses are remembered: by the base, the data, the settings and the code that asks. Light, for planning."""

from functools import cache
from pathlib import Path

from rankwise.errors import RunError
from rankwise.files import cache_folder, hash_file, read_record
from rankwise.records import Diagnosis, Facts, Job, ModelFacts, content_hash
from rankwise.version import __version__

SOURCE = Path(__file__).parents[1]
ASKING = ("prefix.py", "generate.py")  # of model/, what puts the questions


def remembered(job: Job, facts: Facts) -> Diagnosis | None:
    """What is known of this job's base and data, of the most rows; None where nobody asked yet. No torch."""
    if job.data.train is None or facts.model.weights_hash is None:
        return None
    found = [known_at(path) for path in _folder().glob(f"{_key(job, facts.model, facts.data.files)}-*.json")]
    return max((d for d in found if d), key=lambda d: d.rows, default=None)


def place(job: Job, facts: ModelFacts, files: dict[str, str], rows: int) -> Path:
    """The file of one diagnosis.

    Args:
        files: hash of each of `given_files`, by path.
        rows: held-out rows asked at most.
    """
    return _folder() / f"{_key(job, facts, files)}-{rows}.json"


def given_files(job: Job) -> list[Path]:
    given = [job.data.train, job.data.validation, job.data.facts]
    return [path for path in given if isinstance(path, Path)]


def _folder() -> Path:
    return cache_folder() / "diagnoses"


def _key(job: Job, facts: ModelFacts, files: dict[str, str]) -> str:
    """Hash of all that an answer depends on but the number of rows."""
    data = job.data
    schema = job.format.json_schema if job.format else None
    return content_hash(
        {
            "base": [facts.weights_hash, facts.template_hash],
            "train": files[str(data.train)],
            "validation": files[str(data.validation)] if isinstance(data.validation, Path) else data.validation,
            "facts": files[str(data.facts)] if data.facts else None,
            "format": [
                job.format.regex if job.format else None,
                hash_file(schema) if schema and schema.is_file() else None,
            ],
            "seed": job.train.seed or 0,
            "code": _code(),
        }
    )


@cache
def _code() -> str:
    """The version and the sources that a diagnosis comes from, so that a change of the rule asks again."""
    sources = [*sorted((SOURCE / "evaluate").glob("*.py")), *(SOURCE / "model" / name for name in ASKING)]
    return content_hash([__version__, *(hash_file(path) for path in sources)])


def known_at(path: Path) -> Diagnosis | None:
    """None where there is none, or one that cannot be read: it can be made again."""
    try:
        return read_record(path, Diagnosis)
    except RunError:
        return None
