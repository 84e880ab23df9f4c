"""The switch: what becomes of requests on the kernel path, in the chimney, and on the way between them."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import replace

import pytest

from chimney.host.connection import Connection, Owner
from chimney.host.elsewhere import Nowhere
from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.segments import KeptSegment
from chimney.ndis import DisconnectFlags, Status, TcpOffloadEvent, UploadReason
from chimney.ndis.buffers import link, net_buffer_list
from chimney.ndis.state import walk
from chimney.ndis.status import TcpConnectionState
from tests.host.scripted import FLOW, ISS, ScriptedKernel, ScriptedStack


@pytest.fixture(params=[0, 2], ids=["direct", "two drivers"])
def stack(request):
    return ScriptedStack(request.param)


@pytest.fixture
def connection(stack):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(stack, ours, stack.kernel)


def order(done):
    return lambda request: done.append(request)


def test_kernel_path_completes_in_posting_order_and_waits_for_room(stack, connection):
    stack.kernel.room = 5
    done = []
    first = connection.post_send(b"abc", order(done))
    second = connection.post_send(b"defg", order(done))
    stack.poll()
    assert done == [first] and bytes(stack.kernel.outgoing) == b"abcde"
    assert stack.kernel.interest == (False, True)
    stack.kernel.room = 100
    connection.kernel_ready()
    stack.poll()
    stack.poll()
    assert done == [first, second] and bytes(stack.kernel.outgoing) == b"abcdefg"
    assert stack.kernel.interest == (False, False)


def test_kernel_path_receives_and_tells_the_end_of_the_stream(stack, connection):
    buffer = bytearray(4)
    first, second = connection.post_receive(buffer), connection.post_receive(bytearray(4))
    stack.poll()
    assert stack.kernel.interest == (True, False) and not first.done
    stack.kernel.incoming += b"hi"
    stack.kernel.ended = True
    connection.kernel_ready()
    stack.poll()
    assert (first.bytes_transferred, bytes(buffer[:2])) == (2, b"hi")
    assert second.done and second.bytes_transferred == 0 and second.error is None


def test_an_error_of_the_socket_ends_everything_in_order(stack, connection):
    stack.kernel.error = ConnectionResetError("gone")
    requests = [connection.post_send(b"x"), connection.post_send(b"y"), connection.post_receive(bytearray(1))]
    shutdown = connection.shutdown()
    stack.poll()
    assert all(r.done and r.error is stack.kernel.error for r in [*requests, shutdown])
    late = connection.post_receive(bytearray(1))
    stack.poll()
    assert late.error is stack.kernel.error


def test_requests_posted_by_callbacks_on_a_failed_connection_have_a_turn_of_their_own(stack, connection):
    posted = []

    def again(request):
        posted.append(request)
        if len(posted) < 100:
            connection.post_receive(bytearray(1), again)

    def fail(data):
        stack.kernel.send, stack.kernel.ended = None, True
        raise ConnectionResetError("gone")

    connection.post_receive(bytearray(1), again)
    connection.post_send(b"x", lambda request: connection.post_receive(bytearray(1), again))
    stack.kernel.send = fail
    stack.poll()
    ended = len(posted)
    assert 2 <= ended < 10
    stack.poll()
    assert ended < len(posted) < 20
    assert all(isinstance(request.error, ConnectionResetError) for request in posted)


def test_shutdown_waits_for_the_sends(stack, connection):
    stack.kernel.room = 1
    connection.post_send(b"ab")
    request = connection.shutdown()
    stack.poll()
    assert not stack.kernel.shut and not request.done
    stack.kernel.room = 2
    connection.kernel_ready()
    stack.poll()
    stack.poll()
    assert stack.kernel.shut and request.done
    with pytest.raises(BrokenPipeError, match="after shutdown"):
        connection.post_send(b"c")


def test_down_everything_goes_along(stack, connection):
    stack.kernel.room = 2
    stack.kernel.unsent = b"01"
    head = connection.post_send(b"abcd")
    stack.poll()
    stack.kernel.incoming += b"unread"
    receive = connection.post_receive(bytearray(10), push=False)
    connection.shutdown()
    connection.offload()
    assert connection.offloaded and stack.watched == [FLOW]
    # What the kernel had taken comes first, as the chain, then what it had not.
    assert [b"".join(n.first_net_buffer.views()) for n in stack.target.sends] == [b"01", b"cd"]
    tree = stack.target.initiated[0]
    tcp = stack.target._tcp(tree)
    assert tcp.delegated.send_data_head is tcp.delegated.send_data_tail is stack.target.sends[0]
    assert b"".join(tcp.delegated.buffered_data.first_net_buffer.views()) == b"unread"
    assert [n.tcp_receive_no_push for n in stack.target.receives] == [True]
    assert [flags for _, flags in stack.target.disconnects] == [DisconnectFlags.GRACEFUL_CLOSE]
    stack.target.complete_send()
    stack.target.complete_send()
    assert head.done and head.bytes_transferred == 4 and head.error is None
    stack.target.complete_receive(b"unread")
    assert receive.bytes_transferred == 6
    stack.target.complete_disconnect()
    assert connection.shutdown_request.done


def test_a_refused_offload_leaves_the_connection_in_the_kernel(stack, connection):
    stack.kernel.unsent = b"01"
    stack.kernel.incoming += b"unread"
    stack.target.answer = Status.OFFLOAD_TCP_ENTRIES
    with pytest.raises(NotOffloadable, match="OFFLOAD_TCP_ENTRIES"):
        connection.offload()
    assert connection.owner is Owner.KERNEL and stack.watched == []
    given = stack.kernel.given[0]
    assert b"".join(given.sent) == b"01" and b"".join(given.unread) == b"unread"
    stack.poll()
    assert not connection.sends
    assert connection.recv(10) == b"unread"
    stack.target.answer = Status.SUCCESS
    connection.offload()
    assert connection.offloaded


@pytest.mark.parametrize("kind", [NotOffloadable, UploadFailed])
def test_what_the_kernel_refuses_changes_nothing(stack, connection, kind):
    stack.kernel.refusal = kind("it listens")
    receive = connection.post_receive(bytearray(4))
    with pytest.raises(kind, match="it listens"):
        connection.offload()
    stack.kernel.incoming += b"data"
    stack.poll()
    assert receive.bytes_transferred == 4 and stack.watched == []


def test_a_tap_that_does_not_let_the_connection_in_changes_nothing(stack, connection, monkeypatch):
    class Heard(Nowhere):
        flows = []

        def watch(self, plan, take):
            self.flows.append(plan.flow)
            return []

        def unwatch(self, flow):
            self.flows.remove(flow)

    def refuse(flow):
        raise OSError(errno.ENOMEM, "no memory for the filter")

    stack.elsewhere = Heard()
    monkeypatch.setattr(stack, "watch", refuse)
    with pytest.raises(NotOffloadable, match=r"eth0.*no memory"):
        connection.offload()
    stack.kernel.incoming += b"data"
    receive = connection.post_receive(bytearray(4))
    stack.poll()
    assert receive.bytes_transferred == 4 and Heard.flows == []


def test_segments_that_come_during_the_initiate_are_forwarded(stack, connection):
    stack.target.answer = None
    packet = bytes([0x45]) + bytes(19) + b"tcp segment of twenty"
    segment = KeptSegment(FLOW, packet, 20)

    def arrive():
        if not stack.target.initiated:
            # The tap is emptied before the cut.
            stack.during_poll.append(arrive)
            return
        connection.hand_over.keep(segment)
        assert connection.owner is Owner.OFFLOADING and not stack.target.forwards
        stack.during_poll.append(lambda: stack.target.complete_initiate(Status.SUCCESS))

    stack.during_poll.append(arrive)
    connection.offload()
    assert [b"".join(n.first_net_buffer.views()) for n in stack.target.forwards] == [b"tcp segment of twenty"]
    # One that the target did not process any more is the host's again, whatever the target did with Scratch.
    stack.target.forwards[0].scratch = "the target's"
    stack.target.forwards[0].status = int(Status.UPLOAD_IN_PROGRESS)
    stack.target.handle.tcp_offload_forward_complete(stack.target.forwards[0])
    connection.upload()
    assert stack.kernel.injected == [packet]


def test_up_everything_comes_along(stack, connection):
    connection.offload()
    done = []
    sends = [connection.post_send(data, order(done)) for data in (b"acked", b"half-acked", b"unsent")]
    receives = [connection.post_receive(bytearray(8)) for _ in range(2)]
    shutdown = connection.shutdown()
    stack.target.complete_send()
    stack.target.acknowledge_head(4)
    stack.target.receives[0].first_net_buffer.views()[0][:3] = b"par"
    stack.target.complete_receive(b"par", Status.UPLOAD_IN_PROGRESS)
    buffered = net_buffer_list(b"buffered")
    stack.target.final = {"snd_una": ISS, "snd_nxt": ISS + 6, "snd_max": (ISS + 6), "buffered_data": buffered}
    connection.upload()
    assert done == sends[:2] and receives[0].bytes_transferred == 3
    given = stack.kernel.given[0]
    assert b"".join(given.sent) == b"-acked" and b"".join(given.unread) == b"buffered"
    assert stack.target.returned == [buffered]
    stack.poll()
    stack.poll()
    assert bytes(stack.kernel.outgoing) == b"unsent" and done == sends
    assert all(s.error is None and s.bytes_transferred == s.length for s in sends)
    assert receives[1].bytes_transferred == 8 and shutdown.done and stack.kernel.shut
    info = connection.info()
    assert (info.offloads, info.uploads) == (1, 1)
    assert info.offload_seconds == info.upload_seconds == [1e-5], "by the services' clock"
    assert (info.bytes_sent_target, info.bytes_received_target) == (9, 11)
    assert info.retransmits == 3


def test_last_segments_that_the_kernel_has_no_memory_for(stack, connection):
    """The peer sends them again; the connection is the kernel's in any case."""
    connection.offload()
    receive = connection.post_receive(bytearray(8))
    stack.target.final = {"snd_una": ISS, "snd_nxt": ISS, "snd_max": ISS}

    def inject(packets):
        raise OSError(errno.EMFILE, "too many open files")

    stack.kernel.inject = inject
    tcp = struct.pack("!HHIIBBHHH", 4000, 80, 1, 1, 0x50, 0x10, 1, 0, 0)
    take, segment = connection.hand_over.arrived, KeptSegment(FLOW, bytes(20) + tcp, 20)
    give_back = stack.kernel.give_back

    def busy(state, meanwhile):
        give_back(state, meanwhile)
        take([segment])

    stack.kernel.give_back = busy
    connection.upload()
    assert connection.owner is Owner.KERNEL and not stack.offloaded
    stack.kernel.incoming += b"go on"
    stack.poll()
    assert receive.bytes_transferred == 5


