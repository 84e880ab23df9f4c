"""The kernel's side of a hand-over in a simulation: at which instant a frame reaches whom, what is said, and what is
lost. Each of these was seen on Linux (docs: hand-over.md, decision 4; tests/live/).
"""

import dataclasses
import errno
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimney.conformance import wire
from chimney.host.errors import NotOffloadable, UploadFailed
from chimney.host.kernel import GivenState
from chimney.host.linux.dump import TcpState
from chimney.ndis.status import TcpConnectionState
from chimney.sim.case import Host, Network
from chimney.sim.kernel import ProcessDied
from chimney.sim.model import FIN, RST, parse
from tests.sim.small_world import SmallWorld, flow_of

GAP = 1000
MASK = 0xFFFFFFFF
DATA = bytes(range(256)) * 300


class HandOver:
    """A connection's kernel on machine a, with a tap, and no target: whoever has the connection does nothing."""

    def __init__(self, gap_us=0, **changes):
        self.world = SmallWorld(a=Host(chimney=True, gap_us=gap_us), **changes)
        self.machine = self.world.machines["a"]
        platform = self.machine.platform
        self.side = platform.kernel_side(self.machine.sock, 65536, platform.interest)
        self.tap = platform.open_link(self.machine.device)
        self.tap.set_filter([flow_of(self.machine)])
        self.world.gaps.clear()

    def take(self):
        return self.side.take(self.side.prepare())

    def arrived(self):
        """The packets that the tap has, as the host injects them."""
        return [bytes(frame.data[14:]) for frame in self.tap.receive(1000)]

    def give_back(self, taken, meanwhile=None, **changes):
        """Back, as it was taken: all that is queued counts as sent."""
        given = GivenState(taken.delegated, taken.send_data, taken.unread)
        self.side.give_back(dataclasses.replace(given, **changes), meanwhile or self.arrived)

    def finish(self):
        """What the host does when give_back has returned."""
        self.side.inject(self.arrived())

    def said(self, side="a"):
        """What a machine has sent since this was asked last."""
        sent = [parse(wire.read_packet(frame).payload) for _, frame in self.world.doors[side].sent]
        self.world.doors[side].sent.clear()
        return sent

    def when_gap(self, number, act):
        """Have ``act`` happen at the beginning of the ``number``th gap from now on, counted from 0."""
        self.world.gaps = [None] * number + [act]


@pytest.fixture
def always_gaps(monkeypatch):
    """Each step takes its longest time, and chance has no say in the dump."""
    monkeypatch.setattr("random.Random.randint", lambda self, low, high: high)
    monkeypatch.setattr("random.Random.random", lambda self: 0.99)


# The gaps of take: before the cover, before the acknowledgement, before the dump, before the recycling, and after it.
BEFORE_COVER, COVERED, BEFORE_DUMP, AFTER_DUMP, RECYCLED = range(5)


