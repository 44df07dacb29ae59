"""The fenced blocks of the pages, with what the page says of each in a comment above it."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
SHELL = ("sh", "bash")
MARK = re.compile(r"<!-- (not run|file|may exit 3): (\S.*?) -->")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        kind: its info string, such as `python` or `jsonl messages`.
        where: `page:line` of its first line.
        marks: `not run`, `file` and `may exit 3`, with what the comments above it say of each.
    """

    kind: str
    text: str
    where: str
    marks: dict[str, str]

    @property
    def language(self) -> str:
        return self.kind.partition(" ")[0]

    @property
    def runs(self) -> bool:
        """Is it one that can be run, and is?"""
        return self.language in (*SHELL, "python") and "not run" not in self.marks


def name(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)


def blocks(page: Path) -> list[Block]:
    found, opened, kind, lines = [], 0, "", list[str]()
    marks = dict[str, str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened and not line.startswith("```"):
            lines.append(line)
        elif opened:
            found.append(Block(kind, "\n".join(lines) + "\n", f"{name(page)}:{opened + 1}", marks))
            opened, marks = 0, {}
        elif line.startswith("```"):
            opened, kind, lines = number, line[3:].strip(), []
        elif mark := MARK.fullmatch(line.strip()):
            marks = {**marks, mark[1]: mark[2]}
        else:
            assert not marks, f"{name(page)}:{number}: a comment on a block stands away from its block"
    assert not opened, f"{name(page)}:{opened}: a fenced block is not closed"
    return found


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def calls(block: Block) -> list[list[str]]:
    """The commands of a shell block, one after the other, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [call for call in words if call]
