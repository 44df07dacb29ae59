"""Prove a run's files, publish the artifact."""

import time
from pathlib import Path
from typing import Any

from rankwise.api.loading import inference_dtype, load_inputs, load_tuned, require_finished
from rankwise.api.origins import checks_on_disk, concluded, planned_bytes, refresh_card
from rankwise.decide.compatibility import refused
from rankwise.errors import ModelError
from rankwise.files import hash_folder, write_record
from rankwise.methods import METHODS
from rankwise.records import Artifact, Check, Plan, Verification
from rankwise.store import Run
from rankwise.text.dataset import PROOF_ROWS, Dataset
from rankwise.text.template import ChatText


def verify(run: Run) -> tuple[Verification, Artifact | None]:
    """Prove the run's files; writes artifact.json only when every check passed, and removes a stale one otherwise.

    What lies on disk is looked at first: nothing is loaded from files that are damaged. The evidence in the cards is
    brought up to date before they are hashed.
    """
    from rankwise.export.proof import loadable

    decided = require_finished(run).plan()
    _, chat, data = load_inputs(decided)
    adapter = run.adapter if METHODS[decided.verdict.method].trains == "adapter" else None
    merged = merged_folder(run) if adapter else None
    folders = [f for f in (adapter or run.model, merged) if f]
    for folder in folders:
        refresh_card(run, folder)
    began = time.monotonic()
    checks = checks_on_disk(decided, chat, folders, decided.lineage(), planned_bytes(decided))
    if loadable(checks):
        checks += _loaded(run, decided, chat, data, merged)
    outcome = concluded(checks, began)
    if not outcome.passed:
        run.artifact_path.unlink(missing_ok=True)
        return outcome, None
    artifact = _artifact(run, decided, adapter, merged, outcome)
    write_record(run.artifact_path, artifact)
    return outcome, artifact


def _loaded(run: Run, decided: Plan, chat: ChatText, data: Dataset, merged: Path | None) -> list[Check]:
    """The checks of the loaded files; one that says so where they cannot be loaded."""
    from rankwise.export.proof import Subject, when_loaded
    from rankwise.model.load import load_base

    try:
        tuned, as_base = load_tuned(run, decided)
        model = load_base(merged, dtype=inference_dtype(decided)) if merged else None
    except ModelError as error:
        text = "The published files, loaded as others load them."
        return [Check(name="loads", passed=False, number=error.what, limit="they load", text=text)]
    return when_loaded(
        Subject(
            plan=decided,
            chat=chat,
            tuned=tuned,
            as_base=as_base,
            merged=model,
            unmerged=never.why if (never := refused(decided.verdict.method, "merge")) else "",
            rows=data.validation[:PROOF_ROWS],
            prompts=data.prompts(),
            conversations=[row.messages[: _first_answer(row)] for row in data.held_out[:4] if row.text is None],
            trained_logits=run.proof / "trained_logits.safetensors",
        )
    )


def _first_answer(row: Any) -> int:
    return next(i for i, message in enumerate(row.messages) if message["role"] == "assistant")


def merged_folder(run: Run) -> Path | None:
    """Where `merge` wrote to, if it still stands."""
    pointer = run.folder / "merged_to"
    folder = Path(pointer.read_text()) if pointer.is_file() else None
    return folder if folder and folder.is_dir() else None


def _artifact(run: Run, decided: Plan, adapter: Path | None, merged: Path | None, outcome: Verification) -> Artifact:
    model = merged if adapter else run.model
    folders = [f for f in (adapter, model) if f]
    return Artifact(
        kind="model" if adapter is None else "adapter" if merged is None else "adapter+merged",
        method=decided.verdict.method,
        adapter=_relative(run, adapter),
        model=_relative(run, model),
        base=decided.job.model,
        license=decided.facts.model.license,
        files={f"{_relative(run, f)}/{name}": digest for f in folders for name, digest in hash_folder(f).items()},
        verification=outcome,
        lineage=decided.lineage(),
    )


def _relative(run: Run, folder: Path | None) -> str | None:
    if folder is None:
        return None
    inside = folder.resolve().is_relative_to(run.folder.resolve())
    return str(folder.resolve().relative_to(run.folder.resolve())) if inside else str(folder.resolve())
