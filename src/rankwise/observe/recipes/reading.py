"""Files into keys with their lines: YAML and JSON (which is YAML), read as the tools read them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rankwise.errors import RecipeError
from rankwise.records.recipe import Origin


@dataclass(frozen=True)
class Said:
    """One key as it was given."""

    value: Any
    line: int | None = None
    origin: Origin = "file"


@dataclass(frozen=True)
class Launch:
    """What the launcher decides. None: it does not say.

    Attributes:
        devices: of a node. parallel, offload: as `rankwise estimate` names them.
        cpu: no GPU at all. recomputes: FSDP's own activation checkpointing is on.
        notes: what was taken from a file's name because the file is not here.
    """

    devices: int | None = None
    nodes: int | None = None
    parallel: str | None = None
    offload: str | None = None
    cpu: bool = False
    recomputes: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A configuration before its tool is asked what it means.

    Attributes:
        path: the file; None: arguments alone.
        said: key -> value and where it stands. inner: path of a nested key -> line.
        twice: (key, first line, line that wins).
        missing: variables of a script that nothing sets.
        secrets: (key, line) of secrets that stand outside of a setting.
    """

    path: Path | None
    said: dict[str, Said]
    inner: dict[tuple[str, ...], int] = field(default_factory=dict)
    twice: tuple[tuple[str, int, int], ...] = ()
    launch: Launch = Launch()
    missing: tuple[str, ...] = ()
    secrets: tuple[tuple[str, int | None], ...] = ()
    commands: int = 1

    def where(self, key: str) -> str:
        """file:line of a key, for a message."""
        found = self.said.get(key)
        if found is None or found.line is None:
            return f"{self.path or 'arguments'}: {key}"
        return f"{self.path}:{found.line}: {key}"

    @property
    def folder(self) -> Path:
        return self.path.resolve().parent if self.path else Path.cwd()


def read_text(path: Path) -> str:
    """Raises RecipeError for what is no text file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror or error}", fix="give the path of a configuration file"
        ) from None


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `2e-5` is a number, as it is to Axolotl's schema and to argparse."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_mapping(path: Path, text: str) -> Source:
    """A YAML or JSON mapping. Raises RecipeError with the line at fault."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(
            f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or 'cannot be read'}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid YAML: {type(error).__name__}") from None
    if not isinstance(content, dict) or not isinstance(root, yaml.MappingNode):
        raise RecipeError(
            f"{path} holds no mapping of keys",
            expected="a configuration of Axolotl, LLaMA-Factory or TRL (YAML or JSON), or a script that starts a run",
        )
    inner: dict[tuple[str, ...], int] = {}
    twice: list[tuple[str, int, int]] = []
    _walk(root, (), inner, twice, 0)
    said = {str(k): Said(v, inner.get((str(k),))) for k, v in content.items()}
    return Source(path, said, inner, tuple(twice))


def _walk(
    node: yaml.Node,
    at: tuple[str, ...],
    lines: dict[tuple[str, ...], int],
    twice: list[tuple[str, int, int]],
    deep: int,
) -> None:
    """The line of every key, and keys that stand twice in one mapping. Anchors can hold themselves: 40 levels do."""
    if deep > 40:
        return
    if isinstance(node, yaml.SequenceNode):
        for number, part in enumerate(node.value):
            _walk(part, (*at, str(number)), lines, twice, deep + 1)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        here = (*at, str(key.value))
        line = key.start_mark.line + 1
        if here[-1] in seen:
            twice.append((".".join(here), lines[here], line))
        seen.add(here[-1])
        lines[here] = line
        _walk(value, here, lines, twice, deep + 1)


def scalar(text: str) -> Any:
    """A word of a command line, as YAML has it: numbers, booleans, null, lists in brackets; else the word."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, bool | int | float | list | dict) else text
