"""Loss: time-outs, fast retransmit, SACK recovery, NewReno, and taking back what was not needed."""

import pytest
from tcp_harness import MSS, Impairments, Pair, Peer

from chimney.tcp import NEVER, UNLIMITED, Config, Event, State

FULL = 1460


def sender(n=20, n_data=1000, **kwargs):
    """An engine with `n` of `n_data` segments outstanding."""
    kwargs.setdefault("cwnd", n * FULL)
    kwargs.setdefault("snd_wnd", 39062 << 8)
    kwargs.setdefault("ssthresh", n * FULL)
    options = {k: kwargs.pop(k) for k in list(kwargs) if hasattr(Config(), k)}
    options.setdefault("black_hole_detection", False)
    peer = Peer(Config(**{"timestamps": False, "snd_wscale": 8, **options}), **kwargs)
    peer.conn.send(memoryview(bytes(n_data * FULL)))
    assert sum(s.segments for s in peer.take()) == n
    return peer


def spans(sent):
    """Where the segments start, and how many there are; neighbours are taken together."""
    joined = []
    for s in sent:
        start = s.seq // FULL
        if joined and joined[-1][0] + joined[-1][1] == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + s.segments)
        else:
            joined.append((start, s.segments))
    return joined


def test_a_time_out_sends_the_first_segment_and_doubles():
    peer = sender(10, sack=False)
    rto = peer.conn.sender.rtt.rto()
    assert rto >= 200_000
    times = []
    for _ in range(3):
        assert spans(peer.wait()) == [(0, 1)]
        times.append(peer.now)
    assert times == [rto, 3 * rto, 7 * rto] and peer.conn.cwnd == FULL


def test_after_a_time_out_everything_is_sent_again_in_slow_start():
    peer = sender(10, sack=False)
    peer.wait()
    peer.give(0, FULL)
    # F-RTO tries new data first (RFC 5682); a duplicate tells that the time-out was for a loss.
    assert spans(peer.take()) == [(10, 2)]
    peer.give(0, FULL, window=65535)
    assert spans(peer.take()) == [(1, 1)]
    peer.give(0, FULL, window=65535)
    assert spans(peer.take()) == [(2, 1)]
    peer.give(0, 3 * FULL)
    assert spans(peer.take()) == [(3, 1)]
    peer.give(0, 10 * FULL)
    assert spans(peer.take())[0][0] == 12


def test_a_time_out_after_a_round_trip_of_days_is_one_for_everything_too():
    peer = sender(10, sack=False)
    peer.conn.sender.recovery.rack.rtt = 10**12
    peer.wait(peer.config.max_rto_us)
    assert peer.conn.sender.flight.lost == 10 * FULL


def test_the_limit_of_retransmissions_is_reported_and_nothing_more_is_sent():
    peer = sender(2, max_retransmissions=2, sack=False)
    peer.wait()
    peer.wait()
    assert peer.wait() == [] and peer.conn.events == [Event.TIMEOUT]
    assert peer.conn.state == State.ESTABLISHED and peer.take() == []
    tcb = peer.conn.export(peer.now)
    assert (tcb.retransmit_count, tcb.retransmit_left_us) == (3, 0)


def test_the_time_spent_can_be_the_limit():
    peer = sender(2, max_rt_us=500_000, max_retransmissions=1, sack=False)
    peer.wait()
    assert peer.wait() == [] and peer.conn.events == [Event.TIMEOUT]
    peer = sender(2, max_rt_us=UNLIMITED, max_retransmissions=1, sack=False)
    for _ in range(30):
        assert len(peer.wait()) == 1


def test_newreno_repairs_one_hole_per_acknowledgement():
    peer = sender(20, sack=False, congestion="reno")
    for _ in range(3):
        peer.give(0, 0, window=39062)
    assert spans(peer.take()) == [(0, 1)]
    assert peer.conn.stats.fast_retransmits == 1 and peer.conn.sender.congestion.ssthresh == 10 * FULL
    peer.give(0, 5 * FULL, window=39062)
    assert spans(peer.take())[0] == (5, 1)
    peer.give(0, 20 * FULL, window=39062)
    assert peer.conn.sender.recovery.state == 0 and peer.conn.cwnd >= 10 * FULL


def test_limited_transmit_lets_new_segments_out_on_the_first_duplicates():
    peer = sender(4, sack=False)
    for n in range(2):
        peer.give(0, 0, window=39062)
        assert spans(peer.take()) == [(4 + n, 1)]
    peer.give(0, 0, window=39062)
    assert spans(peer.take())[0] == (0, 1)