def test_what_the_kernel_does_not_take_goes_on_in_the_target(stack, connection):
    connection.offload()
    sends = [connection.post_send(data) for data in (b"in flight", b"unsent")]
    receive = connection.post_receive(bytearray(8))
    stack.kernel.failures = [UploadFailed("the interface is down")]
    stack.target.acknowledge_head(3)
    stack.target.final = {"snd_una": ISS + 3, "snd_max": ISS + 9, "buffered_data": net_buffer_list(b"buffered")}
    with pytest.raises(UploadFailed, match="down"):
        connection.upload()
    assert connection.offloaded and not any(request.done for request in [*sends, receive])
    again = stack.target._tcp(stack.target.initiated[1])
    assert (again.delegated.snd_una, again.delegated.snd_max) == (ISS + 3, ISS + 9)
    assert [b"".join(n.first_net_buffer.views()) for n in stack.target.sends] == [b"flight", b"unsent"]
    assert b"".join(again.delegated.buffered_data.first_net_buffer.views()) == b"buffered"
    assert len(stack.target.receives) == 1
    stack.target.final = {"snd_una": ISS + 3, "snd_max": ISS + 9, "buffered_data": None}
    connection.upload()
    stack.poll()
    stack.poll()
    assert b"".join(stack.kernel.given[0].sent) == b"flight" and bytes(stack.kernel.outgoing) == b"unsent"
    assert all(send.done and send.error is None for send in sends)
    assert connection.info().uploads == 1


