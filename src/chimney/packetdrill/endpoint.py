"""One connection of the host under test: its handshake, its engine, and the buffers of its socket."""

from dataclasses import dataclass
from enum import IntEnum

from chimney.packetdrill import engine_config
from chimney.packetdrill.engine_config import Agreed, SocketOptions
from chimney.packetdrill.errors import Mismatch, Unsupported
from chimney.packetdrill.handshake import Handshake, Progress, following
from chimney.packetdrill.mapping import LOCAL_ISN
from chimney.packetdrill.pattern import pattern
from chimney.packetdrill.send_buffer import SendBuffer, full_buffer, train_length
from chimney.packetdrill.settings import Settings
from chimney.packetdrill.wire import ACK, CWR, FIN, PSH, RST, SYN, Packet, header_bytes, read_header
from chimney.tcp import NEVER, Connection, Event, Segment, State, parse_segment

_MASK = 0xFFFFFFFF
_TIME_WAIT = 60_000_000
ECONNREFUSED = 111
ECONNRESET = 104
EPIPE = 32
ETIMEDOUT = 110


class Phase(IntEnum):
    """Before, with and after the engine."""

    OPENING = 0
    OPEN = 1
    CLOSED = 2


@dataclass(slots=True)
class _Piece:
    """What was written and is held back. push: a write ends with it; record: a record does."""

    data: bytes
    push: bool
    record: bool


