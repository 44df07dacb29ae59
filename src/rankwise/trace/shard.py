"""What one rank of a data-parallel group holds: a single device's births and deaths, with what the sharding adds, takes
away and holds longer.

FSDP (torch's FullyShardedDataParallel, FULL_SHARD, one unit a decoder layer and one for the rest):
parameters, gradients and optimizer states are split over the ranks; buffers and bitsandbytes' block scales are not. The
outer unit stays gathered from the first forward operation to the end of backward; a layer is gathered while it runs
(accelerate's default is no prefetch). A layer's gradients exist whole until they are reduced: as they come, then flat.
A layer with frozen weights is freed by hooks on its inputs. Under reentrant checkpointing those hold each layer's input
and its gradient to the end of backward.

DeepSpeed's ZeRO keeps fp32 master weights and both states (12 bytes a trained parameter) split over the ranks, 16-bit
gradients whole (stage 1) or split (2, 3), and 16-bit weights whole (1, 2) or split (3); reductions go through a bucket
of hidden_size^2 elements, which is what `auto` gives it in transformers.

DDP adds a bucket for every gradient.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from rankwise.records.setup import Setup
from rankwise.trace.layers import NO_LAYER
from rankwise.trace.meter import FROZEN, TRAINED, Birth, Event, Kind, Phase, Recording
from rankwise.trace.stack import fp32_master, traits

ITEM = {"bf16": 2, "fp16": 2, "fp32": 4}
SUB_GROUP_BYTES = 4_000_000_000  # fp32 gradients of DeepSpeed's sub_group_size, 1e9 elements by default


def shard(recording: Recording, setup: Setup) -> Recording:
    """The recording of one device -> that of the fullest rank of `setup.world_size`."""
    if setup.parallel == "none" or (setup.world_size == 1 and setup.parallel in ("ddp", "fsdp")):
        return recording
    if setup.parallel == "ddp":
        return _Ddp(recording, setup).run()
    if setup.parallel == "fsdp":
        return _Fsdp(recording, setup).run()
    return _Zero(recording, setup).run()


class _Rewriter:
    """Copies events, one block of a phase at a time; subclasses say what changes."""

    def __init__(self, recording: Recording, setup: Setup) -> None:
        self.old, self.setup, self.ranks = recording, setup, setup.world_size
        self.out = Recording(flops=recording.flops, work=recording.work)
        self.key: dict[int, int] = {}

    def run(self) -> Recording:
        for phase, events in groupby(self.old.events, key=lambda e: e.phase):
            self.block(phase, list(events))
        return self.out

    def block(self, phase: Phase, events: list[Event]) -> None:
        for event in events:
            self.copy(event)

    def copy(self, event: Event) -> None:
        """The event as it was, with the size that a rank has of it."""
        if event.birth:
            old = self.old.births[event.key]
            self.key[event.key] = self.birth(self.size(old), old.kind, old.op, event.phase, event.layer, old.layer)
        else:
            self.death(self.key.pop(event.key), event.phase, event.layer)

    def size(self, birth: Birth) -> int:
        return birth.bytes

    def birth(self, size: int, kind: Kind, op: str, phase: Phase, layer: int, owner: int | None = None) -> int:
        key = len(self.out.births)
        self.out.births.append(Birth(size, kind, phase, layer if owner is None else owner, op))
        self.out.events.append(Event(key, True, phase, layer))
        return key

    def death(self, key: int, phase: Phase, layer: int) -> None:
        self.out.events.append(Event(key, False, phase, layer))

    def split(self, size: int) -> int:
        return -(-size // self.ranks)

    def parameters(self, kinds: Iterable[str] = (TRAINED, FROZEN)) -> dict[int, int]:
        """Bytes of the parameters by layer."""
        wanted = set(kinds)
        sums: dict[int, int] = {}
        for birth in self.old.births:
            if birth.kind == "weights" and birth.op in wanted:
                sums[birth.layer] = sums.get(birth.layer, 0) + birth.bytes
        return sums


class _Ddp(_Rewriter):
    def block(self, phase: Phase, events: list[Event]) -> None:
        super().block(phase, events)
        if phase == "load":
            for layer, size in self.parameters([TRAINED]).items():
                self.birth(size, "gradients", "DDP bucket", phase, layer)


class _Fsdp(_Rewriter):
    def __init__(self, recording: Recording, setup: Setup) -> None:
        super().__init__(recording, setup)
        self.units = self.parameters()
        self.master = 2 if fp32_master(setup) else 1
        self.frozen = setup.method != "full"
        self.root: int | None = None
        self.held: list[int] = []

    def size(self, birth: Birth) -> int:
        if self.setup.offload != "none" and (birth.op in (TRAINED, FROZEN) or birth.phase == "optimizer"):
            return 0  # FSDP's CPUOffload keeps shards and their step on the host
        if birth.kind == "weights":
            scale = self.master if birth.op == TRAINED else 1
            return self.split(birth.bytes) * scale if birth.op in (TRAINED, FROZEN) else birth.bytes
        if birth.kind == "optimizer" or birth.phase == "optimizer":
            return self.split(birth.bytes) * self.master
        return birth.bytes

    def block(self, phase: Phase, events: list[Event]) -> None:
        if phase in ("forward", "eval"):
            self._forward(phase, events)
        elif phase == "backward":
            self._backward(events)
        else:
            super().block(phase, events)

    def _forward(self, phase: Phase, events: list[Event]) -> None:
        if self.root is None:
            self.root = self.birth(self.units.get(NO_LAYER, 0), "weights", "all-gather", phase, NO_LAYER)
        for layer, run in _sweep(events):
            gathered = self._gather(layer, phase)
            for event in run:
                self.copy(event)
            self._release(gathered, phase)
        if phase == "eval":
            self._release_root(phase)

    def _backward(self, events: list[Event]) -> None:
        grads: list[tuple[int, Birth]] = []
        for layer, run in _sweep(events):
            gathered = self._gather(layer, "backward")
            for event in run:
                grads += self._backward_event(event, layer)
            self._release(gathered, "backward")
            if layer != NO_LAYER:
                self._reduce([g for g in grads if g[1].layer == layer], layer)
                grads = [g for g in grads if g[1].layer != layer]
        self._reduce(grads, NO_LAYER)
        for key in self.held:
            self.death(key, "backward", NO_LAYER)
        self.held = []
        self._release_root("backward")

    def _backward_event(self, event: Event, layer: int) -> list[tuple[int, Birth]]:
        old = self.old.births[event.key]
        if event.birth:
            self.copy(event)
            return [(event.key, old)] if old.kind == "gradients" else []
        if self._keeps(old, event):
            self.held.append(self.key.pop(event.key))
        else:
            self.copy(event)
        return []

    def _keeps(self, old: Birth, event: Event) -> bool:
        """A layer's input, or the gradient that passes from one layer to the next."""
        if not (self.frozen and traits(self.setup).reentrant and self.setup.gradient_checkpointing):
            return False
        return old.layer != NO_LAYER and event.layer != old.layer and old.kind in ("activations", "workspace")

    def _reduce(self, grads: list[tuple[int, Birth]], layer: int) -> None:
        """Whole gradients -> one flat tensor -> this rank's share of it."""
        if not grads:
            return
        flat = self.birth(sum(b.bytes for _, b in grads), "gradients", "reduce-scatter", "backward", layer)
        for old_key, birth in grads:
            self.death(self.key.pop(old_key), "backward", layer)
            size = 0 if self.setup.offload != "none" else self.split(birth.bytes) * self.master
            self.key[old_key] = self.birth(size, "gradients", birth.op, "backward", layer, birth.layer)
        self.death(flat, "backward", layer)

    def _gather(self, layer: int, phase: Phase) -> list[int]:
        if layer == NO_LAYER or not self.units.get(layer):
            return []
        return [self.birth(self.units[layer], "weights", "all-gather", phase, layer)]

    def _release(self, keys: list[int], phase: Phase) -> None:
        for key in keys:
            self.death(key, phase, self.out.births[key].layer)

    def _release_root(self, phase: Phase) -> None:
        if self.root is not None:
            self.death(self.root, phase, NO_LAYER)
            self.root = None


