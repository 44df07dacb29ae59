"""Every help text: an example that parses, and options under headings where there are many."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from rankwise.cli import app

MANY = 10


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


ALL = dict(commands(typer.main.get_command(app)))


def examples(help_: str) -> list[list[str]]:
    found = re.findall(r"`(rankwise [^`]+)`", help_)
    return [shlex.split(" ".join(example.split())) for example in found]


def test_all_of_them_are_looked_at() -> None:
    assert {"plan", "serve", "tenants add", "tenants limits", "doctor"} <= ALL.keys() and len(ALL) >= 29


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_a_command_has_an_example_of_it_that_parses(name: str) -> None:
    own = [e for e in examples(ALL[name].help) if e[1 : 1 + len(name.split())] == name.split()]
    assert own, f"no example of `rankwise {name}` in its help"
    for example in own:
        ALL[name].make_context(name, example[1 + len(name.split()) :])


@pytest.mark.parametrize("name", ALL)
def test_many_options_stand_under_headings(name: str) -> None:
    options = [p for p in ALL[name].params if p.param_type_name == "option"]
    bare = [p.name for p in options if p.rich_help_panel is None]
    assert len(bare) <= MANY, f"{len(bare)} options of `rankwise {name}` stand under no heading: {bare}"
    assert {"as_json", "debug"} <= {p.name for p in options}


def test_every_option_says_what_it_is() -> None:
    silent = [f"{name} {p.name}" for name, found in ALL.items() for p in found.params if not p.help]
    assert not silent
