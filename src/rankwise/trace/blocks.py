"""The blocks, pools and segments of PyTorch's CUDA caching allocator.

Written from the rules of c10/cuda/CUDACachingAllocator.cpp (backend "native", torch 2.4 to 2.13) at default settings:
`max_split_size_mb`, `roundup_power2_divisions` and `garbage_collection_threshold` are off. torch 2.13 has the 20 MiB of
a large segment as a setting (`large_segment_size_mb`); its default and every other constant are what they were in 2.4.
"""

from bisect import bisect_left, insort

MIB = 1 << 20
MIN_BLOCK = 512  # kMinBlockSize: sizes are rounded up to a multiple of it
SMALL_SIZE = MIB  # kSmallSize: up to here a request is served from the small pool
SMALL_BUFFER = 2 * MIB  # kSmallBuffer: segment (or page, if expandable) of the small pool
LARGE_BUFFER = 20 * MIB  # large_segment_size: segment of requests below MIN_LARGE_ALLOC, page of the large pool
MIN_LARGE_ALLOC = 10 * MIB  # kMinLargeAlloc: from here a request gets a segment of its own size ...
ROUND_LARGE = 2 * MIB  # kRoundLarge: ... rounded up to a multiple of this
ADDRESS_SPACE = 1 << 50  # of an expandable segment where the capacity is not known


class Block:
    """A piece of a segment: in use, free (cached), or, in an expandable segment, address space without memory."""

    __slots__ = ("address", "base", "free", "mapped", "next", "pool", "prev", "requested", "size")

    def __init__(self, address: int, size: int, pool: "Pool", base: int) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.base = base  # address of the segment's first byte
        self.requested = 0
        self.free = True
        self.mapped = True
        self.prev: Block | None = None  # neighbours within the segment
        self.next: Block | None = None


class Pool:
    """The free blocks of one stream and size class, in the order of best fit: by size, then by address."""

    __slots__ = ("page", "small", "sorted_free", "unmapped")

    def __init__(self, small: bool) -> None:
        self.small = small
        self.page = SMALL_BUFFER if small else LARGE_BUFFER
        self.sorted_free: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []  # by address

    def add(self, block: Block) -> None:
        if block.mapped:
            insort(self.sorted_free, (block.size, block.address, block))
        else:
            insort(self.unmapped, (block.address, block))

    def remove(self, block: Block) -> None:
        if block.mapped:
            del self.sorted_free[bisect_left(self.sorted_free, (block.size, block.address))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.address,))]


