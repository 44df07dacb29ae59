"""The replay against the same rules written the plain way: every block of every segment is looked at for each birth."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.trace.allocator import EMPTY_CACHE, Event, death, replay
from tests.trace.test_allocator import MIB, streams_of_events


@dataclass
class Piece:
    size: int
    key: int | None = None


@dataclass
class Segment:
    stream: int
    small: bool
    size: int
    pieces: list[Piece]

    @property
    def unused(self) -> bool:
        return len(self.pieces) == 1 and self.pieces[0].key is None

    def free(self, key: int) -> None:
        merged: list[Piece] = []
        for piece in self.pieces:
            piece.key = None if piece.key == key else piece.key
            if merged and merged[-1].key is None and piece.key is None:
                merged[-1].size += piece.size
            else:
                merged.append(piece)
        self.pieces = merged


class Scanner:
    """Segments in order of age, which is their order of addresses in the replay."""

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self.segments: list[Segment] = []

    @property
    def reserved(self) -> int:
        return sum(s.size for s in self.segments)

    @property
    def allocated(self) -> int:
        return sum(p.size for s in self.segments for p in s.pieces if p.key is not None)

    def release(self) -> None:
        self.segments = [s for s in self.segments if not s.unused]

    def birth(self, key: int, size: int, stream: int) -> bool:
        size = max(512, -(-size // 512) * 512)
        small = size <= MIB
        fitting = [
            (piece.size, age, place)
            for age, segment in enumerate(self.segments)
            if (segment.stream, segment.small) == (stream, small)
            for place, piece in enumerate(segment.pieces)
            if piece.key is None and piece.size >= size
        ]
        if fitting:
            _, age, place = min(fitting)
        else:
            wanted = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            if self.capacity is not None and self.reserved + wanted > self.capacity:
                self.release()
                if self.reserved + wanted > self.capacity:
                    return False
            self.segments.append(Segment(stream, small, wanted, [Piece(wanted)]))
            age, place = len(self.segments) - 1, 0
        pieces = self.segments[age].pieces
        rest = pieces[place].size - size
        if rest >= 512 if small else rest > MIB:
            pieces[place : place + 1] = [Piece(size, key), Piece(rest)]
        else:
            pieces[place].key = key
        return True

    def run(self, events: list[Event]) -> tuple[int, int, int | None]:
        """Peak of allocated and of reserved bytes, and the index of the birth that did not fit."""
        peak_allocated = peak_reserved = 0
        for index, (key, size, stream) in enumerate(events):
            if (key, size, stream) == EMPTY_CACHE:
                self.release()
            elif (key, size, stream) == death(key):
                for segment in self.segments:
                    segment.free(key)
            elif size and not self.birth(key, size, stream):
                return peak_allocated, peak_reserved, index
            peak_allocated = max(peak_allocated, self.allocated)
            peak_reserved = max(peak_reserved, self.reserved)
        return peak_allocated, peak_reserved, None


@settings(max_examples=200, deadline=None)
@given(events=streams_of_events(), capacity=st.none() | st.integers(20, 300).map(lambda n: n * MIB))
def test_same_blocks_as_by_scanning(events: list[Event], capacity: int | None) -> None:
    result, scanner = replay(events, capacity=capacity), Scanner(capacity)
    assert scanner.run(events) == (result.peak_allocated, result.peak_reserved, result.out_of_memory_at)
    assert (scanner.allocated, scanner.reserved) == (result.end_allocated, result.end_reserved)
    assert len(scanner.segments) == result.segments
