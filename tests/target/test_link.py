"""A link that is full, or gone, and many connections over one link."""

import pytest

from chimney.link.base import NEVER, Link, LinkError
from chimney.ndis import DisconnectFlags, OffloadStateType, ProtocolOffloadBlockList, Status, UploadReason
from chimney.target import TargetConfig
from chimney.tcp import ACK
from chimney.tcp.segment import URG
from tests.target.machine import ISS, World

SUCCESS, ABORTED = int(Status.SUCCESS), int(Status.REQUEST_ABORTED)


@pytest.fixture
def slow(seed):
    """A link that takes two segments, and then has no room for a while."""
    config = TargetConfig(max_burst_segment=1448)
    return World(config=config, seed=seed, delay_us=10, bandwidth=10_000_000, send_buffer=3000)


def test_connections_share_a_full_link(slow):
    pairs = [slow.connect(port) for port in range(1000, 1020, 2)]
    for a, b in pairs:
        b.receive(20_000, push=False)
        a.send(bytes(20_000))
    host = pairs[0][1].host
    slow.poll()
    assert slow.sides[0].target.wants_write
    rounds = 0

    def done():
        nonlocal rounds
        rounds += 1
        return len(host.took("receive")) == 10

    slow.run(until=done)
    assert rounds < 5000, "a full link is waited for, not asked all the time"
    slow.run(until=lambda: len(pairs[0][0].host.took("send")) == 10)
    assert not slow.sides[0].target.wants_write


class Dropping(Link):
    """A link to a device whose queue takes 3000 bytes; it does not tell when it has room, and is always writable."""

    def __init__(self, link):
        super().__init__(link.name, link.mac, link.mtu)
        self.inner = link
        self.receive, self.release, self.set_filter = link.receive, link.release, link.set_filter
        self.refused = 0

    def send(self, *arguments):
        if self.inner.network.waiting(self.inner) > 3000:
            self.refused += 1
            return False
        return self.inner.send(*arguments)

    def writable(self):
        return True


def test_a_queue_that_does_not_tell_when_it_has_room_is_asked_again_after_a_while(seed):
    """Packet sockets answer ENOBUFS then: to wait until they are writable would be to spin."""
    world = World(config=TargetConfig(max_burst_segment=1448), seed=seed, delay_us=10, bandwidth=1_000_000)
    a, b = world.connect()
    b.receive(20_000, push=False)
    target = a.side.target
    target.link = device = Dropping(a.side.link)
    a.send(bytes(20_000))
    world.poll()
    assert device.refused and not target.wants_write
    assert world.clock() < target.poll_at() < world.clock() + 1000
    world.run(until=lambda: b.host.took("receive"))
    assert 50 < device.refused < 400, "the wire needs 160 ms"


def test_a_full_link_does_not_hold_up_what_arrives(slow):
    a, b = slow.connect()
    a.send(bytes(100_000))
    slow.poll()
    assert a.side.target.wants_write
    a.receive(10)
    a.forward(a.segment(0, b"data"))
    slow.poll()
    assert a.host.took("receive")[0][1:] == (SUCCESS, 4)


def test_nothing_waits_for_the_link_when_its_request_has_been_aborted(slow):
    """A segment that the link refused must not be sent from memory that has gone back to the application."""
    a, b = slow.connect()
    a.send(b"x" * 50_000)
    slow.poll()
    assert a.side.target.wants_write
    a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    slow.poll()
    assert a.host.took("send")[0][1] == ABORTED
    del slow.wire[:]
    slow.run(until=lambda: a.host.took("disconnect"))
    assert [frame[47] & 4 for _, name, frame in slow.wire if name == "a"] == [4], "nothing but the RST"


def test_an_acknowledgement_that_waits_for_the_link_does_not_leave_after_an_abort(slow):
    """disconnect.abort.stop-rx: nor does the RST acknowledge what it would have."""
    other, _ = slow.connect(1000)
    a, _ = slow.connect(1002)
    target = a.side.target
    a.receive(2000, push=False)
    other.send(bytes(2 * 1448))
    slow.poll()
    assert not target.wants_write
    for at in range(0, 200, 100):
        a.forward(a.segment(at, bytes(100)))
    slow.poll()
    assert target.wants_write, "the acknowledgement"
    a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    slow.run(until=lambda: a.host.took("disconnect"))
    mine = [frame for _, name, frame in slow.wire if name == "a" and frame[34:36] == (1002).to_bytes(2, "big")]
    assert [(frame[47] & 0x17, frame[42:46]) for frame in mine] == [(4, bytes(4))]


