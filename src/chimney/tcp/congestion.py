"""Congestion control: the interface, and Reno (RFC 5681). Windows in bytes, times in microseconds."""

_INITIAL_SEGMENTS = 10


class CongestionControl:
    """What every algorithm has: cwnd and ssthresh, slow start, and the events that change them.

    A subclass says how cwnd grows in congestion avoidance (`_avoid`) and by how much it shrinks (`_reduced`).
    """

    def __init__(self, cwnd: int, ssthresh: int, mss: int, max_cwnd: int) -> None:
        self.mss = mss
        self.max_cwnd = max_cwnd
        self.cwnd = max(cwnd, mss)
        self.ssthresh = ssthresh
        self._prior_cwnd = 0
        self._prior_ssthresh = 0
        self._clamp()

    def on_ack(self, acked: int, limited: bool, now: int, srtt: int) -> None:
        """`acked` new bytes are acknowledged outside fast recovery.

        limited: whether cwnd was what held the sender back; otherwise it must not grow (RFC 9438, 5.8).
        """
        if not limited:
            return
        if self.cwnd < self.ssthresh:
            grown = min(acked, self.ssthresh - self.cwnd)
            self.cwnd += grown
            acked -= grown
        if acked > 0:
            self._avoid(acked, now, srtt)
        self._clamp()

    def on_loss(self, flight: int, now: int) -> None:
        """Fast recovery begins with `flight` bytes outstanding (RFC 5681, 3.2; RFC 6675, 5)."""
        self._remember()
        self.ssthresh = self._reduced(flight)
        self.cwnd = self.ssthresh

    def on_timeout(self, flight: int, now: int, first: bool) -> None:
        """The retransmission timer expired; first: not already for the same data (RFC 5681, 3.1)."""
        if first:
            self._remember()
            self.ssthresh = self._reduced(flight)
        self.cwnd = self.mss

    def on_idle(self, idle: int) -> None:
        """Nothing was sent for `idle` microseconds, longer than a time-out (RFC 5681, 4.1): cwnd restarts."""
        self.cwnd = min(self.cwnd, _INITIAL_SEGMENTS * self.mss)

    def set_mss(self, mss: int) -> None:
        """Segments have another size."""
        self.mss = mss
        self.cwnd = max(self.cwnd, mss)

    def undo(self) -> None:
        """The last reduction was for nothing: everything as before, but never less than now (RFC 4015, 3)."""
        self.cwnd = max(self.cwnd, self._prior_cwnd)
        self.ssthresh = max(self.ssthresh, self._prior_ssthresh)
        self._clamp()

    def _avoid(self, acked: int, now: int, srtt: int) -> None:
        raise NotImplementedError

    def _reduced(self, flight: int) -> int:
        raise NotImplementedError

    def _remember(self) -> None:
        self._prior_cwnd = self.cwnd
        self._prior_ssthresh = self.ssthresh

    def _clamp(self) -> None:
        if 0 < self.max_cwnd < self.cwnd:
            self.cwnd = max(self.max_cwnd, self.mss)


class Reno(CongestionControl):
    """One segment more for each window acknowledged; half on loss (RFC 5681)."""

    def __init__(self, cwnd: int, ssthresh: int, mss: int, max_cwnd: int) -> None:
        super().__init__(cwnd, ssthresh, mss, max_cwnd)
        self._counted = 0

    def _avoid(self, acked: int, now: int, srtt: int) -> None:
        self._counted += acked
        while self._counted >= self.cwnd:
            self._counted -= self.cwnd
            self.cwnd += self.mss

    def _reduced(self, flight: int) -> int:
        return max(min(flight, self.cwnd) // 2, 2 * self.mss)
