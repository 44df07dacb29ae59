"""A trace of a few equal layers -> the trace of many.

The layers of a decoder repeat: what layer 2 does, layer 3 does with its own tensors. So the middle layer's births and
deaths are copied as often as needed, and every reference from a layer to its neighbour is moved along. It is exact
where the inner layers of the trace do the same, which is checked; a full trace in the tests holds it.
"""

from dataclasses import dataclass

import numpy as np

from rankwise.trace.layers import NO_LAYER
from rankwise.trace.meter import Birth, Event, Recording
from rankwise.trace.stream import PHASE_NUMBER, Numbers, Storages, Stream, by_phase

TRACED = 5  # an outer layer at each end, and three inner ones that must be alike
TEMPLATE = 2
SWEEPS = ("forward", "eval")  # phases that pass each layer once, one after the other


class UnlikeLayersError(Exception):
    """The inner layers differ, so a short trace says nothing about a long one."""


@dataclass(slots=True)
class _Run:
    """Consecutive events of one layer."""

    layer: int
    events: list[Event]


def extend(recording: Recording, layers: int) -> Stream:
    """The recording of TRACED layers as if there were `layers` of them (at least TRACED).

    Raises:
        UnlikeLayersError: the three inner layers do not make the same tensors in the same order.
    """
    events = _settle(recording)
    long = _Long(recording, events, added=layers - TRACED)
    for run in _runs(events):
        long.add_run(run)
    return long.finish()


def _settle(recording: Recording) -> list[Event]:
    """What happens between two layers of one sweep belongs to the layer before it."""
    events = recording.events
    settled: list[Event] = []
    waiting: list[Event] = []
    last, phase = NO_LAYER, None
    for event in events:
        layer = event.layer
        if event.phase != phase:
            settled += waiting
            waiting, last, phase = [], NO_LAYER, event.phase
        if layer == NO_LAYER:
            waiting.append(event)
            continue
        near = abs(layer - last) <= 1 if phase in SWEEPS else abs(layer - last) == 1
        owner = last if last != NO_LAYER and near else NO_LAYER
        settled += [Event(w.key, w.birth, w.phase, owner) for w in waiting]
        waiting, last = [], layer
        settled.append(event)
    return settled + waiting


def _runs(events: list[Event]) -> list[_Run]:
    runs: list[_Run] = []
    for event in events:
        if not runs or runs[-1].layer != event.layer or runs[-1].events[-1].phase != event.phase:
            runs.append(_Run(event.layer, []))
        runs[-1].events.append(event)
    return runs


def _by_layer(recording: Recording, events: list[Event]) -> list[list[int]]:
    """The keys that are born in each layer, in their order; last, for NO_LAYER, those of no layer.

    Raises:
        UnlikeLayersError: as `extend`.
    """
    born: list[list[int]] = [[] for _ in range(TRACED + 1)]
    for event in events:
        if event.birth:
            born[event.layer].append(event.key)
    marks = [[_mark(recording.births[k]) for k in born[layer]] for layer in (1, 2, 3)]
    if not marks[0] == marks[1] == marks[2]:
        raise UnlikeLayersError
    return born


def _mark(birth: Birth) -> tuple[int, str, str, str]:
    return birth.bytes, birth.kind, birth.phase, birth.op


class _Long:
    """Builds the long stream. Positions: 0, 1, 2, the added layers, 3 and 4 moved to the end.

    A storage of a layer is numbered by its position and its place among the births of that layer, so that its key in a
    copy is that in the template and as many times the births of a layer as the copy is layers away.
    """

    def __init__(self, short: Recording, events: list[Event], added: int) -> None:
        self.short, self.added = short, added
        self.born = _by_layer(short, events)
        self.per_layer = len(self.born[TEMPLATE])
        self.home = {
            key: (layer, number)
            for layer, keys in zip((*range(TRACED), NO_LAYER), self.born, strict=True)
            for number, key in enumerate(keys)
        }
        self.keys: list[Numbers] = []
        self.births: list[Numbers] = []
        self.phases: list[Numbers] = []

    def place(self, layer: int) -> int:
        return layer if layer <= TEMPLATE else layer + self.added

    def key(self, position: int, number: int) -> int:
        """Of a storage in the long stream: those of no layer come first, then layer by layer."""
        if position == NO_LAYER:
            return number
        first = len(self.born[NO_LAYER])
        if position == 0:
            return first + number
        return first + len(self.born[0]) + (position - 1) * self.per_layer + number

    def add_run(self, run: _Run) -> None:
        """The template's run is followed by its copies; in a descending sweep they come before it."""
        if run.layer == NO_LAYER:
            self._outside(run.events)
            return
        keys, moves = zip(*(self._in_layer(event) for event in run.events), strict=True)
        birth = np.array([event.birth for event in run.events])
        copies = np.arange(self.added + 1 if run.layer == TEMPLATE else 1)
        if run.events[0].phase == "backward":
            copies = copies[::-1]
        moving = np.array(moves)
        made = np.array(keys) + copies[:, None] * self.per_layer
        kept = moving | (copies[:, None] == 0)  # one tensor outside of the layers dies once
        self._emit(made[kept], np.broadcast_to(birth, made.shape)[kept], run.events[0])

    def _in_layer(self, event: Event) -> tuple[int, bool]:
        """(its key where the layer itself stands, does it move along with the layer's copies?)"""
        layer, number = self.home[event.key]
        if layer == NO_LAYER:
            return self.key(NO_LAYER, number), False
        if abs(layer - event.layer) > 1:
            raise UnlikeLayersError
        return self.key(self.place(event.layer) + layer - event.layer, number), True

    def _outside(self, events: list[Event]) -> None:
        """Outside of the layers: what was born in the template dies with all its copies."""
        keys: list[int] = []
        birth: list[bool] = []
        for event in events:
            layer, number = self.home[event.key]
            copies = self.added + 1 if layer == TEMPLATE else 1
            first = self.key(self.place(layer), number)
            keys += range(first, first + copies * self.per_layer, self.per_layer) if copies > 1 else [first]
            birth += [event.birth] * copies
        self._emit(np.array(keys), np.array(birth), events[0])

    def _emit(self, keys: Numbers, births: Numbers, like: Event) -> None:
        self.keys.append(keys)
        self.births.append(births)
        self.phases.append(np.full(len(keys), PHASE_NUMBER[like.phase]))

    def finish(self) -> Stream:
        """Raises UnlikeLayersError where something would die that is not alive."""
        flops, work = by_phase(self.short, lambda layer: self.added + 1 if layer == TEMPLATE else 1)
        stream = Stream(
            storages=self._storages(),
            key=np.concatenate(self.keys),
            birth=np.concatenate(self.births).astype(bool),
            phase=np.concatenate(self.phases),
            flops=flops,
            work=work,
        )
        _check(stream)
        return stream

    def _storages(self) -> Storages:
        born = self.born
        inner = born[TEMPLATE] * (self.added + 3)
        keys = np.array([*born[NO_LAYER], *born[0], *inner, *born[TRACED - 1]], dtype=np.int64)
        return Storages.of(self.short.births).take(keys)


def _check(stream: Stream) -> None:
    """Every key is born once, and dies at most once, later."""
    count, order = len(stream.storages.size), np.arange(len(stream.key))
    born, died = np.full(count, -1), np.full(count, len(order))
    born[stream.key[stream.birth]] = order[stream.birth]
    dead = stream.key[~stream.birth]
    died[dead] = order[~stream.birth]
    if len(np.unique(dead)) != len(dead) or (born < 0).any() or (died <= born).any():
        raise UnlikeLayersError
