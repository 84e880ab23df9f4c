"""What the engine does with data: acknowledgements, reassembly, SACK, windows."""

import dataclasses

import pytest
from tcp_harness import MSS, Peer

from chimney.tcp import ACK, FIN, PSH, Config, Event, State
from chimney.tcp.config import NEVER

PLAIN = Config(timestamps=False, initial_rcv_wnd=64_000, quick_acks=0)


def test_every_second_segment_is_acknowledged_at_once():
    peer = Peer(PLAIN)
    peer.give(0, data=b"a" * 1000)
    assert peer.take() == []
    peer.give(1000, data=b"b" * 1000)
    assert [s.ack for s in peer.take()] == [2000]


def test_a_merged_frame_counts_as_the_segments_it_stands_for():
    peer = Peer(PLAIN)
    peer.give(0, data=b"a" * 1000, segments=2)
    assert [s.ack for s in peer.take()] == [1000]


def test_a_single_segment_is_acknowledged_after_the_delay():
    peer = Peer(PLAIN)
    peer.give(0, data=b"a")
    assert peer.take() == [] and peer.conn.poll_at() == 40_000
    assert [s.ack for s in peer.wait()] == [1]


def test_data_carries_the_acknowledgement():
    peer = Peer(PLAIN)
    peer.give(0, data=b"a")
    peer.conn.send(memoryview(b"x"))
    assert [(s.data, s.ack) for s in peer.take()] == [(b"x", 1)]
    peer.give(1, 1)
    assert peer.take() == []


def test_a_batch_is_answered_once():
    peer = Peer(PLAIN)
    for i in range(10):
        peer.give(i * 100, data=bytes(100))
    assert [s.ack for s in peer.take()] == [1000]


def test_out_of_order_data_is_reported_and_delivered_when_the_hole_is_filled():
    peer = Peer(PLAIN)
    peer.give(100, data=b"b" * 100)
    (ack,) = peer.take()
    assert (ack.ack, ack.sack) == (0, [(100, 200)]) and peer.read() == b""
    peer.give(300, data=b"d" * 100)
    assert peer.take()[0].sack == [(300, 400), (100, 200)]
    peer.give(0, data=b"a" * 100)
    (ack,) = peer.take()
    assert (ack.ack, ack.sack) == (200, [(300, 400)]) and peer.read() == b"a" * 100 + b"b" * 100
    peer.give(200, data=b"c" * 100)
    (ack,) = peer.take()
    assert (ack.ack, ack.sack) == (400, []) and peer.read() == b"c" * 100 + b"d" * 100


def test_with_timestamps_three_blocks_fit():
    peer = Peer(Config())
    for i in range(1, 5):
        peer.give(i * 200, data=b"x" * 100, ts=(10, 0))
    assert peer.take()[0].sack == [(800, 900), (600, 700), (400, 500)]


def test_without_sack_each_out_of_order_segment_is_one_duplicate_acknowledgement():
    peer = Peer(Config(timestamps=False, sack=False))
    for i in range(1, 4):
        peer.give(i * 100, data=b"x" * 100)
    assert [(s.ack, s.sack) for s in peer.take()] == [(0, [])] * 3


@pytest.mark.parametrize("end", [300, 400])
def test_duplicates_that_are_still_owed_are_dropped_when_data_gets_through(end):
    peer = Peer(Config(timestamps=False, sack=False))
    peer.give(100, data=b"x" * 100, segments=4)
    peer.give(300, data=b"x" * 100) if end == 400 else None
    peer.give(0, data=b"x" * 100)
    peer.give(200, data=b"x" * 100)
    assert [s.ack for s in peer.take()] == [end]


def test_a_duplicate_is_acknowledged_at_once_and_reported():
    peer = Peer(PLAIN)
    peer.give(0, data=b"a" * 100, segments=2)
    peer.take()
    peer.give(0, data=b"a" * 100)
    (ack,) = peer.take()
    assert (ack.ack, ack.sack) == (100, [(0, 100)])
    peer.give(100, data=b"b")
    assert peer.wait()[0].sack == []


def test_of_overlapping_data_the_first_copy_stays():
    peer = Peer(PLAIN)
    peer.give(2, data=b"CD")
    peer.give(1, data=b"bcde")
    peer.give(0, data=b"ab")
    assert peer.read() == b"abCDe"


def test_pushes_are_passed_on_with_the_data():
    peer = Peer(PLAIN)
    peer.give(2, data=b"cd", flags=ACK | PSH)
    peer.give(0, data=b"ab")
    assert [(bytes(v), p) for v, p in peer.conn.received] == [(b"ab", False), (b"cd", True)]


