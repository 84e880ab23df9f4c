"""When a target may send again: what has been acknowledged for sure, and what the host has told it of the way."""

import struct

import pytest

from chimney.conformance.wire import TIMESTAMPS
from chimney.conformance.world import MACS, World
from chimney.link.memory import Clock
from chimney.ndis.status import TcpConstFlags
from chimney.target import TargetConfig
from chimney.verifier import Verifier

SECONDS = 1_000_000


@pytest.fixture
def world():
    clock = Clock(1_000_000)
    return World(clock=clock, observer=Verifier(clock), config=TargetConfig(max_retransmissions=4))


@pytest.fixture
def end(world):
    """One end, whose peer is the test: without SACK, and with a time-out of four seconds."""
    end, _ = world.ends()
    end.const.flags = TcpConstFlags.WINDOW_SCALING_ENABLED
    end.delegated.s_rtt, end.delegated.rtt_var = 8 * 2000, 4 * 500
    end.initiate()
    return end


def found_neighbor(world, end):
    end.update_neighbor(MACS[1], 0)


def other_neighbor(world, end):
    other, _ = world.ends(2000)
    other.initiate()
    end.relink(other)


def frames(world):
    return len(world.wire)


# The way


@pytest.mark.parametrize("news", [found_neighbor, other_neighbor])
def test_whose_way_is_another_one_may_probe_a_closed_window_at_once(world, end, news):
    end.send(bytes(1000))
    end.arrives(0, window=0, push=False)
    world.run(duration=9 * SECONDS)
    before = frames(world)
    news(world, end)
    world.run(duration=SECONDS)
    assert frames(world) > before
    world.run(duration=10 * SECONDS)
    assert not world.observer.counts


def test_probes_that_were_sent_since_the_way_is_another_one_need_not_count(world, end):
    end.send(bytes(1000))
    end.arrives(0, window=0, push=False)
    for _ in range(8):
        world.run(duration=9 * SECONDS)
        found_neighbor(world, end)
    assert frames(world) > 8
    assert not world.observer.counts


def test_nor_need_retransmissions(world, end):
    end.send(bytes(1000))
    for _ in range(8):
        world.run(duration=9 * SECONDS)
        found_neighbor(world, end)
    assert frames(world) > 8
    assert not world.observer.counts


# What is acknowledged


def dropped_acknowledgement(end, options=b""):
    """The peer's old segment acknowledges one of ours, and the target drops it: it begins and ends before RCV.NXT."""
    end.arrives(0, bytes(200), push=False, options=options)
    end.send(bytes(12_000))
    end.arrives(0, bytes(100), ack=1460, push=False, options=options)
    assert end.offloaded.engine.acked == 0


def test_an_acknowledgement_that_was_dropped_makes_the_next_one_no_duplicate(world, end):
    dropped_acknowledgement(end)
    for _ in range(3):
        end.arrives(200, ack=1460, push=False)
    world.run(duration=SECONDS)
    assert not world.observer.counts


def test_who_has_sent_again_what_a_dropped_acknowledgement_covers_is_in_recovery(world):
    """The next one proves that it was in vain (RFC 3522), and no fast retransmission follows (RFC 6582, 4)."""
    end, _ = world.ends()
    end.const.flags = TcpConstFlags.WINDOW_SCALING_ENABLED | TcpConstFlags.TIMESTAMP_ENABLED
    end.initiate()
    stamps = struct.pack("!BBII", TIMESTAMPS, 10, end.delegated.ts_recent, end.delegated.ts_time)
    dropped_acknowledgement(end, stamps)
    world.run(duration=SECONDS)
    for _ in range(4):
        end.arrives(200, ack=1460, push=False, options=stamps)
    world.run(duration=150_000)
    assert end.offloaded.engine.stats.retransmitted_segments == 1
    assert not world.observer.counts
