"""How connections end, and what becomes of requests then (the matrix of chapter 15)."""

import pytest

from chimney.ndis import (
    DisconnectFlags,
    OffloadStateType,
    ProtocolOffloadBlockList,
    Status,
    UploadReason,
    net_buffer_list,
)
from chimney.ndis.buffers import iterate, link
from chimney.ndis.errors import Misuse
from chimney.ndis.status import TcpConnectionState
from chimney.target import TargetConfig
from chimney.tcp.segment import parse_segment
from tests.target.machine import World

SUCCESS, ABORTED = int(Status.SUCCESS), int(Status.REQUEST_ABORTED)
UPLOAD, INVALID_STATE = int(Status.UPLOAD_IN_PROGRESS), int(Status.INVALID_STATE)
ABORT = DisconnectFlags.ABORTIVE_CLOSE
FIN, RST, ACK, URG = 1, 4, 0x10, 0x20


@pytest.fixture(params=[0, 2], ids=["no driver", "two drivers"])
def world(request, seed):
    return World(request.param, seed=seed, delay_us=10)


@pytest.fixture
def ends(world):
    return world.connect()


def resets(world):
    """The names of the links that sent RST segments."""
    return [name for _, name, frame in world.wire if frame[47] & RST]


def cut(world):
    """From now on nothing arrives."""
    world.network.loss = 1.0


def names(end):
    return [entry[0] for entry in end.host.log]


# Graceful disconnect


def test_a_graceful_disconnect_completes_after_the_sends(world, ends):
    a, b = ends
    b.receive(100)
    sends = a.send(b"one", b"two")
    last = a.disconnect(b"three")
    world.run(duration=1_000_000)
    assert a.host.log[1:] == [
        ("send", sends[0], SUCCESS, 3),
        ("send", sends[1], SUCCESS, 3),
        ("disconnect", last, SUCCESS, 5),
    ]
    assert last.data_length() == 0


def test_a_fin_does_not_wait_for_acknowledgements(world, ends):
    a, _ = ends
    cut(world)
    a.send(b"data")
    a.disconnect()
    world.poll()
    assert [frame[47] & FIN for _, name, frame in world.wire if name == "a"][-1]


def test_a_fin_that_was_repeated_before_it_was_answered_is_answered_once(world, ends):
    """The peer has forgotten the connection when the first answer comes: another one would meet an RST."""
    a, _ = ends
    a.disconnect()
    world.run(until=lambda: a.host.took("disconnect"))
    fin = a.frame(a.segment(0, b"bye", flags=FIN | ACK))
    # The host is slow to hear of the end, and the peer loses patience.
    a.host.on["INDICATE_RETRIEVE"] = lambda _: a.inject(fin, fin)
    world.network.delay_us = 0
    world.network.drop_if = lambda name, frame: name == "a"
    told = len(world.wire)
    a.inject(fin)
    world.settle()
    assert len([name for _, name, _ in world.wire[told:] if name == "a"]) == 1
    # What comes now asks for an answer: the first one was lost.
    a.inject(fin)
    world.settle()
    assert len([name for _, name, _ in world.wire[told:] if name == "a"]) == 2


def test_a_half_closed_connection_goes_on_in_the_other_direction(world, ends):
    a, b = ends
    a.disconnect()
    world.run(duration=1_000_000)
    assert names(b)[-1] == "INDICATE_DISCONNECT"
    [(nbl, memory)] = a.receive(5)
    b.send(b"still")
    world.run(until=lambda: a.host.took("receive"))
    assert memory == b"still"
    assert nbl.status == SUCCESS


def test_a_peer_that_never_closes_is_given_up_after_two_minutes(world, ends):
    a, _ = ends
    a.disconnect()
    world.run(until=lambda: a.host.took("disconnect"))
    started = world.clock()
    world.run(until=lambda: a.host.took("INDICATE_RETRIEVE"))
    assert a.host.log[-1][::2] == ("INDICATE_RETRIEVE", UploadReason.TIMEOUT_EXPIRATION)
    assert world.clock() - started == 120_000_000
    a.terminate()
    assert a.delegated.state is TcpConnectionState.CLOSED


def test_both_sides_close(world, ends):
    a, b = ends
    a.disconnect()
    world.run(duration=1000)
    b.disconnect()
    world.run()
    # The one that closed first is in TIME_WAIT: the waiting is its host's. The other one is CLOSED.
    for end, state in ((a, TcpConnectionState.TIME_WAIT), (b, TcpConnectionState.CLOSED)):
        assert end.host.log[-1][::2] == ("INDICATE_RETRIEVE", UploadReason.UPLOAD_REQUESTED)
        assert end.host.took("disconnect")[0][1:] == (SUCCESS, 0)
        end.terminate()
        assert end.delegated.state is state
    assert not resets(world)


