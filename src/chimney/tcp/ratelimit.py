"""How often a segment that we should not have received is answered (RFC 5961, 7)."""


class RateLimiter:
    """At most `limit` answers in any `interval` microseconds, counted from the first of them."""

    def __init__(self, limit: int, interval: int) -> None:
        self.limit = limit
        self.interval = interval
        self._since = 0
        self._count = 0

    def allows(self, now: int) -> bool:
        """Whether one more answer may be given now; if so, it counts."""
        if self._count == 0 or now - self._since >= self.interval:
            self._since = now
            self._count = 0
        if self._count >= self.limit:
            return False
        self._count += 1
        return True
