"""The engine's side: a Connection built from the same numbers, in virtual time that stands almost still."""

from chimney.tcp import Config, Connection, Event, State, Tcb, parse_segment
from tests.differential.peer import MIN_RTO_MS, read_packet
from tests.differential.terms import View

# The engine changes its state when the FIN leaves, the kernel when it is queued (docs/differences.md).
_AFTER_SHUTDOWN = {State.ESTABLISHED: State.FIN_WAIT_1, State.CLOSE_WAIT: State.LAST_ACK}
# Each step takes that long, in microseconds: no timer expires within a test, and challenges are not limited.
_STEP = 100_000
_ROUND_TRIP = 10_000_000
_MANY = 1000


class EngineSide:
    """A connection of the engine's. Every verb returns what it has made the engine send at once."""

    name = "engine"

    def __init__(self, setup):
        config = Config(
            remote_mss=setup.mss,
            path_mtu=1500,
            timestamps=setup.timestamps,
            sack=setup.sack,
            window_scaling=bool(setup.snd_wscale or setup.rcv_wscale),
            snd_wscale=setup.snd_wscale,
            rcv_wscale=setup.rcv_wscale,
            initial_rcv_wnd=setup.rcv_wnd,
            nagle=setup.nagle,
            minshall=setup.minshall,
            ecn=setup.ecn,
            min_rto_us=MIN_RTO_MS * 1000,
            ack_frequency=1,
        )
        tcb = Tcb(
            rcv_nxt=setup.irs,
            rcv_wnd=setup.rcv_wnd,
            snd_una=setup.iss,
            snd_nxt=setup.iss,
            snd_max=setup.iss,
            snd_wnd=setup.window,
            max_snd_wnd=setup.window,
            snd_wl1=setup.irs,
            cwnd=10 * setup.mss,
            srtt_us=_ROUND_TRIP,
            rttvar_us=_ROUND_TRIP // 4,
            ts_time=setup.clock,
            ts_recent=setup.peer_clock if setup.knows_clock else 0,
        )
        self._setup = setup
        self.now = 1_000_000
        self.connection = Connection(config, tcb, self.now)
        self.reset = False
        self._is_shut = self._was_shut_first = False
        self.edge = (setup.irs + setup.rcv_wnd) & 0xFFFFFFFF
        self.events = set()
        self._readable = bytearray()
        self._dispatch()

    def arrives(self, segment, ecn=0):
        """A segment comes from the link, with that codepoint."""
        self.now += _STEP
        parsed = parse_segment(memoryview(segment))
        if parsed is not None:
            parsed.ecn = ecn
            self.connection.process(parsed, self.now)
            self._collect()
        return self._dispatch()

    def read(self, limit):
        """The application reads up to `limit` bytes: they, and what is sent."""
        self.now += _STEP
        data = bytes(self._readable[:limit])
        del self._readable[:limit]
        if data:
            self._follow(len(data))
            self.connection.consume(len(data))
        return data, self._dispatch()

    def write(self, data):
        """The application writes."""
        self.now += _STEP
        self.connection.send(memoryview(data))
        return self._dispatch()

    def shutdown(self):
        """The application has nothing more to send."""
        self.now += _STEP
        self._is_shut = True
        self._was_shut_first = not self.connection.fin_received
        self.connection.close()
        return self._dispatch()

    def abort(self):
        """The application wants no more of it (RFC 9293, 3.10.5)."""
        self.now += _STEP
        self.connection.abort(self.now)
        self.reset = True
        return self._dispatch()

    def _follow(self, consumed=0):
        """The window may reach up to `edge`, a sequence number: how much memory there is, is the host's to say.

        consumed: the bytes that are about to be consumed.
        """
        window = self.connection.receiver.window
        distance = (self.edge - window.sequence(0)) & 0xFFFFFFFF
        if distance >= 1 << 31:
            distance -= 1 << 32
        window.size = max(distance - window.nxt + window.undelivered - consumed, 0)
        window.forced = True

    def wait(self):
        """Time passes until a timer of the engine's expires, unless that is the last resort of them."""
        at = self.connection.poll_at()
        if at >= self.now + MIN_RTO_MS * 1000:
            return []
        self.now = max(self.now, at)
        return self._dispatch()

    def tell_window(self):
        """An acknowledgement that nothing calls for."""
        self.connection.set_initial_rcv_wnd(self.connection.receiver.window.size)
        self.connection.ack_policy.at_once()
        return self._dispatch()

    def view(self):
        """What the connection shows."""
        connection = self.connection
        state = State(connection.state)
        if self._is_shut:
            state = _AFTER_SHUTDOWN.get(state, state)
            if self._was_shut_first and state is State.LAST_ACK:
                state = State.CLOSING
        return View(
            state="CLOSED" if state is State.TIME_WAIT else state.name,
            reset=self.reset,
            acked=(connection.snd_una - self._setup.iss) & 0xFFFFFFFF,
            received=(connection.rcv_nxt - self._setup.irs) & 0xFFFFFFFF,
            snd_wnd=connection.snd_wnd,
        )

    def _collect(self):
        for view, _ in self.connection.received:
            self._readable += view
        self.connection.received.clear()
        self.events.update(map(Event, self.connection.events))
        self.connection.events.clear()
        if Event.RESET in self.events:
            self.reset = True

    def _dispatch(self):
        sent = []
        self._follow()
        while (segment := self.connection.dispatch(self.now)) is not None:
            sent.append(_packet(segment))
            assert len(sent) < _MANY, "the engine does not stop sending"
        self._collect()
        return sent


def _packet(segment):
    """As the other side's packets are read: from the bytes on the wire. A train stays in one piece."""
    packet = read_packet(segment.header_bytes() + b"".join(segment.payload_parts), segment.ecn)
    assert len(packet.data) == segment.payload_length
    return packet
