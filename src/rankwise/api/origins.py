"""What the proof sees on disk: published folders, where they came from by hashes made again, their cards."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankwise.errors import RankwiseError
from rankwise.files import hash_file, write_text
from rankwise.methods import METHODS
from rankwise.observe.model import weights_hash
from rankwise.observe.parents import WEIGHTS
from rankwise.records import Check, Lineage, Parent, Plan, Verification, content_hash
from rankwise.report.card import with_evidence
from rankwise.store import Run
from rankwise.text.sources import hash_source
from rankwise.text.template import ChatText

if TYPE_CHECKING:
    from rankwise.export.proof import Traced


def checks_on_disk(
    decided: Plan, chat: ChatText, folders: Sequence[Path], lineage: Lineage, adapter_bytes: int | None
) -> list[Check]:
    """The checks that need no model in memory, of a run's folders.

    Args:
        lineage: what lineage.json beside the weights must say.
        adapter_bytes: of an adapter's file, as it was predicted; None: it was not.
    """
    from rankwise.export.proof import Published, on_disk

    adapter = METHODS[decided.verdict.method].trains == "adapter"
    published = [
        Published(
            folder=folder,
            whole=not adapter or number > 0,  # an adapter's folder stands before that of the merged model
            base=decided.facts.model,
            new_tokens=decided.facts.new_tokens,
            predicted_bytes=adapter_bytes,
        )
        for number, folder in enumerate(folders)
    ]
    return on_disk(decided, chat, published, traced(decided), lineage)


def planned_bytes(decided: Plan) -> int | None:
    """Of the adapter's file; None for a full model, or where the plan did not say."""
    priced = decided.chosen()
    return priced.storage.adapter_bytes if priced else None


def traced(decided: Plan) -> "list[Traced]":
    """Base weights, data, chat template and parent, each with the hash that was recorded and the one of today."""
    from rankwise.export.proof import Traced

    model, files = decided.facts.model, decided.facts.data.files
    now = {source: _hash(Path(source)) for source in files}
    found = [
        Traced("base weights", decided.base_hash, _weights(model.path)),
        *(Traced(f"data {source}", digest, now[source]) for source, digest in files.items()),
        Traced("all data", decided.data_hash, None if None in now.values() else content_hash(now)),
        Traced("chat template", model.template_hash, _template(decided)),
    ]
    if decided.facts.parent is not None:
        found.append(_parent(decided.facts.parent))
    return found


def _hash(source: Path) -> str | None:
    try:
        return hash_source(source)
    except (RankwiseError, OSError):
        return None


def _weights(folder: Path) -> str | None:
    try:
        return weights_hash(folder)
    except (RankwiseError, OSError):
        return None


def _template(decided: Plan) -> str | None:
    """Of the base, or of the job where it gives one."""
    try:
        return ChatText.for_job(decided.job, decided.facts.model.path).template_hash
    except RankwiseError:
        return None


def _parent(parent: Parent) -> "Traced":
    from rankwise.export.proof import Traced

    folder = Path(parent.folder)
    file = folder / WEIGHTS
    digest = (hash_file(file) if file.is_file() else None) if parent.kind == "adapter" else _weights(folder)
    return Traced(f"parent {parent.kind} {folder}", parent.weights, digest, may_be_gone=True)


def refresh_card(run: Run, folder: Path) -> None:
    """What a run's evidence says, written into the card of `folder` where the card has a place for it."""
    card = folder / "README.md"
    if card.is_file():
        evidence = run.evidence() if run.evidence_path.is_file() else None
        text = card.read_text(encoding="utf-8", errors="replace")
        if (new := with_evidence(text, evidence)) != text:
            write_text(card, new)


def concluded(checks: Sequence[Check], began: float) -> Verification:
    """`began`: by the monotonic clock."""
    seconds = time.monotonic() - began
    return Verification(passed=all(c.passed for c in checks), checks=tuple(checks), seconds=seconds)
