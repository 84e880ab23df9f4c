"""Peers that send what they should not, or nothing; and the timers that notice (documents: 13.5, 14, 16.4, 16.5)."""

from __future__ import annotations

from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, hand_over, pattern, send
from chimney.conformance.wire import ACK, SYN
from chimney.conformance.world import World
from chimney.ndis.state import TimerRemainder
from chimney.ndis.status import Status, TcpCachedFlags, TcpConnectionState, TcpConstFlags, UploadReason
from chimney.target import TargetConfig

State = TcpConnectionState


def _reasons(world: World, side: int = 0) -> list[UploadReason]:
    return [UploadReason(reason) for _, reason, _ in world.sides[side].host.took("INDICATE_RETRIEVE")]


@scenario(delay_us=100)
def urgent_data(world: World) -> None:
    """URG outside the window is dropped; within it, it and all behind it is the host's, after the terminate."""
    a, b = world.connect()
    exchange(a, b, 300)
    b.arrives(300 + (1 << 20), b"far away", urgent=1, ack=300)
    assert not b.host.took("INDICATE_RETRIEVE")
    send(b, 1000)
    b.host.obedient = False
    b.arrives(300, b"urgent", urgent=1, ack=300)
    b.arrives(306, b"and more", ack=300)
    late = send(b, 200)
    world.poll()
    assert late[0].status == Status.UPLOAD_IN_PROGRESS and not b.host.ordinary
    b.host.obedient = True
    world.run(until=lambda: not b.offloaded)
    assert _reasons(world, 1) == [UploadReason.RECEIVED_URGENT_DATA] and len(b.host.ordinary) >= 2
    b.initiate()
    a.reading = 1000
    world.run(until=lambda: arrived(a))


@scenario(delay_us=100)
def syns(world: World) -> None:
    """A SYN outside the window is acknowledged, within it challenged once in three seconds, at RcvNxt it ends it."""
    a, b = world.connect()
    exchange(a, b, 300)
    a.arrives(300 + (1 << 20), flags=SYN, push=False)
    a.arrives(200, flags=SYN, push=False)
    for _ in range(3):
        a.arrives(310, flags=SYN, push=False, ack=300)
    world.run(duration=4_000_000)
    a.arrives(310, flags=SYN | ACK, push=False, ack=300)
    exchange(a, b, 300)
    a.arrives(600, flags=SYN, push=False)
    world.run(until=lambda: not a.offloaded)
    assert _reasons(world) == [UploadReason.UPLOAD_REQUESTED] and a.is_in(State.CLOSED)
    b.abort()
    world.run(until=lambda: not b.offloaded)


@scenario(delay_us=100)
def segments_in_time_wait(world: World) -> None:
    """In TIME_WAIT a SYN is the host's; data for a closed connection is, too."""
    a, b = world.connect()
    a.disconnect()
    world.run(until=lambda: b.peer_closed)
    a.host.obedient = b.host.obedient = False
    b.disconnect()
    world.run(until=lambda: a.is_in(State.TIME_WAIT) and b.is_in(State.CLOSED))
    a.arrives(1000, flags=SYN, push=False)
    b.arrives(1, b"late", ack=1)
    assert len(a.host.ordinary) == len(b.host.ordinary) == 1
    # However long the hosts take.
    world.run(duration=2_000_000)
    a.host.obedient = b.host.obedient = True
    world.run(until=lambda: not a.offloaded and not b.offloaded)


@scenario(delay_us=100, config=TargetConfig(max_retransmissions=4))
def silence(world: World) -> None:
    """The peer does not answer: the segment is sent again as often as is allowed, with back-off, and then goes up."""
    a, b = world.connect()
    exchange(a, b, 300)
    world.network.drop_if = lambda name, frame: True
    sends = send(a, 500)
    world.run(until=lambda: not a.offloaded)
    assert _reasons(world) == [UploadReason.TIMEOUT_EXPIRATION]
    world.network.drop_if = None
    assert sends[0].status == Status.UPLOAD_IN_PROGRESS
    # The host has sent it once more, in vain, and now the peer is back.
    a.delegated.retransmit = TimerRemainder(0, 0)
    a.delegated.total_rt = 0
    a.initiate()
    world.run(until=lambda: arrived(b))


