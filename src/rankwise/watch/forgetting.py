"""Looks at general ability: the untouched base once, then the model as it trains, on the same items.

A look goes through a list of probes, each of which gives a number and a weight for each of its items. The base's
numbers are kept in the cache, by hashes of its weights, of what is asked (after tokenizer and format) and of the
arithmetic, so that a second run on the same base does not ask it again.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rankwise.files import cache_folder, publish_folder, remove_oldest, write_text
from rankwise.model.divergence import Beliefs, beliefs, divergence
from rankwise.model.likelihood import Autocast, grouped_losses, row_losses
from rankwise.records import Interval, Slice, Watched, content_hash
from rankwise.store import now
from rankwise.text.ability import AbilitySet
from rankwise.watch.levels import Metric, limits_of, slice_of, worst

KEPT = 100  # baselines in the cache; those that nobody has used for longest go
WAY = 1  # of measuring; a new number asks every base anew
BELIEFS = "beliefs.safetensors"

Numbers = list[tuple[float, float]]
# (items, measures the items of these numbers) -> numbers of all items, in order: over processes, or in this one.
Share = Callable[[int, Callable[[Sequence[int]], Numbers]], Numbers]
Resampled = Callable[[np.ndarray, np.ndarray], Interval]


class Probe(Protocol):
    """One slice of general ability: sets of rows and questions, and tasks of other suites.

    Attributes:
        chance: share that guessing gets right; None for cross-entropy.
        items: how many there are.
        content: hash of all that its numbers follow from, beside model and arithmetic.
    """

    name: str
    metric: Metric
    chance: float | None
    items: int
    content: str

    def measure(self, model: Any, numbers: Sequence[int]) -> Numbers:
        """(value, weight) of the items of these numbers; the slice's value is sum of values / sum of weights."""


class SetProbe:
    """Rows by cross-entropy (summed nats, tokens), questions by the likelihood of their choices (1 or 0, 1)."""

    def __init__(self, asked: AbilitySet, autocast: Autocast):
        self.asked, self.autocast = asked, autocast
        self.name, self.metric, self.chance = asked.name, asked.metric, asked.chance
        self.items, self.content = len(asked.items), asked.content

    def measure(self, model: Any, numbers: Sequence[int]) -> Numbers:
        items = [self.asked.items[number] for number in numbers]
        if self.metric == "general_loss":
            return [(loss, float(count)) for loss, count in row_losses(model, [i[0] for i in items], self.autocast)]
        losses = grouped_losses(model, items, self.autocast)
        said = [min(range(len(each)), key=[loss / count for loss, count in each].__getitem__) for each in losses]
        return [(float(choice == self.asked.right[n]), 1.0) for choice, n in zip(said, numbers, strict=True)]


@dataclass
class Watch:
    """The looks of one run.

    Attributes:
        probes: what is asked.
        prompts: of the task, for the divergence; none: it is not measured.
        budget: forgetting.budget_nats.
        made_of: all that the base's numbers follow from beside what is asked: its hash, the arithmetic.
        as_base: a context in which the untrained model answers as its untouched base.
        starts_as_base: does it so before step 1 anyway?
        share: deals the items of a probe to the processes.
        same: what the first process has, in all of them; `first`: is this one it?
        resampled: interval of sum(values) / sum(weights), by bootstrap over items (evaluate.paired).
    """

    probes: Sequence[Probe]
    prompts: Sequence[Sequence[int]]
    autocast: Autocast
    budget: float
    made_of: Sequence[Any]
    as_base: Callable[[], AbstractContextManager[Any]]
    starts_as_base: bool
    share: Share
    same: Callable[[Any], Any]
    first: bool
    resampled: Resampled
    base: list[Numbers] = field(default_factory=list)
    believed: Beliefs | None = None
    base_seconds: float = 0.0

    def ask_base(self, model: Any) -> None:
        """The base's numbers, from the cache or asked now; `model` is untrained. All processes call it alike."""
        began = time.monotonic()
        for probe in self.probes:
            place = self._place(probe.content)
            known = self.same(_known_numbers(place.with_suffix(".json"), probe.items))
            if known is None:
                with self.as_base():
                    known = self._measured(probe, model)
                if self.first:
                    write_text(place.with_suffix(".json"), json.dumps(known))
            self.base.append(known)
        if self.prompts:
            self.believed = self._believed(model)
        if self.first:
            remove_oldest({path: path for path in _folder().glob("[!.]*")}, KEPT)
        self.base_seconds = time.monotonic() - began

    def look(self, step: int, model: Any) -> Watched:
        """The model as it is now, beside its base. All processes call it alike. The base's seconds count at step 0."""
        began = time.monotonic() - (self.base_seconds if step == 0 else 0.0)
        untrained = step == 0 and self.starts_as_base
        said = self.base if untrained else [self._measured(probe, model) for probe in self.probes]
        kl = None
        if self.believed is not None:
            found = 0.0 if untrained else divergence(model, self.prompts, self.believed, self.autocast)
            kl = self.same(found)
        slices = tuple(map(self._slice, self.probes, self.base, said))
        return Watched(
            time=now(),
            step=step,
            slices=slices,
            level=worst(s.level for s in slices),
            kl=kl,
            seconds=time.monotonic() - began,
        )

    def _measured(self, probe: Probe, model: Any) -> Numbers:
        return self.share(probe.items, lambda numbers: probe.measure(model, numbers))

    def _slice(self, probe: Probe, base: Numbers, said: Numbers) -> Slice:
        weights = np.array([weight for _, weight in base])
        before, after = (np.array([value for value, _ in numbers]) for numbers in (base, said))
        baseline, value = (float(values.sum() / weights.sum()) for values in (before, after))
        return slice_of(
            probe.name,
            probe.metric,
            items=probe.items,
            baseline=baseline,
            value=value,
            interval=self.resampled(after - before, weights),
            limits=limits_of(probe.metric, self.budget, baseline, probe.chance, probe.items),
        )

    def _believed(self, model: Any) -> Beliefs:
        folder = self._place(content_hash([list(prompt) for prompt in self.prompts]))
        known = self.same(_known_beliefs(folder))
        if known is None:
            with self.as_base():
                known = beliefs(model, self.prompts, self.autocast)
            if self.first:
                with publish_folder(folder) as made:
                    save_file({"tokens": known.tokens, "logs": known.logs}, made / BELIEFS)
        assert isinstance(known, Beliefs)
        return known

    def _place(self, content: str) -> Path:
        return _folder() / content_hash([WAY, *self.made_of, content])[:32]


def _folder() -> Path:
    return cache_folder() / "baselines"


def _known_numbers(path: Path, items: int) -> Numbers | None:
    """None where there are none, or a file that cannot be read: they can be made again."""
    try:
        found = [(float(value), float(weight)) for value, weight in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    if len(found) != items:
        return None
    path.touch()
    return found


def _known_beliefs(folder: Path) -> Beliefs | None:
    try:
        found = load_file(folder / BELIEFS)
        known = Beliefs(found["tokens"], found["logs"])
        folder.touch()
    except (OSError, KeyError, SafetensorError):
        return None
    return known
