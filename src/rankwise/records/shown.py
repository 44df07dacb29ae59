"""How a value shows itself to a person, said by whoever may know: records and folders know of no page and no words."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Showing(NamedTuple):
    """Both ways to show a kind of value.

    Attributes:
        text: the value as lines, for a terminal.
        html: the value as a fragment of HTML, escaped and with its own style, for a notebook.
    """

    text: Callable[[Any], str]
    html: Callable[[Any], str]


_SHOWN: dict[type, Showing] = {}


def show_as(kind: type, showing: Showing) -> None:
    """From now on values of this kind are shown so."""
    _SHOWN[kind] = showing


class Shown:
    """A value that a person may look at; as its class is written, unless `show_as` said otherwise."""

    def __repr__(self) -> str:
        found = _SHOWN.get(type(self))
        return found.text(self) if found else super().__repr__()

    def __str__(self) -> str:
        return repr(self) if type(self) in _SHOWN else super().__str__()

    def _repr_html_(self) -> str | None:
        """What notebooks ask for; None: they take the text."""
        found = _SHOWN.get(type(self))
        return found.html(self) if found else None

    def __rich__(self) -> Any:
        """What rich's `print` asks for."""
        from rich.pretty import Pretty
        from rich.text import Text

        return Text(repr(self)) if type(self) in _SHOWN else Pretty(self)
