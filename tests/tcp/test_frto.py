"""Time-outs and what is taken back: F-RTO (RFC 5682), Eifel (RFC 3522, RFC 4015), DSACK (RFC 3708), Karn, reneging."""

import pytest
from recovery_harness import FULL, ISS, RTT, ack, again, engine
from tcp_harness import MSS, Peer

from chimney.tcp import Config


def timed_out(count=10, **kwargs):
    """An engine whose head has been sent again after a time-out."""
    kwargs.setdefault("tail_loss_probes", False)
    peer = engine(count, **kwargs)
    peer.now = peer.conn.poll_at()
    assert again(peer) == [0] and peer.conn.sender.recovery.state == 4 and peer.conn.cwnd == FULL
    return peer


@pytest.mark.parametrize("iss", ISS)
@pytest.mark.parametrize("sack", [True, False])
def test_after_the_first_acknowledgement_new_data_goes_first(sack, iss):
    """RFC 5682, 2.1, step 2.b."""
    peer = timed_out(sack=sack, iss=iss)
    ack(peer, 1)
    assert [s.seq // FULL for s in peer.take()] == [10, 11]


@pytest.mark.parametrize("sack", [True, False])
def test_the_time_out_was_spurious_if_then_the_originals_are_acknowledged(sack):
    peer = timed_out(sack=sack)
    ack(peer, 1)
    peer.take()
    ack(peer, 3)
    assert peer.conn.stats.spurious_recoveries == 1 and peer.conn.cwnd >= 10 * FULL
    assert again(peer) == [] and peer.conn.sender.recovery.state in (0, 1)


def test_the_time_out_was_for_a_loss_if_the_new_data_is_covered():
    """RFC 5682, 3.1, step 3.a."""
    peer = timed_out()
    ack(peer, 1)
    peer.take()
    ack(peer, 1, (10, 11))
    assert again(peer)[0] == 1 and peer.conn.stats.spurious_recoveries == 0


def test_an_original_covered_selectively_proves_it_at_once():
    peer = timed_out()
    ack(peer, 0, (1, 2))
    assert peer.conn.stats.spurious_recoveries == 1 and peer.conn.cwnd >= 10 * FULL


def test_without_sack_one_large_acknowledgement_proves_nothing():
    """The head may have been all that was missing."""
    peer = timed_out(sack=False, n_data=10)
    ack(peer, 10)
    assert peer.conn.stats.spurious_recoveries == 0


def test_without_new_data_the_conventional_recovery_goes_on():
    peer = timed_out(n_data=10)
    ack(peer, 1)
    assert again(peer) == [1, 2]


def test_a_second_time_out_in_a_row_reduces_ssthresh_no_further():
    peer = timed_out()
    before = peer.conn.sender.congestion.ssthresh
    peer.now = peer.conn.poll_at()
    assert again(peer) == [0] and peer.conn.sender.congestion.ssthresh == before


def test_what_was_sent_just_before_the_time_out_is_not_taken_as_lost():
    """RFC 8985: the time-out is for the head; what was sent less than a round trip ago may still arrive."""
    peer = engine(4, n_data=4, tail_loss_probes=False)
    ack(peer, 1, at=RTT)
    at = peer.conn.sender.timer.deadline
    peer.now = at - 1000
    peer.conn.send(memoryview(bytes(FULL)))
    assert [s.seq // FULL for s in peer.take()] == [4]
    peer.now = at
    peer.take()
    assert peer.conn.stats.timeouts == 1 and peer.conn.sender.flight.lost == 3 * FULL


# The time-out itself (RFC 6298).


def test_the_back_off_lasts_until_a_round_trip_is_measured():
    """Karn: an acknowledgement of what was sent again measures nothing."""
    peer = timed_out(n_data=10, sack=False)
    ack(peer, 1)
    peer.take()
    sender = peer.conn.sender
    assert sender.timer.count == 0 and sender.timer.backoff == 1
    assert sender.timer.deadline == peer.now + 2 * sender.rtt.rto()
    ack(peer, 10)
    peer.conn.send(memoryview(bytes(FULL)))
    peer.take()
    peer.now += RTT
    ack(peer, 11)
    assert sender.timer.backoff == 0


@pytest.mark.parametrize(("late", "taken"), [(10_000, True), (70_000_000, False)])
def test_an_echo_that_may_be_old_can_only_shorten_the_round_trip(late, taken):
    """Out-of-order data does not renew an echo (RFC 7323, 4.3): with SACK blocks, a sample may be too long."""
    peer = Peer(
        Config(snd_wscale=8), cwnd=20 * MSS, ssthresh=20 * MSS, snd_wnd=10_000_000, srtt_us=60_000_000, ts_time=500
    )
    peer.conn.send(memoryview(bytes(20 * MSS)))
    peer.take()
    peer.now = RTT
    peer.give(0, 0, window=39062, ts=(5, 500), sack=[(5 * MSS, 9 * MSS)])
    first = peer.take()[0]
    assert first.seq == 0
    believed = peer.conn.sender.rtt.srtt
    peer.now += late
    peer.give(0, MSS, window=39062, ts=(5, first.ts[0]), sack=[(5 * MSS, 9 * MSS)])
    assert peer.conn.sender.rtt.srtt == ((believed * 7 + late) // 8 if taken else believed)


def test_the_smallest_round_trip_is_that_of_five_minutes():
    rtt = engine().conn.sender.rtt
    assert rtt.min_rtt() == RTT
    rtt.note_least(4_000, 1_000_000)
    rtt.note_least(9_000, 200_000_000)
    assert rtt.min_rtt() == 4_000
    rtt.note_least(8_000, 302_000_000)
    assert rtt.min_rtt() in (8_000, 9_000)
    rtt.note_least(7_000, 310_000_000)
    assert rtt.min_rtt() == 7_000


# Taking back.


def stamped(count=20):
    """An engine with timestamps in milliseconds, and `count` segments sent at time 0 with the first stamp."""
    peer = Peer(
        Config(snd_wscale=8), cwnd=count * MSS, ssthresh=count * MSS, snd_wnd=10_000_000, srtt_us=RTT, ts_time=500
    )
    peer.conn.send(memoryview(bytes(1000 * MSS)))
    peer.take()
    return peer


def test_fast_recovery_is_taken_back_by_the_echo_of_the_original():
    peer = stamped()
    peer.now = RTT
    peer.give(0, 0, window=39062, ts=(5, 500), sack=[(MSS, 4 * MSS)])
    assert peer.take()[0].seq == 0 and peer.conn.sender.recovery.state == 3
    peer.give(0, 20 * MSS, window=39062, ts=(6, 500))
    assert peer.conn.stats.spurious_recoveries == 1 and peer.conn.cwnd >= 20 * MSS


def test_the_echo_of_the_retransmission_takes_nothing_back():
    peer = stamped()
    peer.now = RTT
    peer.give(0, 0, window=39062, ts=(5, 500), sack=[(MSS, 4 * MSS)])
    stamp = peer.take()[0].ts[0]
    peer.now = 2 * RTT
    peer.give(0, 20 * MSS, window=39062, ts=(6, stamp))
    assert peer.conn.stats.spurious_recoveries == 0 and peer.conn.cwnd < 20 * MSS


def test_a_tail_probe_of_long_ago_does_not_hide_that_an_original_arrived():
    peer = stamped()
    peer.conn.send(memoryview(b"x"))
    peer.now = RTT
    peer.give(0, 0, window=39062, ts=(5, 500), sack=[(MSS, 2 * MSS)])
    peer.take()
    peer.conn.sender.recovery.undo.repeated(0, MSS, 400)
    peer.give(0, 0, window=39062, ts=(5, 500), sack=[(MSS, 4 * MSS)])
    assert peer.take()[0].seq == 0
    peer.give(0, 20 * MSS, window=39062, ts=(6, 500))
    assert peer.conn.stats.spurious_recoveries == 1


def test_a_partial_acknowledgement_that_was_only_late_stops_the_repairs():
    peer = stamped()
    peer.now = RTT
    peer.give(0, 0, window=39062, ts=(5, 500), sack=[(5 * MSS, 9 * MSS)])
    assert peer.take()[0].seq == 0
    peer.give(0, 2 * MSS, window=39062, ts=(6, 500), sack=[(5 * MSS, 9 * MSS)])
    assert all(s.seq >= 20 * MSS for s in peer.take())
    assert peer.conn.sender.rack.reorderings > 0


def test_duplicates_of_all_that_was_sent_again_take_recovery_back():
    peer = engine(20)
    ack(peer, 0, (2, 5), at=RTT)
    assert again(peer) == [0, 1]
    ack(peer, 20, at=RTT + 100)
    peer.take()
    ack(peer, 20, (0, 1))
    assert peer.conn.stats.spurious_recoveries == 0
    ack(peer, 20, (1, 2))
    assert peer.conn.stats.spurious_recoveries == 1 and peer.conn.cwnd >= 20 * FULL
    assert peer.conn.stats.duplicates_reported == 2


def test_nothing_is_taken_back_twice():
    peer = engine(20)
    ack(peer, 0, (1, 4), at=RTT)
    peer.take()
    ack(peer, 20, at=RTT + 100)
    for _ in range(3):
        ack(peer, 20, (0, 1))
    assert peer.conn.stats.spurious_recoveries == 1


def test_after_an_ecn_echo_nothing_is_taken_back():
    peer = engine(20)
    ack(peer, 0, (1, 4), at=RTT)
    peer.take()
    peer.conn.sender.recovery.on_congestion_echo(peer.now)
    ack(peer, 20, at=RTT + 100)
    ack(peer, 20, (0, 1))
    assert peer.conn.stats.spurious_recoveries == 0 and peer.conn.cwnd < 20 * FULL


# A peer that drops what it has covered (RFC 2018, 8).


def test_a_peer_that_does_not_acknowledge_what_it_has_covered_is_not_waited_for_long():
    peer = engine(10, n_data=10)
    ack(peer, 0, (2, 5), at=RTT)
    peer.take()
    ack(peer, 2, at=2 * RTT)
    sender = peer.conn.sender
    assert sender.timer.deadline == peer.now + 10_000
    peer.now = sender.timer.deadline
    assert again(peer)[0] == 2 and sender.flight.sacked == 0


def test_selective_blocks_of_an_old_acknowledgement_count():
    """They may have been overtaken, and are true all the same."""
    peer = engine(20)
    ack(peer, 4, at=RTT)
    peer.take()
    ack(peer, 2, (5, 9))
    assert again(peer) == [4]


def test_after_a_hand_over_nothing_waits_for_an_answer_that_cannot_come():
    """What somebody else may have sent again proves nothing when it is acknowledged: what is lost goes on."""
    peer = engine(10, tail_loss_probes=False, sack=False)
    peer.conn.sender.flight.head().was_repeated = True
    peer.now = peer.conn.poll_at()
    assert again(peer) == [0]
    ack(peer, 1)
    peer.take()
    ack(peer, 2)
    assert again(peer)[0] == 2
