"""Data that arrived out of order (RFC 9293, 3.10.7.4, seventh step), in the engine's own memory, and bounded."""

from bisect import bisect_left, bisect_right
from collections import deque
from itertools import islice


class Block:
    """A run of bytes without a hole: positions [start, end), and its pieces in order."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.parts: deque[tuple[memoryview, bool]] = deque()


class Reassembly:
    """Disjoint blocks in stream order. Of bytes that arrive twice, the first ones stay.

    [overlap_start, overlap_end): the first bytes of the latest `insert` or `pop` that were kept already; -1 if none.
    """

    def __init__(self, max_blocks: int, max_parts: int) -> None:
        self.max_blocks = max_blocks
        self.max_parts = max_parts
        self.parts = 0
        self.overlap_start = -1
        self.overlap_end = -1
        self._blocks: list[Block] = []
        self._starts: list[int] = []
        # The block that grew last comes last.
        self._by_growth: dict[Block, None] = {}

    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not self._blocks

    def clear(self) -> None:
        """Forgets everything."""
        self._blocks.clear()
        self._starts.clear()
        self._by_growth.clear()
        self.parts = 0

    def insert(self, start: int, data: memoryview, push: bool) -> int:
        """Copies what is new of `data`, which begins at position `start`. Returns the number of new bytes.

        -1: nothing was kept, for lack of room.
        """
        end = start + len(data)
        self.overlap_start = -1
        first = bisect_left(self._starts, start)
        if first > 0 and self._blocks[first - 1].end >= start:
            first -= 1
        last = first
        while last < len(self._blocks) and self._blocks[last].start <= end:
            last += 1
        if first == last:
            if len(self._blocks) >= self.max_blocks or self.parts >= self.max_parts:
                return -1
            block = Block(start, end)
            self._by_growth[block] = None
            block.parts.append((memoryview(bytes(data)), push))
            self.parts += 1
            self._blocks.insert(first, block)
            self._starts.insert(first, start)
            return end - start
        self._note_overlap(first, last, start, end)
        block = self._blocks[first]
        if block.start <= start and end <= block.end:
            self._has_grown(block)
            return 0
        return self._merge(first, last, start, end, data, push)

    def _merge(self, first: int, last: int, start: int, end: int, data: memoryview, push: bool) -> int:
        """Joins blocks [first, last), which touch [start, end), with what is new between them."""
        if self.parts + (last - first) >= self.max_parts:
            return -1
        block = self._blocks[first]
        self._has_grown(block)
        new = 0
        if start < block.start:
            new = block.start - start
            block.parts.appendleft((memoryview(bytes(data[:new])), push and end <= block.start))
            self.parts += 1
            block.start = start
            self._starts[first] = start
        for index in range(first + 1, last + 1):
            following = self._blocks[index] if index < last else None
            until = end if following is None else following.start
            if block.end < until:
                new += until - block.end
                piece = data[block.end - start : until - start]
                block.parts.append((memoryview(bytes(piece)), push and until == end))
                self.parts += 1
                block.end = until
            if following is not None:
                block.parts.extend(following.parts)
                block.end = following.end
                del self._by_growth[following]
        del self._blocks[first + 1 : last]
        del self._starts[first + 1 : last]
        return new

    def bring_forward(self, position: int) -> None:
        """The block that holds `position`, if there is one, comes first in `ranges` for now."""
        index = bisect_right(self._starts, position) - 1
        if index >= 0 and position < self._blocks[index].end:
            self._has_grown(self._blocks[index])

    def _has_grown(self, block: Block) -> None:
        del self._by_growth[block]
        self._by_growth[block] = None

    def _note_overlap(self, first: int, last: int, start: int, end: int) -> None:
        """Blocks [first, last) touch or overlap [start, end)."""
        for index in range(first, last):
            block = self._blocks[index]
            if max(start, block.start) < min(end, block.end):
                self.overlap_start = max(start, block.start)
                self.overlap_end = min(end, block.end)
                return

    def pop(self, position: int, received: list[tuple[memoryview, bool]]) -> int:
        """Appends to `received` what has become in-order at `position`; returns the position after it.

        What overlaps is that of a segment which ends at `position`.
        """
        self.overlap_start = -1
        if self._blocks and self._blocks[0].start < position:
            self.overlap_start = self._blocks[0].start
            self.overlap_end = min(self._blocks[0].end, position)
        count = 0
        while count < len(self._blocks) and self._blocks[count].start <= position:
            block = self._blocks[count]
            count += 1
            del self._by_growth[block]
            self.parts -= len(block.parts)
            if block.end <= position:
                continue
            skip = position - block.start
            for view, push in block.parts:
                size = len(view)
                if skip >= size:
                    skip -= size
                    continue
                received.append((view[skip:] if skip else view, push))
                skip = 0
            position = block.end
        del self._blocks[:count]
        del self._starts[:count]
        return position

    def cut(self, position: int) -> None:
        """Forgets what stands at `position` or behind it: the stream ends there."""
        while self._blocks and self._blocks[len(self._blocks) - 1].end > position:
            block = self._blocks[len(self._blocks) - 1]
            if block.start >= position:
                self.parts -= len(block.parts)
                self._blocks.pop()
                self._starts.pop()
                del self._by_growth[block]
                continue
            view, push = block.parts.pop()
            start = block.end - len(view)
            if start < position:
                block.parts.append((view[: position - start], push))
                block.end = position
            else:
                block.end = start
                self.parts -= 1

    def ranges(self, count: int) -> list[tuple[int, int]]:
        """At most `count` blocks as (start, end): the one that grew last comes first (RFC 2018, 4)."""
        return [(block.start, block.end) for block in islice(reversed(self._by_growth), count)]
