"""Look at what somebody trained: spectra, findings, and its losses beside those of its base."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.api.matching import require_match
from rankwise.api.measuring import Beside
from rankwise.api.progress import Progress, quiet
from rankwise.api.subjects import Subject, Weights, find_subject, named_base
from rankwise.errors import ModelError, RunError, UsageError
from rankwise.files import write_record, write_text
from rankwise.model.locate import locate
from rankwise.records import Event, ModuleSpectrum, SpectrumSeen, Watching
from rankwise.store import Run
from rankwise.watch.findings import find
from rankwise.watch.forgotten import forgotten
from rankwise.watch.spectra import sum_up
from rankwise.watch.spectral_findings import SPECTRAL_FINDINGS

NO_BASE = "norm ratios and intruders need the base: name it with --base"


def watch(
    folder: Path,
    *,
    base: str | None = None,
    data: Path | None = None,
    general: Path | None = None,
    forgetting: bool = False,
    adapter_only: bool = False,
    truncate: bool = False,
    also: Sequence[int] = (),
    progress: Progress = quiet,
) -> Watching:
    """What can be said of a folder.

    Args:
        folder: a run of ours, output of transformers' Trainer, an adapter that PEFT wrote, or a whole model.
        base: hub id, folder or `embedded`; None: what the run or the adapter names, where that is here.
        data: rows of the task, held out: the loss on them beside the base's. A run of ours has its own.
        general: everyday rows: their loss beside the base's is forgetting.
        forgetting: ask base and tuned model texts and questions of our own, where no `general` is given.
        adapter_only: leave the base alone: no norm ratios and no intruders, but within seconds.
        truncate: how much of the gain is left at lower ranks?
        also: further ranks to try.

    Raises:
        RunError, ModelError, DataError: nothing to watch, base and adapter that do not match, bad files or rows.
    """
    began = time.monotonic()
    subject = find_subject(folder)
    needs_base = bool(data or general or forgetting or truncate)
    if adapter_only and needs_base:
        raise UsageError("losses are taken beside those of the base", fix="leave --adapter-only or the rows out")
    base_folder, notes = (None, []) if adapter_only else _base(subject, base, needs_base)
    matched = require_match(subject, base_folder) if base_folder and subject.last else _unmatched(subject)
    seen, no_spectrum, more = _spectra(subject, base_folder, progress)
    events, beside = _with_spectra(subject.events, seen), Beside(subject, base_folder, progress)
    compared = (beside.heldout(data),) if data else ()
    if general or forgetting:
        events.append(beside.ability(general))
    truncation = beside.truncated(data, also) if truncate else None
    result = Watching(
        folder=str(folder),
        kind=subject.kind,
        method=_method(subject),
        step=subject.last.step if subject.last else None,
        base=str(base_folder) if base_folder else None,
        matched=matched,
        spectrum=sum_up(events),
        no_spectrum=no_spectrum if sum_up(events) is None else None,
        modules=next((e.modules for e in reversed(events) if isinstance(e, SpectrumSeen)), ()),
        comparisons=compared,
        forgetting=forgotten(subject.plan, events),
        truncation=truncation,
        findings=(*subject.faults, *find(subject.plan, events)),
        notes=(*subject.notes, *notes, *more, *beside.notes),
        seconds=time.monotonic() - began,
    )
    if subject.kind == "run":
        _keep(Run.open(folder), result)
    return result


def watched_folder(folder: Path) -> Path:
    """The folder itself, or the run of that name below runs/. Raises RunError where there is neither."""
    if not folder.exists() and (Path("runs") / folder).is_dir():
        return Path("runs") / folder
    if not folder.is_dir():
        raise RunError(
            f"there is no folder {folder}", fix="give the folder of a run, of an adapter, or that a Trainer wrote into"
        )
    return folder


def write_watching(found: Watching, page: Path) -> Path:
    """The page of what was found, as one file."""
    from rankwise.report.watch_page import watch_page
    from rankwise.version import __version__

    write_text(page, watch_page(found, version=__version__))
    return page


def _keep(run: Run, found: Watching) -> None:
    """What the base adds to a finished run's spectra belongs to its evidence; findings of other kinds stay."""
    if run.state() != "finished" or not run.evidence_path.is_file() or found.spectrum is None:
        return
    evidence = run.evidence()
    ours = {finding.__name__ for finding in SPECTRAL_FINDINGS}
    findings = [f for f in evidence.findings if f.name not in ours] + [f for f in found.findings if f.name in ours]
    changed = {"spectrum": found.spectrum, "findings": tuple(findings)}
    write_record(run.evidence_path, evidence.model_copy(update=changed))


