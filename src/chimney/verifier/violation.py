"""What is said when a rule is broken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from chimney.ndis.crossing import Crossing, Kind, NblView, Stage
from chimney.ndis.status import (
    DisconnectFlags,
    IndicateOffloadEvent,
    Status,
    StatusIndication,
    TcpOffloadEvent,
    UploadReason,
)
from chimney.verifier.books import COMPLETIONS, POISON
from chimney.verifier.catalogue import Rule
from chimney.verifier.packets import Packet


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: ``culprit`` broke it, ``connection`` is its label (empty: none in particular), ``message`` what
    was seen, ``at`` when (us), ``history`` the crossings and packets up to then, oldest first, one line each.
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
            f"  at {self.at} us, after:",
            *(f"    {line}" for line in self.history),
        ]
        return "\n".join(lines)


class RuleViolation(UserWarning):
    """A broken rule, as a warning."""


class VerifierFailure(RuntimeWarning):
    """The verifier itself has failed, which is a bug of its own."""


class VerificationError(AssertionError):
    """A broken rule, where the verifier is to stop at once; ``violation`` has it."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation


def line(event: Crossing | Packet, about: str = "") -> str:
    """A crossing or packet in one line; ``about`` names the connections it is about.

    ``v`` goes down, ``^`` up; a single one is a driver's call of NDIS, a double one NDIS's call of a handler.
    """
    if isinstance(event, Packet):
        return f"{event.at:>12} us  {event}"
    arrow = "v" if event.kind.down else "^"
    if event.stage is Stage.HANDLER:
        arrow *= 2
    words = [f"{event.at:>12} us  {arrow:<2} {event.boundary}: {event.function}"]
    if about:
        words.append(f"on {about}")
    if event.nbls:
        words.append(f"({_lists(event)})")
    if event.kind in _VALUES and (event.value or event.kind is Kind.DISCONNECT):
        words.append(name(event.value, _VALUES[event.kind]))
    if event.kind is Kind.EVENT and event.information is not None:
        retrieve = event.value == TcpOffloadEvent.INDICATE_RETRIEVE
        words.append(name(event.information, UploadReason) if retrieve else str(event.information))  # type: ignore[arg-type]
    if event.kind in (Kind.OID, Kind.OID_COMPLETE):
        words.append(f"({event.information})")
    if event.blocks:
        words.append(f"[{', '.join(f'{b.type.name} {name(b.status)}' for b in event.blocks)}]")
    if event.raised is not None:
        words.append(f"raised {type(event.raised).__name__}")
    elif event.ended and event.result is not None:
        words.append(f"-> {_result(event.result)}")
    return " ".join(words)


_VALUES: dict[Kind, type[IntEnum] | type[DisconnectFlags]] = {
    Kind.DISCONNECT: DisconnectFlags,
    Kind.EVENT: TcpOffloadEvent,
    Kind.OFFLOAD_EVENT: IndicateOffloadEvent,
    Kind.STATUS: StatusIndication,
    Kind.RECEIVE_INDICATE: Status,
    Kind.OID_COMPLETE: Status,
}


def _lists(event: Crossing) -> str:
    views: tuple[NblView, ...] = event.nbls
    if event.kind in COMPLETIONS:
        size = f"{sum(view.bytes_transferred for view in views)} bytes transferred"
    else:
        size = f"{sum(view.length for view in views)} bytes"
    words = [f"{len(views)} lists" if len(views) > 1 else "1 list", size]
    # On the way down a status says nothing.
    if not event.kind.down:
        words += sorted({name(view.status) for view in views})
    return ", ".join(words)


def _result(result: object) -> str:
    if isinstance(result, tuple):
        status, *rest = result
        return ", ".join([_result(status), *(str(part) for part in rest if isinstance(part, int))])
    return name(result) if isinstance(result, int) else type(result).__name__


def name(value: int, kind: type[IntEnum] | type[DisconnectFlags] = Status) -> str:
    """A status, or a value of another enumeration, by name; a status that nobody has written is "unset"."""
    if value == POISON:
        return "unset"
    try:
        return kind(value).name or str(value)
    except (ValueError, TypeError):
        return f"{value:#x}" if isinstance(value, int) else repr(value)
