"""The classic bugs of new TCPs, and what attackers made of them: what is read, kept and answered.

The classes are those that became known as AMNESIA:33, Ripple20, URGENT/11, NUMBER:JACK, SACK Panic, SegmentSmack and
by TCP-Fuzz. What has an attack in volume is measured: in elements kept, and on the pure build in lines executed. Those
that concern what is sent are in test_attacks_on_the_sender.py, those on frames in tests/target/test_frame_attacks.py.
"""

import struct

import pytest
from attack_tools import DAY, PLAIN, bounded, data, fragments, raw, still_works
from tcp_harness import MASK, Impairments, Pair, Peer, wire_bytes

from chimney.tcp import (
    ACK,
    FIN,
    NEVER,
    PSH,
    RST,
    SYN,
    UNLIMITED,
    URG,
    Config,
    Event,
    Segment,
    State,
    parse_segment,
)
from chimney.tcp.options import parse_options
from fuzz.work import Work, kept

# 1. Option lists and data offsets

SACK_OF_ONE = bytes([5, 10]) + struct.pack("!II", 1, 2)
STAMP = bytes([8, 10]) + struct.pack("!II", 7, 8)


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 8, 19, 30, 253, 255])
@pytest.mark.parametrize("length", [0, 1, 38, 41, 255])
def test_an_option_of_an_impossible_length_ends_the_list(kind, length):
    peer = Peer(PLAIN)
    options = bytes([1, kind, length]) + STAMP
    segment = parse_segment(raw(peer, options, b"abc"))
    assert not segment.has_timestamp and segment.sack_blocks == []
    peer.conn.process(segment, 0)
    assert peer.read() == b"abc"


@pytest.mark.parametrize("length", [2, 3, 4, 9, 11, 12])
def test_a_timestamp_of_a_wrong_length_is_none_and_what_follows_counts(length):
    found = parse_options(bytes([8, length]) + bytes(length - 2) + SACK_OF_ONE)
    assert not found.has_timestamp and found.sack_blocks == [(1, 2)]


@pytest.mark.parametrize("length", [2, 3, 9, 11, 17])
def test_sack_blocks_that_are_not_whole_are_none(length):
    found = parse_options(bytes([5, length]) + bytes(length - 2) + STAMP)
    assert found.sack_blocks == [] and (found.ts_val, found.ts_ecr) == (7, 8)


def test_of_an_option_that_comes_twice_the_first_counts():
    again = bytes([8, 10]) + struct.pack("!II", 70, 80)
    found = parse_options(STAMP + again + SACK_OF_ONE + bytes([5, 10]) + struct.pack("!II", 3, 4))
    assert (found.ts_val, found.ts_ecr, found.sack_blocks) == (7, 8, [(1, 2)])


def test_a_list_without_an_end_and_one_cut_off_anywhere():
    whole = b"\1\1" + STAMP + b"\1\1" + SACK_OF_ONE
    for size in range(len(whole) + 1):
        found = parse_options(whole[:size])
        assert found.has_timestamp == (size >= 12) and found.sack_blocks == ([(1, 2)] if size >= 24 else [])


@pytest.mark.parametrize("offset", [0, 1, 4, 7, 8, 15])
def test_a_data_offset_before_or_behind_the_segment_is_no_segment(offset):
    peer = Peer(PLAIN)
    assert parse_segment(raw(peer, payload=b"abcd", offset=offset)) is None


@pytest.mark.parametrize("size", range(33))
def test_a_segment_cut_off_anywhere_is_read_as_far_as_its_header_is_whole(size):
    peer = Peer(PLAIN)
    segment = parse_segment(raw(peer, STAMP)[:size])
    assert (segment is not None) == (size == 32)


# 4. Urgent data


