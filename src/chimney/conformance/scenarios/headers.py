"""What stands around the segments, and which frames are the target's (documents: chapter 16)."""

from __future__ import annotations

from dataclasses import replace

from chimney.conformance import wire
from chimney.conformance.handshake import IPV4, MACS
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, hand_over, pattern, send
from chimney.conformance.world import World
from chimney.ndis.state import NeighborConst
from chimney.ndis.status import Status, TcpConstFlags
from chimney.target import TargetConfig

_OWN = b"\2\0\0\0\0\x77"
_GROUP = b"\1\0\x5e\0\0\5"


@scenario(delay_us=100)
def tags(world: World) -> None:
    """VLAN and priority: none, priority alone, VLAN alone, both; other frames are dropped."""
    for port, vlan, priority in ((1000, 0, 0), (1010, 0, 5), (1020, 77, 0), (1030, 78, 6)):
        a, b = world.ends(port)
        for end in (a, b):
            end.neighbor = NeighborConst(vlan_id=vlan)
            end.cached.user_priority = priority
            end.initiate()
        exchange(a, b, 500)
        at = len(a.application)
        data = pattern(a, 90)
        frame = b.frame(b.segment(at, data[:30], ack=len(b.application)))
        if vlan:
            for wrong in (-1, 0, vlan + 100):
                b.inject(frame, vlan=wrong)
                world.settle()
            assert b.received == a.application
        else:
            a.application += data
            for number, tag in enumerate((-1, 3 << 13, 55)):
                piece = b.segment(at + 30 * number, data[30 * number :][:30], ack=len(b.application))
                b.inject(b.frame(piece), vlan=tag)
                world.settle()
            b.reading = 100
            world.run(until=lambda end=b: arrived(end))  # type: ignore[misc]


@scenario(delay_us=100, unfiltered=True)
def own_addresses(world: World) -> None:
    """A source address of the neighbor's own, a next hop whose address changes; frames to other addresses."""
    world.network.alias(world.sides[1].link, _OWN)
    a, b = world.ends()
    b.neighbor = NeighborConst(dl_source_address=_OWN)
    a.initiate(), b.initiate()
    b.reading = 1000
    send(a, 500)
    world.run(duration=50_000)
    assert not b.received
    a.update_neighbor(_OWN)
    world.run(until=lambda: arrived(b) and bool(a.host.took("send")))
    assert any(frame[6:12] == _OWN for _, name, frame in world.wire if name == "b")
    # To the address of another host on the same medium.
    before = len(b.received)
    b.inject(b.frame(b.segment(500, b"not yours"), destination=b"\xff" * 6))
    world.settle()
    assert len(b.received) == before
    exchange(a, b, 300)


@scenario(delay_us=100, config=TargetConfig(multicast_addresses=frozenset({_GROUP})))
def group_addresses(world: World) -> None:
    """Frames to a group address that the interface has joined belong to the connection."""
    a, b = world.connect()
    data = pattern(a, 100)
    a.application += data
    b.reading = 500
    b.inject(b.frame(b.segment(0, data), destination=_GROUP))
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100, unfiltered=True)
def not_for_the_target(world: World) -> None:
    """ARP, ICMP, other connections, bad checksums and broken headers go up the ordinary path."""
    a, b = world.connect()
    exchange(a, b, 100)
    mac, other = MACS[1], MACS[0]
    icmp = wire.ip_packet(IPV4[0], IPV4[1], b"\3\4\0\0" + bytes(24), protocol=wire.ICMP)
    segment = b.segment(100, b"damaged", ack=100)
    stranger = wire.ip_packet(IPV4[0], IPV4[1], wire.checked(IPV4[0], IPV4[1], b"\x77\x77\x77\x78" + segment[4:]))
    frames = [
        wire.ethernet(b"\xff" * 6, other, wire.ETHER_ARP, bytes(28)),
        wire.ethernet(mac, other, wire.ETHER_IPV4, icmp),
        wire.ethernet(mac, other, wire.ETHER_IPV4, stranger),
        b.frame(segment, good=False),
        b.frame(segment, good_header=False),
        b.frame(segment)[:40],
    ]
    for frame in frames:
        b.inject(frame)
        world.settle()
    assert len(b.host.ordinary) == len(frames) and len(b.received) == 100
    exchange(a, b, 100)


@scenario(delay_us=100)
def options_off(world: World) -> None:
    """A connection without timestamps, selective acknowledgements and window scaling; SACK options are ignored."""
    a, b = world.ends()
    for end in (a, b):
        end.const = replace(end.const, flags=TcpConstFlags(0), snd_wind_scale=0, rcv_wind_scale=0)
        end.cached.initial_rcv_wnd = end.delegated.rcv_wnd = end.delegated.snd_wnd = end.delegated.max_snd_wnd = 60_000
        end.initiate()
    exchange(a, b, 20_000)
    world.network.loss = 0.1
    exchange(a, b, 20_000)
    world.network.loss = 0.0
    hand_over(a, b)
    exchange(a, b, 3000)


@scenario(delay_us=100, loss=0.1, config=(TargetConfig(support_sack=False), TargetConfig()))
def a_target_without_sack(world: World) -> None:
    """A target that cannot do SACK, and the peer sends it all the same: it ignores what it gets."""
    a, b = world.ends()
    a.const = replace(a.const, flags=a.const.flags & ~TcpConstFlags.SACK_ENABLED)
    a.initiate(), b.initiate()
    exchange(a, b, 30_000)


@scenario(delay_us=100, mtu=576)
def a_small_path_mtu(world: World) -> None:
    """Segments are bounded by the path MTU, with Don't Fragment set, and by the peer's MSS."""
    a, b = world.ends()
    for end in (a, b):
        end.path_mtu = 576
        end.initiate()
    exchange(a, b, 5000)
    c, d = world.ends(2000)
    for end in (c, d):
        end.path_mtu = 576
        end.const = replace(end.const, remote_mss=300)
        assert end.initiate() == [Status.SUCCESS] * 3
    exchange(c, d, 5000)
