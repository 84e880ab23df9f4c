"""Timestamps: our clock, the peer's last value, and protection against old duplicates (RFC 7323, 3 to 5)."""

from chimney.tcp.seq import diff

_OUTDATED_US = 2**31
_ABSURD_US = 120_000_000
_TOLERANCE = 1
_LEAST_TICK_US = 1_000


class Timestamps:
    """Both directions of the timestamp option.

    The clock goes on from `clock`, which it showed at the time `now` (microseconds), and never goes back.
    """

    def __init__(self, clock: int, ticks_per_second: int, recent: int, recent_age: int, now: int) -> None:
        self.clock = clock
        self.started = now
        self.ticks_per_second = ticks_per_second
        self.recent = recent
        self.recent_known = recent != 0
        self.recent_at = now - recent_age
        self._elapsed = 0

    def value(self, now: int) -> int:
        """TSval for a segment sent now."""
        elapsed = (now - self.started) * self.ticks_per_second // 1_000_000
        if elapsed > self._elapsed:
            self._elapsed = elapsed
        return (self.clock + self._elapsed) & 0xFFFFFFFF

    def is_old(self, ts_val: int, now: int) -> bool:
        """PAWS (RFC 7323, 5.3 R1): whether a segment with this TSval is an old duplicate.

        As in Linux, one tick less is tolerated: the clocks of a host's processors may differ by that.
        TS.Recent stops counting when the peer's clock may have gone half the way round since (5.5). The RFC says 24
        days, for clocks of milliseconds; but hosts may have clocks of microseconds (Linux: the route's feature
        tcp_usec_ts), which take 36 minutes, and after a pause of that length all they send would look old.
        """
        return self.recent_known and diff(ts_val, self.recent) < -_TOLERANCE and now - self.recent_at <= _OUTDATED_US

    def is_within(self, ts_val: int, span: int) -> bool:
        """Whether a TSval is at most `span` microseconds older than TS.Recent, for a clock that counts milliseconds: no
        clock should be faster (RFC 7323, 5.4), and of one that is, less is tolerated.
        """
        return -diff(ts_val, self.recent) * _LEAST_TICK_US <= span

    def remember(self, ts_val: int, now: int) -> None:
        """Makes an acceptable TSval the one to echo (RFC 7323, 4.3); the caller has checked Last.ACK.sent."""
        if not self.recent_known or diff(ts_val, self.recent) >= 0 or now - self.recent_at > _OUTDATED_US:
            self.recent = ts_val
            self.recent_known = True
            self.recent_at = now

    def round_trip(self, ts_ecr: int, now: int) -> int:
        """The round trip that an echo tells, in microseconds; -1 if it is no echo of ours.

        What is longer than the longest time-out is none, either: it would stop the timer for that long.
        """
        if ts_ecr == 0:
            return -1
        ticks = diff(self.value(now), ts_ecr)
        measured = ticks * 1_000_000 // self.ticks_per_second
        return measured if 0 <= measured <= _ABSURD_US else -1
