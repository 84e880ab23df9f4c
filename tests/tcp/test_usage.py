"""Congestion window validation: idle and application limited, as Linux has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcp_harness import Peer

from chimney.tcp import Config
from chimney.tcp.config import NEVER, UNSET_SSTHRESH
from chimney.tcp.cubic import Cubic
from chimney.tcp.hystart import SlowStartExit
from chimney.tcp.usage import CwndUsage

MSS = 1000
RTO = 300_000


class Flow:
    """A sender that is told what to write, and whose peer acknowledges."""

    def __init__(self, cwnd=10, ssthresh=UNSET_SSTHRESH, restarts=True):
        self.control = Cubic(cwnd * MSS, ssthresh, MSS, 0, SlowStartExit())
        self.usage = CwndUsage(self.control, restarts, 0)
        self.una = self.nxt = self.data = 0
        self.now = 0

    def send(self, rto=RTO):
        while self.nxt < self.data and self.nxt - self.una + MSS <= self.control.cwnd:
            if self.nxt == self.una:
                self.usage.starts(RTO, self.now)
            self.nxt += MSS
            self.usage.sent(self.una, self.nxt, self.nxt - self.una + MSS > self.control.cwnd, rto, self.now)

    def write(self, segments, wait=0, rto=RTO):
        self.now += wait
        self.data += segments * MSS
        self.send(rto)
        return (self.nxt - self.una) // MSS

    def ack(self, segments, wait=0):
        self.now += wait
        self.una += segments * MSS
        self.control.on_ack(segments * MSS, self.usage.is_limited(), 100_000, 100_000, self.una, self.nxt, self.now)
        self.send()
        return self.control.cwnd // MSS


def test_a_full_window_doubles():
    flow = Flow()
    assert flow.write(10) == 10
    assert [flow.ack(2) for _ in range(5)] == [12, 14, 16, 18, 20]


def test_one_segment_below_a_full_window_gives_twice_of_what_was_used():
    flow = Flow()
    flow.write(9)
    assert [flow.ack(2) for _ in range(4)] + [flow.ack(1)] == [12, 14, 16, 18, 18]


def test_a_little_more_than_half_grows_a_little_and_half_does_not():
    flow = Flow()
    flow.write(6)
    assert [flow.ack(2) for _ in range(3)] == [12, 12, 12]
    flow = Flow()
    flow.write(5)
    assert [flow.ack(2), flow.ack(2), flow.ack(1)] == [10, 10, 10]


def test_in_congestion_avoidance_only_a_full_window_grows():
    flow = Flow(10, 10 * MSS)
    for _ in range(20):
        flow.write(9, 1000)
        assert flow.ack(9, 1000) == 10
    full = Flow(10, 10 * MSS)
    for _ in range(20):
        full.write(10, 1000)
        full.ack(10, 100_000)
    assert full.control.cwnd > 10 * MSS


def test_a_window_that_was_full_once_counts_as_full_until_it_is_acknowledged():
    flow = Flow(10, 10 * MSS)
    flow.write(10)
    flow.ack(9)
    assert flow.usage.is_limited()
    flow.write(1)
    assert flow.usage.is_limited()
    flow.ack(2)
    flow.write(1)
    assert not flow.usage.is_limited()


def test_cwnd_restarts_after_a_pause():
    flow = Flow()
    flow.write(26)
    flow.ack(10, 100_000)
    assert flow.ack(16, 100_000) == 36
    flow.write(1, 2_000_000)
    assert flow.control.cwnd == 10 * MSS


def test_a_pause_within_the_timeout_is_none():
    flow = Flow()
    flow.write(26)
    flow.ack(10, 100_000)
    flow.ack(16, 100_000)
    flow.write(1, 150_000)
    assert flow.control.cwnd == 36 * MSS


def test_restarting_can_be_switched_off():
    flow = Flow(36, restarts=False)
    flow.write(1, 3_600_000_000)
    assert flow.control.cwnd == 36 * MSS
    for _ in range(100):
        flow.ack(1, 50_000)
        flow.write(1, 50_000)
    assert flow.control.cwnd == 36 * MSS


def test_what_the_application_does_not_use_goes_by_half_for_each_timeout():
    flow = Flow(100, 50 * MSS)
    windows = []
    for _ in range(100):
        flow.write(20, 50_000)
        windows.append(flow.ack(20, 50_000))
    assert windows[0] == 100 and windows[4] == 60
    # Below twice of what is used slow start may grow again, and what it grew by is given up again.
    assert all(20 <= window <= 60 for window in windows[4:])
    assert flow.control.ssthresh == 75 * MSS


def test_what_is_little_leaves_the_initial_window():
    flow = Flow(100, 50 * MSS)
    for _ in range(100):
        flow.write(1, 50_000)
        flow.ack(1, 50_000)
    assert flow.control.cwnd // MSS == 10


def test_nothing_is_given_up_outside_of_ordinary_sending():
    flow = Flow(100, 50 * MSS)
    for _ in range(100):
        flow.write(1, 50_000, NEVER)
        flow.ack(1, 50_000)
    assert flow.control.cwnd == 100 * MSS


def test_a_forbidden_transmission_counts_as_a_full_window():
    flow = Flow(10, 10 * MSS)
    flow.write(5)
    assert not flow.usage.is_limited()
    flow.usage.sent(flow.una, flow.nxt, True, RTO, flow.now)
    assert flow.usage.is_limited()


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(-(10**6), 10**10)), max_size=80),
    st.integers(1, 200),
)
def test_cwnd_never_exceeds_twice_of_what_was_under_way_and_one_acknowledgement(steps, cwnd):
    flow = Flow(cwnd)
    flow.now = 10**9
    most = 0
    for write, ack, wait in steps:
        flow.write(write, max(wait, -flow.now))
        most = max(most, flow.nxt - flow.una)
        flow.ack(min(ack, (flow.nxt - flow.una) // MSS))
        most = max(most, flow.nxt - flow.una)
        assert MSS <= flow.control.cwnd <= max(cwnd * MSS, 3 * most)


# On a whole connection.


def trickle(window, queued):
    """A connection with room for 40 segments whose peer takes `window` bytes; cwnd after seconds of it, in segments."""
    peer = Peer(Config(timestamps=False), cwnd=40 * 1460, ssthresh=20 * 1460, snd_wnd=window)
    peer.conn.send(memoryview(bytes(queued)), True)
    acked = 0
    for _ in range(300):
        acked += sum(s.length for s in peer.take())
        peer.now += 10_000
        peer.give(0, acked, window=window)
        if acked == queued:
            peer.conn.send(memoryview(bytes(100)), True)
            queued += 100
    return peer.conn.cwnd // 1460


@pytest.mark.parametrize(("window", "queued"), [(65535, 100), (5 * 1460, 10_000_000)])
def test_neither_the_application_nor_the_peers_window_gives_cwnd_up_while_acknowledgements_come(window, queued):
    """As with Linux: who answers a few requests, and then one with much, begins where it was."""
    assert trickle(window, queued) == 40
