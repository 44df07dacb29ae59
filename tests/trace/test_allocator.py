"""The replay against what torch's own tests expect of the allocator, and against properties that must always hold."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.trace.allocator import EMPTY_CACHE, Event, birth, death, replay
from rankwise.trace.blocks import Block, CachingAllocator

KIB, MIB = 1 << 10, 1 << 20
# Sizes around every border of the rules: rounding, small and large pool, own segments.
SIZES = st.one_of(
    st.sampled_from(
        [1, 511, 512, 513, MIB - 1, MIB, MIB + 1, 2 * MIB, 10 * MIB - 512, 10 * MIB, 10 * MIB + 1, 20 * MIB, 21 * MIB]
    ),
    st.integers(1, 48 * MIB),
)
BOTH = pytest.mark.parametrize("expandable", [False, True])


@st.composite
def streams_of_events(draw: st.DrawFn, *, empties: bool = True) -> list[Event]:
    """Births and deaths on two streams in a valid order, some keys left alive."""
    events: list[Event] = []
    live: list[int] = []
    for key in range(draw(st.integers(1, 40))):
        events.append(birth(key, draw(st.one_of(st.just(0), SIZES)), draw(st.integers(0, 1))))
        live.append(key)
        for _ in range(draw(st.integers(0, 2))):
            if live:
                events.append(death(live.pop(draw(st.integers(0, len(live) - 1)))))
        if empties and draw(st.integers(0, 9)) == 0:
            events.append(EMPTY_CACHE)
    return events


# -- sequences with published results ----------------------------------------------------------------------------

# test_graph_memory_stats_and_use_result_after_destroy_graph in torch's test/test_cuda.py (run with expandable segments
# too, by test/test_cuda_expandable_segments.py): bytes of a tensor, segments and reserved bytes after the sequence
# below, reserved bytes once all but the result is gone; then both reserved figures with expandable segments.
TORCH_CASES = [
    (512, 1, 2 * MIB, 2 * MIB, 2 * MIB, 2 * MIB),
    (MIB, 2, 4 * MIB, 2 * MIB, 4 * MIB, 2 * MIB),
    (MIB + 512, 1, 20 * MIB, 20 * MIB, 20 * MIB, 20 * MIB),
    (10 * MIB - 512, 2, 40 * MIB, 20 * MIB, 40 * MIB, 40 * MIB),
    (10 * MIB + 512, 3, 36 * MIB, 12 * MIB, 40 * MIB, 20 * MIB),
]


def clone_and_add(size: int) -> list[Event]:
    """`b = a.clone()`, then five times `b = b.clone() + 1`; `a` lives in another pool."""
    events = [birth(0, size)]
    for i in range(1, 11, 2):
        result = 0 if i == 1 else i - 1
        events += [birth(i, size), birth(i + 1, size), death(i), death(result)]
    return events


@pytest.mark.parametrize(("size", "segments", "reserved", "left", "_mapped", "_left_mapped"), TORCH_CASES)
def test_torchs_own_expectations(
    size: int, segments: int, reserved: int, left: int, _mapped: int, _left_mapped: int
) -> None:
    before = replay(clone_and_add(size))
    assert (before.segments, before.end_reserved, before.end_allocated) == (segments, reserved, size)
    after = replay([*clone_and_add(size), EMPTY_CACHE])
    assert (after.segments, after.end_reserved, after.end_allocated) == (1, left, size)
    assert after.peak_requested == 3 * size


@pytest.mark.parametrize(("size", "_segments", "_reserved", "_left", "mapped", "left"), TORCH_CASES)
def test_torchs_own_expectations_of_expandable_segments(
    size: int, _segments: int, _reserved: int, _left: int, mapped: int, left: int
) -> None:
    before = replay(clone_and_add(size), expandable_segments=True)
    assert (before.segments, before.end_reserved, before.end_allocated) == (1, mapped, size)
    after = replay([*clone_and_add(size), EMPTY_CACHE], expandable_segments=True)
    assert (after.end_reserved, after.end_allocated) == (left, size)


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (0, 0, 0),
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        # From 10 MiB a segment is the request rounded up to 2 MiB; a rest of up to 1 MiB stays with the block.
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
    ],
)
def test_one_storage(size: int, allocated: int, reserved: int) -> None:
    result = replay([birth(7, size)])
    assert (result.peak_allocated, result.peak_reserved, result.peak_requested) == (allocated, reserved, size)


# -- rules one at a time -----------------------------------------------------------------------------------------


def test_best_fit_takes_the_smallest_block_that_fits() -> None:
    events = [birth(0, 30 * MIB), birth(1, 12 * MIB), death(0), death(1), birth(2, 11 * MIB + 512)]
    # The 12 MiB block, whole, because the rest is under 1 MiB; the 30 MiB block would have been split to size.
    assert replay(events).end_allocated == 12 * MIB


def test_freed_neighbours_merge() -> None:
    thirds = [birth(k, 6 * MIB) for k in range(3)]  # share a segment of 20 MiB
    assert replay([*thirds, death(0), death(2), death(1), birth(3, 19 * MIB)]).peak_reserved == 20 * MIB
    assert replay([*thirds, death(0), death(2), birth(3, 19 * MIB)]).peak_reserved == 40 * MIB


@BOTH
def test_a_stream_does_not_reuse_what_another_freed(expandable: bool) -> None:
    same = [birth(0, 40 * MIB, 0), death(0), birth(1, 40 * MIB, 0)]
    other = [birth(0, 40 * MIB, 0), death(0), birth(1, 40 * MIB, 1)]
    assert replay(same, expandable_segments=expandable).peak_reserved == 40 * MIB
    assert replay(other, expandable_segments=expandable).peak_reserved == 80 * MIB


def test_a_growing_batch_fragments_fixed_segments_only() -> None:
    """The case that expandable segments were made for: each step needs a little more than the last."""
    events: list[Event] = []
    for step in range(10):
        events += [birth(2 * step, (100 + 3 * step) * MIB), birth(2 * step + 1, (50 + 3 * step) * MIB)]
        events += [death(2 * step), death(2 * step + 1)]
    fixed, grown = replay(events), replay(events, expandable_segments=True)
    assert fixed.peak_requested == grown.peak_requested == grown.peak_allocated == (127 + 77) * MIB
    assert grown.peak_reserved == 220 * MIB  # in pages of 20 MiB
    assert fixed.peak_reserved > 5 * grown.peak_reserved


def test_peak_index_is_the_first_event_at_the_peak() -> None:
    events = [birth(0, 512), birth(1, 1024), death(1), birth(2, 1024)]
    assert replay(events).peak_index == 1
    assert replay([]).peak_index == -1


@BOTH
def test_cached_memory_is_released_before_giving_up(expandable: bool) -> None:
    events = [birth(0, 60 * MIB), death(0), birth(1, 80 * MIB, 1)]
    result = replay(events, expandable_segments=expandable, capacity=100 * MIB)
    assert result.out_of_memory_at is None and result.end_reserved == 80 * MIB and result.peak_reserved == 80 * MIB


@BOTH
def test_out_of_memory_names_the_birth_and_ends_the_replay(expandable: bool) -> None:
    events = [birth(0, 60 * MIB), birth(1, 60 * MIB), death(0), birth(2, 200)]
    result = replay(events, expandable_segments=expandable, capacity=100 * MIB)
    assert result.out_of_memory_at == 1
    assert result.end_allocated == result.peak_allocated == 60 * MIB and result.peak_reserved <= 100 * MIB


def test_fragmentation_alone_runs_out_of_memory() -> None:
    """44 of 96 MiB are free, 11 in each of four segments: too little for 24 MiB, unless free space lies together."""
    events = [birth(k, 24 * MIB) for k in range(4)] + [death(k) for k in range(4)]
    events += [birth(k, 13 * MIB) for k in range(4, 8)] + [birth(8, 24 * MIB)]
    assert replay(events, capacity=100 * MIB).out_of_memory_at == 12
    assert replay(events, expandable_segments=True, capacity=100 * MIB).out_of_memory_at is None


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([death(3)], "key 3 dies and is not alive"),
        ([birth(3, 1), death(3), death(3)], "event 2"),
        ([birth(3, 1), birth(3, 1)], "born again"),
        ([(3, -7, 0)], "neither a size"),
    ],
)
def test_events_that_mean_nothing(events: list[Event], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replay(events)


def test_an_empty_storage_takes_nothing_and_may_die() -> None:
    result = replay([birth(0, 0), death(0)])
    assert (result.peak_allocated, result.peak_reserved, result.segments) == (0, 0, 0)


# -- properties --------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(events=streams_of_events(), expandable=st.booleans())
def test_counts_are_consistent(events: list[Event], expandable: bool) -> None:
    result = replay(events, expandable_segments=expandable)
    assert result == replay(iter(events), expandable_segments=expandable)
    assert result.peak_requested <= result.peak_allocated <= result.peak_reserved
    assert result.end_allocated <= result.end_reserved <= result.peak_reserved
    assert result.peak_reserved % (2 * MIB) == 0 and result.peak_allocated % 512 == 0
    assert result.out_of_memory_at is None


@settings(max_examples=100, deadline=None)
@given(events=streams_of_events(), expandable=st.booleans())
def test_nothing_stays_when_all_is_freed(events: list[Event], expandable: bool) -> None:
    live = {e[0] for e in events if e[1] >= 0} - {e[0] for e in events if e[1] == death(0)[1]}
    freed = [*events, *(death(k) for k in sorted(live))]
    assert replay(freed, expandable_segments=expandable).end_allocated == 0
    emptied = replay([*freed, EMPTY_CACHE], expandable_segments=expandable)
    assert (emptied.end_reserved, emptied.segments) == (0, 0)


@settings(max_examples=100, deadline=None)
@given(events=streams_of_events(), expandable=st.booleans(), capacity=st.integers(1, 300).map(lambda n: n * MIB))
def test_capacity_is_kept_and_nothing_changes_where_it_suffices(
    events: list[Event], expandable: bool, capacity: int
) -> None:
    free = replay(events, expandable_segments=expandable)
    bound = replay(events, expandable_segments=expandable, capacity=capacity)
    assert bound.peak_reserved <= capacity
    if free.peak_reserved <= capacity:
        assert bound == free
    if bound.out_of_memory_at is None:
        assert bound.peak_requested == free.peak_requested
    else:
        assert events[bound.out_of_memory_at][1] > 0
    if free.peak_requested > capacity:
        assert bound.out_of_memory_at is not None


@settings(max_examples=100, deadline=None)
@given(events=streams_of_events(), expandable=st.booleans(), capacity=st.none() | st.integers(40, 300))
def test_blocks_tile_their_segments(events: list[Event], expandable: bool, capacity: int | None) -> None:
    allocator = CachingAllocator(expandable_segments=expandable, capacity=None if capacity is None else capacity * MIB)
    live: dict[int, Block] = {}
    for key, size, stream in events:
        if size > 0:
            block = allocator.malloc(size, stream)
            if block is None:
                break
            assert block.size >= size and not block.free and block.mapped
            live[key] = block
        elif key in live and size < 0 and (key, size, stream) == death(key):
            allocator.free(live.pop(key))
        elif (key, size, stream) == EMPTY_CACHE:
            allocator.empty_cache()
        _check_tiling(allocator, live)


def _check_tiling(allocator: CachingAllocator, live: dict[int, Block]) -> None:
    """No two blocks overlap, neighbours touch, free neighbours have merged; the counters are sums over the blocks."""
    cached = allocator.cached()
    spans = sorted((b.address, b.address + b.size) for b in [*live.values(), *cached])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert sum(b.size for b in live.values()) == allocator.allocated
    assert sum(b.size for b in live.values()) + sum(b.size for b in cached) == allocator.reserved
    for block in [*live.values(), *cached]:
        if block.next is not None:
            assert block.next.prev is block and block.next.address == block.address + block.size
            assert not (block.free and block.next.free and block.mapped == block.next.mapped), "should have merged"


@BOTH
def test_a_long_trace_is_replayed_quickly(expandable: bool) -> None:
    """100,000 events in a training step's shape: activations live long and die in reverse, temporaries die at once."""
    events: list[Event] = []
    key = 0
    for _ in range(50):
        saved: list[int] = []
        for layer in range(500):
            events += [birth(key, 4 * MIB + 512 * (layer % 7)), birth(key + 1, 900 * KIB), death(key + 1)]
            saved.append(key)
            key += 2
        events += [death(k) for k in reversed(saved)]
    assert len(events) == 100_000
    start = time.process_time()
    result = replay(events, expandable_segments=expandable)
    assert time.process_time() - start < 2.0  # 0.1 s on an idle core
    assert result.end_allocated == 0
