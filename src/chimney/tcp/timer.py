"""The one deadline that retransmission and window probing share, and the limits on trying.

The two never run together, and change hands as one (Retransmit.Count and TimeoutDelta of the documents). Times in
microseconds.
"""

_NEVER = 2**62


class RetransmitTimer:
    """count: time-outs in a row, or probes in this round. probe_count: rounds of probing that were answered.

    backoff: how often the time-out was doubled, which lasts until a round trip is measured (Karn; RFC 6298, 5.7).

    total: time spent retransmitting the current segment. max_count, max_total: the limits; max_total 0 means that
    max_count counts, -1 that there is no limit.
    """

    def __init__(self, max_count: int, max_total: int) -> None:
        self.max_count = max_count
        self.max_total = max_total
        self.deadline = _NEVER
        self.started = 0
        self.count = 0
        self.backoff = 0
        self.probe_count = 0
        self.total = 0

    def start(self, now: int, delay: int) -> None:
        """Starts or restarts."""
        self.started = now
        self.deadline = now + delay

    def stop(self) -> None:
        """Stops."""
        self.deadline = _NEVER

    def is_running(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline != _NEVER

    def progress(self) -> None:
        """New data was acknowledged: nothing counts any more."""
        self.count = 0
        self.total = 0

    def expire(self, now: int) -> bool:
        """Counts a time-out; whether the limit allows to try again."""
        self.count += 1
        self.backoff += 1
        self.total += now - self.started
        if self.max_total == 0:
            return self.count <= self.max_count
        return self.max_total < 0 or self.total <= self.max_total

    def expire_probe(self) -> bool:
        """Counts a window probe; whether the limit allows it."""
        self.count += 1
        return self.max_total < 0 or self.count <= self.max_count
