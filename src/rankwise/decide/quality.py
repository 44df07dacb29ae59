"""What quality to expect of a candidate before anything is run: a prior, from priors.toml."""

import tomllib
from functools import cache
from importlib.resources import files

from rankwise.decide.capacity import bits_per_parameter, need_bits
from rankwise.decide.priced import Priced
from rankwise.records import Facts, Job, QualityPrior
from rankwise.records.base import Record

# QLoRA trains against a rounded base: reported on par (E2), at worst 3 % below.
ROUNDED = 0.97


class Prior(Record):
    """One line of priors.toml; `rank_from` and `headroom_from` are lower ends."""

    recipes: tuple[str, ...]
    regime: str | None = None
    rank_from: int = 0
    headroom_from: float = 0.0
    value: float
    low: float
    high: float
    evidence: str


@cache
def priors() -> tuple[Prior, ...]:
    """In the order in which they are tried."""
    text = files("rankwise.decide").joinpath("priors.toml").read_text(encoding="utf-8")
    return tuple(Prior(**entry) for entry in tomllib.loads(text)["prior"])


def quality(job: Job, facts: Facts, priced: Priced) -> QualityPrior:
    """Share of what full fine-tuning without limits would gain, with its interval. 1 is full fine-tuning."""
    regime = "code_math" if job.data.domain in ("code", "math") else "other"
    room = priced.estimate.trainable_params * bits_per_parameter(job) / max(1.0, need_bits(job, facts))
    rank = priced.candidate.config.r or 0
    row = next(row for row in priors() if _matches(row, priced.recipe.name, regime, rank, room))
    rounded = ROUNDED if priced.recipe.name == "qlora" else 1.0
    return QualityPrior(
        value=row.value * (1 + rounded) / 2,
        interval=(row.low * rounded, row.high),
        source=row.evidence + ("; E2 for the rounded base" if rounded < 1 else ""),
    )


def _matches(row: Prior, recipe: str, regime: str, rank: int, room: float) -> bool:
    return (
        recipe in row.recipes and row.regime in (None, regime) and rank >= row.rank_from and room >= row.headroom_from
    )
