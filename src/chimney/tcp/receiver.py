"""The receiving half: what is acceptable, what is in order, what is kept for later (RFC 9293, 3.10.7.4).

Positions count from RCV.NXT as handed over; the peer's FIN takes one.
"""

from chimney.tcp.config import Config, Tcb
from chimney.tcp.reassembly import Reassembly
from chimney.tcp.segment import Segment
from chimney.tcp.seq import unwrap
from chimney.tcp.state import FIN_WAS_RECEIVED
from chimney.tcp.statistics import Statistics
from chimney.tcp.window import ReceiveWindow

NOTHING_NEW = 0
IN_ORDER = 1
HOLE_FILLED = 2
OUT_OF_ORDER = 3
REFUSED = 4

_FIN = 1
_PSH = 8
_NOTHING_NEW = 0
_IN_ORDER = 1
_HOLE_FILLED = 2
_OUT_OF_ORDER = 3
_REFUSED = 4


_LEAST_SEGMENT = 536
_LEAST_BLOCKS = 256
_LEAST_PARTS = 8192
_DUPLICATES = 8
"""Ranges that came twice and wait to be reported: more of them in one batch are not."""


class Receiver:
    """Window, reassembly and the in-order data that the owner has not fetched yet.

    duplicates: ranges that came twice, each to be reported by an acknowledgement of its own (RFC 2883, 4).
    acknowledged: the latest acknowledgement that was sent (Last.ACK.sent of RFC 7323, 4.3).
    """

    def __init__(self, config: Config, tcb: Tcb, mss: int, statistics: Statistics) -> None:
        scale = min(config.rcv_wscale, 14) if config.window_scaling else 0
        self.statistics = statistics
        self.window = ReceiveWindow(tcb.rcv_nxt, tcb.rcv_wnd, config.initial_rcv_wnd, scale, mss, tcb.undelivered)
        self._max_blocks = config.max_reassembly_blocks
        self._max_parts = config.max_reassembly_parts
        self.reassembly = Reassembly(self._max_blocks, self._max_parts)
        self.received: list[tuple[memoryview, bool]] = []
        self.fin_received = tcb.state in FIN_WAS_RECEIVED
        self.fin_at = -1
        self.duplicates: list[tuple[int, int]] = []
        self.acknowledged = 0
        self._reports = config.sack
        self._before = 0

    def position(self, seq: int) -> int:
        """The position of a sequence number of the peer."""
        window = self.window
        return unwrap(seq, window.sequence(window.nxt), window.nxt)

    def is_acceptable(self, start: int, length: int) -> bool:
        """Whether [start, start + length) touches the window (RFC 9293, 3.10.7.4, first step).

        As Linux does, what ends between the last acknowledgement sent and RCV.NXT counts: the peer sent it in good
        order, and something has overtaken it. A segment without data may stand at the right edge: the peer has filled
        the window, and its data is still under way. Of data at the edge of a closed window the acknowledgement counts.
        """
        window = self.window
        if length == 0:
            return self.acknowledged <= start <= window.edge
        return (start < window.edge or start == window.nxt) and start + length >= self.acknowledged

    def is_in_window(self, start: int) -> bool:
        """Whether `start` is in the window; RCV.NXT always is (RFC 5961, 3.2)."""
        return self.window.nxt <= start < self.window.edge or start == self.window.nxt

    def is_old(self, start: int, length: int) -> bool:
        """Whether all of [start, start + length) was received before; `length` counts a FIN."""
        return start + length <= self.window.nxt

    def accept(self, segment: Segment, start: int) -> int:
        """Takes in payload and FIN of an acceptable segment at `start`. Returns one of the constants above."""
        window = self.window
        data = segment.payload
        end = start + segment.payload_length
        fin = segment.flags & _FIN != 0
        self._before = len(self.duplicates)
        if segment.payload_parts:
            if start == window.nxt and end <= window.edge and self.fin_at < 0 and not fin:
                return self._accept_parts(segment, end)
            data = memoryview(b"".join(segment.payload_parts))
        if start < window.nxt:
            self._note_duplicate(start, min(end, window.nxt))
            data = data[window.nxt - start :]
            start = window.nxt
        limit = self._limit(start, len(segment.payload_parts[0]) if segment.payload_parts else end - start)
        if end > limit:
            data = data[: max(limit - start, 0)]
            end = max(limit, start)
            fin = False
        if self.fin_received:
            return _NOTHING_NEW
        if fin and self.fin_at < 0:
            self.fin_at = end
            # The peer contradicts itself if it has sent anything beyond: the FIN counts, as with Linux.
            self.reassembly.cut(end)
        if end <= start:
            return self._accept_fin(start, fin, segment.payload_length)
        if start > window.nxt:
            return self._keep(start, end, data, segment.flags & _PSH != 0)
        self.received.append((data, segment.flags & _PSH != 0))
        return self._deliver(end)

    def _accept_parts(self, segment: Segment, end: int) -> int:
        """A train in order, all of which is in the window."""
        for part in segment.payload_parts:
            self.received.append((part, False))
        if segment.flags & _PSH:
            self.received[-1] = (self.received[-1][0], True)
        return self._deliver(end)

    def _limit(self, start: int, length: int) -> int:
        """Up to where the bytes of a segment are taken: the window's edge, or the FIN.

        A segment that begins in an open window and exceeds it is taken whole if nothing waits to be read, as with
        Linux: the sender is wrong about the window, and would come back with the rest for ever. ``length``: of the
        segment, or of the first one of a train: behind that, something waits to be read.
        """
        window = self.window
        if self.fin_at >= 0:
            return min(window.edge, self.fin_at)
        end = start + length
        if end > window.edge > start == window.nxt and window.undelivered == 0 and self.reassembly.is_empty():
            return end
        return window.edge

    def _accept_fin(self, start: int, fin: bool, length: int) -> int:
        """A segment of which no data is left."""
        if fin:
            return _IN_ORDER if start == self.window.nxt else _OUT_OF_ORDER
        return _REFUSED if length > 0 else _NOTHING_NEW

    def _deliver(self, end: int) -> int:
        """In-order data up to `end` was appended to `received`; more may follow from reassembly."""
        window = self.window
        reached = end
        verdict = _IN_ORDER
        if not self.reassembly.is_empty():
            reached = self.reassembly.pop(end, self.received)
            self._note_overlap()
            verdict = _HOLE_FILLED
        count = reached - window.nxt
        window.nxt = reached
        if window.edge < reached:
            window.edge = reached
        window.undelivered += count
        self.statistics.bytes_in += count
        return verdict

    def _keep(self, start: int, end: int, data: memoryview, push: bool) -> int:
        # In a window there are no more holes than segments, and no more pieces than there are of both.
        fit = self.window.size // max(self.window.mss, _LEAST_SEGMENT)
        self.reassembly.max_blocks = self._max_blocks or max(fit, _LEAST_BLOCKS)
        self.reassembly.max_parts = self._max_parts or max(2 * fit, _LEAST_PARTS)
        new = self.reassembly.insert(start, data, push)
        self._note_overlap()
        if new < 0:
            self.statistics.reassembly_drops += 1
            return _REFUSED
        if new > 0:
            self.statistics.out_of_order += 1
        return _OUT_OF_ORDER

    def take_fin(self) -> bool:
        """Whether the peer's FIN has come in order now; if so, it is consumed.

        Its acknowledgement says all there is to say: nothing more is reported, as with Linux.
        """
        window = self.window
        if self.fin_received or self.fin_at != window.nxt:
            return False
        self.fin_received = True
        window.nxt += 1
        # It takes a number, and no room.
        window.edge += 1
        self.reassembly.clear()
        self.duplicates.clear()
        return True

    def has_something_to_report(self) -> bool:
        """Whether an acknowledgement has more to say than RCV.NXT."""
        return not self.reassembly.is_empty() or len(self.duplicates) > 0

    def sack_blocks(self, count: int) -> list[tuple[int, int]]:
        """At most `count` blocks for the SACK option: a duplicate first (RFC 2883, 4), then as RFC 2018, 4 says."""
        ranges: list[tuple[int, int]] = []
        if self.duplicates:
            start, end = self.duplicates.pop(0)
            ranges.append((start, end))
            if start >= self.window.nxt:
                # RFC 2883, 4: the block that encloses it comes next.
                self.reassembly.bring_forward(start)
        if not self.reassembly.is_empty():
            ranges += self.reassembly.ranges(count - len(ranges))
        window = self.window
        return [(window.sequence(start), window.sequence(end)) for start, end in ranges]

    def note_old(self, start: int, length: int) -> None:
        """A segment arrived and is not taken: what of it was there already is a duplicate."""
        if length > 0 and start < self.window.nxt:
            self.statistics.duplicates += 1
            self._note_duplicate(start, min(start + length, self.window.nxt))

    def _note_overlap(self) -> None:
        """RFC 2883, 4.2: of a segment that overlaps several ranges, the first one is reported."""
        reassembly = self.reassembly
        if reassembly.overlap_start >= 0 and len(self.duplicates) == self._before:
            self._note_duplicate(reassembly.overlap_start, reassembly.overlap_end)

    def _note_duplicate(self, start: int, end: int) -> None:
        if end > start and self._reports and len(self.duplicates) < _DUPLICATES:
            self.duplicates.append((start, end))
