"""A stream over a path that loses, repeats and reorders: both get it across without waiting for a timer."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential.actions import Setup
from tests.differential.engine import EngineSide
from tests.differential.kernel import KernelSide
from tests.differential.losses import Journey, Plan

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))
# So many segments at the end are not lost: what is lost before becomes known by them.
_TAIL = 5
_EARLY, _LONG = 8, 40


@st.composite
def plans(draw, most_lost=5, most_late=0, is_lost_again=False):
    """Plans for streams of several windows."""
    count = draw(st.sampled_from([12, 20, _LONG]))
    first = st.integers(0, count - _TAIL - 1)
    late = st.tuples(first, st.integers(1, 5))
    lost = draw(st.frozensets(first, min_size=1, max_size=most_lost))
    # That a repetition is lost, too, shows only by what is sent after it; in slow start much is sent before it.
    early = [number for number in sorted(lost) if number < _EARLY] if is_lost_again and count == _LONG else []
    return Plan(
        count=count,
        lost=lost,
        lost_again=frozenset(draw(st.lists(st.sampled_from(early), max_size=1)) if early else []),
        twice=draw(st.frozensets(st.integers(0, count - 1), max_size=2)),
        late=tuple(draw(st.lists(late, max_size=most_late))),
        lost_acks=draw(st.frozensets(st.integers(1, count - _TAIL), max_size=2)),
    )


def journeys(wire, plan, sack=True, iss=2**32 - 5000):
    """The kernel's and the engine's, when they have come to a standstill."""
    setup = Setup(timestamps=False, snd_wnd=60_000, sack=sack, iss=iss)
    kernel = KernelSide(wire, setup)
    try:
        made = [Journey(side, setup, plan) for side in (kernel, EngineSide(setup))]
        for journey in made:
            journey.run()
    finally:
        kernel.close()
    return made


some = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), print_blob=True)


@some
@given(plan=plans(is_lost_again=True))
def test_what_is_lost_is_sent_again_and_nothing_else(wire, plan):
    kernel, engine = journeys(wire, plan)
    assert engine.is_over or not kernel.is_over
    for journey in (kernel, engine):
        assert not journey.is_over or len(journey.again()) == len(journey.lost)


@some
@given(plan=plans(most_late=4, is_lost_again=True))
def test_reordering_stops_nobody(wire, plan):
    kernel, engine = journeys(wire, plan)
    assert engine.is_over or not kernel.is_over


@some
@given(plan=plans(most_lost=1))
def test_one_loss_without_sack(wire, plan):
    kernel, engine = journeys(wire, plan, sack=False)
    assert kernel.is_over and engine.is_over
    assert len(engine.again()) == len(engine.lost) == 1
