"""How a verb tells how far it is: (what, done, total)."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """The progress callback that says nothing."""
