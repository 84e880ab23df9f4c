"""The statistics OIDs (17.1): what is counted, per IP version, and that nothing else is."""

import pytest

from chimney.ndis import DisconnectFlags, Status
from chimney.ndis.capabilities import IpOffloadStats, Oid, OidRequest, TcpOffloadStats
from tests.target.machine import World

TCP = (Oid.TCP4_OFFLOAD_STATS, Oid.TCP6_OFFLOAD_STATS)
IP = (Oid.IP4_OFFLOAD_STATS, Oid.IP6_OFFLOAD_STATS)
FIN, RST = 1, 4


def read(end, oid):
    request = OidRequest(oid)
    assert end.side.binding.oid_request(request) == Status.SUCCESS
    return request.information


def reset(end, oid, values=None):
    assert end.side.binding.oid_request(OidRequest(oid, values, set=True)) == Status.SUCCESS


@pytest.mark.parametrize("gro", [False, True])
@pytest.mark.parametrize("ipv6", [False, True])
def test_both_ends_of_a_stream_count_the_same(seed, ipv6, gro):
    """In wire segments and wire bytes, whether the links cut and merge or not."""
    world = World(seed=seed, delay_us=10, gro=gro)
    a, b = world.connect(ipv6=ipv6)
    b.receive(100_000, push=False)
    a.send(bytes(100_000))
    world.run()
    for end, name, other in ((a, "a", b), (b, "b", a)):
        frames = [frame for _, sender, frame in world.wire if sender == name]
        out, heard = read(end, IP[ipv6]), read(other, IP[ipv6])
        assert (out.out_requests, out.out_octets) == (len(frames), sum(len(frame) - 14 for frame in frames))
        assert (heard.in_receives, heard.in_delivers, heard.in_octets) == (
            out.out_requests,
            out.out_requests,
            out.out_octets,
        )
        assert read(end, TCP[ipv6]).out_segments == read(other, TCP[ipv6]).in_segments == len(frames)
        assert read(end, TCP[ipv6]).currently_established == 1
    assert read(a, IP[not ipv6]) == IpOffloadStats() and read(a, TCP[not ipv6]) == TcpOffloadStats()


def test_retransmissions_count_apart(seed):
    world = World(seed=seed)
    a, b = world.connect()
    world.network.loss = 1.0
    a.send(b"x" * 100)
    world.run(duration=3_000_000)
    counted = read(a, TCP[0])
    assert counted.out_segments == 1 and counted.retransmitted_segments == len(world.wire) - 1 > 1


def test_a_segment_that_waited_for_the_link_counts_once(seed):
    world = World(seed=seed, bandwidth=10_000_000, send_buffer=3000)
    a, b = world.connect()
    b.receive(50_000, push=False)
    a.send(bytes(50_000))
    world.run(until=lambda: b.host.took("receive"))
    counted = read(a, TCP[0])
    sent = sum(name == "a" for _, name, _ in world.wire)
    assert counted.out_segments + counted.retransmitted_segments == sent


def test_of_a_train_only_what_had_left_before_counts_as_sent_again(seed):
    """A closed window is probed with its first byte, which leaves again at the head of a train."""
    world = World(seed=seed, delay_us=10)
    a, b = world.connect()
    b.host.answer = lambda data: 0
    a.send(bytes(300_000))
    world.run(until=lambda: a.offloaded.engine.snd_wnd == 0)
    world.network.loss = 1.0
    world.run(duration=3_000_000)
    world.network.loss = 0.0
    b.receive(300_000, push=False)
    world.run(until=lambda: b.host.took("receive"))
    probes = sum(sender == "a" and len(frame) == 67 for _, sender, frame in world.wire)
    counted = read(a, TCP[0])
    assert counted.out_segments + counted.retransmitted_segments == sum(sender == "a" for _, sender, _ in world.wire)
    assert probes > 1 and counted.retransmitted_segments == probes, "the first was new, and leaves again"


def test_forwarded_segments_are_tcps_alone(seed):
    world = World(seed=seed)
    a, _ = world.connect()
    a.forward(a.segment(0, b"data"))
    world.poll()
    assert read(a, TCP[0]).in_segments == 1 and read(a, IP[0]).in_receives == 0


def test_a_reset_of_an_established_connection(seed):
    world = World(seed=seed)
    a, b = world.connect()
    a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    world.run()
    mine, theirs = read(a, TCP[0]), read(b, TCP[0])
    assert (mine.out_resets, mine.reset_established, mine.currently_established) == (1, 1, 0)
    assert (theirs.out_resets, theirs.reset_established, theirs.currently_established) == (0, 1, 0)


def test_a_connection_that_is_closed_in_order_is_not_reset(seed):
    world = World(seed=seed, delay_us=10)
    a, b = world.connect()
    a.disconnect()
    world.run(duration=1000)
    assert read(b, TCP[0]).currently_established == 1, "CLOSE_WAIT"
    assert read(a, TCP[0]).currently_established == 0
    b.disconnect()
    world.run()
    assert read(a, TCP[0]).reset_established == read(b, TCP[0]).reset_established == 0


def test_only_offloaded_traffic_counts(seed):
    """Another connection's frames, one's that is not offloaded any more, and corrupt ones are the host's."""
    world = World(seed=seed)
    a, b = world.connect()
    b.side.target.watch(b.flow)
    b.terminate()
    before = read(b, IP[0]), read(b, TCP[0])
    a.send(b"for the host")
    world.run(duration=1000)
    assert b.host.ordinary and (read(b, IP[0]), read(b, TCP[0])) == before


@pytest.mark.parametrize("values", [None, TcpOffloadStats(in_segments=99)])
def test_a_set_resets_one_family_to_zero(seed, values):
    world = World(seed=seed, delay_us=10)
    ends = world.connect(), world.connect(2000, ipv6=True)
    for a, b in ends:
        b.receive(10)
        a.send(b"0123456789")
    world.run()
    a = ends[0][0]
    before = [read(a, oid) for oid in (*TCP, *IP)]
    assert all(family.out_segments for family in before[:2]) and all(family.out_requests for family in before[2:])
    reset(a, TCP[0], values)
    after = [read(a, oid) for oid in (*TCP, *IP)]
    assert after[1:] == before[1:]
    # How many are established is no counter.
    assert after[0] == TcpOffloadStats(currently_established=1)
    reset(a, IP[1])
    assert read(a, IP[1]) == IpOffloadStats() and read(a, IP[0]) == before[2]


def test_counters_wrap(seed):
    world = World(seed=seed)
    a, b = world.connect()
    counters = a.side.target.ipv4
    counters.in_octets = 2**64 - 1
    counters.in_segments = 2**64 - 1
    counters.out_resets = 2**32 - 1
    b.send(b"x")
    world.poll()
    assert read(a, IP[0]).in_octets < 100 and read(a, TCP[0]).in_segments == 0
    a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    world.poll()
    assert read(a, TCP[0]).out_resets == 0
