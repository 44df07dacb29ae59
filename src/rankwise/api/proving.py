"""Prove a run's files, publish the artifact."""

from pathlib import Path
from typing import Any

from rankwise.api.loading import inference_dtype, load_inputs, load_tuned, require_finished
from rankwise.decide.compatibility import refused
from rankwise.methods import METHODS
from rankwise.records import Artifact, Plan, Verification
from rankwise.store import Run, hash_folder, write_record
from rankwise.text.dataset import PROOF_ROWS


def verify(run: Run) -> tuple[Verification, Artifact | None]:
    """Prove the run's files; writes artifact.json only when every check passed, and removes a stale one otherwise."""
    from rankwise.export.verify import Subject, verify
    from rankwise.model.load import load_base

    decided = require_finished(run).plan()
    _, chat, data = load_inputs(decided)
    tuned, as_base = load_tuned(run, decided)
    adapter = run.adapter if METHODS[decided.verdict.method].trains == "adapter" else None
    merged = merged_folder(run) if adapter else None
    conversations = [row.messages[: _first_answer(row)] for row in data.held_out[:4] if row.text is None]
    outcome = verify(
        Subject(
            plan=decided,
            chat=chat,
            tuned=tuned,
            as_base=as_base,
            merged=load_base(merged, dtype=inference_dtype(decided)) if merged else None,
            unmerged=never.why if (never := refused(decided.verdict.method, "merge")) else "",
            rows=data.validation[:PROOF_ROWS],
            prompts=data.prompts(),
            conversations=conversations,
            trained_logits=run.proof / "trained_logits.safetensors",
            folders=[f for f in (adapter or run.model, merged) if f],
        )
    )
    if not outcome.passed:
        run.artifact_path.unlink(missing_ok=True)
        return outcome, None
    artifact = _artifact(run, decided, adapter, merged, outcome)
    write_record(run.artifact_path, artifact)
    return outcome, artifact


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