def test_reassembly_is_bounded():
    peer = Peer(Config(timestamps=False, max_reassembly_blocks=4))
    for i in range(1, 20):
        peer.give(2 * i, data=b"x")
    assert peer.conn.stats.reassembly_drops == 15
    peer.give(0, data=b"ab")
    assert peer.read() == b"abx"


def test_a_fin_in_a_hole_waits_for_its_turn():
    peer = Peer(PLAIN)
    peer.give(2, data=b"cd", flags=ACK | FIN)
    peer.give(4, flags=ACK | FIN)
    assert not peer.conn.fin_received and peer.take()[0].ack == 0
    peer.give(0, data=b"ab")
    assert peer.conn.fin_received and peer.conn.events == [Event.FIN_RECEIVED] and peer.read() == b"abcd"
    assert peer.conn.state == State.CLOSE_WAIT and peer.take()[0].ack == 5


def test_data_after_the_fin_is_ignored():
    peer = Peer(PLAIN)
    peer.give(1, flags=ACK | FIN)
    peer.give(1, data=b"evil")
    peer.give(0, data=b"a")
    peer.give(2, data=b"evil")
    assert peer.read() == b"a" and peer.conn.rcv_nxt - peer.irs == 2


def test_what_exceeds_the_window_is_cut_off():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10))
    peer.give(0, data=b"0")
    peer.give(1, data=b"123456789abc", flags=ACK | FIN)
    assert peer.read() == b"0123456789" and not peer.conn.fin_received
    assert [(s.ack, s.window) for s in peer.wait()] == [(10, 0)]


def test_what_exceeds_an_open_window_is_taken_whole_when_nothing_waits_to_be_read():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10))
    peer.give(0, data=b"0123456789abc")
    assert peer.read() == b"0123456789abc"
    assert [(s.ack, s.window) for s in peer.wait()] == [(13, 0)]
    peer.give(13, data=b"d", flags=ACK | FIN)
    assert peer.read() == b"" and not peer.conn.fin_received
    peer.conn.consume(13)
    peer.take()
    peer.give(13, data=b"d", flags=ACK | FIN)
    assert peer.read() == b"d" and peer.conn.fin_received


def test_a_bare_fin_is_accepted_into_a_closed_window():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10))
    peer.give(0, data=b"0123456789")
    peer.give(10, flags=ACK | FIN)
    assert peer.conn.fin_received and peer.take()[0].ack == 11


def test_the_acknowledgement_of_data_beyond_a_closed_window_counts():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10))
    peer.conn.send(memoryview(b"x"))
    peer.take()
    peer.give(0, data=b"0123456789")
    peer.give(10, 1, data=b"probe")
    assert peer.conn.acked == 1 and peer.read() == b"0123456789"
    assert [(s.ack, s.window) for s in peer.take()] == [(10, 0)]


def test_a_segment_without_data_may_stand_at_the_right_edge():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10))
    peer.conn.send(memoryview(b"x"))
    peer.take()
    peer.give(10, 1)
    assert peer.conn.acked == 1


def test_the_window_opens_when_the_application_consumes():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10_000))
    peer.give(0, data=bytes(10_000), segments=7)
    assert [(s.ack, s.window) for s in peer.take()] == [(10_000, 0)]
    peer.conn.consume(100)
    assert peer.take() == []
    peer.conn.consume(MSS + 12 - 100)
    assert [(s.ack, s.window) for s in peer.take()] == [(10_000, MSS + 12)]


def test_a_large_window_is_not_updated_for_a_little_more():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=60_000))
    peer.give(0, data=bytes(10_000), segments=7)
    peer.take()
    peer.conn.consume(10_000)
    assert peer.take() == []
    peer.give(10_000, data=bytes(2000), segments=2)
    peer.conn.consume(2000)
    assert [(s.ack, s.window) for s in peer.take()] == [(12_000, 60_000)]


def test_the_right_edge_stays_when_the_scale_does_not_divide_it():
    """But for less than a unit of the field (RFC 7323, 2.4), and what was offered is taken."""
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=1000, rcv_wscale=7), rcv_wnd=1000)
    edge = 1000
    for at in range(0, 900, 3):
        peer.give(at, data=b"abc", segments=2)
        (ack,) = peer.take()
        assert ack.ack + (ack.window << 7) > edge - 128
        edge = max(edge, ack.ack + (ack.window << 7))
    peer.read()
    peer.give(900, data=bytes(edge - 900), segments=2)
    assert peer.take()[0].ack == edge


