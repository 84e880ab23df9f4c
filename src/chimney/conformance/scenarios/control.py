"""Query, update, relink and invalidate, and what fails (documents: 9.4, 9.5, 9.7, 9.8)."""

from __future__ import annotations

from chimney.conformance import trees
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, send
from chimney.conformance.world import World
from chimney.ndis.state import TcpDelegated, walk
from chimney.ndis.status import Status, TcpCachedFlags, TcpConnectionState, UploadReason
from chimney.target import TargetConfig

_OTHER_MAC = b"\2\0\0\0\0\x99"
_FAILED = Status.FAILURE


@scenario(delay_us=100)
def queries(world: World) -> None:
    """Every class of every object, two queries at a time, in the middle of a transfer, and of the receive backlog."""
    a, b = world.connect()
    c, _ = world.connect(2000, ipv6=True)
    b.reading = 10_000
    send(a, 40_000)
    world.run(duration=250)
    for what in ("const", "cached", "delegated", "all"):
        for end in (a, c):
            blocks = end.query(what, what, what)
            assert {block.status for block in blocks} == {Status.SUCCESS}
            assert what != "all" or blocks[-1].const == end.const
    several = [a.query_tree("delegated"), a.query_tree("all", neighbor="delegated"), c.query_tree("cached")]
    for tree in several:
        a.side.start("query_offload_state", tree)
    for tree in several:
        a.side.wait_for("query", tree)
    world.run(until=lambda: arrived(b))
    # What the application has not taken, and then posts receives for.
    send(b, 700)
    world.run(duration=50_000)
    state = a.query("delegated")[0].delegated
    assert isinstance(state, TcpDelegated) and state.receive_backlog_size == 700
    a.receive(state.receive_backlog_size)
    world.run(until=lambda: arrived(a))


@scenario(delay_us=100)
def queries_of_every_state(world: World) -> None:
    """A connection is queried, updated and invalidated in half-closed states, too."""
    a, b = world.connect()
    a.disconnect(b"last")
    b.reading = 100
    world.run(until=lambda: b.peer_closed and a.is_in(TcpConnectionState.FIN_WAIT_2))
    for end in (a, b):
        assert end.query("all", "all", "all")[-1].status == Status.SUCCESS
        assert end.update(ttl_or_hop_limit=33)[0].status == Status.SUCCESS
    b.invalidate()
    world.run(until=lambda: not b.offloaded)


@scenario(delay_us=100)
def updates(world: World) -> None:
    """Cached variables of all three layers change in the middle of a transfer; updates of different objects overlap."""
    a, b = world.connect()
    c, _ = world.connect(2000)
    b.reading = 4000
    send(a, 20_000)
    world.run(duration=150)
    a.update(ttl_or_hop_limit=9, tos_or_traffic_class=0x48, user_priority=3)
    a.update_path(900)
    send(a, 10_000)
    world.run(until=lambda: arrived(b))
    a.update_path(1500)
    a.update_neighbor(b"\2\0\0\0\0\2", host_reachability_delta=7)
    send(a, 5000)
    world.run(until=lambda: arrived(b))
    # A smaller MTU with a full-sized segment in flight.
    world.network.drop_if = lambda name, frame: name == "a" and len(frame) > 1000
    send(a, 3000)
    world.run(duration=1000)
    a.update_path(900)
    world.run(until=lambda: arrived(b))
    world.network.drop_if = None
    both = []
    for end in (a, c):
        block = trees.tcp_reference(end, "cached")
        block.cached = end.cached
        both.append(block)
        end.side.start("update_offload", block)
    for block in both:
        a.side.wait_for("update", block)
    tree = a.query_tree("all")
    a.side.start("query_offload_state", tree)
    a.update(ttl_or_hop_limit=60)
    assert len(a.host.took("query")) == 1


@scenario(delay_us=100)
def updates_with_flags(world: World) -> None:
    """UPDATE_RCV_WND up and down, MAX_RT_RESTART in the middle of retransmissions, KEEP_ALIVE_RESTART."""
    a, b = world.connect()
    exchange(a, b, 500)
    for window in (1 << 19, 1 << 16):
        b.update(initial_rcv_wnd=window, flags=TcpCachedFlags.UPDATE_RCV_WND)
        exchange(a, b, 500)
    keepalive = TcpCachedFlags.KEEP_ALIVE_ENABLED
    a.update(flags=keepalive, ka_timeout=3000, ka_interval=500, ka_probe_count=5)
    world.run(duration=2_000_000)
    before = len(world.wire)
    a.update(flags=keepalive | TcpCachedFlags.KEEP_ALIVE_RESTART)
    world.run(duration=2_500_000)
    assert len(world.wire) == before
    world.run(duration=1_000_000)
    assert len(world.wire) > before
    # Two seconds in all without, two more with each restart.
    world.network.drop_if = lambda name, frame: True
    a.update(max_rt=2000, flags=TcpCachedFlags(0))
    send(a, 100)
    world.run(duration=1_500_000)
    a.update(ka_timeout=5000, ka_probe_count=4, flags=TcpCachedFlags.MAX_RT_RESTART)
    world.run(duration=1_500_000)
    assert not a.host.took("INDICATE_RETRIEVE")
    world.run(until=lambda: not a.offloaded)
    assert a.host.took("INDICATE_RETRIEVE")[0][1] == UploadReason.TIMEOUT_EXPIRATION
    world.network.drop_if = None


