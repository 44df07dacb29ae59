"""Look at what somebody trained: spectra, findings, and its losses beside those of its base."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.api.loading import always, load_inputs, load_tuned
from rankwise.api.matching import require_match
from rankwise.api.progress import Progress, quiet
from rankwise.api.subjects import Subject, Weights, find_subject, named_base
from rankwise.errors import ModelError, RunError, UsageError
from rankwise.model.locate import locate
from rankwise.records import Comparison, Event, ModuleSpectrum, SpectrumSeen, Truncation, Watching
from rankwise.store import Run, write_record, write_text
from rankwise.watch.findings import find
from rankwise.watch.spectra import sum_up
from rankwise.watch.spectral_findings import SPECTRAL_FINDINGS

MOST_ROWS = 256  # of a file that losses are taken of
NO_BASE = "norm ratios and intruders need the base: name it with --base"


def watch(
    folder: Path,
    *,
    base: str | None = None,
    data: Path | None = None,
    general: Path | None = None,
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
        adapter_only: leave the base alone: no norm ratios and no intruders, but within seconds.
        truncate: how much of the gain is left at lower ranks?
        also: further ranks to try.

    Raises:
        RunError, ModelError, DataError: nothing to watch, base and adapter that do not match, bad files or rows.
    """
    began = time.monotonic()
    subject = find_subject(folder)
    needs_base = bool(data or general or truncate)
    if adapter_only and needs_base:
        raise UsageError("losses are taken beside those of the base", fix="leave --adapter-only or the rows out")
    base_folder, notes = (None, []) if adapter_only else _base(subject, base, needs_base)
    matched = require_match(subject, base_folder) if base_folder and subject.last else _unmatched(subject)
    seen, no_spectrum, more = _spectra(subject, base_folder, progress)
    events = _with_spectra(subject.events, seen)
    rows = _Rows(subject, base_folder, progress)
    comparisons = [*rows.compared("heldout_loss", data), *rows.compared("general_loss", general)]
    truncation = rows.truncated(data, also) if truncate else None
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
        comparisons=tuple(comparisons),
        truncation=truncation,
        findings=(*subject.faults, *find(subject.plan, events)),
        notes=(*subject.notes, *notes, *more, *rows.notes),
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


class _Rows:
    """Losses of tuned and base on rows; the models are loaded when the first rows are asked for."""

    def __init__(self, subject: Subject, base: Path | None, progress: Progress):
        self.subject, self.base, self.progress = subject, base, progress
        self.notes: list[str] = []
        self._pair: Any = None

    def compared(self, metric: str, rows: Path | None) -> list[Comparison]:
        """Nothing where no rows were given."""
        if rows is None:
            return []
        from rankwise.evaluate.paired import compare_losses

        encoded = self._encoded(rows)
        pair = self._loaded()
        before, after = pair.losses(metric.replace("_", " "), encoded, None)
        return [compare_losses(metric, before, after, f"cross-entropy of the answers of {len(encoded)} rows of {rows}")]

    def truncated(self, rows: Path | None, also: Sequence[int]) -> Truncation | None:
        """On the given rows, else on the held-out ones of our own run."""
        from rankwise.evaluate.truncation import truncate

        plan = self.subject.plan
        if self.subject.last is None or not self.subject.last.adapter:
            raise UsageError(
                f"{self.subject.folder} holds no adapter to cut", expected="a LoRA adapter", fix="leave --truncate out"
            )
        if rows is None and plan is None:
            raise UsageError("what a rank is worth is measured on held-out rows", fix="give them with --data")
        autocast = None
        if rows is None and plan is not None:
            config, _, data = load_inputs(plan)
            encoded, autocast = data.validation[:MOST_ROWS], config.autocast
        else:
            assert rows is not None
            encoded = self._encoded(rows)
        pair = self._loaded()
        found = truncate(pair.tuned, pair.as_base, encoded, autocast, self.progress, also)
        if found is None:
            self.notes.append("the adapter has no B and A that could be cut to a lower rank")
        return found

    def _encoded(self, rows: Path) -> Any:
        from rankwise.text.tokens import tokens_of

        store = tokens_of(rows, self._chat(), 0, self.progress)
        store.require_sound()
        whole = store.whole()
        if len(whole) > MOST_ROWS:
            self.notes.append(f"of the {len(whole)} rows of {rows} the first {MOST_ROWS} were looked at")
        return [whole[i] for i in range(min(len(whole), MOST_ROWS))]

    def _chat(self) -> Any:
        from rankwise.text.template import ChatText

        if self.subject.plan is not None:
            return ChatText.for_job(self.subject.plan.job, self.subject.plan.facts.model.path)
        assert self.base is not None
        return ChatText.from_folder(self.base)

    def _loaded(self) -> Any:
        from rankwise.evaluate.pair import Pair

        if self._pair is None:
            self._pair = Pair(self._chat(), *self._models(), self.progress)
        return self._pair

    def _models(self) -> tuple[Any, Any]:
        """(tuned, how to get the untouched base)"""
        from rankwise.model.attach import load_adapter, untouched
        from rankwise.model.load import load_base
        from rankwise.observe.model import observe_model

        last, plan = self.subject.last, self.subject.plan
        run = Run(self.subject.folder)
        if plan is not None and last is not None and last.folder in (run.adapter, run.model):
            return load_tuned(run, plan)
        if last is None or self.base is None:
            raise UsageError(f"no weights lie in {self.subject.folder}, so no loss can be taken", fix="leave rows out")
        dtype: Any = "bf16" if observe_model(str(self.base)).dtype == "bf16" else "fp32"
        base = load_base(self.base, dtype=dtype)
        if not last.adapter:
            return load_base(last.folder, dtype=dtype), lambda: always(base)
        tuned = load_adapter(base, last.folder)
        return tuned, lambda: untouched(tuned)
