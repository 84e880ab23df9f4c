"""Connections that the target had rather give back (9.9), and how much the host should keep outstanding (11.1)."""

import struct

import pytest

from chimney.ndis import UploadReason
from chimney.target import TargetConfig
from tests.target.machine import MACS, World
from tests.target.test_state import delegated_of

TICKS = 100


def world_with(seed, **thresholds):
    return World(config=TargetConfig(advice_ticks=TICKS, **thresholds), seed=seed, delay_us=10)


def look(world):
    """Let the target look, twice: the first time it only takes notice."""
    world.run(duration=TICKS * 1000)


def reasons(end):
    return [reason for _, reason, _ in end.host.took("INDICATE_RETRIEVE")]


def test_by_default_nothing_is_asked_for(seed):
    world = World(config=TargetConfig(advice_ticks=TICKS), seed=seed)
    a, _ = world.connect()
    world.run(duration=10 * TICKS * 1000)
    assert not reasons(a) and not World().sides[0].target.config.advice_ticks


def test_low_activity(seed):
    world = world_with(seed, low_activity_bytes=100)
    a, b = world.connect()
    look(world)
    assert not reasons(a)
    b.receive(200)
    a.send(bytes(100))
    look(world)
    assert not reasons(a) and not reasons(b), "a hundred bytes are enough, in either direction"
    look(world)
    assert reasons(a) == reasons(b) == [UploadReason.LOW_ACTIVITY]
    # It goes on, and is asked for again.
    b.receive(100)
    a.send(bytes(100))
    look(world)
    look(world)
    assert len(a.host.took("send")) == 2 and len(reasons(a)) == 2


def test_requests_that_are_not_posted(seed):
    world = world_with(seed, no_preposting_indications=3)
    a, b = world.connect()
    b.host.answer = len
    look(world)
    for _ in range(3):
        a.send(b"x")
        world.run(duration=1000)
    look(world)
    assert reasons(b) == [UploadReason.NO_BUFFER_PREPOSTING] and not reasons(a)


@pytest.mark.parametrize(("size", "asked"), [(99, True), (100, False)])
def test_small_requests(seed, size, asked):
    world = world_with(seed, small_io_bytes=100)
    a, b = world.connect()
    look(world)
    b.receive(1000, push=False)
    a.send(bytes(size), bytes(size))
    look(world)
    assert reasons(a) == [UploadReason.SMALL_IO] * asked
    look(world)
    assert len(reasons(a)) == asked, "without requests there are no small ones"


def test_many_retransmissions(seed):
    world = world_with(seed, drop_permille=500)
    a, _ = world.connect()
    look(world)
    world.network.loss = 1.0
    a.send(bytes(100))
    world.run(duration=3_000_000)
    assert UploadReason.HIGH_DROP_RATE in reasons(a)


def test_many_segments_out_of_order(seed):
    world = world_with(seed, out_of_order_permille=600)
    a, _ = world.connect()
    look(world)
    world.network.loss = 1.0
    a.forward(a.segment(0, b"x"), *[a.segment(offset, b"x") for offset in (9, 7, 5)])
    look(world)
    assert reasons(a) == [UploadReason.HIGH_OUT_OF_ORDER_PACKETS]


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_many_fragments(seed, ipv6):
    world = world_with(seed, fragments=2)
    a, b = world.connect(ipv6=ipv6)
    late = world.connect(2000, ipv6=not ipv6)[1]
    b.side.link.set_filter(None)
    look(world)
    addresses = b.flow.remote_address + b.flow.local_address
    for offset in (0x2000, 0x0010):
        if ipv6:
            ip = struct.pack("!IHBB", 6 << 28, 28, 44, 64) + addresses + struct.pack("!BBHI", 6, 0, offset, 1)
        else:
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, offset, 64, 6, 0) + addresses
        kind = b"\x86\xdd" if ipv6 else b"\x08\0"
        a.side.link.send(MACS[1] + MACS[0] + kind + ip + bytes(20), [], 0, 0, 0, False, -1)
    look(world)
    assert [handle for handle, *_ in b.host.took("INDICATE_RETRIEVE")] == [b.handle] != [late.handle]
    assert reasons(b) == [UploadReason.HIGH_FRAGMENTATION] and len(b.host.ordinary) == 2



@pytest.mark.parametrize("side", [0, 1], ids=["FIN_WAIT_2", "CLOSE_WAIT"])
def test_half_closed_connections_are_left_alone(seed, side):
    world = world_with(seed, low_activity_bytes=100)
    ends = world.connect()
    ends[0].disconnect()
    look(world)
    look(world)
    assert not reasons(ends[side])


def test_a_connection_that_goes_back_anyway_is_not_asked_for_again(seed):
    world = world_with(seed, low_activity_bytes=100)
    a, _ = world.connect()
    a.side.target.request_retrieve(a.flow, UploadReason.UPLOAD_REQUESTED)
    look(world)
    look(world)
    assert reasons(a) == [UploadReason.UPLOAD_REQUESTED]


def test_nothing_is_looked_at_when_nothing_is_offloaded(seed):
    world = world_with(seed, low_activity_bytes=100)
    a, b = world.connect()
    look(world)
    a.terminate(), b.terminate()
    world.run()
    assert world.clock() < 10_000_000


# Send backlog


def backlogs(end):
    return [size for _, size, _ in end.host.took("INDICATE_SEND_BACKLOG_CHANGE")]


def stream(world, size=3_000_000):
    a, b = world.connect()
    b.receive(size, push=False)
    for _ in range(size // 10_000):
        a.send(bytes(10_000))
    world.run(until=lambda: b.host.took("receive"))
    return a


def test_without_the_feature_there_is_no_backlog(seed):
    a = stream(World(seed=seed, delay_us=1000))
    assert not backlogs(a) and delegated_of(a).send_backlog_size == 0xFFFFFFFF


def test_the_preferred_backlog_follows_the_congestion_window(seed):
    """event.backlog.throttle: it is told when it has doubled, ten times a second at most."""
    world = World(config=TargetConfig(send_backlog=True), seed=seed, delay_us=50_000)
    times = []
    world.sides[0].host.on["INDICATE_SEND_BACKLOG_CHANGE"] = lambda _: times.append(world.clock())
    a = stream(world)
    told = backlogs(a)
    assert len(told) >= 2 and all(later >= 2 * earlier for earlier, later in zip([65536, *told], told, strict=False))
    assert all(later - earlier >= 100_000 for earlier, later in zip(times, times[1:], strict=False))
    assert delegated_of(a).send_backlog_size == 2 * a.offloaded.engine.cwnd


def test_the_preferred_backlog_does_not_depend_on_what_is_posted(seed):
    world = World(config=TargetConfig(send_backlog=True), seed=seed)
    a, _ = world.connect()
    before = delegated_of(a).send_backlog_size
    world.network.loss = 1.0
    a.send(bytes(1_000_000))
    world.poll()
    assert delegated_of(a).send_backlog_size == before and not backlogs(a)