def test_what_came_during_a_terminate_is_not_forwarded_to_the_target(stack, connection):
    connection.offload()
    connection.hand_over.keep(KeptSegment(FLOW, bytes([0x45]) + bytes(39), 20))
    stack.kernel.failures = [UploadFailed("the interface is down")]
    stack.target.final = {"snd_una": ISS, "snd_max": ISS}
    with pytest.raises(UploadFailed, match="down"):
        connection.upload()
    assert connection.offloaded and stack.target.forwards == []


def test_a_failed_terminate_is_asked_for_again(stack, connection):
    """A driver below had no memory for it: nothing has moved, and nobody has seen it."""
    connection.offload()
    send = connection.post_send(b"still there")
    receive = connection.post_receive(bytearray(8))
    stack.target.failing_terminates = 3
    stack.target.final = {"snd_una": ISS, "snd_max": ISS}
    connection.upload()
    assert len(stack.target.terminated) == 4 and connection.owner is Owner.KERNEL
    first, *_, last = stack.target.terminated
    assert [block.type for block in walk(first)] == [block.type for block in walk(last)]
    assert connection.info().uploads == 1
    stack.poll()
    stack.poll()
    assert send.done and bytes(stack.kernel.outgoing) == b"still there" and not receive.done


def test_a_connection_that_is_never_given_back_goes_on_in_the_target(stack, connection):
    connection.offload()
    send, receive = connection.post_send(b"x"), connection.post_receive(bytearray(8))
    shutdown = connection.shutdown()
    stack.target.failing_terminates = 1 << 20
    with pytest.raises(UploadFailed, match="later"):
        connection.upload()
    assert connection.offloaded and not (send.done or receive.done or shutdown.done)
    target = stack.target
    assert (len(target.sends), len(target.receives), len(target.disconnects)) == (1, 1, 1)
    target.failing_terminates = 0
    target.final = {"snd_una": ISS, "snd_max": ISS}
    connection.upload()
    assert connection.owner is Owner.KERNEL
    assert target.terminated[-1].dependent_block_list.dependent_block_list is not None
    assert connection.info().retransmits == 3