def test_a_disconnect_of_a_connection_whose_fin_is_on_its_way(world, ends):
    """It went up and came down again in FIN_WAIT_1: the host's request for the rest of the close completes with it."""
    a, b = ends
    cut(world)
    [send] = a.send(b"data")
    a.disconnect()
    world.poll()
    chain = a.terminate().net_buffer_list_chain
    a.initiate(chain)
    world.network.loss = 0.0
    again = a.disconnect()
    world.run(until=lambda: len(a.host.took("disconnect")) == 2)
    assert a.host.took("send") == [(send, SUCCESS, 4)]
    assert a.host.took("disconnect")[-1] == (again, SUCCESS, 0)


def test_nothing_can_be_sent_behind_a_fin(ends):
    a, _ = ends
    a.disconnect()
    with pytest.raises(ValueError, match="closed"):
        a.send(b"too late")


def test_a_terminate_ends_a_graceful_disconnect(world, ends):
    a, _ = ends
    cut(world)
    [send] = a.send(b"data")
    last = a.disconnect(b"last")
    world.poll()
    block = a.terminate()
    assert a.host.took("disconnect") == [(last, UPLOAD, 0)]
    assert list(iterate(block.net_buffer_list_chain)) == [send]
    assert a.delegated.state is TcpConnectionState.FIN_WAIT_1
    assert a.delegated.snd_max - a.delegated.snd_una == len(b"data" + b"last") + 1


def test_a_chain_of_sends_is_taken_whole_or_not_at_all(ends):
    a, _ = ends
    short = net_buffer_list(b"data")
    short.first_net_buffer.data_length = 5
    with pytest.raises(ValueError, match="1 bytes more than its MDLs hold"):
        a.side.binding.offload_tcp_send(a.handle, link([net_buffer_list(b"fine"), short]))
    assert not a.offloaded.sending.sends and a.offloaded.sending.end == 0


# Abortive disconnect


def test_an_abortive_disconnect_sends_a_reset_and_ends_everything(world, ends):
    a, b = ends
    cut(world)
    sends = a.send(b"x" * 5000, b"y")
    receives = a.receive(10, 0)
    graceful = a.disconnect()
    world.poll()
    abortive = a.disconnect(flags=ABORT)
    assert not a.host.took("send"), "completions come from the poll"
    world.poll()
    assert resets(world) == ["a"]
    assert a.host.took("send") == [(nbl, ABORTED, 0) for nbl in sends]
    assert a.host.took("receive") == [(nbl, ABORTED, 0) for nbl, _ in receives]
    assert a.host.took("disconnect") == [(graceful, ABORTED, 0), (abortive, SUCCESS, 0)]
    assert names(a)[-1] == "disconnect", "sends end before the disconnect (disconnect.abort.sends-first)"
    block = a.terminate()
    assert block.net_buffer_list_chain is None and a.delegated.state is TcpConnectionState.CLOSED


def test_requests_after_an_abortive_disconnect_are_aborted(world, ends):
    a, _ = ends
    a.disconnect(flags=ABORT)
    [send] = a.send(b"x")
    [(receive, _)] = a.receive(1)
    world.poll()
    assert a.host.took("send") == [(send, ABORTED, 0)] and a.host.took("receive") == [(receive, ABORTED, 0)]


def test_an_abortive_disconnect_before_a_terminate_still_sends_its_reset(world, ends):
    a, b = ends
    [send] = a.send(b"x")
    abortive = a.disconnect(flags=ABORT)
    a.terminate()
    assert resets(world) == ["a"] and a.host.took("disconnect") == [(abortive, SUCCESS, 0)]
    assert names(a)[:2] == ["initiate", "send"] and a.host.took("send") == [(send, ABORTED, 0)], "sends end first"
    world.run()
    assert "INDICATE_ABORT" in names(b)


def test_an_abortive_disconnect_carries_no_data(ends):
    with pytest.raises(ValueError, match="no data"):
        ends[0].disconnect(b"data", flags=ABORT)


@pytest.mark.parametrize("flags", [0, 3])
def test_a_disconnect_is_either_graceful_or_abortive(ends, flags):
    with pytest.raises(ValueError, match="exactly one"):
        ends[0].disconnect(flags=flags)


def test_only_an_abortive_disconnect_sends_a_reset(world, ends):
    a, b = ends
    cut(world)
    a.send(b"never answered")
    world.run(limit=3_600_000_000)
    assert names(a)[-1] == "INDICATE_RETRIEVE" and not resets(world)


# Reset by the peer


