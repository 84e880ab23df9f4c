"""CUBIC against the formulas of RFC 9438."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp.config import UNSET_SSTHRESH
from chimney.tcp.cubic import Cubic
from chimney.tcp.hystart import Hystart, SlowStartExit
from chimney.tcp.reno import Reno

MSS = 1000
C, BETA = 0.4, 0.7
ALPHA = 3 * (1 - BETA) / (1 + BETA)
HOUR = 3_600_000_000
TICK = 4_000


def cubic(cwnd=20, ssthresh=None, leaving=None):
    threshold = UNSET_SSTHRESH if ssthresh is None else ssthresh * MSS
    return Cubic(cwnd * MSS, threshold, MSS, 0, leaving or SlowStartExit())


def reduced(cwnd):
    """After a loss with this window, in segments, from congestion avoidance."""
    control = cubic(cwnd, cwnd)
    control.on_congestion(cwnd * MSS, 0)
    control.end_recovery()
    return control


def run(control, start, end, rtt, each=1, queue=0):
    """Acknowledges full windows from `start` to `end`, `each` segments at a time; the windows by time.

    queue: by so much the smoothed round trip is above the smallest.
    """
    now, windows = start, {}
    while now < end:
        left = control.cwnd // MSS
        step = rtt * each // left
        while left > 0:
            control.on_ack(min(each, left) * MSS, True, rtt, rtt + queue, 0, 0, now)
            left -= each
            now += step
        windows[now] = control.cwnd / MSS
    return windows


def w_cubic(seconds, w_max, cwnd):
    """RFC 9438, 4.2, figure 1."""
    k = (max(w_max - cwnd, 0) / C) ** (1 / 3)
    return C * (seconds - k) ** 3 + w_max


@pytest.mark.parametrize("rtt", [50_000, 100_000, 200_000])
@pytest.mark.parametrize("w_max", [200, 1000])
def test_it_follows_the_closed_formula(w_max, rtt):
    control = reduced(w_max)
    start = control.cwnd // MSS
    assert start == int(w_max * BETA)
    k = ((w_max - start) / C) ** (1 / 3)
    windows = run(control, 0, int((k + 3) * 1e6), rtt)
    for now, window in windows.items():
        aim = w_cubic((now + rtt) / 1e6, w_max, start)
        late = w_cubic((now - 2 * rtt) / 1e6, w_max, start)
        rounds = now / rtt
        to_maximum = (w_max - start) / ALPHA
        reno = start + ALPHA * rounds if rounds < to_maximum else w_max + rounds - to_maximum
        assert window <= max(aim, reno, start) + 1
        assert window >= min(late, 1.4 * start) - 2


def test_the_plateau_is_the_window_at_the_last_loss():
    control = reduced(200)
    k = (60 / C) ** (1 / 3)
    windows = run(control, 0, 12_000_000, 50_000)
    at_k = next(w for now, w in windows.items() if now > k * 1e6)
    assert 198 <= at_k <= 202
    assert next(w for now, w in windows.items() if now > 9e6) > 220


def test_fast_convergence_makes_room():
    control = reduced(100)
    control.on_congestion(70 * MSS, 0)
    control.end_recovery()
    # 4.7: the new maximum is 70 * 1.7 / 2 = 59.5, which a flow alone reaches from 49 in three seconds.
    windows = run(control, 0, 4_000_000, 100_000)
    k = (10.5 / C) ** (1 / 3)
    near = [w for now, w in windows.items() if abs(now / 1e6 - k) < 0.3]
    assert near and all(58 <= w <= 66 for w in near)


def test_it_is_as_fast_as_reno_on_short_paths():
    """4.3: the estimate of Reno's window wins where the cubic function is slow."""
    control, reno = reduced(20), Reno(14 * MSS, 14 * MSS, MSS, 0)
    run(control, 0, 200_000, 1_000)
    for _ in range(200):
        reno.on_ack(reno.cwnd, True, -1, 1000, 0, 0, 0)
    # 6 / 0.53 windows to the old maximum, and one segment a window from there.
    assert reno.cwnd * 0.85 <= control.cwnd <= reno.cwnd


