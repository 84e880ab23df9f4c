"""Failing hardware (9.8), failing updates, and memory that runs short (9.3)."""

import pytest

from chimney.ndis import (
    DisconnectFlags,
    OffloadStateType,
    ProtocolOffloadBlockList,
    Status,
    UploadReason,
    net_buffer_list,
)
from chimney.ndis.state import NeighborDelegated, PathCached, TcpCached, walk
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState
from chimney.target import TargetConfig
from tests.target.machine import WINDOW, World, delegated

SUCCESS, FAILURE, PARTIAL = Status.SUCCESS, Status.FAILURE, Status.OFFLOAD_PARTIAL_SUCCESS
ABORTED, UPLOAD = int(Status.REQUEST_ABORTED), int(Status.UPLOAD_IN_PROGRESS)
HARDWARE = UploadReason.HARDWARE_FAILURE


@pytest.fixture(params=[0, 2], ids=["no driver", "two drivers"])
def world(request, seed):
    return World(request.param, seed=seed, delay_us=10)


def names(end):
    return [entry[0] for entry in end.host.log]


def reference(end, **state):
    return ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=end.handle, **state)


def busy(world):
    """An end with requests of every kind that cannot complete, whose hardware has failed."""
    a, _ = world.connect()
    world.network.loss = 1.0
    sends = a.send(b"x" * 5000, b"y")
    a.forward(a.segment(0, b"12", push=False))
    receives = [nbl for nbl, _ in a.receive(10, 20, push=False)]
    last = a.disconnect()
    world.poll()
    del a.host.log[:]
    a.side.target.fail_hardware(a.flow)
    return a, sends, receives, last


@pytest.mark.parametrize("operation", ["query_offload_state", "invalidate_offload"])
def test_an_operation_that_meets_failed_hardware(world, operation):
    a, sends, receives, last = busy(world)
    block = reference(a, delegated=delegated(0) if operation == "query_offload_state" else None)
    a.side.state(operation, block)
    assert block.status == FAILURE
    assert [entry[0] for entry in a.host.log] == [operation.split("_")[0], "INDICATE_RETRIEVE", "INDICATE_ABORT"]
    assert a.host.took("INDICATE_RETRIEVE") == [(a.handle, HARDWARE, 0)]
    # Nothing happens to it until the host terminates it; what is posted meanwhile ends as all the others do.
    [(posted, _)] = a.receive(5)
    waiting = a.forward(a.segment(2, b"34"))
    del world.wire[:]
    world.run(duration=10_000_000)
    assert len(a.host.log) == 3 and not world.wire
    del a.host.log[:]
    block = a.terminate()
    assert a.host.took("send") == [(nbl, ABORTED, 0) for nbl in sends]
    counts = [2, 0, 0]
    assert a.host.took("receive") == [(n, ABORTED, c) for n, c in zip([*receives, posted], counts, strict=True)]
    assert a.host.took("disconnect") == [(last, ABORTED, 0)]
    assert a.host.took("forward") == [(waiting[0], ABORTED, 0)]
    assert names(a)[-1] == "terminate" and block.net_buffer_list_chain is None
    assert a.delegated.state is TcpConnectionState.CLOSED
    assert a.offloaded is None and not world.wire


def test_a_terminate_that_meets_failed_hardware(world):
    """It completes with FAILURE, and the second one ends the requests (A6); what the connection needs stays, too."""
    a, sends, receives, last = busy(world)
    tree = a.terminate_tree()
    a.side.binding.terminate_offload(tree)
    world.poll()
    assert [block.status for block in walk(tree)] == [FAILURE] * 3
    assert names(a) == ["terminate", "INDICATE_RETRIEVE", "INDICATE_ABORT"]
    assert a.handle.miniport_offload_context is not None and a.offloaded is not None
    world.run(duration=1_000_000)
    assert len(a.host.log) == 3
    a.terminate()
    assert a.host.took("send") == [(nbl, ABORTED, 0) for nbl in sends]
    assert {status for _, status, _ in a.host.took("receive") + a.host.took("disconnect")} == {ABORTED}
    assert names(a)[-1] == "terminate" and a.offloaded is None
    assert not a.side.target.paths and not a.side.target.neighbors


def test_only_the_failed_connection_of_a_tree_stays(world):
    a, _ = world.connect()
    late = world.ends(2000)[0]
    late.path_handle, late.neighbor_handle = a.path_handle, a.neighbor_handle
    late.initiate()
    a.side.target.fail_hardware(a.flow)
    tree = a.terminate_tree()
    [block] = [block for block in walk(tree) if block.offload_handle is a.handle]
    block.next_block = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP_DELEGATED, delegated=delegated(0), offload_handle=late.handle
    )
    a.side.binding.terminate_offload(tree)
    world.poll()
    assert [block.status for block in walk(tree)] == [FAILURE, FAILURE, FAILURE, SUCCESS]
    assert late.offloaded is None
    a.terminate()