class CachingAllocator:
    """The allocator of one device. `allocated`, `reserved`, `requested` are current bytes, `peak_...` their highest."""

    def __init__(self, *, expandable_segments: bool = False, capacity: int | None = None) -> None:
        self.expandable = expandable_segments
        self.capacity = capacity
        self.allocated = self.reserved = self.requested = 0
        self.peak_reserved = self.peak_requested = 0
        self.segments = 0
        self._pools: dict[tuple[int, bool], Pool] = {}
        self._next_address = 0

    def malloc(self, size: int, stream: int = 0) -> Block | None:
        """A block of at least `size` > 0 bytes, reused only on `stream`.

        None when it does not fit, the cache having been released to make room.
        """
        requested = size
        size = (size + MIN_BLOCK - 1) // MIN_BLOCK * MIN_BLOCK
        small = size <= SMALL_SIZE
        pool = self._pools.get((stream, small))
        if pool is None:
            pool = self._pools[stream, small] = Pool(small)
        block = self._best_fit(pool, size) or self._grow(pool, size)
        if block is None:
            self.empty_cache()
            block = self._grow(pool, size)
            if block is None:
                return None
        rest = block.size - size
        # A large block is given away whole for a request up to 1 MiB smaller than it, and then counts whole.
        if rest and (rest > SMALL_SIZE or small or self.expandable):
            self._cut(block, size)
        block.free = False
        block.requested = requested
        self.allocated += block.size
        self.requested += requested
        if self.requested > self.peak_requested:
            self.peak_requested = self.requested
        return block

    def free(self, block: Block) -> None:
        """Give a block of `malloc` back to its pool, merged with free neighbours. Its segment stays reserved."""
        self.allocated -= block.size
        self.requested -= block.requested
        block.free = True
        self._merge_neighbours(block)
        block.pool.add(block)

    def empty_cache(self) -> None:
        """Release every segment without a block in use; of expandable segments, every page without one."""
        for pool in self._pools.values():
            if self.expandable:
                for _, _, block in list(pool.sorted_free):
                    self._unmap(block)
            else:
                whole = [b for _, _, b in pool.sorted_free if b.prev is None and b.next is None]
                for block in whole:
                    pool.remove(block)
                    self.reserved -= block.size
                self.segments -= len(whole)

    def cached(self) -> list[Block]:
        """The free blocks that stay reserved."""
        return [block for pool in self._pools.values() for _, _, block in pool.sorted_free]

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        free = pool.sorted_free
        i = bisect_left(free, (size,))
        if i == len(free):
            return None
        if self.expandable:  # a block counts with the address space that it can grow into
            while i + 1 < len(free) and _reach(free[i + 1][2]) < _reach(free[i][2]):
                i += 1
        return free.pop(i)[2]

    def _grow(self, pool: Pool, size: int) -> Block | None:
        return self._extend(pool, size) if self.expandable else self._cuda_malloc(pool, size)

    def _cuda_malloc(self, pool: Pool, size: int) -> Block | None:
        """A new segment, or None if it does not fit."""
        if pool.small or size < MIN_LARGE_ALLOC:
            size = pool.page
        else:
            size = (size + ROUND_LARGE - 1) // ROUND_LARGE * ROUND_LARGE
        if not self._reserve(size):
            return None
        return self._segment(pool, size)

    def _segment(self, pool: Pool, size: int) -> Block:
        block = Block(self._next_address, size, pool, self._next_address)
        self._next_address += size
        self.segments += 1
        return block

    def _reserve(self, size: int) -> bool:
        if self.capacity is not None and self.reserved + size > self.capacity:
            return False
        self.reserved += size
        if self.reserved > self.peak_reserved:
            self.peak_reserved = self.reserved
        return True

    def _cut(self, block: Block, size: int) -> None:
        """Leave `size` bytes to the block, which is in no list; the rest follows it in the pool, as mapped as it is."""
        rest = Block(block.address + size, block.size - size, block.pool, block.base)
        rest.mapped = block.mapped
        block.size = size
        _link(rest, block.next)
        _link(block, rest)
        block.pool.add(rest)

    def _merge_neighbours(self, block: Block) -> None:
        """Let the block, which is in no list, swallow the neighbours that are free and as mapped as it is."""
        for other in (block.prev, block.next):
            if other is None or not other.free or other.mapped != block.mapped:
                continue
            block.pool.remove(other)
            block.size += other.size
            if other is block.prev:
                block.address = other.address
                block.prev = other.prev
                if other.prev is not None:
                    other.prev.next = block
            else:
                block.next = other.next
                if other.next is not None:
                    other.next.prev = block

    # Expandable segments: address space is taken once, pages of memory are mapped into it on demand.

    def _extend(self, pool: Pool, size: int) -> Block | None:
        """Map pages at the lowest address where free and unmapped space of `size` lie together. None: out of memory."""
        block = self._room(pool, size)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            rest = block.next  # unmapped: two free blocks that touch are one
            assert rest is not None
            if not self._map(rest, min(rest.size, size - block.size)):
                return None
            block = rest  # it swallowed the free block before it
        pool.remove(block)
        return block

    def _room(self, pool: Pool, size: int) -> Block:
        for _, start in pool.unmapped:
            if start.prev is not None and start.prev.free:
                start = start.prev
            found = 0
            block: Block | None = start
            while block is not None and block.free and found < size:
                found += block.size
                block = block.next
            if found >= size:
                return start
        # 9/8 of the memory: pages released early in a segment can be mapped again at its end.
        space = ADDRESS_SPACE if self.capacity is None else self.capacity + self.capacity // 8
        segment = self._segment(pool, -(-max(space, size) // pool.page) * pool.page)
        segment.mapped = False
        pool.add(segment)
        return segment

    def _map(self, block: Block, size: int) -> bool:
        """Back the first `size` bytes of an unmapped block, which starts at a page, with whole pages."""
        size = -(-size // block.pool.page) * block.pool.page
        if not self._reserve(size):
            return False
        block.pool.remove(block)
        if size < block.size:
            self._cut(block, size)
        block.mapped = True
        self._merge_neighbours(block)
        block.pool.add(block)
        return True

    def _unmap(self, block: Block) -> None:
        """Release the pages that lie wholly inside a free block."""
        page, base = block.pool.page, block.base
        first = base - (base - block.address) // page * page
        last = base + (block.address + block.size - base) // page * page
        if first >= last:
            return
        block.pool.remove(block)
        if block.address < first:
            head = block
            self._cut(head, first - head.address)
            assert head.next is not None
            block = head.next
            block.pool.remove(block)
            head.pool.add(head)
        if last < block.address + block.size:
            self._cut(block, last - block.address)
        self.reserved -= block.size
        block.mapped = False
        self._merge_neighbours(block)
        if block.prev is None and block.next is None:
            self.segments -= 1
        else:
            block.pool.add(block)


def _reach(block: Block) -> int:
    return block.size + (block.next.size if block.next is not None and not block.next.mapped else 0)


def _link(before: Block, after: Block | None) -> None:
    before.next = after
    if after is not None:
        after.prev = before
