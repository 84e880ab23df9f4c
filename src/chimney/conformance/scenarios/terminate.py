"""Taking connections back with everything they hold, and offloading them again (documents: 9.6, chapter 15)."""

from __future__ import annotations

from chimney.conformance.handshake import delegated
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, hand_over, pattern, send
from chimney.conformance.world import World
from chimney.ndis.buffers import iterate
from chimney.ndis.state import TIMER_NOT_RUNNING
from chimney.ndis.status import DisconnectFlags, Status, TcpCachedFlags, TcpConnectionState
from chimney.target import TargetConfig

State = TcpConnectionState
_UPLOAD = Status.UPLOAD_IN_PROGRESS


@scenario(delay_us=1000)
def hand_overs(world: World) -> None:
    """Back and down again, several times on both sides, with requests outstanding and data in flight."""
    a, b = world.connect()
    a.reading = b.reading = 3000
    for round_ in range(4):
        send(a, 4000, 5000)
        send(b, 2000)
        world.run(duration=1500)
        (a, b)[round_ % 2].terminate()
        world.run(duration=300)
        (a, b)[round_ % 2].initiate()
        world.run(duration=700)
    world.run(until=lambda: arrived(a, b))
    hand_over(a, b)
    exchange(a, b, 2000)


@scenario(delay_us=1000, loss=0.1)
def hand_overs_with_losses(world: World) -> None:
    """The same on a lossy network: duplicate ACKs, timers and windows travel with the connection."""
    a, b = world.connect()
    a.reading = b.reading = 20_000
    for _ in range(5):
        send(a, 20_000)
        send(b, 7000)
        world.run(duration=5000)
        hand_over(a)
        world.run(duration=3000)
        hand_over(b)
    world.run(until=lambda: arrived(a, b))


@scenario(delay_us=1000)
def everything_outstanding(world: World) -> None:
    """A terminate with sends partly acknowledged, unsent ones, filled and empty receives, and a disconnect."""
    a, b = world.connect()
    # The peer's window lets a part of it go; an acknowledgement splits a request.
    a.send(pattern(a, 3000), (pattern(a, 2000), b"second part", b"third part"))
    world.run(duration=1)
    a.inject(a.frame(a.segment(0, ack=1000, push=False)))
    world.settle()
    world.network.drop_if = lambda name, frame: name == "a"
    send(a, 200_000, 100_000)
    receives = a.receive(600, 500, 400)
    last = a.disconnect(b"the end")
    send(b, 800)
    world.run(duration=2000)
    world.network.drop_if = None
    a.terminate()
    assert [status for _, status, _ in a.host.took("disconnect")] == [_UPLOAD] and a.interrupted_close is None
    assert last.tcp_offload_bytes_transferred == 0
    assert [nbl.status for nbl, _ in receives] == [Status.SUCCESS, Status.SUCCESS, _UPLOAD]
    assert a.delegated.state is State.FIN_WAIT_1
    a.initiate()
    b.reading = 50_000
    world.run(until=lambda: arrived(a, b) and b.peer_closed)


@scenario(delay_us=100)
def undelivered_data(world: World) -> None:
    """Refused data comes back as BufferedData, is copied, and its lists are returned; out-of-order data is dropped."""
    a, b = world.connect()
    send(a, 3000)
    world.run(duration=100_000)
    assert b.host.took("indicate") and not b.received
    # A hole, and data behind it that has been acknowledged selectively alone.
    b.arrives(4000, b"behind a hole")
    b.host.keeps_lists = True
    b.terminate()
    assert b.received == a.application and b.host.held
    b.initiate()
    b.host.keeps_lists = False
    exchange(a, b, 3000)


@scenario(delay_us=100)
def partly_filled(world: World) -> None:
    """A terminate finds requests partly filled, in either mode, and a delayed acknowledgement."""
    a, b = world.connect()
    for push, size in ((False, 500), (True, 400)):
        [(nbl, buffer)] = b.receive(1000, push=push)
        sent = len(a.application)
        data = pattern(a, size)
        a.application += data
        b.arrives(sent, data, push=False)
        b.terminate()
        assert nbl.status == _UPLOAD and nbl.tcp_offload_bytes_transferred == size and buffer[:size] == data
        b.initiate()
    assert arrived(b)