@scenario(delay_us=100)
def next_hop_change(world: World) -> None:
    """A router is gone: a new neighbor is offloaded, the paths relinked, the old one taken back."""
    a, b = world.connect()
    c, d = world.ends(2000)
    c.share(a, path=False)
    c.initiate(), d.initiate()
    b.reading = d.reading = 2000
    old = a.neighbor_handle
    send(a, 3000)
    # The new neighbor comes with a connection of its own.
    e, f = world.connect(3000)
    a.relink(e)
    c.relink(e)
    block = trees.neighbor_reference(a, "delegated")
    block.offload_handle = old
    assert a.side.perform("terminate", block)[0].status == Status.SUCCESS
    send(c, 3000)
    world.run(until=lambda: arrived(b, d))
    exchange(e, f, 500)


@scenario(delay_us=100)
def relink_of_an_invalid_neighbor(world: World) -> None:
    """An invalidated neighbor silences its connections at once; those whose upload is requested go back."""
    a, b = world.connect()
    c, d = world.ends(2000)
    c.share(a)
    c.initiate(), d.initiate()
    b.reading = d.reading = 20_000
    send(a, 30_000)
    world.run(duration=150)
    before = [name for _, name, _ in world.wire].count("a")
    a.invalidate("neighbor")
    assert [name for _, name, _ in world.wire].count("a") == before
    world.run(until=lambda: not a.offloaded and not c.offloaded)
    reasons = [reason for _, reason, _ in a.host.took("INDICATE_RETRIEVE")]
    assert reasons == [UploadReason.INVALID_STATE] * 2
    assert a.initiate() == c.initiate() == [Status.SUCCESS] * 3
    world.run(until=lambda: arrived(b))
    exchange(c, d, 500)


@scenario(delay_us=100)
def invalidated(world: World) -> None:
    """A connection and a path are invalidated with requests pending and data arriving; posted ones come back."""
    for port, what in ((1000, "connection"), (2000, "path")):
        a, b = world.connect(port)
        b.reading = 4000
        a.receive(1000)
        send(a, 3000)
        world.run(duration=50)
        block = {"connection": trees.tcp_reference, "path": trees.path_reference}[what](a, None)
        a.side.start("invalidate_offload", block)
        late = send(a, 100)
        send(b, 400)
        a.side.wait_for("invalidate", block)
        world.run(until=lambda end=a: not end.offloaded)  # type: ignore[misc]
        assert block.status == Status.SUCCESS and late[0].status in (Status.SUCCESS, Status.UPLOAD_IN_PROGRESS)
        a.initiate()
        a.reading = 1000
        world.run(until=lambda one=a, other=b: arrived(one, other))  # type: ignore[misc]


@scenario(delay_us=100)
def failed_updates(world: World) -> None:
    """An update fails: the target carries on, and the host takes the object back."""
    a, b = world.connect()
    b.reading = 3000
    send(a, 2000)
    a.side.target.fail_update(a.flow)
    assert a.update(ttl_or_hop_limit=5)[0].status == _FAILED
    world.run(until=lambda: not a.offloaded)
    a.initiate()
    world.run(until=lambda: arrived(b))


@scenario(config=TargetConfig(max_path_mtu=1500))
def impossible_updates(world: World) -> None:
    """A path MTU that the target cannot have."""
    a, _ = world.connect()
    assert a.update_path(9000)[0].status == _FAILED
    world.run(until=lambda: not a.offloaded)


@scenario(delay_us=100)
def hardware_failures(world: World) -> None:
    """The state of connections is lost: a query, an invalidate and a terminate fail, and what follows of each."""
    pairs = [world.connect(port) for port in (1000, 2000, 3000)]
    side = world.sides[0]
    ends = [a for a, _ in pairs]
    for a, b in pairs:
        exchange(a, b, 300)
        b.reading = 0
    requests = []
    for a in ends:
        requests += send(a, 5000)
        requests += [nbl for nbl, _ in a.receive(100)]
        side.target.fail_hardware(a.flow)
    assert [block.status for block in ends[0].query("delegated")] == [_FAILED]
    assert [block.status for block in ends[1].invalidate()] == [_FAILED]
    tree = side.terminate_tree(ends[2])
    side.perform("terminate", tree)
    assert _FAILED in {block.status for block in walk(tree)}
    world.run(until=lambda: not any(a.offloaded for a in ends))
    assert {nbl.status for nbl in requests} <= {Status.REQUEST_ABORTED, Status.SUCCESS}
    reasons = [reason for _, reason, _ in side.host.took("INDICATE_RETRIEVE")]
    assert reasons == [UploadReason.HARDWARE_FAILURE] * 3
    for _, b in pairs:
        b.abort()
    world.run(until=lambda: not any(b.offloaded for _, b in pairs))