@pytest.mark.parametrize("urgent", [False, True])
def test_what_an_acknowledgement_that_waits_for_the_link_says_is_said_before_a_terminate(slow, urgent):
    """terminate.flush-ack"""
    other, _ = slow.connect(1000)
    a, _ = slow.connect(1002)
    a.receive(2000, push=False)
    other.send(bytes(2 * 1448))
    slow.poll()
    for at in range(0, 200, 100):
        a.forward(a.segment(at, bytes(100)))
    slow.poll()
    assert a.side.target.wants_write, "the acknowledgement"
    if urgent:
        a.forward(a.segment(200, b"x", flags=ACK | URG))
        slow.poll()
    block = a.terminate()
    slow.run(duration=100_000)
    said = [frame[42:46] for _, name, frame in slow.wire if name == "a" and frame[34:36] == (1002).to_bytes(2, "big")]
    assert said == [block.delegated.rcv_nxt.to_bytes(4, "big")]


def test_a_fin_that_waits_for_the_link_is_handed_back_as_not_sent(slow):
    other, _ = slow.connect(1000)
    a, _ = slow.connect(1002)
    other.send(bytes(2 * 1448))
    slow.poll()
    a.disconnect()
    slow.poll()
    assert a.side.target.wants_write, "the FIN"
    state = a.terminate().delegated
    assert state.snd_nxt == state.snd_una and (state.snd_max - state.snd_una) & 0xFFFFFFFF == 1


def test_what_waits_for_the_link_goes_back_with_a_terminate(slow):
    a, b = slow.connect()
    [send] = a.send(b"x" * 50_000)
    slow.poll()
    block = a.terminate()
    assert block.net_buffer_list_chain is send and not a.side.target.wants_write
    state = a.delegated
    sent = sum(len(frame) - 66 for _, name, frame in slow.wire if name == "a")
    # The refused segment counts as sent (SndMax), and is to be sent first (SndNxt).
    assert (state.snd_nxt - state.snd_una) & 0xFFFFFFFF == sent
    assert (state.snd_max - state.snd_nxt) & 0xFFFFFFFF > 0
    a.initiate(block.net_buffer_list_chain)
    b.receive(50_000, push=False)
    slow.run(until=lambda: b.host.took("receive"))


@pytest.mark.parametrize("turn_before", [False, True])
def test_a_reset_that_the_link_has_no_room_for_is_left_to_the_host(slow, turn_before):
    a, b = slow.connect()
    a.send(b"x" * 50_000)
    slow.poll()
    abortive = a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    if turn_before:
        slow.poll()
    a.terminate()
    assert a.host.took("disconnect") == [(abortive, int(Status.UPLOAD_IN_PROGRESS), 0)]
    assert [entry[0] for entry in a.host.log].index("send") < [entry[0] for entry in a.host.log].index("disconnect")


def test_what_waits_for_the_link_is_not_sent_after_a_mandatory_upload_request(slow):
    """upload.mandatory-stop; the host sends it first when it has the connection."""
    a, b = slow.connect()
    a.send(b"x" * 50_000)
    slow.poll()
    assert a.side.target.wants_write
    a.side.target.request_retrieve(a.flow, UploadReason.UPLOAD_REQUESTED)
    assert not a.side.target.wants_write
    sent = sum(len(frame) - 66 for _, name, frame in slow.wire if name == "a")
    del slow.wire[:]
    slow.run(duration=1_000_000)
    assert not [frame for _, name, frame in slow.wire if name == "a"]
    a.terminate()
    assert (a.delegated.snd_nxt - ISS[0]) & 0xFFFFFFFF == sent


def test_a_connection_that_leaves_as_the_link_is_asked_again_leaves_nothing_to_be_done(seed):
    """The host answers the question about the next hop, which comes before the segment, by taking it back."""
    world = World(config=TargetConfig(nce_stale_ticks=1000), seed=seed)
    a, _ = world.connect()
    target = a.side.target
    target.link = Refusing(a.side.link)
    a.send(b"x")
    asked = []

    def take_back(block):
        asked.append(block)
        target.request_retrieve(a.flow, UploadReason.UPLOAD_REQUESTED)

    a.host.on["generic"] = take_back
    world.run(until=lambda: asked)
    assert target.poll_at() > world.clock() and not target.wants_write


