"""Receive-window auto-tuning (dynamic right-sizing, Fisk and Feng 2001; Linux's tcp_rmem does the same).

The window has to hold what arrives in two round trips, so that a sender whose congestion window doubles is not held
back by us. The receiver finds out by counting what its application takes in a round trip. The window only grows, up to
a limit that the owner sets: the right edge never moves back. Sizes in bytes, times in microseconds.
"""

_ROOM_SEGMENTS = 16


class AutoTuning:
    """size: of the window, as far as this knows. limit: the largest one; not above `size`: nothing is tuned.

    rtt: the round trip as the receiver sees it, 0 if it is not known. space: what the application took in the round
    trip in which it took most. longest: payload of the peer's longest segment so far.
    """

    def __init__(self, size: int, limit: int, mss: int, now: int) -> None:
        self.size = size
        self.limit = limit
        self.rtt = 0
        self.space = min(size // 2, 10 * mss)
        self._mss = mss
        self.longest = 0
        self._taken = 0
        self._since = now

    def is_active(self) -> bool:
        """Whether the window may still grow."""
        return self.limit > self.size

    def is_full(self, length: int) -> bool:
        """Whether a segment of so many bytes is as long as the peer's ever are: a shorter one may have waited."""
        self.longest = max(self.longest, length)
        return length >= self.longest

    def measured(self, rtt: int) -> None:
        """Data came that echoes a timestamp of `rtt` microseconds ago.

        The sender may have waited before it sent, so short ones are nearer to the truth than long ones.
        """
        if self.rtt == 0 or rtt < self.rtt:
            self.rtt = max(rtt, 1)
        else:
            self.rtt += (rtt - self.rtt) // 8

    def taken(self, count: int, now: int) -> int:
        """The application took `count` bytes. Returns the size of the window from now on."""
        self._taken += count
        if self.rtt == 0:
            # Nobody can say how much of it came in one round trip.
            self._taken = 0
            self._since = now
        if self.rtt == 0 or now - self._since < self.rtt:
            return self.size
        # More than the largest window changes nothing, and its square would not fit into 64 bits.
        taken = min(self._taken, self.limit)
        self._taken = 0
        self._since = now
        if taken > self.space:
            # Twice what came, and as much again as it has grown: a sender in slow start doubles in the next round trip.
            wanted = 2 * taken + _ROOM_SEGMENTS * self._mss
            wanted += 2 * (wanted * (taken - self.space) // self.space) if self.space > 0 else 0
            self.space = taken
            self.size = max(self.size, min(wanted, self.limit))
        return self.size
