"""Rankwise: full fine-tuning, LoRA, QLoRA or none at all. The verbs and the record types, nothing else.

Loaded when first used (PEP 562), so that the command line prints its help at once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rankwise.version import __version__

if TYPE_CHECKING:
    from rankwise import records
    from rankwise.api import (
        bring,
        chat,
        check,
        diagnose,
        evaluate,
        merge,
        open_run,
        plan,
        plan_job,
        prepare,
        report,
        runs,
        show,
        train,
        verify,
    )

__all__ = [
    "__version__",
    "bring",
    "chat",
    "check",
    "diagnose",
    "evaluate",
    "merge",
    "open_run",
    "plan",
    "plan_job",
    "prepare",
    "records",
    "report",
    "runs",
    "show",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "records":
        return import_module("rankwise.records")
    if name in __all__:
        return getattr(import_module("rankwise.api"), name)
    raise AttributeError(f"module 'rankwise' has no attribute {name!r}")
