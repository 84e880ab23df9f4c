"""Explicit congestion notification (RFC 3168, 6.1) on a connection that has negotiated it.

A router that would have to drop marks the packet instead (CE). The receiver of the mark echoes it (ECE) in everything
it sends until the sender says that it has reacted (CWR).
"""

from chimney.tcp.segment import Segment

_ACK = 16
_ECE = 64
_CWR = 128
_NOT_ECT = 0
_ECT_0 = 2
_CE = 3


class Ecn:
    """Both roles of one connection.

    echoing: CE has come, and no CWR since. received_ce: segments that had it. delivered_ce: segments of ours whose
    acknowledgement echoed it. seen: the peer's packets are ECN-capable.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.echoing = False
        self.received_ce = 0
        self.delivered_ce = 0
        self.seen = False
        self._cwr_due = False
        self._until = 0

    def received(self, segment: Segment) -> bool:
        """Data arrived in the window (6.1.3): whether the peer should hear of it at once.

        It should when CE begins, and when CWR tells that the peer may have very little in flight. A segment that is
        not ECN-capable where others were is a retransmission, for which the peer waits.
        """
        hurry = False
        if segment.flags & _CWR:
            self.echoing = False
            hurry = True
        if segment.ecn == _CE:
            hurry = hurry or not self.echoing
            self.echoing = True
            self.received_ce += segment.segments
        if segment.ecn == _NOT_ECT:
            return hurry or self.seen
        self.seen = True
        return hurry

    def is_news(self, una: int, highest: int) -> bool:
        """Whether an echo asks for a reduction: at most once per window of data (6.1.2).

        It was in an acknowledgement up to position `una`; `highest` is the end of what was sent.
        """
        if una < self._until:
            return False
        self._until = highest + 1
        self._cwr_due = True
        return True

    def reacted(self) -> None:
        """cwnd was reduced, for whatever reason (6.1.2): the next new data says so."""
        self._cwr_due = True

    def mark(self, segment: Segment, is_new_data: bool) -> None:
        """Fills in what a segment that leaves says: ECT on new data alone, neither retransmitted (6.1.5) nor a probe
        of a closed window (6.1.6), nor a pure acknowledgement (6.1.4).
        """
        if is_new_data:
            segment.ecn = _ECT_0
            if self._cwr_due:
                self._cwr_due = False
                segment.flags |= _CWR
        if self.echoing and segment.flags & _ACK:
            segment.flags |= _ECE