def test_a_connection_that_nobody_takes_ends_with_an_error(stack, connection):
    connection.offload()
    send = connection.post_send(b"x")
    stack.kernel.failures = [UploadFailed("no memory")]
    stack.target.final = {"snd_una": ISS, "snd_max": ISS}
    stack.target.answer = Status.OFFLOAD_TCP_ENTRIES
    with pytest.raises(UploadFailed, match="no memory"):
        connection.upload()
    assert isinstance(send.error, ConnectionAbortedError) and "no memory" in str(send.error)
    assert not connection.offloaded and stack.watched == []


def test_a_fin_in_flight_is_no_byte(stack, connection):
    connection.offload()
    connection.post_send(b"last")
    connection.shutdown()
    stack.target.final = {
        "state": TcpConnectionState.FIN_WAIT_1,
        "snd_una": ISS,
        "snd_max": ISS + 5,
    }
    connection.upload()
    assert b"".join(stack.kernel.given[0].sent) == b"last"


def test_a_target_without_memory_leads_to_an_upload(stack, connection):
    connection.offload()
    request = connection.post_send(b"again")
    stack.during_poll.append(lambda: stack.target.complete_send(Status.REQUEST_UPLOAD, 0))
    stack.poll()
    assert connection.owner is Owner.KERNEL
    stack.poll()
    stack.poll()
    assert request.done and bytes(stack.kernel.outgoing) == b"again"