class TestDown:
    def test_before_the_cover_stands_both_get_a_frame_and_the_kernel_acknowledges(self, always_gaps):
        hand_over = HandOver(GAP)
        world = hand_over.world
        hand_over.when_gap(BEFORE_COVER, lambda: world.send("b", b"early"))
        taken = hand_over.take()
        assert b"".join(taken.unread) == b"early"
        assert [segment.ack for segment in hand_over.said()] == [taken.delegated.rcv_nxt]
        assert [packet[-5:] for packet in hand_over.arrived()] == [b"early"]

    @pytest.mark.parametrize("gap", [COVERED, BEFORE_DUMP, AFTER_DUMP, RECYCLED])
    def test_from_the_cover_on_only_the_tap_gets_it(self, always_gaps, gap):
        hand_over = HandOver(GAP)
        world = hand_over.world
        hand_over.when_gap(gap, lambda: world.send("b", b"late"))
        taken = hand_over.take()
        assert not taken.unread and taken.delegated.rcv_nxt == hand_over.machine.settings.irs
        assert not hand_over.said()
        assert [packet[-4:] for packet in hand_over.arrived()] == [b"late"]

    def test_the_acknowledgement_that_is_owed_is_sent(self):
        hand_over = HandOver()
        world = hand_over.world
        for _ in range(20):
            world.send("b", b"x")
            world.run(1000)
        assert hand_over.machine.tcp.receiver.delayed_at < world.clock.now + 40_000
        hand_over.said()
        taken = hand_over.take()
        assert [segment.ack for segment in hand_over.said()] == [taken.delegated.rcv_nxt]
        assert taken.delegated.rcv_nxt == (hand_over.machine.settings.irs + 20) & MASK

    def test_until_it_is_recycled_its_timers_send(self, always_gaps):
        hand_over = HandOver(150_000, network=Network(loss=1.0))
        world = hand_over.world
        world.send("a", DATA[:100])
        hand_over.said()
        owners = []
        transmit = hand_over.machine.transmit
        hand_over.machine.transmit = lambda *args: (owners.append(hand_over.machine.owner), transmit(*args))
        hand_over.take()
        assert [segment.payload for segment in hand_over.said()] == [DATA[:100]]
        assert owners == ["kernel"] and hand_over.machine.owner == "target"
        world.run(3_000_000)
        assert not hand_over.said()

    def test_what_a_dump_tells(self, always_gaps):
        hand_over = HandOver()
        world = hand_over.world
        world.send("b", DATA[:50])
        world.run(10_000)
        world.send("a", DATA[:40_000])
        taken = hand_over.take()
        delegated, const = taken.delegated, taken.const
        assert delegated.state is TcpConnectionState.ESTABLISHED
        assert b"".join(taken.send_data) == DATA[:40_000] and b"".join(taken.unread) == DATA[:50]
        assert (delegated.snd_max - delegated.snd_una) & MASK == 40_000
        assert (delegated.snd_nxt - delegated.snd_una) & MASK == 14_480
        assert delegated.ts_recent == 0
        assert delegated.c_wnd == 10 * 1448
        # The clock is not earlier than what was sent.
        assert delegated.ts_time - hand_over.said()[-1].ts_val in (0, 1)
        assert const.remote_mss == 1460 and const.snd_wind_scale == 7
        assert taken.carried == (0, 50)

    def test_its_next_sequence_number_may_be_a_guess(self):
        seen = set()
        for seed in range(40):
            hand_over = HandOver(seed=seed)
            hand_over.world.send("a", DATA[:40_000])
            delegated = hand_over.take().delegated
            seen.add((delegated.snd_nxt - delegated.snd_una) & MASK)
        assert seen == {14_480, 40_000}

    def test_what_was_paced_may_leave_behind_the_dump(self):
        """The peer may acknowledge more than the dump's SND.NXT."""
        seen = 0
        for seed in range(60):
            hand_over = HandOver(400, seed=seed)
            world = hand_over.world
            world.send("a", DATA[:40_000])
            world.run(200)
            taken = hand_over.take()
            beyond = (hand_over.said()[-1].seq - taken.delegated.snd_nxt) & MASK
            seen += beyond < 1 << 31
        assert 0 < seen < 30

    def test_out_of_order_data_is_not_told(self):
        hand_over = HandOver()
        world = hand_over.world
        world.network.drop_if = lambda name, frame: len(frame) > 1000 and frame.endswith(DATA[1400:1448])
        world.send("b", DATA[:3000])
        world.run(1000)
        world.network.drop_if = None
        taken = hand_over.take()
        assert not taken.unread and taken.delegated.rcv_nxt == hand_over.machine.settings.irs
        hand_over.give_back(taken)
        # Before the first segment was lost, the tap did not see it either: the peer sends everything again.
        world.run(1_000_000)
        assert world.receive("a") == DATA[:3000]

    def test_the_placeholder_answers_nothing(self):
        hand_over = HandOver()
        world = hand_over.world
        hand_over.take()
        world.send("b", b"hello")
        world.shutdown("b")
        world.machines["b"].tcp.abort(world.clock.now)
        world.machines["b"].flush()
        world.run(5_000_000)
        assert not hand_over.said() and hand_over.tap.pending() >= 3
        assert not hand_over.side.is_ready(True, True)
        assert hand_over.side.bytes_carried() == (0, 0)

    @pytest.mark.parametrize("state", [TcpState.TIME_WAIT, TcpState.CLOSE])
    def test_what_has_ended_stays(self, state):
        hand_over = HandOver()
        hand_over.machine.tcp.state = state
        with pytest.raises(NotOffloadable, match=state.name):
            hand_over.side.prepare()

    @pytest.mark.parametrize("gap", [BEFORE_COVER, COVERED])
    def test_what_ends_meanwhile_stays(self, always_gaps, gap):
        hand_over = HandOver(GAP)
        world = hand_over.world
        plan = hand_over.side.prepare()

        def end():
            if gap == BEFORE_COVER:
                world.machines["b"].tcp.abort(world.clock.now)
                world.machines["b"].flush()
            else:
                hand_over.machine.tcp._fail(110)

        hand_over.when_gap(gap, end)
        with pytest.raises(NotOffloadable, match="just ended"):
            hand_over.side.take(plan)
        assert hand_over.machine.owner == "kernel" and not hand_over.machine.phase
        with pytest.raises(OSError):
            hand_over.side.receive_into(memoryview(bytearray(10)))

    def test_an_interface_that_is_down(self):
        hand_over = HandOver()
        hand_over.machine.surroundings.plugged = False
        with pytest.raises(NotOffloadable, match="no route"):
            hand_over.side.prepare()

    def test_a_pending_error_and_a_second_time(self):
        hand_over = HandOver()
        hand_over.machine.tcp.error = ConnectionResetError()
        with pytest.raises(NotOffloadable, match="pending"):
            hand_over.side.prepare()
        hand_over.machine.tcp.error = None
        hand_over.take()
        with pytest.raises(NotOffloadable, match="somebody else"):
            hand_over.side.prepare()


