"""Corners: cases like any others, the same everywhere, which reach what others hardly do."""

from collections import Counter

import pytest

from chimney.sim import coverage
from chimney.sim.case import Case, Driver, Host, Layer, Network, Offload, Read, Send, Shutdown, Upload, dump, load
from chimney.sim.corners import EVERY, corner, drawn
from chimney.sim.draw import case_of
from chimney.sim.outcome import Cell
from chimney.sim.run import run
from tests.sim.validity import check

RUNS = 400


def test_one_in_so_many_is_a_corner():
    """But for the changes of the network that some have besides."""
    same = [index for index in range(20 * EVERY) if drawn(3, index) == (case_of if index % EVERY else corner)(3, index)]
    assert 0.65 < len(same) / (20 * EVERY) < 0.85


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


# The rarest cells of all: probes of a closed window while a connection is on its way up.

ENDINGS = {"CLOSE-WAIT": "b", "FIN-WAIT-1": "a", "CLOSING": "ab", "LAST-ACK": "ba"}


def probes(ending, a, moves, grace_us):
    """The cells of probes, if b does not read what a sends, and the streams end in this order."""
    steps = [Read(at=0, side="a"), Read(at=0, side="b", depth=0), Send(at=0, side="a", size=8000)]
    steps += [Shutdown(at=5000 + 1000 * number, side=side) for number, side in enumerate(ending)]
    network = Network(delay_us=200)
    case = Case(a=a, b=Host(receive_buffer=2500), network=network, steps=(*steps, *moves), seed=1, grace_us=grace_us)
    outcome = run(case)
    assert outcome.findings == []
    return {(cell.state, cell.phase) for cell in outcome.cells if cell.event == "probes"}


@pytest.mark.parametrize("state", ENDINGS)
def test_a_probe_while_a_terminate_has_failed(state):
    """The lower driver has no memory for it (one of these times), and the upper one keeps that to itself."""
    moves = (Offload(at=10_000), Driver(at=1_500_000, layer=0, what="hold"), Upload(at=1_600_000))
    seen = set()
    for number in range(4, 9):
        layers = (Layer(seed=1), Layer(seed=2, out_of_memory=(number,)))
        seen |= probes(ENDINGS[state], Host(chimney=True, layers=layers), moves, 8_000_000)
    assert {(state, "target"), (state, "terminating")} <= seen


@pytest.mark.parametrize("state", ENDINGS)
def test_a_probe_in_a_kernel_that_takes_its_time(state):
    seen = set()
    for gap_us in (3_000_000, 5_000_000, 6_000_000, 7_000_000):
        a = Host(chimney=True, gap_us=gap_us)
        seen |= probes(ENDINGS[state], a, (Offload(at=10_000), Upload(at=20_000)), 80_000_000)
    assert {(state, "cut"), (state, "restoring")} <= seen
