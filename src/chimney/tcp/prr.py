"""Proportional rate reduction (RFC 9937): how cwnd gets from where it was to ssthresh while losses are repaired."""


class Prr:
    """Bytes since the reduction began: delivered (the RFC's DeliveredData, summed), and sent (out).

    prior: cwnd before, as Linux has it; the RFC's RecoverFS counts what was in flight.
    """

    def __init__(self) -> None:
        self.prior = 0
        self.delivered = 0
        self.out = 0

    def begin(self, cwnd: int) -> None:
        """A reduction begins."""
        self.prior = cwnd
        self.delivered = 0
        self.out = 0

    def sent(self, count: int) -> None:
        """`count` bytes leave."""
        self.out += count

    def cwnd(self, delivered: int, safe: bool, in_flight: int, ssthresh: int, mss: int) -> int:
        """cwnd after an acknowledgement of `delivered` bytes.

        safe: it acknowledged something cumulatively, and told of no further loss; then the sender may do as in slow
        start, else it sends what is delivered (the conservative bound).
        """
        self.delivered += delivered
        if in_flight > ssthresh:
            # Rounded up to whole segments, which is what Linux counts in.
            allowed = -(-self.delivered * ssthresh // (max(self.prior, 1) * mss)) * mss - self.out
        else:
            allowed = max(self.delivered - self.out, delivered)
            if safe:
                allowed += mss
            allowed = min(allowed, ssthresh - in_flight)
        # The first retransmission goes in any case; and where nothing is under way, one segment has to leave.
        return max(in_flight + max(allowed, mss if self.out == 0 else 0), mss)