@pytest.mark.parametrize("urgent", [0, 1, 2, 3, 4, 65_535])
@pytest.mark.parametrize("payload", [b"", b"abc"])
def test_urgent_data_is_the_hosts_wherever_the_pointer_points(urgent, payload):
    peer = Peer(PLAIN)
    before = peer.conn.export(0)
    peer.conn.process(parse_segment(raw(peer, payload=payload, flags=ACK | URG, urgent=urgent)), 0)
    assert peer.conn.events == [Event.URGENT] and peer.conn.stopped and peer.read() == b""
    assert peer.conn.export(0) == before and peer.take() == []
    peer.give(0, 0, b"more")
    assert peer.read() == b""


@pytest.mark.parametrize("urgent", [1, 3, 65_535])
def test_a_pointer_without_the_flag_means_nothing(urgent):
    peer = Peer(PLAIN)
    peer.conn.process(parse_segment(raw(peer, payload=b"abc", urgent=urgent)), 0)
    assert peer.read() == b"abc" and not peer.conn.stopped


# 6. Sequence numbers at their limits

LIMITS = [0, 1, 2**31 - 1, 2**31, 2**31 + 1, MASK - 1, MASK]


@pytest.mark.parametrize("irs", LIMITS)
@pytest.mark.parametrize("iss", LIMITS)
def test_a_connection_at_any_numbers(irs, iss):
    peer = Peer(PLAIN, iss=iss, irs=irs)
    peer.conn.send(memoryview(data(5000)))
    assert sum(s.length for s in peer.take()) == 5000
    peer.give(0, 0, data(1460))
    peer.give(2920, 1460, data(1460, 2920))
    peer.give(1460, 5000, data(1460, 1460))
    assert peer.read() == data(4380) and peer.conn.acked == 5000
    assert peer.take()[-1].ack == 4380


@pytest.mark.parametrize("away", [2**31 - 1, 2**31, 2**31 + 1, 1 << 30, 3 << 30, 70_000, -70_000])
def test_numbers_half_the_world_away_are_outside(away):
    peer = Peer(PLAIN)
    peer.give(away, 0, b"x")
    assert peer.read() == b"" and peer.conn.stats.unacceptable == 1
    peer.give(0, away, b"x")
    assert peer.read() == b"" and peer.conn.stats.bad_acks == 1
    peer.take()
    still_works(peer)


def test_a_window_of_a_gibibyte_has_its_edge_where_it_should():
    peer = Peer(Config(timestamps=False, rcv_wscale=14, initial_rcv_wnd=65_535 << 14), irs=2**31 - 5)
    edge = 65_535 << 14
    for at in (edge - 1, edge // 2, 1):
        peer.give(at, 0, b"x")
    # All three are kept: the window reaches that far.
    assert peer.conn.stats.unacceptable == 0
    peer.give(edge, 0, b"x")
    assert peer.conn.stats.unacceptable == 1
    peer.take()
    still_works(peer)


def test_nothing_at_the_edge_but_an_acknowledgement():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(data(100)))
    peer.take()
    peer.give(65_535, 100)
    assert peer.conn.acked == 100
    for flags, payload in ((ACK, b"x"), (ACK | FIN, b""), (RST, b""), (SYN, b"")):
        peer.give(65_535, 100, payload, flags)
    assert peer.conn.state == State.ESTABLISHED and peer.conn.events == []
    still_works(peer, 0, 100)


@pytest.mark.parametrize("beyond", [1, 1000])
def test_a_fin_beyond_the_window_is_not_taken_while_the_data_before_it_is(beyond):
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=3000))
    peer.give(0, 0, data(2000))
    peer.give(2000, 0, data(1000 + beyond, 2000), ACK | FIN)
    assert peer.read() == data(3000) and peer.conn.events == []
    peer.conn.consume(3000)
    peer.take()
    peer.give(3000, 0, data(beyond, 3000), ACK | FIN)
    assert peer.read() == data(beyond, 3000) and peer.conn.events == [Event.FIN_RECEIVED]


