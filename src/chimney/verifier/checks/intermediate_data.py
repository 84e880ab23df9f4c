"""Data requests, completions, indications and events on their way through an intermediate driver (chapter 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chimney.ndis.crossing import Boundary, Crossing, Kind, Stage
from chimney.ndis.status import Status, TcpOffloadEvent
from chimney.verifier.books import COMPLETIONS, REQUESTS, BoundaryBook, Completed, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_REFUSED = (Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED)
_PROPAGATED = {
    Kind.DISCONNECT: "im.disconnect.propagate",
    Kind.FORWARD: "im.forward-completion.same-nbl",
}


# Facts of a connection: the serial number of what has come up last.
_UP = {kind: f"intermediate_data: up {kind.name}" for kind in REQUESTS}


class RequestsDown(Checks):
    """What a driver passes to the one below."""

    RULES = ("im.io.same-function", "im.io.own-handle", "im.send.no-memory.no-propagate")

    @enter(*REQUESTS)
    def passed_down(self, crossing: Crossing) -> None:
        if crossing.boundary.protocol.driver is None:
            return
        known = self.books.object(crossing)
        self.check("im.io.own-handle", known is not None, "the handle is none that this driver has offloaded", crossing)
        for request in crossing.notes:
            self._request(crossing, request)

    def _request(self, crossing: Crossing, request: Request) -> None:
        above = request.above
        if above is None:
            self._nobodys(crossing, request)
            return
        same = above.kind is request.kind and (request.kind is not Kind.DISCONNECT or above.flags == request.flags)
        self.check(
            "im.io.same-function",
            same,
            lambda: f"{above.kind.name} with flags {above.flags} became {request.kind.name} with {request.flags}",
            crossing,
            request.stream,
        )
        self.check(
            "im.io.own-handle",
            crossing.handle is not above.book.handle and request.book.stream is above.book.stream,
            "the handle is the upper driver's, or another connection's",
            crossing,
            request.stream,
        )

    def _nobodys(self, crossing: Crossing, request: Request) -> None:
        for book in self.books.above(crossing.boundary):
            done = book.done.get(id(request.nbl))
            if done is not None and done.nbl.status in _REFUSED:
                self.check(
                    "im.send.no-memory.no-propagate",
                    False,
                    "the list goes down although it has been given back",
                    crossing,
                    request.stream,
                )
        self.check("im.io.same-function", False, "the list is no request from above", crossing, request.stream)

    @enter(Kind.RECEIVE_RETURN)
    def returned(self, crossing: Crossing) -> None:
        """Receive-return names a binding: the one that the list was indicated over."""
        boundary = crossing.boundary
        if boundary.protocol.driver is None:
            return
        for view, note in zip(crossing.nbls, crossing.notes, strict=True):
            if note is None:
                others = [book for book in self.books.boundaries.values() if book.boundary is not boundary]
                siblings = [b for b in others if b.boundary.protocol.driver is boundary.protocol.driver]
                stray = any(id(view.nbl) in book.lent for book in siblings)
                self.check(
                    "im.io.own-handle", not stray, "a list is returned to another binding than its own", crossing
                )
            else:
                self.exercise("im.io.own-handle")


class CompletionsUp(Checks):
    """What a driver passes to the one above."""

    RULES = (
        "im.complete.same-function",
        "im.complete.own-handle",
        "im.complete.same-nbl",
        "im.disconnect.propagate",
        "im.disconnect.route",
        "im.forward-completion.same-nbl",
        "im.send.no-memory.first",
        "im.send.no-memory.rest",
        "im.send.no-memory.no-propagate",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._refusing: tuple[int, int] = (-1, 0)

    @enter(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            return
        kind = COMPLETIONS[crossing.kind]
        several = len(self._uppers(crossing.boundary)) > 1
        for entry in crossing.notes:
            self._entry(crossing, kind, entry, several)

    def _uppers(self, boundary: Boundary) -> list[BoundaryBook]:
        driver = boundary.miniport.driver
        return [book for book in self.books.boundaries.values() if book.boundary.miniport.driver is driver]

    def _entry(self, crossing: Crossing, kind: Kind, entry: Completed, several: bool) -> None:
        request = entry.request
        stray: Request | None = None
        if request is None:
            for book in self._uppers(crossing.boundary):
                stray = stray or book.requests.get(id(entry.view.nbl))
        self.check(
            "im.complete.own-handle",
            stray is None,
            lambda: f"the request came through {stray and stray.boundary.miniport.name}",
            crossing,
        )
        if kind is Kind.DISCONNECT and several:
            self.check("im.disconnect.route", stray is None, "the disconnect came from another interface", crossing)
        if request is None:
            if stray is None:
                self._same(crossing, kind, False, "the list is no request that is pending above the driver")
            return
        self.check(
            "im.complete.same-function",
            request.kind is kind,
            lambda: f"a {request.kind.name.lower()} request is completed as a {kind.name.lower()}",
            crossing,
            request.stream,
        )
        below = request.below
        if below is None:
            self._own_answer(crossing, request, entry.view.status)
            return
        self._own_answer_to_passed(crossing, request, entry.view.status)
        self._same(crossing, kind, below.completed is not None, "the driver below has not completed it")
        facts = request.book.facts
        fact = _UP[kind]
        last = facts.get(fact, 0)
        facts[fact] = max(last, below.serial)
        if below.completed is not None:
            order = (
                "" if below.serial >= last else f"completion {below.serial} goes up after {last} of the same connection"
            )
            self._same(crossing, kind, below.serial >= last, order)

    def _same(self, crossing: Crossing, kind: Kind, ok: bool, message: str) -> None:
        self.check("im.complete.same-nbl", ok, message, crossing)
        if kind in _PROPAGATED:
            self.check(_PROPAGATED[kind], ok, message, crossing)

    # Without memory

    def _own_answer(self, crossing: Crossing, request: Request, status: int) -> None:
        """The driver answers a request itself that it has not passed down."""
        if request.kind is not Kind.SEND or request.chained:
            return
        lists = request.posted.nbls
        if status in _REFUSED:
            passed = [r for r in request.posted.notes or () if r.below is not None]
            self.check(
                "im.send.no-memory.no-propagate",
                not passed,
                lambda: f"{len(passed)} of the {len(lists)} lists have been passed down",
                crossing,
                request.stream,
            )
        first = lists[0].nbl is request.nbl
        if first:
            self._refusing = (request.posted.number, status)
        elif self._refusing[0] != request.posted.number:
            return
        if self._refusing[1] == Status.UPLOAD_IN_PROGRESS:
            # It has asked for the upload before.
            return
        wanted = Status.REQUEST_UPLOAD if first else Status.UPLOAD_REQUESTED
        self.check(
            "im.send.no-memory.first" if first else "im.send.no-memory.rest",
            status == wanted,
            lambda: f"{name(status)} instead of {wanted.name}",
            crossing,
            request.stream,
        )

    def _own_answer_to_passed(self, crossing: Crossing, request: Request, status: int) -> None:
        if request.kind is Kind.SEND and status in _REFUSED and not request.chained:
            below = request.below
            assert below is not None
            self.check(
                "im.send.no-memory.no-propagate",
                below.completed is not None,
                "the list is with the driver below",
                crossing,
                request.stream,
            )

    @finish
    def finished(self) -> None:
        """What has come up to the driver has gone up from it."""
        for book in self.books.boundaries.values():
            if book.boundary.bottom:
                continue
            for request in book.requests.values():
                if request.below is not None and request.below.completed is not None:
                    where = request.book
                    self._lost(request.kind, where)

    def _lost(self, kind: Kind, where: ObjectBook) -> None:
        message = f"the completion of a {kind.name.lower()} has not been passed up"
        culprit = where.boundary.miniport.name
        self.check("im.complete.same-nbl", False, message, where, where, culprit)
        if kind in _PROPAGATED:
            self.check(_PROPAGATED[kind], False, message, where, where, culprit)


class CallEntries(Checks):
    """The driver's own count of what it remembers (``call_entries``), against the books."""

    RULES = ("im.complete.free-entry",)

    @leave(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        if crossing.parent is None and crossing.raised is None:
            self._consider(crossing.boundary)

    def _consider(self, boundary: Boundary) -> None:
        """From the boundary upward: every driver that has nothing under way on either side remembers nothing."""
        for upper in self.books.above(boundary):
            self._driver(upper, boundary.protocol.driver)
            self._consider(upper.boundary)

    def _driver(self, upper: BoundaryBook, driver: Any) -> None:
        entries = getattr(driver, "call_entries", None)
        if entries is None:
            return
        around = [
            b
            for b in self.books.boundaries.values()
            if driver in (b.boundary.protocol.driver, b.boundary.miniport.driver)
        ]
        if any(book.requests or book.operations for book in around):
            return
        self.check(
            "im.complete.free-entry",
            entries == 0,
            f"nothing is under way, and the driver has {entries} call entries",
            culprit=upper.boundary.miniport.name,
        )

    @finish
    def finished(self) -> None:
        for book in list(self.books.boundaries.values()):
            if book.boundary.miniport.driver is not None:
                self._driver(book, book.boundary.miniport.driver)


class Indications(Checks):
    """Received data and events on their way up."""

    RULES = ("im.indicate.propagate", "im.event.propagate")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._made: dict[int, list[Crossing]] = {}

    @enter(Kind.RECEIVE_INDICATE, stage=Stage.HANDLER)
    def arrived(self, crossing: Crossing) -> None:
        if crossing.boundary.protocol.driver is not None:
            self._made[crossing.number] = []

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            return
        driver = crossing.boundary.miniport.driver
        at = crossing.parent
        while at is not None and not (at.number in self._made and at.boundary.protocol.driver is driver):
            at = at.parent
        if at is not None:
            self._made[at.number].append(crossing)
        else:
            self.check("im.indicate.propagate", False, "no indication came from below", crossing)

    @leave(Kind.RECEIVE_INDICATE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        made = self._made.pop(crossing.number, None)
        if made is None or crossing.raised is not None:
            return
        item = self.books.object(crossing)
        if not made and item is not None and item.above is not None and item.above.operations:
            # The driver above does not know yet, or any more, that the connection is offloaded.
            declined = crossing.result[0] == Status.OFFLOAD_DATA_NOT_ACCEPTED
            self.check("im.indicate.propagate", declined, "not indicated, and not declined", crossing)
            return
        ok = (
            len(made) == 1
            and made[0].nbl is crossing.nbl
            and made[0].value == crossing.value
            and made[0].result == crossing.result
            and self._same_connection(made[0], item)
        )
        self.check("im.indicate.propagate", ok, lambda: _difference(crossing, made), crossing, item)

    def _same_connection(self, made: Crossing, item: ObjectBook | None) -> bool:
        upper = self.books.object(made)
        return upper is not None and item is not None and upper.stream is item.stream

    # Events: each goes up once, in order; a driver may ask for an upload itself

    @enter(Kind.EVENT, stage=Stage.HANDLER)
    def event_arrived(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if crossing.boundary.protocol.driver is not None and item is not None and item.above is not None:
            item.above.facts.setdefault("intermediate_data: events", []).append((crossing.value, crossing.information))

    @enter(Kind.EVENT)
    def event_made(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if crossing.boundary.bottom:
            return
        waiting = [] if item is None else item.facts.get("intermediate_data: events", [])
        event = (crossing.value, crossing.information)
        if waiting and waiting[0] == event:
            del waiting[0]
            self.exercise("im.event.propagate")
        elif crossing.value != TcpOffloadEvent.INDICATE_RETRIEVE:
            message = f"event {event} above, {waiting or 'none'} from below"
            self.check("im.event.propagate", False, message, crossing, item)

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        """An event that has not gone up by now never will."""
        if not crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None and item.ended:
                    self._swallowed(item, crossing)

    def _swallowed(self, item: ObjectBook, where: Crossing | ObjectBook) -> None:
        events = item.facts.pop("intermediate_data: events", None)
        if events:
            told = ", ".join(name(value, TcpOffloadEvent) for value, _ in events)
            message = f"events of the driver below were not passed up: {told}"
            self.check("im.event.propagate", False, message, where, item, item.boundary.miniport.name)

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for item in list(book.objects.values()):
                self._swallowed(item, item)


def _difference(crossing: Crossing, made: list[Crossing]) -> str:
    if len(made) != 1:
        return f"one indication from below, {len(made)} above"
    return (
        f"status {crossing.value:#x} and result {crossing.result} below, {made[0].value:#x} and {made[0].result} above"
    )