def test_a_reset_is_told_first_and_then_ends_every_request(world, ends):
    a, b = ends
    [acked] = b.send(b"acknowledged")
    world.run(until=lambda: b.host.took("send"))
    cut(world)
    partly, unsent = b.send(b"x" * 1000, b"y")
    receives = b.receive(10, 10)
    graceful = b.disconnect()
    world.poll()
    b.forward(b.segment(0, ack=12 + 400, push=False))
    b.forward(b.segment(0, b"12", push=False))
    world.poll()
    del b.host.log[:]
    [reset] = b.forward(b.segment(2, flags=RST))
    [late] = b.forward(b.segment(2, b"late"))
    world.poll()
    assert b.host.log[0][0] == "INDICATE_ABORT"
    assert b.host.took("send") == [(partly, ABORTED, 400), (unsent, ABORTED, 0)]
    assert partly.data_length() == 600
    assert b.host.took("receive") == [(receives[0][0], ABORTED, 2), (receives[1][0], ABORTED, 0)]
    assert b.host.took("disconnect") == [(graceful, ABORTED, 0)]
    assert b.host.took("forward") == [(reset, SUCCESS, 0), (late, ABORTED, 0)]
    [after] = b.send(b"z")
    world.poll()
    assert b.host.took("send")[-1] == (after, ABORTED, 0)
    b.terminate()
    assert b.delegated.state is TcpConnectionState.CLOSED


def test_a_reset_keeps_what_can_still_be_delivered(world, ends):
    a, b = ends
    a.send(b"precious")
    world.run()
    a.disconnect(flags=ABORT)
    world.run()
    b.terminate()
    data = b"".join(b"".join(n.first_net_buffer.views()) for n in iterate(b.delegated.buffered_data))
    assert data == b"precious"


# Uploads that the target asks for


def test_silence_of_the_peer_leads_to_an_upload_request(seed):
    world = World(config=TargetConfig(max_retransmissions=3), seed=seed)
    a, _ = world.connect()
    cut(world)
    [first] = a.send(b"x" * 100)
    [(receive, _)] = a.receive(10)
    world.run()
    assert a.host.log[-1][::2] == ("INDICATE_RETRIEVE", UploadReason.TIMEOUT_EXPIRATION)
    assert not a.host.took("send"), "what was posted before may stay"
    [second] = a.send(b"y")
    [(late, _)] = a.receive(10)
    last = a.disconnect()
    world.poll()
    assert a.host.took("send") == [(first, UPLOAD, 0), (second, UPLOAD, 0)], "in order, and not performed"
    assert a.host.took("receive") == [(receive, UPLOAD, 0), (late, UPLOAD, 0)]
    assert a.host.took("disconnect") == [(last, UPLOAD, 0)]
    block = a.terminate()
    assert block.net_buffer_list_chain is None
    assert a.delegated.state is TcpConnectionState.ESTABLISHED


def test_urgent_data_is_left_to_the_host(world, ends):
    a, b = ends
    [(receive, memory)] = b.receive(100, push=False)
    b.forward(b.segment(0, b"before"))
    world.poll()
    [urgent] = b.forward(b.segment(6, b"!", flags=ACK | URG))
    world.poll()
    assert b.host.log[-2][::2] == ("INDICATE_RETRIEVE", UploadReason.RECEIVED_URGENT_DATA)
    assert b.host.took("forward")[-1] == (urgent, UPLOAD, 0), "not processed: the host will"
    a.send(b"more")
    world.run(duration=1000)
    assert not b.host.ordinary, "kept until the terminate"
    b.terminate()
    assert b.host.log[-2][0] == "terminate" and b.host.log[-1][0] == "frame"
    assert b.host.ordinary[0].endswith(b"more")
    assert b.host.took("receive") == [(receive, UPLOAD, 6)] and memory[:6] == b"before"


def test_a_syn_at_the_expected_number_ends_the_connection(world, ends):
    _, b = ends
    b.forward(b.segment(0, flags=2))
    world.poll()
    assert ("INDICATE_RETRIEVE", UploadReason.UPLOAD_REQUESTED) in [entry[::2] for entry in b.host.log]
    b.terminate()
    assert b.delegated.state is TcpConnectionState.CLOSED


# Terminate


