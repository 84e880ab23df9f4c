"""Shrinking: what does not matter for a failure goes, what is left is easy to read."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimney.sim.case import (
    Abort,
    Case,
    Driver,
    Garbage,
    Host,
    Layer,
    Network,
    Offload,
    Partition,
    Read,
    Send,
    Shutdown,
    Target,
    Upload,
)
from chimney.sim.draw import case_of
from chimney.sim.shrink import LIMIT, shrink
from tests.sim.validity import check

drawn = st.builds(case_of, st.integers(0, 1000), st.integers(0, 1000))


def test_nothing_matters() -> None:
    for index in range(20):
        shrunk = shrink(case_of(1, index), lambda case: True)
        assert shrunk == Case(quiet_us=shrunk.quiet_us)


def test_everything_matters() -> None:
    case = case_of(1, 2)
    assert shrink(case, lambda other: other == case) == case


def sent(case: Case) -> int:
    """How much a sends."""
    return sum(step.size for step in case.steps if isinstance(step, Send) and step.side == "a")


def first(case: Case, kind: type) -> object:
    """The first step of a kind, if there is one."""
    return next((step for step in case.steps if isinstance(step, kind)), None)


def test_one_step_with_a_size() -> None:
    case = Case(
        seed=4711,
        ipv6=True,
        mss=536,
        network=Network(loss=0.2, delay_us=1000),
        b=Host(chimney=True, gap_us=500, layers=(Layer(seed=3, delay=0.5),)),
        steps=(
            Read(at=0, side="b"),
            Send(at=312, side="a", size=1873),
            Shutdown(at=20_411, side="a"),
            Offload(event=17),
            Driver(event=18, side="b", layer=0),
            Garbage(event=20, to="a", kind="syn"),
            Upload(event=30, side="b"),
        ),
    )
    assert shrink(case, lambda case: sent(case) >= 700) == Case(steps=(Send(at=0, side="a", size=700),))


def test_event_numbers_keep_their_distance() -> None:
    """What matters is that the upload follows soon; and a minimum of events before."""

    def fails(case: Case) -> bool:
        down, up = first(case, Offload), first(case, Upload)
        return (
            isinstance(down, Offload) and isinstance(up, Upload) and down.event > 4 and 2 <= up.event - down.event < 4
        )

    case = Case(steps=(Send(at=0, side="a", size=10), Offload(event=57), Upload(event=60)))
    assert shrink(case, fails) == Case(steps=(Offload(event=5), Upload(event=7)))


def test_times_are_round_and_in_order() -> None:
    def fails(case: Case) -> bool:
        send, cut, end = (first(case, kind) for kind in (Send, Partition, Abort))
        return (
            isinstance(send, Send)
            and isinstance(cut, Partition)
            and isinstance(end, Abort)
            and 937 <= cut.at < end.at
            and cut.lasts_us >= 1_731
        )

    case = Case(
        steps=(
            Send(at=311, side="a", size=999),
            Partition(at=1_213, of="b", lasts_us=18_373),
            Send(at=1_333, side="b", size=999),
            Abort(at=40_117, side="b"),
        )
    )
    send, cut, end = shrink(case, fails).steps
    assert send == Send(at=0, side="a", size=1)
    assert cut == Partition(at=1000, of="b")
    assert isinstance(end, Abort) and end.at == 2000


def test_drivers_that_do_not_matter_go_and_the_others_keep_their_steps() -> None:
    bad = Layer(seed=7, delay=0.5)
    case = Case(
        a=Host(chimney=True, layers=(Layer(), bad, Layer(seed=8, split=0.5))),
        steps=(Driver(event=3, layer=2), Driver(event=4, layer=1), Driver(event=9, layer=1, what="release")),
    )

    def fails(case: Case) -> bool:
        held = {step.layer for step in case.steps if isinstance(step, Driver) and step.what == "hold"}
        return any(layer.delay > 0 and n in held for n, layer in enumerate(case.a.layers))

    shrunk = shrink(case, fails)
    assert shrunk == Case(a=Host(chimney=True, layers=(Layer(delay=0.5),)), steps=(Driver(event=1, layer=0),))


def test_a_second_chimney_goes_with_its_steps() -> None:
    case = Case(
        b=Host(chimney=True, nodelay=False, layers=(Layer(seed=1, delay=0.5),)),
        steps=(Offload(event=2), Offload(event=3, side="b"), Target(event=4, side="b"), Driver(event=5, side="b")),
    )
    shrunk = shrink(case, lambda case: not case.b.nodelay)
    assert shrunk == Case(b=Host(nodelay=False))


def test_a_step_goes_with_the_events_that_it_caused() -> None:
    """A failure at a certain event stays one when fewer events come before."""

    def fails(case: Case) -> bool:
        events = 1 + 3 * sum(isinstance(step, Send) for step in case.steps)
        move = first(case, Offload)
        return isinstance(move, Offload) and move.event == events

    case = Case(steps=(*(Send(at=n, side="b", size=5) for n in range(5)), Offload(event=16)))
    assert shrink(case, fails) == Case(steps=(Offload(event=1),))


def test_chance_may_take_another_course() -> None:
    """A failure that a loss brings about is found again with another seed."""

    def fails(case: Case) -> bool:
        return case.network.loss > 0 and (case.seed + len(case.steps)) % 4 == 3

    case = Case(
        seed=91, network=Network(loss=0.2, jitter_us=50), steps=tuple(Send(at=n, side="a", size=9) for n in range(8))
    )
    shrunk = shrink(case, fails)
    assert shrunk == Case(seed=3, network=Network(loss=0.2))


def test_no_run_becomes_slow() -> None:
    """Reads do not get so short that there are thousands of them."""
    case = Case(steps=(Read(at=0, side="a", size=3000), Send(at=0, side="b", size=8000)))
    shrunk = shrink(
        case, lambda case: isinstance(first(case, Read), Read) and first(case, Read) != Read(at=0, side="a")
    )
    assert shrunk == Case(steps=(Read(at=0, side="a", size=100),))


def test_lists_get_shorter() -> None:
    case = Case(iss=(5, 6), a=Host(chimney=True, layers=(Layer(seed=9, out_of_memory=(3, 4, 5, 6), longest=10),)))

    def fails(case: Case) -> bool:
        return case.iss[1] == 6 and any(5 in layer.out_of_memory for layer in case.a.layers)

    shrunk = shrink(case, fails)
    assert shrunk.iss == (Case().iss[0], 6)
    assert shrunk.a == Host(chimney=True, layers=(Layer(out_of_memory=(5,)),))


@settings(max_examples=25)
@given(drawn, st.integers(0, 9))
def test_any_result_makes_sense_and_is_always_the_same(case: Case, salt: int) -> None:
    """Whatever chance says fails."""
    asked = 0

    def fails(case: Case) -> bool:
        nonlocal asked
        asked += 1
        return zlib.crc32(msgspec.json.encode(case), salt) % 10 < 3

    shrunk = shrink(case, fails)
    assert asked <= LIMIT
    check(shrunk)
    assert shrink(case, fails) == shrunk


@settings(max_examples=60)
@given(drawn, st.data())
def test_what_matters_alone_is_left(case: Case, data: st.DataObject) -> None:
    """Any two kinds of steps that a failure needs are all that is left."""
    kinds = {type(step) for step in case.steps}
    wanted = data.draw(st.sets(st.sampled_from(sorted(kinds, key=str)), min_size=1, max_size=2))
    shrunk = shrink(case, lambda case: wanted <= {type(step) for step in case.steps})
    assert sorted(type(step).__name__ for step in shrunk.steps) == sorted(kind.__name__ for kind in wanted)
    assert max(step.at for step in shrunk.steps) <= 0 and max(step.event for step in shrunk.steps) <= 1
    check(shrunk)


@pytest.mark.parametrize("limit", [0, 1, 10])
def test_the_limit_holds(limit: int) -> None:
    asked: list[Case] = []

    def fails(case: Case) -> bool:
        asked.append(case)
        return True

    shrink(case_of(5, 5), fails, limit)
    assert len(asked) == limit


@pytest.mark.parametrize("index", range(10))
def test_few_runs_are_enough(index: int) -> None:
    """With a third of the runs, all but the last numbers are as small as they get."""
    case = case_of(9, index)
    fails: Callable[[Case], bool] = lambda case: sent(case) > 0 and first(case, Offload) is not None  # noqa: E731
    if fails(case):
        assert len(shrink(case, fails, LIMIT // 3).steps) == 2
