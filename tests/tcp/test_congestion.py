"""What every congestion-control algorithm has in common, and Reno (RFC 5681)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp import Config, Tcb
from chimney.tcp.algorithms import SLOW_START_EXITS, congestion_control
from chimney.tcp.config import UNSET_SSTHRESH
from chimney.tcp.reno import Reno

MSS = 1000
RTT = 50_000


def control(name="cubic", cwnd=10, ssthresh=None, hystart="none", max_cwnd=0):
    """An algorithm by its name; windows in segments."""
    threshold = UNSET_SSTHRESH if ssthresh is None else ssthresh * MSS
    config = Config(congestion=name, hystart=hystart, max_cwnd=max_cwnd * MSS)
    return congestion_control(config, Tcb(cwnd=cwnd * MSS, ssthresh=threshold), MSS)


def ack(congestion, segments, now=0, rtt=RTT, limited=True, una=0):
    congestion.on_ack(segments * MSS, limited, rtt, RTT, una, una + congestion.cwnd, now)
    return congestion.cwnd / MSS


both = pytest.mark.parametrize("name", ["cubic", "reno"])


@both
def test_slow_start_doubles_and_stops_at_ssthresh(name):
    congestion = control(name, 10, 40)
    assert ack(congestion, 10) == 20 and congestion.in_slow_start()
    assert ack(congestion, 20) == 40 and not congestion.in_slow_start()
    assert ack(congestion, 1) == 40


@both
def test_nothing_grows_while_something_else_limits(name):
    for ssthresh in (None, 10):
        congestion = control(name, 10, ssthresh)
        for n in range(100):
            assert ack(congestion, 10, now=n * RTT, limited=False) == 10


@both
def test_congestion_sets_ssthresh_and_the_end_of_recovery_cwnd(name):
    congestion = control(name, 20, 40)
    congestion.on_congestion(20 * MSS, 0)
    assert congestion.cwnd == 20 * MSS
    assert congestion.ssthresh == (14 if name == "cubic" else 10) * MSS
    congestion.end_recovery()
    assert congestion.cwnd == congestion.ssthresh


@both
def test_undo_restores_both_windows_and_takes_nothing_away(name):
    congestion = control(name, 20, 30)
    congestion.on_congestion(20 * MSS, 0)
    congestion.end_recovery()
    congestion.undo(1000)
    assert (congestion.cwnd, congestion.ssthresh) == (20 * MSS, 30 * MSS)
    congestion.on_timeout(20 * MSS, 0, True)
    congestion.cwnd = 50 * MSS
    congestion.undo(1000)
    assert (congestion.cwnd, congestion.ssthresh) == (50 * MSS, 30 * MSS)


@both
def test_a_timeout_leaves_one_segment_and_counts_once(name):
    congestion = control(name, 20, 40)
    congestion.on_timeout(20 * MSS, 0, True)
    ssthresh = congestion.ssthresh
    assert congestion.cwnd == MSS and ssthresh == (14 if name == "cubic" else 10) * MSS
    congestion.on_timeout(MSS, 0, False)
    assert (congestion.cwnd, congestion.ssthresh) == (MSS, ssthresh)
    congestion.undo(0)
    assert (congestion.cwnd, congestion.ssthresh) == (20 * MSS, 40 * MSS)


@both
def test_cwnd_restarts_after_a_pause_halved_for_each_timeout(name):
    congestion = control(name, 100)
    congestion.on_idle(200_000, 200_000, 0)
    assert congestion.cwnd == 100 * MSS
    congestion.on_idle(200_001, 200_000, 0)
    assert congestion.cwnd == 50 * MSS and congestion.ssthresh == UNSET_SSTHRESH
    congestion.on_idle(600_000, 200_000, 0)
    assert congestion.cwnd == 12_500
    congestion.on_idle(10**15, 1, 0)
    assert congestion.cwnd == 10 * MSS
    congestion = control(name, 100, 20)
    congestion.on_idle(3_600_000_000, 200_000, 0)
    assert (congestion.cwnd, congestion.ssthresh) == (10 * MSS, 75 * MSS)
    small = control(name, 3)
    small.on_idle(3_600_000_000, 200_000, 0)
    assert small.cwnd == 3 * MSS
    kept = control(name, 100)
    kept.on_idle(3_600_000_000, 0, 0)
    assert kept.cwnd == 100 * MSS


@both
def test_what_stays_unused_is_given_up_by_half(name):
    congestion = control(name, 100, 20)
    congestion.on_unused(50 * MSS)
    assert (congestion.cwnd, congestion.ssthresh) == (75 * MSS, 75 * MSS)
    congestion.on_unused(0)
    assert congestion.cwnd == 42_500
    congestion.on_unused(60 * MSS)
    assert congestion.cwnd == 42_500
    few = control(name, 5)
    few.on_unused(MSS)
    assert few.cwnd == 5 * MSS


@both
def test_the_clamp_holds_wherever_cwnd_grows(name):
    congestion = control(name, 50, max_cwnd=30)
    assert congestion.cwnd == 30 * MSS
    assert ack(congestion, 30) == 30
    congestion.on_congestion(30 * MSS, 0)
    congestion.undo(0)
    assert congestion.cwnd == 30 * MSS
    congestion.max_cwnd = 10
    assert ack(congestion, 1) == 1


@both
def test_another_segment_size_keeps_the_bytes_but_at_least_one_segment(name):
    congestion = control(name, 10, 20)
    congestion.set_mss(1400)
    assert (congestion.cwnd, congestion.ssthresh) == (10_000, 20_000)
    congestion.on_timeout(10_000, 0, True)
    congestion.set_mss(8000)
    assert congestion.cwnd == 8000 and congestion.ssthresh == 8000


@both
def test_what_was_handed_over_is_the_window_that_is_used(name):
    congestion = control(name, 87, 60)
    assert (congestion.cwnd, congestion.ssthresh) == (87 * MSS, 60 * MSS) and not congestion.in_slow_start()
    tiny = congestion_control(Config(congestion=name), Tcb(cwnd=0, ssthresh=0), MSS)
    assert (tiny.cwnd, tiny.ssthresh) == (MSS, MSS)


def test_reno_grows_by_a_segment_a_window():
    congestion = control("reno", 40, 40)
    for _ in range(19):
        assert ack(congestion, 2) == 40
    assert ack(congestion, 2) == 41
    # One acknowledgement of many windows gives one segment all the same.
    assert ack(congestion, 500) == 42
    assert ack(congestion, 41) == 42 and ack(congestion, 1) == 43


def test_reno_halves_what_was_under_way():
    congestion = control("reno", 40, 40)
    congestion.on_congestion(15 * MSS, 0)
    assert congestion.ssthresh == 7500
    congestion.on_congestion(100 * MSS, 0)
    assert congestion.ssthresh == 20 * MSS
    congestion.on_congestion(0, 0)
    assert congestion.ssthresh == 2 * MSS


def test_reno_does_not_keep_credit_over_a_loss():
    congestion = control("reno", 40, 40)
    ack(congestion, 39)
    congestion.on_congestion(40 * MSS, 0)
    congestion.end_recovery()
    assert ack(congestion, 19) == 20 and ack(congestion, 1) == 21


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ack"),
            st.integers(0, 2**31),
            st.booleans(),
            st.integers(-1, 10**10),
            st.integers(0, 2**40),
        ),
        st.tuples(st.just("congestion"), st.integers(0, 2**31)),
        st.tuples(st.just("timeout"), st.integers(0, 2**31), st.booleans()),
        st.tuples(st.just("idle"), st.integers(0, 10**13), st.integers(0, 10**8)),
        st.tuples(st.just("unused"), st.integers(0, 2**40)),
        st.tuples(st.just("mss"), st.integers(48, 65_000)),
        st.tuples(st.just("undo")),
        st.tuples(st.just("end")),
        st.tuples(st.just("clock"), st.integers(-(10**10), 10**13)),
    ),
    max_size=60,
)


@given(
    name=st.sampled_from(["cubic", "reno"]),
    hystart=st.sampled_from(sorted(SLOW_START_EXITS)),
    cwnd=st.integers(0, 2**31),
    ssthresh=st.one_of(st.just(UNSET_SSTHRESH), st.integers(0, 2**31)),
    max_cwnd=st.sampled_from([0, 0, 20_000]),
    events=EVENTS,
)
def test_no_events_break_the_bounds(name, hystart, cwnd, ssthresh, max_cwnd, events):
    config = Config(congestion=name, hystart=hystart, max_cwnd=max_cwnd)
    congestion = congestion_control(config, Tcb(cwnd=cwnd, ssthresh=ssthresh), 1460)
    now, una = 10**9, 0
    for kind, *values in events:
        before, slow, mss = congestion.cwnd, congestion.in_slow_start(), congestion.mss
        if kind == "ack":
            acked, limited, rtt, ahead = values
            una += acked
            congestion.on_ack(acked, limited, rtt, max(rtt, 0), una, una + ahead, now)
            grown = congestion.cwnd - before
            # RFC 5681, 3.1 in slow start; RFC 9438, 4.2: a half of what is acknowledged; a segment can complete.
            allowed = acked if slow else acked // 2 + mss
            assert grown <= (allowed + mss if limited else 0)
            assert limited or not max_cwnd or congestion.cwnd <= before
        elif kind == "congestion":
            congestion.on_congestion(values[0], now)
            assert congestion.cwnd == before and congestion.ssthresh <= max(before, 2 * mss)
        elif kind == "timeout":
            congestion.on_timeout(values[0], now, values[1])
            assert congestion.cwnd == mss
        elif kind == "idle":
            congestion.on_idle(*values, now)
            assert congestion.cwnd <= before
        elif kind == "unused":
            congestion.on_unused(values[0])
            assert congestion.cwnd <= before
        elif kind == "mss":
            congestion.set_mss(values[0])
        elif kind == "undo":
            congestion.undo(now)
            assert congestion.cwnd >= before or max_cwnd
        elif kind == "end":
            congestion.end_recovery()
        else:
            now = max(now + values[0], 0)
        assert congestion.mss <= congestion.cwnd < 2**45
        assert congestion.mss <= congestion.ssthresh


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_reno_never_grows_faster_than_a_segment_a_window(acks):
    congestion = Reno(20 * MSS, 20 * MSS, MSS, 0)
    windows = 0.0
    for segments in acks:
        windows += min(segments * MSS / congestion.cwnd, 1.0)
        congestion.on_ack(segments * MSS, True, -1, RTT, 0, 0, 0)
        assert congestion.cwnd <= 20 * MSS + windows * MSS + 1
