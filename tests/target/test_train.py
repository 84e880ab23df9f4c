"""Segments that follow each other in a batch of frames are processed as one; what is not alike stays alone."""

import random
import struct

import pytest

from chimney.link.base import Frame, Link
from chimney.ndis.state import TcpDelegated, walk
from chimney.target.frames import FrameReader
from chimney.target.train import IN_FRAMES, Train, wire_segments
from chimney.tcp.segment import ACK, CWR, FIN, PSH, RST, SYN, URG, read_header
from tests.target.machine import IPV4, IPV6, MACS, World

A, B = MACS
STAMP = b"\x01\x01\x08\x0a\0\0\0\x07\0\0\0\x08"


def tcp(seq=100, ack=2, flags=ACK, window=500, urgent=0, options=STAMP, ports=(1000, 1001), data=b"0123456789"):
    offset = (20 + len(options)) << 2
    header = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack, offset, flags, window, 0, urgent)
    return header + options + data


def ipv4(segment, *, number=1, tos=0, ttl=64, length=None, macs=B + A):
    total = 20 + len(segment) if length is None else length
    head = struct.pack("!HBBHHHBBH", 0x800, 0x45, tos, total, number, 0x4000, ttl, 6, number)
    return macs + head + b"".join(IPV4) + segment


def ipv6(segment, *, tos=0, ttl=64, length=None, macs=B + A):
    size = len(segment) if length is None else length
    head = struct.pack("!HIHBB", 0x86DD, 6 << 28 | tos << 20, size, 6, ttl)
    return macs + head + b"".join(IPV6) + segment


def frame(data, vlan=-1, checksum_ok=True, gso_size=0):
    return Frame(memoryview(bytearray(data)), vlan, checksum_ok, gso_size)


def train(first):
    """A train that has begun with that frame."""
    reader = FrameReader()
    assert reader.read(first.data)
    segment = read_header(first.data, reader.start, reader.end, 1)
    made = Train()
    made.begin(None, segment, first, reader.start, reader.end)
    return made


def taken(made):
    segment = made.segment
    made.close(segment.payload_length)
    assert segment.payload_parts == [IN_FRAMES]
    made.close(segment.payload_length - 1)
    made.clear()
    assert made.segment is None and not made.frames
    return b"".join(segment.payload_parts), segment


@pytest.mark.parametrize("ip", [ipv4, ipv6])
@pytest.mark.parametrize("seq", [100, 0xFFFFFFF0])
def test_what_follows_is_taken_until_it_is_pushed(ip, seq):
    made = train(frame(ip(tcp(seq))))
    assert made.take(frame(ip(tcp(seq + 10, data=b"ab")) + b"trailer"))
    assert made.take(frame(ip(tcp(seq + 12, data=b"c" * 25)), gso_size=10))
    assert made.take(frame(ip(tcp(seq + 37, flags=ACK | PSH, data=b"d"))))
    assert not made.take(frame(ip(tcp(seq + 38))))
    data, segment = taken(made)
    assert data == b"0123456789ab" + b"c" * 25 + b"d" and segment.payload_length == 38
    assert (segment.seq, segment.segments, segment.flags) == (seq, 6, ACK | PSH)


def test_identification_and_header_checksum_are_each_frames_own():
    made = train(frame(ipv4(tcp())))
    assert made.take(frame(ipv4(tcp(110), number=2)))


@pytest.mark.parametrize("ip", [ipv4, ipv6])
@pytest.mark.parametrize(
    "other",
    [
        *[{"flags": flags} for flags in (0, ACK | FIN, ACK | SYN, ACK | RST, ACK | URG, ACK | CWR, PSH)],
        *[{"seq": seq} for seq in (100, 109, 111, 110 + 2**31)],
        {"ack": 3},
        {"window": 501},
        {"window": 500 + 256},
        {"urgent": 1},
        {"ports": (1000, 1002)},
        {"ports": (1001, 1001)},
        {"options": STAMP[:-1] + b"\x09"},
        {"options": b""},
        {"options": STAMP + b"\x01" * 4},
        {"data": b""},
    ],
    ids=str,
)
def test_another_header_is_another_segment(ip, other):
    made = train(frame(ip(tcp())))
    assert not made.take(frame(ip(tcp(**{"seq": 110, **other}))))
    assert taken(made)[0] == b"0123456789"