def test_in_front_of_a_queue_it_grows_as_slowly_as_before_beyond_the_window_of_the_last_loss():
    """As Linux: who grows faster than others when the queue overflows is who loses."""
    control = reduced(20)
    run(control, 0, 200_000, 1_000, queue=5_000)
    estimate = 14 + ALPHA * 200
    assert estimate * 0.85 <= control.cwnd / MSS <= estimate + 1


def test_without_a_loss_behind_it_grows_by_a_twentieth_a_round_trip():
    control = cubic(100, 100)
    windows = list(run(control, 0, 500_000, 100_000).values())
    assert windows[0] in (104, 105, 106) and windows[1] <= windows[0] * 1.06


def test_never_more_than_one_segment_for_two():
    control = cubic(50, 50)
    run(control, 0, 100_000, 100_000)
    before, now = control.cwnd, HOUR
    for n in range(1, 200):
        now += 1000
        control.on_ack(MSS, True, 100_000, 100_000, 0, 0, now)
        assert control.cwnd <= before + (n + 1) // 2 * MSS + MSS


def test_a_timeout_starts_from_its_own_window():
    """4.8: K = 0 and no memory of the old maximum."""
    control = cubic(100, 100)
    control.on_timeout(100 * MSS, 0, True)
    assert (control.cwnd, control.ssthresh) == (MSS, 70 * MSS)
    control.on_ack(69 * MSS, True, 100_000, 100_000, 0, 0, 0)
    windows = list(run(control, 0, 1_000_000, 100_000).values())
    assert all(w <= 70 + max(0.06 * 70 * (n + 2), n + 2) for n, w in enumerate(windows))
    assert windows[-1] > 72


def test_undo_goes_on_from_where_it_was():
    """4.9.2: what the algorithm remembered comes back with the windows."""
    control, twin = reduced(200), reduced(200)
    for each in (control, twin):
        run(each, 0, 2_000_000, 100_000)
    control.on_congestion(control.cwnd, 2_000_000)
    control.end_recovery()
    control.undo(2_100_000)
    assert control.cwnd == twin.cwnd and control.ssthresh == twin.ssthresh
    ends = [list(run(each, 2_200_000, 8_000_000, 100_000).values())[-1] for each in (control, twin)]
    assert abs(ends[0] - ends[1]) <= 2


