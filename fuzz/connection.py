"""A live connection against a script of whatever a peer, an owner and the clock can do.

The input is a script: how the connection was handed over, then operations. After each, `judge.Judge` looks at what the
engine did. If the peer gave no cause to end the connection, an honest peer takes over in the end, and both streams
have to come to their ends.
"""

import dataclasses

from chimney.tcp import (
    ACK,
    FIN,
    NEVER,
    PSH,
    RST,
    SYN,
    UNLIMITED,
    URG,
    Config,
    Connection,
    Event,
    Segment,
    State,
    Tcb,
    parse_segment,
)
from chimney.tcp.info import info
from fuzz.judge import OVER, Judge, near
from fuzz.script import Script
from fuzz.streams import LONGEST, Ranges, ours, theirs
from fuzz.work import Work

MASK = 0xFFFFFFFF
MOST_OPERATIONS = 300
MOST_QUEUED = 1 << 20
MOST_LINES = 60_000
"""Of Python, for one segment that arrives or leaves."""
LINES_ON_AVERAGE = 4_000
LINES_FOR_A_SEND = 400
"""With the look for something to send, each time, where cwnd is closed."""
SETTLING_STEPS = 20_000
SETTLING_TIME = 20 * 60_000_000

NUMBERS = (1000, 0, MASK, 2**32 - 3000, 2**31 - 2000, 2**31)
WINDOWS = (65_535, 1, 100, 1_460, 5_000, 1 << 20)
MSS = (1460, 0, 1, 48, 100, 536, 8960)
MTUS = (1500, 68, 296, 576, 9000)
SIZES = (1, 0, 2, 7, 100, 536, 1460, 2920, 30_000, 65_000)
TIMES = (1_000, 0, 40_000, 200_000, 1_000_000, 30_000_000, 300_000_000, 7_200_000_000, 26 * 86_400_000_000)
FIELDS = (65_535, 0, 1, 10, 1000)
ODD_FLAGS = (ACK, ACK | PSH, ACK | FIN, ACK | URG, ACK | 64, ACK | 128, ACK | 192, FIN, 0, RST, RST | ACK, SYN,
             SYN | ACK, 0xFF, 0x3F, ACK | FIN | PSH | URG)  # fmt: skip
