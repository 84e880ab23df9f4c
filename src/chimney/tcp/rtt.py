"""Round-trip time and retransmission timeout (RFC 6298). Times in microseconds."""

_WINDOW_US = 300_000_000
_UNKNOWN = 2**62


class RttEstimator:
    """srtt and rttvar, and the timeout that follows from them; srtt 0 means that nothing was measured yet.

    The smallest round trip is that of the last five minutes, as Linux has it.
    """

    def __init__(self, srtt: int, rttvar: int, min_rto: int, max_rto: int, now: int = 0) -> None:
        self.srtt = srtt
        self.rttvar = rttvar
        self.min_rto = min_rto
        self.max_rto = max_rto
        self._least = srtt if srtt > 0 else _UNKNOWN
        self._least_at = now
        self._next = self._least
        self._next_at = now

    def sample(self, rtt: int) -> None:
        """Takes in a measurement (RFC 6298, 2.2 and 2.3)."""
        if rtt < 1:
            rtt = 1
        if self.srtt == 0:
            self.srtt = rtt
            self.rttvar = rtt // 2
            return
        error = self.srtt - rtt
        self.rttvar = (3 * self.rttvar + (error if error >= 0 else -error)) // 4
        self.srtt = (7 * self.srtt + rtt) // 8
        if self.srtt < 1:
            self.srtt = 1

    def note_least(self, rtt: int, now: int) -> None:
        """Keeps the smallest measurement of a window, and the smallest of its second half to go on with."""
        if rtt < 1:
            rtt = 1
        if rtt <= self._least:
            self._least = self._next = rtt
            self._least_at = self._next_at = now
            return
        if rtt <= self._next or (self._next_at == self._least_at and 2 * (now - self._next_at) > _WINDOW_US):
            self._next = rtt
            self._next_at = now
        if now - self._least_at > _WINDOW_US:
            self._least = self._next
            self._least_at = self._next_at
            self._next = rtt
            self._next_at = now

    def min_rtt(self) -> int:
        """The smallest round trip; 0 if none was measured."""
        return self._least if self._least != _UNKNOWN else 0

    def rto(self) -> int:
        """The timeout before any back-off.

        The minimum bounds the variation, not the sum, as Linux has it: a steady path with a round trip near the
        minimum shall not time out for a delayed acknowledgement.
        """
        if self.srtt == 0:
            return min(1_000_000, self.max_rto)
        return min(self.srtt + max(self.min_rto, 4 * self.rttvar), self.max_rto)

    def backed_off(self, count: int) -> int:
        """The timeout after `count` of them in a row (RFC 6298, 5.5)."""
        return min(self.rto() << min(count, 20), self.max_rto)
