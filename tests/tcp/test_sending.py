"""What the engine sends: segments and trains of them, Nagle, windows, probes."""

import dataclasses

import pytest
from tcp_harness import Peer

from chimney.tcp import ACK, FIN, Config, Event, State

PLAIN = Config(timestamps=False)
FULL = 1460


def data(size):
    return memoryview(bytes(i % 251 for i in range(size)))


def test_a_large_send_leaves_as_a_train_of_segments():
    peer = Peer(PLAIN, cwnd=20 * FULL, srtt_us=100)
    peer.conn.send(data(5 * FULL + 1))
    (train,) = peer.take()
    assert (train.seq, train.length, train.segments, train.psh) == (0, 5 * FULL + 1, 6, True)


def test_a_train_holds_at_most_64_kb_in_whole_segments():
    peer = Peer(PLAIN, cwnd=1 << 20, snd_wnd=200_000, srtt_us=100)
    peer.conn.send(data(150_000))
    trains = peer.take()
    assert [t.length % FULL for t in trains[:-1]] == [0, 0]
    assert all(t.length <= 65_000 for t in trains) and b"".join(t.data for t in trains) == data(150_000)
    assert [t.psh for t in trains] == [True, True, True]


def test_on_a_long_path_a_train_is_what_leaves_in_a_millisecond():
    """As Linux sizes its own: two segments at least; the last one of each train is pushed, a single one is not."""
    peer = Peer(PLAIN, cwnd=7 * FULL, ssthresh=7 * FULL, srtt_us=100_000)
    peer.conn.send(data(20 * FULL))
    assert [(s.segments, s.psh) for s in peer.take()] == [(2, True), (2, True), (2, True), (1, False)]
    peer = Peer(Config(timestamps=False, snd_wscale=8), cwnd=100 * FULL, ssthresh=50 * FULL, snd_wnd=1 << 20)
    peer.conn.send(data(100 * FULL))
    # 146,000 bytes in 10 ms, times 1.2.
    assert [s.segments for s in peer.take()] == [11] * 9 + [1]


def test_a_train_takes_no_more_than_half_of_cwnd():
    peer = Peer(PLAIN, cwnd=10 * FULL, srtt_us=100)
    peer.conn.send(data(10 * FULL))
    assert [s.segments for s in peer.take()] == [5, 5]


def test_no_segment_goes_on_beyond_the_end_of_a_record():
    peer = Peer(PLAIN, cwnd=20 * FULL, srtt_us=100)
    for size, ends in ((FULL + 40, True), (10, False), (20, True), (30, True)):
        peer.conn.send(data(size), True, ends)
    assert [(s.seq, s.length) for s in peer.take()] == [(0, 1500), (1500, 30), (1530, 30)]
    while not peer.conn.stats.timeouts:
        sent = peer.wait()
    assert [(s.seq, s.length) for s in sent] == [(0, FULL)]
    peer.give(0, FULL)
    assert [(s.seq, s.length) for s in peer.take()] == [(FULL, 40), (1500, 30), (1530, 30)]


def test_many_small_sends_share_segments_and_pushes_are_kept():
    peer = Peer(PLAIN, cwnd=1 << 20, srtt_us=100)
    for _ in range(3000):
        peer.conn.send(memoryview(b"x" * 10), False)
    peer.conn.send(memoryview(b"end"), True)
    sent = peer.take()
    assert sum(s.length for s in sent) == 30_003 and len(sent) < 6
    assert [s.psh for s in sent][-1]


def test_segments_are_as_the_peer_and_the_path_want():
    assert Peer(Config(remote_mss=1000, timestamps=False)).conn.mss == 1000
    assert Peer(Config(remote_mss=9000, path_mtu=1500, timestamps=True)).conn.mss == 1448
    assert Peer(Config(remote_mss=9000, path_mtu=1500, ipv6=True)).conn.mss == 1428
    assert Peer(Config(remote_mss=1)).conn.mss == 48