def test_abortive_disconnects_of_failed_hardware_send_nothing(world):
    a, _ = world.connect()
    a.side.target.fail_hardware(a.flow)
    a.side.state("query_offload_state", reference(a, delegated=delegated(0)))
    abortive = [a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE) for _ in range(2)]
    world.poll()
    assert not a.host.took("disconnect")
    a.terminate()
    ended = a.host.took("disconnect")
    assert {nbl for nbl, _, _ in ended} == set(abortive) and len(ended) == 2 and not world.wire
    assert {status for _, status, _ in ended} == {ABORTED}


def test_failed_hardware_is_reported_once(world):
    a, _ = world.connect()
    a.side.target.fail_hardware(a.flow)
    for _ in range(2):
        block = reference(a, delegated=delegated(0))
        a.side.state("query_offload_state", block)
        assert block.status == FAILURE
    assert len(a.host.took("INDICATE_ABORT")) == 1


def test_hardware_that_fails_unnoticed_goes_on(world):
    a, b = world.connect()
    a.side.target.fail_hardware(a.flow)
    b.receive(4)
    [send] = a.send(b"data")
    world.run()
    assert a.host.took("send") == [(send, int(SUCCESS), 4)]


# Updates


def test_a_connection_goes_on_after_an_update_that_failed(world):
    """update.failure: with its old values."""
    a, b = world.connect()
    a.side.target.fail_update(a.flow)
    block = reference(a, cached=TcpCached(TcpCachedFlags(0), WINDOW, ttl_or_hop_limit=9))
    block.type = OffloadStateType.TCP_CACHED
    a.side.state("update_offload", block)
    assert block.status == FAILURE and names(a)[-1] == "update"
    b.receive(4)
    [send] = a.send(b"data")
    world.run()
    assert a.host.took("send") == [(send, int(SUCCESS), 4)]
    assert world.wire[0][2][22] == 64
    a.side.state("update_offload", block)
    assert block.status == SUCCESS


def test_an_update_to_more_than_the_target_can_do_fails(seed):
    world = World(config=TargetConfig(max_initial_rcv_wnd=WINDOW), seed=seed)
    a, _ = world.connect()
    tcp = reference(a, cached=TcpCached(TcpCachedFlags.UPDATE_RCV_WND, WINDOW + 1))
    over = ProtocolOffloadBlockList(
        type=OffloadStateType.IP4_CACHED,
        cached=PathCached(9000),
        offload_handle=a.path_handle,
        dependent_block_list=tcp,
    )
    a.side.state("update_offload", over)
    assert over.status == tcp.status == FAILURE
    assert a.offloaded.path.path_mtu == 1500 and a.offloaded.engine.receiver.window.size == WINDOW


# Short of memory


@pytest.mark.parametrize(
    ("what", "statuses"),
    [
        ("neighbor", [Status.RESOURCES, FAILURE, FAILURE]),
        ("path", [PARTIAL, Status.RESOURCES, FAILURE]),
        ("connection", [SUCCESS, PARTIAL, Status.RESOURCES]),
        ("transmit buffer", [SUCCESS, PARTIAL, Status.OFFLOAD_TCP_XMIT_BUFFER]),
        ("receive buffer", [SUCCESS, PARTIAL, Status.OFFLOAD_TCP_RCV_BUFFER]),
        ("buffered data", [SUCCESS, PARTIAL, FAILURE]),
    ],
)
def test_what_an_initiate_finds_no_memory_for(world, what, statuses):
    a, _ = world.ends()
    a.side.target.allocate = lambda asked: asked != what
    a.delegated.buffered_data = net_buffer_list(b"kept")
    chain = net_buffer_list(b"to be sent")
    chain.status = 77
    assert a.initiate(chain) == statuses
    world.run()
    assert chain.status == 77 and not a.host.took("send") and not a.side.target.connections
    assert a.handle.miniport_offload_context is None


def test_a_connection_that_the_target_has_no_memory_for_goes_back(world):
    """upload.resource: nothing of what cannot be kept is acknowledged, and the frame goes to the host."""
    a, b = world.connect()
    b.side.target.allocate = lambda what: what != "segment"
    a.send(b"data")
    world.run(duration=100_000)
    assert b.host.took("INDICATE_RETRIEVE")[0][1] == UploadReason.UPLOAD_REQUESTED
    assert not a.host.took("send")
    rcv_nxt = b.delegated.rcv_nxt
    b.terminate()
    assert b.delegated.rcv_nxt == rcv_nxt and b.host.ordinary[0].endswith(b"data")


# What the target keeps


def test_state_structures_are_the_hosts_again_after_the_completion(world):
    """bl.lifetime."""
    a, _ = world.connect()
    a.const.remote_port = a.const.local_port = 1
    a.neighbor.vlan_id = 7
    a.neighbor_cached.dl_destination_address = bytes(6)
    a.send(b"x")
    world.poll()
    frame = world.wire[0][2]
    assert frame[:6] != bytes(6) and frame[34:38] == b"\x03\xe8\x03\xe9"
    item = a.offloaded
    assert (item.const.remote_port, item.path.neighbor.const.vlan_id) == (1001, 0)


def test_a_neighbor_reports_its_reachability_when_it_goes_back(world):
    a, _ = world.connect()
    world.run(duration=5_000_000)
    tree = a.terminate_tree()
    a.side.state("terminate_offload", tree)
    assert tree.delegated == NeighborDelegated(5000)
