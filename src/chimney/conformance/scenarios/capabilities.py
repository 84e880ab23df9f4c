"""Adapters as a whole: entry points, next hops, capabilities, pauses, statistics, power (chapters 8, 11.3, 17)."""

from __future__ import annotations

from chimney.conformance import wire
from chimney.conformance.handshake import IPV4, MACS
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, send
from chimney.conformance.world import World
from chimney.ndis.capabilities import (
    DevicePowerState,
    IpOffloadStats,
    Oid,
    Switch,
    TcpConnectionOffload,
    TcpOffloadStats,
)
from chimney.ndis.state import NeighborCached
from chimney.ndis.status import Status
from chimney.target import TargetConfig

_ROUTER = b"\2\0\0\0\0\x99"
_OK = Status.SUCCESS


@scenario()
def other_chimney_types(world: World) -> None:
    """A target asks for chimneys of types that do not exist."""
    for side in world.sides:
        for kind in (0, 2, 3):
            assert side.target.handle.get_offload_handlers(kind) == (Status.NOT_SUPPORTED, None)


@scenario()
def a_second_next_hop(world: World) -> None:
    """Connections are attached to a neighbor that is not the first, and to a path above it."""
    a, _ = world.connect()
    c, d = (world.ends(port, addresses=(IPV4[0], b"\x0a\0\1\x02"))[0] for port in (2000, 3000))
    c.neighbor_cached = NeighborCached(_ROUTER)
    assert c.initiate() == [_OK] * 3
    assert d.share(c).initiate() == [_OK] * 3
    for end in (a, c, d):
        send(end, 100)
    world.run(duration=100_000)
    there = [frame[:6] for _, name, frame in world.wire if name == "a" and frame[30:34] == b"\x0a\0\1\x02"]
    assert there and set(there) == {_ROUTER}
    for end in (c, d):
        end.abort()


@scenario(delay_us=200_000)
def a_long_way(world: World) -> None:
    """Round trips of many ticks are measured, reported and handed over; one that nothing was measured of comes back."""
    a, b = world.connect()
    for _ in range(3):
        exchange(a, b, 3000)
        a.query("delegated")
    c, _ = world.ends(2000)
    c.delegated.s_rtt, c.delegated.rtt_var = 8 * 33 + 5, 4 * 7 + 1
    c.initiate()
    c.query("delegated")
    c.terminate()
    assert (c.delegated.s_rtt, c.delegated.rtt_var) == (8 * 33 + 5, 4 * 7 + 1)
    for end in (a, b):
        end.terminate()
        end.initiate()
    exchange(a, b, 3000)


@scenario(delay_us=100, config=TargetConfig(nce_stale_ticks=1000))
def a_silent_neighbor(world: World) -> None:
    """Before sending after a long silence, the target asks whether the neighbor is reachable."""
    a, b = world.connect()
    exchange(a, b, 500)
    world.run(duration=5_000_000)
    exchange(a, b, 500)
    assert a.host.took("generic")


@scenario(delay_us=100)
def capabilities_switched_off(world: World) -> None:
    """IPv6 is switched off after its connections have gone, and on again; capabilities change with a resume."""
    a, b = world.connect()
    c, d = world.connect(2000, ipv6=True)
    exchange(c, d, 500)
    side = a.side
    assert side.disable(support_ipv6=Switch.OFF) == _OK
    exchange(a, b, 500)
    assert side.enable() == _OK
    c.initiate()
    exchange(c, d, 500)
    side.target.pause()
    side.target.resume(TcpConnectionOffload(tcp_connection_offload_capacity=2))
    extra, _ = world.ends(3000)
    assert extra.share(a).initiate() == [Status.FAILURE, Status.FAILURE, Status.OFFLOAD_TCP_ENTRIES]


@scenario(delay_us=100)
def everything_is_asked_back(world: World) -> None:
    """A pause, then upload-all; what is posted meanwhile comes back; after the resume everything is offloaded anew."""
    a, b = world.connect()
    exchange(a, b, 500)
    target = a.side.target
    target.pause()
    exchange(a, b, 500)
    target.upload_all()
    late = send(a, 100)
    world.run(until=lambda: not a.offloaded)
    assert late[0].status == Status.UPLOAD_IN_PROGRESS
    target.resume()
    a.initiate()
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def a_pause_without_end(world: World) -> None:
    """An initiate that was under way when the target paused is carried out, although the target does not resume."""
    a, b = world.connect()
    c, d = world.ends(2000)
    tree = c.initiate_tree()
    c.side.start("initiate_offload", tree)
    c.side.target.pause()
    exchange(a, b, 500)
    world.run(until=lambda: c.offloaded and c.host.took("initiate")[-1][0] is tree)
    d.initiate()
    exchange(c, d, 500)


@scenario(delay_us=100, unfiltered=True)
def statistics_among_strangers(world: World) -> None:
    """Counters of both IP versions, between frames of other connections, corrupt ones, and other protocols."""
    a, b = world.connect()
    c, d = world.connect(2000, ipv6=True)
    stranger, _ = world.ends(5000)
    for _ in range(2):
        exchange(a, b, 5000)
        exchange(c, d, 3000)
        # Indications, too: a has no more receives posted when its request is filled.
        a.host.answer = len
        a.reading = 0
        send(b, 6000)
        world.run(until=lambda: arrived(a))
        a.inject(stranger.frame(stranger.segment(0, b"not offloaded")))
        for end in (a, c):
            end.inject(end.frame(end.segment(0, b"corrupt"), good=False))
        a.inject(wire.ethernet(MACS[0], MACS[1], wire.ETHER_ARP, bytes(28)))
        world.settle()
        for side in world.sides:
            for oid in (Oid.TCP4_OFFLOAD_STATS, Oid.TCP6_OFFLOAD_STATS):
                counted = side.statistics(oid)
                assert isinstance(counted, TcpOffloadStats) and counted.in_segments and counted.out_segments
                assert counted.in_errors == 0
                assert side.reset_statistics(oid) == _OK and side.statistics(oid).in_segments == 0
            for oid in (Oid.IP4_OFFLOAD_STATS, Oid.IP6_OFFLOAD_STATS):
                counted = side.statistics(oid)
                assert isinstance(counted, IpOffloadStats) and counted.in_receives and counted.out_requests
                assert side.reset_statistics(oid) == _OK and side.statistics(oid).in_receives == 0


@scenario(delay_us=100)
def power_down_and_up(world: World) -> None:
    """Power goes down with a transfer under way, and comes back."""
    a, b = world.connect()
    b.reading = 2000
    send(a, 10_000)
    world.run(duration=150)
    assert a.side.power(DevicePowerState.D3) == _OK
    assert not a.offloaded
    assert a.side.power(DevicePowerState.D0) == _OK
    a.initiate()
    world.run(until=lambda: arrived(b))
    assert b.side.power(DevicePowerState.D2) == _OK
