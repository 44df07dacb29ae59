"""Rankwise: full fine-tuning, LoRA, QLoRA or none at all. The verbs and the record types, nothing else.

`import rankwise as rw; rw.plan("job.yaml")`. Loaded when first used (PEP 562), so that the command line prints its help
at once."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rankwise.errors import RankwiseError
from rankwise.version import __version__

if TYPE_CHECKING:
    from rankwise import records
    from rankwise.api import add_tenant, bring, plan_job, registry, road
    from rankwise.python.deciding import check, diagnose, doctor, estimate, estimate_batch, gpus, models, plan, tables
    from rankwise.python.giving import check_engine, export, launch, merge, push, serve, verify
    from rankwise.python.judging import benchmark, chat, evaluate, gates, watch
    from rankwise.python.looking import open_run, report, runs, show
    from rankwise.python.running import compare, events, prepare, train

__all__ = [
    "RankwiseError",
    "__version__",
    "add_tenant",
    "benchmark",
    "bring",
    "chat",
    "check",
    "check_engine",
    "compare",
    "diagnose",
    "doctor",
    "estimate",
    "estimate_batch",
    "evaluate",
    "events",
    "export",
    "gates",
    "gpus",
    "launch",
    "merge",
    "models",
    "open_run",
    "plan",
    "plan_job",
    "prepare",
    "push",
    "records",
    "registry",
    "report",
    "road",
    "runs",
    "serve",
    "show",
    "tables",
    "train",
    "verify",
    "watch",
]

_MODULE = {
    "check": "python.deciding",
    "diagnose": "python.deciding",
    "doctor": "python.deciding",
    "estimate": "python.deciding",
    "estimate_batch": "python.deciding",
    "gpus": "python.deciding",
    "models": "python.deciding",
    "plan": "python.deciding",
    "tables": "python.deciding",
    "check_engine": "python.giving",
    "export": "python.giving",
    "launch": "python.giving",
    "merge": "python.giving",
    "push": "python.giving",
    "serve": "python.giving",
    "verify": "python.giving",
    "benchmark": "python.judging",
    "chat": "python.judging",
    "evaluate": "python.judging",
    "gates": "python.judging",
    "watch": "python.judging",
    "open_run": "python.looking",
    "report": "python.looking",
    "runs": "python.looking",
    "show": "python.looking",
    "compare": "python.running",
    "events": "python.running",
    "prepare": "python.running",
    "train": "python.running",
    "add_tenant": "api",
    "bring": "api",
    "plan_job": "api",
    "registry": "api",
    "road": "api",
}


def _verb(name: str) -> Any:
    """What a name of __all__ stands for. Records show themselves from then on."""
    import_module("rankwise.python")
    if name == "records":
        return import_module("rankwise.records")
    return getattr(import_module(f"rankwise.{_MODULE[name]}"), name)


def __getattr__(name: str) -> Any:
    if name in _MODULE or name == "records":
        return _verb(name)
    raise AttributeError(f"module 'rankwise' has no attribute {name!r}")


class _Stage(ModuleType):
    """A stage that is called as its verb: `rankwise.train` is a folder, and a function."""

    __doc__ = property(lambda self: _verb(self.__name__.rpartition(".")[2]).__doc__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _verb(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """Python puts a folder of this package in the place of the verb of its name as soon as a file of it is imported;
    such a folder answers to a call, too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MODULE and isinstance(value, ModuleType):
            value.__class__ = _Stage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
