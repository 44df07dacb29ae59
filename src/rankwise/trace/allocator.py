"""Replay of births and deaths of storages through PyTorch's CUDA caching allocator: what torch.cuda would report.

What a replay cannot know: the addresses that the driver hands out (they only decide between free blocks of equal size;
here later segments lie higher), when work on a second stream ends (`record_stream`), and memory outside the allocator
(CUDA context, NCCL buffers).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rankwise.trace.blocks import Block, CachingAllocator

Event = tuple[int, int, int]
"""(key, size, stream): a birth of `size` >= 0 requested bytes under `key`, a `death(key)`, or `EMPTY_CACHE`."""

DEATH = -1
_EMPTY = -2
EMPTY_CACHE: Event = (0, _EMPTY, 0)
"""`torch.cuda.empty_cache()`."""


def birth(key: int, size: int, stream: int = 0) -> Event:
    """A storage of `size` requested bytes is allocated on `stream` and known as `key` until it dies."""
    return (key, size, stream)


def death(key: int) -> Event:
    """The storage known as `key` is freed."""
    return (key, DEATH, 0)


@dataclass(frozen=True)
class Replay:
    """What torch.cuda would report after the events. All sizes are bytes.

    Attributes:
        peak_allocated: `max_memory_allocated()`: whole blocks, so at least the requests rounded up to 512.
        peak_reserved: `max_memory_reserved()`.
        peak_requested: `memory_stats()["requested_bytes.all.peak"]`.
        peak_index: index of the event that first reached `peak_allocated`; -1 if nothing was allocated.
        segments: segments held at the end.
        out_of_memory_at: index of the birth that did not fit even after the cache was released; the replay stops there.
            None if all fitted.
    """

    peak_allocated: int
    peak_reserved: int
    peak_requested: int
    peak_index: int
    end_allocated: int
    end_reserved: int
    segments: int
    out_of_memory_at: int | None


def replay(events: Iterable[Event], *, expandable_segments: bool = False, capacity: int | None = None) -> Replay:
    """Run the events through an allocator that starts empty.

    Args:
        expandable_segments: as in `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`.
        capacity: bytes that the allocator may reserve: what the device has beyond the CUDA context and other processes.
            None: no limit.

    Raises:
        ValueError: the death of a key that is not alive, the birth of one that is, or a size that means nothing.
    """
    allocator = CachingAllocator(expandable_segments=expandable_segments, capacity=capacity)
    live: dict[int, Block | None] = {}
    peak = 0
    peak_index = -1
    out_of_memory_at = None
    for index, (key, size, stream) in enumerate(events):
        if size >= 0:
            if key in live:
                raise ValueError(f"event {index}: key {key} is born again before it died")
            block = allocator.malloc(size, stream) if size else None  # an empty storage has no block
            if size and block is None:
                out_of_memory_at = index
                break
            live[key] = block
            if allocator.allocated > peak:
                peak = allocator.allocated
                peak_index = index
        elif size == DEATH:
            try:
                block = live.pop(key)
            except KeyError:
                raise ValueError(f"event {index}: key {key} dies and is not alive") from None
            if block is not None:
                allocator.free(block)
        elif size == _EMPTY:
            allocator.empty_cache()
        else:
            raise ValueError(f"event {index}: size {size} is neither a size nor the mark of a death or of EMPTY_CACHE")
    return Replay(
        peak_allocated=peak,
        peak_reserved=allocator.peak_reserved,
        peak_requested=allocator.peak_requested,
        peak_index=peak_index,
        end_allocated=allocator.allocated,
        end_reserved=allocator.reserved,
        segments=allocator.segments,
        out_of_memory_at=out_of_memory_at,
    )