def test_a_new_path_mtu_resends_what_was_too_large():
    peer = Peer(PLAIN)
    peer.conn.send(data(2 * FULL))
    assert peer.take()[0].segments == 2
    peer.conn.update_path_mtu(1040)
    (again,) = peer.take()
    assert (again.seq, again.length, again.segments) == (0, 2 * FULL, 3)


@pytest.mark.parametrize("nagle", [False, True])
def test_nagle_holds_a_small_segment_while_data_is_outstanding(nagle):
    peer = Peer(Config(timestamps=False, nagle=nagle))
    peer.conn.send(data(10))
    assert [s.length for s in peer.take()] == [10]
    peer.conn.send(data(FULL + 5))
    assert [s.length for s in peer.take()] == ([FULL] if nagle else [FULL + 5])
    peer.give(0, 10 + FULL)
    assert [s.length for s in peer.take()] == ([5] if nagle else [])


@pytest.mark.parametrize("nagle", [False, True])
def test_nagle_holds_what_the_window_makes_small(nagle):
    """Also where it ends with a send, or is half of the largest window there ever was."""
    peer = Peer(Config(timestamps=False, nagle=nagle), snd_wnd=FULL + 700, max_snd_wnd=FULL + 700)
    peer.conn.send(data(FULL + 700))
    peer.conn.send(data(5000))
    assert [s.length for s in peer.take()] == ([FULL] if nagle else [FULL, 700])
    peer.give(0, FULL, window=1400)
    assert sum(s.length for s in peer.take()) == (1400 if nagle else 0)


def test_minshalls_nagle_does_not_hold_the_end_of_a_long_send():
    """Full-sized segments outstanding do not hold a small one."""
    peer = Peer(Config(timestamps=False, nagle=True, minshall=True), cwnd=20 * FULL, srtt_us=100)
    peer.conn.send(data(2 * FULL + 10))
    assert [s.length for s in peer.take()] == [2 * FULL + 10]
    peer.conn.send(data(10))
    assert peer.take() == []
    peer.give(0, 2 * FULL + 10)
    assert [s.length for s in peer.take()] == [10]


def test_nagle_does_not_hold_the_last_segment_before_a_fin():
    peer = Peer(Config(timestamps=False, nagle=True))
    peer.conn.send(data(10))
    peer.take()
    peer.conn.send(data(10))
    peer.conn.close()
    assert [(s.length, s.fin) for s in peer.take()] == [(10, True)]


def test_the_peers_window_is_respected_and_small_windows_are_avoided():
    peer = Peer(PLAIN, snd_wnd=FULL + 700, max_snd_wnd=65535)
    peer.conn.send(data(5000))
    assert [s.length for s in peer.take()] == [FULL]
    peer.give(0, FULL, window=700)
    assert peer.take() == []
    assert peer.conn.poll_at() == 200_000
    assert [s.length for s in peer.wait()] == [700]


def test_half_of_the_largest_window_is_not_small():
    peer = Peer(PLAIN, snd_wnd=500, max_snd_wnd=1000)
    peer.conn.send(data(5000))
    assert [s.length for s in peer.take()] == [500]


def test_the_window_is_scaled():
    peer = Peer(Config(timestamps=False, snd_wscale=3), snd_wnd=8, max_snd_wnd=1, cwnd=100_000)
    peer.give(0, 0, window=1000)
    peer.conn.send(data(20_000))
    assert sum(s.length for s in peer.take()) == 8000 - 8000 % FULL


def test_an_old_segment_does_not_take_the_window_back():
    peer = Peer(PLAIN, snd_wnd=5000)
    peer.give(100, 0, window=20_000)
    peer.give(0, 0, window=100)
    assert peer.conn.snd_wnd == 20_000


