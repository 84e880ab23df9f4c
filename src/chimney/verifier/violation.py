"""What is said when a rule is broken."""

from __future__ import annotations

from dataclasses import dataclass

from chimney.ndis.crossing import Crossing, Stage
from chimney.ndis.status import Status
from chimney.verifier.catalogue import Rule
from chimney.verifier.packets import Packet


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: ``culprit`` broke it, ``connection`` is its label (empty: none in particular), ``message`` what
    was seen, ``history`` the crossings and packets before it, oldest first, one line each.
    """

    rule: Rule
    culprit: str
    connection: str
    message: str
    at: int
    history: tuple[str, ...]

    def __str__(self) -> str:
        where = f" on {self.connection}" if self.connection else ""
        lines = [
            f"{self.rule.id}: {self.rule.title}",
            f"  broken by {self.culprit}{where}: {self.message}",
            f"  rule: {self.rule.rule}",
            f"  source: {self.rule.source}",
            "  before it:",
            *(f"    {line}" for line in self.history),
        ]
        return "\n".join(lines)


class RuleViolation(UserWarning):
    """A broken rule, as a warning."""


class VerificationError(AssertionError):
    """A broken rule, where the verifier is to stop at once; ``violation`` has it."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation


def line(event: Crossing | Packet) -> str:
    """A crossing or packet in one line."""
    if isinstance(event, Packet):
        return f"{event.at:>12} us  {event}"
    arrow = "v" if event.kind.down else "^"
    if event.stage is Stage.HANDLER:
        arrow *= 2
    words = [f"{event.at:>12} us  {arrow:<2} {event.boundary}: {event.function}"]
    if event.nbls:
        words.append(f"({len(event.nbls)} x {event.nbls[0].length} bytes, {name(event.nbls[0].status)})")
    if event.value:
        words.append(f"value {event.value:#x}")
    if event.blocks:
        words.append(f"[{', '.join(f'{b.type.name} {name(b.status)}' for b in event.blocks)}]")
    if event.raised is not None:
        words.append(f"raised {type(event.raised).__name__}")
    elif event.ended and event.result is not None:
        words.append(f"-> {event.result}")
    return " ".join(words)


def name(status: int) -> str:
    """A status by name."""
    try:
        return Status(status).name
    except ValueError:
        return f"{status:#x}"
