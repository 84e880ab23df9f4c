"""Congestion window validation (RFC 2861; RFC 7661, 4 has the reasons): cwnd is what was used, not what was allowed.

cwnd grows only where it was what held the sender back, shrinks while the application or the receiver keeps it from
being used, and restarts after a pause, all as Linux does it. Positions are those of the send side, times in
microseconds.
"""

from chimney.tcp.congestion import CongestionControl


class CwndUsage:
    """How much of cwnd is in use: whether it was ever full in the present window, and if not, how full at most.

    restarts: whether cwnd shrinks when it is not used, and after a pause (Config.slow_start_after_idle).
    """

    def __init__(self, congestion: CongestionControl, restarts: bool, now: int) -> None:
        self.congestion = congestion
        self.restarts = restarts
        self.last_sent = now
        self._limited = False
        self._most = 0
        self._window_end = 0
        self._used = 0
        self._full_at = now

    def adopt(self, nxt: int, limited: bool) -> None:
        """The owner before has sent what lies before `nxt`; `limited`: and cwnd forbade more."""
        self._limited = limited
        self._most = self._window_end = nxt

    def is_limited(self) -> bool:
        """Whether an acknowledgement that arrives now may let cwnd grow.

        In slow start it may reach twice of what was under way, even where cwnd did not hold anything back.
        """
        congestion = self.congestion
        return self._limited or (congestion.cwnd < congestion.ssthresh and congestion.cwnd < 2 * self._most)

    def acknowledged(self, now: int) -> None:
        """Data was acknowledged, and cwnd is not being reduced: the time in which it goes unused begins anew."""
        self._full_at = now

    def starts(self, rto: int, now: int) -> bool:
        """Data is to be sent while nothing is under way: first, cwnd takes notice of the pause. Whether it shrank."""
        if now <= self.last_sent:
            return False
        before = self.congestion.cwnd
        self.congestion.on_idle(now - self.last_sent, rto if self.restarts else 0, now)
        if self.restarts and now - self.last_sent > rto:
            self._used = 0
            self._full_at = now
        return self.congestion.cwnd < before

    def sent(self, una: int, nxt: int, limited: bool, rto: int, now: int) -> None:
        """Data up to `nxt` was sent just now; or none, as cwnd forbade it.

        limited: whether cwnd forbids more. rto: for so long cwnd may stay unused; _NEVER outside of ordinary sending.
        """
        flight = nxt - una
        self.last_sent = now
        if limited or una >= self._window_end or (not self._limited and flight > self._most):
            self._limited = limited
            self._most = flight
            self._window_end = nxt
        if self.is_limited():
            self._used = 0
            self._full_at = now
            return
        if flight > self._used:
            self._used = flight
        if self.restarts and now - self._full_at >= rto:
            self.congestion.on_unused(self._used)
            self._used = 0
            self._full_at = now
