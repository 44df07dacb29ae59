"""Which method works with which feature: read from compatibility.toml."""

import tomllib
from functools import cache
from importlib.resources import files

from rankwise.records.base import Record


class Refusal(Record):
    """Methods that do not work with a feature, and who says so."""

    methods: tuple[str, ...]
    feature: str
    why: str
    source: str


@cache
def refusals() -> tuple[Refusal, ...]:
    """Every entry of the table."""
    text = files("rankwise.decide").joinpath("compatibility.toml").read_text(encoding="utf-8")
    return tuple(Refusal(**entry) for entry in tomllib.loads(text)["refused"])


def refused(method: str, feature: str) -> Refusal | None:
    """Why a method does not work with a feature; None where nothing is known against it."""
    return next((r for r in refusals() if method in r.methods and r.feature == feature), None)