@scenario(delay_us=100)
def several_in_one_terminate(world: World) -> None:
    """Six connections with requests of every kind outstanding, in one tree with their paths and neighbors."""
    pairs = [world.ends(port) for port in range(1000, 1060, 10)]
    for number in (0, 1):
        ends = [pair[number] for pair in pairs]
        for end in ends[1:3]:
            end.share(ends[0])
        ends[4].share(ends[3], path=False)
        assert set(world.sides[number].initiate(*ends)) == {Status.SUCCESS}
    for a, b in pairs:
        b.reading = 2000
        a.receive(500)
        send(a, 2500, 100)
    world.run(duration=250)
    for a, _ in pairs:
        send(a, 300)
        a.disconnect(b"bye")
    side = world.sides[0]
    assert set(side.terminate(*[a for a, _ in pairs])) == {Status.SUCCESS}
    assert side.initiate(*[a for a, _ in pairs])[-1] == Status.SUCCESS
    world.run(until=lambda: all(arrived(b) and b.peer_closed for _, b in pairs))


@scenario(delay_us=100)
def in_every_state(world: World) -> None:
    """Taken back and offloaded again in each state from ESTABLISHED to LAST_ACK; taken back in TIME_WAIT and CLOSED."""
    a, b = world.connect()
    b.reading = 1000
    exchange(a, b, 500)
    network = world.network
    network.drop_if = lambda name, frame: True
    a.disconnect(b"my last")
    world.run(duration=1000)
    hand_over(a)
    assert a.is_in(State.FIN_WAIT_1)
    network.drop_if = None
    world.run(until=lambda: b.peer_closed and a.state is State.FIN_WAIT_2)
    assert b.is_in(State.CLOSE_WAIT)
    hand_over(a)
    hand_over(b)
    assert a.delegated.retransmit.timeout_delta != TIMER_NOT_RUNNING, "FIN_WAIT_2 has a timer"
    a.reading = 1000
    send(b, 600)
    network.drop_if = lambda name, frame: True
    b.disconnect(b"and mine")
    world.run(duration=1000)
    hand_over(b)
    assert b.is_in(State.LAST_ACK)
    network.drop_if = None
    world.run(until=lambda: not a.offloaded)
    assert a.delegated.state is State.TIME_WAIT and arrived(a, b)
    world.run(until=lambda: not b.offloaded)
    assert b.delegated.state is State.CLOSED


@scenario(delay_us=5000)
def simultaneous_close(world: World) -> None:
    """Both sides close at once; handed over in CLOSING."""
    a, b = world.connect()
    a.reading = b.reading = 1000
    exchange(a, b, 500)
    network = world.network
    network.drop_if = lambda name, frame: not frame[14 + 20 + 13] & 1
    a.disconnect(b"a")
    b.disconnect(b"b")
    world.run(duration=8000)
    assert a.is_in(State.CLOSING)
    hand_over(a)
    assert a.is_in(State.CLOSING)
    network.drop_if = None
    world.run(until=lambda: not a.offloaded and not b.offloaded)
    assert a.delegated.state is State.TIME_WAIT and arrived(a, b)


