"""Setup -> Trace: run the step on a few layers, extend it to all, and read the peaks off the births and deaths."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from rankwise.records.setup import Buckets, PhaseWork, Product, Setup, Trace
from rankwise.trace.allocator import replay
from rankwise.trace.blocks import MIN_BLOCK
from rankwise.trace.build import spans_layers
from rankwise.trace.extend import TEMPLATE, TRACED, UnlikeLayersError, extend
from rankwise.trace.lastruns import LastRuns
from rankwise.trace.loading import requests
from rankwise.trace.meter import Phase
from rankwise.trace.run import STEPS, Run, decoder_layers_of, largest_merged, layer_bytes, run_step
from rankwise.trace.shard import shard
from rankwise.trace.stack import refuse_in_backward
from rankwise.trace.stream import KINDS, PHASES, Numbers, Stream
from rankwise.trace.work import Work

TRAINING: tuple[Phase, ...] = ("load", "forward", "backward", "optimizer")
WORKING: tuple[Phase, ...] = ("forward", "backward", "optimizer", "eval")
# `rankwise merge` over interpreter and imports: times the largest tensor, and bytes beside (tests/export holds it).
MERGE_TENSORS, MERGE_BESIDE = 4, 300_000_000
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
        run, stream = _whole(setup)
        block = MIN_BLOCK if setup.device != "cpu" else 1
        peak = peak_of(stream, TRAINING, block)
        last = stream.storages.ops[stream.storages.op[stream.key[peak.index]]]
        resident = _resident(stream, block)
        return Trace(
            buckets=buckets_at(stream, peak.index, block),
            peak_allocated=peak.bytes,
            peak_reserved=_reserved(stream, setup) if setup.device != "cpu" else peak.bytes,
            peak_phase=PHASES[stream.phase[peak.index]],
            peak_op=last or "weights",
            resident=resident,
            eval_peak=peak_of(stream, ("eval",), block).bytes,
            save_peak=resident,
            merge_peak=_merge_peak(setup),
            trainable_params=run.trainable_params,
            total_params=run.total_params,
            flops=_flops(stream, run.micro_batches),
            work={phase: _work(stream, phase, run.micro_batches) for phase in WORKING},
            parameter_bytes=run.parameter_bytes,
            trained_bytes=run.trained_bytes,
            notes=run.notes,
        )


def _whole(setup: Setup) -> tuple[Run, Stream]:
    """Of all layers: from a short trace where the layers are alike, else traced in full."""
    layers = decoder_layers_of(setup)
    if layers <= TRACED + 1 or spans_layers(setup):
        return _in_full(setup)
    short = _last.ask(run_step, setup, TRACED)
    try:
        long = extend(shard(short.recording, setup), layers)
    except UnlikeLayersError:
        return _in_full(setup)
    more = layers - TRACED
    held, trained = layer_bytes(short.recording, TEMPLATE)
    whole = replace(
        short,
        trainable_params=short.trainable_params + more * short.layer_trainable_params,
        total_params=short.total_params + more * short.layer_total_params,
        parameter_bytes=short.parameter_bytes + more * held,
        trained_bytes=short.trained_bytes + more * trained,
    )
    return whole, long


def _in_full(setup: Setup) -> tuple[Run, Stream]:
    run = _last.ask(run_step, setup, None)
    return run, Stream.of(shard(run.recording, setup))


def peak_of(stream: Stream, phases: Iterable[Phase], block: int) -> Peak:
    """Over the events of these phases, every size rounded up to whole blocks."""
    sizes = _in_blocks(stream, block)[stream.key]
    held = np.where(stream.during(phases), np.cumsum(np.where(stream.birth, sizes, -sizes)), 0)
    index = int(np.argmax(held))
    return Peak(int(held[index]), index)


def _in_blocks(stream: Stream, block: int) -> Numbers:
    return -(-stream.storages.size // block) * block


def buckets_at(stream: Stream, index: int, block: int) -> Buckets:
    """What is alive after event number `index`, by kind."""
    alive = stream.alive(slice(index + 1))
    sizes, kinds = _in_blocks(stream, block)[alive], stream.storages.kind[alive]
    sums = {kind: int(sizes[kinds == number].sum()) for number, kind in enumerate(KINDS)}
    return Buckets(**sums)


def _resident(stream: Stream, block: int) -> int:
    """Weights and optimizer state after the last step."""
    kept = [number for number, kind in enumerate(KINDS) if kind in ("weights", "optimizer")]
    alive = stream.alive(stream.during(TRAINING)) & np.isin(stream.storages.kind, kept)
    return int(_in_blocks(stream, block)[alive].sum())


def _reserved(stream: Stream, setup: Setup) -> int:
    """On a card that fills up the allocator gives its cache back and tries again; one that is too small is taken to be
    as large as it would have to be.
    """
    wanted = requests(stream, stream.during(TRAINING), setup)
    if setup.capacity is not None:
        filled = replay(wanted, capacity=setup.capacity)
        if filled.out_of_memory_at is None:
            return filled.peak_reserved
    return replay(wanted).peak_reserved


def _flops(stream: Stream, micro_batches: int) -> dict[str, int]:
    """Of one micro-batch forward and backward, and of one optimizer step."""
    return {
        "forward": stream.flops.get("forward", 0) // micro_batches,
        "backward": stream.flops.get("backward", 0) // micro_batches,
        "optimizer": stream.flops.get("optimizer", 0) // STEPS,
    }


def _work(stream: Stream, phase: Phase, micro_batches: int) -> PhaseWork:
    """Of one micro-batch, of one optimizer step, or of one evaluated batch."""
    times = 1 if phase in ("optimizer", "eval") else micro_batches  # the optimizer's is that of the last step
    work = stream.work.get(phase, Work())
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


def _merge_peak(setup: Setup) -> int | None:
    """Host memory of `rankwise merge`, at most: it goes through the files of a 16-bit base by pieces of one weight."""
    if setup.method == "full":
        return None
    largest = _last.ask(largest_merged, setup, min(2, decoder_layers_of(setup)))
    return None if largest is None else MERGE_TENSORS * 2 * largest + MERGE_BESIDE


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's cycle collector would stop for seconds among so many small objects. The models are cycles, and in a
    batch of hundreds they would fill gigabytes: at the end the youngest generation is collected, which is what was made
    here. (A whole collection among frozen objects would leave Python believing in a small heap, walked ever after.)
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if was:
            gc.enable()
