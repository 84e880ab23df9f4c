"""What follows when the state of a connection is lost: five steps, in order (9.8)."""

from __future__ import annotations

from dataclasses import dataclass

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.status import Status, TcpOffloadEvent, UploadReason
from chimney.verifier.books import ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, segment
from chimney.verifier.overdue import Debt
from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream
from chimney.verifier.violation import name

_PROMPT_US = 1_000_000
_LOST = "hardware_failure: lost"


@dataclass(slots=True, eq=False)
class _Failure:
    """A connection whose query, invalidate or terminate has failed, and what has followed."""

    operation: Crossing
    debt: Debt
    asked: Crossing | None = None
    aborted: Crossing | None = None
    taken_back: Crossing | None = None


class HardwareFailures(Checks):
    """FAILURE, TcpIndicateRetrieve, TcpIndicateAbort; then, in the terminate, the requests, and its completion."""

    RULES = ("hwfail.sequence",)

    @segment
    def seen(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        stream.facts["hardware_failure: link"] = packet.link

    @enter(Kind.QUERY_COMPLETE, Kind.INVALIDATE_COMPLETE, Kind.TERMINATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            stream = None if item is None else item.stream
            if stream is None:
                continue
            failure: _Failure | None = stream.facts.get(_LOST)
            if view.status == Status.FAILURE and failure is None:
                self._lost(crossing, operation, stream)
            elif view.status == Status.SUCCESS and failure is not None and operation.kind is Kind.TERMINATE:
                self._ended(crossing, view, failure, stream)

    def _lost(self, crossing: Crossing, operation: Operation, stream: Stream) -> None:
        debt = Debt(stream, self._not_told, _PROMPT_US)
        failure = stream.facts[_LOST] = _Failure(crossing, debt)
        early = stream.hardware_failure
        if early is not None:
            failure.asked = early
            self.check(
                "hwfail.sequence",
                early.number < operation.call.number,
                "TcpIndicateRetrieve(HardwareFailure) comes before the operation is completed with FAILURE",
                early,
                stream,
            )
        link = stream.facts.get("hardware_failure: link")
        if link is not None:
            self.verifier.debts.owe(debt, link, crossing.at)

    @enter(Kind.EVENT)
    def told(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        failure: _Failure | None = None if found is None else found[1].facts.get(_LOST)
        if found is None or failure is None:
            return
        stream = found[1]
        asked = crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE
        if asked and crossing.information == UploadReason.HARDWARE_FAILURE and failure.asked is None:
            failure.asked = crossing
        elif crossing.value == TcpOffloadEvent.INDICATE_ABORT and failure.aborted is None:
            failure.aborted = crossing
            failure.debt.settle()
            text = "TcpIndicateAbort comes before TcpIndicateRetrieve(HardwareFailure)"
            self.check("hwfail.sequence", failure.asked is not None, text, crossing, stream)

    def _not_told(self, debt: Debt) -> None:
        failure: _Failure = debt.stream.facts[_LOST]
        if failure.taken_back is None:
            text = "the host is not told of it by TcpIndicateRetrieve and TcpIndicateAbort"
            self.check("hwfail.sequence", False, text, failure.operation, debt.stream)

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def taken_back(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                failure: _Failure | None = stream.facts.get(_LOST)
                if failure is not None:
                    failure.taken_back = crossing

    @enter(Kind.SEND_COMPLETE, Kind.RECEIVE_COMPLETE)
    def request_ended(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                if entry.request is not None and entry.request.kind in (Kind.SEND, Kind.RECEIVE):
                    self._request_ended(crossing, entry.view.status, entry.request)

    def _request_ended(self, crossing: Crossing, status: int, request: Request) -> None:
        failure: _Failure | None = request.stream.facts.get(_LOST)
        if failure is None:
            return
        what = request.kind.name.lower()
        # A receive after the end of the stream has a status of its own; an abort may end requests at once, too (11.1).
        self.check(
            "hwfail.sequence",
            status in (Status.REQUEST_ABORTED, Status.INVALID_STATE),
            lambda: f"a {what} of a connection whose state is lost ends with {name(status)}",
            crossing,
            request.stream,
        )
        self.check(
            "hwfail.sequence",
            failure.aborted is not None,
            lambda: f"a {what} of a connection whose state is lost ends before TcpIndicateAbort",
            crossing,
            request.stream,
        )

    def _ended(self, crossing: Crossing, view: BlockView, failure: _Failure, stream: Stream) -> None:
        failure.debt.settle()
        self.check(
            "hwfail.sequence",
            failure.asked is not None and failure.aborted is not None and not view.chain,
            lambda: (
                f"{len(view.chain)} sends come back in the chain"
                if view.chain
                else "the terminate completes before TcpIndicateRetrieve and TcpIndicateAbort"
            ),
            crossing,
            stream,
        )
