"""Setup -> Trace: run the step on a few layers, extend it to all, and read the peaks off the births and deaths."""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rankwise.records.setup import Buckets, PhaseWork, Product, Setup, Trace
from rankwise.trace.allocator import replay
from rankwise.trace.blocks import MIN_BLOCK
from rankwise.trace.build import spans_layers
from rankwise.trace.extend import TEMPLATE, TRACED, UnlikeLayersError, extend
from rankwise.trace.lastruns import LastRuns
from rankwise.trace.loading import requests
from rankwise.trace.meter import Event, Recording
from rankwise.trace.run import STEPS, Run, count_params, decoder_layers_of, layer_bytes, merge_temporaries, run_step
from rankwise.trace.shard import shard
from rankwise.trace.stack import refuse_in_backward
from rankwise.trace.work import total

TRAINING = ("load", "forward", "backward", "optimizer")
# Of a plan's candidates a few are the same step under another sharding. A run of five layers keeps 2 MB.
_last = LastRuns(24)


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at one time, and the event after which they were."""

    bytes: int
    index: int


def trace(setup: Setup) -> Trace:
    """What one device holds during a training step of `setup`. Needs torch; about half a second for any depth.

    Raises:
        ModelError: transformers does not know the architecture.
        UsageError: a method, optimizer or combination that cannot be.
    """
    refuse_in_backward(setup)
    with _no_collector():
        run = _whole(setup)
        recording = run.recording
        block = MIN_BLOCK if setup.device != "cpu" else 1
        peak = peak_of(recording, TRAINING, block)
        last = recording.births[recording.events[peak.index].key]
        resident = _resident(recording, block)
        return Trace(
            buckets=buckets_at(recording, peak.index, block),
            peak_allocated=peak.bytes,
            peak_reserved=_reserved(recording, setup) if setup.device != "cpu" else peak.bytes,
            peak_phase=recording.events[peak.index].phase,
            peak_op=last.op or "weights",
            resident=resident,
            eval_peak=peak_of(recording, ("eval",), block).bytes,
            save_peak=resident,
            merge_peak=_merge_peak(setup, run),
            trainable_params=run.trainable_params,
            total_params=run.total_params,
            flops=_flops(run),
            work={phase: _work(run, phase) for phase in ("forward", "backward", "optimizer", "eval")},
            parameter_bytes=run.parameter_bytes,
            trained_bytes=run.trained_bytes,
            notes=run.notes,
        )


def _whole(setup: Setup) -> Run:
    """Of all layers: from a short trace where the layers are alike, else traced in full."""
    layers = decoder_layers_of(setup)
    if layers <= TRACED + 1 or spans_layers(setup):
        return _sharded(_last.ask(run_step, setup, None), setup)
    short, shorter = _last.ask(run_step, setup, TRACED), _last.ask(count_params, setup, TRACED - 1)
    try:
        long = extend(shard(short.recording, setup), layers)
    except UnlikeLayersError:
        return _sharded(_last.ask(run_step, setup, None), setup)
    more = layers - TRACED
    held, trained = layer_bytes(short.recording, TEMPLATE)
    return replace(
        short,
        recording=long,
        trainable_params=short.trainable_params + more * (short.trainable_params - shorter[0]),
        total_params=short.total_params + more * (short.total_params - shorter[1]),
        parameter_bytes=short.parameter_bytes + more * held,
        trained_bytes=short.trained_bytes + more * trained,
    )


def _sharded(run: Run, setup: Setup) -> Run:
    return replace(run, recording=shard(run.recording, setup))


def peak_of(recording: Recording, phases: Iterable[str], block: int) -> Peak:
    """Over the events of these phases, every size rounded up to whole blocks."""
    wanted = set(phases)
    now, best = 0, Peak(0, 0)
    births = recording.births
    for index, event in enumerate(recording.events):
        size = -(-births[event.key].bytes // block) * block
        now += size if event.birth else -size
        if now > best.bytes and event.phase in wanted:
            best = Peak(now, index)
    return best


def buckets_at(recording: Recording, index: int, block: int) -> Buckets:
    """What is alive after event number `index`, by kind."""
    alive = _alive(recording.events[: index + 1])
    sums: Counter[str] = Counter()
    for key in alive:
        born = recording.births[key]
        sums[born.kind] += -(-born.bytes // block) * block
    return Buckets(**{kind: sums[kind] for kind in Buckets.model_fields})


def _alive(events: Iterable[Event]) -> set[int]:
    alive: set[int] = set()
    for event in events:
        if event.birth:
            alive.add(event.key)
        else:
            alive.discard(event.key)
    return alive


def _resident(recording: Recording, block: int) -> int:
    """Weights and optimizer state after the last step."""
    training = [e for e in recording.events if e.phase in TRAINING]
    kept = [recording.births[k] for k in _alive(training)]
    return sum(-(-b.bytes // block) * block for b in kept if b.kind in ("weights", "optimizer"))


def _reserved(recording: Recording, setup: Setup) -> int:
    """On a card that fills up the allocator gives its cache back and tries again; one that is too small is taken to be
    as large as it would have to be.
    """
    training = [event for event in recording.events if event.phase in TRAINING]
    wanted = list(requests(recording, training, setup))
    if setup.capacity is not None:
        filled = replay(wanted, capacity=setup.capacity)
        if filled.out_of_memory_at is None:
            return filled.peak_reserved
    return replay(wanted).peak_reserved


def _flops(run: Run) -> dict[str, int]:
    """Of one micro-batch forward and backward, and of one optimizer step."""
    sums: Counter[str] = Counter()
    for (phase, _), count in run.recording.flops.items():
        sums[phase] += count
    return {
        "forward": sums["forward"] // run.micro_batches,
        "backward": sums["backward"] // run.micro_batches,
        "optimizer": sums["optimizer"] // STEPS,
    }


def _work(run: Run, phase: str) -> PhaseWork:
    """Of one micro-batch, of one optimizer step, or of one evaluated batch."""
    times = 1 if phase in ("optimizer", "eval") else run.micro_batches  # the optimizer's is that of the last step
    work = total(part for (at, _), part in run.recording.work.items() if at == phase)
    return PhaseWork(
        products=tuple(
            Product(batch=batch, m=m, n=n, k=k, dtype=dtype, count=count / times)
            for (batch, m, n, k, dtype), count in sorted(work.products.items())
        ),
        attention_flops=work.attention / times,
        moved_bytes=work.bytes / times,
        unpacked_bytes=work.unpacked / times,
        kernels=work.kernels / times,
    )


def _merge_peak(setup: Setup, run: Run) -> int | None:
    """PEFT's merge_and_unload on the device: 16-bit base, fp32 adapter, and what merging one layer needs beside."""
    if setup.method == "full":
        return None
    beside = _last.ask(merge_temporaries, setup, min(2, decoder_layers_of(setup)))
    if beside is None:
        return None
    return 2 * (run.total_params - run.trainable_params) + 4 * run.trainable_params + beside


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's cycle collector would stop for seconds among so many small objects. The models are cycles, so it runs
    once at the end, over what was made here alone: in a batch of hundreds they would fill gigabytes.
    """
    was = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if was:
            gc.enable()
