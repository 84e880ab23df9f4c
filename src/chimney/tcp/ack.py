"""When to acknowledge (RFC 1122, 4.2.3.2; RFC 5681, 4.2; the interface documents, 13.3). Times in microseconds.

As Linux does it, a peer that starts, or starts again after a pause, gets an acknowledgement for everything that it
sends: its congestion window is small and grows by acknowledgements. Where the application answers what it receives,
its answers carry the acknowledgements, and nothing has to hurry. Out-of-order data, duplicates and a hole that is
filled are acknowledged at once in any case.
"""

_NEVER = 2**62
_MANY = 64
_PAUSE_US = 2_000  # Linux probes the tail of a flight after two round trips and so long, at the earliest


class AckPolicy:
    """Counts what is unacknowledged, in wire segments, and knows when to say so.

    `owed` is the number of acknowledgements to be sent at once: more than one only where duplicates have to be
    counted by the peer. `deadline` is that of the delayed acknowledgement. `quick` more acknowledgements go without
    delay, at most `most_quick`; `pingpong`: the application answers, and they may wait. `in_trains`: the last one was
    for more segments than may wait.
    """

    def __init__(self, frequency: int, delay: int, most_quick: int) -> None:
        self.frequency = frequency
        self.delay = delay
        self.most_quick = most_quick
        self.owed = 0
        self.pending = 0
        self.deadline = _NEVER
        self.quick = 0
        self.pingpong = False
        self.heard_at = -1
        self.in_trains = False

    def received(self, segments: int, now: int, rto: int) -> None:
        """New data came in order, in so many wire segments."""
        may_be_probe = self._may_be_a_probe(now)
        self.heard(now, rto)
        self.advanced()
        self.pending += segments
        if self.pending >= self.frequency or self.is_quick() or may_be_probe:
            self.at_once()
        elif self.deadline == _NEVER:
            self.deadline = now + self.delay

    def heard(self, now: int, rto: int) -> None:
        """Data came. Who begins, or has paused for longer than a time-out, is acknowledged quickly for a while."""
        if self.heard_at < 0 or now - self.heard_at > rto:
            self.quick = self.most_quick
        self.heard_at = now

    def _may_be_a_probe(self, now: int) -> bool:
        """Whether a peer that sent trains has paused. If the only acknowledgement of a train was lost, this is a probe
        (RFC 8985, 7), and the peer sends nothing else before it is acknowledged.
        """
        return self.in_trains and not self.pingpong and self.most_quick > 0 and now - self.heard_at >= _PAUSE_US

    def is_quick(self) -> bool:
        """Whether nothing is delayed now."""
        return self.quick > 0 and not self.pingpong

    def hurry(self) -> None:
        """Something came twice: acknowledgements have been lost, or come too late."""
        self.quick = self.most_quick
        self.pingpong = False

    def hurry_for(self, count: int) -> None:
        """The peer may have very little in flight: at least so many acknowledgements shall not wait."""
        self.quick = max(self.quick, min(count, self.most_quick))
        self.pingpong = False

    def set_quick(self, enabled: bool) -> None:
        """TCP_QUICKACK: leaves or enters the mode in which acknowledgements wait; events move it again."""
        self.pingpong = not enabled
        if enabled and self.pending > 0:
            self.at_once()

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

    def expire(self, now: int) -> None:
        """The delay is over and the application has not answered: it does not always."""
        if self.deadline <= now:
            self.pingpong = False

    def answered(self, now: int) -> None:
        """Data leaves. Soon after data came it is an answer, and the next one will carry the acknowledgement, too."""
        if self.heard_at >= 0 and now - self.heard_at < self.delay:
            self.pingpong = True

    def sent(self) -> None:
        """A segment with the current acknowledgement leaves."""
        if self.quick > 0 and self.is_owed():
            self.quick -= 1
        if self.owed > 0:
            self.owed -= 1
        if self.pending > 0:
            self.in_trains = self.pending > self.frequency
        self.pending = 0
        self.deadline = _NEVER
