"""Where one of the sender's mechanisms could undo or outrun another: timers, ECN, recovery, hand-over, validation."""

import pytest
from recovery_harness import FULL, RTT, ack, again, engine
from tcp_harness import Peer

from chimney.tcp import ACK, ECE, NEVER, Config, Connection
from chimney.tcp.recovery import RECOVERY

WIDE = {"snd_wscale": 8, "black_hole_detection": False}


def test_an_ecn_echo_does_not_cancel_the_probe_of_the_tail():
    """RFC 8985, 7: nothing is known to be missing."""
    peer = engine(count=10, n_data=10, cwnd=20 * FULL, ecn=True)
    peer.now = RTT
    peer.give(0, 5 * FULL, window=39062, flags=ACK | ECE)
    assert peer.take() == []
    [probe] = peer.wait()
    assert peer.now < 5 * RTT and probe.seq == 9 * FULL
    assert peer.conn.stats.tail_probes == 1 and peer.conn.stats.timeouts == 0


def repaired(peer, sent, end):
    """So many round trips until all before `end` is acknowledged; every segment arrives, and is acknowledged."""
    arrived = rounds = 0
    while arrived < end:
        rounds += 1
        for segment in sent:
            if segment.seq <= arrived:
                arrived = max(arrived, segment.seq + segment.length)
        peer.now += RTT
        peer.give(0, arrived, window=39062)
        sent = peer.take()
    return rounds


def test_what_was_sent_again_is_no_pause():
    """A path that was dead for some seconds has just been repaired: the next data is not a new beginning."""
    peer = engine(count=100, n_data=100, cwnd=100 * FULL)
    conn = peer.conn
    while peer.now < 3_000_000:
        sent = peer.wait()
    repaired(peer, sent, 100 * FULL)
    cwnd = conn.cwnd
    assert cwnd > 20 * FULL
    conn.send(memoryview(bytes(200 * FULL)))
    peer.take()
    assert conn.cwnd == cwnd


def late_by_a_millisecond(peer, at, rtt):
    """Ten segments, of which the first is reordered."""
    peer.conn.send(memoryview(bytes(10 * FULL)))
    peer.take()
    peer.now += rtt
    ack(peer, at, (at + 1, at + 3))
    assert again(peer) == []
    peer.now += 1_000
    ack(peer, at + 10)
    peer.take()


def test_the_reordering_timer_comes_before_the_time_out():
    """RFC 8985, 8. On a long path that reorders, the first of a flight is lost, and the window of RACK is long."""
    rtt = 1_000_000
    peer = Peer(Config(timestamps=False, **WIDE), cwnd=40 * FULL, ssthresh=40 * FULL, snd_wnd=39062 << 8, srtt_us=rtt)
    late_by_a_millisecond(peer, 0, rtt)
    for at in range(10, 310, 10):
        peer.conn.send(memoryview(bytes(10 * FULL)))
        peer.take()
        peer.now += rtt
        ack(peer, at + 10)
        peer.take()
    peer.conn.send(memoryview(bytes(10 * FULL)))
    peer.take()
    peer.now += rtt
    ack(peer, 310, (311, 320))
    assert again(peer) == []
    conn = peer.conn
    assert conn.sender.timer.deadline < conn.sender.rack.deadline
    repeated = []
    while not repeated:
        peer.now = conn.poll_at()
        repeated = again(peer)
    assert repeated == [310] and conn.stats.timeouts == 0 and conn.sender.recovery.state == RECOVERY


def test_the_reordering_timer_does_not_hold_up_what_ends_reneging():
    """RFC 2018, 8: the peer does not acknowledge what it has covered, and something else may be late still."""
    peer = engine(count=20, n_data=20)
    conn = peer.conn
    conn.sender.rack.reorderings, conn.sender.rack.steps = 1, 40
    ack(peer, 0, (1, 3), at=RTT)
    peer.take()
    ack(peer, 2, (2, 3), (6, 8), at=RTT + 2_000)
    peer.take()
    assert conn.sender.flight.head().is_sacked and conn.sender.rack.deadline < NEVER
    while not conn.stats.timeouts:
        peer.now = conn.poll_at()
        peer.take()
    assert peer.now <= 3 * RTT


