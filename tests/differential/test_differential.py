"""The same segments and calls to a kernel socket and to the engine: what they do is the same."""

import os

from hypothesis import HealthCheck, event, given, settings

from tests.differential.actions import congestion_marks, scripts, window_games
from tests.differential.play import Performance

# `make differential EXAMPLES=100000` is a campaign; `make test` tries some hundreds, in some seconds.
EXAMPLES = int(os.environ.get("EXAMPLES", "600"))

some = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), print_blob=True)


def perform(wire, script):
    """Raises Difference."""
    performance = Performance(wire, script)
    performance.play()
    for what in sorted(performance.met):
        event(what)


@some
@given(script=scripts)
def test_segments_and_calls(wire, script):
    perform(wire, script)


@some
@given(script=window_games)
def test_a_window_that_closes(wire, script):
    perform(wire, script)


@some
@given(script=congestion_marks)
def test_congestion_marks(wire, script):
    perform(wire, script)
