"""Keepalive (RFC 9293, 3.8.4), also as the answer to a suspicious RST or SYN. Times in microseconds."""

_NEVER = 2**62
_SUSPICION_US = 300_000_000
_DEFAULT_INTERVAL_US = 1_000_000
_DEFAULT_PROBES = 10


class Keepalive:
    """When to ask an idle peer whether it is still there, and how often.

    timeout: idle time before the first probe, 0 for none; interval, probes: as in the interface documents, where 0
    means 1 second and 10 if suspicion makes the timer run.
    """

    def __init__(self, timeout: int, interval: int, probes: int, count: int, left: int, now: int) -> None:
        self.timeout = timeout
        self.interval = interval if interval > 0 else _DEFAULT_INTERVAL_US
        self.probes = probes if probes > 0 else _DEFAULT_PROBES
        self.count = count
        self.suspicious = False
        self.is_due = False
        self.deadline = _NEVER
        if left >= 0:
            self.deadline = now + left
        elif timeout > 0:
            self.deadline = now + timeout

    def heard(self, now: int) -> None:
        """An acceptable segment arrived: the connection is alive, and a suspicion unfounded."""
        self.count = 0
        self.suspicious = self.is_due = False
        self.deadline = now + self.timeout if self.timeout > 0 else _NEVER

    def suspect(self, now: int) -> None:
        """A challenge was sent: the timer has to fire within five minutes."""
        self.suspicious = True
        self.deadline = min(self.deadline, now + _SUSPICION_US)

    def is_exhausted(self) -> bool:
        """Whether all probes have been sent; asked when the deadline has passed."""
        return self.count >= self.probes

    def probed(self, now: int) -> None:
        """A probe leaves now."""
        self.count += 1
        self.is_due = False
        self.deadline = now + self.interval

    def postpone(self, now: int) -> None:
        """Data is outstanding, whose own timer tells whether the peer is there."""
        self.deadline = now + max(self.timeout, self.interval)
