"""Reno (RFC 5681): one segment more for each window acknowledged, half on congestion."""

from chimney.tcp.congestion import CongestionControl


class Reno(CongestionControl):
    """Overridden methods are called by the name of the class: compiled methods have no super()."""

    def __init__(self, cwnd: int, ssthresh: int, mss: int, max_cwnd: int) -> None:
        CongestionControl.__init__(self, cwnd, ssthresh, mss, max_cwnd)
        self._credit = 0

    def _avoid(self, acked: int, srtt: int, now: int) -> None:
        """RFC 5681, 3.1, in bytes (RFC 3465): a segment for each cwnd that is acknowledged."""
        self._credit += min(acked, self.cwnd)
        if self._credit >= self.cwnd:
            self._credit -= self.cwnd
            self.cwnd += self.mss

    def _reduced(self, flight: int) -> int:
        """RFC 5681, 3.1, equation 4."""
        self._credit = 0
        return max(min(flight, self.cwnd) // 2, self._least())
