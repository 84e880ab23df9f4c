"""Initiate, query, update and invalidate: trees, statuses, limits, and what they change."""

import pytest

from chimney.link.base import Link
from chimney.ndis import (
    OffloadHandle,
    OffloadStateType,
    ProtocolOffloadBlockList,
    Status,
    UploadReason,
    net_buffer_list,
)
from chimney.ndis.state import (
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    PathDelegated,
    TcpCached,
    TcpConst,
    TimerRemainder,
    walk,
)
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState
from chimney.target import TargetConfig
from chimney.target.conversion import engine_tcb, write_delegated
from chimney.target.delivery import Delivery
from tests.target.machine import CONST_FLAGS, MACS, SCALE, WINDOW, World, delegated

SUCCESS, PARTIAL, FAILURE = Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS, Status.FAILURE
OTHER_MAC = b"\x02\0\0\0\0\x99"


def neighbor(*dependents, mac=MACS[1], **const):
    return ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR,
        const=NeighborConst(**const),
        cached=NeighborCached(mac),
        delegated=NeighborDelegated(),
        offload_handle=OffloadHandle("neighbor"),
        dependent_block_list=row(*dependents),
    )


def path(*dependents, remote=2, local=1, mtu=1500):
    return ProtocolOffloadBlockList(
        type=OffloadStateType.IP4,
        const=PathConst(bytes([10, 0, 0, local]), bytes([10, 0, 0, remote])),
        cached=PathCached(mtu),
        delegated=PathDelegated(),
        offload_handle=OffloadHandle("path"),
        dependent_block_list=row(*dependents),
    )


def connection(port, window=WINDOW, **state):
    return ProtocolOffloadBlockList(
        type=OffloadStateType.TCP,
        const=TcpConst(CONST_FLAGS, 80, port, SCALE, SCALE, 1460),
        cached=TcpCached(TcpCachedFlags(0), window),
        delegated=delegated(0, **state),
        offload_handle=OffloadHandle(port),
    )


def linker(block, *dependents):
    """A block for what ``block`` has offloaded already."""
    return ProtocolOffloadBlockList(
        type=block.type, offload_handle=block.offload_handle, dependent_block_list=row(*dependents)
    )


def placeholder(type_, *dependents):
    return ProtocolOffloadBlockList(type=type_, dependent_block_list=row(*dependents))


def row(*blocks):
    for block, following in zip(blocks, blocks[1:], strict=False):
        block.next_block = following
    return blocks[0] if blocks else None


class Watched(Link):
    """A link whose filter is watched."""

    def __init__(self, link, set_filter):
        super().__init__(link.name, link.mac, link.mtu)
        self.set_filter = set_filter


def initiate(world, tree):
    """Statuses of the tree's blocks, in traversal order."""
    world.sides[0].state("initiate_offload", tree)
    assert world.sides[0].host.log[-1][1] is tree, "the tree that was passed down comes back"
    for block in walk(tree):
        if block.offload_handle is not None:
            offloaded = block.offload_handle.miniport_offload_context is not None
            assert offloaded or block.status not in (SUCCESS, PARTIAL)
    return [block.status for block in walk(tree)]


def test_a_whole_tree():
    tree = row(
        neighbor(path(connection(1), connection(2)), path(connection(3), remote=3)),
        neighbor(path(connection(4), connection(5), remote=4), mac=OTHER_MAC),
    )
    world = World()
    assert initiate(world, tree) == [SUCCESS] * 10
    assert len(world.sides[0].target.connections) == 5


def test_the_documents_example():
    """9.3: TCP2 hits a limit, Path2 fails (here: no room for its source address), TCP3 is not attempted."""
    tree = neighbor(
        path(connection(1), connection(2, window=WINDOW + 1)), path(connection(3), remote=3, local=9)
    )
    world = World(config=TargetConfig(max_initial_rcv_wnd=WINDOW, ip_address_capacity=1))
    assert initiate(world, tree) == [
        PARTIAL,
        PARTIAL,
        SUCCESS,
        Status.OFFLOAD_TCP_RCV_WINDOW,
        Status.OFFLOAD_IP_ADDRESS_ENTRIES,
        FAILURE,
    ]