@pytest.mark.parametrize("proof", ["duplicates reported", "originals after a time-out"])
def test_what_the_network_has_said_is_not_taken_back(proof):
    """RFC 3168: a recovery that was spurious does not make the congestion untrue that a router has told of."""
    peer = engine(count=20, cwnd=20 * FULL, ecn=True)
    conn = peer.conn
    peer.now = RTT
    peer.give(0, 2 * FULL, window=39062, flags=ACK | ECE)
    peer.take()
    assert conn.sender.congestion.ssthresh == 14 * FULL
    if proof == "duplicates reported":
        peer.now += 1_000
        ack(peer, 2, (3, 14))
        repeated = again(peer)
        assert repeated
        peer.now += 500
        ack(peer, 14)
        peer.take()
        for segment in repeated:
            ack(peer, 14, (segment, segment + 1))
    else:
        while not conn.stats.timeouts:
            peer.now = conn.poll_at()
            peer.take()
        peer.now += 1_000
        ack(peer, 6)
    assert conn.stats.spurious_recoveries == 1
    assert conn.sender.congestion.ssthresh == 14 * FULL and 14 * FULL <= conn.cwnd < 20 * FULL


def test_a_hole_in_a_flight_that_was_handed_over_is_found_without_a_time_out():
    """What covers it was sent by the owner before, and arrives sooner than a round trip after the hand-over."""
    mss = 1448
    config = Config(**WIDE)
    peer = Peer(config, cwnd=20 * mss, ssthresh=20 * mss, snd_wnd=39062 << 8, srtt_us=40_000, ts_time=100)
    data = memoryview(bytes(10 * mss))
    peer.conn.send(data)
    peer.take()
    peer.now = 20_000
    peer.conn = Connection(config, peer.conn.export(peer.now), peer.now)
    peer.conn.send(data)
    assert peer.take() == []
    peer.now = 40_000
    peer.give(0, 0, window=39062, sack=[(mss, 10 * mss)], ts=(5, 100))
    repeated = peer.take()
    while not repeated:
        repeated = peer.wait()
    assert [s.seq for s in repeated] == [0] and peer.now < 80_000 and peer.conn.stats.timeouts == 0


def test_what_may_have_been_sent_before_a_hand_over_and_is_sent_now_tells_a_round_trip_of_its_own():
    """A report of the original is no answer to what has just left: nothing is lost for that."""
    mss, srtt = 1448, 100_000
    window = {"cwnd": 40 * mss, "ssthresh": 40 * mss, "snd_wnd": 39062 << 8}
    peer = Peer(Config(**WIDE), srtt_us=srtt, snd_max=10 * mss, ts_time=5000, **window)
    peer.conn.send(memoryview(bytes(1000 * mss)))
    peer.take()
    peer.now = 2_000
    peer.give(0, 0, window=39062, ts=(1, 4999), sack=[(5 * mss, 9 * mss)])
    again = []
    while peer.conn.poll_at() < srtt + 20_000:
        peer.now = max(peer.now, peer.conn.poll_at())
        again += [s.seq for s in peer.take() if s.seq < 10 * mss]
    assert again == [] and peer.conn.cwnd == 40 * mss