@pytest.mark.parametrize("ip", [ipv4, ipv6])
@pytest.mark.parametrize(
    "other", [{"tos": 3}, {"ttl": 63}, {"macs": A + B}, {"length": 0}, {"length": 31}, {"length": 52}, {"length": 2000}]
)
def test_another_packet_is_another_segment(ip, other):
    made = train(frame(ip(tcp())))
    assert not made.take(frame(ip(tcp(110), **other)))


def test_other_addresses_another_tag_or_an_unknown_checksum_are_not_taken():
    first, second = ipv4(tcp()), ipv4(tcp(110))
    for at in range(26, 34):
        changed = bytearray(second)
        changed[at] ^= 1
        assert not train(frame(first)).take(frame(changed))
    assert not train(frame(first)).take(frame(second, vlan=5))
    assert not train(frame(first)).take(frame(second, checksum_ok=False))
    assert not train(frame(first)).take(frame(ipv6(tcp(110))))
    for size in range(len(second) - 10):
        assert not train(frame(first)).take(frame(second[:size]))


@pytest.mark.parametrize(
    ("length", "gso_size", "segments"), [(0, 0, 1), (10, 0, 1), (0, 10, 1), (10, 10, 1), (11, 10, 2), (30, 10, 3)]
)
def test_wire_segments(length, gso_size, segments):
    assert wire_segments(length, gso_size) == segments


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_batch_is_delivered_and_acknowledged_at_once(seed, ipv6):
    world = World(seed=seed)
    a, b = world.connect(ipv6=ipv6)
    data = bytes(range(250)) * 40
    a.send(data)
    a.side.target.poll(world.clock())
    del world.wire[:]
    while not b.side.link.pending():
        world.clock.advance_to(world.network.next_at())
    b.side.target.poll(world.clock())
    target = b.offloaded
    assert target.delivery.delivered + target.delivery.buffered_bytes == 10_000
    count = 8 if ipv6 else 7
    assert target.delivery.indications == 1 and target.engine.stats.data_segments_in == count
    assert [name for _, name, _ in world.wire] == ["b"]
    assert (target.counters.in_segments, target.counters.in_receives) == (count, count)
    assert target.counters.in_octets == 10_000 + count * (20 + (40 if ipv6 else 20) + 12)
    b.receive(10_000)
    world.run()
    assert b.received == data


def test_an_upcall_that_raises_leaves_no_train_behind(seed):
    """Its frames are the link's again, and hold something else by the next poll."""
    world = World(seed=seed)
    a, b = world.connect()
    b.receive(3_000, push=False)

    def fail(nbl):
        b.host.on.clear()
        raise RuntimeError("the host's own")

    b.host.on["receive"] = fail
    data = bytes(range(250)) * 40
    a.send(data)
    with pytest.raises(RuntimeError, match="the host's own"):
        world.run()
    b.receive(7_000, 4)
    a.send(b"more")
    world.run()
    assert b.received == data + b"more" and b.offloaded.engine.stats.duplicates == 0


class Giving(Link):
    """A link that has received certain frames."""

    def __init__(self, frames):
        super().__init__("giving", A, 1500)
        self.frames = frames

    def receive(self, limit):
        return self.frames


def test_a_batch_that_breaks_off_leaves_no_train_behind(seed):
    """Else the train would go on with the next batch, when its memory holds something else."""
    world = World(seed=seed)
    _, b = world.connect()
    b.receive(11)
    target, link = b.side.target, b.side.target.link
    memory = bytearray(b.frame(b.segment(0, b"hello", push=False)))
    target.link = Giving([Frame(memoryview(memory), checksum_ok=True), "no frame"])
    with pytest.raises((TypeError, AttributeError)):
        target.poll(world.clock())
    target.link = link
    memory[-5:] = b"other"
    b.arrives(0, b"hello world")
    assert b.received == b"hello world"


