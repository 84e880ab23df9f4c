"""What arrives: reassembly, acknowledgements, windows, timestamps, and what should not have come."""

import pytest

from chimney.sim.model import FIN, RST, SYN, Settings
from tests.sim.model.hand import MSS, Hand, said

A, B, C, D = (bytes([65 + n]) * MSS for n in range(4))


def test_the_first_segments_are_acknowledged_at_once_and_later_ones_in_pairs():
    hand = Hand(quick=True)
    at = 0
    for _ in range(16):
        assert said(hand.give(at, A)) == [f"A 0+0 ack {at + MSS}"]
        at += MSS
    assert hand.give(at, A) == []
    assert said(hand.give(at + MSS, A)) == [f"A 0+0 ack {at + 2 * MSS}"]


def test_a_lone_segment_waits_40_ms_for_its_acknowledgement():
    hand = Hand()
    assert hand.give(0, A) == []
    assert hand.tcp.poll_at() == hand.now + 40_000
    assert said(hand.wait()) == [f"A 0+0 ack {MSS}"]


def test_data_carries_the_acknowledgement_and_ends_the_quick_ones():
    hand = Hand(quick=True)
    assert said(hand.give(0, b"question")) == ["A 0+0 ack 8"]
    assert said(hand.write(b"answer")) == ["PA 0+6 ack 8"]
    assert hand.give(8, b"question", ack=6) == []
    assert said(hand.write(b"answer")) == ["PA 6+6 ack 16"]
    assert hand.wait(40_000) == []


def test_out_of_order_is_told_at_once_the_latest_first():
    hand = Hand()
    (sent,) = hand.give(2 * MSS, C)
    assert (sent.ack, sent.sack) == (0, [(2 * MSS, 3 * MSS)])
    (sent,) = hand.give(6 * MSS, C)
    assert sent.sack == [(6 * MSS, 7 * MSS), (2 * MSS, 3 * MSS)]
    (sent,) = hand.give(3 * MSS, D)
    assert sent.sack == [(2 * MSS, 4 * MSS), (6 * MSS, 7 * MSS)]
    (sent,) = hand.give(0, A)
    assert (sent.ack, sent.sack) == (MSS, [(2 * MSS, 4 * MSS), (6 * MSS, 7 * MSS)])
    (sent,) = hand.give(MSS, B)
    assert (sent.ack, sent.sack) == (4 * MSS, [(6 * MSS, 7 * MSS)])
    assert hand.read() == A + B + C + D


def test_without_the_option_there_are_no_blocks():
    (sent,) = Hand(sack=False).give(2 * MSS, C)
    assert sent.sack == []


def test_duplicates_are_reported_first():
    hand = Hand()
    hand.give(0, A)
    hand.give(2 * MSS, C)
    (sent,) = hand.give(0, A)
    assert (sent.ack, sent.sack) == (MSS, [(0, MSS), (2 * MSS, 3 * MSS)])
    (sent,) = hand.give(2 * MSS, C)
    assert sent.sack == [(2 * MSS, 3 * MSS), (2 * MSS, 3 * MSS)]
    (sent,) = hand.give(100, (A + B)[100:])
    assert (sent.ack, sent.sack) == (3 * MSS, [(100, MSS)])
    assert hand.read() == A + B + C


def test_overlaps_are_kept_once():
    hand = Hand()
    stream = bytes(range(256)) * 8
    for left, right in ((500, 700), (300, 400), (350, 600), (650, 900), (100, 1000)):
        hand.give(left, stream[left:right])
    hand.give(0, stream[:200])
    assert hand.read() == stream[:1000]


def test_reading_into_nothing_reads_nothing():
    hand = Hand()
    hand.give(0, b"abc")
    assert hand.read(0) is None
    assert hand.read(2) == b"ab"


def test_data_beyond_the_window_is_cut_and_answered():
    hand = Hand(receive_buffer=2000)
    (sent,) = hand.give(0, A + A)
    assert (sent.ack, sent.window) == (2000, 0)
    (sent,) = hand.give(2000, b"x")
    assert (sent.ack, sent.window) == (2000, 0)
    assert hand.read() == (A + A)[:2000]


def test_a_fin_behind_what_does_not_fit_has_not_come():
    hand = Hand(receive_buffer=1000)
    hand.give(0, bytes(2000), flags=FIN)
    assert hand.state == "ESTABLISHED"
    assert len(hand.read()) == 1000
    hand.take()
    hand.give(1000, bytes(1000), flags=FIN)
    assert hand.state == "CLOSE_WAIT"
    assert len(hand.read()) == 1000
    assert hand.read() == b""


def test_an_acknowledgement_does_not_tell_of_a_little_room():
    hand = Hand(receive_buffer=10_000)
    hand.give(0, bytes(10_000))
    hand.read(1000)
    (sent,) = hand.write(b"x")
    assert sent.window == 0


def test_the_window_reopens_only_for_what_is_worth_it():
    hand = Hand(receive_buffer=10_000)
    hand.give(0, bytes(10_000))
    assert len(hand.read(1459)) == 1459
    assert hand.take() == []
    hand.read(1)
    (sent,) = hand.take()
    assert (sent.ack, sent.window) == (10_000, 1460)
    hand.read(1460)
    (sent,) = hand.take()
    assert sent.window == 2920
    hand.read(100)
    assert hand.take() == []


def test_the_right_edge_never_moves_back():
    hand = Hand(receive_buffer=10_000, scale=7)
    edge = 10_000
    for at in range(0, 9_000, 100):
        hand.give(at, bytes(100))
        hand.now += 40_000
        for sent in hand.take():
            assert sent.ack + (sent.window << 7) >= edge
            edge = sent.ack + (sent.window << 7)
    assert edge <= 10_000 + 127 * 90


