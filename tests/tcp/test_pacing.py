"""Pacing: a window spread over its round trip, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp import ACK, ECE, Config, Connection, Segment, Tcb
from chimney.tcp.config import NEVER
from chimney.tcp.pacing import Pacer

MSS = 1000
MS = 1000


def warm(cwnd=100, rtt=100 * MS, slow_start=False):
    """A pacer that has sent its first ten segments."""
    pacer = Pacer(True, MSS)
    pacer.update(cwnd * MSS, rtt, slow_start)
    pacer.sent(10 * MSS, 0)
    return pacer


def departures(pacer, count, now=0, most=65_000):
    """When `count` bytes leave, and how many at a time, if there is always something to send."""
    sent = []
    while count > 0:
        if pacer.is_held(now):
            assert pacer.deadline > now
            now = pacer.deadline
            continue
        assert pacer.deadline == NEVER
        length = min(pacer.allowance(now), count, most)
        pacer.sent(length, now)
        sent.append((now, length))
        count -= length
    return sent


def test_nothing_is_held_while_no_round_trip_is_known_or_it_is_off():
    for pacer in (Pacer(False, MSS), Pacer(True, MSS)):
        pacer.update(10 * MSS, 0 if pacer.enabled else 100 * MS, True)
        assert departures(pacer, 10_000_000)[-1][0] == 0


def test_the_first_ten_segments_leave_at_once():
    pacer = Pacer(True, MSS)
    pacer.update(10 * MSS, 100 * MS, True)
    assert departures(pacer, 10 * MSS) == [(0, 10 * MSS)]
    assert departures(pacer, 4 * MSS)[-1][0] > 0


@pytest.mark.parametrize(("slow_start", "ratio"), [(True, 2.0), (False, 1.2)])
def test_the_rate_is_a_multiple_of_cwnd_per_round_trip(slow_start, ratio):
    pacer = warm(100, 100 * MS, slow_start)
    assert pacer.rate == pytest.approx(ratio * 100 * MSS / 0.1, rel=0.01)
    sent = departures(pacer, 100 * MSS)
    assert sent[-1][0] == pytest.approx(100 * MS / ratio, rel=0.05)


def test_small_windows_leave_in_pairs():
    sent = departures(warm(10, 100 * MS), 10 * MSS)
    assert [length for _, length in sent] == [2 * MSS] * 5
    gaps = [b[0] - a[0] for a, b in zip(sent, sent[1:], strict=False)]
    assert all(16 * MS < gap < 17 * MS for gap in gaps)


def test_a_window_that_losses_have_made_small_is_not_held():
    pacer = warm(100, 100 * MS)
    pacer.sent(10 * MSS, 0)
    pacer.update(9 * MSS, 100 * MS, False)
    assert departures(pacer, 9 * MSS) == [(0, 9 * MSS)]
    pacer.update(10 * MSS, 100 * MS, False)
    assert pacer.is_held(0)


def test_a_fast_path_sends_a_millisecond_together():
    """8 MB in 10 ms: trains of 64 KB are not held one by one, but a millisecond's worth is followed by a pause."""
    sent = departures(warm(8000, 10 * MS), 8_000_000)
    times = [at for at, _ in sent]
    assert max(length for _, length in sent) == 65_000
    assert len(set(times)) <= 12 and times[-1] == pytest.approx(10 * MS / 1.2, rel=0.2)


def test_a_short_path_is_not_paced():
    for rtt in (20, 100, 800, 1999):
        pacer = warm(100, rtt)
        assert departures(pacer, 100 * MSS)[-1][0] == 0
        # Nor when its queues, or a busy processor, make it longer.
        pacer.update(100 * MSS, 50 * MS, False)
        assert departures(pacer, 100 * MSS)[-1][0] == 0
    assert departures(warm(100, 2000), 400 * MSS)[-1][0] > 0


def test_pauses_give_no_credit_beyond_half_of_the_next_train():
    pacer = warm(10, 100 * MS)
    departures(pacer, 2 * MSS)
    sent = departures(pacer, 6 * MSS, now=3_600_000 * MS)
    first, second, third = [at - 3_600_000 * MS for at, _ in sent]
    assert first == 0 and 8 * MS < second < 9 * MS and 24 * MS < third < 26 * MS


