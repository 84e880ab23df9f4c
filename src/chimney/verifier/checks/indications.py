"""Receive indications: their shape, the host's verdicts, and the way back of what the host has kept (10.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import TcpCached
from chimney.ndis.status import Status
from chimney.verifier.books import COMPLETIONS
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.receiving import receiving
from chimney.verifier.recent import Recent
from chimney.verifier.relations import view_bytes
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_REMEMBERED = 256
_REFUSED = int(Status.OFFLOAD_DATA_NOT_ACCEPTED)
_PARTLY = int(Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED)


Lists = Recent[tuple[int, int], tuple[NetBufferList, str]]
"""Lists by the number of a boundary and their id, each with a word about it."""


def _word(kept: Lists, boundary: int, nbl: NetBufferList) -> str:
    known = kept.get((boundary, id(nbl)))
    return "" if known is None else known[1]


class Indications(Checks):
    """What a target indicates."""

    RULES = ("indicate.single-nbl", "indicate.status", "indicate.size", "rx.order")

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        views = crossing.nbls
        alone = len(views) == 1 and views[0].next is None and len(views[0].buffers) == 1
        self.check("indicate.single-nbl", alone, f"an indication of {len(views)} lists", crossing)
        ok = crossing.value == Status.SUCCESS
        self.check("indicate.status", ok, lambda: f"an indication with {name(crossing.value)}", crossing)
        item = self.books.object(crossing)
        if item is None or item.stream is None:
            return
        stream = item.stream
        length = sum(view.length for view in views)
        if not stream.receive.unsure:
            self.check(
                "rx.order",
                view_bytes(views, length) == stream.receive.content[:length],
                f"{length} bytes are indicated, and they are not what the peer has sent next",
                crossing,
                stream,
            )
        preferred = item.cached.rcv_indication_size if isinstance(item.cached, TcpCached) else 0
        state = receiving(stream)
        if preferred and state is not None:
            # About: as many segments as it takes.
            self.check(
                "indicate.size",
                length <= max(2 * preferred, preferred + state.largest),
                f"{length} bytes are indicated, about {preferred} are wanted",
                crossing,
                stream,
            )


class Verdicts(Checks):
    """How a host answers, and what it gives back."""

    RULES = ("indicate.accepted", "indicate.refused", "indicate.partial", "indicate.return-all")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._kept_below: Lists = Recent(_REMEMBERED)

    @leave(Kind.RECEIVE_INDICATE, stage=Stage.HANDLER)
    def answered(self, crossing: Crossing) -> None:
        if not crossing.boundary.top or not isinstance(crossing.result, tuple) or crossing.nbl is None:
            return
        status, consumed = crossing.result
        length = sum(view.length for view in crossing.nbls)
        number = crossing.boundary.number
        text = f"{consumed} of {length} bytes consumed, with {name(status)}"
        if status == Status.SUCCESS:
            self._kept_below.pop((number, id(crossing.nbl)), None)
            self.check("indicate.accepted", consumed == length, text, crossing)
        elif status == _REFUSED:
            self._kept_below[number, id(crossing.nbl)] = (crossing.nbl, "indicate.refused")
            self.check("indicate.refused", consumed == 0, text, crossing)
        elif status == _PARTLY:
            self._kept_below[number, id(crossing.nbl)] = (crossing.nbl, "indicate.partial")
            self.check("indicate.partial", 0 < consumed < length, text, crossing)
        else:
            self.check("indicate.accepted", False, text, crossing)

    @enter(Kind.RECEIVE_RETURN)
    def returned(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        for view, lent in zip(crossing.nbls, crossing.notes, strict=True):
            if lent is not None:
                self.exercise("indicate.return-all")
                continue
            rule = _word(self._kept_below, crossing.boundary.number, view.nbl) or "indicate.return-all"
            self.check(rule, False, "a list is returned that was not lent, or has been returned before", crossing)

    @finish
    def ended(self) -> None:
        for book in list(self.books.boundaries.values()):
            if not book.boundary.top:
                continue
            for _, crossing, stream in book.lent.values():
                if crossing.kind is Kind.RECEIVE_INDICATE:
                    self.check(
                        "indicate.return-all",
                        False,
                        "the list of an accepted indication is not returned",
                        crossing,
                        stream,
                    )
        self._kept_below.clear()


class Returns(Checks):
    """How a target takes lists back."""

    RULES = ("indicate.return.success", "indicate.return.no-completion")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._returned: Lists = Recent(_REMEMBERED)

    @enter(Kind.RECEIVE_RETURN, stage=Stage.HANDLER)
    def returning(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for view in crossing.nbls:
                self._returned[crossing.boundary.number, id(view.nbl)] = (view.nbl, "returned")

    @leave(Kind.RECEIVE_RETURN, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        call = crossing.parent
        if not crossing.boundary.bottom or call is None or not call.notes:
            return
        if all(lent is not None for lent in call.notes):
            self.check(
                "indicate.return.success",
                crossing.raised is None and crossing.result == Status.SUCCESS,
                lambda: f"MiniportTcpOffloadReceiveReturn: {crossing.raised or crossing.result!r}",
                crossing,
            )
            self.exercise("indicate.return.no-completion")

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        """It may use them again."""
        for view in crossing.nbls:
            self._returned.pop((crossing.boundary.number, id(view.nbl)), None)

    @enter(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            if entry.request is None and _word(self._returned, crossing.boundary.number, entry.view.nbl):
                self.check(
                    "indicate.return.no-completion",
                    False,
                    f"a returned list comes up by {crossing.function}",
                    crossing,
                )

    @finish
    def ended(self) -> None:
        self._returned.clear()