def test_cwnd_limits_and_is_clamped():
    peer = Peer(Config(timestamps=False, max_cwnd=4 * FULL), cwnd=3 * FULL)
    peer.conn.send(data(100 * FULL))
    assert sum(s.segments for s in peer.take()) == 3
    at = 3
    for _ in range(20):
        peer.give(0, at * FULL)
        at += sum(s.segments for s in peer.take())
        assert peer.conn.cwnd <= 4 * FULL
    assert peer.conn.cwnd == 4 * FULL


def test_a_large_cwnd_is_filled_by_trains():
    peer = Peer(Config(timestamps=False, snd_wscale=8), cwnd=40 * FULL, snd_wnd=1 << 20)
    peer.conn.send(data(200 * FULL))
    assert sum(s.segments for s in peer.take()) == 40
    sent = []
    for at in range(2, 21, 2):
        peer.give(0, at * FULL, window=4096)
        sent += [s.segments for s in peer.take()]
    assert sent and min(sent) >= 4


def test_the_end_of_the_data_does_not_wait_for_a_larger_train():
    peer = Peer(PLAIN, cwnd=500_000, snd_wnd=1 << 20)
    peer.conn.send(data(10))
    assert [s.length for s in peer.take()] == [10]
    peer.conn.send(data(3 * FULL))
    assert [s.length for s in peer.take()] == [3 * FULL]


def test_a_small_cwnd_is_filled_segment_by_segment():
    peer = Peer(PLAIN, cwnd=10 * FULL, ssthresh=10 * FULL)
    peer.conn.send(data(200 * FULL))
    peer.take()
    peer.give(0, FULL)
    assert [s.segments for s in peer.take()] == [1]


def test_cwnd_does_not_grow_where_the_application_is_the_limit():
    peer = Peer(PLAIN, cwnd=10 * FULL)
    for i in range(1, 20):
        peer.conn.send(data(FULL))
        peer.take()
        peer.give(0, i * FULL)
    assert peer.conn.cwnd == 10 * FULL


def test_cwnd_restarts_after_idleness():
    peer = Peer(PLAIN, cwnd=100 * FULL)
    peer.now += 10_000_000
    peer.conn.send(data(100 * FULL))
    assert sum(s.segments for s in peer.take()) == 10


def test_sending_after_close_is_refused():
    peer = Peer(PLAIN)
    peer.conn.close()
    with pytest.raises(ValueError, match="close"):
        peer.conn.send(data(1))


def test_the_memory_of_acknowledged_bytes_is_let_go():
    peer = Peer(PLAIN, cwnd=1 << 20)
    buffers = [bytearray(100) for _ in range(3)]
    for buffer in buffers:
        peer.conn.send(memoryview(buffer))
    peer.take()
    peer.give(0, 200)
    buffers[0].append(0)
    buffers[1].append(0)
    with pytest.raises(BufferError):
        buffers[2].append(0)


# The closed window (RFC 9293, 3.8.6.1; 14.5 of the architecture).


def test_a_closed_window_is_probed_in_doubling_intervals():
    peer = Peer(PLAIN, snd_wnd=0)
    peer.conn.send(data(100))
    assert peer.take() == []
    rto = peer.conn.sender.rtt.rto()
    times = []
    for _ in range(4):
        assert [(s.seq, s.length) for s in peer.wait()] == [(0, 1)]
        times.append(peer.now)
    assert times == [rto, 2 * rto, 4 * rto, 8 * rto]


def test_an_answered_round_begins_with_a_longer_wait():
    peer = Peer(PLAIN, snd_wnd=0)
    peer.conn.send(data(100))
    peer.take()
    rto = peer.conn.sender.rtt.rto()
    for round_ in range(1, 4):
        peer.wait()
        peer.give(0, 0, window=0)
        assert peer.take() == [] and peer.conn.poll_at() == peer.now + (rto << round_)
    assert peer.conn.export(peer.now).snd_wnd_probe_count == 3


