"""Two ends of a connection, models of a TCP or engines, joined by a pipe with bad manners, in virtual time."""

import dataclasses
import heapq
import random

from chimney.sim.model import ACK, FIN, NEVER, PSH, RST, SYN, ModelTcp, Segment, Settings, build, offered, parse
from chimney.sim.model.segment import MASK, unwrap
from chimney.tcp import Config, Connection, Event, State, Tcb, parse_segment

START = 1_000_000_000
WRAP = 1 << 32


@dataclasses.dataclass
class Manners:
    """What the pipe does to each segment. Times in microseconds; ``until``: it behaves from then on.

    silence  nothing gets through for so long, a millisecond after the start.
    merge    segments that arrive together are merged, as GRO does.
    garbage  probability that a segment that belongs to nobody arrives behind one.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: int = 200
    late: int = 20_000
    silence: int = 0
    merge: bool = False
    garbage: float = 0.0
    # Long before TIME_WAIT ends: who has not heard our last acknowledgement by then is reset.
    until: int = START + 20_000_000


@dataclasses.dataclass
class Habits:
    """What an application does. Reads and writes happen every so many microseconds; it closes when all is written.

    asleep    it does not read before this time has passed since the start.
    patient   it closes its half only when the peer has closed its own.
    """

    size: int = 50_000
    write: int = 8192
    write_every: int = 0
    read: int = 65536
    read_every: int = 0
    asleep: int = 0
    patient: bool = False


USUAL = Habits()


class ModelEnd:
    """A ModelTcp on the pipe."""

    probes_with_data = False

    def __init__(self, settings):
        self.tcp = ModelTcp(settings, START)
        self.settings = settings

    def output(self, now):
        return [build(segment, self.settings.local_port, self.settings.remote_port) for segment in self.tcp.output(now)]

    def arrives(self, data, now):
        self.tcp.arrives(parse(data), now)

    def poll_at(self):
        return self.tcp.poll_at()

    def write(self, data, now):
        return self.tcp.send(data, now)

    def read(self, size, now):
        """Bytes; b"" at the end, None if there is nothing now."""
        buffer = bytearray(size)
        count = self.tcp.receive_into(memoryview(buffer), now)
        return None if count < 0 else bytes(buffer[:count])

    def shutdown(self, now):
        self.tcp.shutdown(now)

    @property
    def readable(self):
        return self.tcp.readable

    @property
    def writable(self):
        return self.tcp.writable

    @property
    def state(self):
        return self.tcp.state.name

    def hand_over(self, now, chance):
        """The kernel's memory is all that is left of it."""
        tcp = self.tcp
        if tcp.poll_at() == 0:
            return False
        snapshot = tcp.snapshot(now)
        snapshot.ts_recent = -1
        if chance.random() < 0.5:
            snapshot.snd_nxt = snapshot.write_seq
        if chance.random() < 0.5:
            snapshot.srtt_us = snapshot.rttvar_us = 0
        if chance.random() < 0.5:
            snapshot.rcv_wnd -= (snapshot.rcv_nxt - snapshot.rcv_wup) & MASK
            snapshot.rcv_wup = snapshot.rcv_nxt
        self.tcp = ModelTcp.restored(self.settings, snapshot, now)
        return True


