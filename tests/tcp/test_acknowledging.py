"""When the engine acknowledges: quick, delayed, with an answer; and what it reports that came twice (RFC 2883)."""

import pytest
from tcp_harness import MSS, Impairments, Pair, Peer

from chimney.tcp import ACK, FIN, Config, State

QUICK = Config(timestamps=False, initial_rcv_wnd=64_000)
SLOW = Config(timestamps=False, initial_rcv_wnd=64_000, quick_acks=0)


def test_the_first_acknowledgements_do_not_wait():
    """TCP_MAX_QUICKACKS of Linux."""
    peer = Peer(QUICK)
    answered = []
    for number in range(20):
        peer.give(number, data=b"x")
        answered.append(len(peer.take()))
    assert answered == [1] * 16 + [0, 1, 0, 1]


def test_after_a_pause_acknowledgements_are_quick_again():
    peer = Peer(QUICK)
    for number in range(20):
        peer.give(number, data=b"x")
        peer.take()
    peer.now += 10_000_000
    peer.take()
    peer.give(20, data=b"x")
    assert len(peer.take()) == 1


def test_after_something_came_twice_acknowledgements_are_quick_again():
    peer = Peer(QUICK)
    for number in range(20):
        peer.give(number, data=b"x")
        peer.take()
    peer.give(0, data=b"x")
    peer.take()
    peer.give(20, data=b"x")
    assert len(peer.take()) == 1


def test_an_application_that_answers_carries_the_acknowledgements():
    peer = Peer(QUICK)
    peer.give(0, data=b"request")
    assert [s.ack for s in peer.take()] == [7]
    peer.conn.send(memoryview(b"answer"))
    assert [s.length for s in peer.take()] == [6]
    peer.give(7, 6, data=b"request")
    assert peer.take() == []
    peer.conn.send(memoryview(b"answer"))
    assert [(s.ack, s.length) for s in peer.take()] == [(14, 6)]


def test_an_application_that_stops_answering_does_not_delay_for_ever():
    peer = Peer(QUICK)
    peer.give(0, data=b"request")
    peer.take()
    peer.conn.send(memoryview(b"answer"))
    peer.take()
    peer.give(7, 6, data=b"request")
    assert [s.ack for s in peer.wait()] == [14]
    peer.give(14, 6, data=b"request")
    assert [s.ack for s in peer.take()] == [21]


def trained(config, trains=20):
    """Trains of three segments have come, and each has been acknowledged; how much data that was."""
    peer = Peer(config)
    for number in range(trains):
        peer.give(3000 * number, data=bytes(3000), segments=3)
        assert len(peer.take()) == 1
    return peer, 3000 * trains


@pytest.mark.parametrize(("pause", "answers"), [(2_000, 1), (1_999, 0)])
def test_a_lone_segment_after_a_pause_between_trains_may_be_a_probe(pause, answers):
    """If the acknowledgement of the last train was lost, the peer waits for this one (RFC 8985, 7)."""
    peer, at = trained(QUICK)
    peer.now += pause
    peer.give(at, data=bytes(1000))
    assert len(peer.take()) == answers


def test_a_second_lone_segment_is_none():
    peer, at = trained(QUICK)
    for number, answers in enumerate((1, 0)):
        peer.now += 2_000
        peer.give(at + 1000 * number, data=bytes(1000))
        assert len(peer.take()) == answers


def test_nothing_is_hurried_where_no_acknowledgement_is_quick():
    peer, at = trained(SLOW)
    peer.now += 2_000
    peer.give(at, data=bytes(1000))
    assert peer.take() == []


def test_quick_acknowledgements_can_be_switched():
    peer = Peer(QUICK)
    peer.conn.set_quick_ack(False)
    peer.give(0, data=b"x")
    assert peer.take() == []
    peer.conn.set_quick_ack(True)
    assert [s.ack for s in peer.take()] == [1]
    peer.give(1, data=b"x")
    assert [s.ack for s in peer.take()] == [2]


