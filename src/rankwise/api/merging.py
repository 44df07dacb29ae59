"""Adapters folded into their base, one or several by weights, and taken out again."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from rankwise.api.actuals import aside, keep_merge_time
from rankwise.api.loading import require_finished
from rankwise.api.progress import Progress, quiet
from rankwise.decide.compatibility import refused
from rankwise.errors import RunError, UsageError
from rankwise.files import read_record, write_record, write_text
from rankwise.methods import METHODS, TUNERS
from rankwise.observe.model import weights_hash
from rankwise.records import Merge, Plan
from rankwise.records.merging import Rounding
from rankwise.report.card import model_card
from rankwise.report.merge_words import blend_card
from rankwise.store import LINEAGE, Run


def merge(run: Run, out: Path | None = None, progress: Progress = quiet, *, rounding: Rounding = "stochastic") -> Path:
    """Fold the adapter into its base; returns the folder, which plain transformers loads. A full model is copied as
    it is.

    Args:
        rounding: of changed weights to the 16 bits of the base; to the nearest, as PEFT does, small changes are lost.

    Raises:
        RunError: not finished, `out` is in use, the base has changed since, or a method that cannot be merged.
        ModelError: the adapter does not fit the base. SpaceError: no room for the model.
    """
    from rankwise.export.merge import merge

    decided = require_finished(run).plan()
    target = out or run.model
    if METHODS[decided.verdict.method].trains == "weights":
        if out is not None:
            _refuse_used(out)
            shutil.copytree(run.model, out)
        return target
    _require_mergeable(run, decided)
    if out is not None:
        _refuse_used(out)
    began = time.monotonic()
    merge(decided, run.adapter, target, rounding=rounding, progress=progress)
    seconds = time.monotonic() - began
    with aside():
        keep_merge_time(run, decided, seconds)
    write_text(target / "README.md", model_card(decided, merged=True))
    write_record(target / LINEAGE, decided.lineage())
    write_text(run.folder / "merged_to", str(target.resolve()))
    return target


def merge_weighted(
    runs: Sequence[Run],
    out: Path,
    weights: Sequence[float] = (),
    how: str = "linear",
    density: float | None = None,
    seed: int = 0,
    progress: Progress = quiet,
    *,
    rounding: Rounding = "stochastic",
) -> Merge:
    """Write a model of several adapters of one base, by weights, to `out`.

    Args:
        weights: of the runs, in their order; equal shares that add up to 1 where none are given.
        how: linear, ties, dare_linear or dare_ties (see docs/merge.md). density: share of each update that TIES and
            DARE keep. seed: of what DARE drops. rounding: as `merge`.

    Raises:
        UsageError: weights, density or `how` that cannot be meant.
        RunError: runs that are not finished, of different bases, held differently in training, or not mergeable.
        ModelError: adapters that are more than B times A. SpaceError: no room for the model.
    """
    from rankwise.export.blend import Blend
    from rankwise.export.merge import merge_weighted

    shares = tuple(weights) or tuple(1 / len(runs) for _ in runs)
    seeded = seed if how.startswith("dare") else None
    blend = Blend(how, shares, density, seeded)  # type: ignore[arg-type]  # Blend refuses what is no way
    if len(shares) != len(runs):
        raise UsageError(f"{len(shares)} weights for {len(runs)} runs", expected="one for each, in their order")
    plans = [require_finished(run).plan() for run in runs]
    for run, decided in zip(runs, plans, strict=True):
        _require_adapter(run, decided)
        _require_mergeable(run, decided)
    _require_one_base(runs, plans)
    _refuse_used(out)
    adapters = [run.adapter for run in runs]
    done = merge_weighted(plans[0], adapters, out, blend, rounding=rounding, progress=progress)
    write_text(out / "README.md", blend_card(done, plans))
    return done


def unmerge(run: Run, merged: Path, out: Path, progress: Progress = quiet) -> Merge:
    """Write the base's weights to `out`, made again from the folder `merged` without the run's adapter; the record
    says how far they lie from the base.

    Raises:
        RunError: as `merge`. ModelError: `merged` is no merge of this run. SpaceError: no room for the model.
    """
    from rankwise.export.merge import wanted_by
    from rankwise.export.unmerge import undo

    decided = require_finished(run).plan()
    _require_adapter(run, decided)
    _require_mergeable(run, decided)
    _refuse_used(out)
    facts = decided.facts.model
    done = undo(
        facts.path,
        run.adapter,
        merged,
        out,
        wanted_by(decided),
        base_hash=facts.weights_hash,
        progress=progress,
    )
    write_text(out / "README.md", _undone_card(decided))
    return done


def _undone_card(decided: Plan) -> str:
    license = decided.facts.model.license
    front = ["---", f"base_model: {decided.job.model}", *([f"license: {license}"] if license else []), "---", ""]
    return "\n".join([*front, f"# {decided.facts.model.name}, made again from a merge", ""])


def merge_record(folder: Path) -> Merge | None:
    """What made the weights of a folder; None where no merge did."""
    from rankwise.export.merge import MERGE

    return read_record(folder / MERGE, Merge) if (folder / MERGE).is_file() else None


def _require_mergeable(run: Run, decided: Plan) -> None:
    if never := refused(decided.verdict.method, "merge"):
        raise RunError(
            f"an adapter of {decided.verdict.method} cannot be merged: {never.why}",
            expected="a method that changes weights",
            fix=f"use {run.adapter} on its base, as eval, verify and chat do",
        )
    facts = decided.facts.model
    if not (facts.path / "config.json").is_file():
        raise RunError(
            f"the base of {run.folder} is gone: {facts.path}", fix="put it back where it was when the run began"
        )
    if facts.weights_hash is not None and weights_hash(facts.path) != facts.weights_hash:
        raise RunError(
            f"the base in {facts.path} is not the one that {run.folder} was trained on",
            expected=f"weights and config.json of hash {facts.weights_hash[:12]}",
            fix="put that base back; onto another one the adapter's update means nothing",
        )


def _require_adapter(run: Run, decided: Plan) -> None:
    if METHODS[decided.verdict.method].trains == "weights":
        raise RunError(
            f"{run.folder} trained the weights themselves ({decided.verdict.method})", expected="runs with an adapter"
        )


def _require_one_base(runs: Sequence[Run], plans: Sequence[Plan]) -> None:
    first = plans[0]
    for run, decided in zip(runs[1:], plans[1:], strict=True):
        if decided.facts.model.weights_hash != first.facts.model.weights_hash:
            raise RunError(
                f"{run.folder} was trained on another base ({decided.facts.model.name}) than {runs[0].folder} "
                f"({first.facts.model.name}): their hashes differ",
                expected="adapters of one base",
            )
        held = [TUNERS[p.verdict.method].base for p in (first, decided)]
        if held[0] != held[1]:
            raise RunError(
                f"{run.folder} was trained over the base held {held[1]}, {runs[0].folder} over it held {held[0]}",
                expected="adapters that were trained over the same values of the base",
                fix="train one of them again, as the other was",
            )
        if decided.facts.new_tokens != first.facts.new_tokens:
            raise RunError(f"{run.folder} adds other tokens to the vocabulary than {runs[0].folder}")


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is already in use", expected="a folder that is empty or not there yet")
