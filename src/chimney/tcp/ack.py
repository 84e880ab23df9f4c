"""When to acknowledge (RFC 1122, 4.2.3.2; RFC 5681, 4.2). Times in microseconds."""

_NEVER = 2**62
_MANY = 64


class AckPolicy:
    """Counts what is unacknowledged, in wire segments, and knows when to say so.

    `owed` is the number of acknowledgements to be sent at once: more than one only where duplicates have to be
    counted by the peer. `deadline` is that of the delayed acknowledgement.
    """

    def __init__(self, frequency: int, delay: int) -> None:
        self.frequency = frequency
        self.delay = delay
        self.owed = 0
        self.pending = 0
        self.deadline = _NEVER

    def received(self, segments: int, now: int) -> None:
        """New data came in order, in so many wire segments."""
        self.advanced()
        self.pending += segments
        if self.pending >= self.frequency:
            self.at_once()
        elif self.deadline == _NEVER:
            self.deadline = now + self.delay

    def advanced(self) -> None:
        """RCV.NXT has moved: more than one acknowledgement would be duplicates of something that is not lost."""
        if self.owed > 1:
            self.owed = 1

    def at_once(self) -> None:
        """One acknowledgement is due."""
        if self.owed == 0:
            self.owed = 1

    def duplicates(self, count: int) -> None:
        """`count` acknowledgements more are due, each of which the peer counts (RFC 5681, 3.2, without SACK)."""
        self.owed = min(self.owed + count, _MANY)

    def is_due(self, now: int) -> bool:
        """Whether an acknowledgement has to leave now."""
        return self.owed > 0 or self.deadline <= now

    def is_owed(self) -> bool:
        """Whether anything received is not acknowledged yet."""
        return self.owed > 0 or self.pending > 0

    def sent(self) -> None:
        """A segment with the current acknowledgement leaves."""
        if self.owed > 0:
            self.owed -= 1
        self.pending = 0
        self.deadline = _NEVER
