"""The receive window (RFC 9293, 3.8.6; RFC 7323, 2): what we may advertise. Positions and bytes."""

from chimney.tcp.seq import add

_LARGEST_FIELD = 65535


class ReceiveWindow:
    """RCV.NXT, the right edge, and what the application has not consumed.

    The window is `size` minus the undelivered bytes, and the right edge that was advertised never moves back: `edge` is
    accepted to in any case. The scaled field is rounded up where rounding down would move it back, as Linux does, but
    only as far as there is room, and less than 1 << scale bytes more: otherwise the edge would creep ahead for ever
    with acknowledgements, and a peer could send without end to an application that does not read. Then it is rounded
    down, and what was offered before still counts (RFC 7323, 2.4).
    """

    def __init__(self, rcv_nxt: int, wnd: int, size: int, scale: int, mss: int, undelivered: int) -> None:
        self.base_seq = rcv_nxt
        self.nxt = 0
        self.edge = wnd
        self.size = size
        self.scale = scale
        self.mss = mss
        self.undelivered = undelivered
        self.forced = False

    def sequence(self, position: int) -> int:
        """The sequence number of `position`."""
        return add(self.base_seq, position)

    def available(self) -> int:
        """How far the edge could move on now, in bytes; negative if more was advertised than there is room for."""
        return self.nxt + self.size - self.undelivered - self.edge

    def consume(self, count: int) -> None:
        """The application has taken `count` bytes."""
        self.undelivered -= count
        if self.undelivered < 0:
            self.undelivered = 0

    def may_advance(self) -> bool:
        """Silly window avoidance (RFC 9293, 3.8.6.2.2): the edge moves by a segment or half the buffer, or not.

        If it has been held back for long enough (`forced`), it moves by what there is.
        """
        return self.available() >= min(self.size // 2, self.mss) or self.forced

    def is_held_back(self) -> bool:
        """Whether there is room that the field of a segment could tell, and silly window avoidance keeps it back."""
        room = min(self.available(), self.nxt + (_LARGEST_FIELD << self.scale) - self.edge)
        return room >= 1 << self.scale and not self.may_advance()

    def update_is_due(self) -> bool:
        """Whether the peer should be told of a larger window without waiting for its data.

        It is when the peer has less than half the buffer left, or none, and two segments can be added to it, in the
        units of the field: what says the same as before is a duplicate acknowledgement.
        """
        left = self.edge - self.nxt
        step = max(self.mss if left < self.mss else 2 * self.mss, 1 << self.scale)
        return left <= self.size // 2 and self.available() >= min(self.size // 2, step)

    def advertise(self) -> int:
        """The window field of a segment sent now; moves the edge."""
        if self.may_advance():
            field = (self.size - self.undelivered) >> self.scale
            if field == 0 and self.undelivered == 0 and self.size > 0:
                # The buffer is smaller than the field's unit: it would never open.
                field = 1
            if self.nxt + (field << self.scale) < self.edge:
                field = self._field_up_to_edge()
        else:
            field = self._field_up_to_edge()
        if field > _LARGEST_FIELD:
            field = _LARGEST_FIELD
        edge = self.nxt + (field << self.scale)
        if edge > self.edge:
            self.edge = edge
        self.forced = False
        return field

    def _field_up_to_edge(self) -> int:
        left = self.edge - self.nxt
        up = (left + (1 << self.scale) - 1) >> self.scale
        if (up - 1) << self.scale < self.size - self.undelivered:
            return up
        return left >> self.scale
