"""Leaving slow start: HyStart++ (RFC 9406) and the HyStart of Linux."""

from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp.config import UNSET_SSTHRESH
from chimney.tcp.cubic import Cubic
from chimney.tcp.hystart import Hystart, HystartPlusPlus, SlowStartExit

MSS = 1000
MS = 1000


class Path:
    """A sender in slow start whose every segment is acknowledged by itself, a round at a time."""

    def __init__(self, leaving, cwnd=10, ssthresh=UNSET_SSTHRESH, gap=0):
        self.control = Cubic(cwnd * MSS, ssthresh, MSS, 0, leaving)
        self.now = 10**9
        self.una = 0
        self.nxt = cwnd * MSS
        self.gap = gap

    def ack(self, rtt, segments=1, limited=True):
        self.una += segments * MSS
        self.control.on_ack(segments * MSS, limited, rtt, rtt, self.una, self.nxt, self.now)
        self.nxt = max(self.nxt, self.una + self.control.cwnd // MSS * MSS)
        self.now += self.gap
        return self.control.cwnd // MSS

    def round(self, *rtts):
        """A round; the samples are `rtts`, and the last of these for what is left of it."""
        end, first, n = self.nxt, self.control.cwnd, 0
        self.now += rtts[0]
        while self.una < end:
            self.ack(rtts[min(n, len(rtts) - 1)])
            n += 1
        return self.control.cwnd / first


def in_css(path):
    return path.control.leaving.divisor > 1


def test_plusplus_doubles_while_the_delay_stands_still():
    path = Path(HystartPlusPlus())
    for _ in range(6):
        assert path.round(100 * MS) == 2
    assert path.control.ssthresh == UNSET_SSTHRESH


def test_plusplus_grows_by_a_quarter_once_the_delay_grows_and_ends_after_five_rounds():
    path = Path(HystartPlusPlus(), 20)
    path.round(100 * MS)
    path.round(100 * MS)
    path.round(113 * MS)
    assert in_css(path) and path.control.in_slow_start()
    for _ in range(4):
        assert 1.2 < path.round(120 * MS) < 1.26
        assert path.control.in_slow_start()
    # The sixth round of CSS begins with the first acknowledgement of it.
    path.round(120 * MS)
    path.ack(120 * MS)
    assert not path.control.in_slow_start() and path.control.ssthresh <= path.control.cwnd


def filling(gap, late):
    """A path whose second round is acknowledged for 79 `gap`s; the last 40 samples of it are `late`."""
    path = Path(HystartPlusPlus(), 40, gap=gap)
    path.round(120 * MS, 100 * MS)
    assert path.control.in_slow_start() and not in_css(path)
    path.round(*[103 * MS] * 40, late)
    assert path.control.in_slow_start()
    return path


def test_plusplus_ends_where_a_round_fills_the_path():
    """It is acknowledged for longer than the smallest round trip, eight samples are late by an eighth of that, and the
    first eight of the next round are no better."""
    for gap, late, looks_full in ((3 * MS, 115_500, True), (1 * MS, 115_500, False), (3 * MS, 115_499, False)):
        path = filling(gap, late)
        assert in_css(path) is looks_full
        for _ in range(8):
            assert path.control.in_slow_start()
            path.ack(late)
        assert path.control.in_slow_start() is not looks_full


def test_plusplus_goes_on_where_the_next_round_begins_without_a_queue():
    path = filling(3 * MS, 150 * MS)
    assert in_css(path)
    for rtt in (*[150 * MS] * 7, 149 * MS):
        path.ack(rtt)
    assert path.control.in_slow_start() and not in_css(path)


def test_plusplus_takes_a_single_late_sample_for_jitter():
    path = Path(HystartPlusPlus(), 40, gap=3 * MS)
    for _ in range(3):
        assert path.round(*[100 * MS, *[400 * MS] * 7] * 100) == 2


def test_plusplus_takes_slow_start_up_again_when_the_delay_was_jitter():
    path = Path(HystartPlusPlus(), 20)
    path.round(100 * MS)
    path.round(120 * MS)
    assert in_css(path)
    path.round(*[120 * MS] * 7, 119 * MS, 120 * MS)
    assert not in_css(path)
    assert path.round(119 * MS) == 2


def test_plusplus_needs_eight_samples_and_a_round_to_compare_with():
    path = Path(HystartPlusPlus(), 3)
    path.round(10 * MS)
    assert path.round(100 * MS) == 2
    fresh = Path(HystartPlusPlus(), 100)
    fresh.round(900 * MS)
    assert not in_css(fresh)
    sampled = Path(HystartPlusPlus(), 16)
    sampled.round(100 * MS)
    sampled.round(*[150 * MS] * 7, -1)
    assert not in_css(sampled)


def test_plusplus_bounds_its_threshold():
    """An eighth of the last round, but 4 ms at least and 16 ms at most."""
    for last, not_yet, enough in ((1 * MS, 4_999, 5_000), (80 * MS, 89_999, 90_000), (900 * MS, 915_999, 916_000)):
        calm, grown = Path(HystartPlusPlus(), 20), Path(HystartPlusPlus(), 20)
        for path in (calm, grown):
            path.round(last)
        calm.round(not_yet)
        grown.round(enough)
        assert not in_css(calm) and in_css(grown)


def test_plusplus_is_for_the_first_slow_start_only():
    path = Path(HystartPlusPlus(), 20, ssthresh=400 * MSS)
    path.round(100 * MS)
    assert path.round(200 * MS) == 2 and not in_css(path)
    known = Path(HystartPlusPlus(), 20)
    known.round(100 * MS)
    known.round(150 * MS)
    known.control.on_timeout(1000, known.now, True)
    assert not in_css(known)
    ssthresh = known.control.ssthresh
    while known.control.in_slow_start():
        known.round(300 * MS)
    assert known.control.ssthresh == ssthresh


def test_plusplus_after_a_congestion_leaves_the_windows_to_the_algorithm():
    path = Path(HystartPlusPlus(), 20)
    path.round(100 * MS)
    path.round(150 * MS)
    cwnd = path.control.cwnd
    path.control.on_congestion(cwnd, path.now)
    path.control.end_recovery()
    assert path.control.cwnd == cwnd // MSS * 7 // 10 * MSS
    before = path.control.cwnd
    path.round(150 * MS)
    assert path.control.cwnd <= before * 1.2


def test_linux_ends_on_the_ninth_sample_of_a_round_that_is_late():
    path = Path(Hystart(), 10, gap=MS)
    path.now += 200 * MS
    path.ack(200 * MS, 10)
    assert path.control.cwnd == 20 * MSS
    path.now += 240 * MS
    for n in range(8):
        assert path.ack((240 + n) * MS, 2) == 22 + 2 * n
        assert path.control.ssthresh == UNSET_SSTHRESH
    assert path.ack(249 * MS, 2) == 36 and path.control.ssthresh == 36 * MSS
    assert path.ack(250 * MS, 2) == 36


def test_linux_goes_on_when_the_smallest_round_trip_shrinks():
    path = Path(Hystart(), 10, gap=3 * MS)
    path.ack(200 * MS, 10)
    for n in range(9):
        path.ack((200 + n) * MS, 2)
    path.ack(29 * MS, 2)
    assert path.control.ssthresh == UNSET_SSTHRESH and path.control.cwnd == 40 * MSS


def test_linux_ends_where_acknowledgements_keep_coming_for_half_of_a_round_trip():
    path = Path(Hystart(), 20, gap=2 * MS)
    path.round(100 * MS)
    for _ in range(26):
        path.ack(100 * MS)
    assert path.control.ssthresh == UNSET_SSTHRESH
    path.ack(100 * MS)
    assert path.control.ssthresh == path.control.cwnd
    apart = Path(Hystart(), 40, gap=2 * MS + 1)
    apart.round(100 * MS)
    assert apart.round(100 * MS) == 2


def test_linux_looks_again_after_a_timeout():
    path = Path(Hystart(), 40, gap=3 * MS)
    path.round(100 * MS)
    path.round(200 * MS)
    assert path.control.ssthresh <= path.control.cwnd
    path.control.on_timeout(path.control.cwnd, path.now, True)
    path.control.ssthresh = 1000 * MSS
    path.nxt = path.una + MSS
    for _ in range(5):
        path.round(100 * MS)
    assert path.control.in_slow_start()
    path.round(200 * MS)
    assert not path.control.in_slow_start()


def test_linux_leaves_small_windows_alone():
    path = Path(Hystart(), 10)
    path.control.min_rtt = 10 * MS
    for _ in range(5):
        path.ack(500 * MS)
    assert path.control.ssthresh == UNSET_SSTHRESH


def test_the_base_never_ends_slow_start():
    path = Path(SlowStartExit(), 10)
    for n in range(1, 8):
        assert path.round(n * 100 * MS) == 2


@given(
    st.sampled_from([Hystart, HystartPlusPlus]),
    st.lists(st.tuples(st.integers(-1, 2**40), st.integers(0, 2**40), st.integers(-(2**40), 2**40)), max_size=100),
)
def test_no_samples_and_no_clock_break_them(kind, acks):
    leaving = kind()
    control = Cubic(20 * MSS, UNSET_SSTHRESH, MSS, 0, leaving)
    una, now = 0, 2**41
    for rtt, ahead, gap in acks:
        una, now = una + MSS, now + gap
        before = control.cwnd
        control.on_ack(MSS, True, rtt, max(rtt, 0), una, una + ahead, now)
        assert before <= control.cwnd <= before + MSS and leaving.divisor in (1, 4)
