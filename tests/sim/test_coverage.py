"""The table of cells, what cannot be reached of it, and how both are shown."""

from io import StringIO
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from rich.console import Console

from chimney.host.connection import Owner
from chimney.sim import case, coverage
from chimney.sim.coverage import EVENTS, PHASES, STATES, UNREACHABLE, unreachable
from chimney.sim.outcome import Cell

REACHABLE = [cell for cell in coverage.cells() if unreachable(cell) is None]


def test_every_cell_is_either_reachable_or_has_one_reason_not_to_be():
    cells = list(coverage.cells())
    assert len(set(cells)) == len(cells) == coverage.TOTAL == len(STATES) * len(EVENTS) * len(PHASES)
    reasons = {group.reason for group in UNREACHABLE}
    assert all(unreachable(cell) in reasons for cell in cells if cell not in set(REACHABLE))
    assert 0 < len(REACHABLE) < len(cells)


@pytest.mark.parametrize("group", UNREACHABLE, ids=lambda group: group.reason[:40])
def test_a_group_names_what_is_in_the_table_and_adds_something(group):
    assert group.states <= STATES.keys() and group.events <= EVENTS.keys() and group.phases <= PHASES.keys()
    assert group.reason.endswith((".", ")")) and len(group.reason) > 30
    assert any(unreachable(cell) == group.reason for cell in coverage.cells())


def test_fewer_than_thirty_events():
    assert len(EVENTS) < 30


def test_what_is_not_in_the_table_cannot_be():
    assert unreachable(Cell("LISTEN", "data", "kernel"))
    assert unreachable(Cell("CLOSED", "lunch", "kernel"))
    assert unreachable(Cell("CLOSED", "data", "lunch"))


@pytest.mark.parametrize(
    "cell",
    [
        Cell("ESTABLISHED", "data", "cut"),
        Cell("CLOSING", "acknowledgement", "target"),
        Cell("TIME-WAIT", "FIN", "kernel"),
        Cell("FIN-WAIT-2", "data out of order", "terminating"),
        Cell("CLOSED", "data", "kernel"),
    ],
)
def test_some_that_can_be(cell):
    assert unreachable(cell) is None


@pytest.mark.parametrize(
    "cell",
    [
        Cell("LAST-ACK", "data", "kernel"),
        Cell("FIN-WAIT-2", "retransmits", "target"),
        Cell("ESTABLISHED", "offload", "target"),
        Cell("ESTABLISHED", "upload", "kernel"),
        Cell("ESTABLISHED", "send", "initiating"),
    ],
)
def test_some_that_cannot_be(cell):
    assert unreachable(cell) is not None


def test_what_makes_trouble_is_in_the_table():
    steps = [case.Die(at=0)] + [
        kind(at=0, what=what) for kind in (case.Driver, case.Target) for what in get_args(get_type_hints(kind)["what"])
    ]
    expected = coverage.EVENT_GROUPS["failures"].keys() | {"upload request", "upload all"}
    assert {coverage.event_of(step) for step in steps} == expected


def test_what_applications_do_counts_where_it_begins():
    assert {
        coverage.event_of(step) for step in (case.Mtu(at=0), case.Send(at=0, side="a", size=1), case.Offload(at=0))
    } == {""}


@pytest.mark.parametrize(
    ("owner", "speaks", "step", "phase"),
    [
        ("KERNEL", "kernel", "", "kernel"),
        ("KERNEL", "kernel", "cut", "cut"),
        ("OFFLOADING", "target", "", "initiating"),
        ("OFFLOADING", None, "restoring", "restoring"),
        ("OFFLOADING", "kernel", "", "restoring"),
        ("TARGET", "target", "", "target"),
        ("UPLOADING", "target", "", "terminating"),
        ("UPLOADING", None, "restoring", "restoring"),
        ("UPLOADING", "kernel", "", "restoring"),
        ("APPLICATION", "kernel", "", "kernel"),
    ],
)
def test_where_a_hand_over_is(owner, speaks, step, phase):
    machine = SimpleNamespace(owner=speaks, phase=step, dead=False, state="FIN-WAIT-2")
    connection = SimpleNamespace(owner=Owner[owner])
    assert coverage.cell_of(machine, connection, "data") == Cell("FIN-WAIT-2", "data", phase)
    machine.dead, machine.phase = True, ""
    assert coverage.cell_of(machine, connection, "data").phase == "kernel", "whoever had it"


def test_totals_and_what_was_missed():
    impossible = next(cell for cell in coverage.cells() if unreachable(cell))
    seen = {REACHABLE[0]: 1500, REACHABLE[1]: 1, REACHABLE[2]: 0, impossible: 7}
    totals = coverage.totals(seen)
    assert (totals.cells, totals.reachable) == (coverage.TOTAL, len(REACHABLE))
    assert (totals.visited, totals.visits) == (2, 1508)
    assert str(totals).startswith(
        f"2 of {len(REACHABLE)} reachable cells visited (" + f"{200 / len(REACHABLE):.1f} %), 1,508 visits"
    )
    assert coverage.missed(seen) == REACHABLE[2:]


def test_visits_add_up():
    one, other = {REACHABLE[0]: 1, REACHABLE[1]: 2}, {REACHABLE[1]: 3}
    assert coverage.summed([one, other]) == {REACHABLE[0]: 1, REACHABLE[1]: 5}


def test_the_table_shows_each_phase():
    seen = {Cell("ESTABLISHED", "data", "kernel"): 1, Cell("ESTABLISHED", "data", "target"): 1}
    seen[Cell("LAST-ACK", "data", "cut")] = 1
    text = StringIO()
    Console(file=text, width=160).print(coverage.table(seen))
    row = next(line for line in text.getvalue().splitlines() if line.startswith("│ data "))
    fields = [field.strip() for field in row.split("│")[2:-1]]
    assert fields[0] == "k--t--" and fields[5] == "·X····"
    assert all(state in text.getvalue() for state in STATES)
