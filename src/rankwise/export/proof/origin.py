"""Where it comes from, as far as that can be seen again: hashes of what is on disk against the lineage, the base's
licence carried along, a model card with data, method, evidence and limits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rankwise.errors import RankwiseError
from rankwise.files import hash_file, read_record
from rankwise.records import Check, Lineage, ModelFacts
from rankwise.store import LINEAGE
from rankwise.text.files import LICENCE_FILES

CARD = "README.md"
SECTIONS = ("Data", "Method", "Evidence", "Limits")


class Traced(NamedTuple):
    """One origin.

    Attributes:
        what: such as `base weights`.
        recorded: its hash in the lineage; None: there was none.
        found: the hash of what is on disk now; None: it is not there, or cannot be read.
        may_be_gone: is it only told where it is not there?
    """

    what: str
    recorded: str | None
    found: str | None
    may_be_gone: bool = False


def lineage_holds(traced: Sequence[Traced], expected: Lineage, folders: Sequence[Path]) -> Check:
    """Hashes made again against those of the plan, and lineage.json beside the weights against `expected`."""
    gone = [t for t in traced if t.may_be_gone and t.found is None]
    wrong = [
        f"{t.what}: recorded {_short(t.recorded)}, found {_short(t.found)}"
        for t in traced
        if t not in gone and t.recorded != t.found
    ]
    for folder in folders:
        try:
            written = read_record(folder / LINEAGE, Lineage)
        except RankwiseError as error:
            wrong.append(error.what)
            continue
        if written != expected:
            wrong.append(f"{folder.name}/{LINEAGE} leads elsewhere than the plan does")
    return Check(
        name="lineage",
        passed=not wrong,
        number="; ".join(wrong) if wrong else _held([t for t in traced if t not in gone], gone),
        limit="all as recorded",
        text="Hashes of what is on disk against what the plan recorded, and lineage.json beside the weights.",
    )


def _held(held: Sequence[Traced], gone: Sequence[Traced]) -> str:
    told = "".join(f"; {t.what} is no longer there" for t in gone)
    return f"{', '.join(t.what for t in held)}: as recorded{told}"


def _short(digest: str | None) -> str:
    return "nothing" if digest is None else f"{digest[:12]}…"


def licence_carried(folder: Path, base: ModelFacts) -> Check:
    """The name in the card's front matter, and the licence files that the base has. Unknown is told, and passes."""
    wrong = []
    if base.license is not None and (named := front_matter(folder / CARD).get("license")) != base.license:
        wrong.append(f"the card names {named}")
    here = [name for name in LICENCE_FILES if (base.path / name).is_file()]
    for name in here:
        copy = folder / name
        if not copy.is_file() or hash_file(copy) != hash_file(base.path / name):
            wrong.append(f"{name} of the base is not carried along")
    known = base.license or "unknown: the base's card names none"
    return Check(
        name=f"licence_{folder.name}",
        passed=not wrong,
        number="; ".join(wrong) if wrong else ", ".join([known, *here]),
        limit="that of the base",
        text=f"Licence of the base in {folder.name}/.",
    )


def card_complete(folder: Path, base: str) -> Check:
    """A card is there, names the base, and has every section."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lacking = [f"no section {s}" for s in SECTIONS if f"\n## {s}\n" not in text]
    if (named := front_matter(path).get("base_model")) != base:
        lacking.append(f"its base_model is {named}, not {base}")
    return Check(
        name=f"card_{folder.name}",
        passed=bool(text) and not lacking,
        number="there is no README.md" if not text else "; ".join(lacking) or f"sections {', '.join(SECTIONS)}",
        limit="base_model and every section",
        text=f"Model card of {folder.name}/.",
    )


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML at the head of a card; empty where there is none that can be read."""
    if not card.is_file():
        return {}
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
