"""RACK and tail loss probes (RFC 8985), rule by rule. RTT is ten milliseconds where nothing else is said."""

import pytest
from recovery_harness import FULL, ISS, RTT, ack, again, engine

from chimney.tcp import NEVER


@pytest.mark.parametrize("iss", ISS)
def test_a_segment_is_lost_a_quarter_of_the_round_trip_after_a_later_one_arrived(iss):
    """6.2, steps 4 and 5: the reordering timer, where fewer segments than three tell."""
    peer = engine(iss=iss, n_data=10)
    ack(peer, 0, (1, 2), at=RTT)
    assert again(peer) == [] and peer.conn.poll_at() == RTT + RTT // 4 + 2000
    peer.now = RTT + RTT // 4
    assert again(peer) == []
    peer.now = peer.conn.poll_at()
    assert again(peer) == [0] and peer.conn.sender.recovery.state == 3
    assert peer.conn.stats.timeouts == 0


def test_what_comes_in_time_stops_the_reordering_timer():
    peer = engine(n_data=10)
    ack(peer, 0, (1, 2), at=RTT)
    ack(peer, 2, at=RTT + 1000)
    assert again(peer) == [] and peer.conn.sender.rack.deadline == NEVER
    assert peer.conn.sender.recovery.state == 0 and peer.conn.sender.rack.reorderings == 1


@pytest.mark.parametrize("iss", ISS)
def test_three_segments_need_no_timer_while_no_reordering_is_known(iss):
    """6.2, step 4: the window is zero then."""
    peer = engine(iss=iss)
    ack(peer, 0, (1, 4), at=RTT)
    assert again(peer)[0] == 0


def test_after_reordering_three_segments_are_not_enough():
    peer = engine(20)
    ack(peer, 0, (1, 2), at=RTT)
    ack(peer, 2)
    peer.take()
    ack(peer, 2, (3, 7))
    assert again(peer) == [] and peer.conn.sender.rack.deadline == RTT + RTT // 4 + 2000
    peer.now = peer.conn.sender.rack.deadline
    assert again(peer)[0] == 2