@pytest.mark.parametrize("late", [100, 1 * MS, 5 * MS, 30 * MS])
@pytest.mark.parametrize("rtt", [2 * MS, 20 * MS])
def test_a_process_that_wakes_up_late_keeps_the_rate(rtt, late):
    """As far as a window per round trip, or per waking where that is rarer, allows it."""
    pacer, now, left = warm(400, rtt), 0, 4_000_000
    while left > 0:
        if pacer.is_held(now):
            now = pacer.deadline + late
            continue
        pacer.sent(min(pacer.allowance(now), 65_000), now)
        left -= min(pacer.allowance(now), 65_000)
    wanted = 4_000_000 / (1.2 * 400 * MSS) * rtt
    assert now <= max(wanted * 1.1, 10 * (late + rtt))


def test_what_was_late_once_is_made_up_for_once():
    pacer = warm(400, 20 * MS)
    while not pacer.is_held(0):
        pacer.sent(20 * MSS, 0)
    start = 3_600_000 * MS
    assert not pacer.is_held(start)
    sent = departures(pacer, 1200 * MSS, now=start)
    together = sum(length for at, length in sent if at == start)
    # A round trip's worth, and then the pace; never the hour.
    assert 480 * MSS <= together <= 480 * MSS * 1.1 + 65_000
    assert sent[-1][0] - start >= 25 * MS


def test_a_pause_of_the_application_is_no_delay():
    """The pacer said when to go on, and there was nothing to send then."""
    pacer = warm(400, 20 * MS)
    while not pacer.is_held(0):
        pacer.sent(20 * MSS, 0)
    assert not pacer.is_held(pacer.deadline)
    start = 3_600_000 * MS
    together = sum(length for at, length in departures(pacer, 1200 * MSS, now=start) if at == start)
    assert together <= 4 * 65_000


def test_a_new_rate_holds_from_the_next_train_on():
    pacer = warm(10, 100 * MS)
    pacer.sent(2 * MSS, 0)
    pacer.update(100 * MSS, 10 * MS, True)
    sent = departures(pacer, 100 * MSS)
    assert sent[0][0] > 16 * MS and sent[-1][0] - sent[0][0] < 6 * MS


@given(
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 2**50)), max_size=50),
)
def test_no_window_no_round_trip_and_no_clock_overflow(cwnd, srtt, slow_start, steps):
    pacer = Pacer(True, MSS)
    pacer.update(cwnd, srtt, slow_start)
    assert 0 <= pacer.rate <= 2**41
    for count, now in steps:
        assert pacer.allowance(now) >= 2 * MSS
        if pacer.is_held(now):
            assert now < pacer.deadline < 2**63
        pacer.sent(count, now)


@given(st.integers(2, 10_000), st.integers(2 * MS, 500 * MS), st.booleans())
def test_a_round_trip_lets_a_window_out_and_no_more_than_its_share(cwnd, rtt, slow_start):
    pacer = warm(cwnd, rtt, slow_start)
    sent = departures(pacer, 4 * cwnd * MSS)
    ratio = 2.0 if slow_start else 1.2
    share = sum(length for at, length in sent if at <= rtt)
    assert share >= min(cwnd, 4 * cwnd) * MSS
    assert share <= ratio * cwnd * MSS * (1 + 2 * MS / rtt) + 2 * 65_000


def test_what_is_urgent_and_may_not_leave_keeps_nobody_awake():
    """A paced sender learns of congestion, and then of a smaller path MTU: cwnd is full, and no time is waited for."""
    now = 1_000_000
    config = Config(remote_mss=MSS, timestamps=False, pacing=True, ecn=True)
    tcb = Tcb(cwnd=40 * MSS, ssthresh=40 * MSS, srtt_us=100 * MS, rttvar_us=10 * MS)
    connection = Connection(config, tcb, now)
    connection.send(memoryview(bytes(MSS)))
    left = 0
    while left < 36 * MSS:
        while (segment := connection.dispatch(now)) is not None:
            left += segment.payload_length
        if connection.sender.nxt == connection.sender.end():
            connection.send(memoryview(bytes(100)))
        else:
            now = connection.poll_at()
    connection.send(memoryview(bytes(50 * MSS)))
    while connection.dispatch(now) is not None:
        pass
    echo = Segment()
    echo.flags = ACK | ECE
    echo.window = 65535
    connection.process(echo, now)
    connection.update_path_mtu(600)
    for _ in range(4):
        while connection.dispatch(now) is not None:
            pass
        assert connection.poll_at() > now
        now = connection.poll_at()