def test_a_window_probe_is_answered():
    hand = Hand(receive_buffer=2000)
    hand.give(0, bytes(2000))
    (sent,) = hand.give(1999)
    assert (sent.ack, sent.window) == (2000, 0)


def test_an_empty_segment_that_should_not_have_come_is_answered_twice_a_second():
    hand = Hand()
    assert said(hand.give(-1)) == ["A 0+0 ack 0"]
    assert hand.give(-1) == []
    assert said(hand.give(-1, b"x")) == ["A 0+0 ack 0"], "data is always answered"
    hand.now += 500_000
    assert said(hand.give(60_001)) == ["A 0+0 ack 0"]


def test_an_empty_segment_at_the_right_edge_counts():
    hand = Hand(receive_buffer=2000)
    hand.write(b"abc")
    assert hand.give(2000, ack=3) == []
    assert hand.tcp.sender.una == hand.tcp.sender.max


@pytest.mark.parametrize(("seq", "ends"), [(0, True), (1, False), (1999, False), (2000, False), (-1, False)])
def test_only_a_reset_at_rcv_nxt_counts(seq, ends):
    hand = Hand(receive_buffer=2000)
    answer = hand.give(seq, flags=RST, plain=True)
    if ends:
        assert hand.state == "CLOSE" and answer == []
        with pytest.raises(ConnectionResetError):
            hand.read()
        assert hand.read() == b"", "an error is told once"
        with pytest.raises(BrokenPipeError):
            hand.write(b"x")
    else:
        # Inside of the window it is challenged (RFC 5961, 3).
        assert said(answer) == (["A 0+0 ack 0"] if 0 < seq < 2000 else [])
        assert hand.state == "ESTABLISHED"


def test_a_reset_counts_when_the_window_is_closed():
    hand = Hand(receive_buffer=2000)
    hand.give(0, bytes(2000))
    hand.give(2000, flags=RST)
    assert hand.state == "CLOSE"
    assert hand.read() == bytes(2000), "what had arrived can still be read"
    with pytest.raises(ConnectionResetError):
        hand.read()


@pytest.mark.parametrize("seq", [0, 100, -1, 70_000])
def test_a_syn_is_challenged(seq):
    hand = Hand()
    assert said(hand.give(seq, flags=SYN)) == ["A 0+0 ack 0"]
    assert hand.state == "ESTABLISHED"


def test_a_segment_without_ack_is_dropped():
    hand = Hand()
    assert hand.give(0, b"abc", plain=True) == []
    assert hand.read() is None


@pytest.mark.parametrize("ack", [1, 1 << 30, -60_001, -(1 << 30)])
def test_an_acknowledgement_of_what_was_never_sent_is_challenged_and_dropped(ack):
    hand = Hand()
    assert said(hand.give(0, b"abc", ack=ack)) == ["A 0+0 ack 0"]
    assert hand.read() is None
    assert hand.give(0, b"abc", ack=ack) == []


def test_an_old_acknowledgement_is_no_harm():
    hand = Hand()
    hand.write(b"abcdef")
    hand.give(0, ack=6)
    hand.give(0, b"abc", ack=2)
    assert hand.read() == b"abc"


# Timestamps


def test_ts_recent_follows_what_fills_the_next_acknowledgement():
    hand = Hand(timestamps=True)
    size = MSS - 12
    hand.give(0, A[:size], ts=(100, 0))
    hand.give(2 * size, A[:size], ts=(103, 0))
    (sent,) = hand.give(size, A[:size], ts=(101, 0))
    # RFC 7323, 4.3: the earliest that is unacknowledged counts, until it is acknowledged.
    assert sent.segment.ts_ecr == 101
    (sent,) = hand.give(3 * size, b"x", ts=(102, 0)) or hand.wait()
    assert sent.segment.ts_ecr == 102


def test_a_segment_with_an_old_timestamp_is_answered_and_dropped():
    hand = Hand(timestamps=True)
    hand.give(0, b"abc", ts=(5, 0))
    hand.take()
    assert said(hand.give(3, b"def", ts=(4, 0))) == ["A 0+0 ack 3"]
    assert hand.read() == b"abc"
    hand.give(3, b"def", ts=(5, 0))
    assert hand.read() == b"def"
    hand.give(6, b"ghi")
    assert hand.read() == b"ghi", "as Linux does, take it without an option"
    hand.give(9, flags=RST, ts=(1, 0))
    assert hand.state == "CLOSE", "an RST needs no timestamp (RFC 7323, 5.2)"


def test_old_is_half_the_circle():
    hand = Hand(timestamps=True)
    hand.give(0, b"a", ts=(0xFFFFFFF0, 0))
    hand.wait(40_000)
    hand.give(1, b"b", ts=(5, 0))
    hand.wait(40_000)
    hand.give(2, b"c", ts=(0xFFFFFFF0, 0))
    assert hand.read() == b"ab"


def test_the_clock_counts_milliseconds_from_its_offset():
    hand = Hand(timestamps=True, ts_offset=0xFFFFFFFF - 1_000_000)
    first = hand.write(b"a")[0].segment.ts_val
    hand.now += 2_500
    second = hand.write(b"b")[0].segment.ts_val
    assert (first, second) == (0xFFFFFFFF, 1)


def test_a_buffer_less_than_a_unit_of_the_window_is_refused():
    with pytest.raises(ValueError, match="cannot be offered"):
        Hand(receive_buffer=100, scale=7)
    with pytest.raises(ValueError, match="MTU"):
        Hand(mtu=100)
    assert Settings(1, 2, 3, 4).scale == 7