def test_a_retransmission_is_lost_when_something_sent_later_arrives():
    peer = engine(20)
    ack(peer, 0, (1, 4), at=RTT)
    sent = peer.take()
    assert sent[0].seq == 0
    ack(peer, 0, (1, 6))
    new = max(s.seq // FULL + s.segments for s in peer.take() if s.seq >= 20 * FULL)
    ack(peer, 0, (1, 6), (new - 1, new), at=2 * RTT + 5000)
    assert 0 in again(peer) and peer.conn.stats.timeouts == 0


def test_a_retransmission_acknowledged_too_early_was_not_needed_and_tells_nothing():
    """6.2, step 2: the acknowledgement comes less than a round trip after it."""
    peer = engine(20)
    ack(peer, 0, (1, 4), at=RTT)
    peer.take()
    before = peer.conn.sender.rack.sent
    ack(peer, 1, (2, 4), at=RTT + 100)
    assert peer.conn.sender.rack.sent == before


def test_the_window_grows_with_duplicates_once_per_round_trip_and_shrinks_after_sixteen_recoveries():
    peer = engine(20)
    rack = peer.conn.sender.rack
    ack(peer, 5, at=RTT)
    ack(peer, 5, (0, 1))
    assert rack.steps == 1, "nothing was sent again: the network has duplicated it"
    peer.conn.stats.retransmitted_segments = 100
    ack(peer, 5, (1, 2))
    ack(peer, 5, (2, 3))
    assert rack.steps == 2
    peer.take()
    end = peer.conn.sender.nxt // FULL
    ack(peer, end, at=2 * RTT)
    ack(peer, end, (2, 3))
    assert rack.steps == 3 and rack.window(True, True) == 0
    rack.reorderings = 1
    assert rack.window(False, False) == 3 * RTT // 4
    for _ in range(16):
        rack.on_recovery_end()
    assert rack.steps == 1


def test_the_window_never_exceeds_the_round_trip():
    peer = engine()
    rack = peer.conn.sender.rack
    rack.reorderings, rack.steps = 1, 200
    assert rack.window(True, True) == RTT


@pytest.mark.parametrize("iss", ISS)
def test_a_train_is_told_apart_by_what_is_covered_of_it(iss):
    """A super-segment is one transmission, but its segments arrive one by one."""
    peer = engine(40, iss=iss, cwnd=40 * FULL)
    flight = peer.conn.sender.flight
    assert flight.packets == 40
    ack(peer, 0, (10, 11), (20, 23), at=RTT)
    assert flight.sacked_packets == 4 and flight.packets == 40
    lost = again(peer)
    assert lost == list(range(len(lost)))
    ack(peer, 40)
    assert flight.packets * FULL == peer.conn.sender.nxt - 40 * FULL and flight.sacked == 0


def test_a_part_of_a_segment_does_not_count():
    peer = engine(n_data=10)
    peer.now = RTT
    peer.give(0, 0, window=39062, sack=[(4 * FULL - 1, 5 * FULL - 1)])
    assert peer.conn.sender.flight.sacked == 0
    peer.give(0, 0, window=39062, sack=[(4 * FULL - 1, 5 * FULL)])
    assert peer.conn.sender.flight.sacked == FULL


def test_a_closed_window_has_no_reordering_timer():
    """What may be late does not matter while nothing may be sent; a deadline in the past would keep the poll busy."""
    peer = engine(5, n_data=5)
    peer.now = RTT
    peer.give(0, 0, window=0)
    peer.take()
    peer.give(0, 0, window=0, sack=[(FULL, 2 * FULL)])
    assert peer.conn.sender.rack.deadline == NEVER and peer.take() == []
    assert peer.conn.poll_at() > peer.now


# Tail loss probes.


def test_the_tail_is_probed_after_two_round_trips():
    """7.2; the last segment again, for there is nothing new (7.3)."""
    peer = engine(5, n_data=5)
    assert peer.conn.poll_at() == 2 * RTT + 2000
    assert [(s.seq, s.segments) for s in peer.wait()] == [(4 * FULL, 1)]


def test_new_data_is_the_better_probe():
    peer = engine(5)
    assert [(s.seq, s.segments) for s in peer.wait()] == [(5 * FULL, 1)]


def test_a_single_segment_waits_for_a_delayed_acknowledgement():
    peer = engine(1, n_data=1)
    assert peer.conn.poll_at() == 210_000
    assert peer.conn.sender.tail.deadline <= peer.conn.sender.timer.deadline


def test_there_is_one_probe_and_then_the_time_out():
    peer = engine(5, n_data=5)
    peer.wait()
    at = peer.now
    assert [(s.seq, s.segments) for s in peer.wait()] == [(0, 1)]
    assert peer.conn.stats.timeouts == 1 and peer.now == at + peer.conn.sender.rtt.rto()


def test_what_is_written_when_the_probe_is_due_is_the_probe():
    """Otherwise an application that goes on writing puts the time-out off again and again."""
    peer = engine(5, cwnd=1000 * FULL, n_data=5)
    timeout = peer.conn.sender.rtt.rto()
    while peer.conn.stats.timeouts == 0:
        peer.now = peer.conn.poll_at()
        peer.conn.send(memoryview(bytes(100)))
        sent = peer.take()
    assert peer.conn.stats.tail_probes == 1 and sent[0].seq == 0
    assert peer.now <= 2 * timeout


def test_a_probe_tells_of_what_was_lost_before_it():
    peer = engine(5, n_data=5)
    peer.wait()
    ack(peer, 2, (4, 5), at=peer.now + RTT)
    assert again(peer) == [2, 3] and peer.conn.stats.fast_retransmits == 1


def test_no_probe_while_something_is_missing():
    peer = engine(10, n_data=10)
    ack(peer, 0, (1, 4), at=RTT)
    peer.take()
    assert peer.conn.sender.tail.deadline == NEVER


def test_tail_probes_can_be_switched_off():
    peer = engine(5, n_data=5, tail_loss_probes=False)
    assert peer.conn.poll_at() == peer.conn.sender.rtt.rto()
