"""When a target must have learnt that a neighbor can be reached: not by what it may drop, or may have known before."""

import pytest

from chimney.conformance.world import World
from chimney.link.memory import Clock
from chimney.verifier import Verifier

SECONDS = 1_000_000


@pytest.fixture
def world():
    clock = Clock(1_000_000)
    return World(clock=clock, observer=Verifier(clock))


@pytest.fixture
def end(world):
    """One end, whose peer is the test; 100 bytes have arrived, and 50 have been sent."""
    end, _ = world.ends()
    end.initiate()
    end.arrives(0, bytes(100))
    end.send(bytes(50))
    world.run(duration=5 * SECONDS)
    return end


def found(world, end):
    """What the verifier finds when the target says when it had its last confirmation."""
    end.query(None, neighbor="delegated")
    assert world.observer.exercised["event.reach.progress"]
    return world.observer.counts["event.reach.progress"]


def test_an_acknowledgement_beside_the_window_need_not_be_taken(world, end):
    before = end.offloaded.path.neighbor.nic_reachable_at
    end.arrives(0, bytes(50), ack=50)
    assert end.offloaded.path.neighbor.nic_reachable_at == before
    assert not found(world, end)


def test_an_acknowledgement_beside_the_window_may_be_taken(world, end):
    """Then the next one tells nothing new. Ours does it, as Linux does, for what ends at RCV.NXT."""
    end.arrives(0, bytes(100), ack=50)
    taken = world.clock()
    world.run(duration=5 * SECONDS)
    end.arrives(100, ack=50)
    assert end.offloaded.path.neighbor.nic_reachable_at == taken
    assert not found(world, end)


def test_what_was_forwarded_is_not_learnt_again_from_the_next_segment(world, end):
    end.forward(end.segment(100, bytes(100), ack=50))
    world.run(duration=5 * SECONDS)
    end.arrives(200, ack=50)
    assert not found(world, end)


@pytest.mark.parametrize("what", [{"data": bytes(100)}, {"ack": 50}])
def test_progress_that_is_not_seen(world, end, what):
    before = end.offloaded.path.neighbor.nic_reachable_at
    end.arrives(100, **what)
    end.offloaded.path.neighbor.nic_reachable_at = before
    assert found(world, end)
