"""Round-trip time and retransmission time-out, keepalive, timestamps."""

import pytest
from tcp_harness import Peer

from chimney.tcp import NEVER, Config, Event, State
from chimney.tcp.rtt import RttEstimator
from chimney.tcp.timestamps import Timestamps


def test_rfc_6298():
    rtt = RttEstimator(0, 0, 200_000, 120_000_000)
    assert rtt.rto() == 1_000_000
    rtt.sample(100_000)
    assert (rtt.srtt, rtt.rttvar, rtt.rto()) == (100_000, 50_000, 300_000)
    rtt.sample(200_000)
    assert (rtt.srtt, rtt.rttvar) == (112_500, 62_500)
    for _ in range(100):
        rtt.sample(0)
    assert rtt.srtt == 1 and rtt.rto() >= 200_000


def test_back_off_doubles_up_to_the_maximum():
    rtt = RttEstimator(10_000, 0, 200_000, 120_000_000)
    assert [rtt.backed_off(n) for n in (0, 1, 2)] == [210_000, 420_000, 840_000]
    assert rtt.backed_off(15) == rtt.backed_off(255) == 120_000_000


def test_the_retransmission_timer_is_taken_over():
    peer = Peer(Config(timestamps=False, sack=False), snd_nxt=3, snd_max=3, retransmit_left_us=70_000,
                retransmit_count=2)  # fmt: skip
    peer.conn.send(memoryview(b"abc"))
    assert peer.take() == [] and peer.conn.poll_at() == 70_000
    assert [s.data for s in peer.wait()] == [b"abc"]
    assert peer.conn.export(peer.now).retransmit_count == 3
    assert peer.conn.export(peer.now + 1).retransmit_left_us == peer.conn.sender.rtt.rto() * 8 - 1


# Closed windows, as Linux probes them; as the documents have it: test_sending.py.

LINUX = Config(timestamps=False, linux_window_probes=True, max_retransmissions=3)


def probe(peer, answered):
    """Waits for a probe, and answers it or not; how long it took."""
    before = peer.now
    if not (sent := peer.take()):
        peer.now = peer.conn.poll_at()
        sent = peer.take()
    assert [(s.seq, s.length) for s in sent] == [(-1, 0)]
    if answered:
        peer.give(0, 0, window=0)
        assert peer.take() == []
    return peer.now - before


def test_window_probes_that_are_answered_give_nothing_up_and_back_off():
    peer = Peer(LINUX, snd_wnd=0)
    peer.conn.send(memoryview(b"abc"))
    assert peer.take() == []
    rto = peer.conn.sender.rtt.rto()
    assert [probe(peer, True) for _ in range(20)] == [min(rto << n, 120_000_000) for n in range(20)]
    peer.give(0, 0, window=10)
    assert [s.data for s in peer.take()] == [b"abc"] and peer.conn.events == []


def test_window_probes_without_an_answer_are_counted_from_the_last_answer():
    peer = Peer(LINUX, snd_wnd=0)
    peer.conn.send(memoryview(b"abc"))
    assert peer.take() == []
    rto = peer.conn.sender.rtt.rto()
    answers = [False, False, True, False, False, False]
    assert [probe(peer, answered) for answered in answers] == [rto << n for n in range(6)]
    assert peer.wait() == [] and peer.conn.events == [Event.TIMEOUT]


def test_a_new_owner_goes_on_with_the_intervals_between_window_probes():
    peer = Peer(LINUX, snd_wnd=0)
    peer.conn.send(memoryview(b"abc"))
    assert peer.take() == []
    for answered in (True, True, True, False):
        probe(peer, answered)
    tcb = peer.conn.export(peer.now)
    assert (tcb.snd_wnd_probe_count, tcb.retransmit_count) == (3, 1)
    other = Peer(LINUX, snd_wnd=0, snd_wnd_probe_count=3, retransmit_count=1, retransmit_left_us=tcb.retransmit_left_us)
    other.conn.send(memoryview(b"abc"))
    assert probe(other, False) == tcb.retransmit_left_us
    assert probe(other, False) == other.conn.sender.rtt.rto() << 5


# Keepalive.

ALIVE = Config(timestamps=False, keepalive_us=7_000_000, keepalive_interval_us=2_000_000, keepalive_probes=3)


def test_an_idle_peer_is_probed_and_given_up():
    peer = Peer(ALIVE)
    peer.take()
    times = []
    for _ in range(3):
        assert [(s.seq, s.length, s.ack) for s in peer.wait()] == [(-1, 0, 0)]
        times.append(peer.now)
    assert times == [7_000_000, 9_000_000, 11_000_000]
    assert peer.wait() == [] and peer.now == 13_000_000
    assert peer.conn.events == [Event.TIMEOUT] and peer.conn.state == State.ESTABLISHED


