"""The GPUs of devices.toml, and which of them a loosely written name means."""

import difflib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from rankwise.errors import JobError, UnknownGpuError

NOISE = re.compile(r"\b(nvidia|geforce|tesla|amd|instinct|gpu|graphics|card)\b")
FORM = re.compile(r"rtx|pcie|sxm\d?|hbm\d\w?|oam")  # words of a name that people leave out or add
SIZE = re.compile(r"\d+gb")


def known_gpus() -> tuple[dict[str, Any], ...]:
    """The entries of devices.toml."""
    return _table()


def match_gpu(name: str) -> dict[str, Any]:
    """The entry that a loosely written name means. Where only the memory tells two apart, the name must say it.

    Raises:
        UnknownGpuError: none matches. JobError: several do. The nearest names are offered.
    """
    words = _words(name)
    near_by = [(distance, g) for g in _table() if (distance := _distance(words, g)) is not None]
    fitting = [g for distance, g in near_by if distance == min(d for d, _ in near_by)]
    if len(fitting) == 1:
        return fitting[0]
    names = [g["name"] for g in _table()]
    near = [g["name"] for g in fitting] or _nearest(name)
    kind = JobError if fitting else UnknownGpuError
    raise kind(
        f"hardware.gpu {name}: " + ("could be several GPUs" if fitting else "no such GPU is known"),
        expected=f"one of {', '.join(names)}, or cpu",
        fix=f"did you mean {' or '.join(near)}?" if near else "name the nearest of these",
    )


@cache
def _table() -> tuple[dict[str, Any], ...]:
    path = Path(__file__).with_name("devices.toml")
    return tuple(tomllib.loads(path.read_text(encoding="utf-8"))["gpu"])


def _names(gpu: dict[str, Any]) -> list[str]:
    return [gpu["name"], *gpu["aliases"]]


def _words(name: str) -> frozenset[str]:
    """Lower-case parts without vendor words: `Tesla T4 16GB` -> {t4, 16gb}; `RTX4090` -> {rtx, 4090}."""
    text = re.sub(r"(\d+)\s*gi?b\b", r"\1gb", name.lower())
    text = re.sub(r"\brtx[\s_-]*(?=\d)", "rtx ", text)
    return frozenset(re.findall(r"[a-z0-9]+", NOISE.sub(" ", text)))


def _distance(wanted: frozenset[str], gpu: dict[str, Any]) -> int | None:
    """Words by which a name differs from the nearest name of the entry; None if it names another GPU."""
    names = [_words(n) for n in _names(gpu)]
    sizes = {w for w in wanted if SIZE.fullmatch(w)}
    if not sizes <= frozenset().union(*names):
        return None
    return min((len(wanted ^ n) for n in names if _model(wanted) == _model(n)), default=None)


def _model(words: frozenset[str]) -> frozenset[str]:
    return frozenset(w for w in words if not FORM.fullmatch(w) and not SIZE.fullmatch(w))


def _nearest(name: str) -> list[str]:
    simple = {" ".join(sorted(_words(n))): g["name"] for g in _table() for n in _names(g)}
    close = difflib.get_close_matches(" ".join(sorted(_words(name))), list(simple), 3, 0.4)
    return list(dict.fromkeys(simple[c] for c in close))
