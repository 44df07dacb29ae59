"""What quality to expect of a candidate before anything is run: a prior, from priors.toml."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from rankwise.decide.capacity import bits_per_parameter, need_bits
from rankwise.decide.priced import Priced
from rankwise.records import Facts, Job, QualityPrior

# QLoRA trains against a rounded base: reported on par (E2), at worst 3 % below.
ROUNDED = 0.97


@cache
def _priors() -> tuple[dict[str, Any], ...]:
    return tuple(tomllib.loads(files("rankwise.decide").joinpath("priors.toml").read_text(encoding="utf-8"))["prior"])


def quality(job: Job, facts: Facts, priced: Priced) -> QualityPrior:
    """Share of what full fine-tuning without limits would gain, with its interval. 1 is full fine-tuning."""
    regime = "code_math" if job.data.domain in ("code", "math") else "other"
    room = priced.estimate.trainable_params * bits_per_parameter(job) / max(1.0, need_bits(job, facts))
    rank = priced.candidate.config.r or 0
    row = next(row for row in _priors() if _matches(row, priced.recipe.name, regime, rank, room))
    rounded = ROUNDED if priced.recipe.name == "qlora" else 1.0
    return QualityPrior(
        value=row["value"] * (1 + rounded) / 2,
        interval=(row["low"] * rounded, row["high"]),
        source=row["evidence"] + ("; E2 for the rounded base" if rounded < 1 else ""),
    )


def _matches(row: dict[str, Any], recipe: str, regime: str, rank: int, room: float) -> bool:
    return (
        recipe in row["recipes"]
        and row.get("regime", regime) == regime
        and rank >= row.get("rank_from", 0)
        and room >= row.get("headroom_from", 0.0)
    )
