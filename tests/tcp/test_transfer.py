"""Whole transfers between two engines: streams equal whatever the pipe does."""

import random

import pytest
from tcp_harness import MSS, Impairments, Pair

from chimney.tcp import Config, Event, State


def stream(size, seed=0):
    return random.Random(seed).randbytes(size)


def test_a_clean_transfer_needs_no_retransmission():
    pair = Pair(a=stream(300_000), b=stream(200_000, 1))
    pair.transfer()
    assert pair.a.conn.stats.retransmitted_segments == 0
    assert pair.b.conn.stats.retransmitted_segments == 0


@pytest.mark.parametrize("congestion", ["cubic", "reno"])
@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("loss", [0.01, 0.1])
def test_a_lossy_transfer_arrives(congestion, sack, loss, seed):
    config = Config(sack=sack, congestion=congestion, rcv_wscale=7, snd_wscale=7, initial_rcv_wnd=1 << 20)
    pair = Pair(seed, stream(300_000), stream(100_000, 1), config=config, impairments=Impairments(loss=loss))
    pair.transfer()
    assert pair.lost > 0


def test_both_sides_close():
    pair = Pair(a=stream(10_000), b=stream(20_000, 1))
    pair.a.close_wanted = pair.b.close_wanted = True
    pair.run(lambda: pair.a.finished() and pair.b.finished())
    assert bytes(pair.b.received) == pair.a.outgoing
    assert {pair.a.conn.state, pair.b.conn.state} <= {State.CLOSED, State.TIME_WAIT}
    assert Event.FIN_RECEIVED in pair.a.events and Event.FIN_RECEIVED in pair.b.events


def test_a_window_of_one_segment_is_enough():
    config = Config(initial_rcv_wnd=MSS)
    pair = Pair(a=stream(20 * MSS), config=config)
    pair.transfer()