def test_a_reset_ends_everything_and_the_offload(stack, connection):
    connection.offload()
    send, receive = connection.post_send(b"x"), connection.post_receive(bytearray(4))
    stack.target.final = {"state": TcpConnectionState.CLOSED}

    def reset():
        stack.target.handle.tcp_offload_event_handler(stack.target.tcp_handle, int(TcpOffloadEvent.INDICATE_ABORT), 0)
        stack.target.complete_send(Status.REQUEST_ABORTED, 0)
        stack.target.complete_receive(b"", Status.REQUEST_ABORTED)

    stack.during_poll.append(reset)
    stack.poll()
    assert isinstance(send.error, ConnectionResetError) and isinstance(receive.error, ConnectionResetError)
    assert connection.owner is Owner.KERNEL and stack.kernel.given[0].error
    with pytest.raises(NotOffloadable, match="failed"):
        connection.offload()


@pytest.mark.parametrize("reason", UploadReason)
def test_mandatory_reasons_upload_and_optional_ones_do_not(stack, connection, reason):
    connection.offload()
    stack.during_poll.append(
        lambda: stack.target.handle.tcp_offload_event_handler(
            stack.target.tcp_handle, int(TcpOffloadEvent.INDICATE_RETRIEVE), int(reason)
        )
    )
    stack.poll()
    assert connection.offloaded is not reason.mandatory


def test_the_end_of_the_stream_below_is_told_to_later_receives(stack, connection):
    stack.kernel.state = TcpConnectionState.CLOSE_WAIT
    stack.kernel.incoming += b"rest"
    connection.offload()
    first = connection.post_receive(bytearray(8))
    stack.target.complete_receive(b"rest")
    assert first.bytes_transferred == 4
    second = connection.post_receive(bytearray(8))
    assert second.done and second.bytes_transferred == 0 and not stack.target.receives


def test_an_indication_without_a_request_stays_with_the_target(stack, connection):
    connection.offload()
    verdict = stack.target.handle.tcp_offload_receive_handler(
        stack.target.tcp_handle, net_buffer_list(b"early"), int(Status.SUCCESS)
    )
    assert verdict == (Status.OFFLOAD_DATA_NOT_ACCEPTED, 0)


def test_hand_overs_asked_for_in_a_callback_wait_for_its_end(stack, connection):
    connection.offload()
    seen = []

    def callback(request):
        connection.upload()
        seen.append(connection.owner)

    connection.post_send(b"x", callback)
    stack.during_poll.append(stack.target.complete_send)
    stack.poll()
    assert seen == [Owner.TARGET] and connection.owner is Owner.KERNEL


def test_what_a_callback_raises_costs_no_other_request(stack, connection):
    connection.offload()

    def callback(request):
        raise ValueError("a slip of the application's")

    first, second = connection.post_send(b"x", callback), connection.post_send(b"y")

    def both():
        stack.target.complete_send()
        stack.target.complete_send()

    stack.during_poll.append(both)
    with pytest.raises(ValueError, match="slip"):
        stack.poll()
    assert first.done and second.done and connection.offloaded


def test_a_connection_closed_in_a_callback_is_closed_after_it(stack, connection):
    connection.offload()
    receive = connection.post_receive(bytearray(4))
    connection.post_send(b"x", lambda request: connection.close())
    stack.during_poll.append(stack.target.complete_send)
    stack.poll()
    assert connection.owner is Owner.APPLICATION and connection.socket.fileno() < 0
    assert isinstance(receive.error, ConnectionAbortedError)


