"""How many acknowledgements a batch of frames gets."""

from dataclasses import replace

import pytest

from tests.target.machine import CONST_FLAGS, World

SACK = 2
CAREFUL_FRAMES = 32


def receiving(sack=True):
    world = World()
    a, _ = world.ends()
    if not sack:
        a.const = replace(a.const, flags=CONST_FLAGS & ~SACK)
    a.initiate()
    a.receive(100_000, push=False)
    world.poll()
    del world.wire[:]
    return world, a


def batch(world, a, *offsets):
    """How many acknowledgements answer bytes that come together."""
    a.forward(*[a.segment(offset, b"x") for offset in offsets])
    world.poll()
    count = len(world.wire)
    del world.wire[:]
    return count


def test_what_is_in_order_is_acknowledged_once():
    world, a = receiving()
    assert batch(world, a, *range(8)) == 1


@pytest.mark.parametrize("sack", [True, False])
def test_what_is_out_of_order_is_acknowledged_each_time(sack):
    world, a = receiving(sack)
    assert batch(world, a, 9, 7, 5) == 3


def test_what_comes_twice_is_acknowledged_each_time():
    world, a = receiving()
    batch(world, a, *range(8))
    assert batch(world, a, 3, 4, 5) == 3


def test_where_something_was_missing_every_second_segment_is_acknowledged_for_a_while():
    world, a = receiving()
    assert batch(world, a, 1, 0) == 2
    # The hole's end has counted as one.
    careful = 2 * (CAREFUL_FRAMES - 1)
    assert batch(world, a, *range(2, 2 + careful)) == careful // 2
    assert batch(world, a, *range(2 + careful, 10 + careful)) == 1
