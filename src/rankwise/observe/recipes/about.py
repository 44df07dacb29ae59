"""What the checks know beside the recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankwise.records.recipe import Level, Recipe, Risk


@dataclass(frozen=True)
class About:
    """None where it is not known.

    Attributes:
        config: the model's config.json. total_params: of the base. positions: the longest sequence it takes.
        rate: the learning rate that we would start from with this method.
        engine: what will serve the result.
        checkpoint_bytes: of one resumable checkpoint of this run.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    total_params: int | None = None
    positions: int | None = None
    rate: float | None = None
    engine: str | None = None
    checkpoint_bytes: int | None = None


def risk(
    recipe: Recipe,
    level: Level,
    rule: str,
    name: str | None,
    text: str,
    fix: str,
    *,
    number: str | None = None,
    evidence: tuple[str, ...] = (),
) -> Risk:
    """A risk about the setting of a Hugging Face name, standing where the file says it."""
    setting = recipe.setting(name) if name else None
    return Risk(
        level=level,
        rule=rule,
        key=setting.key if setting else name,
        line=setting.line if setting else None,
        text=text,
        number=number,
        evidence=evidence,
        fix=fix,
    )
