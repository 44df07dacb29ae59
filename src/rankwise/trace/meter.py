"""Sees every storage of a traced step born and die, and says what it was for.

The tensors are on the `meta` device: shapes, dtypes and lifetimes are those of the real step, nothing is computed. Each
birth carries the operation that made it, the phase, and the decoder layer it belongs to, so that a trace of a few
layers can be extended to many.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rankwise.trace.layers import NO_LAYER, Layers
from rankwise.trace.outputs import output
from rankwise.trace.work import Work, moved, size, tensors_in

Phase = Literal["load", "forward", "backward", "optimizer", "eval", "save"]
Kind = Literal["weights", "gradients", "optimizer", "activations", "logits", "workspace"]
TRAINED, FROZEN = "trained parameter", "frozen parameter"


@dataclass(slots=True)
class Birth:
    """One storage: its bytes as asked for, and what it is."""

    bytes: int
    kind: Kind
    phase: Phase
    layer: int
    op: str


@dataclass(slots=True)
class Event:
    """A birth or a death, in order. `layer` is where it happened, which for a death need not be where it was born."""

    key: int
    birth: bool
    phase: Phase
    layer: int


@dataclass
class Recording:
    """What a meter saw: storages by key, their births and deaths in order; arithmetic and work by phase and layer."""

    births: list[Birth] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    flops: dict[tuple[Phase, int], int] = field(default_factory=dict)
    work: dict[tuple[Phase, int], Work] = field(default_factory=dict)


class Meter(TorchDispatchMode):
    """Use as a context around the step; `phase(...)` and `Layers` say where in the step it is."""

    active: ClassVar["Meter | None"] = None

    def __init__(self, vocab_size: int, layers: Layers | None = None, device: str = "meta") -> None:
        TorchDispatchMode.__init__(self)
        self.device = device
        self.label = ""
        self.elsewhere = False
        self.stepping: int | None = None
        self.stepwise = False
        self.updating = False
        self.recording = Recording()
        self.vocab_size = vocab_size
        self.phase: Phase = "load"
        self.layers = layers
        self.live: dict[int, int] = {}
        self.open = True

    # -- what exists before the step ---------------------------------------------------------------

    def see_weights(self, model: nn.Module) -> None:
        """Count parameters and buffers, each in the layer that owns it; sharding splits parameters alone."""
        owner = self.layers.of_name if self.layers else lambda name: NO_LAYER
        for name, parameter in model.named_parameters():
            self.see(parameter, "weights", owner(name), TRAINED if parameter.requires_grad else FROZEN)
            for scales in _state_tensors(getattr(parameter, "quant_state", None)):
                self.see(scales, "weights", owner(name), "block scales")
        for name, buffer in model.named_buffers():
            self.see(buffer, "weights", owner(name), FROZEN if name.endswith("qweight") else "buffer")

    def see(self, tensor: Tensor, kind: Kind | None = None, layer: int | None = None, op: str = "") -> None:
        """Record the storage of a tensor if it is new."""
        if tensor.device.type != self.device:
            return
        if tensor.is_sparse:
            for part in (tensor._indices(), tensor._values()):
                self.see(part, kind, layer, op)
            return
        storage = tensor.untyped_storage()
        handle = storage._cdata
        if handle in self.live:
            return
        size = storage.nbytes()
        if not size:
            return
        here = self.where() if layer is None else layer
        record = self.recording
        key = len(record.births)
        counted = 0 if self.elsewhere else size
        record.births.append(Birth(counted, kind or self._kind(tensor), self.phase, here, self.label or op))
        record.events.append(Event(key, True, self.phase, here))
        self.adopt(tensor, key)

    def _died(self, handle: int, key: int) -> None:
        if self.open:
            del self.live[handle]
            where = self._stepping(key) if self.phase == "optimizer" else self.where()
            self.recording.events.append(Event(key, False, self.phase, where))

    def _stepping(self, key: int) -> int:
        """The layer that an optimizer works on: that of its parameter, or in a foreach step that of each tensor."""
        return self.recording.births[key].layer if self.stepping is None else self.stepping

    def _kind(self, tensor: Tensor) -> Kind:
        if tensor.dim() and tensor.shape[-1] == self.vocab_size and self.counted_in != "optimizer":
            return "logits"
        return "activations" if self.phase in ("forward", "eval") or self._recomputing() else "workspace"

    def _recomputing(self) -> bool:
        return self.layers is not None and self.layers.inside >= 0

    def where(self) -> int:
        """The layer that is being computed now; NO_LAYER outside of the layers."""
        return self.layers.now(self.phase) if self.layers else NO_LAYER

    def rename(self, tensor: Tensor, kind: Kind, layer: int) -> None:
        """A storage turned out to be something else: a gradient that a parameter now holds."""
        key = self.key_of(tensor)
        if key is not None:
            birth = self.recording.births[key]
            birth.kind = kind
            if birth.layer == NO_LAYER and layer != NO_LAYER:
                birth.layer = layer

    def __enter__(self) -> Any:
        Meter.active = self
        return TorchDispatchMode.__enter__(self)

    def __exit__(self, *error: Any) -> None:
        Meter.active = None
        TorchDispatchMode.__exit__(self, *error)

    # -- the step ----------------------------------------------------------------------------------

    @contextmanager
    def update(self, layer: int) -> Iterator[None]:
        """An optimizer steps for a parameter of this layer in the middle of the backward pass."""
        self.updating, self.stepping = True, layer
        try:
            yield
        finally:
            self.updating, self.stepping = False, None

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def left_of(self, span: slice) -> set[int]:
        """Keys of storages that were born in these events and are still there."""
        return {event.key for event in self.recording.events[span] if event.birth} & set(self.live.values())

    def repeat(self, span: slice) -> dict[int, int]:
        """Record these events anew, with new storages; one that is still there was made once and for all.

        Returns:
            The new key of each storage that was born in them.
        """
        births, there = self.recording.births, set(self.live.values())
        new: dict[int, int] = {}
        for event in self.recording.events[span]:
            if event.birth and event.key not in there:
                new[event.key] = len(births)
                births.append(replace(births[event.key]))
            if event.key in new:
                self.recording.events.append(Event(new[event.key], event.birth, event.phase, event.layer))
        return new

    def adopt(self, tensor: Tensor, key: int) -> None:
        """The storage of a tensor that was made unseen is the one of this key."""
        storage = tensor.untyped_storage()
        self.live[storage._cdata] = key
        weakref.finalize(storage, self._died, storage._cdata, key).atexit = False

    def close(self) -> Recording:
        """Stop recording; what dies after this does not count."""
        self.open = False
        return self.recording

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = output(func, args, kwargs or {})
        packet = func._overloadpacket
        if self.phase == "optimizer" or self.updating:
            self._see_optimizer(out, args, str(packet))
            if not func.is_view:
                self._work_of_optimizer(out, args)
            return out
        flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out) if packet in flop_registry else None
        if flops is not None:
            self.count(flops)
        if not func.is_view:
            self.work().see(func, args, kwargs, out, flops)
        for tensor in tensors_in(out):
            self.see(tensor, op=str(packet))
        return out

    def count(self, flops: int, layer: int | None = None) -> None:
        """Arithmetic done here; a multiply-add counts as two."""
        spot = (self.counted_in, self.where() if layer is None else layer)
        self.recording.flops[spot] = self.recording.flops.get(spot, 0) + flops

    @property
    def counted_in(self) -> Phase:
        """The phase that arithmetic and work belong to: an update inside of the backward pass is the optimizer's."""
        return "optimizer" if self.updating else self.phase

    def work(self, layer: int | None = None) -> Work:
        """The work of this phase in a layer (None: the one that runs now)."""
        spot = (self.counted_in, self.where() if layer is None else layer)
        if spot not in self.recording.work:
            self.recording.work[spot] = Work()
        return self.recording.work[spot]

    def forget_work(self, phase: Phase) -> None:
        """Count the work of a phase anew."""
        for spot in [s for s in self.recording.work if s[0] == phase]:
            del self.recording.work[spot]

    def _see_optimizer(self, out: Any, args: Any, op: str) -> None:
        """An operation works for the layer of the tensor it is given first; a foreach operation, one to one, for those
        of its inputs. Elementwise: one operation an element. What joins many tensors into one belongs to no layer.
        """
        first = args[0] if args else None
        many = isinstance(first, (list, tuple))
        inputs: list[Any] = list(first) if isinstance(first, (list, tuple)) else [first]
        made = tensors_in(inputs if out is None else out)
        if inputs and many and len(made) != len(inputs):
            for tensor in made:
                self.see(tensor, layer=NO_LAYER, op=op)
            return
        layers = [self.layer_of(t) if isinstance(t, Tensor) else None for t in inputs]
        if self.stepwise and layers and layers[0] is not None:
            self.stepping = None if many else layers[0]
        for tensor, layer in zip_longest(made, layers[: len(made)]):
            if layer is None:  # made from nothing: a state of the parameter in turn
                layer = NO_LAYER if self.stepping is None else self.stepping
            if tensor.device.type == self.device:  # AdamW's step counts are on the host
                self.count(tensor.numel(), layer)
            self.see(tensor, layer=layer, op=op)

    def _work_of_optimizer(self, out: Any, args: Any) -> None:
        """Bytes count in the layer that the operation works for; those of a foreach operation, which returns nothing
        where it writes its inputs and is launched once for all, in each tensor's own. The step counts on the host are
        no work of the device.
        """
        first = args[0] if args else None
        many = isinstance(first, (list, tuple))
        every = tensors_in((args, first if out is None else out))
        tensors = [t for t in every if t.device.type == self.device]
        if not tensors:
            return
        layers = [NO_LAYER if (layer := self.layer_of(t)) is None else layer for t in tensors]
        for tensor, layer in zip(tensors, layers, strict=True):
            if not self._norms(tensor):
                self.work(layer if many else layers[0]).bytes += size(tensor)
        self.work(NO_LAYER if many and not self.updating else layers[0]).kernels += 1

    def _norms(self, tensor: Tensor) -> bool:
        """Clipping joins one number of each parameter: that grows with the layers, and weighs nothing beside them."""
        key = self.key_of(tensor)
        return key is not None and self.recording.births[key].op == "aten.stack"

    def key_of(self, tensor: Tensor) -> int | None:
        return self.live.get(tensor.untyped_storage()._cdata)

    def layer_of(self, tensor: Tensor) -> int | None:
        key = self.key_of(tensor)
        return None if key is None else self.recording.births[key].layer


