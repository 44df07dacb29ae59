"""A trace of a few equal layers -> the trace of many.

The layers of a decoder repeat: what layer 2 does, layer 3 does with its own tensors. So the middle layer's births and
deaths are copied as often as needed, and every reference from a layer to its neighbour is moved along. It is exact
where the inner layers of the trace do the same, which is checked; a full trace in the tests holds it.
"""

from collections import defaultdict
from dataclasses import dataclass

from rankwise.trace.layers import NO_LAYER
from rankwise.trace.meter import Birth, Event, Phase, Recording

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


def extend(recording: Recording, layers: int) -> Recording:
    """The recording of TRACED layers as if there were `layers` of them (at least TRACED).

    Raises:
        UnlikeLayersError: the three inner layers do not make the same tensors in the same order.
    """
    events = _settle(recording)
    local, inner = _local_numbers(recording, events)
    added = layers - TRACED
    long = _Long(recording, local, inner, added)
    for run in _runs(events):
        long.add_run(run)
    return long.finish(layers)


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


def _local_numbers(recording: Recording, events: list[Event]) -> tuple[dict[int, tuple[int, int]], list[list[int]]]:
    """Key -> (layer it was born in, its number among that layer's births); and every layer's keys in that order."""
    inner: list[list[int]] = [[] for _ in range(TRACED)]
    local: dict[int, tuple[int, int]] = {}
    for event in events:
        if event.birth and event.layer != NO_LAYER:
            local[event.key] = (event.layer, len(inner[event.layer]))
            inner[event.layer].append(event.key)
    marks = [[_mark(recording.births[k]) for k in inner[layer]] for layer in (1, 2, 3)]
    if not marks[0] == marks[1] == marks[2]:
        raise UnlikeLayersError
    return local, inner


def _mark(birth: Birth) -> tuple[int, str, str, str]:
    return birth.bytes, birth.kind, birth.phase, birth.op


class _Long:
    """Builds the long recording. Positions: 0, 1, 2, the added layers, 3 and 4 moved to the end."""

    def __init__(self, short: Recording, local: dict[int, tuple[int, int]], inner: list[list[int]], added: int) -> None:
        self.short, self.local, self.inner, self.added = short, local, inner, added
        self.out = Recording()
        self.keys: dict[tuple[int, int], int] = {}
        self.pending: list[_Run] = []

    def place(self, layer: int) -> int:
        return layer if layer <= TEMPLATE else layer + self.added

    def add_run(self, run: _Run) -> None:
        """The template's run is followed by its copies; in a descending sweep they come before it."""
        if run.layer == TEMPLATE and self.added:
            copies = range(TEMPLATE, TEMPLATE + self.added + 1)
            for position in reversed(copies) if self._descending(run) else copies:
                self._emit(run, position)
        else:
            self._emit(run, self.place(run.layer) if run.layer != NO_LAYER else NO_LAYER)

    def _descending(self, run: _Run) -> bool:
        return run.events[0].phase == "backward"

    def _emit(self, run: _Run, position: int) -> None:
        for event in run.events:
            if event.layer == NO_LAYER:
                self._emit_outside(event)
            elif event.birth:
                self._born(event, position)
            else:
                self._died(event, position)

    def _emit_outside(self, event: Event) -> None:
        """Outside of the layers: what was born in the template dies with all its copies."""
        home = self.local.get(event.key)
        if event.birth:
            self._append_birth(event, NO_LAYER, (NO_LAYER, event.key))
        elif home is None:
            self._append_death(event, NO_LAYER, (NO_LAYER, event.key))
        elif home[0] == TEMPLATE:
            for position in range(TEMPLATE, TEMPLATE + self.added + 1):
                self._append_death(event, NO_LAYER, (position, home[1]))
        else:
            self._append_death(event, NO_LAYER, (self.place(home[0]), home[1]))

    def _born(self, event: Event, position: int) -> None:
        self._append_birth(event, position, (position, self.local[event.key][1]))

    def _died(self, event: Event, position: int) -> None:
        home = self.local.get(event.key)
        if home is None:
            if position != self.place(event.layer):
                return  # one tensor outside of the layers dies once
            self._append_death(event, position, (NO_LAYER, event.key))
            return
        distance = home[0] - event.layer
        if abs(distance) > 1:
            raise UnlikeLayersError
        self._append_death(event, position, (position + distance, home[1]))

    def _append_birth(self, event: Event, position: int, name: tuple[int, int]) -> None:
        birth = self.short.births[event.key]
        key = len(self.out.births)
        self.keys[name] = key
        self.out.births.append(Birth(birth.bytes, birth.kind, birth.phase, position, birth.op))
        self.out.events.append(Event(key, True, event.phase, position))

    def _append_death(self, event: Event, position: int, name: tuple[int, int]) -> None:
        key = self.keys.pop(name, None)
        if key is None:
            raise UnlikeLayersError
        self.out.events.append(Event(key, False, event.phase, position))

    def finish(self, layers: int) -> Recording:
        counted: dict[tuple[Phase, int], int] = defaultdict(int)
        for (phase, layer), flops in self.short.flops.items():
            counted[phase, self.place(layer) if layer != NO_LAYER else NO_LAYER] += flops
            if layer == TEMPLATE:
                for position in range(TEMPLATE + 1, TEMPLATE + self.added + 1):
                    counted[phase, position] += flops
        self.out.flops = dict(counted)
        for (phase, layer), work in self.short.work.items():
            places = [self.place(layer)] if layer != NO_LAYER else [NO_LAYER]
            if layer == TEMPLATE:
                places += range(TEMPLATE + 1, TEMPLATE + self.added + 1)
            for position in places:
                self.out.work[phase, position] = work
        return self.out
