"""The chimney's ends: what comes back from the target, and when the host may end a request by itself."""

from __future__ import annotations

import socket

import pytest

from chimney.host.connection import Connection, Owner
from chimney.host.errors import NotOffloadable
from chimney.ndis import Status, TcpOffloadEvent
from chimney.ndis.buffers import net_buffer_list
from chimney.ndis.state import walk
from chimney.ndis.status import OffloadStateType, TcpConnectionState
from tests.host.scripted import IRS, ISS, ScriptedStack


@pytest.fixture(params=[0, 2], ids=["direct", "two drivers"])
def stack(request):
    return ScriptedStack(request.param)


@pytest.fixture
def connection(stack):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(stack, ours, stack.kernel)


def test_a_receive_at_the_end_of_the_stream_waits_for_those_before_it(stack, connection):
    """The end is told while the last bytes are still on their way up."""
    connection.offload()
    first = connection.post_receive(bytearray(8))
    target = stack.target
    target.handle.tcp_offload_event_handler(target.tcp_handle, int(TcpOffloadEvent.INDICATE_DISCONNECT), 0)
    second = connection.post_receive(bytearray(8))
    assert not second.done and len(stack.target.receives) == 2
    stack.target.complete_receive(b"last")
    stack.target.complete_receive(b"")
    assert (first.bytes_transferred, second.bytes_transferred) == (4, 0) and second.error is None


def test_a_disconnect_that_a_driver_has_no_memory_for_leads_to_an_upload(stack, connection):
    connection.offload()
    shutdown = connection.shutdown()
    stack.during_poll.append(lambda: stack.target.complete_disconnect(Status.REQUEST_UPLOAD))
    stack.target.final = {"snd_una": ISS, "snd_max": ISS}
    stack.poll()
    assert connection.owner is Owner.KERNEL and not shutdown.done
    stack.poll()
    assert shutdown.done and shutdown.error is None and stack.kernel.shut


_RETURNED = {
    OffloadStateType.NEIGHBOR: OffloadStateType.NEIGHBOR_DELEGATED,
    OffloadStateType.IP4: OffloadStateType.IP4_DELEGATED,
}


@pytest.mark.parametrize("kept", [1, 2], ids=["neighbor", "neighbor and path"])
def test_what_a_refused_initiate_has_offloaded_is_taken_back(stack, connection, kept):
    target, types = stack.target, list(_RETURNED)[:kept]
    target.answer, target.terminate_at_once = None, False

    def refuse():
        if not target.initiated:
            # The tap is emptied first.
            stack.during_poll.append(refuse)
            return
        for block in walk(target.initiated[-1]):
            block.status = Status.RESOURCES
            if block.type in types:
                block.status, block.miniport_offload_context = Status.OFFLOAD_PARTIAL_SUCCESS, object()
        target.handle.initiate_offload_complete(target.initiated[-1])
        stack.during_poll.append(take_back)

    def take_back():
        for block in walk(target.terminated[-1]):
            block.status = Status.SUCCESS
        target.handle.terminate_offload_complete(target.terminated[-1])

    stack.during_poll.append(refuse)
    with pytest.raises(NotOffloadable, match="RESOURCES"):
        connection.offload()
    assert connection.owner is Owner.KERNEL
    [tree] = target.terminated
    assert [block.type for block in walk(tree)] == [_RETURNED[each] for each in types]
    target.answer, target.terminate_at_once = Status.SUCCESS, True
    connection.offload()
    assert connection.offloaded
    # They are offloaded anew.
    assert all(block.const is not None for block in walk(target.initiated[-1]))


def closed(stack, connection, rcv_nxt, buffered=b"", shut=False):
    """What the kernel is given when the target has found the connection closed, and has not said why."""
    connection.offload()
    if shut:
        connection.shutdown()
        stack.target.complete_disconnect()
    data = net_buffer_list(buffered) if buffered else None
    stack.target.final = {"state": TcpConnectionState.CLOSED, "rcv_nxt": rcv_nxt, "buffered_data": data}
    connection.upload()
    return stack.kernel.given[0]


@pytest.mark.parametrize("shut", [False, True], ids=["open", "shut"])
def test_a_closed_connection_whose_streams_have_not_both_ended_was_reset(stack, connection, shut):
    given = closed(stack, connection, IRS + 4, b"data", shut)
    assert given.error


def test_a_closed_connection_whose_streams_have_both_ended_was_not_reset(stack, connection):
    """The peer's FIN counts in RCV.NXT; what is unread has kept the target from telling of it."""
    given = closed(stack, connection, IRS + 5, b"data", shut=True)
    assert not given.error and b"".join(given.unread) == b"data"
