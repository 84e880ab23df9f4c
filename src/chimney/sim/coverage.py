"""Which cells of state x event x phase there are, which nothing can reach and why, and what a campaign has seen.

A cell says where a connection with a chimney was when something happened to it: its state, whoever had it then; what
happened; and how far a hand-over was. Nothing here knows the engines: what is said to be impossible follows from
RFC 9293 and from the interface, and a run that sees it all the same has found a mistake, here or there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from rich.table import Table

from chimney.host.connection import Connection, Owner
from chimney.sim import case
from chimney.sim.outcome import Cell

if TYPE_CHECKING:
    from chimney.sim.machine import Machine

STATES = {
    "ESTABLISHED": "both halves are open",
    "FIN-WAIT-1": "we have closed our half; our FIN is not acknowledged",
    "FIN-WAIT-2": "our FIN is acknowledged; the peer's half is open",
    "CLOSE-WAIT": "the peer has closed its half; ours is open",
    "CLOSING": "both have closed; our FIN is not acknowledged",
    "LAST-ACK": "both have closed, the peer first; our FIN is not acknowledged",
    "TIME-WAIT": "both FINs are acknowledged; late segments die out",
    "CLOSED": "the connection is gone: ended, reset, or given up",
}
"""The states of RFC 9293 (3.3.2), and what they mean. Those of the handshake are not among them: it is over."""

EVENT_GROUPS = {
    "arrivals": {
        "data": "bytes arrive that come next in the peer's stream",
        "data out of order": "bytes arrive from beyond a gap",
        "data again": "bytes arrive that have all arrived before",
        "acknowledgement": "a segment without data acknowledges something new",
        "duplicate acknowledgement": "a segment without data says nothing new",
        "window update": "a segment without data opens the window further",
        "zero window": "a segment without data acknowledges something new, and closes the window",
        "FIN": "the end of the peer's stream arrives, once or again",
        "RST": "the peer's reset arrives",
        "garbage": "a segment arrives that is damaged, or nobody's",
    },
    "timers": {
        "retransmits": "data or a FIN leaves again",
        "probes": "a segment asks whether the peer's window is still closed",
        "delayed acknowledgement": "bytes of the peer's are acknowledged after they have waited for data to go with",
    },
    "application": {
        "send": "the application sends",
        "receive": "the application reads on, or stops reading",
        "shutdown": "the application closes its half",
        "abort": "the application resets the connection",
        "close": "the application closes the socket",
        "received": "a receive completes",
    },
    "hand-overs": {
        "offload": "the application has the connection offloaded",
        "upload": "the application has it uploaded",
        "upload request": "a driver or the target asks for its upload",
        "upload all": "a driver or the target gives everything back",
    },
    "failures": {
        "pause": "a driver or the target takes no more connections",
        "resume": "it takes some again",
        "hold": "a driver keeps everything back, or lets it go",
        "shortage": "the target runs out of memory, or has enough again",
        "failure": "the target loses its state, or fails to update it",
        "death": "the process dies",
    },
}
"""What can happen to a connection, and what that means; what arrives is what the machine's door makes of it."""

EVENTS = {event: meaning for group in EVENT_GROUPS.values() for event, meaning in group.items()}

PHASES = {
    "kernel": "the kernel has the connection",
    "cut": "it is being taken out of the kernel",
    "initiating": "its state is on the way down to the target",
    "target": "the target has it",
    "terminating": "its state is on the way up again",
    "restoring": "it is being put back into the kernel",
}
"""How far a hand-over is."""

TOTAL = len(STATES) * len(EVENTS) * len(PHASES)

_DRIVER = {"upload": "upload request", "upload-all": "upload all", "slow": "hold", "release": "hold"}
_TARGET = {
    "upload": "upload request",
    "upload-all": "upload all",
    "hardware-failure": "failure",
    "update-failure": "failure",
    "reset": "failure",
    "dies": "failure",
    "short": "shortage",
    "enough": "shortage",
}
_WITH_KERNEL = (Owner.KERNEL, Owner.APPLICATION)
_ON_THE_WAY = {Owner.OFFLOADING: "initiating", Owner.UPLOADING: "terminating"}