def test_connections_share_path_and_neighbor(stack, connection):
    connection.offload()
    other_socket, theirs = socket.socketpair()
    with other_socket, theirs:
        other = Connection(stack, other_socket, ScriptedKernel(replace(FLOW, remote_port=4001)))
        other.offload()
        first, second = stack.target.initiated
        assert first.const is not None and first.dependent_block_list.const is not None
        assert second.const is None and second.dependent_block_list.const is None
        assert second.ndis_offload_handle is first.ndis_offload_handle
        connection.upload()
        assert stack.target.terminated[0].dependent_block_list is None
        other.upload()
        assert stack.target.terminated[1].dependent_block_list.dependent_block_list is not None


def leave_behind(stack):
    """From now on the target has no room for connections, but takes their neighbors and paths."""
    target = stack.target

    def initiate(tree):
        target.initiated.append(tree)
        for block in walk(tree):
            block.status = Status.OFFLOAD_PARTIAL_SUCCESS
            if block.miniport_offload_context is None:
                block.miniport_offload_context = object()
        target._tcp(tree).status = Status.RESOURCES
        target._tcp(tree).miniport_offload_context = None
        target.handle.initiate_offload_complete(tree)

    def terminate(tree):
        target.terminated.append(tree)
        status = Status.FAILURE if target.failing_terminates else Status.SUCCESS
        target.failing_terminates -= status == Status.FAILURE
        for block in walk(tree):
            block.status = status
        target.handle.terminate_offload_complete(tree)

    target.initiate_offload, target.terminate_offload = initiate, terminate


def behave(stack):
    del stack.target.initiate_offload, stack.target.terminate_offload


def test_what_a_refused_initiate_leaves_behind_is_taken_back(stack, connection):
    leave_behind(stack)
    stack.target.failing_terminates = 3
    with pytest.raises(NotOffloadable, match="RESOURCES"):
        connection.offload()
    assert [block.dependent_block_list.dependent_block_list for block in stack.target.terminated] == [None] * 4
    behave(stack)
    connection.offload()
    assert stack.target.initiated[1].const is not None
    connection.upload()


def test_what_cannot_be_taken_back_is_there_for_the_next_one(stack, connection):
    leave_behind(stack)
    stack.target.failing_terminates = 1 << 20
    with pytest.raises(NotOffloadable, match="RESOURCES"):
        connection.offload()
    assert connection.owner is Owner.KERNEL
    behave(stack)
    stack.target.failing_terminates = 0
    connection.offload()
    assert stack.target.initiated[1].const is None and stack.target.initiated[1].dependent_block_list.const is None
    connection.upload()
    assert stack.target.terminated[-1].dependent_block_list.dependent_block_list is not None
    connection.offload()
    assert stack.target.initiated[2].const is not None


def test_a_second_refusal_on_the_way_back_leaves_nothing_behind(stack, connection):
    connection.offload()
    stack.target.final = {"snd_una": ISS, "snd_max": ISS}

    def refuse(state, meanwhile):
        leave_behind(stack)
        raise UploadFailed("no memory")

    stack.kernel.give_back = refuse
    with pytest.raises(UploadFailed, match="no memory"):
        connection.upload()
    back, left = stack.target.terminated
    assert left.dependent_block_list.dependent_block_list is None
    assert isinstance(connection.error, ConnectionAbortedError)


def test_detach_gives_the_socket_back_alone(stack, connection):
    connection.offload()
    receive = connection.post_receive(bytearray(4))
    connection.detach()
    assert connection.owner is Owner.APPLICATION and stack.forgotten == [connection] and stack.kernel.released
    assert isinstance(receive.error, ConnectionAbortedError)
    with pytest.raises(ChimneyError, match="detached"):
        connection.post_send(b"x")


def test_the_kernel_hears_of_a_black_hole_that_the_target_has_found(stack, connection):
    connection.offload()
    connection.upload()
    assert not stack.kernel.told
    stack.mtu_found = 1076
    connection.offload()
    connection.upload()
    # What lies at SND.MAX is within what the kernel counts as sent, whatever has been acknowledged meanwhile.
    (told,) = stack.kernel.told
    assert (told.mtu, told.flow, told.seq) == (1076, FLOW, stack.kernel.given[-1].delegated.snd_max)