def _method(subject: Subject) -> str:
    if subject.plan is not None:
        return subject.plan.verdict.method
    if subject.last is None:
        return "unknown"
    if not subject.last.adapter:
        return "full"
    from rankwise.model.adapterproducts import AdapterFolder

    return AdapterFolder.open(subject.last.folder).method


def _base(subject: Subject, asked: str | None, needed: bool) -> tuple[Path | None, list[str]]:
    """(folder, notes): what was asked for, else what the run or the adapter names, where it is on this machine."""
    if asked is not None:
        return locate(asked, tokenizer=needed), []
    if subject.plan is not None:
        return locate(str(subject.plan.facts.model.path), tokenizer=needed), []
    named = named_base(subject.last) if subject.last else None
    if named is None:
        if needed:
            raise UsageError(f"the base of {subject.folder} is not known", fix="name it with --base")
        return None, [NO_BASE]
    try:
        return locate(named, download=False, tokenizer=needed), []
    except ModelError as error:
        if needed:
            raise
        return None, [f"the base that the adapter names is not used: {error.what}. {NO_BASE[0].upper()}{NO_BASE[1:]}"]


def _unmatched(subject: Subject) -> str:
    return "the base was not read" if subject.last else "no weights were read"


def _spectra(
    subject: Subject, base_folder: Path | None, progress: Progress
) -> tuple[list[SpectrumSeen], str | None, list[str]]:
    """(spectra by step, why there are none, notes)"""
    from rankwise.watch.directions import Base

    base = Base(base_folder) if base_folder else None
    seen, why, notes = [], None, list[str]()
    for weights in subject.weights:
        began = time.monotonic()
        found, why, notes = _spectrum_of(weights, base, progress)
        if found:
            step = 0 if weights.step is None else weights.step
            seen.append(SpectrumSeen(time="", step=step, modules=found, seconds=time.monotonic() - began))
    return seen, why, notes


def _spectrum_of(
    weights: Weights, base: Any, progress: Progress
) -> tuple[tuple[ModuleSpectrum, ...], str | None, list[str]]:
    from rankwise.model.adapterproducts import AdapterFolder
    from rankwise.watch.directions import Base
    from rankwise.watch.spectrum import adapter_spectra, model_spectra

    if weights.adapter:
        adapter = AdapterFolder.open(weights.folder)
        if why := adapter.no_spectrum():
            return (), why, []
        spectra, notes = list(adapter_spectra(adapter, base, progress)), adapter.remarks()
    elif base is None:
        return (), "the spectrum of a whole model is that of its difference to the base, which was not named", []
    else:
        spectra, notes = list(model_spectra(Base(weights.folder), base, progress)), []
    left_out = [module for module, found in spectra if found is None]
    if left_out:
        notes.append(f"{len(left_out)} weights could not be compared with the base: {', '.join(left_out[:3])}")
    return tuple(found for _, found in spectra if found is not None), None, notes


def _with_spectra(events: Sequence[Event], seen: Sequence[SpectrumSeen]) -> list[Event]:
    """Spectra of kept weights among the run's own events; those of later steps are of weights that were not kept."""
    if not seen:
        return list(events)
    steps, last = {e.step for e in seen}, seen[-1].step
    kept = [e for e in events if not isinstance(e, SpectrumSeen)]
    told = [e for e in events if isinstance(e, SpectrumSeen) and e.step not in steps and e.step < last]
    return [*kept, *sorted([*told, *seen], key=lambda e: e.step)]