class Endpoint:
    """One connection. Packets that leave are appended to `sent`, with the time; the host takes them from there.

    unread: in-order bytes that the application has not read. error: what SO_ERROR reports. activity counts what would
    wake a reader or a writer.
    """

    def __init__(self, settings: Settings, options: SocketOptions, ipv6: bool, iss: int) -> None:
        self.settings = settings
        self.options = options
        self.ipv6 = ipv6
        self.phase = Phase.OPENING
        self.handshake = Handshake(settings, options, ipv6, iss)
        self.connection: Connection | None = None
        self.sent: list[Packet] = []
        self.error = 0
        self.unread = bytearray()
        self.received_count = 0
        self.buffer = SendBuffer(settings, options, 536)
        self.written = 0
        self.fin_received = False
        self.read_shut = False
        self.write_shut = False
        self.orphaned = False
        self.passive = False
        self.activity = 0
        self.path_mtu = engine_config.path_mtu(settings)
        self._held: list[_Piece] = []
        self._release_at = NEVER
        self._starved = False
        self._pushed = 0
        self._abandoned_at = NEVER

    @property
    def agreed(self) -> Agreed:
        """What the handshake has agreed on."""
        return self.handshake.agreed

    # Opening.

    def connect(self, now: int) -> None:
        """Sends a SYN."""
        self.handshake.connect(now)
        self._follow_handshake(now)

    def answer(self, packet: Packet, now: int) -> None:
        """A SYN arrived at a listening socket."""
        self.passive = True
        self.handshake.answer(packet, now)
        self._follow_handshake(now)

    def _follow_handshake(self, now: int) -> None:
        for packet in self.handshake.sent:
            self._emit(packet, now)
        self.handshake.sent.clear()
        progress = self.handshake.progress
        if progress is Progress.DONE:
            self._establish(now)
        elif progress in (Progress.REFUSED, Progress.TIMED_OUT):
            self._fail(ECONNREFUSED if progress is Progress.REFUSED else ETIMEDOUT)

    def _establish(self, now: int) -> None:
        config, state = engine_config.build(self.agreed, self.settings, self.options, self.ipv6, now)
        self.connection = Connection(config, state, now)
        if self.options.quickack is not None:
            self.connection.set_quick_ack(self.options.quickack)
        self.buffer = SendBuffer(self.settings, self.options, self.agreed.peer_mss)
        self.buffer.expand(state.cwnd // self.connection.mss)
        self.phase = Phase.OPEN
        self.activity += 1
        if self.write_shut:
            self.connection.close()
        rest = self.handshake.rest
        if rest is not None and (rest.payload or rest.flags & FIN):
            self._give(rest, now)
        self.flush(now)

    # The engine.

    def receive(self, packet: Packet, now: int) -> None:
        """A packet for this connection arrived."""
        if self.phase is Phase.OPENING:
            self.handshake.receive(packet, now)
            self._follow_handshake(now)
        elif self.phase is Phase.OPEN:
            self._give(packet, now)

    def _give(self, packet: Packet, now: int) -> None:
        connection = self.connection
        assert connection is not None
        segment = parse_segment(memoryview(header_bytes(packet) + packet.payload), packet.segments)
        if segment is None:
            return
        segment.ecn = packet.ecn
        closing = connection.state in (State.FIN_WAIT_1, State.FIN_WAIT_2)
        end_before = connection.rcv_nxt
        acked = connection.snd_una
        connection.process(segment, now)
        self._collect(now)
        if connection.snd_una != acked and self._held and not self.options.cork:
            self._pass_on(now, whole=True)
        if closing and self.read_shut and self.phase is Phase.OPEN and _brings_more(packet, end_before):
            self._refuse(packet, now)
            return
        self.flush(now)
        self._check_space()

    def _refuse(self, packet: Packet, now: int) -> None:
        """As Linux does, a connection that nobody reads from any more is aborted when data comes."""
        self._emit(Packet(RST, packet.ack), now)
        self._fail(0)

    def flush(self, now: int) -> None:
        """Everything that the engine wants to send now leaves."""
        connection = self.connection
        if connection is None:
            return
        while self.phase is Phase.OPEN and (segment := connection.dispatch(now)) is not None:
            for packet in split(segment):
                self._emit(packet, now)
            self._collect(now)
        self._collect(now)
        self._count_sent()
        self._watch_held(now)

    def _watch_held(self, now: int) -> None:
        """What is held back for more to come waits a time-out long, once nothing is under way whose acknowledgement
        could let it go."""
        connection = self.connection
        assert connection is not None
        if not self._held or connection.snd_una != connection.snd_max:
            self._release_at = NEVER
        elif self._release_at == NEVER:
            self._release_at = now + connection.sender.rtt.rto()

    def _emit(self, packet: Packet, now: int) -> None:
        packet.at = now
        self.sent.append(packet)

    def _collect(self, now: int) -> None:
        """Takes what the engine has for its owner."""
        connection = self.connection
        assert connection is not None
        for view, _ in connection.received:
            data = bytes(view)
            if data != pattern(self.received_count, len(data)):
                raise Mismatch(f"byte {self.received_count} of the stream and those after it are not what was sent")
            self.received_count += len(data)
            self.unread += data
            self.activity += 1
        connection.received.clear()
        for event in connection.events:
            self._on_event(event, now)
        connection.events.clear()

    def _on_event(self, event: int, now: int) -> None:
        self.activity += 1
        if event == Event.FIN_RECEIVED:
            self.fin_received = True
        elif event in (Event.RESET, Event.SYN):
            broken_pipe = self.fin_received and not self.write_shut and not self.settings.bsd_errors
            self._fail(EPIPE if broken_pipe else ECONNRESET)
        elif event == Event.TIMEOUT:
            self._fail(ETIMEDOUT)
        elif event == Event.URGENT:
            raise Unsupported("urgent data: the engine gives the connection back to the kernel")
        elif event == Event.TIME_WAIT:
            self._abandoned_at = now + _TIME_WAIT
        elif event == Event.CLOSED:
            self.phase = Phase.CLOSED
        elif event == Event.FIN_ACKED and self.orphaned:
            self._abandon_later(now)

    def _fail(self, error: int) -> None:
        self.phase = Phase.CLOSED
        self.error = error or self.error
        self.activity += 1

    def _abandon_later(self, now: int) -> None:
        """FIN-WAIT-2 of a connection without a socket does not last for ever (tcp_fin_timeout)."""
        if self.state() in (State.FIN_WAIT_1, State.FIN_WAIT_2):
            self._abandoned_at = now + (self.options.linger2_us or self.settings.fin_timeout_us)

    # Time.

    def poll_at(self) -> int:
        """When `run_timers` wants to be called."""
        if self.phase is Phase.CLOSED:
            return NEVER
        if self.connection is None:
            return self.handshake.deadline
        return min(self.connection.poll_at(), self._abandoned_at, self._release_at)

    def run_timers(self, now: int) -> None:
        """Whatever is due."""
        if self.phase is Phase.OPENING and self.handshake.deadline <= now:
            self.handshake.on_timeout(now)
            self._follow_handshake(now)
        if self._abandoned_at <= now:
            self.phase = Phase.CLOSED
        if self._release_at <= now and self.phase is Phase.OPEN:
            self._held[-1].push = True
            self._pass_on(now, whole=True)
        self.flush(now)

    # The application.

    def state(self) -> int:
        """The state, as chimney.tcp.State has it."""
        if self.phase is Phase.CLOSED:
            return int(State.CLOSED)
        if self.connection is None:
            received = self.handshake.progress is Progress.SYN_RECEIVED
            return int(State.SYN_RECEIVED if received else State.SYN_SENT)
        return self.connection.state

    def unacked(self) -> int:
        """Bytes that were written and are not acknowledged."""
        return self.written - (self.connection.acked if self.connection is not None else 0)

    def unsent(self) -> int:
        """Bytes that were written and have not left."""
        return self.written - self._sent_position()

    def _sent_position(self) -> int:
        if self.connection is None:
            return 0
        return min(self.connection.snd_max - following(self.agreed.iss) & _MASK, self.written)

    def _count_sent(self) -> None:
        connection = self.connection
        assert connection is not None
        sender = connection.sender
        slow_start = connection.cwnd < sender.congestion.ssthresh
        train = train_length(self.settings, connection.mss, connection.cwnd, sender.rtt.srtt, slow_start)
        self.buffer.moved(self._sent_position(), connection.acked, train)

    def lowat(self) -> int:
        """TCP_NOTSENT_LOWAT, bytes."""
        return self.options.notsent_lowat or self.settings.notsent_lowat

    def room(self) -> int:
        """How many bytes may be written before the next look at the buffer; 0: none."""
        connection = self.connection
        if connection is None:
            return 0
        if self.buffer.lacks_space and not self.buffer.is_writable(self.lowat()):
            return 0
        self._feed_again()
        return self.buffer.room(full_buffer(connection.mss, connection.sender.max_wnd), self.lowat())

    def is_writable(self) -> bool:
        """Whether poll says so; if not, it will be told."""
        writable = self.buffer.is_writable(self.lowat())
        if not writable:
            self.buffer.lacks_space = True
        return writable

    def _check_space(self) -> None:
        """After an acknowledgement: a buffer that turned a writer away grows with cwnd, and the writer is told."""
        connection = self.connection
        if connection is None or not self.buffer.lacks_space or self.phase is not Phase.OPEN:
            return
        in_flight = connection.snd_max - connection.snd_una & _MASK
        if in_flight < connection.cwnd:
            self.buffer.expand(connection.cwnd // connection.mss)
        if self.buffer.is_writable(self.lowat()):
            self._feed_again()
            self.activity += 1

    def _feed_again(self) -> None:
        if self._starved and self.connection is not None:
            self.connection.set_starved(False)
        self._starved = False
        self.buffer.lacks_space = False

    def starve(self) -> None:
        """A writer finds no room, and waits for it."""
        self.buffer.lacks_space = True
        if self.connection is not None and not self._starved:
            self._starved = True
            self.connection.set_starved(True)

    def write(self, length: int, now: int, *, last: bool = True, more: bool = False, record: bool = False) -> None:
        """The application writes `length` bytes.

        last: the write ends with them. more: another one follows, and what is less than a segment waits for it.
        record: the write ends a record (MSG_EOR): no segment goes on beyond its end.
        """
        data = pattern(self.written, length)
        self.written += length
        self.buffer.appended(length, last and record)
        is_full = self._is_full()
        push = (last and not more) or (is_full and self._is_much())
        if push:
            self._pushed = self.written
        self._held.append(_Piece(data, push, is_full or (last and record)))
        self._pass_on(now, whole=last and not more and not self.options.cork)

    def _is_full(self) -> bool:
        """Whether the buffer that was written to last is full: no train goes on beyond its end, as with Linux."""
        connection = self.connection
        assert connection is not None
        return self.buffer.is_full(full_buffer(connection.mss, connection.sender.max_wnd))

    def _is_much(self) -> bool:
        """As Linux does, a buffer that is full is pushed if half of the peer's largest window was not."""
        assert self.connection is not None
        return self.written - self._pushed > self.connection.sender.max_wnd >> 1

    def uncork(self, now: int) -> None:
        """What was held back leaves."""
        self._pass_on(now, whole=True)

    def _pass_on(self, now: int, *, whole: bool) -> None:
        """Gives to the engine what was held back; without `whole` the full segments only."""
        connection = self.connection
        assert connection is not None
        length = sum(len(piece.data) for piece in self._held)
        if not whole:
            length -= length % connection.mss
        while length > 0:
            piece = self._held.pop(0)
            if len(piece.data) > length:
                self._held.insert(0, _Piece(piece.data[length:], piece.push, piece.record))
                piece = _Piece(piece.data[:length], False, False)
            connection.send(memoryview(piece.data), piece.push, piece.record)
            length -= len(piece.data)
        self.flush(now)

    def read(self, length: int, now: int, *, peek: bool = False) -> int:
        """The application reads up to `length` bytes. Returns how many there were."""
        count = min(length, len(self.unread))
        if not peek and count > 0:
            del self.unread[:count]
            if self.connection is not None and self.phase is Phase.OPEN:
                self.connection.consume(count)
                self.flush(now)
        return count

    def shut_down_writing(self, now: int) -> None:
        """Sends a FIN after what was written."""
        if self.write_shut:
            return
        self.write_shut = True
        if self.connection is not None and self.phase is Phase.OPEN:
            for piece in self._held:
                self.connection.send(memoryview(piece.data), True)
            self._held.clear()
            self.connection.close()
            self.flush(now)

    def close(self, now: int) -> None:
        """The application is done. With unread data, or if lingering is forbidden, the connection is reset."""
        self.orphaned = True
        self.read_shut = True
        if self.phase is Phase.OPENING:
            self.phase = Phase.CLOSED
        elif self.phase is Phase.OPEN and (self.unread or self.options.linger == 0):
            self.abort(now)
        elif self.phase is Phase.OPEN:
            self.shut_down_writing(now)
            if self.state() == State.FIN_WAIT_2:
                self._abandon_later(now)

    def abort(self, now: int) -> None:
        """Sends a reset, if the state has one."""
        if self.connection is not None and self.phase is Phase.OPEN:
            self.connection.abort(now)
            self.flush(now)
            self._fail(0)


def _brings_more(packet: Packet, end_before: int) -> bool:
    """Whether a packet has data after `end_before`, and not far from it."""
    beyond = packet.seq + len(packet.payload) - end_before & _MASK
    return len(packet.payload) > 0 and 0 < beyond < 1 << 30


def reset_for(packet: Packet) -> Packet | None:
    """The reset that answers a segment of an unknown connection (RFC 9293, 3.10.7.1).

    Its sequence number 0 is one that the script must see as 0, too.
    """
    if packet.flags & RST:
        return None
    if packet.flags & ACK:
        return Packet(RST, packet.ack)
    length = len(packet.payload) + (packet.flags & SYN != 0) + (packet.flags & FIN != 0)
    return Packet(RST | ACK, LOCAL_ISN, packet.seq + length & _MASK)


def split(segment: Segment) -> list[Packet]:
    """The wire packets of a segment, or train of segments, of the engine."""
    head = read_header(segment.header_bytes())
    data = b"".join(bytes(part) for part in segment.payload_parts)
    size = segment.mss if segment.segments > 1 and segment.mss > 0 else max(len(data), 1)
    packets: list[Packet] = []
    for start in range(0, max(len(data), 1), size):
        is_last = start + size >= len(data)
        flags = head.flags if is_last else head.flags & ~(FIN | PSH)
        if start > 0:
            flags &= ~CWR
        payload = data[start : start + size]
        seq = head.seq + start & _MASK
        packets.append(Packet(flags, seq, head.ack, head.window, head.urgent, head.options, payload, segment.ecn))
    return packets
