"""Whether the last reduction of cwnd was for nothing, because what seemed lost was only late.

Two proofs are known: an echo of the original segment (Eifel, RFC 3522), and the peer's report that every
retransmission was a duplicate (RFC 2883, RFC 3708).
"""

from chimney.tcp.segment import Segment
from chimney.tcp.seq import lt


class Undo:
    """is_fast: whether fast recovery, not a time-out, was the reaction. Bytes count since that reaction."""

    def __init__(self) -> None:
        self.is_fast = False
        self._possible = False
        self._watches_echo = False
        self._stamp = -1
        self._bytes = 0
        self._start = 0
        self._end = 0

    def expect(self, is_fast: bool, timestamps: bool) -> None:
        """cwnd was reduced."""
        self.is_fast = is_fast
        self._possible = True
        self._watches_echo = timestamps
        self._stamp = -1
        self._bytes = 0

    def retransmitted(self, start: int, end: int, stamp: int) -> None:
        """Positions [start, end) were sent again, with TSval `stamp`."""
        if not self._possible:
            return
        self._start = min(self._start, start) if self._bytes > 0 else start
        self._end = max(self._end, end) if self._bytes > 0 else end
        self._bytes += end - start
        if self._stamp < 0:
            self._stamp = stamp

    def is_proved_by_echo(self, segment: Segment) -> bool:
        """RFC 3522, 3.2: the first new acknowledgement echoes a segment sent before the first retransmission."""
        if not self._watches_echo:
            return False
        self._watches_echo = False
        echo = segment.ts_ecr
        if self._stamp < 0 or not segment.has_timestamp or echo == 0 or not lt(echo, self._stamp):
            return False
        self._possible = False
        return True

    def is_proved_by_duplicate(self, start: int, length: int) -> bool:
        """The peer reports `length` bytes from `start` on as a duplicate: whether that makes all that was sent again.

        What was not sent again was duplicated by the network, and proves nothing.
        """
        if not self._possible or self._bytes == 0 or start < self._start or start + length > self._end:
            return False
        self._bytes -= length
        if self._bytes > 0:
            return False
        self._possible = self._watches_echo = False
        return True
