"""What initiates, updates and invalidates permit or forbid in particular (documents: 9.2, 9.5, 9.7)."""

from __future__ import annotations

from chimney.conformance import trees
from chimney.conformance.end import End
from chimney.conformance.handshake import MACS, WINDOW
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, pattern, send
from chimney.conformance.targets import OtherTarget
from chimney.conformance.wire import SYN
from chimney.conformance.world import Side, World
from chimney.ndis.buffers import Mdl, NetBuffer, NetBufferListPool, net_buffer_list
from chimney.ndis.state import NeighborCached, NeighborConst, TcpDelegated, walk
from chimney.ndis.status import Status, TcpCachedFlags
from chimney.target import TargetConfig

_OK = Status.SUCCESS
_FAILED = Status.FAILURE
_OTHER_MAC = b"\2\0\0\0\0\x99"
_MASK = 0xFFFFFFFF


def _slow(side: Side) -> OtherTarget:
    return OtherTarget(side, completes_after=10_000)


@scenario(delay_us=100, target=_slow)
def initiated_early(world: World) -> None:
    """Targets that process segments, acknowledge and send before they complete the initiate."""
    a, b = world.ends()
    data = pattern(a, 3000)
    a.application += data
    a.unfinished = [net_buffer_list(data)]
    b.reading = 8000
    trees_of = [end.initiate_tree() for end in (a, b)]
    for end, tree in zip((a, b), trees_of, strict=True):
        end.side.start("initiate_offload", tree)
    world.run(duration=5000)
    assert a.host.took("initiate") == b.host.took("initiate") == []
    assert {name for _, name, _ in world.wire} == {"a", "b"}
    world.run(until=lambda: arrived(b) and bool(a.host.took("send")))
    assert [block.status for tree in trees_of for block in walk(tree)] == [_OK] * 6
    world.run(duration=100_000)
    exchange(a, b, 2000)


@scenario(delay_us=100, target=lambda side: OtherTarget(side, declines=lambda const: const.remote_mss < 536))
def declined_connections(world: World) -> None:
    """A target declines a connection whose segments are too small to be worth the effort."""
    a, b = world.ends()
    small, _ = world.ends(2000)
    small.share(a)
    small.const.remote_mss = 500
    small.unfinished = [net_buffer_list(b"stays with the host")]
    tree = trees.initiate_tree([a, small])
    a.side.perform("initiate", tree)
    statuses = [block.status for block in walk(tree)]
    assert statuses == [_OK, Status.OFFLOAD_PARTIAL_SUCCESS, _OK, Status.OFFLOAD_CONNECTION_REJECTED]
    b.initiate()
    exchange(a, b, 1000)


@scenario(config=(TargetConfig(tcp_capacity=2), TargetConfig()))
def scarce_connections(world: World) -> None:
    """Room for two connections of three: those that come first in the order get it."""
    one, two, three = (world.ends(port)[0] for port in (1000, 1010, 1020))
    two.share(one)
    three.share(one, path=False)
    expected = [_OK, _OK, _OK, _OK, Status.OFFLOAD_PARTIAL_SUCCESS, Status.OFFLOAD_TCP_ENTRIES]
    assert one.side.initiate(one, two, three) == expected
    one.side.terminate(two)
    assert three.initiate() == [_OK] * 3


def _handshake(end: End, options: bytes) -> None:
    """The peer's SYN and ACK, with these IPv4 options."""
    end.inject(end.frame(end.segment(-1, flags=SYN, push=False), options=options))
    end.inject(end.frame(end.segment(0, push=False), options=options))
    end.side.world.settle()


@scenario(delay_us=100, unfiltered=True)
def handshakes(world: World) -> None:
    """Connections that the hosts' own stacks have opened; one of them with IPv4 options, which stays with its host."""
    a, b = world.connect(500)
    for port, options in ((1000, b""), (2000, b"\x44\x08\x05\0\0\0\0\0")):
        plain, peer = world.ends(port)
        _handshake(plain, options)
        # The peer sends, the application does not read, and the acknowledgement is delayed.
        data = pattern(peer, 400)
        peer.application += data
        plain.inject(plain.frame(plain.segment(0, data)))
        world.settle()
        plain.kept.clear()
        plain.delegated.rcv_nxt = plain.delegated.rcv_nxt + 400 & _MASK
        plain.delegated.buffered_data = net_buffer_list(bytearray(data))
        peer.delegated.snd_una = peer.delegated.snd_nxt = peer.delegated.snd_max = plain.delegated.rcv_nxt
        if plain.host.may_offload(plain):
            plain.host.settle_acknowledgements(plain)
            world.settle()
            assert plain.initiate() == [_OK] * 3
            peer.initiate()
            plain.reading = 1000
            world.run(until=lambda end=plain: arrived(end))  # type: ignore[misc]
    exchange(a, b, 100)