# The gaps of give_back: at its beginning, before the socket lives, before it hears, before the probe, at the end.
START, BUILT, DEAF, HEARS, PROBED = range(5)


class TestUp:
    @pytest.mark.parametrize("gap", [START, BUILT])
    def test_what_arrived_until_then_is_processed(self, always_gaps, gap):
        hand_over = HandOver(GAP)
        world = hand_over.world
        taken = hand_over.take()
        hand_over.when_gap(gap, lambda: world.send("b", b"meanwhile"))
        hand_over.give_back(taken)
        assert world.receive("a") == b"meanwhile"
        hand_over.finish()
        assert world.receive("a") == b""

    def test_until_the_socket_hears_only_the_tap_does(self, always_gaps):
        hand_over = HandOver(GAP)
        world = hand_over.world
        taken = hand_over.take()
        hand_over.when_gap(DEAF, lambda: world.send("b", b"late"))
        hand_over.give_back(taken)
        assert world.receive("a") == b""
        hand_over.finish()
        assert world.receive("a") == b"late"

    def test_from_then_on_both_do(self, always_gaps):
        hand_over = HandOver(GAP)
        world = hand_over.world
        taken = hand_over.take()
        hand_over.when_gap(HEARS, lambda: world.send("b", b"twice"))
        hand_over.give_back(taken)
        assert world.receive("a") == b"twice"
        before = len(world.doors["a"].sent)
        hand_over.finish()
        assert world.receive("a") == b"" and len(world.doors["a"].sent) == before + 1

    def test_leaving_repair_mode_probes(self):
        hand_over = HandOver()
        taken = hand_over.take()
        hand_over.said()
        hand_over.give_back(taken)
        (probe,) = hand_over.said()
        assert probe.seq == (taken.delegated.snd_una - 1) & MASK and not probe.payload
        assert hand_over.machine.owner == "kernel"

    def test_nobody_speaks_until_the_socket_lives(self, always_gaps):
        hand_over = HandOver(GAP)
        taken = hand_over.take()
        owners = []
        hand_over.when_gap(START, lambda: owners.append((hand_over.machine.owner, hand_over.machine.phase)))
        hand_over.give_back(taken)
        assert owners == [(None, "restoring")]
        assert hand_over.machine.phase == ""

    def test_what_was_in_flight_waits_for_its_acknowledgement(self):
        hand_over = HandOver()
        world = hand_over.world
        world.send("a", DATA[:1000])
        taken = hand_over.take()
        world.run(1000)
        hand_over.said()
        hand_over.give_back(taken)
        assert all(not segment.payload for segment in hand_over.said())
        assert not hand_over.machine.tcp.sender.queue

    @pytest.mark.parametrize(("srtt_us", "rto"), [(0, 3_000_000), (500, 200_500), (5000, 3_000_000)])
    def test_a_short_round_trip_is_taught(self, srtt_us, rto):
        hand_over = HandOver(network=Network(loss=1.0))
        hand_over.world.send("a", DATA[:1000])
        taken = hand_over.take()
        taken.delegated.s_rtt = srtt_us * 8 // 1000
        started = hand_over.world.clock.now
        hand_over.give_back(taken)
        taught = hand_over.world.clock.now - started
        assert taught == (srtt_us if srtt_us < 1000 else 0)
        sender = hand_over.machine.tcp.sender
        assert rto <= sender.rto_at - hand_over.world.clock.now < rto + 2000
        assert (sender.srtt > 0) == bool(taught)

    def test_the_peers_clock_is_echoed(self):
        hand_over = HandOver()
        world = hand_over.world
        world.send("b", b"x")
        world.run(1000)
        taken = hand_over.take()
        hand_over.said()
        taken.delegated.ts_recent = latest = hand_over.said("b")[-1].ts_val
        hand_over.give_back(taken)
        assert hand_over.said()[0].ts_ecr == latest

    def test_unread_data_that_has_no_room(self):
        hand_over = HandOver()
        taken = hand_over.take()
        hand_over.machine.receive_room = 10
        with pytest.raises(UploadFailed, match="fit"):
            hand_over.give_back(taken, unread=[memoryview(b"x" * 11)])
        assert hand_over.machine.sock.tcp is None and hand_over.machine.owner == "target"
        hand_over.machine.receive_room = 11
        hand_over.give_back(taken, unread=[memoryview(b"x" * 11)])
        assert hand_over.world.receive("a") == b"x" * 11

    def test_an_interface_that_is_down(self):
        hand_over = HandOver()
        taken = hand_over.take()
        hand_over.machine.surroundings.plugged = False
        hand_over.give_back(taken)
        assert hand_over.machine.state == "ESTABLISHED"
        hand_over.world.send("a", b"later")
        hand_over.world.run(100_000)
        hand_over.machine.surroundings.plugged = True
        hand_over.world.run(10_000_000)
        assert hand_over.world.receive("b") == b"later"

    def test_a_state_that_does_not_fit_together(self):
        hand_over = HandOver()
        with pytest.raises(UploadFailed, match="3 bytes to send"):
            hand_over.give_back(hand_over.take(), sent=[memoryview(b"abc")])

    def test_a_reset_of_the_peers(self):
        hand_over = HandOver()
        hand_over.world.send("b", b"last words")
        hand_over.world.run(1000)
        taken = hand_over.take()
        hand_over.said()
        hand_over.give_back(taken, error=errno.ECONNRESET)
        assert hand_over.machine.state == "CLOSED" and not hand_over.said()
        buffer = memoryview(bytearray(100))
        assert hand_over.side.receive_into(buffer) == 10
        with pytest.raises(ConnectionResetError):
            hand_over.side.receive_into(buffer)

    def test_options_of_the_application_hold_on_both_ways(self):
        hand_over = HandOver()
        taken = hand_over.take()
        hand_over.machine.set_nodelay(False)
        hand_over.give_back(taken)
        assert not hand_over.machine.sock.tcp.settings.nodelay
        assert hand_over.take().cached.flags


