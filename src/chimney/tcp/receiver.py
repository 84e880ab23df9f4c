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


class Receiver:
    """Window, reassembly and the in-order data that the owner has not fetched yet."""

    def __init__(self, config: Config, tcb: Tcb, mss: int, statistics: Statistics) -> None:
        scale = min(config.rcv_wscale, 14) if config.window_scaling else 0
        self.statistics = statistics
        self.window = ReceiveWindow(tcb.rcv_nxt, tcb.rcv_wnd, config.initial_rcv_wnd, scale, mss, tcb.undelivered)
        self.reassembly = Reassembly(config.max_reassembly_blocks, config.max_reassembly_parts)
        self.received: list[tuple[memoryview, bool]] = []
        self.fin_received = tcb.state in FIN_WAS_RECEIVED
        self.fin_at = -1
        self.duplicate_start = -1
        self.duplicate_end = -1

    def position(self, seq: int) -> int:
        """The position of a sequence number of the peer."""
        window = self.window
        return unwrap(seq, window.sequence(window.nxt), window.nxt)

    def is_acceptable(self, start: int, length: int) -> bool:
        """Whether [start, start + length) touches the window (RFC 9293, 3.10.7.4, first step).

        As Linux does, a segment without data may stand at the right edge: the peer has filled the window, and its
        data is still under way. Of data at the edge of a closed window the acknowledgement counts.
        """
        window = self.window
        if length == 0:
            return window.nxt <= start <= window.edge
        return (start < window.edge or start == window.nxt) and start + length > window.nxt

    def is_in_window(self, start: int) -> bool:
        """Whether `start` is in the window; RCV.NXT always is (RFC 5961, 3.2)."""
        return self.window.nxt <= start < self.window.edge or start == self.window.nxt

    def accept(self, segment: Segment, start: int) -> int:
        """Takes in payload and FIN of an acceptable segment at `start`. Returns one of the constants above."""
        window = self.window
        data = segment.payload
        end = start + segment.payload_length
        fin = segment.flags & _FIN != 0
        if start < window.nxt:
            self._note_duplicate(start, min(end, window.nxt))
            data = data[window.nxt - start :]
            start = window.nxt
        limit = window.edge if self.fin_at < 0 else min(window.edge, self.fin_at)
        if end > limit:
            data = data[: max(limit - start, 0)]
            end = max(limit, start)
            fin = False
        if self.fin_received:
            return _NOTHING_NEW
        if fin and self.fin_at < 0:
            self.fin_at = end
        if end <= start:
            return self._accept_fin(start, fin, segment.payload_length)
        if start > window.nxt:
            return self._keep(start, end, data, segment.flags & _PSH != 0)
        self.received.append((data, segment.flags & _PSH != 0))
        return self._deliver(end)

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
            verdict = _HOLE_FILLED
        count = reached - window.nxt
        window.nxt = reached
        window.undelivered += count
        self.statistics.bytes_in += count
        return verdict

    def _keep(self, start: int, end: int, data: memoryview, push: bool) -> int:
        if self.reassembly.contains(start, end):
            self._note_duplicate(start, end)
            return _OUT_OF_ORDER
        self.statistics.out_of_order += 1
        if self.reassembly.insert(start, data, push) < 0:
            self.statistics.reassembly_drops += 1
            return _REFUSED
        return _OUT_OF_ORDER

    def take_fin(self) -> bool:
        """Whether the peer's FIN has come in order now; if so, it is consumed."""
        window = self.window
        if self.fin_received or self.fin_at != window.nxt:
            return False
        self.fin_received = True
        window.nxt += 1
        if window.edge < window.nxt:
            window.edge = window.nxt
        self.reassembly.clear()
        return True

    def has_something_to_report(self) -> bool:
        """Whether an acknowledgement has more to say than RCV.NXT."""
        return self.duplicate_start >= 0 or not self.reassembly.is_empty()

    def sack_blocks(self, count: int) -> list[tuple[int, int]]:
        """At most `count` blocks for the SACK option: a duplicate first (RFC 2883, 4), then as RFC 2018, 4 says."""
        ranges: list[tuple[int, int]] = []
        if self.duplicate_start >= 0:
            ranges.append((self.duplicate_start, self.duplicate_end))
            self.duplicate_start = -1
        if not self.reassembly.is_empty():
            ranges += self.reassembly.ranges(count - len(ranges))
        window = self.window
        return [(window.sequence(start), window.sequence(end)) for start, end in ranges]

    def note_old(self, start: int, length: int) -> None:
        """A segment arrived of which everything was there already."""
        if length > 0 and start + length <= self.window.nxt:
            self.statistics.duplicates += 1
            self._note_duplicate(start, start + length)

    def _note_duplicate(self, start: int, end: int) -> None:
        if end > start:
            self.duplicate_start = start
            self.duplicate_end = end
