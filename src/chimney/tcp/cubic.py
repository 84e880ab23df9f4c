"""CUBIC (RFC 9438). Windows in bytes outside, in segments inside the formulas; times in microseconds outside.

Where the RFC leaves a choice, it is Linux's: ssthresh comes from cwnd, whose use is validated (usage.py); the window
aimed at is that of one smallest round trip from now, rounded up to whole segments on the way back to where it was; it
is looked up once in 4 ms, and the rate of growth is computed anew when cwnd has changed or after a while, not for every
acknowledgement; cwnd grows by whole segments; and as long as no congestion is known, it grows by a twentieth per round
trip at least, but not into a queue that can be seen where segments arrive late.

Where a queue can be seen, Reno's estimate does not grow faster once it is back where the last reduction was (4.3):
when it is about to overflow, who grows faster than a flow of Linux's is who loses.
"""

from chimney.tcp.config import UNSET_SSTHRESH
from chimney.tcp.congestion import CongestionControl
from chimney.tcp.hystart import SlowStartExit, tolerance

_UNSET = UNSET_SSTHRESH
_C = 0.4
_BETA = 0.7
_ALPHA = 3.0 * (1.0 - _BETA) / (1.0 + _BETA)
_CADENCE = 31_250
_TICK = 4_000
_SLOWEST = 100
_UNKNOWN_MAX = 20
_LEAST_PER_SEGMENT = 2