class TestDeath:
    """The process dies in the middle of a hand-over."""

    @pytest.mark.parametrize("gap", [BEFORE_COVER, COVERED, BEFORE_DUMP, AFTER_DUMP, RECYCLED])
    def test_on_the_way_down(self, always_gaps, gap):
        hand_over = HandOver(GAP)
        world = hand_over.world
        hand_over.when_gap(gap, hand_over.machine.die)
        with pytest.raises(ProcessDied):
            hand_over.take()
        world.run(1000)
        # Before repair mode the kernel closes as usual, and the peer sees the end; afterwards it hears nothing yet.
        assert world.machines["b"].state == ("CLOSE-WAIT" if gap <= COVERED else "ESTABLISHED")
        world.send("b", b"who is there?")
        world.run(1000)
        assert world.machines["b"].state == "CLOSED"
        assert {speaker for speaker, _ in world.doors["a"].sent} == {"kernel"}

    @pytest.mark.parametrize("gap", [START, BUILT, DEAF, HEARS, PROBED])
    def test_on_the_way_up(self, always_gaps, gap):
        hand_over = HandOver(GAP)
        world = hand_over.world
        taken = hand_over.take()
        hand_over.when_gap(gap, hand_over.machine.die)
        with pytest.raises(ProcessDied):
            hand_over.give_back(taken)
        world.run(1000)
        assert world.machines["b"].state == ("ESTABLISHED" if gap <= BUILT else "CLOSE-WAIT")
        world.send("b", b"who is there?")
        world.run(1000)
        assert world.machines["b"].state == "CLOSED"

    def test_while_it_waits(self):
        hand_over = HandOver()
        world, platform = hand_over.world, hand_over.machine.platform
        step = world.step
        world.step = lambda until: (hand_over.machine.die(), step(until))[1]
        world.send("b", b"x")
        with pytest.raises(ProcessDied):
            platform.wait(None)
        with pytest.raises(OSError):
            hand_over.tap.send(b"", [], 0, 0, 0, False)