@pytest.mark.parametrize("offset", [-1, 1, 1000, 65_534, 65_535, 65_536, 2**31])
@pytest.mark.parametrize("flags", [RST, RST | ACK, SYN, SYN | ACK, SYN | FIN, RST | FIN])
def test_who_has_to_guess_the_number_does_not_end_the_connection(offset, flags):
    """RFC 5961, 3 and 4: only RCV.NXT itself counts; and the challenge tells nothing but what is known anyway."""
    peer = Peer(PLAIN)
    for n in range(50):
        peer.give(offset, n, b"", flags)
    assert peer.conn.state == State.ESTABLISHED and peer.conn.events == []
    assert all((s.ack, s.length, s.rst) == (0, 0, False) for s in peer.take())
    still_works(peer)


# 8. Reassembly


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
@pytest.mark.parametrize("sack", [False, True])
def test_thousands_of_tiny_holes_cost_little(order, sack):
    """FreeBSD's SegmentSmack (CVE-2018-6922), and what is kept is bounded; the stream goes on all the same."""
    config = Config(timestamps=False, sack=sack, rcv_wscale=7, initial_rcv_wnd=1 << 22, max_rt_us=UNLIMITED)
    peer = Peer(config)
    work, most = Work(), 0
    for place in fragments(order, 2_000):
        segment = peer.segment(place, 0, b"x")
        before = work.lines
        with work:
            peer.conn.process(segment, peer.now)
            peer.take()
        most = max(most, work.lines - before)
    bounded(peer, 30_000)
    assert most <= 20_000 and work.lines <= 2_000 * 1_500
    with work:
        for at in range(0, 4_000, 500):
            before = work.lines
            peer.give(at, 0, data(500, at))
            peer.take()
            assert work.lines - before <= 300_000
    read = peer.read()
    assert len(read) == 4_000 and {i for i in range(4_000) if read[i] != data(4_000)[i]} <= set(range(1, 4_000, 2))


def test_small_pieces_that_touch_are_bounded_too():
    """One block, but as many pieces as bytes."""
    config = Config(timestamps=False, rcv_wscale=7, initial_rcv_wnd=1 << 20)
    peer = Peer(config)
    for at in range(1, 10_000):
        peer.give(at, 0, b"x")
        if at % 64 == 0:
            peer.take()
    bounded(peer, 30_000)
    peer.give(0, 0, data(10_000))
    assert len(peer.read()) == 10_000


def test_memory_for_what_is_out_of_order_is_bounded_by_the_window():
    peer = Peer(Config(timestamps=False, initial_rcv_wnd=10_000))
    for at in range(1, 200_000, 700):
        peer.give(at, 0, data(1400))
    assert kept(peer.conn.receiver.reassembly)[1] <= 10_000
    bounded(peer, 1_000)


@pytest.mark.parametrize("first", [True, False])
def test_of_bytes_that_come_twice_and_differ_one_consistent_stream_is_delivered(first):
    """What is in sequence counts; of what is not, the copy that came first. What was delivered does not change."""
    peer = Peer(PLAIN)
    pieces = [(10, b"B" * 10), (5, b"C" * 10), (15, b"D" * 10), (0, b"A" * 12), (2, b"E" * 30)]
    for at, piece in pieces if first else reversed(pieces):
        peer.give(at, 0, piece)
    read = peer.read()
    assert len(read) == 32
    assert read == (b"A" * 12 + b"B" * 8 + b"D" * 5 + b"E" * 7 if first else b"A" * 12 + b"E" * 20)
    peer.take()
    peer.give(0, 0, b"Z" * 32)
    assert peer.read() == b"" and peer.take()[-1].ack == 32


def test_a_fin_that_comes_twice_is_one():
    peer = Peer(PLAIN)
    peer.give(0, 0, b"abc", ACK | FIN)
    assert peer.conn.state == State.CLOSE_WAIT
    for _ in range(100):
        peer.give(0, 0, b"abc", ACK | FIN)
        peer.give(3, 0, b"", ACK | FIN)
        peer.give(4, 0, b"", ACK | FIN)
    assert peer.read() == b"abc" and peer.conn.events == [Event.FIN_RECEIVED]
    assert {s.ack for s in peer.take()} == {4} and peer.conn.state == State.CLOSE_WAIT


