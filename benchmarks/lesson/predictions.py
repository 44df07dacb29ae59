"""What was predicted, read from predictions.toml, with the hash by which a result shows that it stood before."""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lesson.verdict import Rule

FILE = Path(__file__).parent / "predictions.toml"
NAMES = tuple(f"X{number}" for number in range(1, 9))


@dataclass(frozen=True)
class Measure:
    """One number that is judged; `headline` ones decide the experiment."""

    name: str
    says: str
    unit: str
    headline: bool
    rule: Rule
    said: dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """Of one experiment: see the head of predictions.toml."""

    title: str
    claim: str
    lesson: str
    literature: str
    expected: str
    predicted: str
    tests: dict[str, Measure]


@dataclass(frozen=True)
class Predictions:
    """All of them; `hash` is the sha256 of the file."""

    written: str
    hash: str
    of: dict[str, Prediction]


def read(file: Path = FILE) -> Predictions:
    """Raises ValueError, KeyError or TypeError for a file that says less or more than it must."""
    content = file.read_bytes()
    data = tomllib.loads(content.decode("utf-8"))
    return Predictions(
        str(data["written"]), hashlib.sha256(content).hexdigest(), {name: _prediction(data[name]) for name in NAMES}
    )


def _prediction(said: dict[str, Any]) -> Prediction:
    tests = {name: _test(name, test) for name, test in said["tests"].items()}
    return Prediction(**{**said, "tests": tests})


def _test(name: str, said: dict[str, Any]) -> Measure:
    return Measure(name, said["says"], said["unit"], said["headline"], Rule.read(said), said)
