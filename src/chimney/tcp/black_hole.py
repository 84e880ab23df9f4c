"""The path MTU where nobody tells it (RFC 2923, 2.1; RFC 4821): black holes, and probes for what the path carries.

Time-outs in a row of segments that could be smaller make them so, in steps; where that does not help either, it was
not the cause. Once data arrives again, single larger segments look for the size that passes; the loss of such a probe
is no sign of congestion. Sizes in bytes of payload and options ("room"), times in microseconds.
"""

_TIMEOUTS = 2
_NO_LIMIT = 2**31 - 1
_NEVER = 2**62
_STEPS_IPV4 = (1024, 536)
_STEPS_IPV6 = (1220,)
_TRIES = 3
_CLOSE_ENOUGH = 8
_AGAIN_US = 600_000_000
_LEAST_WINDOW = 11


class BlackHole:
    """limit: what segments carry at most for this reason. candidate: the size of the next probe, 0 if none is wanted.

    options: bytes of options in every segment. A probe is outstanding until `probe_end` is acknowledged; -1: none is.
    """

    def __init__(self, enabled: bool, ipv6: bool, options: int) -> None:
        self.enabled = enabled
        self.options = options
        self.limit = _NO_LIMIT
        self.candidate = 0
        self.probe_end = -1
        self._base = 0
        self._steps: tuple[int, ...] = _STEPS_IPV4
        if ipv6:
            self._steps = _STEPS_IPV6
        self._next = 0
        self._since = 0
        self._low = 0
        self._high = 0
        self._tries = 0
        self._again_at = _NEVER

    def mss(self, base: int) -> int:
        """What of `base` bytes, which path and peer allow, a segment may carry."""
        self._base = base
        return min(base, self.limit)

    def on_timeout(self, length: int, mss: int, count: int) -> bool:
        """The timer expired for the `count`th time in a row; `length` is that of the first segment outstanding.

        Whether `limit` has changed.
        """
        if not self.enabled or not self._would_cut(length, mss) or count - self._since < _TIMEOUTS:
            return False
        self._since = count
        while self._next < len(self._steps):
            step = self._steps[self._next]
            self._next += 1
            if step < mss + self.options:
                self._limit_to(step)
                self._again_at = 0
                return True
        return self.reset()

    def _would_cut(self, length: int, mss: int) -> bool:
        """Whether a segment of `length` bytes is as long as they get, or would be cut by the next step."""
        if length >= mss:
            return True
        return self._next < len(self._steps) and length + self.options > self._steps[self._next]

    def on_acked(self, length: int, una: int, now: int) -> bool:
        """Segments of up to `length` bytes have arrived, and all before `una`; whether `limit` has changed for it."""
        self._since = 0
        if self.limit == _NO_LIMIT:
            return False
        changed = length + self.options > self.limit
        if changed:
            self._found(length + self.options, now)
        elif 0 <= self.probe_end <= una:
            self._missed(now)
        elif self.candidate == 0 and now >= self._again_at:
            self._high = self._base
            self._low = self.limit
            self._tries = 0
            # What has worked before comes first.
            self.candidate = self._high
        return changed

    def is_due(self, mss: int, cwnd: int, in_flight: int, data: int, window: int) -> bool:
        """Whether a probe may leave: it needs company, so that its loss is found without a time-out (RFC 4821, 7.4)."""
        needed = self.candidate + 4 * mss
        return (
            self.probe_end < 0
            and cwnd >= _LEAST_WINDOW * mss
            and in_flight + self.candidate + mss <= cwnd
            and data >= needed
            and window >= needed
        )

    def on_path_mtu(self, before: int, base: int, least: int) -> bool:
        """The path has another MTU, which allows `base` where `before` was in use; whether `limit` has changed.

        least: 0, or where to begin to look for it: then a larger size is not believed, but probed for.
        """
        changed = self.reset()
        if 0 < least < base and base > before:
            self._base = base
            self._limit_to(before)
            self._low = min(least, before)
            self._high = base
            self._search(0)
            return True
        return changed

    def reset(self) -> bool:
        """It was not the cause: whether `limit` has changed."""
        changed = self.limit != _NO_LIMIT
        self._limit_to(_NO_LIMIT)
        self._next = 0
        return changed

    def _limit_to(self, size: int) -> None:
        self.limit = size
        self.candidate = 0
        self.probe_end = -1
        self._tries = 0
        self._again_at = _NEVER

    def _found(self, size: int, now: int) -> None:
        """A segment that was larger than the limit has arrived."""
        if size >= self._base:
            self.reset()
            return
        self.limit = self._low = size
        self._high = max(self._high, size)
        self.probe_end = -1
        self._tries = 0
        self._search(now)

    def _missed(self, now: int) -> None:
        """The probe has not arrived."""
        self.probe_end = -1
        self._tries += 1
        if self._tries >= _TRIES:
            self._tries = 0
            self._high = self.candidate - 1
            self._search(now)

    def _search(self, now: int) -> None:
        """RFC 4821, 7.3: the middle of what is not known; later again, when it is known well enough."""
        self.candidate = (self._low + self._high) // 2
        if self.candidate <= self.limit:
            self._low = self.limit
            self.candidate = (self._low + self._high) // 2
        if self._high - self._low < _CLOSE_ENOUGH:
            self.candidate = 0
            self._again_at = now + _AGAIN_US
