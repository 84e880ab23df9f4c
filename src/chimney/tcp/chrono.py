"""What the sender spends its time with, as Linux counts it (tcpi_busy_time and its parts). Times in microseconds."""

IDLE = 0
BUSY = 1
RWND_LIMITED = 2
SNDBUF_LIMITED = 3

_IDLE = 0
_RWND_LIMITED = 2
_SNDBUF_LIMITED = 3


class Chrono:
    """busy: there has been something to send or to be acknowledged; rwnd_limited, sndbuf_limited: of that, the peer's
    window alone, or the application's buffer alone, has held data back. The state has lasted since `since`.
    """

    def __init__(self, now: int) -> None:
        self.state = _IDLE
        self.since = now
        self._busy = 0
        self._rwnd = 0
        self._sndbuf = 0

    def enter(self, state: int, now: int) -> None:
        """From now on this is what holds."""
        if state == self.state:
            return
        self._busy = self.busy(now)
        self._rwnd = self.rwnd_limited(now)
        self._sndbuf = self.sndbuf_limited(now)
        self.state = state
        self.since = now

    def busy(self, now: int) -> int:
        """Up to now."""
        return self._busy + (now - self.since if self.state != _IDLE else 0)

    def rwnd_limited(self, now: int) -> int:
        """Up to now."""
        return self._rwnd + (now - self.since if self.state == _RWND_LIMITED else 0)

    def sndbuf_limited(self, now: int) -> int:
        """Up to now."""
        return self._sndbuf + (now - self.since if self.state == _SNDBUF_LIMITED else 0)
