"""What a folder holds that somebody trained: a run of ours, output of transformers' Trainer, an adapter, a model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankwise.errors import ModelError, RunError
from rankwise.observe.parents import CONFIG, lineage_in
from rankwise.records import Event, Finding, Lineage, Plan
from rankwise.store import Run
from rankwise.watch.forgotten import published_step
from rankwise.watch.trainer_log import checkpoints, diverged, newest_log, read_trainer_log

MOST_CHECKPOINTS = 8  # whose spectra are taken, evenly spaced, the last included


@dataclass(frozen=True)
class Weights:
    """Trained weights: an adapter's folder, or a whole model's."""

    folder: Path
    step: int | None
    adapter: bool


@dataclass(frozen=True)
class Subject:
    """A folder as it was found.

    Attributes:
        weights: what it holds, oldest first; the last is what the run left.
        events: of the run, where there is a log.
        faults: what the log alone says.
    """

    folder: Path
    kind: Literal["run", "trainer", "adapter", "model"]
    weights: tuple[Weights, ...]
    plan: Plan | None = None
    events: tuple[Event, ...] = ()
    faults: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> Weights | None:
        """What it left; None where no weights were kept."""
        return self.weights[-1] if self.weights else None

    @property
    def lineage(self) -> Lineage | None:
        """Where nobody wrote one down, None."""
        if self.plan is not None and self.plan.base_hash is not None:
            return self.plan.lineage()
        return lineage_in(self.last.folder) if self.last else None


def find_subject(folder: Path) -> Subject:
    """Look at a folder. Raises RunError for one that is nothing of the kind, ModelError for damaged files."""
    if (folder / "plan.json").is_file():
        return _own(Run.open(folder))
    if log := newest_log(folder):
        return _trainer(folder, log)
    found = _weights(folder, None)
    if found is None:
        raise RunError(
            f"{folder} is nothing that can be watched",
            expected="a run of rankwise (plan.json), output of transformers' Trainer (trainer_state.json, there or in "
            "checkpoint-N), an adapter (adapter_config.json) or a model (config.json with safetensors)",
            fix="name the folder that training wrote into",
        )
    return Subject(folder, "adapter" if found.adapter else "model", (found,))


def _own(run: Run) -> Subject:
    plan, state = run.plan(), run.state()
    if state == "planned":
        raise RunError(
            f"{run.folder} is planned and has not started: there is nothing to watch",
            fix=f"`rankwise train {run.folder / 'plan.json'} --out {run.folder}` starts it",
        )
    events = tuple(run.events())
    published = next((_weights(f, None) for f in (run.adapter, run.model) if f.is_dir()), None)
    if state == "finished" and published is not None:
        kept = [Weights(published.folder, published_step(events), published.adapter)]
    else:
        kept = _kept(run.checkpoints)[-1:]
    notes = () if kept else ("no checkpoint was written yet: what is said of spectra comes from the run's events",)
    return Subject(run.folder, "run", tuple(kept), plan, events, notes=notes)


def _trainer(folder: Path, log_file: Path) -> Subject:
    log = read_trainer_log(log_file)
    kept = _kept(folder)
    if (final := _weights(folder, log.step)) is not None:
        kept = [weights for weights in kept if weights.step != log.step] + [final]
    found = diverged(log)
    return Subject(
        folder,
        "trainer",
        tuple(_spread(kept)),
        events=log.events,
        faults=(found,) if found else (),
        notes=(*log.notes, *(() if kept else ("no weights in safetensors lie in it, so the log alone was read",))),
    )


def _kept(folder: Path) -> list[Weights]:
    """Of the checkpoints that hold weights, by step."""
    found = [_weights(path, int(path.name.rpartition("-")[2])) for path in checkpoints(folder)]
    return [weights for weights in found if weights is not None]


def _spread(weights: Sequence[Weights]) -> list[Weights]:
    if len(weights) <= MOST_CHECKPOINTS:
        return list(weights)
    stride = (len(weights) - 1) / (MOST_CHECKPOINTS - 1)
    return [weights[round(i * stride)] for i in range(MOST_CHECKPOINTS)]


def _weights(folder: Path, step: int | None) -> Weights | None:
    if (folder / CONFIG).is_file():
        return Weights(folder, step, adapter=True)
    whole = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    return Weights(folder, step, adapter=False) if whole and (folder / "config.json").is_file() else None


def named_base(weights: Weights) -> str | None:
    """The base that an adapter's configuration names; None where it names none, and for whole models."""
    if not weights.adapter:
        return None
    path = weights.folder / CONFIG
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return str(written.get("base_model_name_or_path") or "") or None
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: {error}", fix="copy the adapter again") from None