CLOSINGS = {
    TcpState.FIN_WAIT1: (lambda world: world.shutdown("a"),),
    TcpState.FIN_WAIT2: (lambda world: world.shutdown("a"), lambda world: world.run(50_000)),
    TcpState.CLOSE_WAIT: (lambda world: world.shutdown("b"), lambda world: world.run(1000)),
    TcpState.LAST_ACK: (
        lambda world: world.shutdown("b"),
        lambda world: world.run(1000),
        lambda world: world.shutdown("a"),
    ),
    TcpState.CLOSING: (
        lambda world: (world.shutdown("a"), world.shutdown("b")),
        lambda world: world.run(200),
    ),
}


@pytest.mark.parametrize(
    "state, queued",
    # Behind 40,000 bytes their FINs would not cross.
    [(state, n) for state in CLOSINGS for n in (0, 500, 40_000) if (state, n) != (TcpState.CLOSING, 40_000)],
    ids=lambda value: getattr(value, "name", None),
)
def test_half_closed_there_and_back(state, queued):
    """Nothing goes back, no reset, no byte lost."""
    hand_over = HandOver()
    world = hand_over.world
    world.send("a", DATA[:queued])
    world.send("b", DATA[:queued])
    if queued and state is not TcpState.CLOSING:
        world.run(100_000)
        assert world.receive("a") == world.receive("b") == DATA[:queued]
    for act in CLOSINGS[state]:
        act(world)
    assert hand_over.machine.tcp.state is state
    # A target would know the tap's frames by now.
    hand_over.arrived()
    taken = hand_over.take()
    last = hand_over.said()[-1]
    hand_over.give_back(taken)
    hand_over.finish()
    assert all(0 <= (segment.ack - last.ack) & MASK < 1 << 31 for segment in hand_over.said())
    world.run(5_000_000)
    for side in "ab":
        world.receive(side)
        world.shutdown(side)
    world.run(5_000_000)
    assert {hand_over.machine.state, world.machines["b"].state} <= {"CLOSED", "TIME-WAIT"}
    assert not any(segment.flags & RST for side in "ab" for segment in hand_over.said(side))


def test_our_fin_counts_as_sent():
    """What acknowledges it, meanwhile, ends this half; nothing is sent again."""
    hand_over = HandOver()
    world = hand_over.world
    world.send("a", DATA[:10_000])
    world.shutdown("a")
    taken = hand_over.take()
    hand_over.said()
    world.run(50_000)
    hand_over.give_back(taken)
    assert hand_over.machine.state == "FIN-WAIT-2"
    hand_over.finish()
    world.run(5_000_000)
    assert not any(segment.payload or segment.flags & FIN for segment in hand_over.said())


@pytest.mark.parametrize("state", [TcpConnectionState.TIME_WAIT, TcpConnectionState.CLOSED])
def test_a_connection_that_the_target_has_brought_to_its_end(state):
    hand_over = HandOver()
    world = hand_over.world
    world.send("b", b"unread")
    world.run(1000)
    taken = hand_over.take()
    hand_over.said()
    delegated = taken.delegated
    end = (delegated.snd_una + 1) & MASK
    delegated.state, delegated.rcv_nxt = state, (delegated.rcv_nxt + 1) & MASK
    delegated.snd_una = delegated.snd_nxt = delegated.snd_max = end
    hand_over.give_back(taken, list)
    assert not hand_over.said()
    assert hand_over.machine.state == ("CLOSED" if state is TcpConnectionState.CLOSED else "TIME-WAIT")
    assert world.receive("a") == b"unread"
    assert hand_over.machine.sock.tcp.receive_into(memoryview(bytearray(1)), world.clock.now) == 0


