"""What transformers' Trainer wrote into trainer_state.json, as events of ours, so that the same findings look at it.

    {"loss", "grad_norm", "learning_rate", "epoch", "step"}     a Step: the mean loss since the last such line
    {"eval_loss", "eval_runtime", ..., "step"}                  a Validation; at step 0 with `eval_on_start`

What the log does not say (tokens, seconds of a step, labelled tokens) is 0 in these events. They are read by findings
and shown to nobody, and a finding that would need it needs a plan as well, which such a run does not have.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import RunError
from rankwise.records import Event, Finding, Step, Validation
from rankwise.watch.raised import link_of

STATE = "trainer_state.json"
OURS = '"validation_losses"'


@dataclass(frozen=True)
class TrainerLog:
    """One run's log.

    Attributes:
        events: steps and validations, in order.
        step, max_steps: reached and asked for.
        diverged: the first step with a loss that is no finite number; None: there is none.
        notes: what of the log could not be read as events.
    """

    events: tuple[Event, ...]
    step: int
    max_steps: int | None
    diverged: int | None
    notes: tuple[str, ...]


def read_trainer_log(file: Path) -> TrainerLog:
    """Read trainer_state.json. Raises RunError where it is damaged."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        lines = [line for line in state["log_history"] if isinstance(line, dict)]
        step = int(state.get("global_step") or 0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} is damaged: {type(error).__name__}: {error}",
            expected="what transformers' Trainer writes, with a log_history",
            fix="copy it again, or name the folder of another checkpoint",
        ) from None
    events, diverged, foreign = list[Event](), None, set[str]()
    for line in lines:
        if not (_finite(line.get("loss")) and _finite(line.get("eval_loss")) and _finite(line.get("grad_norm"))):
            diverged = diverged if diverged is not None else int(line.get("step") or 0)
            continue
        if event := _event(line):
            events.append(event)
        foreign |= {key for key in line if key.startswith("eval_") and key.endswith("_loss") and key != "eval_loss"}
    notes = [f"losses of several evaluation sets are in the log and not looked at: {', '.join(sorted(foreign))}"]
    asked = state.get("max_steps")
    return TrainerLog(tuple(events), step, int(asked) if asked else None, diverged, tuple(notes if foreign else ()))


def diverged(log: TrainerLog) -> Finding | None:
    """A loss or a gradient that is no number any more."""
    if log.diverged is None:
        return None
    return Finding(
        name="not_finite",
        level="fault",
        text="The loss or the gradient stopped being a finite number; the weights after that are of no use.",
        number=f"first at step {log.diverged}",
        advice="go back to a checkpoint before it, lower the learning rate, and look at the rows of that step",
        link=link_of("diverging"),
    )


def newest_log(folder: Path) -> Path | None:
    """trainer_state.json of the folder itself, else of its newest checkpoint; None: there is none of a Trainer's. A
    checkpoint of ours has a file of that name, too, with the state of our loop.
    """
    places = [folder, *reversed(checkpoints(folder))]
    found = next((path / STATE for path in places if (path / STATE).is_file()), None)
    return None if found is None or OURS in found.read_text(encoding="utf-8") else found


def checkpoints(folder: Path) -> list[Path]:
    """Its folders checkpoint-N, by N."""
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _event(line: Mapping[str, Any]) -> Event | None:
    step = int(line.get("step") or 0)
    if "eval_loss" in line:
        return Validation(
            time="",
            step=step,
            loss=float(line["eval_loss"]),
            supervised_tokens=0,
            seconds=float(line.get("eval_runtime") or 0.0),
        )
    if "loss" not in line or "learning_rate" not in line:
        return None
    return Step(
        time="",
        step=step,
        epoch=float(line.get("epoch") or 0.0),
        loss=float(line["loss"]),
        grad_norm=float(line.get("grad_norm") or 0.0),
        learning_rate=float(line["learning_rate"]),
        tokens=0,
        supervised_tokens=0,
        seconds=0.0,
    )
