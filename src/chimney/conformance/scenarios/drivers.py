"""Intermediate drivers that do more than pass everything on (documents: chapter 12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chimney.conformance.end import End
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, hand_over, send
from chimney.conformance.world import World
from chimney.intermediate import Faults, FaultyDriver, IntermediateDriver, Multiplexer, OffloadEntry, PassThrough
from chimney.intermediate.multiplexer import least_loaded
from chimney.ndis.state import NeighborConst, ProtocolOffloadBlockList, TcpCached
from chimney.ndis.status import Status, UploadReason


def _faulty(**faults: object) -> Callable[[str], FaultyDriver]:
    return lambda name: FaultyDriver(name, Faults(**faults))  # type: ignore[arg-type]


def _driver(world: World, side: int = 0) -> FaultyDriver:
    return next(driver for driver in world.sides[side].drivers if isinstance(driver, FaultyDriver))


@scenario(
    delay_us=100, drivers=[PassThrough, _faulty(seed=1, delay=0.4, merge=0.5, split=0.4), _faulty(seed=2, delay=0.3)]
)
def completions_cut_and_joined(world: World) -> None:
    """Completions and events are kept back, linked together and cut, between a pass-through and another such driver."""
    pairs = [world.connect(port) for port in (1000, 2000, 3000)]
    for a, b in pairs:
        a.reading = b.reading = 700
        a.host.answer = len
    for _ in range(6):
        for a, b in pairs:
            send(a, 900, 300, 300)
            send(b, 500)
        world.run(duration=300)
    hand_over(pairs[0][0])
    for a, _ in pairs:
        send(a, 400)
        a.forward(a.segment(0, push=False), a.segment(0, push=False))
        a.disconnect(b"enough")
    world.run(until=lambda: all(arrived(a, b) and b.peer_closed for a, b in pairs))
    pairs[1][1].abort()
    world.run(until=lambda: not pairs[1][1].offloaded)


@scenario(delay_us=100, drivers=[PassThrough, _faulty(), PassThrough])
def completions_held_back(world: World) -> None:
    """A driver holds an initiate, a query, completions, and a terminate."""
    a, b = world.ends()
    driver = _driver(world)
    b.initiate()
    driver.hold()
    tree = a.initiate_tree()
    a.side.start("initiate_offload", tree)
    b.reading = 2000
    world.run(duration=5000)
    assert not a.host.took("initiate")
    driver.release()
    world.poll()
    a.reading = 1000
    send(b, 300)
    world.run(until=lambda: arrived(a))
    driver.hold()
    send(a, 1000, 1000)
    query = a.query_tree("delegated")
    a.side.start("query_offload_state", query)
    world.run(duration=50_000)
    assert not a.host.took("send") and not a.host.took("query")
    driver.release()
    world.run(until=lambda: arrived(b) and len(a.host.took("send")) == 2)
    driver.hold()
    tree = a.terminate_tree()
    a.side.start("terminate_offload", tree)
    world.run(duration=1000)
    driver.release()
    world.poll()
    assert a.host.took("terminate")


@scenario(delay_us=100, drivers=[_faulty(out_of_memory=0.08, seed=3), PassThrough])
def drivers_without_memory(world: World) -> None:
    """A driver has no memory for records of requests and offloads, now and then; the host takes back."""
    pairs = [world.ends(port) for port in (1000, 2000, 3000)]
    for pair in pairs:
        for end in pair:
            end.returns, end.reading = True, 2000
    for _ in range(12):
        for a, b in pairs:
            send(a, 500, 600, 100)
            send(b, 300)
            if a.offloaded:
                a.forward(a.segment(0, push=False), a.segment(0, push=False))
        world.run(duration=30_000)
    world.run(until=lambda: all(arrived(a, b) for a, b in pairs))
    for a, _ in pairs:
        a.disconnect(b"bye")
    world.run(until=lambda: all(arrived(b) for _, b in pairs))
    assert _driver(world).triggers.out_of_memory.happened > 5
    for pair in pairs:
        for end in pair:
            end.returns = False


@scenario(delay_us=100, drivers=[_faulty(out_of_memory={7})])
def a_send_that_is_not_passed_down(world: World) -> None:
    """No memory for a list of sends: REQUEST_UPLOAD and UPLOAD_REQUESTED; the host takes the connection back."""
    a, b = world.connect()
    b.reading = 3000
    sends = send(a, 100)
    sends += send(a, 200, 300)
    assert sends
    lists = send(a, 400, 500, 600)
    world.run(duration=200_000)
    wanted = {Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED}
    assert wanted <= {status for _, status, _ in a.host.took("send")} and lists
    for end in (a, b):
        if not end.offloaded:
            end.initiate()
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100, drivers=[_faulty(refuse={1, 3})])
def refused_by_a_driver(world: World) -> None:
    """A driver refuses an initiate: nothing has been passed down, and the next one may succeed."""
    a, _ = world.ends()
    failed = a.initiate()
    assert Status.RESOURCES in failed and Status.SUCCESS not in failed
    assert a.initiate() == [Status.SUCCESS] * 3


@scenario(
    delay_us=100,
    drivers=[
        PassThrough,
        _faulty(upload={5, 40, 90}, reasons=(UploadReason.UPLOAD_REQUESTED,), seed=4),
    ],
)
def uploads_asked_for_by_a_driver(world: World) -> None:
    """A driver asks for connections back, one at a time and all at once."""
    pairs = [world.ends(port) for port in (1000, 2000)]
    for pair in pairs:
        for end in pair:
            end.returns, end.reading = True, 1500
    for _ in range(10):
        for a, b in pairs:
            send(a, 700)
            send(b, 200)
        world.run(duration=30_000)
    driver = _driver(world)
    driver.pause()
    driver.upload_all()
    world.run(until=lambda: not any(a.offloaded for a, _ in pairs))
    driver.resume()
    world.run(until=lambda: all(arrived(a, b) for a, b in pairs))
    for pair in pairs:
        for end in pair:
            end.returns = False


class _Tagging(PassThrough):
    """Puts everything into a VLAN, with a priority."""

    def prepare_initiate(self, entry: OffloadEntry, block: ProtocolOffloadBlockList) -> None:
        if isinstance(block.const, NeighborConst):
            block.const = replace(block.const, vlan_id=42)
        if isinstance(block.cached, TcpCached):
            block.cached = replace(block.cached, user_priority=3)


@scenario(delay_us=100, drivers=[PassThrough, _Tagging, PassThrough])
def a_driver_that_sets_a_vlan(world: World) -> None:
    """VLAN and priority come from a driver in between."""
    a, b = world.connect()
    exchange(a, b, 1500)
    assert {frame[12:16] for _, _, frame in world.wire} == {b"\x81\0\x60\x2a"}


class _Watching(IntermediateDriver):
    """Sees every indication and event, and passes them on."""

    def __init__(self, name: str) -> None:
        super().__init__(name, records=True)
        self.seen = 0

    def on_indication(self, entry: OffloadEntry, net_buffer_list: object, status: int) -> tuple[int, int]:
        self.seen += 1
        return self.indicate(entry, net_buffer_list, status)  # type: ignore[arg-type]

    def on_event(self, entry: OffloadEntry, event_type: int, information: int) -> None:
        self.seen += 1
        self.indicate_event(entry, event_type, information)


@scenario(delay_us=100, drivers=[_Watching, PassThrough, _Watching])
def verdicts_through_drivers(world: World) -> None:
    """Accepted, refused and partly accepted indications, and events of all kinds, through three drivers."""
    a, b = world.connect()
    for answer in (len, lambda data: 0, lambda data: 100):
        b.host.answer = answer
        send(a, 600)
        world.run(duration=100_000)
        b.receive(5000)
        world.run(until=lambda: arrived(b))
    b.side.target.request_retrieve(b.flow, UploadReason.LOW_ACTIVITY)
    a.disconnect()
    world.run(until=lambda: b.peer_closed)
    b.abort()
    world.run(until=lambda: not a.offloaded and not b.offloaded)


def _team(world: World) -> Multiplexer:
    assert isinstance(world.team, Multiplexer)
    return world.team


def _connect(world: World, port: int, host: int, adapter: int = 0) -> list[End]:
    """A connection of the host of a side, behind an adapter of the team."""
    a, b = world.ends(port, host=host)
    b.neighbor_cached.dl_destination_address = world.sides[adapter].link.mac
    assert set(a.initiate()) | set(b.initiate()) == {Status.SUCCESS}
    return [a, b]


@scenario(delay_us=100, team=lambda name: Multiplexer(name, 2, 2))
def two_hosts_over_a_team(world: World) -> None:
    """Two hosts over one active adapter: completions in one list go to whom they belong, returned lists go back."""
    pairs = [_connect(world, 1000, 0), _connect(world, 2000, 2), _connect(world, 3000, 0)]
    for a, b in pairs:
        a.host.answer = len
        b.reading = 3000
        send(a, 1000, 200)
        send(b, 1500)
    world.run(until=lambda: all(arrived(a, b) for a, b in pairs))
    for a, b in pairs:
        a.reading = 1000
        a.disconnect(b"bye")
        b.disconnect(b"bye")
    world.run(until=lambda: all(arrived(a, b) and not a.offloaded for a, b in pairs))


@scenario(delay_us=100, drivers=1, team=lambda name: Multiplexer(name, 2, 2))
def fail_over(world: World) -> None:
    """The team leaves an adapter: pause, everything back, resume on the other one; the peers learn the new address."""
    pairs = [_connect(world, 1000, 0), _connect(world, 2000, 2)]
    for a, b in pairs:
        exchange(a, b, 800)
        b.reading = 3000
        send(a, 3000)
    world.run(duration=150)
    team = _team(world)
    team.fail_over(team.lowers[1])
    world.run(until=lambda: not any(a.offloaded for a, _ in pairs))
    world.run(duration=1000)
    for a, b in pairs:
        assert not a.host.paused and a.initiate() == [Status.SUCCESS] * 3
        b.update_neighbor(world.sides[2].link.mac)
    world.run(until=lambda: all(arrived(a, b) for a, b in pairs))


@scenario(delay_us=100, team=lambda name: Multiplexer(name, 2, 2, choice=least_loaded))
def a_team_that_shares_the_load(world: World) -> None:
    """New objects go to the adapter with the fewest; lists lent by both come back in one chain."""
    pairs = [_connect(world, 1000, 0, 0), _connect(world, 2000, 0, 2)]
    host = world.sides[0].host
    host.answer = len
    host.keeps_lists = True
    for _ in range(2):
        for _, b in pairs:
            send(b, 500)
        world.run(duration=60_000)
    assert len(host.held) >= 4
    host.return_lists()
    for a, b in pairs:
        exchange(a, b, 600)


@scenario(delay_us=100, team=lambda name: Multiplexer(name, 2, 2))
def hardware_changes_below_a_team(world: World) -> None:
    """The active adapter wants everything back, and the other one can do less: the hosts learn the new capabilities."""
    pairs = [_connect(world, 1000, 0)]
    first, other = world.sides[0].target, world.sides[2].target
    exchange(pairs[0][0], pairs[0][1])
    other.pause()
    other.resume(replace(other.hardware_capabilities(), tcp_connection_offload_capacity=5))
    first.pause()
    first.upload_all()
    world.run(until=lambda: not pairs[0][0].offloaded)
    world.run(duration=1000)
    capabilities = world.sides[0].binding.hardware_capabilities
    assert capabilities is not None and capabilities.tcp_connection_offload_capacity == 5
    pairs[0][0].initiate()
    pairs[0][1].update_neighbor(world.sides[2].link.mac)
    exchange(pairs[0][0], pairs[0][1])
