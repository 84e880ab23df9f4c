"""Proportional rate reduction (RFC 6937bis), alone and in the engine; the states of recovery; ECN's reduction."""

import pytest
from recovery_harness import FULL, ISS, RTT, ack, again, engine

from chimney.tcp.prr import Prr

MSS = 1000


def test_above_ssthresh_it_sends_in_proportion():
    """Seven for ten that arrive, as ssthresh is 70 % of what was in flight."""
    prr = Prr()
    prr.begin(100 * MSS)
    in_flight, sent = 100 * MSS, 0
    while in_flight > 72 * MSS:
        in_flight -= MSS
        room = prr.cwnd(MSS, True, in_flight, 70 * MSS, MSS) - in_flight
        assert 0 <= room <= 2 * MSS
        prr.sent(room // MSS * MSS)
        sent += room // MSS
        in_flight += room // MSS * MSS
    delivered = prr.delivered // MSS
    assert abs(sent - delivered * 0.7) <= 2


def test_below_ssthresh_it_sends_what_arrives_and_one_more_where_that_is_safe():
    prr = Prr()
    prr.begin(20 * MSS)
    prr.sent(5 * MSS)
    prr.delivered = 5 * MSS
    assert prr.cwnd(2 * MSS, False, 4 * MSS, 14 * MSS, MSS) == 6 * MSS
    prr.sent(2 * MSS)
    assert prr.cwnd(2 * MSS, True, 4 * MSS, 14 * MSS, MSS) == 7 * MSS
    # It never goes beyond ssthresh.
    assert prr.cwnd(20 * MSS, True, 12 * MSS, 14 * MSS, MSS) == 14 * MSS


def test_the_first_retransmission_goes_in_any_case():
    prr = Prr()
    prr.begin(20 * MSS)
    assert prr.cwnd(1, False, 30 * MSS, 10 * MSS, MSS) == 31 * MSS


@pytest.mark.parametrize("iss", ISS)
def test_one_loss_costs_a_half_of_the_window_and_no_silence(iss):
    """With Reno: one segment leaves for every two that arrive, until the window is halved."""
    peer = engine(40, congestion="reno", iss=iss)
    ack(peer, 0, (1, 4), at=RTT)
    left = [sum(s.segments for s in peer.take())]
    for n in range(5, 41):
        ack(peer, 0, (1, n))
        left.append(sum(s.segments for s in peer.take()))
    assert max(left) <= 2 and 17 <= sum(left) <= 21
    assert peer.conn.sender.recovery.state == 3
    ack(peer, 40, at=2 * RTT)
    assert peer.conn.sender.recovery.state == 0 and peer.conn.cwnd == 20 * FULL


def test_many_losses_slow_the_sender_to_what_arrives():
    """In flight is far below ssthresh at once: the conservative bound, then slow start, not one large burst."""
    peer = engine(40, congestion="reno")
    ack(peer, 0, (30, 33), at=RTT)
    assert len(again(peer)) <= 3
    for n in range(34, 41):
        ack(peer, 0, (30, n))
        assert sum(s.segments for s in peer.take()) <= 1


def test_recovery_ends_with_cwnd_at_ssthresh_even_when_little_was_sent():
    peer = engine(20, n_data=20, congestion="reno")
    ack(peer, 0, (1, 20), at=RTT)
    peer.take()
    ack(peer, 20, at=2 * RTT)
    assert peer.conn.cwnd == 10 * FULL and peer.conn.sender.recovery.state == 0


def test_new_data_does_not_go_while_something_lost_waits():
    peer = engine(20)
    ack(peer, 0, (8, 12), at=RTT)
    seen = []
    for n in range(13, 21):
        ack(peer, 0, (8, n))
        seen += [s.seq // FULL for s in peer.take()]
    assert seen == sorted(seen) and seen[0] == 0


# States (numbered as in TCP_INFO).


def test_disorder_is_what_may_be_reordering():
    peer = engine(20)
    ack(peer, 0, (1, 2), at=RTT)
    assert peer.conn.sender.recovery.state == 1
    ack(peer, 2)
    assert peer.conn.sender.recovery.state == 0


def test_an_ecn_echo_reduces_once_per_window_and_nothing_is_sent_again():
    peer = engine(20, congestion="reno")
    sender = peer.conn.sender
    ack(peer, 1, at=RTT)
    peer.take()
    sender.recovery.on_congestion_echo(peer.now)
    assert sender.recovery.state == 2
    reduced = sender.congestion.ssthresh
    sender.recovery.on_congestion_echo(peer.now)
    assert sender.congestion.ssthresh == reduced < 11 * FULL
    end = sender.nxt // FULL
    for n in range(2, end + 1):
        ack(peer, n)
        assert again(peer) == []
    assert sender.recovery.state == 2
    ack(peer, sender.nxt // FULL, at=2 * RTT)
    assert sender.recovery.state == 0 and reduced <= peer.conn.cwnd <= reduced + FULL


def test_a_loss_within_a_reduction_for_ecn_reduces_no_further():
    peer = engine(20, congestion="reno")
    sender = peer.conn.sender
    ack(peer, 1, at=RTT)
    sender.recovery.on_congestion_echo(peer.now)
    reduced = sender.congestion.ssthresh
    ack(peer, 1, (2, 5))
    assert sender.recovery.state == 3 and sender.congestion.ssthresh == reduced


# Without SACK (RFC 6582).


def test_after_a_recovery_duplicates_of_its_end_start_no_other():
    """RFC 6582, 3.2, step 2: what was sent again in vain is answered by duplicates."""
    peer = engine(20, sack=False)
    for _ in range(3):
        ack(peer, 0, at=RTT)
    assert again(peer) == [0]
    end = peer.conn.sender.nxt // FULL
    ack(peer, 20)
    peer.take()
    assert peer.conn.sender.recovery.state == 0 and end == 20
    for _ in range(5):
        ack(peer, 20)
        assert again(peer) == []
    assert peer.conn.stats.fast_retransmits == 1


def test_duplicates_do_not_count_more_than_is_in_flight():
    peer = engine(4, n_data=4, sack=False)
    for _ in range(50):
        ack(peer, 0, at=RTT)
    assert peer.conn.sender.recovery.dup_acks == 3 and peer.conn.sender.recovery.in_flight() >= 0


def test_cwnd_is_never_below_one_segment():
    """A small segment was the last that was under way: what is missing must not wait for a time-out."""
    prr = Prr()
    prr.begin(10 * MSS)
    prr.sent(MSS)
    prr.delivered = MSS
    assert prr.cwnd(MSS // 4, False, 0, 5 * MSS, MSS) == MSS