@contextmanager
def named(operation: str) -> Iterator[None]:
    """What a stand-in makes inside is the work of this operation."""
    meter = Meter.active
    if meter is None:
        yield
        return
    before, meter.label = meter.label, operation
    try:
        yield
    finally:
        meter.label = before


@contextmanager
def on_host() -> Iterator[None]:
    """What is made inside lies in the host's memory: it is followed, and weighs nothing on the device."""
    meter = Meter.active
    if meter is None:
        yield
        return
    before, meter.elsewhere = meter.elsewhere, True
    try:
        yield
    finally:
        meter.elsewhere = before


def launched(*tensors: Tensor, attention: int = 0, layer: int | None = None) -> None:
    """A kernel that a stand-in stands for: what it reads and writes, and the arithmetic of attention."""
    meter = Meter.active
    if meter is None:
        return
    if attention:
        meter.count(attention)
    work = meter.work(layer)
    work.attention += attention
    work.bytes += moved(tensors)
    work.kernels += 1


def launched_product(m: int, n: int, k: int, dtype: str) -> None:
    """A product that a stand-in makes without one of torch's operations."""
    if Meter.active is not None:
        Meter.active.count(2 * m * n * k)
        work = Meter.active.work()
        work.products[1, m, n, k, dtype] += 1
        work.kernels += 1


def unpacked(packed: int, weight: Tensor) -> None:
    """A kernel that rebuilds `weight` from `packed` bytes."""
    if Meter.active is not None:
        work = Meter.active.work()
        work.unpacked += packed + moved(weight)
        work.kernels += 1


def launched_on(tensor: Tensor, *tensors: Tensor) -> None:
    """A kernel of an optimizer's stand-in, in the layer of its parameter."""
    if Meter.active is not None:
        launched(tensor, *tensors, layer=Meter.active.layer_of(tensor))


def _state_tensors(state: Any) -> list[Tensor]:
    if state is None:
        return []
    own = [v for v in vars(state).values() if isinstance(v, Tensor)]
    return own + _state_tensors(getattr(state, "state2", None))
