"""What a run has shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from chimney.sim.case import Case


class Cell(NamedTuple):
    """Where a connection was when something happened to it: the state of the connection (RFC 9293's names), what
    happened, and how far a hand-over was (`chimney.sim.coverage` has the lists).
    """

    state: str
    event: str
    phase: str


@dataclass(slots=True, frozen=True)
class Finding:
    """An invariant was broken. ``kind`` is its name; "rule: id" for one of the verifier's, "crash: exception's name"
    for an exception. ``event`` is the number of the event, ``at`` the time in microseconds since the start.
    """

    kind: str
    message: str
    event: int
    at: int

    def __str__(self) -> str:
        return f"{self.kind} (event {self.event}, {self.at / 1000:.3f} ms): {self.message}"


@dataclass(slots=True)
class Outcome:
    """What one run has shown. ``simulated_us`` is the virtual time that it took, ``segments`` counts those on the wire,
    ``hand_overs`` those that took place; ``rules`` how often the verifier had each rule to check.
    """

    case: Case
    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    segments: int = 0
    simulated_us: int = 0
    hand_overs: int = 0
    bytes_delivered: int = 0
    cells: Counter[Cell] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