@pytest.mark.parametrize("again", [0, 10, 100, 199, 250])
def test_of_fins_in_different_places_one_counts(again):
    peer = Peer(PLAIN)
    peer.give(200, 0, b"", ACK | FIN)
    peer.give(again, 0, b"", ACK | FIN)
    peer.take()
    peer.give(0, 0, data(200))
    assert peer.conn.events == [Event.FIN_RECEIVED] and peer.read() == data(200)[: peer.take()[-1].ack - 1]


@pytest.mark.parametrize("beyond", [(60, 40), (30, 40), (50, 1), (49, 2), (20, 100)])
@pytest.mark.parametrize("fin_first", [True, False])
def test_a_fin_in_a_hole_below_what_is_kept_ends_the_stream(beyond, fin_first):
    """The peer contradicts itself; the stream ends at the FIN, and the connection goes on to its end."""
    peer = Peer(PLAIN)
    start, length = beyond
    steps = [(50, b"", ACK | FIN), (start, data(length, start), ACK)]
    for at, payload, flags in steps if fin_first else reversed(steps):
        peer.give(at, 0, payload, flags)
    peer.take()
    peer.give(0, 0, data(50))
    assert peer.read() == data(50) and peer.conn.events == [Event.FIN_RECEIVED]
    assert peer.take()[-1].ack == 51 and peer.conn.state == State.CLOSE_WAIT


# 9. Numbers that must not be predictable


def test_a_hand_over_mints_nothing_new():
    """Sequence numbers and timestamps go on from where they were."""
    pair = Pair(a=data(3000), b=data(3000), iss=(MASK - 100, 77), impairments=Impairments(delay=500))
    pair.run(lambda: pair.a.conn.acked > 0)
    for end in (pair.a, pair.b):
        before = end.conn.export(pair.now)
        end.hand_over(pair.now)
        after = end.conn.export(pair.now)
        assert (after.snd_una, after.snd_max, after.rcv_nxt) == (before.snd_una, before.snd_max, before.rcv_nxt)
        assert after.ts_time == before.ts_time and after.ts_recent == before.ts_recent


# 10. Storms


@pytest.mark.parametrize("state", [State.ESTABLISHED, State.FIN_WAIT_1, State.CLOSE_WAIT, State.LAST_ACK])
@pytest.mark.parametrize("offset", [-1, 0, 1, 70_000])
def test_no_reset_is_answered_by_a_reset(state, offset):
    fin = int(state in (State.FIN_WAIT_1, State.LAST_ACK))
    peer = Peer(PLAIN, state=state, snd_nxt=fin, snd_max=fin)
    peer.take()
    for flags in (RST, RST | ACK):
        peer.give(offset, 0, b"", flags)
        assert not any(s.rst for s in peer.take())


def test_after_a_reset_nothing_is_answered():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(data(100_000)))
    peer.take()
    peer.give(0, 0, b"", RST)
    assert peer.conn.events == [Event.RESET] and peer.conn.state == State.CLOSED
    for flags in (ACK, RST, SYN, ACK | FIN, ACK | PSH):
        peer.give(0, 0, b"x", flags)
    assert peer.take() == [] and peer.conn.poll_at() == NEVER and peer.conn.events == [Event.RESET]


STORMS = {
    "acknowledgements of the future": lambda peer, n: peer.give(0, 10_000 + n),
    "acknowledgements of the far past": lambda peer, n: peer.give(0, -100_000 - n),
    "old acknowledgements": lambda peer, n: peer.give(-1 - n, 0),
    "beyond the window": lambda peer, n: peer.give(70_000 + n, 0),
    "resets": lambda peer, n: peer.give(1 + n, 0, b"", RST),
    "openings": lambda peer, n: peer.give(1 + n, 0, b"", SYN),
    "everything": lambda peer, n: list(STORMS.values())[n % 6](peer, n) if n % 7 else None,
}


