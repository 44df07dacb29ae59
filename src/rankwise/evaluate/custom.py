"""Metrics of the user's own: a Python function in a file of theirs, asked about every answer.

The file is run as it is, on this machine and with the rights of who runs Rankwise: it is loaded only where the job or
the command line names it.
"""

import importlib.util
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import DataError, UsageError
from rankwise.evaluate.paired import compare_scores
from rankwise.records import Comparison

SIGNATURE = "def NAME(prompt: str, expected: str, answer: str) -> float | None"


@dataclass(frozen=True)
class Metric:
    """A function of the user's own.

    Attributes:
        name: of the function, and of the comparison that is made with it.
        function: (prompt, expected, answer) -> a number, or None where it has nothing to say.
        higher_is_better: the function's own attribute of that name; True where it has none.
    """

    name: str
    path: Path
    function: Callable[[str, str, str], Any]
    higher_is_better: bool

    def score(self, prompt: str, expected: str, answer: str) -> float | None:
        """The function's score. Raises DataError with the line of the user's file where it fails."""
        try:
            value = self.function(prompt, expected, answer)
        except Exception as fault:
            own = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(self.path)]
            raise self._fault(own[-1] if own else None, f"raised {type(fault).__name__}: {fault}", answer) from fault
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise self._fault(self.function.__code__.co_firstlineno, f"returned {value!r}", answer)
        return float(value)

    def _fault(self, line: int | None, what: str, answer: str) -> DataError:
        shown = answer if len(answer) <= 80 else answer[:77] + "..."
        return DataError(
            self.path,
            line,
            f"the metric {self.name} {what}, asked about the answer {shown!r}",
            expected=f"{SIGNATURE}: a finite number, or None where it has nothing to say",
            fix="mend the function; `rankwise eval` tries it on a row's own answer before a model is loaded",
        )


def load_metric(said: str) -> Metric:
    """`path/to/file.py:function` -> the function.

    Raises:
        UsageError: no such file or function, not a function of three arguments.
        DataError: the file fails while it is run.
    """
    file, _, name = said.rpartition(":")
    path = Path(file).resolve()
    if not file or not name.isidentifier() or path.suffix != ".py":
        raise UsageError(f"a metric is given as FILE.py:FUNCTION, not as {said!r}", expected=SIGNATURE)
    if not path.is_file():
        raise UsageError(f"metric {said}: there is no file {path}", expected="a Python file with the function")
    module = _run(path)
    function = getattr(module, name, None)
    if not callable(function) or not hasattr(function, "__code__"):
        there = sorted(n for n, v in vars(module).items() if hasattr(v, "__code__") and not n.startswith("_"))
        raise UsageError(
            f"metric {said}: {path.name} has no function {name}",
            expected=SIGNATURE,
            fix=f"it has {', '.join(there)}" if there else "write one",
        )
    return Metric(name, path, function, bool(getattr(function, "higher_is_better", True)))


def _run(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rankwise_metric_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as fault:
        raise DataError(path, fault.lineno, f"the metric's file is not Python: {fault.msg}") from None
    except Exception as fault:
        own = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(path)]
        what = f"the metric's file cannot be run: {type(fault).__name__}: {fault}"
        raise DataError(path, own[-1] if own else None, what, fix="it is imported as a module of its own") from fault
    return module


def compare_own(
    metric: Metric, name: str, items: Sequence[tuple[str, str, str, str]], source: str
) -> Comparison | None:
    """The function's scores of both models' answers; None where it said nothing about any item.

    Args:
        name: of the comparison.
        items: (prompt, expected, base's answer, tuned model's answer).
    """
    pairs = [
        (metric.score(prompt, expected, base), metric.score(prompt, expected, tuned))
        for prompt, expected, base, tuned in items
    ]
    known = [(b, t) for b, t in pairs if b is not None and t is not None]
    if not known:
        return None
    said = f"{source}, scored by {metric.path.name}:{metric.name}"
    if len(known) < len(pairs):
        said += f", which had nothing to say of {len(pairs) - len(known)}"
    return compare_scores(
        name,
        [b for b, _ in known],
        [t for _, t in known],
        said,
        unit="score",
        higher_is_better=metric.higher_is_better,
    )
