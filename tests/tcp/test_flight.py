"""The records of a flight against a model that has one entry for each byte."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        real.told.begin(0, real.highest)
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
        real.told.begin(0, real.highest)
        real.cover(n * MSS, (n + 1) * MSS, 2)
    assert real.ranges == 1 and real.sacked_packets == 998 and real.packets == 1000


def test_ranges_are_bounded():
    real = flight(4)
    real.add(1000 * MSS, MSS, 1000, 1, False)
    for n in range(1, 100, 2):
        real.cover(n * MSS, (n + 1) * MSS, 2)
    assert real.ranges == 4 and real.sacked == 4 * MSS


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