@scenario(delay_us=100)
def timers_come_along(world: World) -> None:
    """Retransmit, keepalive and persist timers are handed over with what they have left."""
    a, b = world.ends()
    a.cached.flags = TcpCachedFlags.KEEP_ALIVE_ENABLED
    a.cached.ka_timeout, a.cached.ka_interval, a.cached.ka_probe_count = 5000, 1000, 3
    a.initiate(), b.initiate()
    world.run(duration=2_000_000)
    hand_over(a)
    assert 2900 < a.delegated.keep_alive.timeout_delta <= 3000
    before = len(world.wire)
    world.run(duration=2_500_000)
    assert len(world.wire) == before
    world.run(duration=600_000)
    assert len(world.wire) > before, "a keepalive probe"
    # Retransmission under way.
    world.network.drop_if = lambda name, frame: name == "a"
    send(a, 500)
    world.run(duration=1_000_000)
    hand_over(a)
    assert a.delegated.retransmit.count >= 1 and a.delegated.retransmit.timeout_delta > 0
    world.network.drop_if = None
    b.reading = 1000
    world.run(until=lambda: arrived(b))
    # A closed window: persist.
    b.update(initial_rcv_wnd=0, flags=TcpCachedFlags.UPDATE_RCV_WND)
    a.arrives(0, ack=500, window=0, push=False)
    send(a, 500)
    world.run(duration=1_500_000)
    hand_over(a)
    world.run(duration=2_000_000)
    b.update(initial_rcv_wnd=1 << 18, flags=TcpCachedFlags.UPDATE_RCV_WND)
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100, unfiltered=True)
def segments_during_terminate(world: World) -> None:
    """What arrives after a terminate has been called goes up the ordinary path, and is not forwarded back."""
    a, b = world.connect()
    b.reading = 2000
    exchange(a, b, 1000)
    tree = b.terminate_tree()
    send(a, 1000)
    a.side.target.poll(world.clock())
    world.clock.advance(100)
    b.side.start("terminate_offload", tree)
    world.run(duration=1000)
    assert b.host.took("terminate") and b.kept and not b.host.took("forward")
    world.run(duration=10_000)
    b.initiate()
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100)
def requests_meanwhile(world: World) -> None:
    """The application goes on sending and asking to close while its connection is taken back and offloaded."""
    a, b = world.connect()
    b.reading = 5000
    send(a, 1000)
    tree = a.terminate_tree()
    a.side.start("terminate_offload", tree)
    send(a, 2000)
    a.side.wait_for("terminate", tree)
    send(a, 300)
    tree = a.initiate_tree()
    a.side.start("initiate_offload", tree)
    send(a, 500)
    a.receive(100)
    a.disconnect(b"enough")
    a.side.wait_for("initiate", tree)
    world.run(until=lambda: arrived(b) and b.peer_closed)


@scenario(delay_us=2000, bandwidth=5_000_000, send_buffer=3000)
def a_link_without_room(world: World) -> None:
    """The link is full when a connection is taken back, and when another is reset."""
    a, b = world.connect()
    c, d = world.connect(2000)
    b.reading = d.reading = 20_000
    send(a, 20_000)
    send(c, 20_000)
    world.run(duration=6000)
    hand_over(a)
    c.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    world.run(until=lambda: arrived(b) and bool(c.host.took("disconnect")))


@scenario(delay_us=100, config=TargetConfig(ticks_per_second=100, delayed_ack_ticks=4, push_ticks=50))
def coarse_ticks(world: World) -> None:
    """A hundred ticks in a second instead of a thousand; and then ten."""
    a, b = world.connect()
    exchange(a, b, 2000)
    hand_over(a, b)
    for _ in range(3):
        exchange(a, b, 2000)
        world.run(duration=2_500_000)
    a.terminate()
    assert a.side.enable(ticks_per_second=10, tcp_delayed_ack_ticks=1, tcp_push_ticks=5) == Status.SUCCESS
    a.delegated.s_rtt //= 10
    a.delegated.rtt_var //= 10
    a.initiate()
    exchange(a, b, 2000)


@scenario(delay_us=100)
def wrapping_clocks(world: World) -> None:
    """Timestamp clock and sequence numbers wrap around within a connection, across hand-overs."""
    a, b = world.ends()
    a.delegated = delegated(0, ts_time=0xFFFFFF00)
    b.delegated = delegated(1, ts_recent=0xFFFFFE00, ts_time=0x7FFFFFF0)
    a.delegated.ts_recent = 0x7FFFFF00
    a.initiate(), b.initiate()
    for _ in range(3):
        exchange(a, b, 1000)
        world.run(duration=150_000)
        hand_over(a)
    chain = list(iterate(a.delegated.send_data_head))
    assert chain == []