def test_depth_first_makes_the_most_of_scarce_connections():
    tree = neighbor(path(connection(1), connection(2)), path(connection(3), remote=3))
    world = World(config=TargetConfig(tcp_capacity=2))
    assert initiate(world, tree) == [SUCCESS, SUCCESS, SUCCESS, SUCCESS, PARTIAL, Status.OFFLOAD_TCP_ENTRIES]


@pytest.mark.parametrize("drivers", [0, 2])
def test_a_row_of_any_length(drivers):
    """There is no limit on a tree's width (5.2), and the link's filter changes once."""
    world = World(drivers)
    side = world.sides[0]
    filters = []
    set_filter = side.link.set_filter
    side.target.link = Watched(side.link, lambda flows: (filters.append(len(flows)), set_filter(flows)))
    connections = [connection(port) for port in range(1, 3001)]
    assert set(initiate(world, neighbor(path(*connections)))) == {SUCCESS}
    assert filters == [3000]
    tree = row(
        *(
            ProtocolOffloadBlockList(
                type=OffloadStateType.TCP_DELEGATED, delegated=delegated(0), offload_handle=block.offload_handle
            )
            for block in connections
        )
    )
    side.state("terminate_offload", tree)
    assert {block.status for block in walk(tree)} == {SUCCESS} and not side.target.connections
    assert filters == [3000, 0]


@pytest.mark.parametrize(("short", "status"), [("Delivery", Status.RESOURCES), ("hand_over", FAILURE)])
def test_short_of_memory(monkeypatch, short, status):
    """initiate.status.resource-code and, for the copy of BufferedData, initiate.buffered.no-memory."""

    class Short(Delivery):
        def __init__(self, *arguments):
            if short == "Delivery":
                raise MemoryError
            super().__init__(*arguments)

        def hand_over(self, net_buffer_list):
            raise MemoryError

    monkeypatch.setattr("chimney.target.initiate.Delivery", Short)
    world = World()
    assert initiate(world, neighbor(path(connection(1)))) == [SUCCESS, PARTIAL, status]
    assert not world.sides[0].target.connections


def test_the_root_fails_and_nothing_else_is_tried():
    tree = row(neighbor(path(connection(1)), vlan_id=7), neighbor(placeholder(OffloadStateType.IP4), mac=OTHER_MAC))
    world = World(config=TargetConfig(interface_vlans=frozenset({5})))
    assert initiate(world, tree) == [Status.OFFLOAD_VLAN_MISMATCH, FAILURE, FAILURE, FAILURE, SUCCESS]
    assert not world.sides[0].target.neighbors


@pytest.mark.parametrize(
    ("config", "tree", "status"),
    [
        ({"neighbor_capacity": 0}, lambda: neighbor(), Status.OFFLOAD_NEIGHBOR_ENTRIES),
        ({"path_capacity": 0}, lambda: neighbor(path()), Status.OFFLOAD_PATH_ENTRIES),
        ({"tcp_capacity": 0}, lambda: neighbor(path(connection(1))), Status.OFFLOAD_TCP_ENTRIES),
        ({"vlan_capacity": 0}, lambda: neighbor(vlan_id=5), Status.OFFLOAD_VLAN_ENTRIES),
        ({"hw_address_capacity": 0}, lambda: neighbor(dl_source_address=OTHER_MAC), Status.OFFLOAD_HW_ADDRESS_ENTRIES),
        ({"max_path_mtu": 1499}, lambda: neighbor(path()), Status.OFFLOAD_PATH_MTU),
        ({}, lambda: neighbor(path(mtu=1501)), Status.OFFLOAD_PATH_MTU),
        ({}, lambda: neighbor(path(connection(1, state=TcpConnectionState.TIME_WAIT))), FAILURE),
    ],
)
def test_what_is_missing_stands_in_the_status(config, tree, status):
    assert initiate(World(config=TargetConfig(**config)), tree())[-1] == status


@pytest.mark.parametrize("const", [{"dl_source_address": MACS[0]}, {"dl_source_address": bytes(6)}, {"vlan_id": 5}])
def test_what_a_neighbor_may_ask_for(const):
    config = TargetConfig(hw_address_capacity=0, interface_vlans=frozenset({5}))
    assert initiate(World(config=config), neighbor(**const)) == [SUCCESS]