HALF_CLOSED = (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
STATES = (State.ESTABLISHED, State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING,
          State.LAST_ACK)  # fmt: skip


def run(data: bytes) -> None:
    """Plays the script. Raises whatever is wrong."""
    Session(Script(data)).run()


class Session:
    """One connection, its owner and its peer."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.now = 10_000_000
        self.config = draw_config(script)
        self.iss, self.irs = script.choice(NUMBERS), script.choice(NUMBERS)
        tcb = draw_tcb(script, self.config, self.iss, self.irs)
        self.conn = Connection(self.config, tcb, self.now)
        judge = Judge(self.config, self.conn, self.iss, self.irs, tcb.rcv_wnd, 0)
        judge.peer_edge = max(tcb.snd_wnd, judge.max)
        self.judge = judge
        self.measured = script.byte() % 16 == 15
        self.work = Work()
        self.segments = 0
        self.sends = 0
        self.told = Ranges()
        """What of our stream the peer has got."""
        self.peer_clock = 5_000
        self.echo = 0
        self.codepoint = 0
        self.chain: list[tuple[int, int]] = []
        self.base = 0
        fin = tcb.state in HALF_CLOSED
        judge.closed = fin or judge.fin_acked_before
        self.queue(judge.max - fin)
        if self.config.max_rt_us != UNLIMITED or self.config.keepalive_us or self.config.fin_wait_2_us:
            judge.excuses.add(Event.TIMEOUT)

    def run(self) -> None:
        """The script, and the end that it leaves possible."""
        self.drain()
        for _ in range(MOST_OPERATIONS):
            if not self.script.more() or self.judge.is_over():
                break
            code = self.script.byte()
            OPERATIONS[code & 0x1F](self)
            if not code & 0x80:
                self.drain(heard=not code & 0x40)
            self.judge.bounded()
        self.drain()
        allowed = LINES_ON_AVERAGE * (self.segments + 10) + LINES_FOR_A_SEND * self.sends
        assert self.work.lines <= allowed, "too much work"
        if not self.judge.is_over():
            self.settle()

    # The owner.

    def queue(self, count: int) -> None:
        """Our application sends `count` bytes."""
        self.sends += 1
        count = min(count, MOST_QUEUED - self.judge.queued)
        while count > 0:
            size = min(count, LONGEST)
            self.conn.send(memoryview(ours(self.judge.queued, size)), True)
            self.judge.queued += size
            count -= size

    def send(self) -> None:
        size = self.script.choice(SIZES)
        if not self.judge.closed:
            self.queue(size)

    def send_record(self) -> None:
        """What follows begins a segment of its own (MSG_EOR)."""
        size = min(self.script.choice(SIZES), MOST_QUEUED - self.judge.queued)
        if not self.judge.closed and size > 0:
            self.conn.send(memoryview(ours(self.judge.queued, size)), True, True)
            self.judge.queued += size

    def send_pieces(self) -> None:
        for _ in range(0 if self.judge.closed else self.script.byte()):
            self.queue(1)

    def close(self) -> None:
        self.conn.close()
        self.judge.closed = True

    def abort(self) -> None:
        if self.script.byte() < 8:
            self.judge.aborted = True
            self.conn.abort(self.now)
            self.drain()

    def consume(self) -> None:
        self.judge.collect(read=False)
        count = min(self.script.choice(SIZES), self.judge.unread)
        self.conn.consume(count)
        self.judge.unread -= count

    def consume_all(self) -> None:
        self.judge.collect(read=True)

    def change(self) -> None:
        """Parameters, the path, the window's size."""
        script, conn = self.script, self.conn
        what = script.byte() % 10
        if what == 0:
            conn.update_path_mtu(script.choice(MTUS))
        elif what == 1:
            conn.set_nagle(bool(script.byte() & 1))
        elif what == 2:
            conn.set_keepalive(script.choice(TIMES[4:8]), script.choice(TIMES[4:8]), script.byte() % 5, self.now)
            self.judge.excuses.add(Event.TIMEOUT)
        elif what == 3:
            conn.set_parameters(1 + script.byte() % 4, script.choice(TIMES[:4]), 1 + script.byte() % 20,
                                1 + script.byte() % 5, script.choice(TIMES[:5]))  # fmt: skip
        elif what == 4:
            conn.set_initial_rcv_wnd(max(script.choice(WINDOWS), 1 << self.judge.scale))
        elif what == 5:
            owed = conn.flush_ack(self.now)
            if owed is not None:
                self.judge.leaves(owed, self.now)
        elif what == 6:
            conn.set_quick_ack(bool(script.byte() & 1))
        elif what == 7:
            conn.set_starved(bool(script.byte() & 1))
        elif what == 8:
            self.codepoint = script.byte() & 3
        else:
            self.check_export()

    def check_export(self) -> Tcb:
        """The state is one of whole numbers, of which the sizes and times make sense."""
        tcb = self.conn.export(self.now)
        values = dataclasses.asdict(tcb)
        assert all(isinstance(value, int) and value >= -1 for value in values.values()), values
        assert all(0 <= values[name] <= MASK for name in ("snd_una", "snd_nxt", "snd_max", "rcv_nxt", "snd_wl1"))
        assert tcb.undelivered == self.judge.unread
        figures = dataclasses.asdict(info(self.conn, self.now))
        assert all(isinstance(value, int) and value >= 0 for value in figures.values()), figures
        return tcb

    def hand_over(self) -> None:
        """The connection goes on with an engine of its own, as if through the kernel."""
        judge = self.judge
        judge.collect(read=False)
        owed = self.conn.flush_ack(self.now)
        if owed is not None:
            judge.leaves(owed, self.now)
        tcb = self.check_export()
        una = near(tcb.snd_una, self.iss, judge.una)
        assert self.conn.acked + self.base == min(una, judge.queued)
        if tcb.state in OVER or judge.aborted:
            return
        self.conn = judge.conn = Connection(self.config, tcb, self.now)
        self.base = min(una, judge.queued)
        queued, judge.queued = judge.queued, self.base
        self.queue(queued - self.base)
        if judge.closed and tcb.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            self.conn.close()

    # The clock.

    def wait(self) -> None:
        self.pass_time(self.script.choice(TIMES))

    def wait_a_little(self) -> None:
        self.pass_time(self.script.byte() * 250)

    def wait_for_timer(self) -> None:
        self.drain()
        at = self.conn.poll_at()
        if at < NEVER:
            self.now = max(self.now, at)

    def pass_time(self, duration: int) -> None:
        self.now += duration

    # The peer.

    def give(
        self,
        start: int,
        ack: int,
        size: int = 0,
        flags: int = ACK,
        window: int = 65_535,
        sack: tuple[tuple[int, int], ...] = (),
        age: int = 0,
        segments: int = 1,
        lie: bool = False,
    ) -> None:
        """A segment of the peer: positions, payload; `age` makes its timestamp older, or younger if negative."""
        self.segments += 1
        segment = Segment()
        segment.seq, segment.ack = (start + self.irs) & MASK, (ack + self.iss) & MASK
        segment.flags, segment.window = flags, window
        if self.config.timestamps and age != MASK:
            segment.has_timestamp = True
            segment.ts_val = (self.peer_clock + self.now // 1000 - age) & MASK
            segment.ts_ecr = self.echo
        segment.sack_blocks = [((a + self.iss) & MASK, (b + self.iss) & MASK) for a, b in sack[:3]]
        frame = bytearray(segment.header_bytes() + theirs(start, size, lie))
        judge = self.judge
        exact = near(segment.seq, self.irs, judge.rcv_nxt) == near(self.conn.rcv_nxt, self.irs, judge.rcv_nxt)
        for flag, event in ((RST, Event.RESET), (SYN, Event.SYN)):
            if flags & flag and exact:
                judge.excuses.add(event)
        if flags & (RST | SYN):
            # A challenge asks for an answer.
            judge.excuses.add(Event.TIMEOUT)
        if flags & URG:
            judge.excuses.add(Event.URGENT)
        judge.heard(start, ack, size, flags, window, lie)
        parsed = parse_segment(memoryview(frame), segments)
        assert parsed is not None
        parsed.ecn = self.codepoint
        with self.counted():
            self.conn.process(parsed, self.now)
        judge.collect(read=False)
        # The frame's memory is used again: nothing may still point into it.
        frame[:] = bytes(len(frame))
        if self.conn.stopped and judge.events[-1] == Event.URGENT:
            # The owner deals with it, and the connection goes on.
            self.hand_over()

    def next_data(self) -> None:
        self.give(self.position(), self.judge.una, self.size(), ACK | PSH)

    def data_somewhere(self) -> None:
        offset = self.script.signed(2)
        self.give(self.position() + offset, self.judge.una, self.size(), ACK | (self.script.byte() & PSH))

    def lies_somewhere(self) -> None:
        offset = self.script.signed(2)
        self.give(self.position() + offset, self.judge.una, self.size(), ACK, lie=True)

    def train(self) -> None:
        """Segments that were merged on their way."""
        size, count = self.script.choice(SIZES), 1 + self.script.byte() % 45
        offset = self.script.choice((0, 0, 1, 1460, -100))
        self.give(self.position() + offset, self.judge.una, min(size * count, 65_000), ACK | PSH, segments=count)

    def fragments(self) -> None:
        """Many small pieces with holes between them."""
        count, size, stride = self.script.byte(), 1 + self.script.byte() % 8, 1 + self.script.byte() % 16
        start, step = self.position() + self.script.byte(), self.script.choice((1, -1, 7, 3))
        for n in range(count):
            self.give(start + n * step % 256 * stride, self.judge.una, size)
            if self.judge.is_over():
                return

    def fin(self) -> None:
        offset = self.script.choice((0, 0, 1, 10, 1000, -1, -10))
        self.give(self.position() + offset, self.judge.una, self.script.choice((0, 0, 1, 100)), ACK | FIN)

    def acknowledge(self) -> None:
        self.give(self.position(), self.acknowledged(), window=self.field())

    def acknowledge_truly(self) -> None:
        self.give(self.position(), self.told.reach(0), window=self.field(), sack=self.true_blocks())

    def acknowledge_selectively(self) -> None:
        ack, reach = self.acknowledged(), self.judge.max - self.judge.una
        blocks = []
        for _ in range(1 + self.script.byte() % 4):
            left = ack + self.script.byte() * reach // 255
            blocks.append((left, left + self.script.byte() * reach // 255))
        self.give(self.position(), ack, sack=tuple(blocks), window=65_535)

    def sack_nonsense(self) -> None:
        base = self.script.choice((0, 0, 1 << 31, -(1 << 31)))
        blocks = tuple(
            (base + self.script.signed(4), base + self.script.signed(4)) for _ in range(1 + self.script.byte() % 3)
        )
        self.give(self.position(), self.judge.una, sack=blocks)

    def sack_fragments(self) -> None:
        """Blocks of one byte each, all over the flight."""
        count, stride = self.script.byte(), 1 + self.script.byte() % 32
        una, step = self.judge.una, self.script.choice((1, -1, 7, 3))
        for n in range(count):
            at = una + 1 + n * step % 256 * stride
            self.give(self.position(), una, sack=((at, at + 1), (at + 2, at + 3)))

    def duplicates(self) -> None:
        window = self.field()
        for _ in range(self.script.byte() % 64):
            self.give(self.position(), self.judge.una, window=window)

    def window(self) -> None:
        self.give(self.position() + self.script.choice((0, 0, -1, 1)), self.judge.una, window=self.field())

    def raw(self) -> None:
        """Anything."""
        script = self.script
        start, ack = self.position() + script.signed(4), self.judge.una + script.signed(4)
        flags, window, size, age = script.byte(), script.number(2), script.choice(SIZES), script.signed(4)
        self.give(start, ack, size, flags, window, age=age)

    def nearly_right(self) -> None:
        script = self.script
        start, ack = self.position() + script.signed(1), self.judge.una + script.signed(1)
        flags = script.choice(ODD_FLAGS)
        self.give(start, ack, script.choice(SIZES), flags, self.field(), age=script.choice((0, 1, -1, MASK, 1 << 31)))

    def at_the_edge(self) -> None:
        script = self.script
        start = self.judge.edge + script.signed(1)
        self.give(start, self.judge.una, script.choice(SIZES), script.choice(ODD_FLAGS), self.field())

    def storm(self) -> None:
        """The same, again and again; what answers it is limited."""
        script = self.script
        start, ack = self.position() + script.signed(2), self.judge.una + script.signed(2)
        flags, size = script.choice(ODD_FLAGS), script.choice((0, 0, 1))
        for _ in range(script.byte()):
            self.give(start, ack, size, flags)
            if self.judge.is_over():
                return

    def older_time(self) -> None:
        self.give(self.position(), self.judge.una, self.script.choice((0, 1, 100)), age=self.script.signed(4))

    def honest(self) -> None:
        for _ in range(self.script.byte() % 16):
            if self.judge.is_over():
                return
            self.answer()

    # What the peer knows.

    def position(self) -> int:
        """Where the peer's next byte in sequence stands."""
        return self.judge.received + self.judge.fin_received

    def size(self) -> int:
        return self.script.choice(SIZES)

    def field(self) -> int:
        """A window field."""
        at = self.script.byte() % (len(FIELDS) + 1)
        return FIELDS[at] if at < len(FIELDS) else self.script.number(2)

    def acknowledged(self) -> int:
        """A position between SND.UNA and all that was sent."""
        return self.judge.una + self.script.byte() * (self.judge.max - self.judge.una) // 255

    def true_blocks(self) -> tuple[tuple[int, int], ...]:
        if not self.config.sack:
            return ()
        return tuple(self.told.within(self.told.reach(0) + 1, self.judge.max))

    # Both.

    def counted(self) -> Work:
        return self.work if self.measured else _UNCOUNTED

    def drain(self, heard: bool = True) -> list[tuple[int, int]]:
        """The engine sends what it wants to send now; returns the positions. heard: it all arrives."""
        judge, taken = self.judge, []
        judge.collect(read=False)
        while True:
            before = self.work.lines
            with self.counted():
                segment = self.conn.dispatch(self.now)
            assert self.work.lines - before <= MOST_LINES, "too much work for one segment"
            if segment is None:
                break
            taken.append(judge.leaves(segment, self.now))
            assert len(taken) <= 3000, "it sends without end"
            self.echo = segment.ts_val
        self.segments += len(taken)
        judge.collect(read=False)
        judge.drained(self.now)
        if heard:
            for start, end in taken:
                self.told.add(start, end)
        return taken

    def answer(self) -> bool:
        """The peer takes what is sent now and says what it has; False if there was nothing to be answered."""
        expected = self.told.reach(0)
        taken = self.drain()
        self.judge.collect(read=True)
        if not any(start < end or start != expected for start, end in taken):
            return False
        if not self.judge.is_over():
            self.give(self.peer_position(), self.told.reach(0), window=20_000 >> self.judge.peer_scale,
                      sack=self.true_blocks())  # fmt: skip
        return True

    def peer_position(self) -> int:
        """The number of a segment without data: the highest that the peer has sent, as far as we believed it.

        It has lied about what lies beyond, maybe; but what it says of its window from before that is out of date.
        """
        latest = near(self.conn.export(self.now).snd_wl1, self.irs, self.position())
        return max(self.position(), min(latest, self.judge.edge))

    # The end.

    def settle(self) -> None:
        """An honest peer from here on: everything arrives, and both sides close."""
        judge = self.judge
        self.told.add(0, judge.una)
        # Its clock has been wrong, maybe; from now on it goes on from what we believe.
        self.peer_clock = self.conn.timestamps.recent + 1 - self.now // 1000
        self.close()
        end = self.peers_end()
        deadline = self.now + SETTLING_TIME
        for _ in range(SETTLING_STEPS):
            if judge.is_over():
                break
            if self.answer() or judge.is_over():
                continue
            if not judge.peer_is_done() and self.peer_sends(end):
                continue
            at = self.conn.poll_at()
            assert at < NEVER, "it waits for ever"
            self.now = max(at, self.now)
            assert self.now < deadline, "it takes for ever"
        assert judge.is_over(), "it does not come to an end"
        if judge.events[-1] in (Event.CLOSED, Event.TIME_WAIT):
            assert judge.received == end
            assert self.base + self.conn.acked == judge.queued

    def peers_end(self) -> int:
        """Where the peer's stream ends: where its FIN was heard, or some way on."""
        judge, receiver = self.judge, self.conn.receiver
        if judge.peer_is_done():
            return judge.received
        if receiver.fin_at >= 0:
            return near(receiver.window.sequence(receiver.fin_at), self.irs, judge.received)
        kept = [end for _, end in judge.arrived.within(0, judge.edge)]
        return max(judge.received + min(5_000, 20 * self.config.initial_rcv_wnd), *kept, 0)

    def peer_sends(self, end: int) -> bool:
        """The next segment of the peer's stream, as far as the window allows; False if it is closed."""
        start = self.position()
        room = self.conn.rcv_wnd
        size = min(end - start, room, 1460)
        if size <= 0 and start < end:
            return False
        self.now += 1_000
        self.give(start, self.told.reach(0), size, ACK | (FIN if start + size == end else 0), 20_000)
        return True


def draw_config(script: Script) -> Config:
    """What was agreed on, and how the engine is set."""
    bits, more, extra = script.byte(), script.byte(), script.byte()
    scaled = not bits & 4
    shift = (0, 7, 14, 3)[more >> 4 & 3]
    window = script.choice(WINDOWS)
    return Config(
        remote_mss=script.choice(MSS),
        path_mtu=script.choice(MTUS),
        sack=not bits & 1,
        timestamps=not bits & 2,
        window_scaling=scaled,
        snd_wscale=(0, 7, 14, 2)[more >> 2 & 3],
        rcv_wscale=shift,
        initial_rcv_wnd=max(window, 1 << shift) if scaled else min(window, 65_535),
        max_rcv_wnd=1 << 20 if extra & 1 else 0,
        nagle=bool(bits & 8),
        congestion="reno" if bits & 16 else "cubic",
        ipv6=bool(bits & 32),
        max_rt_us=0 if bits & 64 else UNLIMITED,
        fin_wait_2_us=120_000_000 if bits & 128 else 0,
        ecn=bool(more & 1),
        pacing=bool(more & 2),
        keepalive_us=7_200_000_000 if more & 64 else 0,
        sws_prevention_us=5_000_000 if more & 128 else 0,
        max_reassembly_blocks=(256, 256, 2, 8)[more >> 6],
        max_reassembly_parts=1024,
        quick_acks=0 if extra & 2 else 16,
        challenge_every_syn=bool(extra & 4),
        linux_window_probes=bool(extra & 8),
        mtu_probe_floor=512 if extra & 16 else 0,
        hystart="none" if extra & 32 else "hystart++",
        tail_loss_probes=not extra & 64,
        slow_start_after_idle=not extra & 128,
    )


def draw_tcb(script: Script, config: Config, iss: int, irs: int) -> Tcb:
    """The state as it was handed over."""
    bits = script.byte()
    state = STATES[bits & 7] if bits & 7 < len(STATES) else State.ESTABLISHED
    sent = (0, 0, 3000, 20_000)[bits >> 3 & 3] if state != State.FIN_WAIT_2 else 0
    fin = state in HALF_CLOSED
    possibly = sent // 2 if bits & 32 else sent
    window = 0 if bits & 64 else 65_535
    return Tcb(
        state=int(state),
        rcv_nxt=irs,
        rcv_wnd=min(config.initial_rcv_wnd, 65_535 << (config.rcv_wscale if config.window_scaling else 0)),
        snd_una=iss,
        snd_nxt=(iss + possibly + (fin and possibly == sent)) & MASK,
        snd_max=(iss + sent + fin) & MASK,
        snd_wnd=window,
        max_snd_wnd=65_535,
        snd_wl1=irs,
        cwnd=script.choice((14_600, 1, 1460, 100_000, 1 << 30)),
        ssthresh=script.choice((0x7FFFFFFF, 0, 5_000)),
        srtt_us=script.choice((0, 1, 30_000, 20_000_000)),
        rttvar_us=5_000,
        ts_recent=script.choice((0, 1, 5_000, MASK)),
        ts_time=script.choice((0, MASK, 77)),
        retransmit_count=3 if bits & 128 else 0,
        retransmit_left_us=100_000 if bits & 128 else -1,
    )


_UNCOUNTED = type("Uncounted", (Work,), {"__enter__": lambda self: self, "__exit__": lambda self, *_: None})()

OPERATIONS = (
    Session.next_data,
    Session.acknowledge,
    Session.send,
    Session.wait,
    Session.wait_for_timer,
    Session.data_somewhere,
    Session.acknowledge_truly,
    Session.acknowledge_selectively,
    Session.lies_somewhere,
    Session.train,
    Session.fragments,
    Session.fin,
    Session.sack_nonsense,
    Session.sack_fragments,
    Session.duplicates,
    Session.window,
    Session.raw,
    Session.nearly_right,
    Session.at_the_edge,
    Session.storm,
    Session.older_time,
    Session.honest,
    Session.hand_over,
    Session.consume,
    Session.consume_all,
    Session.change,
    Session.close,
    Session.send_pieces,
    Session.wait_a_little,
    Session.abort,
    Session.acknowledge_truly,
    Session.send_record,
)
"""By the lower five bits of a byte."""