def test_sack_recovery_sends_exactly_the_holes():
    peer = sender(20)
    peer.give(0, 0, window=39062, sack=[(FULL, 3 * FULL)])
    peer.take()
    peer.give(0, 0, window=39062, sack=[(5 * FULL, 20 * FULL), (FULL, 3 * FULL)])
    sent = spans(peer.take())
    assert sent[0] == (0, 1) and sent[1] == (3, 2) and all(at >= 20 for at, _ in sent[2:])
    assert peer.conn.stats.fast_retransmits == 1
    peer.give(0, 25 * FULL, window=39062)
    assert peer.conn.sender.recovery.state == 0


def test_three_segments_of_sack_are_enough_at_once():
    peer = sender(20)
    peer.give(0, 0, window=39062, sack=[(FULL, 4 * FULL)])
    assert spans(peer.take())[0] == (0, 1)


def test_two_segments_of_sack_are_not_enough():
    peer = sender(20)
    peer.now += 10_000
    peer.give(0, 0, window=39062, sack=[(FULL, 3 * FULL)])
    assert all(at >= 20 for at, _ in spans(peer.take()))


def test_the_pipe_limits_recovery():
    peer = sender(20, congestion="reno")
    peer.give(0, 0, window=39062, sack=[(10 * FULL, 13 * FULL)])
    # Ten holes lost, seven segments still under way: room for three within half of twenty.
    assert spans(peer.take()) == [(0, 3)]
    peer.give(0, 0, window=39062, sack=[(10 * FULL, 15 * FULL)])
    assert spans(peer.take()) == [(3, 2)]


def test_a_repair_that_is_lost_is_repaired_again_without_a_time_out():
    peer = sender(20)
    peer.give(0, 0, window=39062, sack=[(FULL, 20 * FULL)])
    sent = spans(peer.take())
    assert sent[0] == (0, 1) and len(sent) > 1
    end = sum(n for _, n in sent[1:]) + 20
    peer.give(0, 0, window=39062, sack=[(FULL, end * FULL)])
    assert spans(peer.take())[0] == (0, 1)


@pytest.mark.parametrize(
    "sack",
    [[(5, 5)], [(9, 4)], [(0, 1000)], [(100, 10_000_000)], [(-50_000, -40_000)], [(2**31, 2**31 + 5)]]
    + [[(i * 2, i * 2 + 1) for i in range(4)]],
)
def test_absurd_sack_blocks_do_no_harm(sack):
    peer = sender(20)
    for _ in range(5):
        peer.give(0, 0, window=39062, sack=sack)
        peer.take()
    flight = peer.conn.sender.flight
    assert 0 <= flight.sacked <= 20 * FULL
    peer.give(0, 20 * FULL, window=39062)
    assert peer.conn.acked == 20 * FULL and flight.sacked == 0


def test_a_peer_that_reneges_is_served_after_the_time_out():
    peer = sender(5)
    peer.give(0, 0, window=39062, sack=[(FULL, 5 * FULL)])
    peer.take()
    peer.give(0, FULL, window=39062)
    peer.take()
    while not peer.conn.stats.timeouts:
        sent = peer.wait()
    assert spans(sent) == [(1, 1)]


def test_what_a_peer_reneges_on_is_sent_again_even_if_it_hides_all_that_was_sent():
    peer = sender(5, n_data=5)
    peer.give(0, 0, window=39062, sack=[(FULL, 5 * FULL)])
    peer.take()
    peer.give(0, 2 * FULL, window=0)
    peer.take()
    peer.give(0, 2 * FULL, window=39062)
    assert spans(peer.take()) == [(2, 3)]
    assert peer.conn.poll_at() < NEVER


def test_a_repair_beyond_what_the_peer_reneged_on_is_watched_by_the_timer():
    peer = sender(10, n_data=10)
    peer.give(0, 0, window=39062, sack=[(2 * FULL, 3 * FULL)])
    peer.give(0, 2 * FULL + 700, window=0)
    peer.give(0, 2 * FULL + 700, window=39062)
    peer.give(0, 2 * FULL + 700, window=39062, sack=[(5 * FULL, 9 * FULL)])
    assert spans(peer.take())[0][0] == 2 and peer.conn.sender.timer.is_running()


def test_a_tail_that_is_lost_is_probed_and_recovered_without_a_time_out():
    pair = Pair(a=bytes(8 * MSS), impairments=Impairments(delay=5000))
    pair.a.conn.sender.rtt.sample(10_000)
    first = []
    pair.drop = lambda end, piece, now: end.name == "a" and now == 1_000_000 and len(first) > 3 or first.append(1)
    pair.transfer()
    stats = pair.a.conn.stats
    assert pair.lost == 4
    assert stats.tail_probes == 1 and stats.timeouts == 0 and pair.now < 1_100_000


def probed_tail(**kwargs):
    """An engine that has sent the last of its segments again, as a tail probe."""
    peer = sender(4, n_data=4, **kwargs)
    cwnd = peer.conn.cwnd
    peer.give(0, 0, window=39062)
    assert spans(peer.wait()) == [(3, 1)] and peer.conn.stats.tail_probes == 1
    return peer, cwnd


