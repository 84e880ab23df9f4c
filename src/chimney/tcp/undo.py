"""Whether the last reduction of cwnd was for nothing, because what seemed lost was only late.

Two proofs are known: an echo of the original segment (Eifel, RFC 3522), and the peer's report that every
retransmission was a duplicate (RFC 2883, RFC 3708).
"""

from chimney.tcp.seq import lt

_NONE = -1


class Undo:
    """What was sent again since the reduction: from `start` to `end`, `count` bytes not reported as duplicates.

    stamp: the TSval of the first of it, -1 if there is none. marker: SND.UNA at the reduction, -1 if there is nothing
    to be taken back.
    """

    def __init__(self) -> None:
        self.marker = _NONE
        self.stamp = _NONE
        self.count = _NONE
        self.start = 0
        self.end = 0

    def expect(self, una: int) -> None:
        """cwnd was reduced."""
        self.marker = una
        self.count = _NONE

    def forget(self) -> None:
        """There is nothing to be taken back."""
        self.marker = _NONE

    def clear_stamp(self) -> None:
        """Nothing that was sent again is outstanding."""
        self.stamp = _NONE

    def repeated(self, start: int, end: int, stamp: int) -> None:
        """Positions [start, end) were sent again, with TSval `stamp`, -1 without timestamps."""
        if self.stamp < 0:
            self.stamp = stamp
        if self.count < 0:
            self.count = 0
            self.start = start
            self.end = end
        self.count += end - start
        self.start = min(self.start, start)
        self.end = max(self.end, end)

    def duplicate(self, start: int, end: int) -> None:
        """The peer reports [start, end) as a duplicate; what was not sent again was duplicated by the network."""
        if self.marker >= 0 and self.count > 0 and start >= self.start and end <= self.end:
            self.count = max(self.count - (end - start), 0)

    def is_possible(self) -> bool:
        """Whether there is a reduction that can be taken back."""
        return self.marker >= 0

    def is_proved_by_duplicates(self) -> bool:
        """Whether all that was sent again was a duplicate."""
        return self.marker >= 0 and self.count == 0

    def is_proved_by_echo(self, echo: int) -> bool:
        """RFC 3522, 3.2: the acknowledgement echoes a segment sent before the first retransmission."""
        return self.marker >= 0 and self.stamp >= 0 and echo >= 0 and lt(echo, self.stamp)
