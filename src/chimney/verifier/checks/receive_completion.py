"""Receive completions: what comes back, in which order, holding which bytes (10.2)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import TcpDelegated
from chimney.ndis.status import Status
from chimney.verifier.books import POISON, Completed, Operation, Request
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.receiving import misplaced, receiving
from chimney.verifier.relations import nodes
from chimney.verifier.streams import Stream
from chimney.verifier.violation import VerificationError, name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_LAST = "receive_completion: received"
# What one turn of a target takes at most.
_TURN_US = 1_000


class ReceiveCompletion(Checks):
    """Every list that a target gives to NdisTcpOffloadReceiveComplete."""

    RULES = (
        "recv.complete.origin",
        "recv.complete.handle",
        "recv.queue.fifo",
        "recv.complete.fifo",
        "recv.complete.prepare",
        "recv.complete.bytes",
        "recv.complete.advance",
        "recv.fill.fifo",
        "rx.order",
    )

    @enter(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            self._origin(crossing, entry)

    @leave(Kind.RECEIVE_COMPLETE)
    def returned(self, crossing: Crossing) -> None:
        """The books remember completed requests; their bytes would be too much."""
        for entry in crossing.notes:
            entry.delivered = b""

    def _origin(self, crossing: Crossing, entry: Completed) -> None:
        request, elsewhere = entry.request, entry.elsewhere
        if elsewhere is not None and not elsewhere.boundary.bottom:
            elsewhere = None
        self.check(
            "recv.complete.handle",
            elsewhere is None,
            lambda: f"a receive that was posted to {elsewhere and elsewhere.boundary.miniport.name} is completed here",
            crossing,
        )
        mine = request is not None and request.kind is Kind.RECEIVE
        self.check(
            "recv.complete.origin",
            mine or elsewhere is not None,
            "the list is no receive that is pending here: never posted, or completed before",
            crossing,
        )
        if mine:
            assert request is not None
            self._order(crossing, request)
            self._figures(crossing, entry, request)

    def _order(self, crossing: Crossing, request: Request) -> None:
        facts = request.stream.facts
        last = facts.get(_LAST, -1)
        for rule in ("recv.queue.fifo", "recv.complete.fifo"):
            self.check(
                rule,
                request.order > last,
                lambda: f"the receive posted as number {request.order} comes after number {last}",
                crossing,
                request.stream,
            )
        facts[_LAST] = max(last, request.order)

    def _figures(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        view, stream = entry.view, request.stream
        self.check("recv.complete.prepare", view.status != POISON, "no status was written", crossing, stream)
        count = view.bytes_transferred
        wrong = misplaced(entry, stream)
        for rule in ("recv.complete.bytes", "recv.fill.fifo", "rx.order"):
            self.check(rule, not wrong, wrong, crossing, stream)
        if len(view.buffers) != 1 or len(request.view.buffers) != 1:
            return
        (before, _, mdls), (after, left, mdls_now) = request.view.buffers[0], view.buffers[0]
        moved = after - before
        # Bytes that were there before count, but were not placed (A9).
        exact = moved in (count, count - request.prefilled)
        # Whatever the start has passed has been placed: the count is wrong then.
        rules = ["recv.complete.prepare", "recv.complete.advance", *(["recv.complete.bytes"] if moved > count else [])]
        for rule in rules:
            self.check(
                rule,
                exact,
                lambda: f"{count} bytes are reported, and the data start has moved by {moved}",
                crossing,
                stream,
            )
        self.check(
            "recv.complete.advance",
            mdls == mdls_now and moved + left == request.length,
            "the MDL chain or the buffer's end is not the one that was posted",
            crossing,
            stream,
        )


class ReceiveStatus(Checks):
    """What the status of a completed receive says, and what the target's state says then."""

    RULES = ("recv.complete.success", "recv.complete.aborted", "recv.complete.upload")

    @enter(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                if entry.request is not None and entry.request.kind is Kind.RECEIVE:
                    self._status(crossing, entry, entry.request)

    def _status(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        stream, status = request.stream, entry.view.status
        state = receiving(stream)
        aborted = stream.failed or stream.abort_event is not None or (state is not None and state.reset_seen)
        if status == Status.REQUEST_ABORTED:
            self.check(
                "recv.complete.aborted",
                aborted,
                "a receive ends with REQUEST_ABORTED, and nothing has happened to its connection",
                crossing,
                stream,
            )
            wrong = misplaced(entry, stream)
            self.check("recv.complete.aborted", not wrong, wrong, crossing, stream)
        if entry.view.bytes_transferred >= request.length:
            return
        late = status == Status.INVALID_STATE and stream.disconnect_event is not None
        if stream.abort_event is not None:
            self.check(
                "recv.complete.aborted",
                status == Status.REQUEST_ABORTED or late,
                lambda: f"after TcpIndicateAbort a receive ends with {name(status)}",
                crossing,
                stream,
            )
        elif stream.leaving and not aborted:
            ended = status == Status.SUCCESS and (stream.peer_closed or _was_on_its_way(crossing, entry, stream))
            self.check(
                "recv.complete.upload",
                status == Status.UPLOAD_IN_PROGRESS or late or ended,
                lambda: f"while the connection is uploaded a receive ends with {name(status)}",
                crossing,
                stream,
            )

    @enter(Kind.QUERY_COMPLETE, Kind.TERMINATE_COMPLETE)
    def reported(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item, _ in nodes(operation):
            state = block.delegated
            if item is not None and item.stream is not None and isinstance(state, TcpDelegated):
                if block.status == Status.SUCCESS and not item.stream.failed:
                    self._reported(crossing, item.stream, state.rcv_nxt)

    def _reported(self, crossing: Crossing, stream: Stream, rcv_nxt: int) -> None:
        if stream.receive.delivered:
            self.check(
                "recv.complete.success",
                stream.receive.position(rcv_nxt) >= stream.receive.delivered,
                lambda: (
                    f"{stream.receive.delivered} bytes are delivered, and RcvNxt stands at "
                    f"{stream.receive.position(rcv_nxt)}"
                ),
                crossing,
                stream,
            )


class ReceiveLists(Checks):
    """Which requests may come in one list: whoever is above has to take them apart."""

    RULES = ("recv.complete.batch", "recv.complete.split", "delivery.combine")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._raised: BaseException | None = None
        self._missing: dict[int, tuple[Request, tuple[str, ...], NetBufferList]] = {}

    @enter(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        partial: dict[int, Completed] = {}
        for entry in crossing.notes:
            request = entry.request
            if request is None or request.kind is not Kind.RECEIVE:
                continue
            earlier = partial.get(id(request.stream))
            if earlier is not None and not request.stream.peer_closed:
                self.check(
                    "delivery.combine",
                    False,
                    "a partly filled request stands before others in a completion",
                    crossing,
                    request.stream,
                )
            if entry.view.status == Status.SUCCESS and entry.view.bytes_transferred < request.length:
                partial[id(request.stream)] = entry

    @leave(Kind.RECEIVE_COMPLETE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        """At every boundary: the driver above has to cope with any list."""
        call = crossing.parent
        if call is None or not crossing.notes:
            return
        rules = _permitted(crossing.notes)
        raised = crossing.raised
        # An exception goes down through every layer: only the uppermost is at fault.
        fault = raised is not None and raised is not self._raised and not isinstance(raised, VerificationError)
        self._raised = raised
        for rule in rules:
            self.check(
                rule,
                not fault,
                lambda: f"{crossing.function} raised {raised!r} for a list of {len(crossing.nbls)}",
                crossing,
                culprit=crossing.boundary.protocol.name,
            )
        if rules and crossing.boundary.protocol.driver is not None:
            self._expect(crossing, rules)

    def _expect(self, crossing: Crossing, rules: tuple[str, ...]) -> None:
        """What an intermediate driver has not passed on yet has to follow, sooner or later."""
        for book in self.books.above(crossing.boundary):
            for view in crossing.nbls:
                request = book.requests.get(id(view.nbl))
                if request is not None:
                    self._missing[id(view.nbl)] = (request, rules, view.nbl)
        for key, (request, _, _) in list(self._missing.items()):
            if request.completed is not None:
                del self._missing[key]

    @finish
    def ended(self) -> None:
        for request, rules, _ in self._missing.values():
            if request.completed is None:
                for rule in rules:
                    self.check(
                        rule,
                        False,
                        "a receive that came up in such a list was not passed on",
                        request.posted,
                        request.stream,
                        culprit=request.boundary.miniport.name,
                    )
        self._missing.clear()
        self._raised = None


def _permitted(entries: list[Completed]) -> tuple[str, ...]:
    """Which of the target's permissions this list makes use of."""
    calls = Counter(id(e.request.posted) for e in entries if e.request is not None)
    rules = []
    if len(calls) > 1:
        rules.append("recv.complete.batch")
    if any(e.request is not None and calls[id(e.request.posted)] < len(e.request.posted.nbls) for e in entries):
        rules.append("recv.complete.split")
    last = entries[-1]
    if len(entries) > 1 and last.request is not None and last.view.status == Status.SUCCESS:
        if last.view.bytes_transferred < last.request.length and _filled(entries[0]):
            rules.append("delivery.combine")
    return tuple(rules)


def _filled(entry: Completed) -> bool:
    return entry.request is not None and 0 < entry.request.length <= entry.view.bytes_transferred


def _was_on_its_way(crossing: Crossing, entry: Completed, stream: Stream) -> bool:
    """Whether a receive may have had its data when the target asked for the upload, in the same turn."""
    asked = stream.mandatory
    if asked is None or stream.terminate is not None or not entry.view.bytes_transferred:
        return False
    return crossing.at - asked.at <= _TURN_US
