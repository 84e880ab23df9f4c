"""A path MTU that shrank without a word (RFC 2923, 2.1; RFC 4821, 7.7): full-sized segments vanish, others would not.

Time-outs in a row of full-sized segments make the segments smaller, in steps. Where that does not help either, it was
not the cause, and the size is what it was.
"""

_TIMEOUTS = 2
_NO_LIMIT = 2**31 - 1
_STEPS_IPV4 = (1024, 536)
_STEPS_IPV6 = (1220,)


class BlackHole:
    """limit: what segments carry at most for this reason, in bytes of payload and options.

    steps: the sizes that are tried in turn. Sizes are those of `mss(base)`: what path and peer would allow.
    """

    def __init__(self, enabled: bool, ipv6: bool) -> None:
        self.enabled = enabled
        self.limit = _NO_LIMIT
        self._steps: tuple[int, ...] = _STEPS_IPV4
        if ipv6:
            self._steps = _STEPS_IPV6
        self._next = 0
        self._since = 0

    def mss(self, base: int) -> int:
        """What of `base` bytes a segment may carry."""
        return min(base, self.limit)

    def on_timeout(self, length: int, mss: int, count: int) -> bool:
        """The timer expired for the `count`th time in a row; `length` is that of the first segment outstanding.

        Whether `limit` has changed.
        """
        if not self.enabled or length < mss or count - self._since < _TIMEOUTS:
            return False
        self._since = count
        while self._next < len(self._steps):
            step = self._steps[self._next]
            self._next += 1
            if step < mss:
                self.limit = step
                return True
        return self._give_up()

    def on_acked(self, length: int) -> bool:
        """A segment that was sent with `length` bytes has arrived; whether `limit` has changed for it."""
        self._since = 0
        if length > self.limit:
            return self._give_up()
        return False

    def reset(self) -> bool:
        """The path is another one, or told its MTU: whether `limit` has changed."""
        return self._give_up()

    def _give_up(self) -> bool:
        changed = self.limit != _NO_LIMIT
        self.limit = _NO_LIMIT
        self._next = 0
        return changed