class _Zero(_Rewriter):
    """FusedAdam or its CPU form steps on flat fp32 partitions and makes no temporaries."""

    def __init__(self, recording: Recording, setup: Setup) -> None:
        super().__init__(recording, setup)
        self.stage = int(setup.parallel.removeprefix("zero"))
        self.item = ITEM[setup.dtype if setup.method == "full" else setup.adapter_dtype]
        self.bucket = 2 * _hidden_size(setup.config) ** 2  # bytes of hidden_size^2 16-bit elements
        self.trained = self.parameters([TRAINED])
        self.units = self.parameters()

    def size(self, birth: Birth) -> int:
        if birth.kind == "weights":
            if self.setup.offload == "all":
                return 0
            half = birth.bytes * 2 // self.item if birth.op == TRAINED else birth.bytes
            return self.split(half) if self.stage == 3 and birth.op in (TRAINED, FROZEN) else half
        if birth.kind == "optimizer":
            return 0 if self.setup.offload != "none" else self.split(birth.bytes * 4 // self.item)
        if birth.phase == "optimizer":
            return 0
        if birth.kind == "gradients":
            half = birth.bytes * 2 // self.item
            return half if self.stage == 1 else self.split(half)
        return birth.bytes

    def block(self, phase: Phase, events: list[Event]) -> None:
        if phase == "load":
            super().block(phase, events)
            self._load()
        elif phase in ("forward", "backward", "eval") and self.stage == 3:
            self._gathering(phase, events)
        elif phase == "optimizer":
            partition = list(self._partitions(phase))
            super().block(phase, events)
            for key, layer in partition:
                self.death(key, phase, layer)
        else:
            super().block(phase, events)

    def _load(self) -> None:
        """fp32 master weights, and two buckets: one fills while the other is reduced."""
        if self.setup.offload == "none":
            for layer, size in self.trained.items():
                self.birth(self.split(size * 4 // self.item), "optimizer", "fp32 master weights", "load", layer)
        for _ in range(2):
            self.birth(self.bucket, "gradients", "reduce bucket", "load", NO_LAYER)

    def _partitions(self, phase: Phase) -> Iterator[tuple[int, int]]:
        """This rank's gradients in fp32, for the step: all of them, or in stage 3 those of one sub-group at a time."""
        left = SUB_GROUP_BYTES if self.stage == 3 else None
        for layer, size in self.trained.items():
            wide = 0 if self.setup.offload != "none" else self.split(size * 4 // self.item)
            if left is not None:
                wide = min(wide, left)
                left -= wide
            yield self.birth(wide, "gradients", "fp32 gradient partition", phase, layer), layer

    def _gathering(self, phase: Phase, events: list[Event]) -> None:
        """Stage 3: a layer's 16-bit weights while it runs, and the next layer's ahead of it."""
        root = self.birth(self.units.get(NO_LAYER, 0), "weights", "all-gather", phase, NO_LAYER)
        runs = list(_sweep(events))
        step = -1 if phase == "backward" else 1
        order = [layer for layer, _ in runs if layer != NO_LAYER]
        gathered: dict[int, int] = {}
        for layer, run in runs:
            for wanted in (layer, layer + step) if layer in order else ():
                if wanted in order and wanted not in gathered:
                    gathered[wanted] = self.birth(self.units[wanted], "weights", "all-gather", phase, layer, wanted)
            for event in run:
                self.copy(event)
            if layer in gathered:
                self.death(gathered.pop(layer), phase, layer)
        self.death(root, phase, NO_LAYER)


def _hidden_size(config: dict[str, Any]) -> int:
    return next(int(config[key]) for key in ("hidden_size", "n_embd", "d_model") if config.get(key))


def _sweep(events: list[Event]) -> Iterator[tuple[int, list[Event]]]:
    """Consecutive events of one layer; what happens between two layers goes with the layer before."""
    last = NO_LAYER
    runs: list[tuple[int, list[Event]]] = []
    seen = [e.layer for e in events if e.layer != NO_LAYER]
    remaining = len(seen)
    for event in events:
        if event.layer != NO_LAYER:
            last, remaining = event.layer, remaining - 1
        layer = last if remaining else event.layer
        if not runs or runs[-1][0] != layer:
            runs.append((layer, []))
        runs[-1][1].append(event)
    return iter(runs)