def test_linkers_say_what_became_of_their_dependents():
    world = World(config=TargetConfig(tcp_capacity=2))
    first = connection(1)
    below = path(first)
    root = neighbor(below)
    assert initiate(world, root) == [SUCCESS] * 3
    assert initiate(world, linker(root, linker(below, connection(2)))) == [SUCCESS] * 3
    full = Status.OFFLOAD_TCP_ENTRIES
    assert initiate(world, linker(root, linker(below, connection(3)))) == [FAILURE, FAILURE, full]
    assert initiate(world, linker(root, path(remote=9), linker(below, connection(4)))) == [
        PARTIAL,
        SUCCESS,
        FAILURE,
        full,
    ]


def test_a_placeholder_is_always_successful():
    world = World()
    assert initiate(world, placeholder(OffloadStateType.NEIGHBOR)) == [SUCCESS]
    assert initiate(world, placeholder(OffloadStateType.NEIGHBOR, path())) == [SUCCESS, FAILURE]


def test_a_failed_connection_leaves_its_send_data_alone():
    world = World(config=TargetConfig(tcp_capacity=0))
    block = connection(1)
    chain = net_buffer_list(b"data")
    chain.status = 77
    block.net_buffer_list_chain = chain
    initiate(world, neighbor(path(block)))
    world.run()
    assert chain.status == 77 and block.net_buffer_list_chain is chain
    assert not world.sides[0].host.took("send")


def test_the_same_connection_twice():
    world = World()
    below = path(connection(1))
    root = neighbor(below)
    initiate(world, root)
    assert initiate(world, linker(root, linker(below, connection(1))))[-1] == FAILURE


def test_handed_over_send_data_goes_first_and_completes(seed):
    world = World(seed=seed, delay_us=10)
    a, b = world.ends()
    chain = net_buffer_list(b"chained, ")
    a.initiate(chain), b.initiate()
    [(nbl, memory)] = b.receive(13, push=False)
    [later] = a.send(b"sent")
    world.run()
    assert memory == b"chained, sent"
    assert [entry[0] for entry in a.host.took("send")] == [chain, later]


def test_an_initiate_only_records_and_completes_later(seed):
    world = World(seed=seed)
    a, b = world.ends()
    tree = b.initiate_tree()
    b.side.binding.initiate_offload(tree)
    assert not b.host.log and b.side.target.find(b.flow) is None and b.side.target.poll_at() <= world.clock()
    b.side.target.flush(world.clock())
    assert [entry[0] for entry in b.host.log] == ["initiate"] and b.side.target.find(b.flow) is not None


# Query


def test_query_reads_every_class_of_every_object(seed):
    world = World(seed=seed)
    a, b = world.connect()
    b.send(b"12345")
    world.run()
    tcp = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP,
        const=TcpConst(0, 0, 0, 0, 0, 0),
        cached=TcpCached(0, 0),
        delegated=delegated(0, rcv_nxt=0),
        offload_handle=a.handle,
    )
    over = ProtocolOffloadBlockList(
        type=OffloadStateType.IP4,
        const=PathConst(b"", b""),
        cached=PathCached(0),
        offload_handle=a.path_handle,
        dependent_block_list=tcp,
    )
    root = ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR,
        const=NeighborConst(),
        cached=NeighborCached(b""),
        delegated=NeighborDelegated(),
        offload_handle=a.neighbor_handle,
        dependent_block_list=over,
    )
    a.side.state("query_offload_state", root)
    assert a.host.log[-1] == ("query", root, SUCCESS, 0)
    assert [block.status for block in walk(root)] == [SUCCESS] * 3
    assert root.cached.dl_destination_address == MACS[1]
    assert over.const == PathConst(a.flow.local_address, a.flow.remote_address) and over.cached.path_mtu == 1500
    assert tcp.const == a.const and tcp.cached == a.cached
    assert tcp.delegated.rcv_nxt == a.delegated.rcv_nxt + 5
    assert tcp.delegated.receive_backlog_size == 5 and tcp.delegated.send_backlog_size == 0xFFFFFFFF
    # Querying changes nothing.
    [(nbl, memory)] = a.receive(5)
    world.run()
    assert memory == b"12345"


def delegated_of(end):
    """The connection's delegated state, queried."""
    block = ProtocolOffloadBlockList(type=OffloadStateType.TCP_DELEGATED, delegated=delegated(0))
    block.offload_handle = end.handle
    end.side.state("query_offload_state", block)
    assert block.status == SUCCESS
    return block.delegated


def test_query_of_what_is_not_offloaded():
    world = World()
    block = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=OffloadHandle(None))
    with pytest.raises(ValueError, match="not offloaded"):
        world.sides[0].state("query_offload_state", block)


