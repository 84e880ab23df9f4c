"""Congestion control: what every algorithm has. Windows in bytes, times in microseconds.

The algorithms are in files of their own (reno.py, cubic.py); algorithms.py chooses one by its name.
"""

_INITIAL_SEGMENTS = 10
_LEAST_SEGMENTS = 2


class CongestionControl:
    """cwnd and ssthresh, slow start, and the events that change them.

    A subclass says how cwnd grows in congestion avoidance (`_avoid`) and what ssthresh becomes when the network is
    congested (`_reduced`); it may watch every acknowledgement to leave slow start early (`_observe`). reorders: the
    path has been seen to reorder, says the caller.
    """

    def __init__(self, cwnd: int, ssthresh: int, mss: int, max_cwnd: int) -> None:
        self.mss = mss
        self.max_cwnd = max_cwnd
        self.cwnd = max(cwnd, mss)
        self.ssthresh = max(ssthresh, mss)
        self.reorders = False
        self._prior_cwnd = 0
        self._prior_ssthresh = 0
        self._clamp()

    def in_slow_start(self) -> bool:
        """RFC 5681, 3.1: cwnd is below ssthresh."""
        return self.cwnd < self.ssthresh

    def on_ack(self, acked: int, limited: bool, rtt: int, srtt: int, una: int, nxt: int, now: int) -> None:
        """`acked` bytes have newly arrived, cumulatively or by SACK, outside fast recovery.

        limited: whether cwnd was what held the sender back; otherwise it must not grow (RFC 9438, 5.8).
        rtt: the sample of this acknowledgement, -1 if there is none; una, nxt: positions after it.
        """
        self._observe(rtt, una, nxt, now)
        if not limited or acked <= 0:
            return
        if self.cwnd < self.ssthresh:
            acked = self._slow_start(acked)
        if acked > 0:
            self._avoid(acked, srtt, now)
        self._clamp()

    def on_congestion(self, flight: int, now: int) -> None:
        """A loss or an ECN echo, with `flight` bytes outstanding (RFC 5681, 3.2; RFC 3168, 6.1.2): ssthresh shrinks.

        cwnd is led there by the caller (RFC 9937), and set by `end_recovery`.
        """
        self._remember()
        self.ssthresh = self._reduced(flight)

    def end_recovery(self) -> None:
        """The episode that `on_congestion` began is over (RFC 6582, 3.2, step 3; RFC 9937, 6)."""
        self.cwnd = max(self.ssthresh, self.mss)
        self._clamp()

    def on_timeout(self, flight: int, now: int, first: bool) -> None:
        """The retransmission timer expired (RFC 5681, 3.1): the loss window, one segment.

        first: not already for the same data; only then ssthresh shrinks.
        """
        if first:
            self._remember()
            self.ssthresh = self._reduced(flight)
        self.cwnd = self.mss

    def on_idle(self, idle: int, rto: int, now: int) -> None:
        """Sending begins again with nothing under way, `idle` microseconds after the last transmission.

        RFC 2861, 3: cwnd halves for each `rto` of these, down to the initial window; ssthresh remembers most of it.
        """
        if idle <= rto or rto <= 0:
            return
        restart = min(_INITIAL_SEGMENTS * self.mss, self.cwnd)
        self.ssthresh = max(self.ssthresh, self.cwnd // 4 * 3)
        halvings = min((idle - 1) // rto, 62)
        self.cwnd = max(self.cwnd >> halvings, restart)

    def on_unused(self, used: int) -> None:
        """No more than `used` bytes were under way at any time for longer than a time-out (RFC 2861, 3).

        cwnd goes half of the way to what was used, but not below the initial window.
        """
        used = max(used, _INITIAL_SEGMENTS * self.mss)
        if used < self.cwnd:
            self.ssthresh = max(self.ssthresh, self.cwnd // 4 * 3)
            self.cwnd = (self.cwnd + used) // 2

    def set_mss(self, mss: int) -> None:
        """Segments have another size; the windows are in bytes, and stay."""
        self.mss = mss
        self.cwnd = max(self.cwnd, mss)
        self.ssthresh = max(self.ssthresh, mss)

    def undo(self, now: int) -> None:
        """The last reduction was for nothing: everything as before, but never less than now (RFC 4015, 3)."""
        self.cwnd = max(self.cwnd, self._prior_cwnd)
        self.ssthresh = max(self.ssthresh, self._prior_ssthresh)
        self._clamp()

    def _observe(self, rtt: int, una: int, nxt: int, now: int) -> None:
        """Looks at an acknowledgement, before cwnd grows by it."""

    def _slow_start(self, acked: int) -> int:
        """cwnd grows by what has arrived, up to ssthresh; returns the bytes that are left for congestion avoidance."""
        grown = min(acked, self.ssthresh - self.cwnd)
        self.cwnd += grown
        return acked - grown

    def _avoid(self, acked: int, srtt: int, now: int) -> None:
        raise NotImplementedError

    def _reduced(self, flight: int) -> int:
        raise NotImplementedError

    def _remember(self) -> None:
        """For `undo`; of several reductions without an end between them, the state before the first counts."""
        self._prior_cwnd = self.cwnd
        self._prior_ssthresh = self.ssthresh

    def _least(self) -> int:
        """RFC 5681, 3.1, equation 4: ssthresh is never below two segments."""
        return _LEAST_SEGMENTS * self.mss

    def _clamp(self) -> None:
        if 0 < self.max_cwnd < self.cwnd:
            self.cwnd = max(self.max_cwnd, self.mss)
