"""Two ways to drive an engine: `Peer` plays segments by hand, `Pair` joins two engines by a pipe in virtual time."""

import dataclasses
import heapq
import random

from chimney.tcp import ACK, CWR, ECE, FIN, NEVER, PSH, RST, Config, Connection, Segment, State, Tcb, parse_segment
from chimney.tcp.segment import CE, NOT_ECT

MASK = 0xFFFFFFFF
MSS = 1448


class Peer:
    """One engine under test and the peer's side of the conversation, in offsets from 0 instead of sequence numbers.

    The engine's sequence numbers begin at `iss`, the peer's at `irs`: 0 in the arguments and in `sent` means these.
    """

    def __init__(self, config=None, now=0, iss=1000, irs=5000, **tcb):
        self.iss, self.irs = iss, irs
        self.config = config or Config(timestamps=False)
        tcb.setdefault("srtt_us", 10_000)
        tcb.setdefault("rttvar_us", 1_000)
        for name in ("snd_una", "snd_nxt", "snd_max"):
            tcb[name] = (tcb.get(name, 0) + iss) & MASK
        for name in ("rcv_nxt", "snd_wl1"):
            tcb[name] = (tcb.get(name, 0) + irs) & MASK
        tcb.setdefault("rcv_wnd", self.config.initial_rcv_wnd)
        self.now = now
        self.conn = Connection(self.config, Tcb(**tcb), now)

    def segment(self, seq=0, ack=0, data=b"", flags=ACK, window=65535, segments=1, ts=None, sack=()):
        """What the peer sends: built, put on the wire, and parsed."""
        out = Segment()
        out.seq = (seq + self.irs) & MASK
        out.ack = (ack + self.iss) & MASK
        out.flags = flags
        out.window = window
        if ts is not None:
            out.has_timestamp = True
            out.ts_val, out.ts_ecr = ts
        out.sack_blocks = [((a + self.iss) & MASK, (b + self.iss) & MASK) for a, b in sack]
        return parse_segment(memoryview(out.header_bytes() + bytes(data)), segments)

    def give(self, *args, **kwargs):
        """The engine receives a segment."""
        self.conn.process(self.segment(*args, **kwargs), self.now)

    def take(self):
        """All that the engine sends now, as Sent."""
        sent = []
        while (segment := self.conn.dispatch(self.now)) is not None:
            sent.append(Sent(segment, self.iss, self.irs))
            assert len(sent) < 10_000
        return sent

    def wait(self, until=None):
        """Time goes on to the engine's next deadline, or by `until` microseconds; returns what it sends then.

        What it wants to send before that is returned instead.
        """
        if sent := self.take():
            return sent
        self.now = self.conn.poll_at() if until is None else self.now + until
        assert self.now < NEVER
        return self.take()

    def read(self):
        """The in-order data since the last call."""
        data = b"".join(bytes(view) for view, _ in self.conn.received)
        self.conn.received.clear()
        return data


class Sent:
    """A segment that the engine sent, in offsets."""

    def __init__(self, segment, iss, irs):
        self.seq = (segment.seq - iss + 2**31) % 2**32 - 2**31
        self.ack = (segment.ack - irs + 2**31) % 2**32 - 2**31
        self.length = segment.payload_length
        self.data = b"".join(segment.payload_parts)
        self.fin = bool(segment.flags & FIN)
        self.psh = bool(segment.flags & PSH)
        self.rst = bool(segment.flags & RST)
        self.cwr = bool(segment.flags & CWR)
        self.window = segment.window
        self.segments = segment.segments
        self.ts = (segment.ts_val, segment.ts_ecr) if segment.has_timestamp else None
        self.sack = [((a - irs) % 2**32, (b - irs) % 2**32) for a, b in segment.sack_blocks]
        assert len(self.data) == self.length

    def __repr__(self):
        marks = "".join(m for m, on in (("F", self.fin), ("P", self.psh), ("R", self.rst)) if on)
        return f"<{self.seq}+{self.length}{marks} ack={self.ack} win={self.window} sack={self.sack}>"


