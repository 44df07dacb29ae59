"""Pages that are made from the package each time the site is built: its verbs, its records, its commands.

A page holds a line `<!-- made here: NAME -->`; what `NAME` makes takes its place, so that it cannot be out of date.
"""

import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

import typer
from pydantic.fields import FieldInfo
from pygments.lexers.data import JsonLexer
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import rankwise
from rankwise import records
from rankwise.cli import app as commands
from rankwise.records import Record

MARK = re.compile(r"^<!-- made here: (\w+) -->$", re.MULTILINE)


def verbs() -> Iterator[str]:
    """Every public function of `rankwise`, with its signature and docstring."""
    for name in rankwise.__all__:
        thing = getattr(rankwise, name)
        if isinstance(thing, type) and not issubclass(thing, Record):
            yield f"## {name}\n\n```{{eval-rst}}\n.. autoclass:: rankwise.{name}\n   :members:\n```\n"
        elif callable(thing) and not isinstance(thing, type):
            yield f"## {name}\n\n```{{eval-rst}}\n.. autofunction:: rankwise.{name}\n```\n"


def job_keys() -> Iterator[str]:
    """The keys of a job, block by block."""
    yield from _table(records.Job, "A job")
    for key, field in records.Job.model_fields.items():
        for block in _records_in(field.annotation):
            yield from _table(block, f"`{key}`")


def other_records() -> Iterator[str]:
    for name in records.__all__:
        thing = getattr(records, name)
        if isinstance(thing, type) and issubclass(thing, Record) and thing is not Record:
            yield from _table(thing, name)


def _records_in(annotation: Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in _records_in(part)]


def _table(record: type[Record], title: str) -> Iterator[str]:
    says = (record.__dict__.get("__doc__") or "").strip().partition("\n\n")[0]
    yield f"## {title}\n\n{_prose(' '.join(says.split()))}\n"
    described = any(field.description for field in record.model_fields.values())
    yield "| key | type | default |" + (" what it says |" if described else "")
    yield "| --- | --- | --- |" + (" --- |" if described else "")
    for key, field in record.model_fields.items():
        row = f"| `{key}` | `{_type(field.annotation)}` | {_default(field)} |"
        yield row + (f" {_cell(field.description or '')} |" if described else "")
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return "its own" if isinstance(value, Record) else _cell(f"`{value!r}`")


def _type(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return _cell(" | ".join(str(value) for value in typing.get_args(annotation)))
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return _cell(re.sub(r"\b(?:rankwise|typing|pathlib|datetime|types)\.(?:\w+\.)*", "", str(annotation)))


def _cell(text: str) -> str:
    """Text of a cell on one line, shortened where it is a long default."""
    text = " ".join(text.split())
    return (text if len(text) < 200 else text[:160] + "…`").replace("|", "\\|")


def command_lines() -> Iterator[str]:
    """Every command with its options, as `--help` has them."""
    yield from _command("rankwise", typer.main.get_command(commands))


def _command(path: str, command: Any) -> Iterator[str]:
    for name, below in getattr(command, "commands", {}).items():
        yield f"## {path} {name}\n\n{_prose(below.help or '')}\n"
        if not hasattr(below, "commands"):
            yield from _options(below)
        yield from _command(f"{path} {name}", below)


def _options(command: Any) -> Iterator[str]:
    rows = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
    if rows:
        yield "| option | what it does |\n| --- | --- |"
    for option in rows:
        names = ", ".join(f"`{n}`" for n in (*option.opts, *option.secondary_opts))
        shown = names if option.param_type_name == "option" else f"`{option.name.upper()}`"
        yield f"| {shown} | {_cell(_prose(getattr(option, 'help', None) or ''))} |"
    yield ""


def _prose(text: str) -> str:
    """Help text as Markdown: what it writes in angle brackets are no tags."""
    return re.sub(r"\[/?[a-z]+\]", "", text).replace("\b", "").replace("<", "\\<").replace("*", "\\*").strip()


MAKERS: dict[str, Callable[[], Iterator[str]]] = {
    "verbs": verbs,
    "job_keys": job_keys,
    "records": other_records,
    "commands": command_lines,
}


def make(_: Sphinx, __: str, source: list[str]) -> None:
    source[0] = MARK.sub(lambda mark: "\n".join(MAKERS[mark[1]]()), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", make)
    for name in ("jsonl", "jsonc"):
        app.add_lexer(name, JsonLexer)
    for name in ("tree", "verdict"):
        app.add_lexer(name, TextLexer)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
