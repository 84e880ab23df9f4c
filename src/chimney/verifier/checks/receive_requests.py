"""Receive requests on their way down, and whether all of them come back (10.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, NblView, Stage
from chimney.ndis.errors import Misuse
from chimney.ndis.status import Status
from chimney.verifier.books import Operation, Request
from chimney.verifier.check import Checks, enter, finish, leave
from chimney.verifier.receiving import receiving
from chimney.verifier.relations import nodes, within
from chimney.verifier.streams import Stream
from chimney.verifier.violation import VerificationError

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier


class ReceiveHosts(Checks):
    """How a host posts receives."""

    RULES = ("recv.one-nb", "recv.prefilled", "recv.host.serialized")

    @enter(Kind.RECEIVE)
    def called(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        for view in crossing.nbls:
            self._shape(crossing, view)
        outer = crossing.parent
        while outer is not None:
            inside = outer.kind is Kind.RECEIVE and outer.stage is Stage.CALL and outer.handle is crossing.handle
            if inside and outer.boundary is crossing.boundary:
                break
            outer = outer.parent
        self.check(
            "recv.host.serialized", outer is None, "a receive call within a receive call of this connection", crossing
        )

    def _shape(self, crossing: Crossing, view: NblView) -> None:
        self.check(
            "recv.one-nb",
            len(view.buffers) == 1,
            lambda: f"a receive request with {len(view.buffers)} NetBuffers",
            crossing,
        )
        if not view.no_push:
            self.check(
                "recv.prefilled",
                view.bytes_transferred == 0,
                lambda: f"a push request that says to hold {view.bytes_transferred} bytes already",
                crossing,
            )


class ReceiveCalls(Checks):
    """How a target takes them."""

    RULES = ("recv.pending-only", "recv.host.pipelined", "recv.complete.reentrant-post")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._from_above: BaseException | None = None

    @leave(Kind.RECEIVE_COMPLETE, Kind.RECEIVE_INDICATE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        """What a handler raises that a target calls within the receive call is not the target's refusal."""
        self._from_above = crossing.raised

    @leave(Kind.RECEIVE, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        requests: list[Request] = crossing.notes
        if not crossing.boundary.bottom or not requests:
            return
        raised = crossing.raised
        if raised is None:
            self.check(
                "recv.pending-only",
                crossing.result == Status.PENDING,
                lambda: f"MiniportTcpOffloadReceive returned {crossing.result!r}",
                crossing,
            )
        # Misuse is the host's fault.
        taken = raised is None or raised is self._from_above or isinstance(raised, (Misuse, VerificationError))
        state = receiving(requests[0].stream)
        if state is None:
            return
        if state.head is not None and state.head.posted is not requests[0].posted:
            self.check("recv.host.pipelined", taken, lambda: f"a further receive was refused: {raised!r}", crossing)
        upcall = state.upcall
        if upcall is not None and upcall.kind is Kind.RECEIVE_COMPLETE and within(crossing, upcall):
            self.check(
                "recv.complete.reentrant-post",
                taken,
                lambda: f"a receive posted within {upcall.function} was refused: {raised!r}",
                crossing,
            )


class ReceiveBalance(Checks):
    """Every receive comes back, by its completion function, and before its connection does."""

    RULES = ("recv.complete-all", "recv.complete.purpose", "recv.after-fin", "recv.complete.reentrant-post")

    @enter(Kind.SEND_COMPLETE, Kind.DISCONNECT_COMPLETE, Kind.FORWARD_COMPLETE)
    def completed_otherwise(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                if entry.request is not None and entry.request.kind is Kind.RECEIVE:
                    self._strayed(crossing, crossing.function)

    @enter(Kind.RECEIVE_INDICATE, Kind.ORDINARY_RECEIVE)
    def indicated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            book = self.books.of(crossing)
            for view in crossing.nbls:
                request = book.requests.get(id(view.nbl))
                if request is not None and request.kind is Kind.RECEIVE:
                    self._strayed(crossing, crossing.function)

    @enter(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            self.exercise("recv.complete.purpose")
            for entry in crossing.notes:
                if entry.request is not None and entry.request.kind is Kind.RECEIVE:
                    self._after_fin(crossing, entry.request, entry.view.status)

    def _strayed(self, crossing: Crossing, how: str) -> None:
        self.check("recv.complete.purpose", False, f"a posted receive comes back by {how}", crossing)

    def _after_fin(self, crossing: Crossing, request: Request, status: int) -> None:
        stream = request.stream
        event = stream.disconnect_event
        if event is None or request.posted.number < event.number or event.number in request.inside:
            return
        if stream.failed or stream.leaving or stream.abort_event is not None:
            return
        self.check(
            "recv.after-fin",
            status == Status.INVALID_STATE,
            lambda: f"a receive posted after TcpIndicateDisconnect completes with {status:#x}",
            crossing,
            stream,
        )

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        book = self.books.of(crossing)
        for block, item, _ in nodes(operation):
            if item is None or item.stream is None:
                continue
            for view in block.chain:
                request = book.done.get(id(view.nbl))
                if request is not None and request.returned_in_chain and request.kind is Kind.RECEIVE:
                    self._strayed(crossing, "a NetBufferListChain")
            if block.status == Status.SUCCESS and item.orders.get(Kind.RECEIVE, 0):
                self._left(crossing, item.stream, book.open_requests(item, Kind.RECEIVE))

    def _left(self, crossing: Crossing, stream: Stream, requests: list[Request]) -> None:
        self.check(
            "recv.complete-all",
            not requests,
            lambda: f"{len(requests)} receive requests are left with the target",
            crossing,
            stream,
        )
        for request in requests:
            if request.reentrant:
                self.check(
                    "recv.complete.reentrant-post",
                    False,
                    "a receive posted within a completion is never completed",
                    crossing,
                    stream,
                )

    @finish
    def ended(self) -> None:
        for book in list(self.books.boundaries.values()):
            if not book.boundary.bottom:
                continue
            left: dict[int, list[Request]] = {}
            for request in book.requests.values():
                if request.kind is Kind.RECEIVE and request.stream.terminated is None:
                    left.setdefault(id(request.stream), []).append(request)
            for requests in left.values():
                self._left(requests[-1].posted, requests[0].stream, requests)
