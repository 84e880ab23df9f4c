"""What the drivers above get of a disconnect's or forward's completion, and what they do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, NblView, Stage
from chimney.ndis.errors import Misuse
from chimney.verifier.books import COMPLETIONS, Completed
from chimney.verifier.check import Checks, enter, leave

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_KINDS = (Kind.DISCONNECT_COMPLETE, Kind.FORWARD_COMPLETE)


def _rule(crossing: Crossing, name: str) -> str:
    return f"{'disconnect' if crossing.kind is Kind.DISCONNECT_COMPLETE else 'forward'}.handler.{name}"


class CompletionHandlers(Checks):
    """ProtocolTcpOffloadDisconnectComplete and ProtocolTcpOffloadForwardComplete, at every boundary."""

    RULES = (
        "disconnect.handler.calls",
        "disconnect.handler.binding-context",
        "disconnect.handler.nbl",
        "disconnect.handler.void",
        "forward.handler.calls",
        "forward.handler.binding-context",
        "forward.handler.nbl",
        "forward.handler.void",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._handled: dict[int, int] = {}

    @enter(*_KINDS)
    def called(self, crossing: Crossing) -> None:
        self._handled[crossing.number] = 0

    @enter(*_KINDS, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        call = crossing.parent
        if call is None or call.kind is not crossing.kind or call.stage is not Stage.CALL:
            self.check(_rule(crossing, "calls"), False, "NDIS called the handler of its own accord", crossing)
            return
        self._handled[call.number] += 1
        self.check(
            _rule(crossing, "binding-context"),
            crossing.boundary is call.boundary,
            lambda: f"{crossing.boundary.protocol.name} is told of a completion that came over {call.boundary}",
            crossing,
        )
        entries: list[Completed] = call.notes
        single = crossing.kind is Kind.FORWARD_COMPLETE or len(crossing.nbls) == 1
        self.check(
            _rule(crossing, "nbl"),
            crossing.nbl is call.nbl and _same_lists(crossing.nbls, call.nbls) and single and _are_open(entries, call),
            "the handler got lists that are not those of its driver's requests",
            crossing,
        )

    @leave(*_KINDS)
    def returned(self, crossing: Crossing) -> None:
        handled = self._handled.pop(crossing.number, 0)
        if isinstance(crossing.raised, Misuse) and not handled:
            # Refused: nothing has changed hands.
            return
        self.check(
            _rule(crossing, "calls"),
            handled == 1 and _are_open(crossing.notes, crossing),
            lambda: f"{crossing.function} led to {handled} calls of the handler, or no request was open",
            crossing,
        )

    @leave(*_KINDS, stage=Stage.HANDLER)
    def answered(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            self.check(
                _rule(crossing, "void"),
                crossing.result is None and crossing.raised is None,
                lambda: f"{crossing.function} returned {crossing.result!r} or raised {crossing.raised!r}",
                crossing,
            )


def _same_lists(some: tuple[NblView, ...], others: tuple[NblView, ...]) -> bool:
    return len(some) == len(others) and all(a.nbl is b.nbl for a, b in zip(some, others, strict=True))


def _are_open(entries: list[Completed], crossing: Crossing) -> bool:
    """Whether each of these completes a request of this kind that had gone down over this boundary."""
    kind = COMPLETIONS[crossing.kind]
    return bool(entries) and all(entry.request is not None and entry.request.kind is kind for entry in entries)


class Contexts(Checks):
    """What an intermediate driver (or a host) has put on the context stack of a disconnect goes with its completion."""

    RULES = ("disconnect.handler.free-context",)

    @enter(Kind.DISCONNECT_COMPLETE)
    def passed_up(self, crossing: Crossing) -> None:
        driver = crossing.boundary.miniport.driver
        if driver is None:
            return
        for entry in crossing.notes:
            below = entry.request.below if entry.request is not None else None
            if below is not None and driver in below.view.contexts:
                self._freed(crossing, driver not in entry.view.contexts)

    @leave(Kind.DISCONNECT_COMPLETE, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        pending = self.books.of(crossing).requests
        for view in crossing.nbls:
            # A list that has been posted again has a context again.
            if view.contexts and id(view.nbl) not in pending:
                self._freed(crossing, view.nbl.context is None)

    def _freed(self, crossing: Crossing, ok: bool) -> None:
        message = "a context that was attached on the way down is still on the list"
        self.check("disconnect.handler.free-context", ok, message, crossing)