@scenario(delay_us=100, config=TargetConfig(max_retransmissions=2))
def silence_by_time(world: World) -> None:
    """MaxRT instead of a count; and no limit at all."""
    a, b = world.ends()
    c, d = world.ends(2000)
    a.cached.max_rt, c.cached.max_rt = 3000, 0xFFFFFFFF
    for end in (a, b, c, d):
        end.initiate()
    world.network.drop_if = lambda name, frame: True
    send(a, 100)
    send(c, 100)
    start = world.clock()
    world.run(until=lambda: not a.offloaded)
    assert world.clock() - start > 2_900_000
    world.run(duration=60_000_000)
    assert c.offloaded
    world.network.drop_if = None
    d.reading = 500
    world.run(until=lambda: arrived(d))


@scenario(delay_us=1000, config=TargetConfig(max_retransmissions=4))
def closed_windows(world: World) -> None:
    """The peer closes its window: probes, answered rounds that begin later and later, then silence in a round."""
    a, b = world.connect()
    exchange(a, b, 1000)
    b.update(initial_rcv_wnd=0, flags=TcpCachedFlags.UPDATE_RCV_WND)
    b.reading = 0
    for end in (b,):
        for nbl in end.pending("receive"):
            assert nbl is not None
    a.arrives(1000, ack=1000, window=0, push=False)
    send(a, 3000)
    world.run(duration=20_000_000)
    assert not a.host.took("INDICATE_RETRIEVE") and not arrived(b)
    b.update(initial_rcv_wnd=1 << 18, flags=TcpCachedFlags.UPDATE_RCV_WND)
    b.reading = 5000
    world.run(until=lambda: arrived(b))
    a.arrives(1000, ack=4000, window=0, push=False)
    world.network.drop_if = lambda name, frame: True
    send(a, 3000)
    world.run(until=lambda: not a.offloaded)
    assert _reasons(world) == [UploadReason.TIMEOUT_EXPIRATION]
    world.network.drop_if = None


@scenario(delay_us=1000, config=TargetConfig(max_retransmissions=3))
def window_probes(world: World) -> None:
    """Long round trips: two rounds of probing are answered, each after a longer wait, and the third is not."""
    a, _ = world.ends()
    # A timeout of four seconds.
    a.delegated.s_rtt, a.delegated.rtt_var = 8 * 2000, 4 * 500
    a.initiate()
    send(a, 3000)
    for wait in (5_000_000, 9_000_000):
        a.arrives(0, window=0, push=False)
        world.run(duration=wait)
    a.arrives(0, window=0, push=False)
    world.run(until=lambda: not a.offloaded)
    assert _reasons(world) == [UploadReason.TIMEOUT_EXPIRATION]


@scenario(delay_us=100)
def keepalives(world: World) -> None:
    """Probes of an idle peer are answered, an active one is not asked; the probes of a dead one run out."""
    a, b = world.ends()
    a.cached.flags = TcpCachedFlags.KEEP_ALIVE_ENABLED
    a.cached.ka_timeout, a.cached.ka_interval, a.cached.ka_probe_count = 4000, 1000, 3
    a.initiate(), b.initiate()
    exchange(a, b, 100)
    for _ in range(13):
        world.run(duration=1_000_000)
    for _ in range(3):
        exchange(a, b, 100)
        world.run(duration=3_000_000)
    world.network.drop_if = lambda name, frame: name == "b"
    world.run(duration=3_500_000)
    hand_over(a)
    world.run(until=lambda: not a.offloaded)
    assert _reasons(world) == [UploadReason.TIMEOUT_EXPIRATION]
    world.network.drop_if = None


@scenario(delay_us=100)
def fin_wait_2(world: World) -> None:
    """A peer that never closes is given up after two minutes without a segment of its."""
    a, b = world.connect()
    a.disconnect()
    a.reading = 1000
    world.run(until=lambda: bool(a.host.took("disconnect")))
    world.run(duration=100_000_000)
    send(b, 100)
    world.run(duration=100_000_000)
    assert a.offloaded
    world.run(until=lambda: not a.offloaded)
    assert _reasons(world) == [UploadReason.TIMEOUT_EXPIRATION] and a.is_in(State.CLOSED)