@pytest.mark.parametrize("segments", [1, 2, 3, 45])
def test_merged_frames_count_as_segments_and_are_answered_once(segments):
    peer = Peer(SLOW)
    peer.give(0, data=bytes(100 * segments), segments=segments)
    assert len(peer.take()) == (segments > 1)
    assert peer.wait() if segments == 1 else True


def test_frames_that_overtake_each_other_are_reported_and_nothing_is_taken_as_lost():
    """Merged frames of a fast peer arrive out of order without a loss: nothing is sent twice."""
    pair = Pair(
        seed=7,
        a=bytes(3_000_000),
        config=Config(initial_rcv_wnd=1 << 20, rcv_wscale=8, snd_wscale=8),
        impairments=Impairments(delay=5000, jitter=300, merge=True),
    )
    pair.transfer()
    assert pair.lost == 0
    assert pair.b.conn.stats.out_of_order > 0
    assert pair.a.conn.stats.timeouts == 0
    # Reordering within a third of a millisecond is learned, after a first mistake or two.
    assert pair.a.conn.stats.retransmitted_segments < 100


def test_an_acknowledgement_that_data_has_overtaken_counts():
    """Its sequence number is below RCV.NXT, which moved a moment ago: it is no intruder, and gets no answer."""
    peer = Peer(SLOW)
    peer.conn.send(memoryview(bytes(500)))
    peer.take()
    peer.give(0, data=bytes(100))
    peer.give(0, 500)
    assert peer.conn.acked == 500 and peer.take() == []
    assert peer.conn.stats.unacceptable == 0


def test_what_was_acknowledged_before_is_beside_the_window():
    peer = Peer(SLOW)
    peer.give(0, data=bytes(200), segments=2)
    peer.take()
    peer.conn.send(memoryview(bytes(500)))
    peer.take()
    peer.give(100, 500)
    assert peer.conn.acked == 0 and len(peer.take()) == 1


# Duplicates


def test_what_came_before_the_hand_over_is_reported_too():
    peer = Peer(SLOW)
    peer.give(-100, data=b"x" * 100)
    assert [s.sack for s in peer.take()] == [[(2**32 - 100, 0)]]


def test_each_duplicate_of_a_batch_has_an_acknowledgement_of_its_own():
    peer = Peer(SLOW)
    peer.give(0, data=bytes(300), segments=3)
    peer.take()
    for start in (0, 100, 200):
        peer.give(start, data=bytes(100))
    assert [s.sack for s in peer.take()] == [[(0, 100)], [(100, 200)], [(200, 300)]]
    assert peer.take() == []


def test_duplicates_that_wait_are_bounded():
    peer = Peer(SLOW)
    peer.give(0, data=bytes(3000), segments=3)
    peer.take()
    for start in range(0, 3000, 100):
        peer.give(start, data=bytes(100))
    assert len(peer.take()) == 8


@pytest.mark.parametrize(
    ("first", "then", "reported"),
    [
        # [200, 300), [400, 500) and [600, 700) are kept; 100 is expected.
        ((50, 75), 100, [(50, 75), (600, 700), (400, 500), (200, 300)]),
        ((50, 150), 150, [(50, 100), (600, 700), (400, 500), (200, 300)]),
        ((50, 350), 350, [(50, 100), (600, 700), (400, 500)]),
        ((100, 275), 300, [(200, 275), (600, 700), (400, 500)]),
        ((200, 275), 100, [(200, 275), (200, 300), (600, 700), (400, 500)]),
        ((150, 450), 100, [(200, 300), (150, 500), (600, 700)]),
        ((250, 1000), 100, [(250, 300), (200, 1000)]),
        ((450, 550), 100, [(450, 500), (400, 550), (600, 700), (200, 300)]),
        ((300, 400), 100, [(200, 500), (600, 700)]),
    ],
)
def test_what_overlaps(first, then, reported):
    peer = Peer(SLOW)
    peer.give(0, data=bytes(100))
    for start in (200, 400, 600):
        peer.give(start, data=bytes(100))
        peer.take()
    start, end = first
    peer.give(start, data=bytes(end - start))
    (ack,) = peer.take()
    assert (ack.ack, ack.sack) == (then, reported)