# Update


def reference(type_, handle, cached=None, *dependents):
    return ProtocolOffloadBlockList(
        type=type_, cached=cached, offload_handle=handle, dependent_block_list=row(*dependents)
    )


def update(end, block):
    end.side.state("update_offload", block)
    assert {node.status for node in walk(block)} == {SUCCESS}


def sent_frame(world, end):
    """The next frame that this end sends, for 2,000 bytes."""
    del world.wire[:]
    end.send(bytes(2000))
    world.poll()
    return world.wire[0][2]


def test_a_new_mac_address():
    world = World()
    a, _ = world.connect()
    update(a, reference(OffloadStateType.NEIGHBOR_CACHED, a.neighbor_handle, NeighborCached(OTHER_MAC)))
    assert sent_frame(world, a)[:6] == OTHER_MAC


def test_a_smaller_path_mtu():
    world = World()
    a, _ = world.connect()
    assert len(sent_frame(world, a)) == 1514
    update(a, reference(OffloadStateType.IP4_CACHED, a.path_handle, PathCached(1000)))
    assert len(sent_frame(world, a)) == 1014


def test_header_fields_of_the_connection():
    world = World()
    a, _ = world.connect()
    cached = TcpCached(TcpCachedFlags(0), WINDOW, ttl_or_hop_limit=7, tos_or_traffic_class=0x28)
    update(a, reference(OffloadStateType.TCP_CACHED, a.handle, cached))
    frame = sent_frame(world, a)
    assert (frame[15], frame[22]) == (0x28, 7)


def test_a_larger_receive_window_is_advertised():
    world = World()
    a, b = world.connect()
    cached = TcpCached(TcpCachedFlags.UPDATE_RCV_WND, 2 * WINDOW)
    update(a, reference(OffloadStateType.TCP_CACHED, a.handle, cached))
    world.poll()
    assert b.offloaded.engine.snd_wnd == 2 * WINDOW


def test_keepalive_is_switched_on():
    world = World()
    a, _ = world.connect()
    cached = TcpCached(TcpCachedFlags.KEEP_ALIVE_ENABLED, WINDOW, ka_timeout=5000, ka_interval=1000, ka_probe_count=3)
    update(a, reference(OffloadStateType.TCP_CACHED, a.handle, cached))
    world.run(duration=5_000_000)
    assert [name for _, name, _ in world.wire] == ["a", "b"], "a probe and its answer"


def relink(end):
    """Move the path to a new neighbor; returns that neighbor's block."""
    other = neighbor(mac=OTHER_MAC)
    end.side.state("initiate_offload", other)
    moved = reference(end.ip_type, end.path_handle)
    update(end, reference(OffloadStateType.NEIGHBOR, other.offload_handle, None, moved))
    return other


def test_a_path_moves_to_another_next_hop():
    world = World()
    a, _ = world.connect()
    relink(a)
    assert sent_frame(world, a)[:6] == OTHER_MAC
    # The old neighbor has no dependents any more.
    old = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR_DELEGATED, offload_handle=a.neighbor_handle)
    a.side.state("terminate_offload", old)
    assert old.status == SUCCESS


# Invalidate


@pytest.mark.parametrize("which", ["handle", "path_handle", "neighbor_handle"])
def test_an_invalid_object_silences_its_connections(which):
    world = World()
    a, b = world.connect()
    block = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=getattr(a, which))
    a.side.state("invalidate_offload", block)
    assert block.status == SUCCESS
    assert ("INDICATE_RETRIEVE", UploadReason.INVALID_STATE) in [entry[::2] for entry in a.host.log]
    del world.wire[:]
    [(nbl, _)] = a.receive(5)
    [send] = a.send(b"x")
    world.poll()
    assert a.host.took("send") == [(send, Status.UPLOAD_IN_PROGRESS, 0)]
    assert a.host.took("receive") == [(nbl, Status.UPLOAD_IN_PROGRESS, 0)]
    a.terminate()
    world.run()
    assert not world.wire


def test_connections_are_asked_for_in_the_order_in_which_they_came():
    """Where their records are in memory must not show: a run of the same events is the same run."""
    world = World()
    paths = [path(*map(connection, range(first, first + 20)), remote=first) for first in (2, 22, 42)]
    tree = neighbor(*paths)
    assert set(initiate(world, tree)) == {SUCCESS}
    world.sides[0].state("invalidate_offload", linker(tree))
    told = [handle.protocol_context for handle, *_ in world.sides[0].host.took("INDICATE_RETRIEVE")]
    assert told == list(range(2, 62))