@scenario(delay_us=1000)
def acknowledgements(world: World) -> None:
    """One small segment is acknowledged after a delay, the second of two at once, and a window update when it grows."""
    a, b = world.connect()
    b.reading = 20_000
    for sizes in ((100,), (100, 100), (3000,), (1448,)):
        for size in sizes:
            send(a, size)
            world.run(duration=200)
        world.run(duration=300_000)
    assert arrived(b)


@scenario(delay_us=1000, config=TargetConfig(duplicate_ack_threshold=5, ack_frequency=4, delayed_ack_ticks=100))
def other_thresholds(world: World) -> None:
    """Fast retransmit after five duplicate ACKs; acknowledgements after four segments, or a tenth of a second."""
    a, b = world.connect()
    b.reading = 50_000
    dropped: list[bytes] = []

    def lose_one(name: str, frame: bytes) -> bool:
        if name == "a" and len(frame) > 1000 and not dropped:
            dropped.append(frame)
            return True
        return False

    send(a, 14_000)
    world.run(until=lambda: arrived(b))
    world.network.drop_if = lose_one
    send(a, 30_000)
    world.run(until=lambda: arrived(b))
    for size in (100, 200):
        send(a, size)
        world.run(duration=200_000)


@scenario(delay_us=1000, config=TargetConfig(ack_frequency=3, delayed_ack_ticks=3000))
def patient_acknowledgements(world: World) -> None:
    """Three segments are acknowledged at once, one after three seconds; and nobody is there who sends them again."""
    _, b = world.ends()
    b.initiate()
    for offset in range(0, 300, 100):
        b.arrives(offset, bytes(100), push=False)
    sent = [_frames_of(world, "b")]
    for offset, duration in ((300, 3_500_000), (400, 2_900_000)):
        world.run(duration=2_000_000)
        b.arrives(offset, bytes(100), push=False)
        world.run(duration=duration)
        sent.append(_frames_of(world, "b"))
    assert sent == [1, 2, 2]


def _frames_of(world: World, name: str) -> int:
    return sum(sender == name for _, sender, _ in world.wire)


@scenario(delay_us=1000, config=TargetConfig(duplicate_ack_threshold=5))
def duplicates_by_hand(world: World) -> None:
    """A segment is sent again when its fifth duplicate acknowledgement has come, and not before."""
    a, _ = world.ends()
    a.const.flags = TcpConstFlags.WINDOW_SCALING_ENABLED
    a.initiate()
    send(a, 12_000)
    world.run(duration=3000)
    sent = []
    for _ in range(6):
        a.arrives(0, ack=1460, push=False)
        sent.append(_frames_of(world, "a"))
    world.run(duration=1_000_000)
    a.arrives(0, ack=12_000, push=False)
    # What the limit lets through besides is new.
    assert sent[5] > sent[4], sent


@scenario(delay_us=500, config=TargetConfig(nce_stale_ticks=2000))
def reachability(world: World) -> None:
    """Neither side has heard of the neighbor for long: the host is asked; it knows, or it does not."""
    a, b = world.connect()
    b.host.answer = len
    for answer in (1, 0, 500):
        a.host.reachability_answer = answer
        world.run(duration=5_000_000)
        before = len(a.host.took("generic"))
        send(a, 100)
        world.run(duration=500_000)
        assert len(a.host.took("generic")) == before + 1
        send(a, 100)
        world.run(duration=500_000)
        assert len(a.host.took("generic")) == before + 1, "there was progress"
        a.query(None, neighbor="delegated")
    # No progress: the peer is silent, and so the question comes again.
    world.network.drop_if = lambda name, frame: True
    send(a, 100)
    world.run(duration=8_000_000)
    assert len(a.host.took("generic")) >= 4
    world.network.drop_if = None
    world.run(until=lambda: arrived(b))
    assert pattern(a, 1)