def test_a_terminate_gives_everything_back(world, ends):
    a, b = ends
    a.send(b"refused")
    world.run()
    cut(world)
    [acked, partly, unsent] = b.send(b"x" * 100, b"y" * 100, b"z")
    world.poll()
    b.forward(b.segment(7, ack=150, push=False))
    world.poll()
    [waiting] = b.forward(b.segment(7, b"late"))
    del b.host.log[:]
    block = b.terminate()
    assert names(b)[-1] == "terminate"
    assert b.host.took("forward") == [(waiting, UPLOAD, 0)]
    chain = list(iterate(block.net_buffer_list_chain))
    assert chain == [partly, unsent]
    assert (b.delegated.send_data_head, b.delegated.send_data_tail) == (partly, unsent)
    assert [(n.status, n.tcp_offload_bytes_transferred, n.data_length()) for n in chain] == [
        (UPLOAD, 50, 50),
        (UPLOAD, 0, 1),
    ]
    buffered = b.delegated.buffered_data
    assert b"".join(buffered.first_net_buffer.views()) == b"refused"
    assert b.side.target.lent == {buffered}
    b.side.binding.offload_tcp_receive_return(buffered)
    assert not b.side.target.lent


def test_a_terminate_acknowledges_what_is_owed(world, ends):
    a, b = ends
    b.receive(100)
    a.send(b"x")
    world.run(duration=1000)
    assert not a.host.took("send"), "the acknowledgement is delayed"
    b.terminate()
    world.run(duration=100)
    assert a.host.took("send")


def test_a_terminate_from_within_an_upcall_comes_after_it(world, ends):
    a, b = ends
    [(nbl, _)] = b.receive(5)
    running = []
    b.host.on["receive"] = lambda _: b.side.binding.terminate_offload(running.append(1) or b.terminate_tree())
    b.host.on["terminate"] = lambda _: running.append(2)
    a.send(b"hello")
    world.run()
    assert running == [1, 2]
    assert names(b)[-2:] == ["receive", "terminate"]
    assert b.offloaded is None


def test_a_path_in_use_cannot_be_terminated(world):
    a, _ = world.connect()
    with pytest.raises(ValueError, match="still use"):
        a.side.state("terminate_offload", a.terminate_tree(connection=False))


def test_a_terminate_needs_a_structure_for_the_state(world, ends):
    a, b = ends
    tree = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=a.handle)
    with pytest.raises(ValueError, match="attach a TcpDelegated"):
        a.side.state("terminate_offload", tree)
    a.receive(1)
    b.send(b"x")
    world.run(until=lambda: a.host.took("receive"))


def test_a_stale_handle_is_refused(world, ends):
    a, _ = ends
    a.terminate()
    with pytest.raises(ValueError, match="not offloaded"):
        a.send(b"x")


def test_a_reset_that_came_before_the_terminate_ends_the_requests(seed):
    """From within the completion of the initiate: the target has not yet had the time to tell of the RST."""
    world = World(seed=seed)
    _, b = world.ends()
    chain = net_buffer_list(b"to be sent")

    def reset_and_terminate(_):
        b.offloaded.engine.process(parse_segment(memoryview(b.segment(0, flags=RST))), world.clock())
        b.side.binding.terminate_offload(b.terminate_tree())

    b.host.on["initiate"] = reset_and_terminate
    b.initiate(chain)
    assert names(b) == ["initiate", "INDICATE_ABORT", "send", "terminate"]
    assert b.host.took("send") == [(chain, ABORTED, 0)]


def test_an_invalid_connection_is_not_even_reset(world, ends):
    a, _ = ends
    block = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=a.handle)
    abortive = a.disconnect(flags=ABORT)
    a.side.state("invalidate_offload", block)
    a.terminate()
    assert a.host.took("disconnect") == [(abortive, UPLOAD, 0)] and not world.wire


def test_segments_behind_a_terminate_are_not_processed(world, ends):
    """A forward that the host terminates in the middle of."""
    _, b = ends
    b.receive(5)
    b.host.on["receive"] = lambda _: b.side.binding.terminate_offload(b.terminate_tree())
    first, second = b.forward(b.segment(0, b"hello"), b.segment(5, b"later"))
    world.poll()
    assert b.host.took("forward") == [(first, SUCCESS, 0), (second, UPLOAD, 0)]


def test_frames_after_a_terminate_take_the_ordinary_path_while_they_are_watched(world, ends):
    a, b = ends
    b.side.target.watch(b.flow)
    b.terminate()
    a.send(b"for the host")
    world.run(duration=1000)
    assert b.host.ordinary[0].endswith(b"for the host")
    seen = len(b.host.ordinary)
    b.side.target.unwatch(b.flow)
    world.run(duration=1_000_000)
    assert len(b.host.ordinary) == seen


def test_a_host_that_asks_for_a_close_again_and_again_is_told_so(world):
    a, _ = world.connect()
    a.side.target.request_retrieve(a.flow, UploadReason.UPLOAD_REQUESTED)
    a.host.obedient = False
    a.host.on["disconnect"] = lambda nbl: a.disconnect()
    a.disconnect()
    with pytest.raises(Misuse, match=r"finish the close yourself.*disconnect.host.no-reissue"):
        world.poll()