def test_a_connection_goes_on_when_its_path_has_a_valid_neighbor_again():
    world = World()
    a, b = world.connect()
    [early] = a.send(b"x")
    block = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR, offload_handle=a.neighbor_handle)
    a.side.state("invalidate_offload", block)
    world.poll()
    assert not world.wire
    relink(a)
    world.poll()
    assert world.wire[0][2][:6] == OTHER_MAC
    a.send(b"y")
    world.poll()
    assert not a.host.took("send")


def test_a_valid_neighbor_is_no_reason_to_take_requests_while_everything_is_to_go_back():
    world = World()
    a, _ = world.connect()
    block = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR, offload_handle=a.neighbor_handle)
    a.side.state("invalidate_offload", block)
    a.side.target.upload_all()
    relink(a)
    [send] = a.send(b"x")
    world.poll()
    assert a.host.took("send") == [(send, Status.UPLOAD_IN_PROGRESS, 0)]


# Conversion


def test_state_survives_a_round_trip_through_the_engine(seed):
    """Ticks to microseconds and back: what the documents' variables say stays the same."""
    state = delegated(
        0,
        s_rtt=8 * 123,
        rtt_var=4 * 45,
        ts_recent_age=678,
        ts_time=0xFFFFFFF0,
        total_rt=90,
        dup_ack_count=2,
        snd_wnd_probe_count=3,
        keep_alive=TimerRemainder(1, 5000),
        retransmit=TimerRemainder(4, 0),
    )
    again = delegated(1)
    config = TargetConfig()
    write_delegated(again, engine_tcb(state, 0, config), config)
    assert again == state


def test_timestamps_go_on_where_they_were(seed):
    world = World()
    a, _ = world.ends()
    a.delegated.ts_time = 0xFFFFFFFF
    a.initiate()
    world.run(duration=10_000)
    a.terminate()
    assert a.delegated.ts_time == 9


# Reachability


def test_the_host_is_asked_about_a_silent_neighbor():
    world = World(config=TargetConfig(nce_stale_ticks=1000))
    a, b = world.connect()
    asked = []

    def answer(block):
        asked.append((block.cached.host_reachability_delta, block.delegated.nic_reachability_delta))
        assert block.offload_handle is a.neighbor_handle
        block.cached.host_reachability_delta = 0

    a.host.on["generic"] = answer
    world.run(duration=999_000)
    a.send(b"x")
    world.run(duration=3_000_000)
    assert not asked, "not stale, and then confirmed by an acknowledgement"
    a.send(b"y")
    world.poll()
    assert len(asked) == 1 and min(asked[0]) > 1000


def test_new_data_shows_that_a_neighbor_is_reachable():
    """It would not come without our acknowledgements (event.reach.progress)."""
    world = World(config=TargetConfig(nce_stale_ticks=1000))
    a, b = world.connect()
    world.run(duration=2_000_000)
    b.send(b"x")
    world.run(duration=100)
    a.send(b"y")
    world.poll()
    assert not a.host.took("generic") and b.host.took("generic")
    assert a.offloaded.path.neighbor.nic_reachable_at == world.clock() - 100


def test_the_hosts_answer_counts_from_then_on():
    """event.reach.answer: its own delta, and the next question NceStaleTicks after that confirmation."""
    world = World(config=TargetConfig(nce_stale_ticks=1000))
    a, _ = world.connect()
    world.network.loss = 1.0
    answers = [400, 0]
    a.host.on["generic"] = lambda block: setattr(block.cached, "host_reachability_delta", answers.pop(0))
    asked = []
    for duration in (1_500_000, 600_000, 1000):
        world.run(duration=duration)
        a.send(b"x")
        world.poll()
        asked.append(len(a.host.took("generic")))
    assert asked == [1, 1, 2]
    [tree] = [block for block, *_ in a.host.took("generic")[1:]]
    assert (tree.type, tree.next_block, tree.dependent_block_list) == (OffloadStateType.NEIGHBOR, None, None)
    assert tree.const == NeighborConst() and tree.offload_handle is a.neighbor_handle and tree.status == SUCCESS
