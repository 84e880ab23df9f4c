"""Raw frames at a target's link: its reader against a slow and simple one, and a connection that has to live on.

The input is a list of frames, each after a byte that says how it comes and two of its length. Most are made to look
like frames of the connection, and then spoilt: otherwise hardly anything would come further than the addresses. Frames
that come together, and may be processed as one, must come to the same as one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from chimney.conformance.handshake import IPV4, IPV6, ISS, MACS
from chimney.conformance.world import World
from chimney.link.base import NO_VLAN, Flow, Frame, Link, Statistics
from chimney.ndis import UploadReason
from chimney.target.frames import FrameReader
from chimney.tcp import State
from chimney.tcp.segment import parse_segment
from fuzz.script import Script

MOST_FRAMES = 24
PORT = 1000
ETHERNET = 14
_TCP = 6
_AS_IT_IS, _ADDRESSED, _LENGTHS, _IN_SEQUENCE = 1, 2, 4, 8
_BAD_CHECKSUM, _TAGGED, _MERGED, _PAUSE = 16, 32, 64, 128
_TOGETHER, _CONTINUES = 0x8000, 0x4000
"""Beside the length: the target does not look yet; the frame goes on where the one before ends, and differs in what the
bytes say."""
_LONGEST = 2048


class Ends:
    """A sender and, at the target under test, a receiver of one connection; frames reach it that nobody has sent."""

    def __init__(self, ipv6: bool) -> None:
        link: list[ScriptedLink] = []

        def scripted(side: object, inner: Link) -> Link:
            link.append(ScriptedLink(inner))
            return link[-1]

        self.world = World(obedient=False, link=scripted)
        self.mine, self.theirs = self.world.connect(PORT, ipv6)
        self.theirs.receive(4096)
        self.tcp = self.theirs.offloaded
        self.engine = self.tcp.engine
        self.link = link[1]

    def look(self, how: int) -> None:
        """The target reads what has arrived, and goes on for a while."""
        self.world.poll()
        if how & _PAUSE:
            self.world.clock.advance(50_000)
            self.world.poll()

    def is_urgent(self) -> bool:
        """Whether urgent data has ended everything."""
        return self.engine.stopped and self.tcp.upload_reason == UploadReason.RECEIVED_URGENT_DATA

    def outcome(self) -> tuple[object, ...]:
        """What must not depend on how many frames the target has found at a time."""
        engine, host = self.engine, self.theirs.host
        return (
            State(engine.state), engine.stopped, engine.rcv_nxt, engine.snd_una, engine.receiver.fin_at,
            bytes(self.theirs.received), len(host.took("indicate")),
        )  # fmt: skip


def run(data: bytes) -> None:
    """Raises whatever is wrong."""
    script = Script(data)
    ipv6 = bool(script.byte() & 1)
    ends = Ends(ipv6)
    arrived: list[tuple[bytes, int]] = []
    together = False
    for _ in range(MOST_FRAMES):
        if not script.more():
            break
        how = script.byte()
        length = script.number(2)
        frame = bytearray(script.take(length % _LONGEST))
        if length & _CONTINUES and arrived:
            frame = continuation(arrived[-1][0], frame)
        else:
            prepare(frame, how, ipv6, ends.engine.rcv_nxt, ends.engine.snd_una)
        check_reader(bytes(frame))
        if length & _TOGETHER:
            together = True
            how &= ~_PAUSE
        arrived.append((bytes(frame), how))
        ends.link.arrive(bytes(frame), how)
        if not length & _TOGETHER:
            ends.look(how)
    ends.look(0)
    if together:
        alone = Ends(ipv6)
        for each, how in arrived:
            alone.link.arrive(each, how)
            alone.look(how)
        # Which of the peer's timestamps count depends on what has been acknowledged (RFC 7323, 4.3), and that on how
        # many frames the target finds at a time; a wrong one makes all that follows look old. So does whether a segment
        # that comes again is still looked at: an urgent one ends everything.
        same_times = ends.engine.timestamps.recent == alone.engine.timestamps.recent
        if same_times and ends.is_urgent() == alone.is_urgent():
            assert ends.outcome() == alone.outcome()
    lives_on(ends.world, ends.mine, ends.theirs, ends.engine)


def continuation(before: bytes, changes: bytes) -> bytearray:
    """The frame after ``before`` in a stream, with the same header; ``changes``: places, and what is exclusive-ored."""
    frame = bytearray(before)
    place = segment_in(before)
    if place is not None:
        _, start, end, _ = place
        payload = max(end - start - (before[start + 12] >> 4) * 4, 0)
        seq = int.from_bytes(before[start + 4 : start + 8], "big") + payload
        put(frame, start + 4, struct.pack("!I", seq & 0xFFFFFFFF))
    for at, change in zip(changes[::2], changes[1::2], strict=False):
        if at < len(frame):
            frame[at] ^= change
    return frame


def prepare(frame: bytearray, how: int, ipv6: bool, seq: int, ack: int) -> None:
    """Writes into a frame, as far as it is long enough, what makes it one of the connection."""
    if how & _AS_IT_IS:
        return
    source, destination = IPV6 if ipv6 else IPV4
    start = ETHERNET + (40 if ipv6 else 20)
    put(frame, 0, MACS[1] + MACS[0] + (b"\x86\xdd" if ipv6 else b"\x08\x00"))
    if how & _ADDRESSED or how & _IN_SEQUENCE:
        put(frame, start - 2 * len(source), source + destination)
        put(frame, start, struct.pack("!HH", PORT, PORT + 1))
    if how & _LENGTHS or how & _IN_SEQUENCE:
        size = max(len(frame) - ETHERNET, 0)
        if ipv6:
            put(frame, ETHERNET, struct.pack("!IHBB", 6 << 28, max(size - 40, 0), _TCP, 64))
        else:
            put(frame, ETHERNET, struct.pack("!BBHHHBB", 0x45, 0, size, 1, 0x4000, 64, _TCP))
    if how & _IN_SEQUENCE:
        put(frame, start + 4, struct.pack("!II", seq, ack))


def put(frame: bytearray, at: int, data: bytes) -> None:
    """Overwrites what there is; the frame keeps its length."""
    data = data[: max(len(frame) - at, 0)]
    frame[at : at + len(data)] = data


def check_reader(frame: bytes) -> None:
    """The target's reader finds a TCP segment exactly where there is one, by the RFCs' pictures of the headers."""
    reader = FrameReader()
    found = reader.read(memoryview(frame))
    expected = segment_in(frame)
    assert found == (expected is not None)
    if expected is None:
        return
    flow, start, end, ecn = expected
    key = reader.key(Frame(memoryview(frame)))
    assert (key, reader.start, reader.end, reader.ecn) == (flow, start, end, ecn) and not reader.fragment
    reader.checksums_hold(memoryview(frame))
    header = (frame[start + 12] >> 4) * 4
    segment = parse_segment(memoryview(frame)[start:end])
    assert (segment is None) == (header < 20 or start + header > end)
    if segment is not None:
        assert (segment.seq, segment.ack) == struct.unpack_from("!II", frame, start + 4)
        assert (segment.flags, segment.window) == struct.unpack_from("!BH", frame, start + 13)
        assert bytes(segment.payload) == frame[start + header : end]


def segment_in(frame: bytes) -> tuple[bytes, int, int, int] | None:
    """Key, start, end and ECN codepoint of a whole TCP segment in a plain IP packet, None for everything else."""
    packet, kind = frame[ETHERNET:], frame[12:14]
    if kind == b"\x08\x00" and len(packet) >= 40:
        total = int.from_bytes(packet[2:4], "big")
        plain = packet[0] == 0x45 and packet[9] == _TCP
        whole = not int.from_bytes(packet[6:8], "big") & 0x3FFF
        start, addresses, ecn = 20, packet[12:20], packet[1] & 3
    elif kind == b"\x86\xdd" and len(packet) >= 60:
        total = 40 + int.from_bytes(packet[4:6], "big")
        plain, whole = packet[0] >> 4 == 6 and packet[6] == _TCP, True
        start, addresses, ecn = 40, packet[8:40], packet[1] >> 4 & 3
    else:
        return None
    if not plain or not whole or not start + 20 <= total <= len(packet):
        return None
    return addresses + packet[start : start + 4], ETHERNET + start, ETHERNET + total, ecn


def lives_on(world: World, mine, theirs, engine) -> None:
    """If nothing that was accepted has changed the connection, it still works."""
    target = theirs.side.target
    assert target.frames_in >= target.frames_passed_up + target.frames_dropped
    untouched = (
        theirs.offloaded is not None
        and engine.state == State.ESTABLISHED
        and not engine.stopped
        and engine.rcv_nxt == ISS[0]
        and engine.receiver.reassembly.is_empty()
        and engine.receiver.fin_at < 0
        and not theirs.host.took("indicate")
    )
    if untouched:
        # A spoilt timestamp may make ours look old: then nothing is to be expected.
        recent = engine.timestamps.recent
        if recent <= mine.offloaded.engine.timestamps.value(world.clock()):
            mine.send(b"still there?")
            world.run(duration=60_000_000)
            assert bytes(theirs.received) == b"still there?"


class ScriptedLink(Link):
    """A link on which frames arrive that nobody has sent, in front of those that somebody has."""

    def __init__(self, inner: Link) -> None:
        super().__init__(inner.name, inner.mac, inner.mtu)
        self.inner = inner
        self.waiting: list[Frame] = []

    def arrive(self, data: bytes, how: int) -> None:
        """A frame arrives as the kernel would hand it over."""
        view = memoryview(bytearray(data))
        vlan = 5 if how & _TAGGED else NO_VLAN
        self.waiting.append(Frame(view, vlan, not how & _BAD_CHECKSUM, 100 if how & _MERGED else 0))

    def pending(self) -> int:
        return len(self.waiting) + self.inner.pending()

    def receive(self, limit: int) -> list[Frame]:
        frames, self.waiting = self.waiting, []
        return frames or self.inner.receive(limit)

    def release(self) -> None:
        self.inner.release()

    def send(
        self,
        header: bytes | bytearray | memoryview,
        payload: list[memoryview],
        csum_start: int,
        csum_offset: int,
        gso_size: int,
        gso_ipv6: bool,
        vlan: int = NO_VLAN,
    ) -> bool:
        return self.inner.send(header, payload, csum_start, csum_offset, gso_size, gso_ipv6, vlan)

    def writable(self) -> bool:
        return self.inner.writable()

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        self.inner.set_filter(flows)

    @property
    def statistics(self) -> Statistics:
        return self.inner.statistics

    def close(self) -> None:
        self.inner.close()
