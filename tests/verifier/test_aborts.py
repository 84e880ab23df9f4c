"""What a target has acknowledged before an abort, where its link has failed."""

import errno

import pytest

from chimney.conformance.world import World
from chimney.link.base import LinkError
from chimney.link.memory import Clock
from chimney.verifier import Verifier
from tests.verifier.shims import LinkShim


class Unplugged(LinkShim):
    """Behind the door of the verifier: it sees what the target gives to the link, and that the link fails."""

    gone = False

    def send(self, *frame):
        if self.gone:
            raise LinkError(errno.ENETDOWN, "the network interface is down")
        return self.inner.send(*frame)


@pytest.fixture
def world():
    clock = Clock(1_000_000)
    return World(clock=clock, observer=Verifier(clock))


@pytest.mark.parametrize("back", [True, False])
def test_an_acknowledgement_that_a_failed_link_has_lost_was_one_all_the_same(world, back):
    a, b = world.connect()
    door = world.observer.links[0]
    link = door.inner = Unplugged(door.inner)
    b.send(bytes(100))
    link.gone = True
    world.run(duration=100_000)
    link.gone = not back
    a.abort()
    world.run(until=lambda: not a.offloaded)
    assert world.observer.exercised["disconnect.abort.stop-rx"]
    assert not world.observer.counts
