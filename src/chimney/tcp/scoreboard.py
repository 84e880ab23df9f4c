"""What the peer has acknowledged selectively (RFC 2018, 5; RFC 6675, 3 and 4), as positions, and bounded."""

from bisect import bisect_left, bisect_right

from chimney.tcp.seq import unwrap


class Scoreboard:
    """Disjoint ranges in stream order; `total` is the number of bytes in them."""

    def __init__(self, max_ranges: int) -> None:
        self.max_ranges = max_ranges
        self.total = 0
        self.duplicate_reported = 0
        self.duplicate_start = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    def clear(self) -> None:
        """Forgets everything."""
        self._starts.clear()
        self._ends.clear()
        self.total = 0

    def update(self, blocks: list[tuple[int, int]], una_seq: int, una: int, limit: int) -> int:
        """Takes in the blocks of a segment; `una_seq` is the sequence number of position `una`.

        Blocks that are not within (una, limit] are ignored. The first one, if it is below `una` or within the second,
        is a duplicate that the peer reports (RFC 2883): `duplicate_reported` bytes from `duplicate_start` on. Returns
        the bytes newly covered.
        """
        before = self.total
        self.duplicate_reported = 0
        for index, (left, right) in enumerate(blocks):
            start = unwrap(left, una_seq, una)
            end = unwrap(right, una_seq, una)
            if start >= end:
                continue
            if index == 0 and (end <= una or (len(blocks) > 1 and _within(start, end, blocks[1], una_seq, una))):
                self.duplicate_reported = end - start
                self.duplicate_start = start
                continue
            if una < start and end <= limit:
                self._add(start, end)
        return self.total - before

    def advance(self, una: int) -> None:
        """Forgets what is before `una`."""
        while self._starts and self._starts[0] < una:
            start = self._starts[0]
            end = self._ends[0]
            if end > una:
                self._starts[0] = una
                self.total -= una - start
                return
            del self._starts[0]
            del self._ends[0]
            self.total -= end - start

    def first(self) -> int:
        """The start of the first range; -1 if there is none."""
        return self._starts[0] if self._starts else -1

    def last(self) -> int:
        """The start of the last range; -1 if there is none."""
        return self._starts[-1] if self._starts else -1

    def highest(self) -> int:
        """The position after the last byte covered; -1 if there is none."""
        return self._ends[-1] if self._ends else -1

    def below(self, position: int) -> int:
        """How many bytes before `position` are covered."""
        count = len(self._starts)
        if count == 0 or position >= self._ends[count - 1]:
            return self.total
        covered = 0
        for index in range(count):
            start = self._starts[index]
            if start >= position:
                break
            end = self._ends[index]
            covered += (end if end < position else position) - start
        return covered

    def hole_start(self, position: int) -> int:
        """The first byte from `position` on that is not covered."""
        index = bisect_right(self._starts, position) - 1
        return self._ends[index] if index >= 0 and self._ends[index] > position else position

    def hole_end(self, position: int, limit: int) -> int:
        """Where the hole around `position` ends, at most `limit`."""
        index = bisect_right(self._starts, position)
        return self._starts[index] if index < len(self._starts) and self._starts[index] < limit else limit

    def lost_below(self, threshold: int, mss: int) -> int:
        """The position below which every byte not covered is taken as lost (RFC 6675, 4, IsLost); -1 if none is.

        That is: `threshold` separate ranges, or more than `threshold` - 1 segments' worth of bytes, are covered above.
        """
        enough = (threshold - 1) * mss
        covered = 0
        ranges = 0
        for index in range(len(self._starts) - 1, -1, -1):
            covered += self._ends[index] - self._starts[index]
            ranges += 1
            if ranges >= threshold or covered > enough:
                return self._starts[index]
        return -1

    def _add(self, start: int, end: int) -> None:
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first == last:
            if len(self._starts) < self.max_ranges:
                self._starts.insert(first, start)
                self._ends.insert(first, end)
                self.total += end - start
            return
        if last - first == 1 and self._starts[first] <= start and end <= self._ends[first]:
            return
        start = min(start, self._starts[first])
        end = max(end, self._ends[last - 1])
        for index in range(first, last):
            self.total -= self._ends[index] - self._starts[index]
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self.total += end - start


def _within(start: int, end: int, block: tuple[int, int], una_seq: int, una: int) -> bool:
    """Whether [start, end) lies within `block` (RFC 2883, 4.2)."""
    left, right = block
    return unwrap(left, una_seq, una) <= start and end <= unwrap(right, una_seq, una)