def test_the_opening_window_ends_probing():
    peer = Peer(PLAIN, snd_wnd=0)
    peer.conn.send(data(100))
    peer.take()
    peer.wait()
    peer.give(0, 0, window=5000)
    assert [(s.seq, s.length) for s in peer.take()] == [(0, 100)]
    assert peer.conn.export(peer.now).snd_wnd_probe_count == 0


def test_a_probe_that_is_taken_is_progress():
    peer = Peer(PLAIN, snd_wnd=0)
    peer.conn.send(data(100))
    peer.take()
    peer.wait()
    peer.give(0, 1, window=0)
    assert [(s.seq, s.length) for s in peer.wait()] == [(1, 1)]
    peer.give(0, 2, window=1000)
    assert [(s.seq, s.length) for s in peer.take()] == [(2, 98)]


def test_unanswered_probes_give_up():
    peer = Peer(Config(timestamps=False, max_retransmissions=3), snd_wnd=0)
    peer.conn.send(data(100))
    peer.take()
    for _ in range(3):
        assert len(peer.wait()) == 1
    assert peer.wait() == [] and peer.conn.events == [Event.TIMEOUT] and peer.conn.state == State.ESTABLISHED


def test_a_fin_alone_is_the_probe():
    peer = Peer(PLAIN, snd_wnd=0)
    peer.conn.close()
    assert peer.take() == []
    assert [(s.seq, s.length, s.fin) for s in peer.wait()] == [(0, 0, True)]
    assert peer.conn.state == State.FIN_WAIT_1
    peer.give(0, 1, window=0, flags=ACK | FIN)
    assert peer.conn.state == State.TIME_WAIT


# Silly windows, for as long as the owner wants.


def test_what_is_small_is_held_back_for_as_long_as_configured():
    peer = Peer(Config(timestamps=False, sws_prevention_us=75_000), snd_wnd=100)
    peer.conn.send(data(1000))
    assert peer.take() == [] and peer.conn.poll_at() == 75_000
    assert [s.length for s in peer.wait()] == [100]


def test_what_ends_a_send_is_not_held_back():
    peer = Peer(PLAIN, snd_wnd=100)
    peer.conn.send(data(40))
    peer.conn.send(data(60))
    peer.conn.send(data(1000))
    assert [(s.length, s.psh) for s in peer.take()] == [(100, True)]


def test_parameters_can_be_changed():
    peer = Peer(dataclasses.replace(PLAIN, quick_acks=0), snd_wnd=100)
    peer.conn.set_parameters(5, 10_000, 1, 4, 30_000)
    peer.conn.send(data(1000))
    assert peer.take() == [] and peer.conn.poll_at() == 30_000
    peer.wait()
    peer.give(0, data=b"x", window=100)
    assert peer.take() == []
    assert peer.conn.ack_policy.deadline == peer.now + 10_000
    recovery = peer.conn.sender.recovery
    assert (peer.conn.ack_policy.frequency, recovery.threshold, peer.conn.sender.timer.max_count) == (5, 4, 1)


@pytest.mark.parametrize(("pause", "srtt_us", "leaves"), [(1_000, 10_000, 0), (1_001, 10_000, 3), (500, 40_000, 2)])
def test_a_train_grows_only_where_that_is_no_burst(pause, srtt_us, leaves):
    """A cwnd of 64 segments is under way, but for one that waits where trains may grow; two more are acknowledged,
    `pause` us after the last has left. Where a round trip takes 40 ms, the path carries less than three in one.
    """
    config = Config(timestamps=False, snd_wscale=8)
    peer = Peer(config, cwnd=64 * 1460, ssthresh=64 * 1460, snd_wnd=4_000_000, srtt_us=srtt_us)
    peer.conn.send(memoryview(bytes(1_000_000)))
    assert sum(sent.segments for sent in peer.take()) == (64 if srtt_us > 10_000 else 63)
    peer.now += pause
    peer.give(0, 2 * 1460, window=15_000)
    assert sum(sent.segments for sent in peer.take()) == leaves