@pytest.mark.parametrize("scale", [0, 7, 11, 14])
@pytest.mark.parametrize("size", [1, 100, 1448])
def test_nobody_reads_and_the_window_closes(scale, size):
    """Whatever the scale, a peer that never sends beyond what it was offered comes to an end."""
    window = 3 << scale if scale > 9 else 3000
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=window, rcv_wscale=scale), rcv_wnd=window)
    at, edge = 0, window
    while at < edge:
        count = min(size, edge - at)
        peer.give(at, data=bytes(count), segments=2)
        at += count
        for ack in peer.take():
            edge = max(edge, ack.ack + (ack.window << scale))
        assert edge < window + (1 << scale)
    assert len(peer.read()) == at
    assert ack.window == 0


def test_undelivered_bytes_of_the_hand_over_count_until_consumed():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=60_000), rcv_wnd=20_000, undelivered=40_000)
    peer.give(0, data=b"ab", segments=2)
    assert peer.take()[0].window == 19_998
    peer.conn.consume(40_002)
    assert peer.take()[0].window == 60_000


def test_a_larger_receive_window_is_told_at_once():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10_000))
    peer.conn.set_initial_rcv_wnd(50_000)
    peer.take()
    peer.conn.set_initial_rcv_wnd(60_000)
    assert [s.window for s in peer.take()] == [60_000]
    peer.conn.set_initial_rcv_wnd(1000)
    assert peer.take() == []
    peer.give(0, data=b"ab", segments=2)
    assert peer.take()[0].window == 59_998


def test_flush_ack_gives_the_delayed_acknowledgement_once():
    peer = Peer(PLAIN)
    assert peer.conn.flush_ack(0) is None
    peer.give(0, data=b"a")
    assert peer.conn.flush_ack(0).ack == peer.irs + 1
    assert peer.conn.flush_ack(0) is None and peer.take() == []


# Windows that have grown by little.


def little_more_window(sws_us):
    """A closed window, and 100 bytes of room that nobody has been told of."""
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=2000, sws_prevention_us=sws_us), rcv_wnd=2000)
    peer.give(0, data=bytes(2000), segments=2)
    assert [s.window for s in peer.take()] == [0]
    peer.conn.consume(100)
    return peer


def test_the_news_of_a_little_more_window_waits_for_as_long_as_configured():
    peer = little_more_window(75_000)
    assert peer.take() == [] and peer.conn.poll_at() == 75_000
    assert [(s.ack, s.window) for s in peer.wait()] == [(2000, 100)]
    assert peer.take() == [] and peer.conn.poll_at() == NEVER


def test_room_that_no_field_can_tell_is_no_news():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=66_000, sws_prevention_us=75_000), rcv_wnd=65_535)
    assert peer.take() == [] and peer.conn.poll_at() == NEVER


def test_without_that_time_it_waits_for_more():
    peer = little_more_window(0)
    assert peer.take() == [] and peer.conn.poll_at() == NEVER
    peer.conn.consume(1900)
    assert [s.window for s in peer.take()] == [2000]


def test_news_that_has_gone_out_otherwise_is_not_repeated():
    peer = little_more_window(75_000)
    assert peer.take() == []
    peer.conn.consume(1900)
    assert [s.window for s in peer.take()] == [2000]
    assert peer.take() == [] and peer.conn.poll_at() == NEVER


# Trains: one segment whose payload lies in several places


def in_parts(peer, seq, *parts, flags=ACK):
    """The peer's segments, given as one."""
    segment = peer.segment(seq, flags=flags, segments=len(parts))
    segment.payload_parts = [memoryview(part) for part in parts]
    segment.payload_length = sum(map(len, parts))
    peer.conn.process(segment, peer.now)


def test_a_train_in_order_is_taken_as_it_lies():
    peer = Peer(PLAIN)
    in_parts(peer, 0, b"ab", b"cd", b"e", flags=ACK | PSH)
    assert [(bytes(view), push) for view, push in peer.conn.received] == [(b"ab", False), (b"cd", False), (b"e", True)]
    assert [sent.ack for sent in peer.take()] == [5] and peer.conn.stats.data_segments_in == 3


@pytest.mark.parametrize("window", [4, 6])
def test_of_a_train_only_what_is_in_the_window_is_taken(window):
    peer = Peer(dataclasses.replace(PLAIN, initial_rcv_wnd=window))
    peer.give(0, data=b"x")
    in_parts(peer, 1, b"ab", b"cd", b"ef")
    assert peer.read() == b"xabcdef"[:window]