def event_of(step: case.Step) -> str:
    """The event that a driver's, a target's or a process's trouble is for the connection of its side; "" for other
    steps: what applications do, and hand-overs, count where they begin.
    """
    if isinstance(step, case.Driver):
        return _DRIVER.get(step.what, step.what)
    if isinstance(step, case.Target):
        return _TARGET.get(step.what, step.what)
    return "death" if isinstance(step, case.Die) else ""


def cell_of(machine: Machine, connection: Connection, event: str) -> Cell:
    """Where a machine's connection is while ``event`` happens to it."""
    owner = connection.owner
    if machine.dead or owner in _WITH_KERNEL:
        phase = machine.phase or "kernel"
    elif owner is Owner.TARGET:
        phase = "target"
    else:
        # What an upload does last, it does when the kernel has the connection again.
        phase = "restoring" if machine.phase or machine.owner == "kernel" else _ON_THE_WAY[owner]
    return Cell(machine.state, event, phase)


# What cannot be


@dataclass(frozen=True, slots=True)
class Impossible:
    """Cells that cannot be reached: every combination of these states, events and phases, for this reason."""

    reason: str
    states: frozenset[str]
    events: frozenset[str]
    phases: frozenset[str]

    def covers(self, cell: Cell) -> bool:
        """Whether the cell is one of them."""
        return cell.state in self.states and cell.event in self.events and cell.phase in self.phases


def _all_but(names: Iterable[str], *others: str) -> frozenset[str]:
    return frozenset(names) - frozenset(others)


_ANY_STATE, _ANY_PHASE = frozenset(STATES), frozenset(PHASES)
_MOVING = frozenset({"cut", "initiating", "terminating", "restoring"})
_FIN_SENT = frozenset({"FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT"})
_FIN_ACKED = frozenset({"FIN-WAIT-2", "TIME-WAIT"})
_FIN_RECEIVED = frozenset({"CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"})
_APPLICATIONS = frozenset({"send", "receive", "shutdown", "abort", "close"})
_DRIVERS = frozenset({"upload request", "upload all", "pause", "resume", "hold", "shortage", "failure"})

UNREACHABLE: tuple[Impossible, ...] = (
    Impossible(
        "Connection.offload does nothing unless the kernel has the connection.",
        _ANY_STATE,
        frozenset({"offload"}),
        _all_but(PHASES, "kernel"),
    ),
    Impossible(
        "Connection.upload does nothing unless the target has the connection.",
        _ANY_STATE,
        frozenset({"upload"}),
        _all_but(PHASES, "target"),
    ),
    Impossible(
        "A process has one thread, and a hand-over is one call in it: what the application does comes before it or "
        "after it.",
        _ANY_STATE,
        _APPLICATIONS,
        _MOVING,
    ),
    Impossible(
        "Drivers and targets have their turns while a hand-over waits for them, not while it is at work in the kernel.",
        _ANY_STATE,
        _DRIVERS,
        frozenset({"cut", "restoring"}),
    ),
    Impossible(
        "Requests go down when the initiate has completed, and have all come back when the terminate has: on the way "
        "out of the kernel, down, and back into it there is none that could complete.",
        _ANY_STATE,
        frozenset({"received"}),
        frozenset({"cut", "initiating", "restoring"}),
    ),
    Impossible(
        "Our FIN is behind everything that the application sends: it has closed its half before, and after that "
        "post_send raises BrokenPipeError, and shutdown ChimneyError.",
        _FIN_SENT,
        frozenset({"send", "shutdown"}),
        _ANY_PHASE,
    ),
    Impossible(
        "The peer's FIN is the end of its stream, and it has been received in sequence: there is no byte behind it "
        "(RFC 9293, 3.10.7.4: 'This should not occur since a FIN has been received from the remote side').",
        _FIN_RECEIVED,
        frozenset({"data", "data out of order"}),
        _ANY_PHASE,
    ),
    Impossible(
        "There are no bytes behind the peer's FIN whose acknowledgement could wait; the FIN's own, and what of bytes "
        "waits when it comes, is none of these.",
        _FIN_RECEIVED,
        frozenset({"delayed acknowledgement"}),
        _ANY_PHASE,
    ),
    Impossible(
        "Everything we have ever sent is acknowledged, our FIN included: no acknowledgement can be of something new "
        "(RFC 9293, 3.3.2: FIN-WAIT-2 and TIME-WAIT follow the acknowledgement of our FIN).",
        _FIN_ACKED,
        frozenset({"acknowledgement", "zero window"}),
        _ANY_PHASE,
    ),
    Impossible(
        "Everything we have ever sent is acknowledged, our FIN included: there is nothing to send again, and nothing "
        "that a closed window keeps back.",
        _FIN_ACKED,
        frozenset({"retransmits", "probes"}),
        _ANY_PHASE,
    ),
    Impossible(
        "A connection that is gone has no timers, and sends nothing but answers (RFC 9293, 3.10.7.1).",
        frozenset({"CLOSED"}),
        frozenset({"retransmits", "probes", "delayed acknowledgement"}),
        _ANY_PHASE,
    ),
)
"""What nothing can reach. Where two groups overlap, the first one's reason counts."""


