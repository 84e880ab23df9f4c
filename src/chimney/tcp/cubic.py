"""CUBIC (RFC 9438). Windows in bytes outside, in segments inside the formulas; times in microseconds outside."""

from chimney.tcp.congestion import CongestionControl

_C = 0.4
_BETA = 0.7
_ALPHA = 3.0 * (1.0 - _BETA) / (1.0 + _BETA)


class Cubic(CongestionControl):
    """cwnd follows a cubic function of the time since the last reduction, or Reno's estimate where that is larger.

    Overridden methods are called by the name of the class: compiled methods have no super().
    """

    def __init__(self, cwnd: int, ssthresh: int, mss: int, max_cwnd: int) -> None:
        super().__init__(cwnd, ssthresh, mss, max_cwnd)
        self._epoch = -1
        self._w_max = 0.0
        self._k = 0.0
        self._w_est = 0.0
        self._w_prior = 0.0
        self._credit = 0.0
        self._prior_w_max = 0.0

    def on_timeout(self, flight: int, now: int, first: bool) -> None:
        """As the RFC's 4.8: the next congestion avoidance begins at its own cwnd, with K = 0."""
        CongestionControl.on_timeout(self, flight, now, first)
        self._w_max = 0.0
        self._epoch = -1

    def on_idle(self, idle: int) -> None:
        """Time in which nothing was sent does not count (RFC 9438, 5.8)."""
        if self._epoch >= 0:
            self._epoch += idle
        CongestionControl.on_idle(self, idle)

    def undo(self) -> None:
        """As the RFC's 4.9."""
        CongestionControl.undo(self)
        self._w_max = self._prior_w_max
        self._epoch = -1

    def _avoid(self, acked: int, now: int, srtt: int) -> None:
        cwnd = self.cwnd / self.mss
        if self._epoch < 0:
            self._begin(cwnd, now)
        elapsed = (now - self._epoch) / 1e6
        # 4.2: the window in one round trip from now, which cwnd approaches during that round trip.
        target = min(max(self._cubic(elapsed + srtt / 1e6), cwnd), 1.5 * cwnd)
        segments = acked / self.mss
        # 4.3: the window that Reno would have.
        self._w_est += (_ALPHA if self._w_est < self._w_prior else 1.0) * segments / cwnd
        if self._cubic(elapsed) < self._w_est:
            grown = self._w_est - cwnd
        else:
            grown = (target - cwnd) / cwnd * segments
        if grown > 0.0:
            self._credit += grown * self.mss
            whole = int(self._credit)
            self._credit -= whole
            self.cwnd += whole

    def _reduced(self, flight: int) -> int:
        used = min(flight, self.cwnd)
        cwnd = used / self.mss
        self._prior_w_max = self._w_max
        # 4.7: fast convergence.
        self._w_max = cwnd * (1.0 + _BETA) / 2.0 if cwnd < self._w_max else cwnd
        self._w_prior = cwnd
        self._epoch = -1
        return max(int(used * _BETA), 2 * self.mss)

    def _begin(self, cwnd: float, now: int) -> None:
        """Congestion avoidance starts (4.2)."""
        self._epoch = now
        self._w_est = cwnd
        self._credit = 0.0
        if self._w_max <= cwnd:
            self._w_max = cwnd
            self._k = 0.0
        else:
            self._k = ((self._w_max - cwnd) / _C) ** (1.0 / 3.0)

    def _cubic(self, elapsed: float) -> float:
        """W_cubic (4.2, figure 1), in segments, `elapsed` seconds after the start."""
        distance = elapsed - self._k
        return _C * distance * distance * distance + self._w_max
