"""Corners to which no other test comes: calls that come too late, and values at the ends of their ranges."""

import dataclasses

import pytest
from tcp_harness import Peer

from chimney.tcp import ACK, FIN, NEVER, RST, SYN, Config, Event, State
from chimney.tcp.auto_tuning import AutoTuning
from chimney.tcp.chrono import Chrono
from chimney.tcp.reassembly import Reassembly
from chimney.tcp.receiver import NOTHING_NEW
from chimney.tcp.rtt import RttEstimator
from chimney.tcp.timestamps import Timestamps
from chimney.tcp.window import ReceiveWindow

PLAIN = Config(timestamps=False)


@pytest.mark.parametrize("call", ["close", "abort"])
def test_a_connection_that_is_closed_stays_so(call):
    peer = Peer(PLAIN)
    peer.give(0, 0, flags=RST)
    assert peer.conn.state == State.CLOSED
    if call == "close":
        peer.conn.close()
    else:
        peer.conn.abort(peer.now)
    assert peer.take() == [] and peer.conn.poll_at() == NEVER and peer.conn.events == [Event.RESET]


def test_fins_that_cross_into_a_closed_window_are_acknowledged_without_repeating_ours():
    peer = Peer(PLAIN)
    peer.conn.close()
    assert peer.take()[0].fin
    peer.give(0, 0, flags=ACK | FIN, window=0)
    sent = peer.take()
    assert peer.conn.state == State.CLOSING and [(s.ack, s.fin) for s in sent] == [(1, False)]


def test_a_keepalive_probe_repeats_no_fin():
    late = 10_000_000
    peer = Peer(PLAIN, state=State.CLOSING, snd_max=1, snd_nxt=1, keepalive_left_us=late)
    peer.conn.keepalive.suspicious = True
    peer.conn.close()
    assert [(s.seq, s.fin) for s in peer.take() + peer.wait(late)] == [(0, True), (-1, False)]


def test_what_comes_after_the_fin_is_nothing_new():
    peer = Peer(PLAIN)
    peer.give(0, 0, b"abc", ACK | FIN)
    late = peer.segment(4, 0, b"more")
    assert peer.conn.receiver.accept(late, 4) == NOTHING_NEW and peer.read() == b"abc"


def test_an_end_in_the_middle_of_what_is_kept_cuts_it_there():
    kept = Reassembly(10, 10)
    for start, data in ((10, b"abcd"), (14, b"efgh"), (18, b"ijkl"), (30, b"mnop")):
        assert kept.insert(start, memoryview(data), False) == 4
    kept.cut(15)
    received = []
    assert kept.ranges(4) == [(10, 15)] and kept.parts == 2
    assert kept.pop(10, received) == 15 and b"".join(bytes(view) for view, _ in received) == b"abcde"
    kept.insert(20, memoryview(b"x"), False)
    kept.cut(20)
    assert kept.is_empty() and kept.parts == 0


@pytest.mark.parametrize("rtt", [0, -5])
def test_a_round_trip_below_a_microsecond_is_one(rtt):
    estimator = RttEstimator(0, 0, 200_000, 120_000_000)
    estimator.sample(rtt)
    estimator.note_least(rtt, 0)
    assert (estimator.srtt, estimator.min_rtt()) == (1, 1)
    estimator.sample(rtt)
    assert estimator.srtt == 1


def test_an_older_timestamp_is_not_remembered():
    timestamps = Timestamps(0, 1000, 100, 0, 0)
    timestamps.remember(99, 5)
    assert (timestamps.recent, timestamps.recent_at) == (100, 0)
    timestamps.remember(100, 7)
    assert timestamps.recent_at == 7


def test_who_consumes_more_than_there_was_has_consumed_all():
    window = ReceiveWindow(0, 1000, 1000, 0, 100, 50)
    window.consume(70)
    assert window.undelivered == 0


def test_time_goes_on_in_the_same_state():
    chrono = Chrono(0)
    chrono.enter(1, 10)
    chrono.enter(1, 30)
    assert (chrono.since, chrono.busy(50)) == (10, 40)


def test_what_was_taken_before_a_round_trip_was_known_is_not_that_of_one():
    tuning = AutoTuning(65536, 6 << 20, 1448, 0)
    for second in range(1, 1001):
        assert tuning.taken(20_000_000, second * 1_000_000) == 65536
    tuning.measured(1000)
    assert tuning.taken(1448, 1000 * 1_000_000 + 1000) == 65536
    assert tuning.space == 14480


def test_no_amount_taken_in_a_round_trip_is_too_much_to_reckon_with():
    tuning = AutoTuning(65536, 1 << 30, 1448, 0)
    tuning.measured(100_000_000)
    for second in range(1, 101):
        size = tuning.taken(100_000_000, second * 1_000_000)
    assert size == 1 << 30 == tuning.space


def test_keepalive_that_is_changed_after_both_sides_have_closed_does_not_ask():
    """A peer that has closed as well forgets the connection."""
    peer = Peer(dataclasses.replace(PLAIN, fin_wait_2_us=0))
    peer.conn.close()
    peer.take()
    peer.give(0, 1, flags=ACK | FIN)
    peer.take()
    assert peer.conn.state == State.TIME_WAIT
    peer.conn.set_keepalive(1_000_000, 1_000_000, 3, peer.now)
    assert peer.take() == [] and peer.conn.poll_at() == NEVER


def test_syns_beside_the_window_are_answered_ten_times_a_second():
    peer = Peer(PLAIN)
    answers = 0
    for _ in range(100):
        peer.give(1 << 20, flags=SYN)
        answers += len(peer.take())
    assert answers == 10