def test_an_answer_starts_anew():
    peer = Peer(ALIVE)
    peer.wait()
    peer.wait()
    peer.give(0, 0)
    peer.take()
    assert peer.conn.poll_at() == peer.now + 7_000_000 and peer.conn.export(peer.now).keepalive_probe_count == 0


def test_keepalive_is_handed_over():
    peer = Peer(ALIVE, keepalive_probe_count=2, keepalive_left_us=500_000)
    peer.take()
    assert peer.conn.poll_at() == 500_000 and len(peer.wait()) == 1
    tcb = peer.conn.export(peer.now + 1_000_000)
    assert (tcb.keepalive_probe_count, tcb.keepalive_left_us) == (3, 1_000_000)
    peer.wait()
    assert peer.conn.events == [Event.TIMEOUT]


def test_keepalive_can_be_switched():
    peer = Peer(Config(timestamps=False))
    peer.take()
    assert peer.conn.poll_at() == NEVER
    peer.conn.set_keepalive(5_000_000, 1_000_000, 3, peer.now)
    peer.take()
    assert peer.conn.poll_at() == 5_000_000


def test_a_keepalive_probe_of_the_peer_is_answered():
    peer = Peer(Config(timestamps=False))
    peer.give(-1)
    assert [(s.seq, s.ack) for s in peer.take()] == [(0, 0)]


# Timestamps (RFC 7323).


def test_the_clock_goes_on_from_the_hand_over_and_wraps():
    peer = Peer(Config(), ts_time=0xFFFFFFFE, ts_recent=7)
    peer.conn.send(memoryview(b"a"))
    assert peer.take()[0].ts == (0xFFFFFFFE, 7)
    peer.now = 5_500
    peer.conn.send(memoryview(b"a"))
    assert peer.take()[0].ts == (3, 7)
    assert peer.conn.export(6_000).ts_time == 4


def test_the_clock_never_goes_back():
    clock = Timestamps(5, 1000, 0, 0, 0)
    assert (clock.value(10_000), clock.value(3_000)) == (15, 15)


def test_every_segment_carries_the_option_if_it_is_on():
    peer = Peer(Config())
    peer.give(0, data=b"ab", segments=2)
    assert peer.take()[0].ts is not None
    peer.conn.abort(0)
    assert peer.take()[0].ts is not None


def test_what_is_echoed_is_the_oldest_unacknowledged_segments_timestamp():
    peer = Peer(Config())
    peer.give(0, data=b"a", ts=(10, 0))
    peer.give(1, data=b"b", ts=(20, 0))
    peer.give(3, data=b"d", ts=(30, 0))
    assert peer.take()[0].ts[1] == 10
    peer.give(2, data=b"c", ts=(40, 0))
    assert peer.take()[0].ts[1] == 40


def test_an_unknown_ts_recent_accepts_the_first_timestamp():
    peer = Peer(Config(), ts_recent=0)
    peer.give(0, data=b"ab", ts=(0xF0000000, 0), segments=2)
    assert peer.read() == b"ab" and peer.take()[0].ts[1] == 0xF0000000


def test_paws_drops_old_duplicates_and_answers():
    peer = Peer(Config(), ts_recent=1000)
    peer.give(0, data=b"old", ts=(998, 0))
    assert peer.read() == b"" and [s.ack for s in peer.take()] == [0]
    peer.give(0, data=b"new", ts=(1000, 0))
    assert peer.read() == b"new" and peer.conn.stats.paws_drops == 1


def test_paws_forgets_after_24_days():
    peer = Peer(Config(), ts_recent=1000, ts_recent_age_us=25 * 86400 * 1_000_000)
    peer.give(0, data=b"new", ts=(999, 0))
    assert peer.read() == b"new"


@pytest.mark.parametrize("ts", [(5, 0), None])
def test_paws_does_not_concern_resets_or_segments_without_the_option(ts):
    peer = Peer(Config(), ts_recent=1000)
    peer.give(0, data=b"x")
    assert peer.read() == b"x"
    peer.give(1, flags=4, ts=ts)
    assert peer.conn.events == [Event.RESET]


def test_without_the_option_timestamps_are_ignored():
    peer = Peer(Config(timestamps=False), ts_recent=1000)
    peer.give(0, data=b"ab", ts=(5, 0), segments=2)
    assert peer.read() == b"ab" and peer.take()[0].ts is None