class TestPlainIo:
    def test_both_ways(self):
        hand_over = HandOver()
        world, side = hand_over.world, hand_over.side
        assert side.send(memoryview(b"ping")) == 4
        world.run(1000)
        assert world.receive("b") == b"ping"
        buffer = memoryview(bytearray(10))
        assert side.receive_into(buffer) == -1
        world.send("b", b"pong")
        world.shutdown("b")
        world.run(1000)
        assert side.receive_into(buffer) == 4 and side.receive_into(buffer) == 0
        assert side.bytes_carried()[0] == 4
        figures = side.tcp_info()
        assert figures["tcpi_bytes_acked"] == 4 and figures["tcpi_rtt"] > 0 and figures["tcpi_snd_mss"] > 0
        side.shutdown()
        assert hand_over.said()[-1].flags & FIN

    def test_a_full_buffer(self):
        hand_over = HandOver(network=Network(loss=1.0))
        assert hand_over.side.send(memoryview(DATA)) == 65536
        assert hand_over.side.send(memoryview(DATA)) == 0
        assert not hand_over.side.is_ready(False, True)

    def test_abort(self):
        hand_over = HandOver()
        hand_over.side.abort()
        assert hand_over.said()[-1].flags & RST and hand_over.machine.state == "CLOSED"

    def test_abort_of_a_placeholder_is_silent(self):
        hand_over = HandOver()
        hand_over.take()
        hand_over.said()
        hand_over.side.abort()
        assert not hand_over.said() and hand_over.machine.owner == "kernel"
        hand_over.world.send("b", b"who is there?")
        hand_over.world.run(1000)
        assert hand_over.world.machines["b"].state == "CLOSED"
        with pytest.raises(OSError):
            hand_over.side.send(memoryview(b"x"))

    def test_it_closes_with_its_last_descriptor(self):
        hand_over = HandOver()
        hand_over.side.release()
        hand_over.side.release()
        assert hand_over.machine.state == "ESTABLISHED"
        hand_over.machine.sock.close()
        hand_over.machine.sock.close()
        assert hand_over.machine.state == "FIN-WAIT-1" and hand_over.machine.sock.fileno() == -1


@given(
    seed=st.integers(0, 10_000),
    gap_us=st.sampled_from([0, 50, 400, 5000]),
    loss=st.sampled_from([0.0, 0.05]),
    reorder=st.sampled_from([0.0, 0.1]),
    ipv6=st.booleans(),
    timestamps=st.booleans(),
    sack=st.booleans(),
    scale=st.sampled_from([-1, 0, 7]),
)
@settings(max_examples=60, deadline=None)
def test_hand_overs_at_any_moment_lose_no_byte(seed, gap_us, loss, reorder, ipv6, timestamps, sack, scale):
    """Both sides send, with pauses; the connection goes out and comes back again and again; streams stay whole."""
    network = Network(loss=loss, reorder=reorder, duplicate=loss)
    hand_over = HandOver(
        gap_us, seed=seed, network=network, ipv6=ipv6, timestamps=timestamps, sack=sack, scale=scale, mss=1000
    )
    world, chance = hand_over.world, Random(seed)
    left = {"a": DATA[:30_000], "b": DATA[1:30_001]}
    got = {"a": b"", "b": b""}
    for _ in range(12):
        for side in "ab":
            size = chance.choice((0, 10, 999, 5000))
            if left[side] and size:
                world.send(side, left[side][:size])
                left[side] = left[side][size:]
        world.run(chance.choice((0, 100, 300, 1000, 50_000)))
        taken = hand_over.take()
        assert hand_over.machine.sock.tcp is None
        world.run(chance.choice((0, 0, 100, 1000)))
        hand_over.give_back(taken)
        hand_over.finish()
        for side in "ab":
            got[side] += world.receive(side)
    network = world.network
    network.behave()
    for side in "ab":
        while left[side]:
            world.send(side, left[side][:5000])
            left[side] = left[side][5000:]
    for side in "ab":
        world.shutdown(side)
    for _ in range(100):
        world.run(1_000_000)
        for side in "ab":
            got[side] += world.receive(side)
        if all(world.machines[side].state in ("CLOSED", "TIME-WAIT") for side in "ab"):
            break
    assert got == {"a": DATA[1:30_001], "b": DATA[:30_000]}
    assert {world.machines[side].state for side in "ab"} <= {"CLOSED", "TIME-WAIT"}
