"""Changes of the network that are drawn beside cases: all of them make sense, and are likely enough."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from chimney.sim.case import Case, Neighbor, PathMtu, Route, Unplug, Withdraw, dump, load
from chimney.sim.corners import drawn
from chimney.sim.draw import case_of
from chimney.sim.games import PLAYED, with_games
from tests.sim.validity import check

GAMES = (PathMtu, Neighbor, Route, Unplug, Withdraw)
MANY = 3000


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [drawn(5, index) for index in range(MANY)]


def has(case: Case, *kinds: type) -> bool:
    return any(isinstance(step, kinds) for step in case.steps)


def test_all_are_valid_and_files_keep_them(cases, tmp_path):
    path = tmp_path / "case.yaml"
    for case in cases:
        if has(case, *GAMES):
            check(case)
            path.write_text(dump(case))
            assert load(path) == [case]


def test_the_others_are_as_they_were(cases):
    played = sum(has(case, *GAMES) for case in cases) / MANY
    assert PLAYED - 0.03 < played < PLAYED + 0.03
    chance = Random(1)
    case = case_of(3, 1)
    assert sum(with_games(case, chance) == case for _ in range(1000)) > 700


@pytest.mark.parametrize("kind", GAMES)
def test_every_kind_is_likely(cases, kind):
    assert sum(has(case, kind) for case in cases) / MANY > 0.04


def test_every_way_is_likely(cases):
    steps = [step for case in cases for step in case.steps]
    told = Counter((step.told_us > 0) - (step.told_us < 0) for step in steps if isinstance(step, Neighbor))
    ways = Counter((step.known, step.old_works) for step in steps if isinstance(step, Route))
    gone = Counter(step.what for step in steps if isinstance(step, Unplug))
    assert min(told.values()) > 20 and len(told) == 3
    assert min(ways.values()) > 20 and len(ways) == 4
    assert set(gone) == {"link", "address"}
    assert any(isinstance(step, PathMtu) and step.mtu == 1500 for step in steps)