@pytest.fixture
def taken_back_by_the_push_timer(seed):
    """Two connections: the push timer of ``y`` runs out, and the host takes it back, and then ``x`` as well. At the
    same time data for ``x`` arrives. ``trees``: of what has been handed back.
    """
    world = World(seed=seed, delay_us=10)
    _, y = world.connect(1000)
    _, x = world.connect(1010)
    trees = []

    def take_back(end):
        trees.append(end.terminate_tree())
        end.host.terminate_offload(trees[-1])

    y.receive(100)
    y.forward(y.segment(0, b"1234", push=False))
    world.poll()
    y.host.on["receive"] = lambda nbl: take_back(y)
    y.host.on["terminate"] = lambda tree: take_back(x) if len(trees) == 1 else None
    world.clock.advance_to(world.clock() + 499_990)
    x.inject(x.frame(x.segment(0, b"hello", push=False)))
    world.clock.advance_to(world.clock() + 10)
    return world, x, trees


def test_a_connection_that_is_handed_back_takes_no_train_along(taken_back_by_the_push_timer):
    """Whatever arrives behind the state that is handed back is the host's."""
    world, x, trees = taken_back_by_the_push_timer
    passed_up = x.side.target.frames_passed_up
    offloaded = x.offloaded
    x.side.target.poll(world.clock())
    [state] = [block.delegated for block in walk(trees[1]) if isinstance(block.delegated, TcpDelegated)]
    assert state.rcv_nxt == offloaded.engine.rcv_nxt and not state.buffered_data
    assert x.side.target.frames_passed_up == passed_up + 1 and not x.host.took("indicate")


def test_an_operation_that_raises_takes_no_frame_along(taken_back_by_the_push_timer):
    """What is to be done before a batch is read leaves the batch where it is."""
    world, x, _ = taken_back_by_the_push_timer

    def fail(tree):
        x.host.on.clear()
        raise RuntimeError("the host's own")

    x.host.on["terminate"] = fail
    with pytest.raises(RuntimeError, match="the host's own"):
        x.side.target.poll(world.clock())
    x.inject(x.frame(x.segment(0, b"hello world", push=False)))
    x.receive(11)
    world.run()
    assert x.received == b"hello world" and x.offloaded.engine.stats.data_segments_in == 2


def some_frames(rng, ip):
    """What a peer sends over a network that loses, repeats and reorders; its window and clock move on sometimes."""
    sender, receiver = World().ends(ipv6=ip is ipv6)
    recent = receiver.delegated.ts_recent or 1
    stream = bytes(rng.randrange(256) for _ in range(8_000))
    made, at, window, stamp = [], 0, 500, recent
    while at < len(stream) - 400:
        size = rng.choice((400, 400, 400, 400, 1, 199))
        window += rng.random() < 0.05
        stamp += rng.random() < 0.05
        flags = ACK | (PSH if rng.random() < 0.1 else 0)
        options = b"\x01\x01\x08\x0a" + struct.pack("!II", stamp, 0)
        header = tcp(sender.iss + at, receiver.iss, flags, window, options=options, data=stream[at : at + size])
        made.append(ip(header))
        at += size
    for _ in range(rng.randrange(4)):
        made.insert(rng.randrange(len(made)), rng.choice(made))
    for _ in range(rng.randrange(4)):
        made.insert(rng.randrange(len(made)), made.pop(rng.randrange(len(made))))
    for _ in range(rng.randrange(3)):
        made.pop(rng.randrange(len(made)))
    return made


def outcome(frames, batch, ip):
    """What of them has arrived, and what the connection knows, if so many at a time are read."""
    world = World()
    a, b = world.ends(ipv6=ip is ipv6)
    b.initiate()
    b.receive(*[350] * 30, push=False)
    for start in range(0, len(frames), batch):
        for data in frames[start : start + batch]:
            world.network.carry(a.side.link, bytearray(data), -1, True)
        world.run(duration=0)
    target = b.offloaded
    engine = target.engine
    stats = engine.stats
    return (
        bytes(b.received),
        target.delivery.delivered,
        engine.rcv_nxt,
        engine.receiver.reassembly.ranges(9),
        (stats.segments_in, stats.data_segments_in, stats.bytes_in, stats.duplicates, stats.out_of_order),
        (target.counters.in_segments, target.counters.in_receives, target.counters.in_octets),
    )


@pytest.mark.parametrize("ip", [ipv4, ipv6])
def test_whatever_arrives_together_comes_to_the_same_as_one_by_one(ip):
    rng = random.Random(7)
    for _ in range(40):
        frames = some_frames(rng, ip)
        assert outcome(frames, 64, ip) == outcome(frames, 1, ip)