@pytest.mark.parametrize("storm", STORMS)
def test_what_answers_a_storm_is_limited(storm):
    """RFC 5961, 5 and 7: at most ten a second of each kind, whatever arrives; and nothing is remembered of it."""
    peer = Peer(PLAIN)
    answers = 0
    for n in range(5_000):
        STORMS[storm](peer, n)
        answers += len(peer.take())
        peer.now += 1_000
    assert answers <= 6 * 31
    bounded(peer, 100)
    peer.read()
    assert peer.conn.state == State.ESTABLISHED
    peer.give(0, 0, b"still here")
    assert peer.read() == b"still here"


def test_two_ends_that_disagree_do_not_answer_each_other_for_ever():
    """Both have lost their way, by a middlebox or a bug: each finds all that the other says unacceptable."""
    pair = Pair(iss=(1000, 2_000_000), impairments=Impairments(delay=100), config=Config(timestamps=False))
    pair.b.conn.receiver.window.base_seq = 900_000_000
    pair.b.check = pair.a.check = lambda segment: None
    segment = Segment()
    segment.seq, segment.ack, segment.flags, segment.window = 1000, 2_000_000, ACK, 100
    parsed = parse_segment(memoryview(wire_bytes(segment)))
    pair.b.conn.process(parsed, pair.now)
    pair.run(lambda: False or pair.now > 11_000_000 or pair.count > 1_000 or not pair.step())
    assert pair.count <= 250


# 14. Ends that take long


@pytest.mark.parametrize("state", [State.FIN_WAIT_2, State.CLOSE_WAIT])
def test_half_closed_for_a_month(state):
    """Nothing ends such a connection but the application, or a limit that somebody has set."""
    pair = Pair(a=data(2_000), b=data(2_000), config=Config(fin_wait_2_us=0), impairments=Impairments(delay=100))
    closing, open_end = pair.ends()[0]
    if state == State.CLOSE_WAIT:
        closing, open_end = open_end, closing
    closing.close_wanted = True
    pair.run(lambda: closing.conn.state == State.FIN_WAIT_2 and pair.delivered())
    closing.check = open_end.check = lambda segment: None
    for _ in range(4):
        pair.now += 8 * DAY
        open_end.outgoing += data(3_000)
        pair.transfer()
        assert (closing.conn.state, open_end.conn.state) == (State.FIN_WAIT_2, State.CLOSE_WAIT)
    open_end.close_wanted = True
    pair.run(lambda: closing.finished() and open_end.finished())


def test_an_opening_in_time_wait_ends_nothing():
    """Whether it may begin a new connection is the host's question, who sees it first (RFC 9293, 3.10.7.4)."""
    peer = Peer(PLAIN, state=State.FIN_WAIT_2)
    peer.give(0, 0, b"", ACK | FIN)
    assert peer.conn.state == State.TIME_WAIT
    peer.take()
    for offset in (0, 1, 2, 70_000, -5):
        peer.give(offset, 0, b"", SYN)
        assert not any(s.rst or s.fin for s in peer.take())
    assert peer.conn.state == State.TIME_WAIT


def test_data_after_our_close_and_after_theirs():
    """Data after the peer's FIN is none; data after ours is taken to its end."""
    peer = Peer(PLAIN)
    peer.conn.close()
    assert peer.take()[0].fin
    peer.give(0, 1, data(100))
    assert peer.read() == data(100)
    peer.give(100, 1, b"", ACK | FIN)
    peer.give(101, 1, b"late")
    assert peer.read() == b"" and peer.conn.state == State.TIME_WAIT


# 15. Hand-overs (the others are in test_hand_over.py)


@pytest.mark.parametrize("step", range(1, 12))
def test_a_pending_acknowledgement_is_not_lost_in_a_hand_over(step):
    """Every segment is followed by a hand-over after a while; the sender must not have to time out."""
    pair = Pair(a=data(30_000), impairments=Impairments(delay=1_000))
    count = 0

    def until():
        nonlocal count
        count += 1
        if count % step == 0:
            owed = pair.b.hand_over(pair.now)
            if owed is not None:
                pair.transmit(pair.b, pair.a, owed)
        return pair.delivered()

    pair.run(until)
    assert bytes(pair.b.received) == data(30_000) and pair.a.conn.stats.timeouts == 0