@cache
def unreachable(cell: Cell) -> str | None:
    """Why nothing can reach a cell; None if something can. A cell that is none of the table's is unreachable, too."""
    if cell.state not in STATES or cell.event not in EVENTS or cell.phase not in PHASES:
        return "no such cell is in the table"
    return next((group.reason for group in UNREACHABLE if group.covers(cell)), None)


def cells() -> Iterator[Cell]:
    """Every cell of the table."""
    for state in STATES:
        for event in EVENTS:
            for phase in PHASES:
                yield Cell(state, event, phase)


@dataclass(frozen=True, slots=True)
class Totals:
    """How much of the table a campaign has seen: numbers of cells, and of visits."""

    cells: int
    reachable: int
    visited: int
    visits: int

    def __str__(self) -> str:
        share = 100 * self.visited / self.reachable
        return (
            f"{self.visited} of {self.reachable} reachable cells visited ({share:.1f} %), {self.visits:,} visits; "
            f"{self.cells - self.reachable} of {self.cells} cells cannot be reached"
        )


def totals(seen: Mapping[Cell, int]) -> Totals:
    """What has been seen of the table, in numbers; visits of cells that cannot be reached count as visits alone."""
    reachable = [cell for cell in cells() if unreachable(cell) is None]
    return Totals(TOTAL, len(reachable), sum(seen.get(cell, 0) > 0 for cell in reachable), sum(seen.values()))


def missed(seen: Mapping[Cell, int]) -> list[Cell]:
    """The reachable cells that nobody has visited, in the table's order."""
    return [cell for cell in cells() if unreachable(cell) is None and not seen.get(cell)]


_LETTERS = {"kernel": "k", "cut": "c", "initiating": "i", "target": "t", "terminating": "u", "restoring": "r"}


def table(seen: Mapping[Cell, int]) -> Table:
    """The coverage as a table for people: a row for each event, a column for each state, and in each field a character
    for each phase.
    """
    letters = ", ".join(f"[green]{letter}[/] {phase}" for phase, letter in _LETTERS.items())
    caption = (
        f"{totals(seen)}\nvisited while: {letters}; [bold yellow]-[/] not visited; · cannot be; "
        "[red]X[/] visited all the same"
    )
    made = Table(title="Coverage: event x state x phase of a hand-over", caption=caption)
    made.add_column("event", no_wrap=True)
    for state in STATES:
        made.add_column(state, justify="center", no_wrap=True)
    for event in EVENTS:
        made.add_row(event, *(_field(seen, state, event) for state in STATES))
    return made


def _field(seen: Mapping[Cell, int], state: str, event: str) -> str:
    marks = []
    for phase, letter in _LETTERS.items():
        cell = Cell(state, event, phase)
        visited = seen.get(cell, 0) > 0
        if unreachable(cell) is not None:
            marks.append("[red]X[/]" if visited else "[dim]·[/]")
        else:
            marks.append(f"[green]{letter}[/]" if visited else "[bold yellow]-[/]")
    return "".join(marks)


def summed(parts: Iterable[Mapping[Cell, int]]) -> Counter[Cell]:
    """The visits of several runs together."""
    made: Counter[Cell] = Counter()
    for part in parts:
        made.update(part)
    return made