@pytest.mark.parametrize("counted", [2, 200])
def test_duplicates_that_the_owner_before_has_counted_stand_for_its_own_flight_alone(counted):
    config = Config(timestamps=False, sack=False, **WIDE)
    flight = 5 * FULL
    wnd = 39062 << 8
    peer = Peer(config, cwnd=20 * FULL, snd_wnd=wnd, dup_ack_count=counted, snd_nxt=flight, snd_max=flight)
    peer.conn.send(memoryview(bytes(1000 * FULL)))
    assert sum(s.segments for s in peer.take()) <= 15 + 4
    peer.now += RTT
    ack(peer, peer.conn.sender.nxt // FULL)
    assert peer.conn.sender.recovery.dup_acks == 0
    peer.take()
    assert peer.conn.sender.nxt - peer.conn.sender.una <= peer.conn.cwnd


def test_after_a_window_that_was_closed_for_long_cwnd_begins_anew():
    """RFC 5681, 4.1: the probes of a closed window are no flight."""
    peer = engine(count=10, n_data=10, cwnd=200 * FULL)
    conn = peer.conn
    peer.now = RTT
    peer.give(0, 10 * FULL, window=0)
    peer.take()
    conn.send(memoryview(bytes(1000 * FULL)))
    while peer.now < 60_000_000:
        assert peer.wait()
        peer.give(0, conn.sender.una, window=0)
        peer.take()
    peer.give(0, conn.sender.una, window=39062)
    assert sum(s.segments for s in peer.take()) <= 11


@pytest.mark.parametrize("handed_over", [False, True])
def test_cwnd_grows_while_a_flight_is_repaired_after_a_time_out_whoever_sent_it(handed_over):
    """RFC 5681, 3.1. With nothing new to be sent, nothing else would ever say that cwnd is in use."""
    peer = engine(count=100, n_data=100, cwnd=100 * FULL)
    if handed_over:
        peer.conn = Connection(peer.conn.config, peer.conn.export(peer.now), peer.now)
        peer.conn.send(memoryview(bytes(100 * FULL)))
        assert peer.take() == []
    sent = []
    while not peer.conn.stats.timeouts:
        sent = peer.wait()
    assert repaired(peer, sent, 100 * FULL) < 10


@pytest.mark.parametrize(("congestion", "expected"), [("cubic", 28), ("reno", 20)])
@pytest.mark.parametrize("acked", [2, 20, 40])
def test_an_ecn_echo_reduces_from_what_was_there_before_it(congestion, expected, acked):
    """RFC 3168, 6.1.2: the acknowledgement that brings it lets cwnd not grow, and what it covers was in flight."""
    config = Config(timestamps=False, ecn=True, congestion=congestion, **WIDE)
    peer = Peer(config, cwnd=40 * FULL, snd_wnd=39062 << 8, srtt_us=RTT)
    peer.conn.send(memoryview(bytes(1000 * FULL)))
    peer.take()
    peer.now = RTT
    peer.give(0, acked * FULL, window=39062, flags=ACK | ECE)
    assert peer.conn.sender.congestion.ssthresh == expected * FULL
    assert expected * FULL <= peer.conn.cwnd <= 40 * FULL


@pytest.mark.parametrize("timed_out", [False, True])
def test_the_peer_hears_of_every_reduction(timed_out):
    """RFC 3168, 6.1.2: CWR stands on the first new data after it, and not on what is sent again."""
    peer = engine(count=10, n_data=200, ecn=True)
    sent = []
    if timed_out:
        while not peer.conn.stats.timeouts:
            sent = peer.wait()
    else:
        ack(peer, 0, (1, 5), at=RTT)
        sent += peer.take()
    peer.now += RTT
    ack(peer, 10)
    sent += peer.take()
    first, *others = [segment for segment in sent if segment.seq >= 10 * FULL]
    assert first.cwr and not any(segment.cwr for segment in others)
    assert not any(segment.cwr for segment in sent if segment.seq < 10 * FULL)


def test_an_answer_to_what_was_sent_again_ends_the_back_off():
    """RFC 7323, 4.1: the path is as fast as ever; a sample that is no shorter than the estimate says so, too."""
    config = Config(sack=False, max_rt_us=-1, **WIDE)
    mss = 1448
    peer = Peer(config, cwnd=20 * mss, ssthresh=20 * mss, snd_wnd=39062 << 8, srtt_us=50_000, ts_time=1000)
    peer.conn.send(memoryview(bytes(2 * mss)))
    sent = peer.take()
    while peer.now < 60_000_000:
        sent = peer.wait()
    for arrived in (1, 2):
        peer.now += 50_000
        peer.give(0, arrived * mss, window=39062, ts=(1 + arrived, sent[0].ts[0]))
        sent = peer.take()
    assert peer.conn.sender.timer.backoff == 0


def test_an_answer_to_something_older_does_not_end_the_back_off():
    config = Config(sack=False, max_rt_us=-1, **WIDE)
    peer = Peer(config, cwnd=20 * 1448, ssthresh=20 * 1448, snd_wnd=39062 << 8, srtt_us=50_000, ts_time=1000)
    peer.conn.send(memoryview(bytes(2 * 1448)))
    [first] = peer.take()
    while peer.now < 60_000_000:
        peer.wait()
    peer.give(0, 1448, window=39062, ts=(2, first.ts[0]))
    assert peer.conn.sender.timer.backoff > 0


def test_after_a_window_probe_what_had_not_left_is_no_retransmission():
    peer = Peer(Config(timestamps=False), snd_wnd=0)
    peer.conn.send(memoryview(bytes(5 * FULL)))
    peer.take()
    [probe] = peer.wait()
    assert probe.length == 1
    peer.give(0, 0, window=65535)
    assert sum(segment.length for segment in peer.take()) == 5 * FULL
    stats = peer.conn.stats
    assert (stats.bytes_out, stats.retransmitted_bytes, stats.retransmitted_segments) == (5 * FULL, 1, 1)


def test_keepalive_leaves_a_connection_alone_that_has_something_to_send():
    """A closed window is probed as Linux does it: with nothing that could be outstanding."""
    config = Config(
        timestamps=False, linux_window_probes=True, keepalive_us=10_000_000, keepalive_interval_us=1_000_000,
        keepalive_probes=3,
    )  # fmt: skip
    peer = Peer(config, snd_wnd=0, max_snd_wnd=65535)
    peer.conn.send(memoryview(bytes(5000)))
    while peer.now < 100_000_000:
        peer.wait()
    assert not peer.conn.stopped and peer.conn.stats.keepalive_probes == 0


def test_a_record_that_ends_within_a_probe_of_the_mtu_is_no_probe():
    config = Config(timestamps=False, snd_wscale=8)
    peer = Peer(config, cwnd=60 * FULL, ssthresh=60 * FULL, snd_wnd=39062 << 8)
    conn = peer.conn
    conn.send(memoryview(bytes(FULL)))
    peer.take()
    while conn.mss == FULL:
        sent = peer.wait()
    arrived = FULL
    for _ in range(60):
        peer.now += RTT
        peer.give(0, arrived, window=39062)
        conn.sender.congestion.cwnd = 60 * FULL
        for _ in range(14):
            conn.send(memoryview(bytes(700)), True, True)
        sent = peer.take()
        arrived = max(segment.seq + segment.length for segment in sent)
    assert conn.sender.black_hole.candidate == FULL, "it was never tried"


def test_a_window_update_tells_something():
    """At a large scale, what an application takes does not show in the field: the same again is a duplicate."""
    peer = Peer(Config(timestamps=False, rcv_wscale=14, initial_rcv_wnd=1 << 20), rcv_wnd=1 << 20)
    for position in range(0, 700_000, FULL):
        peer.give(position, 0, bytes(FULL))
        peer.take()
    told = []
    for _ in range(40):
        peer.conn.consume(1000)
        told += [(segment.ack, segment.window) for segment in peer.take()]
    assert told and len(set(told)) == len(told)


def test_the_block_that_encloses_a_duplicate_comes_next_to_it():
    """RFC 2883, 4, also where something else has come since."""
    peer = Peer(Config(timestamps=False))
    for position in (2000, 6000):
        peer.give(position, 0, bytes(1000))
        peer.take()
    peer.give(2000, 0, bytes(1000))
    peer.give(7000, 0, bytes(1000))
    [report] = peer.take()
    assert report.sack == [(2000, 3000), (2000, 3000), (6000, 8000)]


def test_a_black_hole_is_found_by_segments_that_a_smaller_size_would_cut():
    """RFC 4821, 7.7: a request of 1400 bytes over a path of 1300."""
    peer = Peer(Config(timestamps=False))
    peer.conn.send(memoryview(bytes(1400)))
    peer.take()
    longest = 1400
    while longest == 1400:
        longest = max(segment.length for segment in peer.wait())
    assert longest == 1024 and peer.conn.stats.timeouts < 5
