"""The table of cells, what cannot be reached of it, and how both are shown."""

from io import StringIO
from typing import get_args, get_type_hints

import pytest
from rich.console import Console

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


def steps():
    """A step of every kind and of every `what`."""
    plain = [case.Send(at=0, side="a", size=1), case.Read(at=0, side="a")]
    plain += [kind(at=0, side="a") for kind in (case.Shutdown, case.Abort, case.Detach, case.Die)]
    return plain + [
        kind(at=0, what=what) for kind in (case.Driver, case.Target) for what in get_args(get_type_hints(kind)["what"])
    ]


def test_what_a_step_does_to_a_connection_is_in_the_table():
    assert len(steps()) == 6 + 6 + 9
    assert {coverage.event_of(step) for step in steps()} == coverage.EVENT_GROUPS["failures"].keys() | {
        "send", "receive", "shutdown", "abort", "close", "upload request", "upload all",
    }  # fmt: skip


def test_steps_that_do_nothing_to_a_connection():
    assert coverage.event_of(case.Mtu(at=0)) == coverage.event_of(case.Nodelay(at=0, side="a")) == ""
    assert coverage.event_of(case.Offload(at=0)) == "", "it counts where it begins"


def test_totals_and_what_was_missed():
    impossible = next(cell for cell in coverage.cells() if unreachable(cell))
    seen = {REACHABLE[0]: 1500, REACHABLE[1]: 1, REACHABLE[2]: 0, impossible: 7}
    totals = coverage.totals(seen)
    assert (totals.cells, totals.reachable) == (coverage.TOTAL, len(REACHABLE))
    assert (totals.visited, totals.visits) == (2, 1508)
    assert str(totals).startswith(f"2 of {len(REACHABLE)} reachable cells visited (0.3 %), 1,508 visits")
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