class EngineEnd:
    """The real engine on the pipe, with an application that posts and consumes as a target would."""

    probes_with_data = True

    def __init__(self, settings):
        self.settings = settings
        scaled = settings.scale >= 0
        self.conn = Connection(
            Config(
                remote_mss=settings.mss,
                path_mtu=settings.mtu,
                ipv6=settings.ipv6,
                timestamps=settings.timestamps,
                sack=settings.sack,
                window_scaling=scaled,
                snd_wscale=max(settings.scale, 0),
                rcv_wscale=max(settings.scale, 0),
                initial_rcv_wnd=offered(settings.receive_buffer),
                nagle=not settings.nodelay,
                fin_wait_2_us=0,
            ),
            Tcb(
                snd_una=settings.iss,
                snd_nxt=settings.iss,
                snd_max=settings.iss,
                rcv_nxt=settings.irs,
                snd_wl1=settings.irs,
                rcv_wnd=offered(settings.receive_buffer),
                snd_wnd=settings.send_window,
                max_snd_wnd=settings.send_window,
                ts_time=(START // 1000 + settings.ts_offset) & MASK,
            ),
            START,
        )
        self.unread = bytearray()
        self.written = 0
        self.ended = False

    def output(self, now):
        made = []
        while (segment := self.conn.dispatch(now)) is not None:
            made += self._wire_segments(segment)
        self._collect()
        return made

    def _wire_segments(self, segment):
        """A super-segment is cut as the link would cut it."""
        ports = self.settings.local_port, self.settings.remote_port
        data = b"".join(map(bytes, segment.payload_parts))
        if segment.segments <= 1:
            return [segment.header_bytes(*ports) + data]
        header = bytearray(segment.header_bytes(*ports))
        pieces = []
        for start in range(0, len(data), segment.mss):
            last = start + segment.mss >= len(data)
            header[4:8] = ((segment.seq + start) & MASK).to_bytes(4, "big")
            header[13] = segment.flags if last else segment.flags & ~(FIN | PSH)
            pieces.append(bytes(header) + data[start : start + segment.mss])
        return pieces

    def arrives(self, data, now):
        self.conn.process(parse_segment(memoryview(bytearray(data))), now)
        self._collect()

    def _collect(self):
        for view, _ in self.conn.received:
            self.unread += view
        self.conn.received.clear()
        self.ended |= Event.FIN_RECEIVED in self.conn.events
        self.conn.events.clear()

    def poll_at(self):
        return self.conn.poll_at()

    def write(self, data, now):
        room = self.settings.send_buffer - (self.written - self.conn.acked)
        count = min(room, len(data))
        if count > 0:
            self.conn.send(memoryview(bytes(data[:count])), True)
            self.written += count
        return max(count, 0)

    def read(self, size, now):
        if not self.unread:
            return b"" if self.ended else None
        data = bytes(self.unread[:size])
        del self.unread[:size]
        self.conn.consume(len(data))
        return data

    def shutdown(self, now):
        self.conn.close()

    @property
    def readable(self):
        return bool(self.unread) or self.ended

    @property
    def writable(self):
        return self.settings.send_buffer > self.written - self.conn.acked

    @property
    def state(self):
        state = State(self.conn.state)
        return "CLOSE" if state == State.CLOSED else state.name.replace("WAIT_", "WAIT")

    def hand_over(self, now, chance):
        return False


class Side:
    """An end, its application, and what everything it sends must keep to."""

    def __init__(self, name, end, habits, seed):
        self.name, self.end, self.habits = name, end, habits
        self.outgoing = random.Random(seed).randbytes(habits.size)
        self.written = 0
        self.received = bytearray()
        self.ended = self.shut = False
        self.write_at, self.read_at = START, START + habits.asleep
        settings = end.settings
        self.iss, self.irs = settings.iss + WRAP, settings.irs + WRAP
        self.ack = self.irs
        self.edge = self.irs + offered(settings.receive_buffer)
        self.ts_val = None
        self.peer = None
        self.gone = False
        self.error = None

    def act(self, now):
        """The application's turn."""
        if self.gone:
            return
        try:
            self._act(now)
        except OSError as error:
            self.error, self.gone = error, True
            self.end.tcp.close(now)

    def _act(self, now):
        habits, end = self.habits, self.end
        if now >= self.read_at and end.readable and not self.ended:
            self.read_at = now + habits.read_every
            while (data := end.read(habits.read, now)) is not None:
                self.received += data
                if not data:
                    self.ended = True
                if habits.read_every or not data:
                    break
        if now >= self.write_at and self.written < len(self.outgoing) and end.writable:
            self.write_at = now + habits.write_every
            self.written += end.write(self.outgoing[self.written : self.written + habits.write], now)
        if self._may_shut():
            self.shut = True
            end.shutdown(now)

    def act_at(self):
        if self.gone:
            return NEVER
        at = NEVER
        if self.end.readable and not self.ended:
            at = self.read_at
        if self.written < len(self.outgoing) and self.end.writable:
            at = min(at, self.write_at)
        return START if self._may_shut() else at

    def _may_shut(self):
        written = self.written == len(self.outgoing)
        return written and not self.shut and (self.ended or not self.habits.patient)

    def check(self, data):
        """One segment that it sends: never less than before, nothing beyond the peer's window, only its stream."""
        segment = parse(data)
        settings = self.end.settings
        if segment.flags & RST:
            # An old segment came to a connection that has ended well: nobody is harmed.
            assert self.end.state == "CLOSE" and self.peer.end.state in ("TIME_WAIT", "CLOSE")
            return
        assert segment.flags & ACK and not segment.flags & ~(ACK | PSH | FIN)
        assert len(data) + (40 if settings.ipv6 else 20) <= settings.mtu
        assert len(data) - 20 <= settings.mss
        ack = unwrap(segment.ack, self.ack)
        assert ack >= self.ack
        unit = 1 << max(settings.scale, 0)
        edge = ack + segment.window * unit
        # The engine may lose less than a unit by rounding (RFC 7323, 2.4).
        assert edge >= self.edge - (unit - 1 if isinstance(self.end, EngineEnd) else 0)
        self.ack, self.edge = ack, max(self.edge, edge)
        assert (segment.ts_val >= 0) == settings.timestamps
        if settings.timestamps:
            assert self.ts_val is None or (segment.ts_val - self.ts_val) & MASK < 1 << 31
            self.ts_val = segment.ts_val
        start = unwrap(segment.seq, self.iss) - self.iss
        end = start + len(segment.payload)
        assert segment.payload == self.outgoing[start:end] if segment.payload else start >= -1
        if segment.flags & FIN:
            assert end == len(self.outgoing) and self.shut
        assert not segment.payload or end <= self.written
        # A window probe may be a byte beyond the window.
        assert self.iss + start + segment.length <= self.peer.edge + self.end.probes_with_data
        for left, right in segment.sack:
            assert 0 < (right - left) & MASK < 1 << 30
        if not settings.sack:
            assert not segment.sack


class Pipe:
    """Two sides. `run` lets time go on until both streams have arrived and both sides have ended."""

    def __init__(self, a, b, manners, seed):
        self.a, self.b = a, b
        a.peer, b.peer = b, a
        self.manners = manners
        self.chance = random.Random(seed)
        self.now = START
        self.wire = []
        self.order = 0
        self.segments = 0
        self.hand_overs = 0
        self.every = self.next_hand_over = 0
        self.hook = lambda: None
        self.aborted = False

    def flush(self, side, other):
        for data in side.end.output(self.now):
            if not self.aborted:
                side.check(data)
            self.segments += 1
            self.transmit(other, data)

    def transmit(self, other, data):
        manners, chance = self.manners, self.chance
        bad = self.now < manners.until
        for _ in range(1 + (bad and chance.random() < manners.duplicate)):
            if bad and (chance.random() < manners.loss or 1000 <= self.now - START < 1000 + manners.silence):
                continue
            at = self.now + manners.delay
            if bad and chance.random() < manners.reorder:
                at += chance.randrange(1, manners.late)
            self.order += 1
            heapq.heappush(self.wire, (at, self.order, other, data))

    def step(self):
        """One event; False if nothing will happen any more."""
        sides = ((self.a, self.b), (self.b, self.a))
        at = min(self.wire[0][0] if self.wire else NEVER, *(min(s.end.poll_at(), s.act_at()) for s, _ in sides))
        if at >= NEVER:
            return False
        self.now = max(self.now, at)
        if self.wire and self.wire[0][0] <= self.now:
            _, _, side, data = heapq.heappop(self.wire)
            while self.manners.merge and self.wire and self.wire[0][0] <= self.now and self.wire[0][2] is side:
                merged = merge(data, self.wire[0][3])
                if merged is None:
                    break
                data = merged
                heapq.heappop(self.wire)
            side.end.arrives(data, self.now)
            if self.now < self.manners.until and self.chance.random() < self.manners.garbage:
                side.end.arrives(garbage(side, self.chance), self.now)
        self.hook()
        for side, other in sides:
            side.act(self.now)
            self.flush(side, other)
            if self.every and self.segments >= self.next_hand_over and side.end.hand_over(self.now, self.chance):
                self.hand_overs += 1
                self.next_hand_over = self.segments + self.every
        return True

    def over(self):
        return all(s.ended and s.shut and s.end.state in ("CLOSE", "TIME_WAIT") for s in (self.a, self.b))

    def run(self, steps=200_000):
        for _ in range(steps):
            if self.over():
                break
            assert self.step(), f"stuck: {self.a.end.state} {self.b.end.state}"
        assert self.a.error is self.b.error is None
        assert self.over(), f"no end: {self.a.end.state} {self.b.end.state} at {(self.now - START) / 1e6} s"
        assert self.b.received == self.a.outgoing
        assert self.a.received == self.b.outgoing


def merge(data, following):
    """One segment out of two, if nobody would notice."""
    first, second = parse(data), parse(following)
    if (
        first.payload
        and second.payload
        and (first.seq + len(first.payload)) & MASK == second.seq
        and not first.flags & (FIN | PSH)
        and (first.ack, first.window, first.ts_val, first.ts_ecr, first.sack)
        == (second.ack, second.window, second.ts_val, second.ts_ecr, second.sack)
        and len(first.payload) + len(second.payload) < 60_000
    ):
        first.flags = second.flags
        first.payload += second.payload
        return build(first, *ports(data))
    return None


def ports(data):
    return int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")


def garbage(side, chance):
    """A segment towards ``side`` that nobody sent and that must do no harm."""
    peer, settings = side.peer, side.end.settings
    segment = Segment(side.ack & MASK, peer.ack & MASK, ACK, 0)
    if settings.timestamps:
        segment.ts_val, segment.ts_ecr = peer.ts_val or 0, 0
    kind = chance.randrange(7)
    far = chance.randrange(1, 1 << 30)
    if kind == 0:
        # Never at RCV.NXT, often in the window.
        segment.flags, segment.seq = RST, (peer.iss + len(peer.outgoing) + 2 + far % 50_000) & MASK
    elif kind == 1:
        segment.flags, segment.seq = RST, (side.ack - far) & MASK
    elif kind == 2:
        # Not at RCV.NXT: there, the engine ends the connection, as its documents demand.
        segment.flags, segment.seq = SYN | ACK, (side.ack + 1 + far) & MASK
    elif kind == 3:
        segment.seq, segment.payload = (peer.iss - 100) & MASK, b"old data" * 10
    elif kind == 4:
        segment.seq, segment.payload = (side.edge + far) & MASK, b"beyond"
    elif kind == 5:
        segment.ack, segment.payload = (side.iss + len(side.outgoing) + 2 + far) & MASK, b"from the future"
    else:
        segment.ack, segment.payload = (side.iss - 70_000_000) & MASK, b"from the past"
    return build(segment, settings.remote_port, settings.local_port)


def pipe(
    habits=(USUAL, USUAL),
    ends=(ModelEnd, ModelEnd),
    manners=None,
    seed=1,
    iss=(0xFFFFF000, 0x7FFFF000),
    buffers=(65536, 65536),
    send_buffers=(65536, 65536),
    nodelay=(True, True),
    **settings,
):
    """A Pipe between two ends with the same options; pairs are those of a and b."""
    made = []
    for side in (0, 1):
        end = ends[side](
            Settings(
                local_port=(40000, 80)[side],
                remote_port=(80, 40000)[side],
                iss=iss[side],
                irs=iss[1 - side],
                send_window=offered(buffers[1 - side]),
                receive_buffer=buffers[side],
                send_buffer=send_buffers[side],
                nodelay=nodelay[side],
                ts_offset=(0xFFFFFF00, 7)[side],
                **settings,
            )
        )
        made.append(Side("ab"[side], end, habits[side], seed + side))
    return Pipe(*made, manners or Manners(), seed)


__all__ = ["START", "EngineEnd", "Habits", "Manners", "ModelEnd", "Pipe", "Side", "pipe"]