@dataclasses.dataclass
class Impairments:
    """What the pipe does to each wire segment, in both directions. Times in microseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: int = 5_000
    jitter: int = 0
    extra: int = 20_000
    mark: float = 0.0
    """How many of the ECN-capable segments a router marks."""
    merge: bool = False
    """Segments that arrive together are merged, as GRO does it."""


class End:
    """One side of a Pair: the engine, what its application sends and has received, and the invariants."""

    def __init__(self, name, config, tcb, now, outgoing):
        self.name, self.config, self.outgoing = name, config, outgoing
        self.offset = 0
        self.conn = Connection(config, tcb, now)
        self.iss, self.irs = tcb.snd_una, tcb.rcv_nxt
        self.chain_start = 0
        self.received = bytearray()
        self.unread = 0
        self.reading = True
        self.close_wanted = False
        self.closed = False
        self.events = []
        self.edge = tcb.rcv_wnd
        self.una = 0
        self.rcv_nxt = 0
        self.ts_val = tcb.ts_time

    def feed(self, limit=1 << 30):
        """Gives the application's bytes to the engine, in pieces of odd sizes; closes at their end if wanted."""
        while self.offset < len(self.outgoing) and self.offset - self.chain_start - self.conn.acked < limit:
            size = 1 + (self.offset * 7919 + 977) % 20_000
            self.conn.send(memoryview(self.outgoing)[self.offset : self.offset + size], True)
            self.offset = min(self.offset + size, len(self.outgoing))
        if self.close_wanted and not self.closed and self.offset == len(self.outgoing):
            self.conn.close()
            self.closed = True

    def collect(self):
        """The application takes what has arrived, and looks at the events."""
        for view, _ in self.conn.received:
            self.received += view
            self.unread += len(view)
        self.conn.received.clear()
        self.events += self.conn.events
        self.conn.events.clear()
        if self.reading and self.unread:
            self.conn.consume(self.unread)
            self.unread = 0

    def check(self, segment):
        """SND.UNA, RCV.NXT, the right edge and TSval never go back; nothing is sent outside the stream."""
        assert not segment.flags & ~(ACK | PSH | FIN | (ECE | CWR if self.config.ecn else 0))
        ack = (segment.ack - self.irs) % 2**32
        assert ack >= self.rcv_nxt
        self.rcv_nxt = ack
        scale = self.config.rcv_wscale if self.config.window_scaling else 0
        edge = ack + (segment.window << scale)
        # Rounding to the scale may take less than a unit off (RFC 7323, 2.4); what was offered before still counts.
        assert edge > self.edge - (1 << scale)
        self.edge = max(self.edge, edge)
        una = (self.conn.snd_una - self.iss) % 2**32
        assert una >= self.una
        self.una = una
        if segment.has_timestamp:
            assert (segment.ts_val - self.ts_val) % 2**32 < 2**31
            self.ts_val = segment.ts_val
        start = (segment.seq - self.iss + 2**31) % 2**32 - 2**31
        data = b"".join(segment.payload_parts)
        if data:
            assert data == self.outgoing[start : start + len(data)]
            assert len(data) == segment.payload_length
            assert segment.segments == -(-len(data) // segment.mss)
        if segment.flags & FIN:
            assert start + len(data) == len(self.outgoing)

    def hand_over(self, now):
        """The engine is replaced by a new one, by export and the chain of unacknowledged bytes."""
        self.collect()
        owed = self.conn.flush_ack(now)
        tcb = self.conn.export(now)
        acked = self.chain_start + self.conn.acked
        if tcb.state in (State.CLOSED, State.TIME_WAIT):
            return owed
        self.conn = Connection(self.config, tcb, now)
        self.chain_start = self.offset = acked
        if self.closed and tcb.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            self.closed = False
        if tcb.state == State.FIN_WAIT_2:
            assert acked == len(self.outgoing)
        self.feed()
        return owed

    def finished(self):
        return self.conn.state in (State.CLOSED, State.TIME_WAIT)


class Pair:
    """Two engines and a pipe with impairments, in virtual time: the clock jumps to whatever comes next."""

    def __init__(self, seed=1, a=b"", b=b"", iss=(1, 1), config=None, configs=None, impairments=None, **tcb):
        self.random = random.Random(seed)
        self.now = 1_000_000
        self.impairments = impairments or Impairments()
        config_a, config_b = configs or (config or Config(), config or Config())
        self.a = self._end("a", config_a, config_b, iss[0], iss[1], a, tcb)
        self.b = self._end("b", config_b, config_a, iss[1], iss[0], b, tcb)
        self.wire = []
        self.count = 0
        self.lost = 0
        self.trace = None
        self.drop = None
        self.handovers = 0

    def _end(self, name, config, other, iss, irs, outgoing, tcb):
        state = {
            "snd_una": iss, "snd_nxt": iss, "snd_max": iss, "snd_wl1": irs, "rcv_nxt": irs,
            "rcv_wnd": config.initial_rcv_wnd, "snd_wnd": other.initial_rcv_wnd,
            "max_snd_wnd": other.initial_rcv_wnd, "cwnd": 10 * MSS,
            "ts_time": 0xFFFFFF00 if name == "a" else 77,
        }  # fmt: skip
        return End(name, config, Tcb(**{**state, **tcb}), self.now, outgoing)

    def ends(self):
        return ((self.a, self.b), (self.b, self.a))

    def flush(self):
        """Both engines send what they want to send now."""
        for end, other in self.ends():
            end.feed()
            while (segment := end.conn.dispatch(self.now)) is not None:
                end.check(segment)
                self.transmit(end, other, segment)

    def transmit(self, end, other, segment):
        for piece in split(segment):
            self.count += 1
            if self.trace is not None:
                self.trace.append((self.now, end.name, piece))
            copies = 1 + (self.random.random() < self.impairments.duplicate)
            for _ in range(copies):
                if self.random.random() < self.impairments.loss or (self.drop and self.drop(end, piece, self.now)):
                    self.lost += 1
                    continue
                at = self.now + self.impairments.delay
                if self.impairments.jitter:
                    at += self.random.randrange(self.impairments.jitter)
                if self.random.random() < self.impairments.reorder:
                    at += self.random.randrange(1, self.impairments.extra)
                marked = piece.ecn != NOT_ECT and self.impairments.mark > self.random.random()
                entry = (at, self.count, self.random.random(), other, wire_bytes(piece), CE if marked else piece.ecn)
                heapq.heappush(self.wire, entry)

    def deliver(self):
        """All that arrives now is processed, in one batch."""
        arrived = []
        while self.wire and self.wire[0][0] <= self.now:
            arrived.append(heapq.heappop(self.wire))
        for other in (self.a, self.b):
            frames = [(data, 1, ecn) for *_, to, data, ecn in arrived if to is other]
            for data, segments, ecn in merge(frames) if self.impairments.merge else frames:
                frame = bytearray(data)
                segment = parse_segment(memoryview(frame), segments)
                segment.ecn = ecn
                other.conn.process(segment, self.now)
                other.collect()
                # The frame's memory is used again: nothing may still point into it.
                frame[:] = b"\xee" * len(frame)
            other.collect()

    def step(self):
        """One jump of the clock; False if nothing will ever happen again."""
        self.flush()
        at = min([e.conn.poll_at() for e in (self.a, self.b)] + [self.wire[0][0] if self.wire else NEVER])
        if at >= NEVER:
            return False
        self.now = max(self.now, at)
        self.deliver()
        return True

    def run(self, until, limit=3_600_000_000, steps=400_000):
        """Steps until `until()` holds, which it must within `limit` microseconds."""
        start = self.now
        for _ in range(steps):
            if until():
                return
            if not self.step():
                break
            assert self.now - start < limit, "too slow"
        assert until(), f"stuck: a {self.a.conn.export(self.now)} b {self.b.conn.export(self.now)}"

    def transfer(self, **kwargs):
        """Runs until both streams have arrived, and compares them."""
        self.run(self.delivered, **kwargs)
        assert bytes(self.b.received) == bytes(self.a.outgoing)
        assert bytes(self.a.received) == bytes(self.b.outgoing)

    def delivered(self):
        return len(self.b.received) >= len(self.a.outgoing) and len(self.a.received) >= len(self.b.outgoing)


def split(segment):
    """The wire segments of a super-segment, as the kernel's segmentation makes them."""
    if segment.segments <= 1:
        return [segment]
    data = b"".join(segment.payload_parts)
    pieces = []
    for start in range(0, len(data), segment.mss):
        piece = Segment()
        last = start + segment.mss >= len(data)
        piece.seq = (segment.seq + start) & MASK
        piece.ack, piece.window = segment.ack, segment.window
        piece.flags = segment.flags if last else segment.flags & ~(FIN | PSH)
        piece.flags = piece.flags & ~CWR if start else piece.flags
        piece.ecn = segment.ecn
        piece.has_timestamp, piece.ts_val, piece.ts_ecr = segment.has_timestamp, segment.ts_val, segment.ts_ecr
        piece.payload_parts = [memoryview(data)[start : start + segment.mss]]
        piece.payload_length = len(piece.payload_parts[0])
        pieces.append(piece)
    return pieces


def wire_bytes(segment):
    return segment.header_bytes() + b"".join(segment.payload_parts)


def merge(frames):
    """Neighbours with equal headers but for the sequence number become one, up to 64 KB."""
    merged = []
    for data, _, ecn in frames:
        if merged:
            last, count, before = merged[-1]
            header = (last[12] >> 4) * 4
            size = len(last) - header
            follows = (int.from_bytes(last[4:8], "big") + size) & MASK == int.from_bytes(data[4:8], "big")
            same = last[8:13] == data[8:13] and last[14:header] == data[14:header]
            same = same and ecn == before and not data[13] & CWR
            if follows and same and size and len(data) > header and not last[13] & (FIN | PSH) and size < 60_000:
                merged[-1] = (
                    last[:13] + bytes([last[13] | data[13] & (FIN | PSH)]) + last[14:] + data[header:],
                    count + 1,
                    ecn,
                )
                continue
        merged.append((data, 1, ecn))
    return merged
