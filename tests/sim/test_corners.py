"""Corners: cases like any others, the same everywhere, which reach what others hardly do."""

from collections import Counter

import pytest

from chimney.sim import coverage
from chimney.sim.case import dump, load
from chimney.sim.corners import EVERY, corner, drawn
from chimney.sim.draw import case_of
from chimney.sim.outcome import Cell
from chimney.sim.run import run
from tests.sim.validity import check

RUNS = 400


def test_one_in_so_many_is_a_corner():
    assert all(drawn(3, index) == case_of(3, index) for index in range(1, EVERY))
    assert drawn(3, 0) == corner(3, 0) and drawn(3, EVERY) == corner(3, EVERY)


@pytest.mark.parametrize("index", range(60))
def test_a_corner_is_a_case_as_any_other(tmp_path, index):
    case = corner(5, index)
    check(case)
    assert case == corner(5, index) != corner(6, index)
    file = tmp_path / "case.yaml"
    file.write_text(dump(case))
    assert load(file) == [case]


def test_corners_reach_most_cells():
    """Nearly half of all in some hundred runs; among them what hardly anything else reaches."""
    seen: Counter[Cell] = Counter()
    for index in range(RUNS):
        seen.update(run(corner(1, index), verify=False).cells)
    totals = coverage.totals(seen)
    assert totals.visited > totals.reachable * 0.4, str(totals)
    for state in ("TIME-WAIT", "CLOSED"):
        assert len({cell.phase for cell in seen if cell.state == state}) >= 4
    assert len({cell.phase for cell in seen if cell.event == "death"}) >= 4
