"""What is true of one connection, whatever its peer sends: checked on every segment that leaves, and after every step.

Positions are offsets that do not wrap: 0 is SND.UNA, or RCV.NXT, as it was handed over first.
"""

from chimney.tcp import ACK, CWR, ECE, FIN, NEVER, PSH, RST, Config, Connection, Event, Segment, State
from fuzz.streams import Ranges, ours, theirs
from fuzz.work import kept

HALF = 1 << 31
MOST_SEGMENTS = 3000
"""That leave at one moment."""
MOST_ELEMENTS = 5_000
"""In the lists of a connection, its send queue and what the owner has not fetched left out."""
LATEST = 6 * 3_600_000_000
"""No timer waits longer than this, in microseconds."""
OUTDATED = 24 * 86_400_000_000
"""By then a clock of milliseconds has gone half the way round."""
OVER = (State.CLOSED, State.TIME_WAIT)
THE_OWNERS = frozenset({"queue", "received", "events", "config"})


def near(number: int, base: int, position: int) -> int:
    """The position of a sequence number, given that position 0 is at `base`, and that it is near `position`."""
    return position + (number - base - position + HALF) % (2 * HALF) - HALF


class Judge:
    """Looks at a connection from outside. What the peer really sent is told to `heard`."""

    def __init__(self, config: Config, conn: Connection, iss: int, irs: int, edge: int, peer_edge: int) -> None:
        self.config = config
        self.conn = conn
        self.iss, self.irs = iss, irs
        self.scale = min(config.rcv_wscale, 14) if config.window_scaling else 0
        self.peer_scale = min(config.snd_wscale, 14) if config.window_scaling else 0
        self.edge = edge
        self.una = self.rcv_nxt = 0
        self.max = self.first_max = near(conn.snd_max, iss, 0)
        self.ts_val: int | None = None
        self.ts_at = 0
        self.fin_before = conn.fin_received
        """The peer's FIN, or ours, stands before position 0."""
        self.fin_acked_before = conn.fin_acked
        self.queued = 0
        """Bytes that our application has sent, acknowledged or not."""
        self.closed = self.aborted = False
        self.received = 0
        self.unread = 0
        self.fin_received = False
        self.events: list[int] = []
        self.arrived = Ranges()
        self.lies = Ranges()
        self.fins: set[int] = set()
        self.peer_edge = peer_edge
        self.peer_ack = 0
        self.excuses: set[int] = set()
        """Events that the peer, or its silence, has given cause for."""

    # What the peer sends.

    def heard(self, start: int, ack: int, length: int, flags: int, window: int, lie: bool) -> None:
        """The peer sends a segment at `start` now."""
        self.arrived.add(start, start + length)
        if lie:
            self.lies.add(start, start + length)
        if flags & FIN:
            self.fins.add(start + length)
        if ack <= self.max:
            self.peer_ack = max(self.peer_ack, ack)
            self.peer_edge = max(self.peer_edge, ack + (window << self.peer_scale))

    # What the engine does.

    def collect(self, read: bool) -> None:
        """The application takes what has arrived, and looks at it."""
        conn = self.conn
        for view, _ in conn.received:
            self.see(bytes(view))
        conn.received.clear()
        for event in conn.events:
            self.note(Event(event))
        conn.events.clear()
        if read and self.unread:
            conn.consume(self.unread)
            self.unread = 0

    def see(self, data: bytes) -> None:
        """Every byte is one that the peer has sent at its place, and true unless the peer has lied about it."""
        start, end = self.received, self.received + len(data)
        assert data, "an empty delivery"
        assert self.arrived.covers(start, end), f"[{start}, {end}) was never sent"
        truth = theirs(start, len(data))
        if data != truth:
            lie = theirs(start, len(data), wrong=True)
            for at in [n for n in range(len(data)) if data[n] != truth[n]]:
                assert self.lies.covers(start + at, start + at + 1), f"a wrong byte at {start + at}"
                assert data[at] == lie[at], f"an invented byte at {start + at}"
        self.received = end
        self.unread += len(data)

    def note(self, event: Event) -> None:
        """Events come once, in an order that makes sense, and with a cause."""
        assert event not in self.events or event == Event.URGENT, f"{event.name} comes twice"
        self.events.append(event)
        if event == Event.FIN_RECEIVED:
            assert self.received in self.fins, f"no FIN was sent at {self.received}"
            self.fin_received = True
        elif event == Event.FIN_ACKED:
            assert self.closed and self.peer_ack > self.queued, "our FIN is not acknowledged"
        elif event in (Event.RESET, Event.SYN, Event.URGENT, Event.TIMEOUT):
            assert event in self.excuses, f"{event.name} without cause"
        elif event == Event.TIME_WAIT:
            assert self.peer_is_done() and self.we_are_done()
        elif event == Event.CLOSED:
            assert self.peer_is_done() and self.we_are_done()

    def peer_is_done(self) -> bool:
        """Whether the peer's FIN has come in sequence."""
        return self.fin_received or self.fin_before

    def we_are_done(self) -> bool:
        """Whether the peer has acknowledged our FIN."""
        return self.fin_acked_before or (self.closed and self.peer_ack > self.queued)

    def is_over(self) -> bool:
        """Whether the engine has done with it."""
        return self.conn.stopped or self.conn.state in OVER

    def leaves(self, segment: Segment, now: int) -> tuple[int, int]:
        """Looks at a segment that is sent; returns the positions that it takes of our stream."""
        assert not segment.flags & ~(ACK | PSH | FIN | RST | ECE | CWR), segment
        assert segment.header_length() <= 60 and 0 <= segment.window <= 0xFFFF
        start = near(segment.seq, self.iss, self.una)
        data = b"".join(segment.payload_parts)
        end = start + len(data)
        if segment.flags & RST:
            assert self.aborted and not data
            return start, start
        self._check_acknowledgement(segment)
        self._check_timestamp(segment, now)
        self._check_congestion_marks(segment, bool(data))
        fin = segment.flags & FIN
        if data:
            assert data == ours(start, len(data)), f"a wrong byte is sent: {segment}"
            assert 0 <= start and end <= self.queued, f"bytes that nobody gave: {segment}"
            self._check_size(segment, len(data))
        if fin:
            assert self.closed and end == self.queued, f"a FIN in the wrong place: {segment}"
        if data or fin:
            self.max = max(self.max, end + fin)
            is_probe = start == near(self.conn.snd_una, self.iss, self.una) and len(data) + fin == 1
            assert end + fin <= self.peer_edge or is_probe, f"beyond the edge {self.peer_edge}: {segment}"
        else:
            assert start <= self.max
        return start, end + fin

    def _check_size(self, segment: Segment, length: int) -> None:
        assert length == segment.payload_length <= max(self.config.max_burst_segment, segment.mss)
        assert 0 < segment.mss and segment.segments == -(-length // segment.mss)

    def _check_acknowledgement(self, segment: Segment) -> None:
        """Nothing is acknowledged that has not arrived; nothing goes back (RFC 9293, 3.8.6; RFC 2018, 3)."""
        assert segment.flags & ACK
        ack = near(segment.ack, self.irs, self.rcv_nxt)
        assert ack >= self.rcv_nxt, f"the acknowledgement goes back to {ack}: {segment}"
        self.rcv_nxt = ack
        reach = self.arrived.reach(0)
        assert ack <= reach + (reach in self.fins), f"{ack} is acknowledged, {reach} has arrived"
        edge = ack + (segment.window << self.scale)
        # Rounding to the scale may take less than a unit off (RFC 7323, 2.4); what was offered before still counts.
        assert edge > self.edge - (1 << self.scale), f"the right edge goes back from {self.edge} to {edge}"
        self.edge = max(self.edge, edge)
        assert len(segment.sack_blocks) <= (3 if segment.has_timestamp else 4)
        for left, right in segment.sack_blocks:
            first, last = near(left, self.irs, ack), near(right, self.irs, ack)
            assert first < last and self.arrived.covers(first, last), f"never arrived: {segment}"

    def _check_timestamp(self, segment: Segment, now: int) -> None:
        assert segment.has_timestamp == self.config.timestamps
        if segment.has_timestamp:
            if self.ts_val is not None and now - self.ts_at < OUTDATED:
                assert (segment.ts_val - self.ts_val) % (2 * HALF) < HALF, "our timestamp goes back"
            self.ts_val, self.ts_at = segment.ts_val, now

    def _check_congestion_marks(self, segment: Segment, data: bool) -> None:
        """RFC 3168, 6.1.4 to 6.1.6: only new data is ECN-capable; nothing is said where it was not negotiated."""
        assert segment.ecn in (0, 2)
        if not self.config.ecn:
            assert not segment.ecn and not segment.flags & (ECE | CWR)
        assert not segment.ecn or (data and not segment.is_retransmission)

    def drained(self, now: int) -> None:
        """What holds when the engine has nothing more to send now."""
        conn = self.conn
        at = conn.poll_at()
        assert at > now, "it wants to be called again at once, for nothing"
        una, nxt = near(conn.snd_una, self.iss, self.una), near(conn.rcv_nxt, self.irs, self.rcv_nxt)
        assert una >= self.una, "SND.UNA goes back"
        assert una <= max(self.peer_ack, 0), f"{una} counts as acknowledged, the peer said {self.peer_ack}"
        self.una = una
        assert nxt == self.received + self.fin_received
        assert 0 <= una <= near(conn.snd_max, self.iss, una) <= self.max
        assert conn.cwnd >= 1 and conn.mss >= 1
        if not self.is_over():
            assert at == NEVER or at <= now + LATEST, "a timer waits for ever"
            if una < self.queued + (self.closed and not self.fin_acked_before):
                assert at < NEVER, "something is to be sent, and no timer runs"

    def bounded(self) -> None:
        """What it keeps is limited."""
        elements, size = kept(self.conn, THE_OWNERS)
        assert elements <= MOST_ELEMENTS, f"{elements} elements are kept"
        assert size <= max(self.edge - self.rcv_nxt, 0) + 1, f"{size} bytes are kept"
