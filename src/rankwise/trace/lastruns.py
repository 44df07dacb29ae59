"""The last few answers about setups, kept in the process: sharded setups differ after their run alone."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from rankwise.records.setup import Setup
from rankwise.trace.stack import unsharded

Answer = TypeVar("Answer")


class LastRuns:
    """At most `count` answers, by name, number of layers, and what a run looks at of a setup."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: OrderedDict[tuple[str, int | None, str], Any] = OrderedDict()

    def ask(self, function: Callable[[Setup, int | None], Answer], setup: Setup, layers: int | None) -> Answer:
        """`function(setup, layers)` of the setup without its sharding; what it gives back must not be changed."""
        alone = unsharded(setup)
        key = (function.__name__, layers, alone.content_hash())
        if key not in self.kept:
            self.kept[key] = function(alone, layers)
            if len(self.kept) > self.count:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        answer: Answer = self.kept[key]
        return answer
