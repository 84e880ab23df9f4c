"""The records of a flight against a model that has one entry for each byte."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recovery_harness import FULL, RTT, ack, engine

from chimney.tcp import Config
from chimney.tcp.flight import Flight
from chimney.tcp.rack import Rack
from chimney.tcp.rtt import RttEstimator

MSS = 4


class Model:
    """Bytes by position: what has happened to each."""

    def __init__(self):
        self.una = self.end = 0
        self.sacked, self.lost, self.repeated = set(), set(), set()

    def drop(self, una):
        self.una = una
        for kept in (self.sacked, self.lost, self.repeated):
            kept -= set(range(una))


def flight(max_ranges=1000):
    return Flight(max_ranges, Rack(RttEstimator(1000, 0, 200_000, 120_000_000)))


def check(real, model):
    assert (real.una, real.end) == (model.una, model.end)
    assert real.sacked == len(model.sacked) and real.lost == len(model.lost) and real.repeated == len(model.repeated)
    assert real.pending == len(model.lost - model.repeated)
    assert real.in_flight() == model.end - model.una - len(model.sacked) - len(model.lost) + len(model.repeated)
    assert real.highest == max(model.sacked, default=-2) + 1
    record = real.next_lost()
    waiting = model.lost - model.repeated
    assert (record.start if record else None) == (min(waiting) if waiting else None)
    times, record = [], real.oldest
    while record is not None:
        times.append((record.sent, record.start, record.end))
        assert not record.is_sacked and (not record.is_lost or record.is_repeated)
        record = record.newer
    assert [t[0] for t in times] == sorted(t[0] for t in times)
    listed = {i for _, start, end in times for i in range(start, end)}
    assert listed == set(range(model.una, model.end)) - model.sacked - waiting


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_totals_agree_with_a_model(seed):
    rng = random.Random(seed)
    real, model = flight(), Model()
    for now in range(1, 60):
        real.begin(0)
        step = rng.randrange(8)
        if step < 3:
            segments = rng.randint(1, 5)
            model.end += segments * MSS
            real.add(model.end, MSS, segments, now, False)
        elif step == 3 and model.end > model.una:
            una = rng.randint(model.una, model.end)
            fresh = len(set(range(model.una, una)) - model.sacked)
            real.acknowledge(una, now)
            assert real.told.delivered == fresh
            model.drop(una)
        elif step == 4 and real.una % MSS == 0:
            start = rng.randrange(model.una, model.end + 1, MSS)
            end = min(start + MSS * rng.randint(1, 4), model.end)
            if start > model.una and start < end:
                real.cover(start, end, now)
                span = set(range(start, end))
                model.sacked |= span
                model.lost -= span
                model.repeated -= span
        elif step == 5 and real.oldest is not None:
            record = real.oldest
            span = set(range(record.start, record.end))
            real.mark_lost(record)
            model.lost |= span
            model.repeated -= span
        elif step == 6:
            record = real.next_lost()
            if record is not None:
                end = min(record.end, record.start + MSS * rng.randint(1, 3))
                span = set(range(record.start, end))
                real.repeat(record, end, MSS, now, now)
                model.repeated |= span
        elif step == 7 and rng.random() < 0.3:
            real.find_again()
            model.lost.clear()
        if real.una % MSS:
            # The model does not know where segments begin any more.
            real.acknowledge(model.end, now)
            model.drop(model.end)
        check(real, model)


def test_covered_neighbours_become_one_record_however_they_come():
    real = flight()
    real.add(1000 * MSS, MSS, 1000, 1, False)
    order = list(range(1, 999))
    random.Random(1).shuffle(order)
    for n in order:
        real.begin(0)
        real.cover(n * MSS, (n + 1) * MSS, 2)
    assert real.ranges == 1 and real.sacked_packets == 998 and real.packets == 1000


def test_ranges_are_bounded():
    real = flight(4)
    real.add(1000 * MSS, MSS, 1000, 1, False)
    for n in range(1, 100, 2):
        real.cover(n * MSS, (n + 1) * MSS, 2)
    assert real.ranges == 4 and real.sacked == 4 * MSS


def test_where_no_more_ranges_are_kept_those_that_are_known_still_grow():
    real = flight(2)
    real.add(20 * MSS, MSS, 20, 1, False)
    for first, last in ((3, 4), (7, 8), (12, 13)):
        real.cover(first * MSS, last * MSS, 2)
    assert real.ranges == 2 and real.sacked == 2 * MSS
    real.cover(4 * MSS, 5 * MSS, 3)
    real.cover(6 * MSS, 7 * MSS, 3)
    real.cover(7 * MSS, 9 * MSS, 3)
    assert real.ranges == 2 and real.sacked == 5 * MSS
    real.cover(5 * MSS, 6 * MSS, 4)
    assert real.ranges == 1 and real.sacked == 6 * MSS
    real.cover(12 * MSS, 13 * MSS, 5)
    assert real.ranges == 2 and real.sacked == 7 * MSS


@pytest.mark.parametrize(
    ("first", "last", "sacked"), [(2, 5, 4), (5, 9, 4), (6, 9, 4), (2, 9, 7), (2, 4, 1), (7, 9, 1)]
)
def test_a_block_of_several_trains_that_reaches_a_known_range_makes_no_new_one(first, last, sacked):
    """Trains of two segments each; segment 5 is covered."""
    real = flight(1)
    for now in range(1, 9):
        real.add(2 * now * MSS, MSS, 2, now, False)
    real.cover(5 * MSS, 6 * MSS, 9)
    real.cover(first * MSS, last * MSS, 9)
    assert real.ranges == 1 and real.sacked == sacked * MSS


def test_the_ranges_of_a_large_flight_with_every_second_segment_lost_are_kept():
    real = flight(Config().max_sack_blocks)
    for n in range(8000):
        real.add((n + 1) * MSS, MSS, 1, 1, False)
    for n in range(1, 8000, 2):
        real.cover(n * MSS, (n + 1) * MSS, 2)
    assert real.ranges == 4000 and real.sacked == 4000 * MSS


@pytest.mark.parametrize(
    ("length", "count", "start"),
    [
        (2 * MSS + 1, 3, 2 * MSS),
        (2 * MSS, 2, MSS),
        (MSS - 1, 1, 0),
        (MSS, 1, 0),
        (2 * MSS + 1, 2, MSS),
        (MSS + 1, 1, 0),
    ],
)
def test_the_tail_is_the_last_wire_segment(length, count, start):
    """A FIN is in no segment of its own: it may be one byte more than they take."""
    real = flight()
    real.add(length, MSS, count, 1, False)
    for _ in range(2):
        tail = real.tail(MSS)
        assert (tail.start, tail.end, tail.count) == (start, length, 1)
        assert real.packets == count


@pytest.mark.parametrize("riding", [0, 1])
def test_the_tail_is_no_longer_than_a_segment_is_now(riding):
    real = flight()
    real.add(2 * MSS + riding, MSS, 2, 1, False)
    tail = real.tail(MSS - 1)
    assert (tail.start, tail.end, tail.count) == (MSS + 1, 2 * MSS + riding, 1)


def test_a_fin_on_a_full_segment_does_not_become_a_segment_when_those_before_are_acknowledged():
    real = flight()
    real.add(3 * MSS + 1, MSS, 3, 1, False)
    real.acknowledge(MSS, 2)
    assert real.packets == 2
    tail = real.tail(MSS)
    assert (tail.start, tail.end) == (2 * MSS, 3 * MSS + 1)


def test_a_duplicate_of_a_probe_at_the_end_of_a_train_is_no_reordering():
    """The acknowledgement of a train was lost, not its last segment, which is a short one."""
    peer = engine(10, n_data=10, cwnd=100 * FULL)
    ack(peer, 10, at=RTT)
    assert peer.take() == []
    end = 12 * FULL + 100
    peer.conn.send(memoryview(bytes(end - 10 * FULL)))
    assert [(s.seq, s.length) for s in peer.take()] == [(10 * FULL, end - 10 * FULL)]
    assert [(s.seq, s.length) for s in peer.wait()] == [(12 * FULL, 100)]
    peer.now += RTT
    steps, cwnd = peer.conn.sender.rack.steps, peer.conn.cwnd
    peer.give(0, end, window=39062, sack=[(12 * FULL, end)])
    assert peer.conn.stats.tail_probes == 1
    assert peer.conn.sender.rack.steps == steps and peer.conn.cwnd >= cwnd


@pytest.mark.parametrize("sacked", [False, True])
def test_a_peer_that_hides_the_head_is_not_believed(sacked):
    real = flight()
    real.add(10 * MSS, MSS, 10, 1, False)
    real.cover(2 * MSS, 5 * MSS, 2)
    real.acknowledge(2 * MSS if sacked else MSS, 3)
    real.lose_all(10)
    assert real.sacked == (0 if sacked else 3 * MSS)
    assert real.pending == real.end - real.una - real.sacked


def test_what_the_peer_has_dropped_is_linked_in_the_order_of_time():
    real = flight()
    for now in range(1, 5):
        real.add(now * MSS, MSS, 1, now, False)
    real.cover(2 * MSS, 3 * MSS, 5)
    real.uncover()
    times, record = [], real.oldest
    while record is not None:
        times.append(record.sent)
        record = record.newer
    assert times == [1, 2, 3, 4]