@scenario(delay_us=100)
def buffered_once_more(world: World) -> None:
    """What a terminate brought back undelivered is handed over with the next initiate, from a pool of the host's."""
    a, b = world.connect()
    send(a, 900)
    world.run(duration=100_000)
    b.terminate()
    # The application has read the first 250 bytes of it.
    left = bytearray(b.received[250:])
    del b.received[250:]
    pool = NetBufferListPool("host 1: undelivered data")
    b.delegated.buffered_data = pool.allocate(NetBuffer(Mdl(memoryview(left)), 0, len(left)))
    assert b.initiate() == [_OK] * 3
    b.reading = 500
    send(a, 300)
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def a_part_was_acknowledged(world: World) -> None:
    """Sends come back partly acknowledged; the next chain begins with the first byte that is not."""
    a, b = world.connect()
    world.network.drop_if = lambda name, frame: name == "a" and len(frame) > 1000
    send(a, 600, 2000, 700)
    world.run(duration=3000)
    a.terminate()
    world.network.drop_if = None
    assert a.unfinished
    a.initiate()
    b.reading = 4000
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def sent_again_at_once(world: World) -> None:
    """All of the chain is to be sent again, nothing of it is in flight, and more is sent behind it."""
    a, b = world.ends()
    data = pattern(a, 1200)
    a.application += data
    a.unfinished = [net_buffer_list(data[:500]), net_buffer_list(data[500:])]
    a.delegated.snd_max = a.delegated.snd_max + 800 & 0xFFFFFFFF
    b.reading = 3000
    b.initiate(), a.initiate()
    send(a, 900)
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100, unfiltered=True)
def relinked_elsewhere(world: World) -> None:
    """A path moves to a neighbor with another address."""
    world.network.alias(world.sides[1].link, _OTHER_MAC)
    a, b = world.ends()
    b.neighbor = NeighborConst(dl_source_address=_OTHER_MAC)
    a.initiate(), b.initiate()
    other, _ = world.ends(2000)
    other.neighbor_cached = NeighborCached(_OTHER_MAC)
    other.initiate()
    a.relink(other)
    exchange(a, b, 2000)
    assert {frame[:6] for _, name, frame in world.wire if name == "a"} == {_OTHER_MAC}


@scenario(delay_us=100)
def updates_change_nothing_else(world: World) -> None:
    """Constants and delegated variables are the same after updates of all cached ones; a larger window is told."""
    a, b = world.connect()
    exchange(a, b, 2000)
    before = [block.const for block in a.query("all", "all", "all")]
    a.update(
        ttl_or_hop_limit=7, tos_or_traffic_class=8, initial_rcv_wnd=2 * WINDOW, flags=TcpCachedFlags.UPDATE_RCV_WND
    )
    a.update_path(1300)
    a.update_neighbor(MACS[1], 3)
    assert [block.const for block in a.query("all", "all", "all")] == before
    world.run(duration=2_000_000)
    exchange(a, b, 2000)
    a.query("delegated")


@scenario(delay_us=100)
def restarts(world: World) -> None:
    """MAX_RT_RESTART in the middle of handed-over retransmissions and keepalive probes."""
    a, _ = world.ends()
    data = pattern(a, 500)
    a.unfinished = [net_buffer_list(data)]
    state = a.delegated
    state.snd_nxt = state.snd_max = state.snd_una + 500 & _MASK
    state.total_rt, state.retransmit.count, state.retransmit.timeout_delta = 4000, 3, 60_000
    state.keep_alive.count, state.keep_alive.timeout_delta = 2, 30_000
    a.cached.flags = TcpCachedFlags.KEEP_ALIVE_ENABLED
    a.cached.ka_timeout, a.cached.ka_interval, a.cached.ka_probe_count = 50_000, 40_000, 5
    a.initiate()
    found = a.query("delegated")[0].delegated
    assert isinstance(found, TcpDelegated) and found.total_rt == 4000 and found.keep_alive.count == 2
    a.update(ka_probe_count=7, flags=TcpCachedFlags.KEEP_ALIVE_ENABLED | TcpCachedFlags.MAX_RT_RESTART)
    found = a.query("delegated")[0].delegated
    assert isinstance(found, TcpDelegated) and found.total_rt == found.keep_alive.count == 0


@scenario(delay_us=100)
def an_update_fails_and_all_goes_on(world: World) -> None:
    """After a failed update the connection works as before, for as long as the host takes to terminate it."""
    a, b = world.connect()
    a.host.controls[a.handle] += 1
    a.side.target.fail_update(a.flow)
    assert a.update(ttl_or_hop_limit=5)[0].status == _FAILED
    reason, a.upload_reason = a.upload_reason, None
    exchange(a, b, 2000)
    a.upload_reason = reason
    a.host.controls[a.handle] -= 1
    world.run(until=lambda: not a.offloaded)


@scenario(delay_us=100)
def invalidated_and_left(world: World) -> None:
    """Invalidated connections stay silent, can be queried, and are taken back only after a second."""
    a, b = world.connect()
    a.host.controls[a.handle] += 1
    b.reading = 4000
    send(a, 2000)
    world.run(duration=50)
    a.invalidate("path")
    b.arrives(0)
    world.run(duration=500_000)
    assert a.query("delegated")[0].status == _OK
    world.run(duration=500_000)
    a.host.controls[a.handle] -= 1
    world.run(duration=1000)
    if a.offloaded:
        a.terminate()
    a.initiate()
    world.run(until=lambda: arrived(b))