def test_abort_resets_and_uploads(stack, connection):
    connection.offload()
    send = connection.post_send(b"x")
    stack.target.final = {"state": TcpConnectionState.CLOSED}
    original = stack.target.tcp_offload_disconnect

    def disconnect(context, nbl, flags):
        assert flags == DisconnectFlags.ABORTIVE_CLOSE
        stack.target.complete_send(Status.REQUEST_ABORTED, 0)
        original(context, nbl, flags)
        stack.target.complete_disconnect()
        return int(Status.PENDING)

    stack.target.tcp_offload_disconnect = disconnect
    connection.abort()
    assert isinstance(send.error, OSError) and connection.owner is Owner.KERNEL


def test_an_abort_that_the_target_gives_back_is_the_kernels(stack, connection):
    connection.offload()
    stack.target.final = {"snd_una": ISS, "snd_max": ISS}
    connection.abort()
    assert stack.kernel.aborted and not stack.kernel.given[0].error


def test_an_abort_of_what_the_target_keeps_ends_every_later_request(stack, connection):
    connection.offload()
    stack.target.failing_terminates = 1 << 20
    with pytest.raises(UploadFailed, match="later"):
        connection.abort()
    receive = connection.post_receive(bytearray(1))
    stack.poll()
    assert connection.offloaded and not receive.done
    stack.target.failing_terminates = 0
    stack.target.final = {"state": TcpConnectionState.CLOSED}
    send = connection.post_send(b"x")
    stack.poll()
    stack.poll()
    assert connection.owner is Owner.KERNEL
    assert isinstance(send.error, ConnectionAbortedError) and isinstance(receive.error, ConnectionAbortedError)


def test_a_long_chain_is_freed_piece_by_piece(stack, connection):
    connection.offload()
    sends = [connection.post_send(b"x") for _ in range(1000)]

    def all_at_once():
        head = link(stack.target.sends)
        for nbl in stack.target.sends:
            nbl.tcp_offload_bytes_transferred = 1
        lists = list(stack.target.sends)
        stack.target.sends.clear()
        stack.target.handle.tcp_offload_send_complete(head)
        assert not any(nbl.next for nbl in lists)

    stack.during_poll.append(all_at_once)
    stack.poll()
    assert all(send.done and send.error is None for send in sends)


@pytest.mark.parametrize("data", [b"", bytearray()])
def test_nothing_to_transfer_is_refused(connection, data):
    with pytest.raises(ValueError, match="at least one byte"):
        connection.post_send(data)


def test_a_buffer_to_fill_must_be_writable(connection):
    with pytest.raises(ValueError, match="writable"):
        connection.post_receive(memoryview(b"constant"))


def prefer(stack, backlog):
    """The target says how many send bytes it would like to have."""
    event = TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE
    stack.target.handle.tcp_offload_event_handler(stack.target.tcp_handle, int(event), backlog)


def test_sends_wait_until_the_target_wants_more(stack, connection):
    connection.offload()
    prefer(stack, 10)
    done = []
    sends = [connection.post_send(b"sixsix", order(done)) for _ in range(5)]
    connection.shutdown()
    assert len(stack.target.sends) == 2, "the second makes it enough"
    stack.target.complete_send()
    assert len(stack.target.sends) == 1, "nothing is posted from within an upcall"
    stack.poll()
    assert len(stack.target.sends) == 2 and not stack.target.disconnects
    prefer(stack, 1000)
    stack.poll()
    assert len(stack.target.sends) == 4
    assert [flags for _, flags in stack.target.disconnects] == [DisconnectFlags.GRACEFUL_CLOSE], "behind the last send"
    for _ in range(4):
        stack.target.complete_send()
    assert done == sends


