"""What both applications say, as functions of the position; and sets of positions."""

import random
from bisect import bisect_left, bisect_right

PERIOD = 65_537
_PATTERN = random.Random(9293).randbytes(PERIOD) * 4
_OTHER = bytes(255 - value for value in range(256))
LONGEST = 3 * PERIOD


def ours(start: int, length: int) -> bytes:
    """What our application sends, from position `start` on."""
    return _PATTERN[start % PERIOD :][:length]


def theirs(start: int, length: int, wrong: bool = False) -> bytes:
    """What the peer sends; or, where it lies, something else in every byte."""
    said = _PATTERN[(start + 7) % PERIOD :][:length]
    return said.translate(_OTHER) if wrong else said


class Ranges:
    """Disjoint ranges [start, end) of positions."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Puts in [start, end)."""
        if start >= end:
            return
        first = bisect_left(self.ends, start)
        last = bisect_right(self.starts, end)
        if first < last:
            start = min(start, self.starts[first])
            end = max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is in."""
        index = bisect_right(self.starts, start) - 1
        return start >= end or (index >= 0 and self.ends[index] >= end)

    def reach(self, start: int) -> int:
        """How far everything from `start` on is in."""
        index = bisect_right(self.starts, start) - 1
        return max(start, self.ends[index]) if index >= 0 else start

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that are in."""
        pairs = zip(self.starts, self.ends, strict=True)
        return [(max(a, start), min(b, end)) for a, b in pairs if a < end and b > start]