@pytest.mark.parametrize("sack", [[], [(3 * FULL, 4 * FULL)]])
def test_a_tail_probe_that_was_not_needed_costs_nothing(sack):
    peer, cwnd = probed_tail()
    peer.give(0, 4 * FULL, window=39062)
    peer.give(0, 4 * FULL, window=39062, sack=sack)
    peer.conn.send(memoryview(bytes(FULL)))
    peer.take()
    peer.give(0, 5 * FULL, window=39062)
    assert peer.conn.cwnd >= cwnd


def test_a_tail_probe_that_repaired_a_loss_reduces_cwnd():
    peer, cwnd = probed_tail()
    peer.give(0, 4 * FULL, window=39062)
    peer.conn.send(memoryview(bytes(FULL)))
    peer.take()
    assert peer.conn.cwnd >= cwnd
    peer.give(0, 5 * FULL, window=39062)
    assert peer.conn.cwnd < cwnd


def test_a_probe_that_was_acknowledged_says_nothing_about_later_reordering():
    peer, _ = probed_tail()
    peer.give(0, 4 * FULL, window=39062)
    peer.conn.send(memoryview(bytes(2 * FULL)))
    peer.take()
    peer.now += 10_000
    peer.give(0, 4 * FULL, window=39062, sack=[(5 * FULL, 6 * FULL)])
    assert peer.take() == [] and peer.conn.stats.fast_retransmits == 0


def test_a_late_acknowledgement_takes_the_time_out_back():
    config = Config(snd_wscale=8)
    peer = Peer(config, cwnd=20 * MSS, ssthresh=20 * MSS, snd_wnd=10_000_000)
    peer.conn.send(memoryview(bytes(20 * MSS)))
    stamp = peer.take()[0].ts[0]
    while not peer.conn.stats.timeouts:
        peer.wait()
    assert peer.conn.cwnd == MSS
    peer.give(0, 19 * MSS, window=39062, ts=(5, stamp + 1))
    peer.take()
    assert peer.conn.cwnd >= 20 * MSS and peer.conn.stats.spurious_recoveries == 1


def test_a_time_out_taken_back_leaves_to_be_sent_what_was_to_be_sent():
    """Bytes that were handed over as possibly sent are not under way, although SND.MAX is behind them."""
    config = Config(snd_wscale=8)
    peer = Peer(config, cwnd=2 * MSS, ssthresh=2 * MSS, snd_wnd=10_000_000, snd_nxt=2 * MSS, snd_max=9 * MSS)
    peer.conn.send(memoryview(bytes(9 * MSS)))
    while not peer.conn.stats.timeouts:
        sent = peer.wait()
    stamp = sent[0].ts[0]
    peer.give(0, 2 * MSS, window=39062, ts=(5, stamp - 1))
    assert peer.conn.stats.spurious_recoveries == 1
    assert peer.take()[0].seq == 2 * MSS


def test_reordering_is_taken_back_when_the_duplicates_are_reported():
    peer = sender(20)
    peer.give(0, 0, window=39062, sack=[(FULL, 5 * FULL)])
    assert spans(peer.take())[0] == (0, 1)
    peer.give(0, 5 * FULL, window=39062)
    peer.take()
    assert peer.conn.cwnd < 20 * FULL
    peer.give(0, 5 * FULL, window=39062, sack=[(0, FULL)])
    assert peer.conn.cwnd >= 20 * FULL and peer.conn.sender.rack.steps == 2


def test_what_the_network_duplicates_takes_no_reduction_back():
    peer = sender(20)
    peer.give(0, 0, window=39062, sack=[(FULL, 5 * FULL)])
    assert spans(peer.take())[0] == (0, 1)
    peer.give(0, 20 * FULL, window=39062)
    peer.take()
    peer.give(0, 20 * FULL, window=39062, sack=[(15 * FULL, 16 * FULL)])
    assert peer.conn.cwnd < 20 * FULL and peer.conn.stats.spurious_recoveries == 0


def test_the_round_trip_is_measured_only_on_what_was_sent_once():
    peer = sender(2, sack=False)
    before = peer.conn.sender.rtt.srtt
    peer.wait()
    peer.now += 10
    peer.give(0, FULL)
    assert peer.conn.sender.rtt.srtt == before


def test_the_round_trip_converges():
    pair = Pair(a=bytes(500_000), impairments=Impairments(delay=30_000))
    pair.transfer()
    assert 55_000 < pair.a.conn.sender.rtt.srtt < 75_000


def test_mild_reordering_costs_little():
    pair = Pair(
        3,
        bytes(2_000_000),
        configs=(Config(snd_wscale=7, rcv_wscale=7, initial_rcv_wnd=1 << 20),) * 2,
        impairments=Impairments(reorder=0.05, extra=3_000),
    )
    start = pair.now
    pair.transfer()
    assert pair.a.conn.stats.timeouts == 0 and pair.now - start < 400_000
