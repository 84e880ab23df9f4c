"""The four completions of data requests: what a target gives to NDIS, and what NDIS makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, NblView, Stage
from chimney.ndis.errors import Misuse
from chimney.verifier.books import COMPLETIONS, Completed
from chimney.verifier.check import Checks, enter, leave

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier


class Completions(Checks):
    """What a target passes to a completion function."""

    RULES = ("io.complete.functions", "io.complete.arguments", "io.complete.nbl-shape")

    @enter(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        self.check("io.complete.arguments", crossing.nbl is not None, "completed without a list", crossing)
        for entry in crossing.notes:
            self._entry(crossing, entry)

    def _entry(self, crossing: Crossing, entry: Completed) -> None:
        request, elsewhere = entry.request, entry.elsewhere
        stray = request is None and elsewhere is not None and elsewhere.boundary.bottom
        self.check(
            "io.complete.arguments",
            not stray,
            lambda: f"the handle is not that of {elsewhere and elsewhere.boundary.miniport.name}",
            crossing,
        )
        if request is None:
            return
        kind = COMPLETIONS[crossing.kind]
        self.check(
            "io.complete.functions",
            request.kind is kind,
            lambda: f"a {request.kind.name.lower()} request is completed as a {kind.name.lower()}",
            crossing,
            request.stream,
        )
        before, after = request.view.buffers, entry.view.buffers
        shape = [mdls for _, _, mdls in after] == [mdls for _, _, mdls in before]
        self.check(
            "io.complete.nbl-shape",
            shape and (len(after) == 1 or request.kind is Kind.SEND),
            lambda: f"{_shape(request.view)} went down, {_shape(entry.view)} come back, or they are others",
            crossing,
            request.stream,
        )


def _shape(view: NblView) -> str:
    return f"{len(view.buffers)} NetBuffers over {sum(len(mdls) for _, _, mdls in view.buffers)} MDLs"


class Delivery(Checks):
    """What NDIS does with a completion: one call of the matching handler above, with the same list, and no result."""

    RULES = (
        "send.complete.void",
        "io.complete.ndis-up",
        "io.complete.ndis-args",
        "im.disconnect.delivered",
        "im.forward-completion.delivered",
        "im.complete.host-gets-same",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._handled: dict[int, list[Crossing]] = {}

    @enter(*COMPLETIONS)
    def called(self, crossing: Crossing) -> None:
        self._handled[crossing.number] = []

    @enter(*COMPLETIONS, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        call = crossing.parent
        if call is not None and call.number in self._handled:
            self._handled[call.number].append(crossing)

    @leave(*COMPLETIONS)
    def returned(self, crossing: Crossing) -> None:
        handled = self._handled.pop(crossing.number, [])
        if isinstance(crossing.raised, Misuse) and not handled:
            # Refused: nothing has changed hands.
            return
        matching = [h for h in handled if h.kind is crossing.kind and h.boundary is crossing.boundary]
        up = len(matching) == len(handled) == 1
        self.check(
            "io.complete.ndis-up",
            up,
            lambda: f"{crossing.function} led to {', '.join(str(h.function) for h in handled) or 'no call'}",
            crossing,
        )
        same = up and _same(crossing, matching[0])
        self._arguments(crossing, same)
        if crossing.raised is None:
            self.check(
                "send.complete.void",
                crossing.result is None,
                lambda: f"{crossing.function} returned {crossing.result!r}",
                crossing,
            )

    def _arguments(self, crossing: Crossing, same: bool) -> None:
        message = "the handler above got another binding, or other lists, than the completion function was given"
        boundary = crossing.boundary
        self.check("io.complete.ndis-args", same, message, crossing)
        if boundary.bottom:
            return
        if crossing.kind is Kind.DISCONNECT_COMPLETE:
            self.check("im.disconnect.delivered", same, message, crossing)
        elif crossing.kind is Kind.FORWARD_COMPLETE:
            self.check("im.forward-completion.delivered", same, message, crossing)
        if boundary.top:
            self.check("im.complete.host-gets-same", same, message, crossing)


def _same(call: Crossing, handler: Crossing) -> bool:
    """Whether the handler got the very lists that the function was given, on the binding of the same name."""
    return (
        handler.boundary is call.boundary
        and handler.nbl is call.nbl
        and len(handler.nbls) == len(call.nbls)
        and all(one.nbl is other.nbl for one, other in zip(handler.nbls, call.nbls, strict=True))
    )