class Cubic(CongestionControl):
    """cwnd follows a cubic function of the time since the last reduction, or Reno's estimate where that is larger.

    Overridden methods are called by the name of the class: compiled methods have no super().
    """

    def __init__(self, cwnd: int, ssthresh: int, mss: int, max_cwnd: int, leaving: SlowStartExit) -> None:
        CongestionControl.__init__(self, cwnd, ssthresh, mss, max_cwnd)
        self.leaving = leaving
        self.min_rtt = 0
        self._epoch = -1
        self._w_max = 0.0
        self._k = 0.0
        self._origin = 0.0
        self._w_est = 0.0
        self._w_prior = 0.0
        self._acked = 0
        self._credit = 0
        self._per_segment = 0
        self._most = 0
        self._goal = 0
        self._pace = 0
        self._aimed_at = 0
        self._computed_at = 0
        self._computed_for = 0
        self._queued = False
        self._prior_epoch = -1
        self._prior_w_max = 0.0
        self._prior_k = 0.0
        self._prior_origin = 0.0
        self._prior_w_est = 0.0
        self._prior_w_prior = 0.0

    def on_timeout(self, flight: int, now: int, first: bool) -> None:
        """RFC 9438, 4.8: the next congestion avoidance begins at its own cwnd, with K = 0."""
        CongestionControl.on_timeout(self, flight, now, first)
        self._w_max = 0.0
        self._epoch = -1
        self._credit = 0
        self.min_rtt = 0
        self.leaving.reset()

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        """Time in which nothing was sent does not count (RFC 9438, 5.8)."""
        if self._epoch >= 0:
            self._epoch = min(self._epoch + idle, now)
        CongestionControl.on_idle(self, idle, rto, now)

    def undo(self, now: int) -> None:
        """RFC 9438, 4.9.2: as if there had been no congestion; the time since then is not made up for."""
        CongestionControl.undo(self, now)
        self._epoch = self._prior_epoch
        self._w_max = self._prior_w_max
        self._k = self._prior_k
        self._origin = self._prior_origin
        self._w_est = self._prior_w_est
        self._w_prior = self._prior_w_prior
        self._computed_for = self._pace = 0

    def set_mss(self, mss: int) -> None:
        """What is in segments goes on as what it is in bytes."""
        if mss != self.mss:
            self._w_max = _converted(self._w_max, self.mss, mss)
            self._origin = _converted(self._origin, self.mss, mss)
            self._w_est = self._w_est * self.mss / mss
            self._w_prior = self._w_prior * self.mss / mss
            self._k = self._converted_k(self._k, self._epoch, mss)
            self._prior_w_max = _converted(self._prior_w_max, self.mss, mss)
            self._prior_origin = _converted(self._prior_origin, self.mss, mss)
            self._prior_w_est = self._prior_w_est * self.mss / mss
            self._prior_w_prior = self._prior_w_prior * self.mss / mss
            self._prior_k = self._converted_k(self._prior_k, self._prior_epoch, mss)
            self._computed_for = self._pace = 0
        CongestionControl.set_mss(self, mss)

    def _converted_k(self, k: float, epoch: int, mss: int) -> float:
        """C is in segments, too: where the function is now in bytes, it is at another distance from K."""
        elapsed = max(self._computed_at - epoch, 0) / 1e6
        ratio: float = (self.mss / mss) ** (1.0 / 3.0)
        return elapsed + (k - elapsed) * ratio

    # Slow start.

    def _observe(self, rtt: int, una: int, nxt: int, now: int) -> None:
        if rtt >= 0 and (rtt < self.min_rtt or self.min_rtt == 0):
            self.min_rtt = max(rtt, 1)
        if self.cwnd < self.ssthresh and (self.ssthresh >= _UNSET or not self.leaving.initial_only):
            if self.leaving.on_ack(rtt, self.min_rtt, self.cwnd, self.mss, una, nxt, now):
                self.ssthresh = self.cwnd

    def _slow_start(self, acked: int) -> int:
        """RFC 9406, 4.2: growth is divided in Conservative Slow Start."""
        if self.leaving.divisor > 1 and self.ssthresh >= _UNSET:
            self.cwnd += acked // self.leaving.divisor
            return 0
        return CongestionControl._slow_start(self, acked)

    # Congestion avoidance.

    def _avoid(self, acked: int, srtt: int, now: int) -> None:
        self._acked += acked
        self._queued = srtt >= self.min_rtt + tolerance(self.min_rtt)
        if self._epoch < 0:
            self._begin(now)
        if self._computed_for != self.cwnd or not 0 <= now - self._computed_at <= _CADENCE:
            self._compute(now)
        # Credit from a time when a segment cost more is worth one segment.
        self._credit = min(self._credit, self._per_segment) + acked
        if self._credit >= self._per_segment:
            whole = self._credit // self._per_segment
            self._credit -= whole * self._per_segment
            self.cwnd += min(whole, self._most) * self.mss

    def _begin(self, now: int) -> None:
        """Congestion avoidance starts (4.2)."""
        cwnd = self.cwnd / self.mss
        self._epoch = now
        self._computed_for = 0
        self._pace = 0
        self._w_est = cwnd
        self._acked = min(self._acked, self.cwnd)
        if self._w_max <= cwnd:
            self._origin = cwnd
            self._k = 0.0
        else:
            self._origin = self._w_max
            self._k = ((self._w_max - cwnd) / _C) ** (1.0 / 3.0)

    def _compute(self, now: int) -> None:
        """How many bytes have to be acknowledged for a segment more from now on, and how many may be added at once."""
        cwnd = self.cwnd // self.mss
        self._computed_for = self.cwnd
        self._computed_at = now
        if now < self._epoch:
            self._epoch = now
        if not 0 <= now - self._aimed_at < _TICK or self._pace == 0:
            self._aim(cwnd, now)
        # 4.3: the window that Reno would have.
        self._w_est += (1.0 if self._w_est >= self._w_prior and not self._queued else _ALPHA) * self._acked / self.cwnd
        self._acked = 0
        reno = int(self._w_est)
        room = max(self._goal, reno) - cwnd
        per = self._pace
        if room <= 0:
            # Within a tick cwnd may go on beyond what was aimed at, by a segment for each window.
            per = max(per, cwnd)
        elif reno > self._goal:
            per = min(per, cwnd // room)
        self._per_segment = max(per, _LEAST_PER_SEGMENT) * self.mss
        self._most = max(min(room, cwnd // _LEAST_PER_SEGMENT), 1)

    def _aim(self, cwnd: int, now: int) -> None:
        """4.2: the goal is where the function is in one round trip; the pace, how many acknowledged segments give one.

        On the way back to where it has been, a part of a segment counts as a whole one. Within a tick the aim stays,
        even if there are many round trips in it: where they are short, the function alone would let cwnd wait for ever.

        Where no congestion is known, slow start may have ended too early. Where segments arrive late, a loss makes
        others, for the repair makes them too old (PAWS): there a queue is reason enough.
        """
        self._aimed_at = now
        window = self._cubic((now - self._epoch + self.min_rtt) / 1e6)
        if window < self._origin:
            window = self._origin - int(self._origin - window)
        room = int(min(max(window - cwnd, 0.0), cwnd))
        self._pace = cwnd // room if room > 0 else cwnd * _SLOWEST
        if self._w_max == 0.0 and not (self._queued and self.reorders) and self._pace > _UNKNOWN_MAX:
            self._pace = _UNKNOWN_MAX
            room = cwnd // _UNKNOWN_MAX
        self._goal = cwnd + room

    def _cubic(self, elapsed: float) -> float:
        """W_cubic (4.2, figure 1), in segments, `elapsed` seconds after the start."""
        distance = elapsed - self._k
        return _C * distance * distance * distance + self._origin

    # Congestion.

    def _reduced(self, flight: int) -> int:
        """4.6 and 4.7, in whole segments."""
        segments = self.cwnd // self.mss
        cwnd = float(segments)
        # Fast convergence: a flow that lost before it was back where it had been makes room. In whole segments, for
        # `_aim` would find less than one to go.
        self._w_max = float(int(cwnd * (1.0 + _BETA) / 2.0)) if cwnd < self._w_max else cwnd
        self._w_prior = cwnd
        self._epoch = -1
        self._credit = 0
        return max(segments * 7 // 10 * self.mss, self._least())

    def _remember(self) -> None:
        CongestionControl._remember(self)
        self._prior_epoch = self._epoch
        self._prior_w_max = self._w_max
        self._prior_k = self._k
        self._prior_origin = self._origin
        self._prior_w_est = self._w_est
        self._prior_w_prior = self._w_prior


def _converted(segments: float, before: int, mss: int) -> float:
    """So many segments of `before` bytes in those of `mss`, in whole ones (see `_reduced`); 0: none are known."""
    return float(max(int(segments * before / mss), 1)) if segments > 0.0 else 0.0