def test_what_waited_for_the_link_may_have_been_acknowledged_by_the_time_of_a_terminate(seed):
    """A retransmission that is not needed any more: SndNxt never stands before SndUna."""
    world = World(seed=seed)
    a, _ = world.connect()
    world.network.loss = 1.0
    a.send(b"x" * 1000)
    world.poll()
    a.side.target.link = Stuck(a.side.link)
    world.run(until=lambda: a.side.target.wants_write)
    block = ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=a.handle)
    a.side.state("invalidate_offload", block)
    a.forward(a.segment(0, ack=1000))
    world.poll()
    a.terminate()
    assert a.delegated.snd_una == a.delegated.snd_nxt == a.delegated.snd_max == (ISS[0] + 1000) & 0xFFFFFFFF


def test_a_terminate_does_not_push_out_what_waits_for_the_link(slow):
    a, b = slow.connect()
    c, d = slow.connect(2000)
    a.receive(100)
    b.send(b"to be acknowledged")
    slow.run(duration=5000)
    c.send(b"x" * 20_000)
    d.receive(20_000, push=False)
    slow.poll()
    assert c.side.target.wants_write
    retransmitted = c.offloaded
    tree = a.terminate_tree()
    a.side.binding.terminate_offload(tree)
    slow.poll()
    assert c.side.target.wants_write
    assert not a.host.took("terminate"), "it has an acknowledgement to send"
    slow.run(until=lambda: a.host.took("terminate"))
    slow.run(until=lambda: d.host.took("receive"))
    assert [send[1] for send in b.host.took("send")] == [SUCCESS]
    assert retransmitted.retransmitted_segments == 0


def test_a_terminate_does_not_wait_for_ever(slow):
    """The acknowledgement that it owes is lost when the link has no room for a second."""
    a, b = slow.connect()
    a.receive(100)
    b.send(b"to be acknowledged")
    slow.run(duration=5000)
    a.side.target.link = Stuck(a.side.link)
    tree = a.terminate_tree()
    a.side.binding.terminate_offload(tree)
    a.side.target.poll(slow.clock())
    assert not a.host.took("terminate") and a.side.target.wants_write
    started = slow.clock()
    while not a.host.took("terminate"):
        a.side.target.poll(slow.clock.advance_to(max(slow.clock(), a.side.target.poll_at())))
    assert slow.clock() - started == 1_000_000
    assert not a.side.target.wants_write and a.offloaded is None


class Stuck(Dropping):
    """A link that has no room, and does not say when."""

    def send(self, *arguments):
        return False

    def writable(self):
        return False


class Refusing(Stuck):
    """A link that has no room, and does not say so."""

    def writable(self):
        return True


def test_a_reset_that_was_lost_with_the_link_was_not_sent(seed):
    world = World(seed=seed)
    a, _ = world.connect()
    a.side.link.close()
    abortive = a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    a.side.target.poll(world.clock())
    assert a.host.took("disconnect") == [(abortive, ABORTED, 0)]
    assert a.side.target.frames_out == 0


def test_a_link_that_fails_loses_what_it_is_given(seed):
    world = World(config=TargetConfig(max_retransmissions=2), seed=seed)
    a, b = world.connect()
    a.send(b"x")
    a.side.link.close()
    for _ in range(100):
        if a.side.target.poll_at() == NEVER:
            break
        world.clock.advance_to(max(world.clock(), a.side.target.poll_at()))
        a.side.target.poll(world.clock())
    assert a.side.target.link_errors > 3
    assert a.host.log[-1][0] == "INDICATE_RETRIEVE", "after too many time-outs the host hears of it"
    with pytest.raises(LinkError):
        a.side.link.receive(1)


def test_idle_connections_cost_nothing(seed):
    world = World(seed=seed)
    ends = [world.connect(port) for port in range(1000, 3000, 2)]
    world.run()
    assert world.next_at() == NEVER
    a, b = ends[500]
    b.receive(1)
    a.send(b"x")
    # A frame and a turn here, and the same there: the other 999 connections are not looked at.
    assert sum(side.target.poll(world.clock()) for side in world.sides) <= 4


def test_poll_from_within_an_upcall_is_refused(seed):
    world = World(seed=seed)
    a, b = world.connect()
    flushed = []

    def answer(data):
        with pytest.raises(RuntimeError, match="within one of its own upcalls"):
            b.side.target.poll(world.clock())
        flushed.append(b.side.target.flush(world.clock()))
        return len(data)

    b.host.answer = answer
    a.send(b"x")
    world.run()
    assert flushed == [0]


def test_flush_sends_what_was_posted(seed):
    world = World(seed=seed)
    a, b = world.connect()
    a.send(b"x")
    assert not world.wire
    assert a.side.target.flush(world.clock()) > 0
    assert len(world.wire) == 1
