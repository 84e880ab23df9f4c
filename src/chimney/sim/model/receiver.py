"""The receiving half of the model: reassembly, the window that is offered, and when an acknowledgement is due.

RFC 9293 (3.8.6.2.2, 3.8.6.3, 3.10.7.4), RFC 2018 and RFC 2883 (SACK), RFC 7323 (timestamps, window scale), and what
Linux does where these leave a choice. Sequence numbers are integers that never wrap; times are microseconds.
"""

from __future__ import annotations

from chimney.link.base import NEVER
from chimney.sim.model.segment import MASK, unwrap

DELAYED_ACK = 40_000
QUICK_ACKS = 16
SMALLEST_MSS = 536

_HALF = 1 << 31
_LONGEST_WINDOW = 65535


class Receiver:
    """Everything that concerns the peer's data.

    nxt       RCV.NXT; the peer's FIN counts once it is in sequence.
    edge      the right edge of the window: the highest that was ever offered. It never moves back.
    acked     RCV.NXT as it stood in the last segment that was sent (RFC 7323: Last.ACK.sent).
    unread    what the application has not read; it ends at nxt, before a FIN.
    islands   what arrived out of order: [left edge, right edge, bytes, when touched last], sorted and apart.
    ack_now   an acknowledgement is owed at once; ``delayed_at``: by then.
    """

    def __init__(self, start: int, buffer: int, scale: int, mss: int, sack_blocks: int, young: bool = True) -> None:
        self.nxt = self.acked = start
        self.buffer = buffer
        self.edge = start + min(buffer, _LONGEST_WINDOW)
        self.scale = max(scale, 0)
        self.mss = mss
        self.unread = bytearray()
        self.islands: list[tuple[int, int, bytes, int]] = []
        self.fin_at = -1
        self.fin_received = False
        self.ts_recent = -1
        self.ack_now = False
        self.delayed_at = NEVER
        self.bytes_received = 0
        self._quick = QUICK_ACKS if young else 0
        self._largest = min(SMALLEST_MSS, mss)
        self._arrived_at = -NEVER
        self._touches = 0
        self._sack_blocks = sack_blocks
        self._duplicate: tuple[int, int] | None = None

    def restart(self, nxt: int, wup: int, wnd: int, unread: bytes, ts_recent: int, fin_received: bool) -> None:
        """Takes over what another receiver had in sequence; ``wup`` and ``wnd`` are what it offered last (32 bits)."""
        self.nxt = nxt
        self.acked = unwrap(wup, nxt)
        self.edge = self.acked + wnd
        self._quick = QUICK_ACKS
        self.unread += unread
        self.bytes_received = len(unread)
        self.ts_recent = ts_recent
        self.fin_received = fin_received
        if fin_received:
            self.fin_at = nxt - 1

    # The window

    @property
    def window(self) -> int:
        """RCV.WND: from RCV.NXT to the right edge that was offered."""
        return max(self.edge - self.nxt, 0)

    def offer(self) -> int:
        """Moves the right edge on as far as there is room, and tells the window as it stands on the wire."""
        edge = self._possible_edge()
        if edge - self.edge >= self._worth_telling():
            self.edge = edge
        # Rounded up: rounded down, the edge would go back.
        raw = (self.edge - self.nxt + (1 << self.scale) - 1) >> self.scale
        raw = min(max(raw, 0), _LONGEST_WINDOW)
        self.edge = max(self.edge, self.nxt + (raw << self.scale))
        return raw

    def _possible_edge(self) -> int:
        room = min(self.buffer - len(self.unread), _LONGEST_WINDOW << self.scale)
        return self.nxt + (max(room, 0) >> self.scale << self.scale)

    def _worth_telling(self) -> int:
        """By how much the edge moves at least: the receiver's silly window avoidance."""
        return min(self.buffer // 2, self.mss)

    def resize(self, buffer: int) -> None:
        """The buffer has another size. What was offered beyond it is taken back."""
        self.buffer = buffer
        edge = max(self._possible_edge(), self.nxt)
        if edge < self.edge:
            self.edge = edge
            self.ack_now = True

    def was_read(self) -> None:
        """The application has made room: is it worth a segment?"""
        if self.fin_received:
            return
        window = self.window
        news = self._possible_edge() - self.edge
        if 2 * window <= self.buffer and news >= self._worth_telling() and news >= window:
            self.ack_now = True

    # Arrivals

    def arrives(self, seq: int, payload: bytes, fin: bool, now: int) -> None:
        """Takes in the text of an acceptable segment, and its FIN, as far as they are in the window and new."""
        end = seq + len(payload)
        nxt = self.nxt
        if end + fin <= nxt:
            self._again(seq, end)
            return
        if self.fin_received:
            return  # beyond the peer's own FIN
        if end > self.edge:
            # What is beyond the window is not kept. A FIN right behind it is: it takes no room.
            fin = False
            end = self.edge
            payload = payload[: max(end - seq, 0)]
            self.ack_now = True
        if fin:
            self.fin_at = end
        if seq > nxt:
            if payload:
                self._keep(seq, end, payload)
            self.ack_now = True
            return
        if seq < nxt:
            if end > nxt and payload:
                self._duplicate = (seq, nxt)
                self.ack_now = True
            payload = payload[nxt - seq :]
        size = len(payload)
        if size > self._largest:
            self._largest = min(size, self.mss)
        self.unread += payload
        self.nxt = end if end > nxt else nxt
        if self.islands:
            self._join()
            self.ack_now = True
        if self.nxt == self.fin_at:
            self.nxt += 1
            self.fin_received = True
            self.islands.clear()
        self.bytes_received += self.nxt - nxt
        if self.nxt - self.acked > self._largest or self._quick > 0:
            self.ack_now = True
        elif self.delayed_at == NEVER and self.nxt > nxt:
            self.delayed_at = now + DELAYED_ACK
        self._arrived_at = now

    def _again(self, seq: int, end: int) -> None:
        """Nothing new: the peer has not heard our acknowledgement."""
        if end > seq:
            self._duplicate = (seq, end)
        self.ack_now = True
        self._quick = QUICK_ACKS

    def duplicate(self, seq: int, end: int) -> None:
        """A segment from before the window: answered, and reported if it had data (RFC 9293, 3.10.7.4; RFC 2883)."""
        if seq < end <= self.nxt:
            self._duplicate = (seq, end)
        self.ack_now = True

    def _keep(self, left: int, right: int, payload: bytes) -> None:
        """Out of order: it becomes part of an island, or one of its own."""
        islands = self.islands
        if any(known_left <= left and right <= known_right for known_left, known_right, _, _ in islands):
            self._duplicate = (left, right)
        self._touches += 1
        apart = []
        for island in islands:
            known_left, known_right, known, _ = island
            if known_right < left or known_left > right:
                apart.append(island)
                continue
            if known_left < left:
                payload = known[: left - known_left] + payload
                left = known_left
            if known_right > right:
                payload += known[right - known_right :]
                right = known_right
        apart.append((left, right, payload, self._touches))
        apart.sort()
        self.islands = apart

    def _join(self) -> None:
        """Islands that RCV.NXT has reached are in order now."""
        islands = self.islands
        while islands and islands[0][0] <= self.nxt:
            _, right, payload, _ = islands.pop(0)
            if right > self.nxt:
                self.unread += payload[self.nxt - right :]
                self.nxt = right

    # What our segments say

    def told(self, with_data: bool, now: int) -> None:
        """A segment with our acknowledgement leaves."""
        if self.nxt > self.acked and self._quick > 0:
            self._quick -= 1
        self.acked = self.nxt
        self.ack_now = False
        self.delayed_at = NEVER
        self._duplicate = None
        # The application answers what it is asked: from now on acknowledgements wait for its answers, as in Linux.
        if with_data and now - self._arrived_at < DELAYED_ACK:
            self._quick = 0

    def sack(self) -> tuple[tuple[int, int], ...]:
        """The blocks for the next segment, on the wire: a duplicate first, then what was touched last."""
        if not self._sack_blocks or (not self.islands and self._duplicate is None):
            return ()
        blocks = [(left, right) for left, right, _, _ in sorted(self.islands, key=_touched, reverse=True)]
        if self._duplicate is not None:
            blocks.insert(0, self._duplicate)
        return tuple((left & MASK, right & MASK) for left, right in blocks[: self._sack_blocks])

    # Timestamps (RFC 7323, 4.3 and 5.3)

    def is_old(self, ts_val: int) -> bool:
        """Whether a timestamp is before TS.Recent: the segment is an old duplicate."""
        return self.ts_recent >= 0 and (ts_val - self.ts_recent) & MASK >= _HALF

    def note_timestamp(self, seq: int, ts_val: int) -> None:
        """TS.Recent follows the segments that begin at or before the last acknowledgement sent."""
        if seq <= self.acked and not self.is_old(ts_val):
            self.ts_recent = ts_val


def _touched(island: tuple[int, int, bytes, int]) -> int:
    return island[3]