def test_sends_that_waited_for_the_target_go_on_in_the_kernel(stack, connection):
    connection.offload()
    prefer(stack, 1)
    sends = [connection.post_send(data) for data in (b"one ", b"two ", b"three")]
    shutdown = connection.shutdown()
    connection.upload()
    for _ in range(4):
        stack.poll()
    assert bytes(stack.kernel.outgoing) == b"one two three" and all(send.done for send in sends)
    assert shutdown.done and stack.kernel.shut and not stack.target.disconnects


def test_an_abort_ends_sends_that_waited_for_the_target(stack, connection):
    connection.offload()
    prefer(stack, 1)
    sends = [connection.post_send(data) for data in (b"posted", b"waits", b"waits, too")]
    stack.target.final = {"state": TcpConnectionState.CLOSED}
    stack.during_poll += [
        lambda: stack.target.complete_send(Status.REQUEST_ABORTED, 0),
        stack.target.complete_disconnect,
    ]
    connection.abort()
    assert all(send.done and send.error is not None for send in sends)
    assert not stack.target.sends and not stack.kernel.outgoing


def test_a_socket_whose_sending_half_was_closed_before(stack):
    """The application has done that itself, or a connection that was made of it before: nothing is sent behind the end,
    and what is received is not affected.
    """
    stack.kernel.shut = True
    stack.kernel.incoming += b"more"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(stack, ours, stack.kernel)
        with pytest.raises(BrokenPipeError):
            connection.post_send(b"behind the end")
        with pytest.raises(ChimneyError, match="closed already"):
            connection.shutdown()
        received = connection.post_receive(bytearray(4))
        stack.poll()
        assert received.bytes_transferred == 4 and received.error is None


def test_figures_of_the_owner_have_the_names_of_tcp_info(connection):
    assert connection.info().tcp == {"tcpi_rtt": 1000}
    connection.offload()
    assert connection.info().tcp == {"tcpi_rtt": 2000}
    connection.upload()
    assert connection.info().tcp == {"tcpi_rtt": 1000}
    connection.detach()
    assert connection.info().tcp == {}


# Options that change while a target has the connection


HOPS = (socket.IPPROTO_IP, socket.IP_TTL)


def updates(stack):
    return [tree for kind, tree in stack.target.operations if kind == "update"]


def finish_update(stack, status=Status.SUCCESS):
    [tree] = updates(stack)
    stack.target.operations.clear()
    for block in walk(tree):
        block.status = status
    stack.target.handle.update_offload_complete(tree)


def test_an_option_reaches_the_target_once_and_only_if_it_has_a_variable(stack, connection):
    stack.kernel.setsockopt(*HOPS, 64)
    connection.setsockopt(*HOPS, 64)
    connection.offload()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 3)
    stack.poll()
    assert not updates(stack)
    connection.setsockopt(*HOPS, 7)
    connection.setsockopt(*HOPS, 8)
    stack.poll()
    [tree] = updates(stack)
    assert tree.cached.ttl_or_hop_limit == 8
    connection.setsockopt(*HOPS, 9)
    stack.poll()
    # One after the other (update.host.exclusive).
    assert updates(stack) == [tree]
    finish_update(stack)
    stack.poll()
    [tree] = updates(stack)
    assert tree.cached.ttl_or_hop_limit == 9
    finish_update(stack)
    stack.poll()
    assert not updates(stack) and connection.offloaded


def test_a_target_that_refuses_an_option_gives_the_connection_back(stack, connection):
    connection.offload()
    connection.setsockopt(*HOPS, 7)
    stack.poll()
    finish_update(stack, Status.FAILURE)
    stack.poll()
    stack.poll()
    assert not connection.offloaded and "socket option" in connection.info().withdrawn


def test_an_option_that_changes_on_the_way_up_is_the_kernels(stack, connection):
    connection.offload()
    connection.setsockopt(*HOPS, 7)
    connection.upload()
    stack.poll()
    assert not updates(stack) and connection.getsockopt(*HOPS) == 7
