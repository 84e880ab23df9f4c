"""Differences that were found, and are none any more: the smallest scripts that showed them."""

import pytest

from tests.differential.actions import Script, Segment, Setup, Shutdown, Write
from tests.differential.peer import ACK, ECE, FIN
from tests.differential.play import Performance

PLAIN = Setup(timestamps=False)

FOUND = {
    "a duplicate of what came before the hand-over": (PLAIN, Segment(seq=("next", -100), length=1)),
    "what ends at the next byte tells the time": (Setup(), Segment(seq=("next", -500), length=500, ts=0)),
    "what ends at the next byte opens the window": (
        PLAIN,
        Segment(window=0),
        Segment(seq=("next", -500), length=500, window=0),
    ),
    "a repeated FIN": (Setup(), Segment(flags=ACK | FIN), Segment(seq=("next", -1), flags=ACK | FIN)),
    "old data after the FIN": (
        Setup(),
        Segment(length=100),
        Segment(flags=ACK | FIN),
        Segment(seq=("next", -101), length=100),
    ),
    "an overlap out of order": (
        PLAIN,
        Segment(seq=("next", 2000), length=100),
        Segment(seq=("next", 2000), length=1000),
    ),
    "an overlap by what fills the hole": (PLAIN, Segment(seq=("next", 500), length=1), Segment(length=1000)),
    "an overlap of the first of two blocks": (
        PLAIN,
        Segment(seq=("next", 1000), length=500),
        Segment(seq=("top", -3), length=1000),
    ),
    "a duplicate that PAWS refuses": (Setup(), Segment(seq=("next", -100), length=100, ts=-50)),
    "what PAWS refuses is a duplicate in part": (Setup(), Segment(seq=("next", -100), length=200, ts=-50)),
    "an echo of congestion with nothing in flight": (Setup(ecn=True), Segment(flags=ACK | ECE), Write(100)),
    "a segment without ACK": (Setup(), Segment(length=100, flags=0), Segment(seq=("next", -100), length=100, flags=0)),
    "both directions are closed, ours before it could say so": (
        PLAIN,
        Segment(seq=("next", 1000), flags=ACK | FIN),
        Segment(length=999, window=0),
        Shutdown(),
        Segment(length=1, window=0),
        Segment(window=1000),
        Segment(ack=("max", 0), window=1000),
    ),
    "a window that opens while data waits": (Setup(snd_wnd=0), Write(2500), Segment(window=20_000)),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_found(wire, found):
    setup, *steps = found
    Performance(wire, Script(setup, tuple(steps))).play()
