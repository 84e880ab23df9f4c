"""Draws: every case makes sense, is the same everywhere, and all that can happen is likely enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.ndis.status import UploadReason
from chimney.sim.case import (
    OTHER,
    Abort,
    Case,
    Change,
    Detach,
    Die,
    Driver,
    Garbage,
    Layer,
    Mtu,
    Nodelay,
    Offload,
    Partition,
    Read,
    Send,
    Shutdown,
    Target,
    Upload,
    dump,
    load,
)
from chimney.sim.draw import case_of, mixed
from tests.sim.validity import ALLOCATIONS, check

MANY = 4000


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case_of(3, index) for index in range(MANY)]


def share(cases: list[Case], wanted: Callable[[Case], object]) -> float:
    """How many of the cases are wanted, from 0 to 1."""
    return sum(bool(wanted(case)) for case in cases) / len(cases)


def has(case: Case, *kinds: type) -> bool:
    """Whether a case has a step of one of these kinds."""
    return any(isinstance(step, kinds) for step in case.steps)


def bad_network(case: Case) -> bool:
    """Whether the network has a vice at any time."""
    rates = (getattr(case.network, name) for name in ("loss", "burst", "jitter_us", "reorder", "duplicate", "corrupt"))
    return any(rates) or case.network.bandwidth > 0 or has(case, Change, Partition, Mtu, Garbage)


def bad_drivers(case: Case) -> bool:
    """Whether a driver or target has a vice."""
    layers = case.a.layers + case.b.layers
    return any(layer != Layer() for layer in layers) or has(case, Driver, Target, Die)


def test_all_are_valid(cases: list[Case]) -> None:
    for case in cases:
        check(case)


@given(st.integers(min_value=0, max_value=(1 << 64) - 1), st.integers(min_value=0, max_value=1 << 40))
def test_any_is_valid_and_always_the_same(seed: int, index: int) -> None:
    case = case_of(seed, index)
    check(case)
    assert case_of(seed, index) == case


def test_files_keep_them(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    for case in cases[:200]:
        path.write_text(dump(case))
        assert load(path) == [case]


def test_numbers_are_mixed_well() -> None:
    """Neighbours have nothing in common, and no two pairs meet."""
    numbers = {mixed(seed, index) for seed in range(100) for index in range(100)}
    assert len(numbers) == 10_000
    ones = Counter(bit for number in numbers for bit in range(64) if number >> bit & 1)
    assert all(4_700 < ones[bit] < 5_300 for bit in range(64))
    assert mixed(1, 2) != mixed(2, 1)
    assert mixed(1, 2) == 0xBCD9DBB49673066B


def test_a_quarter_each(cases: list[Case]) -> None:
    quarters = Counter((bad_network(case), bad_drivers(case)) for case in cases)
    assert all(
        0.2 < quarters[quarter] / MANY < 0.3 for quarter in ((x, y) for x in (False, True) for y in (False, True))
    )


def test_runs_are_short(cases: list[Case]) -> None:
    sent = [sum(step.size for step in case.steps if isinstance(step, Send)) for case in cases]
    segments = [size / case.mss for size, case in zip(sent, cases, strict=True)]
    assert max(sent) <= 16_000 and sum(sent) / MANY < 8_000
    assert max(segments) <= 24 and sum(segments) / MANY > 4
    assert max(len(case.steps) for case in cases) < 60


def test_hand_overs(cases: list[Case]) -> None:
    moves = Counter(
        sum(isinstance(step, Offload | Upload) and step.side == "a" for step in case.steps) for case in cases
    )
    assert max(moves) <= 8 and 0 < moves[0] / MANY < 0.1
    assert share(cases, lambda case: any(isinstance(step, Offload) and step.event for step in case.steps)) > 0.4
    assert share(cases, lambda case: any(isinstance(step, Offload) and step.at >= 0 for step in case.steps)) > 0.3
    assert share(cases, lambda case: case.b.chimney and has(case, Offload)) > 0.2


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        (Send, 0.9),
        (Read, 0.95),
        (Shutdown, 0.6),
        (Abort, 0.1),
        (Detach, 0.05),
        (Nodelay, 0.02),
        (Offload, 0.9),
        (Upload, 0.6),
        (Change, 0.03),
        (Partition, 0.1),
        (Mtu, 0.03),
        (Garbage, 0.1),
        (Driver, 0.1),
        (Target, 0.2),
        (Die, 0.01),
    ],
)
def test_every_kind_of_step_is_likely(cases: list[Case], kind: type, least: float) -> None:
    assert share(cases, lambda case: has(case, kind)) > least


def test_every_kind_of_trouble_comes(cases: list[Case]) -> None:
    steps = [step for case in cases for step in case.steps]
    garbage = Counter(step.kind for step in steps if isinstance(step, Garbage))
    assert set(garbage) == set(get_args(get_type_hints(Garbage)["kind"]))
    assert {step.what for step in steps if isinstance(step, Driver)} == set(get_args(get_type_hints(Driver)["what"]))
    assert {step.what for step in steps if isinstance(step, Target)} == set(get_args(get_type_hints(Target)["what"]))
    assert {step.of for step in steps if isinstance(step, Target) and step.what == "short"} == set(ALLOCATIONS)
    asked = {
        kind: {step.reason for step in steps if isinstance(step, kind) and step.what == "upload"}
        for kind in (Driver, Target)
    }
    assert asked[Driver] == set(UploadReason.__members__)
    assert len(asked[Target]) == len(asked[Driver]) - 3


def closes(case: Case, within_us: int) -> bool:
    """Whether both sides end their streams so close to each other, at times that are known."""
    ends = {step.side: step.at for step in case.steps if isinstance(step, Shutdown) and step.at >= 0}
    return len(ends) == 2 and abs(ends["a"] - ends["b"]) <= within_us


def half_closed(case: Case) -> bool:
    """Whether one side sends on when the other has ended its stream."""
    ends = {step.side: step.at for step in case.steps if isinstance(step, Shutdown) and step.at >= 0}
    return any(isinstance(step, Send) and 0 <= ends.get(OTHER[step.side], step.at) < step.at for step in case.steps)


def by_the_end(case: Case) -> bool:
    """Whether a hand-over is at most two round trips away from the end of a stream."""
    ends = [step.at for step in case.steps if isinstance(step, Shutdown | Abort | Detach) and step.at >= 0]
    moves = [step.at for step in case.steps if isinstance(step, Offload | Upload) and step.at >= 0]
    return any(abs(end - move) <= 4 * case.network.delay_us for end in ends for move in moves)


@pytest.mark.parametrize(
    ("wanted", "least"),
    [
        (lambda case: closes(case, case.network.delay_us), 0.1),
        (half_closed, 0.15),
        (by_the_end, 0.2),
        (lambda case: any(isinstance(step, Read) and step.depth == 0 for step in case.steps), 0.3),
        (lambda case: any(iss > 0xFFFFE000 for iss in case.iss), 0.5),
        (lambda case: any(isinstance(step, Send) and step.event for step in case.steps), 0.1),
        (lambda case: case.ipv6, 0.15),
        (lambda case: not case.timestamps, 0.15),
        (lambda case: not case.sack, 0.15),
        (lambda case: case.scale < 0, 0.1),
        (lambda case: case.b.chimney, 0.25),
    ],
)
def test_situations_are_likely(cases: list[Case], wanted: Callable[[Case], object], least: float) -> None:
    assert share(cases, wanted) > least