def test_without_sack_nothing_is_reported_or_remembered():
    peer = Peer(Config(timestamps=False, sack=False))
    peer.give(0, data=bytes(100), segments=2)
    peer.take()
    peer.give(0, data=bytes(100))
    assert [s.sack for s in peer.take()] == [[]]
    assert peer.conn.receiver.duplicates == []


def test_the_acknowledgement_of_a_fin_reports_nothing():
    peer = Peer(SLOW)
    peer.give(0, data=bytes(100), segments=2)
    peer.take()
    peer.give(0, data=bytes(100), flags=ACK | FIN)
    assert [(s.ack, s.sack) for s in peer.take()] == [(101, [])]
    assert peer.conn.state == State.CLOSE_WAIT


def test_a_fin_takes_no_room_in_the_window():
    peer = Peer(SLOW)
    peer.give(0, flags=ACK | FIN)
    assert [(s.ack, s.window) for s in peer.take()] == [(1, 64_000)]


# Auto-tuning


def test_the_window_grows_with_what_the_application_takes_in_a_round_trip():
    config = Config(initial_rcv_wnd=1 << 16, max_rcv_wnd=1 << 22, rcv_wscale=8, snd_wscale=8)
    pair = Pair(a=bytes(6_000_000), config=config, impairments=Impairments(delay=20_000))
    pair.transfer()
    window = pair.b.conn.receiver.window
    assert 1 << 20 <= window.size <= 1 << 22
    assert pair.b.conn.tuning.rtt >= 40_000
    fixed = Pair(a=bytes(6_000_000), impairments=Impairments(delay=20_000), config=Config(
        initial_rcv_wnd=1 << 16, rcv_wscale=8, snd_wscale=8,
    ))  # fmt: skip
    fixed.transfer()
    assert fixed.b.conn.receiver.window.size == 1 << 16
    assert pair.now - 1_000_000 < (fixed.now - 1_000_000) // 3


@pytest.mark.parametrize("impediment", ["no timestamps", "segments smaller than ours"])
def test_the_window_grows_whatever_the_peer_sends(impediment):
    stamps = impediment != "no timestamps"
    config = Config(initial_rcv_wnd=1 << 16, max_rcv_wnd=1 << 22, rcv_wscale=8, timestamps=stamps)
    peer = Peer(config, srtt_us=40_000)
    at = 0
    for clock in range(100):
        for _ in range(10):
            peer.give(at, data=bytes(1200), ts=(clock, clock) if stamps else None)
            at += 1200
            peer.conn.consume(len(peer.read()))
        peer.take()
        peer.now += 10_000
    assert peer.conn.receiver.window.size > 1 << 16


def test_the_window_does_not_grow_beyond_what_its_field_can_tell():
    config = Config(initial_rcv_wnd=1 << 15, max_rcv_wnd=1 << 22, rcv_wscale=2, snd_wscale=8)
    pair = Pair(a=bytes(6_000_000), config=config, impairments=Impairments(delay=20_000))
    pair.transfer()
    assert pair.b.conn.receiver.window.size == 65535 << 2


def test_a_window_that_is_not_used_does_not_grow():
    config = Config(initial_rcv_wnd=1 << 18, max_rcv_wnd=1 << 22, rcv_wscale=8, snd_wscale=8)
    pair = Pair(a=bytes(10 * MSS), config=config)
    pair.transfer()
    assert pair.b.conn.receiver.window.size == 1 << 18


def test_where_both_sides_have_closed_one_answer_is_enough_for_all_that_came_twice():
    """The peer may forget the connection with the first one, and answer a second by an RST."""
    peer = Peer(SLOW)
    peer.conn.close()
    peer.give(0, data=bytes(300), flags=ACK | FIN)
    peer.take()
    peer.give(301, 0)
    for start in (0, 100, 200):
        peer.give(start, data=bytes(100))
    assert [(s.ack, s.sack) for s in peer.take()] == [(301, [])]
