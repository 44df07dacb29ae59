"""A recording as arrays: a step of eighty layers has a hundred thousand births and deaths."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rankwise.trace.layers import NO_LAYER
from rankwise.trace.meter import Birth, Kind, Phase, Recording
from rankwise.trace.work import Work

PHASES: tuple[Phase, ...] = get_args(Phase)
KINDS: tuple[Kind, ...] = get_args(Kind)
PHASE_NUMBER = {phase: number for number, phase in enumerate(PHASES)}
KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Storages:
    """What was born, by key.

    Attributes:
        size: bytes as asked for.
        kind: number in KINDS.
        op: number in `ops`.
        ops: names of what made them.
        outside: of every layer.
    """

    size: Numbers
    kind: Numbers
    op: Numbers
    ops: tuple[str, ...]
    outside: NDArray[np.bool_]

    @classmethod
    def of(cls, births: Iterable[Birth]) -> "Storages":
        births = list(births)
        ops = {op: number for number, op in enumerate(dict.fromkeys(b.op for b in births))}
        return cls(
            size=np.array([b.bytes for b in births], dtype=np.int64),
            kind=np.array([KIND_NUMBER[b.kind] for b in births], dtype=np.int64),
            op=np.array([ops[b.op] for b in births], dtype=np.int64),
            ops=tuple(ops),
            outside=np.array([b.layer == NO_LAYER for b in births], dtype=bool),
        )

    def take(self, keys: Numbers) -> "Storages":
        """Those of `keys`, in their order."""
        return Storages(self.size[keys], self.kind[keys], self.op[keys], self.ops, self.outside[keys])

    def made_by(self, *names: str) -> NDArray[np.bool_]:
        """Is it the work of one of these operations?"""
        return np.isin(self.op, [number for number, op in enumerate(self.ops) if op in names])


@dataclass(frozen=True)
class Stream:
    """Births and deaths in their order; arithmetic and work by phase.

    Attributes:
        key: of each event.
        birth: is the event one?
        phase: number in PHASES.
    """

    storages: Storages
    key: Numbers
    birth: NDArray[np.bool_]
    phase: Numbers
    flops: dict[Phase, int]
    work: dict[Phase, Work]

    @classmethod
    def of(cls, recording: Recording) -> "Stream":
        events = recording.events
        flops, work = by_phase(recording, lambda layer: 1)
        return cls(
            storages=Storages.of(recording.births),
            key=np.array([e.key for e in events], dtype=np.int64),
            birth=np.array([e.birth for e in events], dtype=bool),
            phase=np.array([PHASE_NUMBER[e.phase] for e in events], dtype=np.int64),
            flops=flops,
            work=work,
        )

    def during(self, phases: Iterable[Phase]) -> NDArray[np.bool_]:
        """Which events happen in these phases?"""
        return np.isin(self.phase, [PHASE_NUMBER[phase] for phase in phases])

    def alive(self, events: NDArray[np.bool_] | slice) -> NDArray[np.bool_]:
        """By key: is it born and not dead after these events alone?"""
        keys, born = self.key[events], self.birth[events]
        count = len(self.storages.size)
        return np.bincount(keys[born], minlength=count) > np.bincount(keys[~born], minlength=count)


def by_phase(recording: Recording, times: Callable[[int], int]) -> tuple[dict[Phase, int], dict[Phase, Work]]:
    """Arithmetic and work of all layers, each as often as `times(layer)` says."""
    flops: Counter[Phase] = Counter()
    for (phase, layer), count in recording.flops.items():
        flops[phase] += count * times(layer)
    work: defaultdict[Phase, Work] = defaultdict(Work)
    for (phase, layer), part in recording.work.items():
        work[phase].add(part, times(layer))
    return dict(flops), dict(work)