def acknowledge(control, start, end, rtt):
    """Acknowledges full windows in segments of the size that the connection has; the windows in bytes."""
    windows = []
    for now in range(start, end, rtt):
        left = control.cwnd // control.mss
        for n in range(left):
            control.on_ack(control.mss, True, rtt, rtt, 0, 0, now + rtt * n // left)
        windows.append(control.cwnd)
    return windows


@pytest.mark.parametrize("mss", [300, 999, 1001, 6000])
@pytest.mark.parametrize("seconds", [2, 5, 8])
def test_segments_of_another_size_change_nothing_in_bytes(mss, seconds):
    """Before the plateau, on it (K is 5.3 seconds), and beyond it."""
    control, twin = reduced(200), reduced(200)
    now = seconds * 1_000_000
    for each in (control, twin):
        acknowledge(each, 0, now, 100_000)
    before = control.cwnd
    control.set_mss(mss)
    first = acknowledge(control, now, now + 500_000, 100_000)
    other = acknowledge(twin, now, now + 500_000, 100_000)
    assert before <= first[0] and all(abs(a - b) <= 3 * max(mss, MSS) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("mss", [300, 2000])
def test_the_plateau_stays_where_it_is_in_bytes(mss):
    control = reduced(200)
    acknowledge(control, 0, 1_000_000, 100_000)
    control.set_mss(mss)
    # The distance to K has the size of a segment in it, as a cube root; Reno's estimate is below.
    k = 1 + ((60 / C) ** (1 / 3) - 1) * (MSS / mss) ** (1 / 3)
    windows = acknowledge(control, 1_000_000, int(k * 1e6), 100_000)
    assert abs(windows[-1] - 200 * MSS) <= 2 * max(mss, MSS) and max(windows) <= 200 * MSS + mss


@pytest.mark.parametrize("mss", [300, 6000])
def test_undo_goes_on_from_where_it_was_in_segments_of_another_size(mss):
    control, twin = reduced(200), reduced(200)
    for each in (control, twin):
        acknowledge(each, 0, 2_000_000, 100_000)
    control.on_congestion(control.cwnd, 2_000_000)
    control.end_recovery()
    control.set_mss(mss)
    control.undo(2_100_000)
    assert control.cwnd == twin.cwnd
    for each in (control, twin):
        acknowledge(each, 2_100_000, 2_400_000, 100_000)
    assert abs(control.cwnd - twin.cwnd) <= 2 * max(mss, MSS)


def test_a_pause_does_not_count():
    """5.8: after an hour without anything to send, cwnd does not leap."""
    paused, steady = reduced(100), reduced(100)
    for control in (paused, steady):
        run(control, 0, 1_000_000, 100_000)
    paused.on_idle(HOUR, 0, HOUR + 1_000_000)
    first = list(run(paused, HOUR + 1_000_000, HOUR + 3_000_000, 100_000).values())
    second = list(run(steady, 1_000_000, 3_000_000, 100_000).values())
    assert abs(first[-1] - second[-1]) <= 1


def test_a_pause_that_began_before_the_epoch_ends_no_later_than_now():
    """The last data had left before congestion avoidance began: then it begins anew."""
    control = reduced(100)
    control.on_ack(MSS, True, 100_000, 100_000, 0, 0, 1_000_000)
    control.on_idle(3_000_000, 0, 2_000_000)
    windows = run(control, 2_000_000, 6_000_000, 100_000)
    for now, window in windows.items():
        elapsed = now / 1e6 - 2.0
        highest = max(w_cubic(elapsed + 0.1, 100, 70) + 1, 72 + elapsed * 5.4)
        assert w_cubic(elapsed - 0.2, 100, 70) - 2 <= window <= highest


def test_clocks_that_leap_are_survived():
    for leap in (10**15, -(10**9), -5, 1):
        control = reduced(20)
        control.on_ack(MSS, True, 1000, 1000, 0, 0, 10**12)
        for n in range(14):
            control.on_ack(MSS, True, 1000, 1000, 0, 0, 10**12 + leap + n)
            assert 14 * MSS <= control.cwnd <= (14 + (n + 3) // 2) * MSS
    control = cubic(20, 10)
    control.on_ack(MSS, True, 10**15, 10**15, 0, 0, 0)
    control.on_ack(MSS, True, 10**15, 10**15, 0, 0, 1)
    assert 20 * MSS <= control.cwnd <= 22 * MSS


def test_one_acknowledgement_of_a_window_does_not_overshoot_the_aim():
    """As merged frames are acknowledged: growth is bounded by the window aimed at."""
    control = reduced(1000)
    run(control, 0, 1_000_000, 100_000)
    for n in range(40):
        now = 1_000_000 + n * 100_000
        control.on_ack(control.cwnd, True, 100_000, 100_000, 0, 0, now)
        assert control.cwnd / MSS <= max(w_cubic(now / 1e6 + 0.1, 1000, 700), 700 + ALPHA * (now / 1e5 + 1)) + 1


def test_odd_windows_stay_in_whole_segments_of_growth():
    control = Cubic(10_500, 10_500, 1000, 0, SlowStartExit())
    for n in range(50):
        control.on_ack(1000, True, 100_000, 100_000, 0, 0, n * 10_000)
        assert control.cwnd % 1000 == 500


@given(
    w_max=st.integers(4, 5000),
    acks=st.lists(st.tuples(st.integers(1, 64), st.integers(TICK, 500_000)), min_size=1, max_size=300),
    rtt=st.integers(1, 2_000_000),
)
def test_growth_is_never_above_the_rfc(w_max, acks, rtt):
    """cwnd <= max(W_cubic one round trip ahead, Reno's estimate), in whole segments, where there is time between the
    acknowledgements; the estimate grows with what is acknowledged.
    """
    control = reduced(w_max)
    start = control.cwnd // MSS
    now, estimate, highest = 0, float(start), float(start)
    control.on_ack(0, True, rtt, rtt, 0, 0, 0)
    origin = None
    for segments, gap in acks:
        now += gap
        origin = now if origin is None else origin
        before = control.cwnd
        control.on_ack(segments * MSS, True, rtt, rtt, 0, 0, now)
        estimate += segments * MSS / before
        highest = max(highest, w_cubic((now - origin + rtt) / 1e6, max(w_max, start), start), estimate)
        assert before <= control.cwnd <= (highest + 2) * MSS
        assert control.cwnd - before <= segments * MSS // 2 + MSS


def test_a_short_round_trip_does_not_keep_the_window_down():
    """Twenty round trips in one tick: the function has moved by nothing, and Linux goes on by a segment each time."""
    windows = list(run(reduced(100), 0, TICK, TICK // 20).values())
    assert windows[0] >= 71 and 90 <= windows[-1] <= 100


def test_small_windows_grow_at_once_after_losses_in_a_row():
    """Fast convergence in whole segments: a fraction of one would keep the window where it is for 31 ms."""
    control = cubic(9, 9)
    for now in (0, 1000):
        control.on_congestion(control.cwnd, now)
        control.end_recovery()
        control.on_ack(MSS, True, 100, 100, 0, 0, now)
    assert control.cwnd == 4 * MSS
    control.on_ack(4 * MSS, True, 100, 100, 0, 0, 1100)
    assert control.cwnd == 5 * MSS


@given(cwnd=st.integers(20, 120), gap=st.integers(0, 3_000_000), rtt=st.integers(400, TICK // 2))
def test_within_a_tick_cwnd_goes_beyond_the_aim_by_a_segment_a_window(cwnd, gap, rtt):
    control = reduced(cwnd)
    run(control, 0, 20_000, 5_000)
    now = 20_000 + gap
    control.on_ack(MSS, True, rtt, rtt, 0, 0, now)
    allowed = max(control.cwnd / MSS, w_cubic((now + 5_000) / 1e6, cwnd, cwnd * 7 // 10) + 1)
    last = list(run(control, now, now + TICK - rtt, rtt).values())[-1]
    assert last <= allowed + TICK / rtt + 2


# The scenario of a receiver that acknowledges two segments each 100 ms: what Linux does, second by second.


def bulk(until):
    """cwnd by the last segment acknowledged, beginning with ten segments in flight and a round trip of 100 ms."""
    control = cubic(10, leaving=Hystart())
    control.min_rtt = 100_000
    sent, windows, una, nxt = {}, {}, 0, 0
    for now in range(0, until * 50_000 + 1, 100_000):
        if now:
            una += 2 * MSS
            control.on_ack(2 * MSS, True, now - sent[una], 1_000_000, una, nxt, now)
        while nxt - una + MSS <= control.cwnd:
            nxt += MSS
            sent[nxt] = now
        windows[una // MSS] = control.cwnd // MSS
    return windows


def test_a_slow_path_gives_the_windows_that_linux_has():
    windows = bulk(380)
    assert [windows[n] for n in (10, 20, 30, 38, 60, 80, 100, 120)] == [20, 30, 40, 48, 49, 50, 52, 58]
    assert all(windows[n + 2] == windows[n] + 1 for n in range(120, 378, 2))


@pytest.mark.parametrize(
    ("reorders", "srtt", "grown"), [(False, 150_000, 105), (True, 112_499, 105), (True, 112_500, 100)]
)
def test_where_segments_arrive_late_cwnd_does_not_grow_by_a_twentieth_into_a_queue(reorders, srtt, grown):
    """No congestion is known; the smallest round trip is 100 ms."""
    control = cubic(100, 100)
    control.reorders = reorders
    for _ in range(100):
        control.on_ack(MSS, True, 100_000, srtt, 0, 0, 0)
    assert control.cwnd == grown * MSS
