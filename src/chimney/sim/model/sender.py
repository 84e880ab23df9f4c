"""The sending half of the model: send queue, window, retransmission, congestion control.

RFC 9293 (3.8.4, 3.8.6), RFC 6298 (retransmission timer), RFC 5681 and RFC 6582 (Reno), RFC 2018 (SACK). Like the
classical implementations it has three marks: SND.UNA, the next byte to be sent, and the highest that was ever sent; a
time-out moves the second back to the first. Sequence numbers are integers that never wrap; times are microseconds.
"""

from __future__ import annotations

from chimney.link.base import NEVER
from chimney.sim.model.segment import unwrap

MIN_RTO, MAX_RTO, FIRST_RTO = 200_000, 120_000_000, 1_000_000
RETRIES, ORPHAN_RETRIES = 15, 8
INITIAL_SEGMENTS = 10
INFINITE = 0x7FFFFFFF

Piece = tuple[int, int, bool]
"""What goes into a segment: the first byte, how many, and whether a FIN follows them."""


class Sender:
    """Everything that concerns our own data.

    una, nxt, max  SND.UNA, the next byte to be sent, the end of what was ever sent. nxt is before max after a time-out.
    queue          the bytes from una on that are not acknowledged, sent or not.
    fin_at         where our FIN stands in sequence; -1: the sending half is open.
    sacked         ranges above una that the peer has, sorted and apart: [left edge, right edge].
    failed         the peer has not answered for so long that the connection is given up.
    """

    def __init__(self, start: int, wnd: int, wl1: int, mss: int, use_sack: bool, srtt_us: int) -> None:
        self.una = self.nxt = self.max = start
        self.queue = bytearray()
        self.fin_at = -1
        self.wnd = self.max_wnd = wnd
        self.wl1 = wl1
        self.mss = mss
        self.use_sack = use_sack
        self.retries_allowed = RETRIES
        self.failed = False
        self.cwnd = INITIAL_SEGMENTS * mss
        self.ssthresh = INFINITE
        self.dup_acks = 0
        self.recovering = False
        self.recover = start
        self.sacked: list[list[int]] = []
        self.bytes_acked = 0
        self.retransmitted = 0
        # Round trip (RFC 6298): one segment at a time is timed, and no retransmitted one (Karn).
        self.srtt = srtt_us
        self.rttvar = srtt_us // 2
        self.rto = self._fresh_rto()
        self.rto_at = NEVER
        self.retries = 0
        self._timed_end = -1
        self._timed_at = 0
        # Persist timer: it also ends the wait of silly window avoidance.
        self.probe_at = NEVER
        self.probes = 0
        self._probe_backoff = 0
        # Fast retransmit: a segment at or above `_hole` is to go out, whatever the congestion window says.
        self._resend = False
        self._hole = start

    @property
    def end(self) -> int:
        """Where the queue ends; our FIN, if there is one, not counted."""
        return self.fin_at if self.fin_at >= 0 else self.una + len(self.queue)

    @property
    def write_seq(self) -> int:
        """The end of everything that is to be sent, FIN included."""
        return self.fin_at + 1 if self.fin_at >= 0 else self.una + len(self.queue)

    def forget(self) -> None:
        """The connection is over: nothing is sent any more."""
        self.queue.clear()
        self.nxt = self.max = self.una
        self.fin_at = -1
        self.sacked.clear()
        self.stop()

    def stop(self) -> None:
        """No timer runs, nothing is retransmitted."""
        self.rto_at = self.probe_at = NEVER
        self._resend = False

    def restart(self, srtt_us: int, rttvar_us: int, now: int) -> None:
        """The fields have been set to those of another connection: the timers are, too."""
        self.srtt = srtt_us
        self.rttvar = rttvar_us or srtt_us // 2
        self.rto = self._fresh_rto()
        self._hole = self.una
        if self.max > self.una:
            self.rto_at = now + self.rto

    # What may be sent

    @property
    def resending(self) -> bool:
        """Fast retransmit wants to send something."""
        return self._resend

    def piece(self, size: int, nodelay: bool) -> Piece | None:
        """The next segment's content, at most ``size`` bytes; None if nothing may be sent now. `sent` must follow."""
        if self._resend:
            self._resend = False
            piece = self._next_hole(size)
            if piece is not None:
                return piece
        at = self.nxt
        gap = size
        if self.sacked and at < self.max:
            at, gap = self._skip_sacked(at)
            self.nxt = at
        available = self.end - at
        if available < 0:
            return None  # the FIN has been sent, too
        room = self.una + self.wnd - at
        count = min(available, size, room, gap)
        fin = at + count == self.fin_at and room > count
        if count <= 0 and not fin:
            return None
        flight = at - self.una
        if flight and flight + count > self.cwnd:
            return None
        if count < size and at >= self.max and not fin:
            if count == available:
                if flight and not nodelay:
                    return None  # Nagle
            elif 2 * count < self.max_wnd:
                return None  # sender's silly window avoidance (RFC 9293, 3.8.6.2.1)
        return at, count, fin

    def sent(self, piece: Piece, now: int) -> None:
        """A piece has left."""
        start, count, fin = piece
        end = start + count + fin
        if start < self.max:
            self.retransmitted += 1
            self._timed_end = -1
        elif self._timed_end < 0:
            self._timed_end = end
            self._timed_at = now
        if end > self.nxt:
            self.nxt = end
        if end > self.max:
            self.max = end
        if self.rto_at == NEVER:
            self.rto_at = now + self.rto
        self.probe_at = NEVER
        self.probes = self._probe_backoff = 0

    def wait_for_window(self, now: int) -> None:
        """Starts the persist timer if something waits and no acknowledgement will come that lets it go."""
        if self.probe_at == NEVER and self.rto_at == NEVER and self.nxt < self.write_seq:
            self.probe_at = now + self.rto

    def acceptable_seq(self) -> int:
        """The sequence number for a segment without data: what comes next, but not beyond the window. There the peer
        would not look at it; and what counts as sent may never have left the kernel that it was restored from.
        """
        return min(self.max, self.una + self.wnd)

    # What arrives

    def acknowledge(
        self, ack: int, seq: int, window: int, blocks: tuple[tuple[int, int], ...], empty: bool, now: int
    ) -> None:
        """Takes in an acknowledgement that is not beyond what was sent. ``empty``: its segment has no data."""
        una = self.una
        if ack < una:
            return
        self.probes = 0
        news = bool(blocks) and self._note_sacked(blocks)
        if ack > una:
            self._advance(ack, now)
        elif self.max > una and (news or (not self.use_sack and empty and window == self.wnd)):
            self._duplicate()
        # An older segment must not take back a window (RFC 9293, 3.10.7.4), but one that acknowledges more is newer
        # whatever its sequence number is. Windows do not shrink: of two otherwise equal ones the larger is newer.
        if ack > una or seq > self.wl1 or (seq == self.wl1 and (window > self.wnd or not window)):
            self.wl1 = seq
            self.wnd = window
            if window > self.max_wnd:
                self.max_wnd = window

    def _advance(self, ack: int, now: int) -> None:
        flight = self.nxt - self.una
        acked = ack - self.una
        del self.queue[:acked]
        self.una = ack
        self.bytes_acked += acked
        if self.nxt < ack:
            self.nxt = ack
        if self.sacked:
            self._forget_sacked(ack)
        if 0 <= self._timed_end <= ack:
            self._sample(now - self._timed_at)
            self._timed_end = -1
        self.retries = 0
        self.rto = self._fresh_rto()
        # With nothing in flight it is the window that is waited for, or a piece that will start the timer.
        self.rto_at = NEVER if self.nxt == ack else now + self.rto
        mss = self.mss
        if not self.recovering:
            self.dup_acks = 0
            if 2 * flight >= self.cwnd:
                slow_start = self.cwnd < self.ssthresh
                self.cwnd += min(acked, 2 * mss) if slow_start else max(1, mss * mss // self.cwnd)
        elif ack >= self.recover:
            self.recovering = False
            self.dup_acks = 0
            self.cwnd = min(self.ssthresh, max(self.max - ack, mss) + mss)
        else:
            # A partial acknowledgement: the next hole begins here (RFC 6582).
            self.cwnd = max(self.cwnd - acked, 0) + mss
            self._resend = True

    def _duplicate(self) -> None:
        self.dup_acks += 1
        if self.recovering:
            if self.sacked and self._next_hole(1, peek=True) is not None:
                self._resend = True
            else:
                self.cwnd += self.mss
        elif (self.dup_acks >= 3 or self._sacked_bytes() > 2 * self.mss) and self.una >= self.recover:
            self.recovering = True
            self.recover = self.max
            self.ssthresh = max((self.max - self.una) // 2, 2 * self.mss)
            self.cwnd = self.ssthresh + 3 * self.mss
            self._hole = self.una
            self._resend = True

    # Timers

    def timed_out(self, now: int) -> None:
        """The retransmission timer has expired: everything not acknowledged counts as lost."""
        self.retries += 1
        if self.retries > self.retries_allowed:
            self.failed = True
            return
        if self.retries == 1:
            self.ssthresh = max((self.max - self.una) // 2, 2 * self.mss)
        self.cwnd = self.mss
        self.nxt = self.una
        self.recover = self.max
        self.recovering = self._resend = False
        self.dup_acks = 0
        # The peer may have dropped what it had out of order (RFC 2018, 8).
        self.sacked.clear()
        self._timed_end = -1
        self.rto = min(2 * self.rto, MAX_RTO)
        self.rto_at = NEVER

    def probe(self, size: int, now: int) -> Piece | None:
        """The persist timer has expired: what fits into the window however little it is; None: a bare probe."""
        self.probes += 1
        if self.probes > self.retries_allowed:
            self.failed = True
            return None
        self._probe_backoff += 1
        self.probe_at = now + min(self.rto << min(self._probe_backoff, 20), MAX_RTO)
        at = self.nxt
        room = self.una + self.wnd - at
        count = max(min(self.end - at, size, room), 0)
        fin = at + count == self.fin_at and room > count
        return (at, count, fin) if count > 0 or fin else None

    # Round trip

    def _sample(self, rtt: int) -> None:
        rtt = max(rtt, 1)
        if self.srtt:
            self.rttvar = (3 * self.rttvar + abs(self.srtt - rtt)) // 4
            self.srtt = max(1, (7 * self.srtt + rtt) // 8)
        else:
            self.srtt = rtt
            self.rttvar = rtt // 2

    def _fresh_rto(self) -> int:
        return min(self.srtt + max(4 * self.rttvar, MIN_RTO), MAX_RTO) if self.srtt else FIRST_RTO

    # What the peer has out of order

    def _sacked_bytes(self) -> int:
        return sum(right - left for left, right in self.sacked)

    def _note_sacked(self, blocks: tuple[tuple[int, int], ...]) -> bool:
        """Adds what SACK blocks tell; whether it is more than was known."""
        una, highest = self.una, self.max
        before = self._sacked_bytes()
        for block in blocks:
            left = max(unwrap(block[0], una), una)
            right = unwrap(block[1], una)
            if left >= right or right > highest:
                continue  # a duplicate that is reported (RFC 2883), or nonsense
            apart = []
            for known in self.sacked:
                if known[1] < left or known[0] > right:
                    apart.append(known)
                else:
                    left = min(left, known[0])
                    right = max(right, known[1])
            apart.append([left, right])
            apart.sort()
            self.sacked = apart
        return self._sacked_bytes() > before

    def _forget_sacked(self, una: int) -> None:
        self.sacked = [[max(left, una), right] for left, right in self.sacked if right > una]

    def _skip_sacked(self, at: int) -> tuple[int, int]:
        """The first byte from ``at`` on that the peer lacks, and how many follow until it has some again."""
        for left, right in self.sacked:
            if at < left:
                return at, left - at
            if at < right:
                at = right
        return at, INFINITE

    def _next_hole(self, size: int, peek: bool = False) -> Piece | None:
        """What fast recovery sends next: from the last hole on, below what the peer has; at SND.UNA in any case."""
        at = max(self._hole, self.una)
        gap = size
        if self.sacked:
            at, gap = self._skip_sacked(at)
        if at != self.una and (not self.sacked or at > self.sacked[-1][0]):
            return None
        room = self.una + self.wnd - at
        count = min(self.end - at, size, gap, self.max - at, room)
        fin = at + count == self.fin_at < self.max and room > count
        if count <= 0 and not fin:
            return None
        if not peek:
            self._hole = at + count + fin
        return at, count, fin
