"""When somebody who may be an attacker gets an answer (RFC 5961; RFC 9293, 3.10.7.4; the interface documents, 16.5).

Each answer gives something away, or keeps a war of acknowledgements going: so they are limited, per connection (RFC
5961, 7; a common limit would let one connection's attacker count the answers of another). Times in microseconds.
"""

from chimney.tcp.ratelimit import RateLimiter


class Challenges:
    """Whether one more answer may be given. An RST gets one until an acceptable segment has come, a SYN one in three
    seconds, anything else ten a second.
    """

    def __init__(self) -> None:
        self._reset_challenged = False
        self._syns = RateLimiter(1, 3_000_000)
        self._others = RateLimiter(10, 1_000_000)

    def calm(self) -> None:
        """An acceptable segment has come."""
        self._reset_challenged = False

    def reset(self) -> bool:
        """An RST in the window, but not at RCV.NXT (RFC 5961, 3.2)."""
        if self._reset_challenged:
            return False
        self._reset_challenged = True
        return True

    def syn(self, now: int) -> bool:
        """A SYN (RFC 5961, 4.2)."""
        return self._syns.allows(now)

    def other(self, now: int) -> bool:
        """An acknowledgement of nothing we know (RFC 5961, 5.2); beside the window a SYN, or what has no data."""
        return self._others.allows(now)
