"""Sweeps: a hand-over between any two events."""

from __future__ import annotations

import pytest

from chimney.sim.case import Case, Host, Offload, Send, Upload
from chimney.sim.outcome import Outcome
from chimney.sim.sweep import sweep

SENDS = (Send(at=0, side="a", size=100), Send(at=500, side="b", size=100))
CASE = Case(steps=(*SENDS, Offload(event=7), Upload(at=900)))


def run(case: Case) -> Outcome:
    """Five events in the kernel, three in the chimney."""
    return Outcome(case, events=3 if any(isinstance(step, Offload) for step in case.steps) else 5)


def moved(case: Case) -> tuple[tuple[str, int], ...]:
    """The hand-overs of a case."""
    return tuple((type(step).__name__, step.event) for step in case.steps if isinstance(step, Offload | Upload))


def test_every_event_has_its_hand_over() -> None:
    swept = [moved(case) for case in sweep(CASE, run, stays=(0, 4))]
    assert swept[:4] == [
        (("Offload", 1),),
        (("Offload", 1), ("Upload", 1)),
        (("Offload", 1), ("Upload", 5)),
        (("Offload", 2),),
    ]
    assert [hand_overs[0][1] for hand_overs in swept if len(hand_overs) == 1] == [1, 2, 3, 4, 5]
    assert [hand_overs[1][1] for hand_overs in swept[15:] if len(hand_overs) == 2] == [2, 3]
    assert swept[-1] == (("Offload", 1), ("Upload", 3), ("Offload", 7))
    assert len(swept) == len(set(swept)) == 5 * 3 + 3 * 3 - 1


def test_only_the_hand_overs_differ() -> None:
    for case in sweep(CASE, run):
        assert case.steps[: len(SENDS)] == SENDS
        assert len(case.steps) - len(SENDS) == len(moved(case))


def test_the_other_side() -> None:
    case = Case(b=Host(chimney=True), steps=(Offload(event=3), Offload(event=4, side="b")))
    for variant in sweep(case, run, side="b"):
        assert variant.steps[0] == case.steps[0]
        assert all(step.side == "b" for step in variant.steps[1:] if isinstance(step, Offload | Upload))


def test_a_side_without_a_chimney() -> None:
    with pytest.raises(ValueError, match="b has no chimney"):
        sweep(Case(), run, side="b")


def test_the_second_point_is_anywhere() -> None:
    """The far ones are spread over the whole run, and never beyond its end."""
    events = 60
    swept = [moved(case) for case in sweep(CASE, lambda case: Outcome(case, events=events), stays=(0, 4))]
    pairs = [hand_overs for hand_overs in swept if len(hand_overs) == 2 and hand_overs[0][0] == "Offload"]
    far = [upload[1] - offload[1] for offload, upload in pairs if upload[1] - offload[1] > 4]
    assert len(far) > events * 0.8 and len(set(far)) > events * 0.5 and max(far) > events * 0.7
    assert all(upload[1] <= events + 4 for _, upload in pairs)