def test_a_train_behind_a_hole_and_one_that_came_before():
    peer = Peer(PLAIN)
    in_parts(peer, 2, b"cd", b"ef")
    assert peer.read() == b"" and [sent.sack for sent in peer.take()] == [[(2, 6)]]
    in_parts(peer, 0, b"a", b"bc", b"d")
    assert peer.read() == b"abcdef"
    in_parts(peer, 4, b"ef", b"gh")
    assert peer.read() == b"gh"


def test_a_train_with_a_fin_or_beyond_one():
    peer = Peer(PLAIN)
    in_parts(peer, 0, b"a", b"b", flags=ACK | FIN)
    assert peer.read() == b"ab" and peer.conn.fin_received
    peer = Peer(PLAIN)
    peer.give(3, flags=ACK | FIN)
    in_parts(peer, 0, b"ab", b"cd")
    assert peer.read() == b"abc" and peer.conn.fin_received


def test_what_may_lead_a_train():
    peer = Peer(PLAIN)
    assert peer.conn.is_plain(peer.segment(0, data=b"a"))
    for other in ({"seq": 1}, {"data": b""}, {"flags": ACK | PSH}, {"flags": ACK | FIN}, {"sack": [(1, 2)]}):
        assert not peer.conn.is_plain(peer.segment(**{"data": b"a", **other}))
    peer.give(5, data=b"f")
    assert not peer.conn.is_plain(peer.segment(0, data=b"a"))
    peer = Peer(PLAIN)
    peer.give(0, flags=ACK | FIN)
    assert not peer.conn.is_plain(peer.segment(1, data=b"a"))


def test_what_is_in_the_window_is_kept_however_many_holes_there_are():
    """A peer that has filled a large window, and of which a router has lost every second segment."""
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=1 << 20, rcv_wscale=8))
    full = 1 << 10
    for start in range(full, 1 << 20, 2 * full):
        peer.give(start, data=bytes(full))
    peer.take()
    assert peer.conn.stats.reassembly_drops == 0
    # The latest one first, whichever it was.
    peer.give(3 * full, data=bytes(full))
    [answer] = peer.take()
    end = 1 << 20
    assert answer.sack[1:] == [(3 * full, 4 * full), (end - full, end), (end - 3 * full, end - 2 * full)]
    for start in range(0, 1 << 20, 2 * full):
        peer.give(start, data=bytes(full))
    assert len(peer.read()) == 1 << 20


def test_no_more_pieces_are_kept_than_segments_fit_into_the_window_there_is():
    """However large it may become; a peer of single bytes with holes of single bytes between them."""
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=1 << 16, max_rcv_wnd=1 << 30, rcv_wscale=14))
    for start in range(1, 4000, 2):
        peer.give(start, data=b"x")
    assert peer.conn.stats.reassembly_drops == 2000 - 256
    peer.conn.set_initial_rcv_wnd(1 << 22)
    for start in range(1, 4000, 2):
        peer.give(start, data=b"x")
    assert len(peer.take()[-1].sack) > 0
    assert peer.conn.stats.reassembly_drops == 2000 - 256


def test_of_a_train_that_exceeds_the_window_no_more_is_taken_than_of_its_segments():
    taken = []
    for together in (True, False):
        peer = Peer(dataclasses.replace(PLAIN, initial_rcv_wnd=250))
        if together:
            train = peer.segment(0, data=bytes(100))
            train.payload = memoryview(b"")
            train.payload_parts = [memoryview(bytes(100))] * 60
            train.payload_length, train.segments = 6000, 60
            peer.conn.process(train, peer.now)
        else:
            for start in range(0, 6000, 100):
                peer.give(start, data=bytes(100))
        taken.append(len(peer.read()))
    assert taken == [250, 250]


def test_a_window_smaller_than_the_unit_of_its_field_opens_again():
    peer = Peer(dataclasses.replace(PLAIN, initial_rcv_wnd=3000, rcv_wscale=12), rcv_wnd=3000)
    peer.give(0, data=bytes(3000), segments=2)
    assert [s.window for s in peer.take()] == [0]
    peer.read()
    peer.conn.consume(3000)
    assert [s.window for s in peer.take()] == [1]


def test_a_closed_window_that_is_taken_over_with_room_is_opened():
    """Who had it before may have given the data to the application without a word to the peer."""
    peer = Peer(PLAIN, rcv_wnd=0)
    assert [s.window for s in peer.take()] == [64_000]
    assert Peer(PLAIN, rcv_wnd=0, state=State.CLOSE_WAIT).take() == []
    assert Peer(PLAIN, rcv_wnd=10_000).take() == Peer(PLAIN, rcv_wnd=0, undelivered=64_000).take() == []
