"""The file of finished comparisons, which later plans cite: one JSON line each, in `comparisons.jsonl` of the cache
folder. The environment variable RANKWISE_COMPARISONS names another file, or says `off`: nothing is read and nothing is
written then.

Only the newest LATEST comparisons of a base are looked at; of one that was finished twice in one folder, the last."""

import os
from pathlib import Path

from pydantic import ValidationError

from rankwise.files import append_lines, cache_folder, cannot_append
from rankwise.records import Bakeoff, Outcome, Past, PastArm, PastComparison, PastContrast
from rankwise.store import now
from rankwise.version import __version__

VARIABLE = "RANKWISE_COMPARISONS"
LATEST = 10


def evidence_path() -> Path | None:
    """Where the file is; None when it is switched off."""
    said = os.environ.get(VARIABLE)
    if said == "off":
        return None
    return Path(said) if said else cache_folder() / "comparisons.jsonl"


def remember(bakeoff: Bakeoff, outcome: Outcome, folder: Path) -> bool:
    """Add a finished comparison to the file, on disk before this returns.

    Returns:
        False where nothing was added: the file is switched off, or the base has no hash to be found by again.

    Raises:
        RunError: the file cannot be written. SpaceError: the disk is full.
    """
    path = evidence_path()
    if path is None or bakeoff.base_hash is None:
        return False
    try:
        append_lines(path, [entry_of(bakeoff, outcome, folder).model_dump_json()])
    except OSError as error:
        raise cannot_append(path, error, "the file of comparisons", VARIABLE) from None
    return True


def entry_of(bakeoff: Bakeoff, outcome: Outcome, folder: Path) -> PastComparison:
    """What a later plan needs of a comparison: each arm's rate, and each side's first metric. The base has a hash."""
    assert bakeoff.base_hash is not None
    first = {c.side: c.metric for c in reversed(outcome.contrasts)}
    results = {result.arm: result for result in outcome.results}
    return PastComparison(
        at=now(),
        folder=str(folder.resolve()),
        model=bakeoff.job.model,
        base_hash=bakeoff.base_hash,
        goal=bakeoff.job.goal,
        domain=bakeoff.job.data.domain,
        unit=bakeoff.unit,
        budget=bakeoff.budget,
        seeds=len(bakeoff.seeds),
        arms=tuple(
            PastArm(
                name=a.arm.name,
                method=a.arm.method.name if a.arm.method else None,
                r=a.config.r if a.config else None,
                learning_rate=results[a.arm.name].learning_rate,
                tried=max(1, len(a.learning_rates)),
                at_the_edge=results[a.arm.name].at_the_edge,
                steps=a.steps,
            )
            for a in bakeoff.allowances
            if a.arm.name in results
        ),
        contrasts=tuple(
            PastContrast(
                metric=c.metric,
                unit=c.unit,
                side=c.side,
                first=c.first,
                second=c.second,
                difference=c.difference,
                interval=c.adjusted,
                answer=c.answer,
                seeds=c.seeds,
            )
            for c in outcome.contrasts
            if c.metric == first[c.side]
        ),
        bakeoff_hash=outcome.bakeoff_hash,
        rankwise_version=__version__,
    )


def past_of(base_hash: str | None) -> Past | None:
    """What is on file, seen from a job on this base; None where nothing is."""
    found, unreadable = _read()
    if not found and not unreadable:
        return None
    here = [entry for entry in found if base_hash is not None and entry.base_hash == base_hash]
    return Past(
        here=tuple(reversed(here[-LATEST:])),
        elsewhere=tuple(entry.model for entry in found if entry not in here),
        unreadable=unreadable,
    )


def _read() -> tuple[list[PastComparison], int]:
    """(comparisons, oldest first, one for each folder and plan; lines that are none)."""
    path = evidence_path()
    try:
        lines = path.read_bytes().splitlines() if path else []
    except OSError:
        return [], 0
    found: dict[tuple[str, str], PastComparison] = {}
    unreadable = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = PastComparison.model_validate_json(line)
        except ValidationError:
            unreadable += 1
            continue
        found[entry.folder, entry.bakeoff_hash] = entry
    return sorted(found.values(), key=lambda entry: entry.at), unreadable
