"""Disconnect requests and their completions (10.5, 10.6)."""

from __future__ import annotations

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.errors import Misuse
from chimney.ndis.status import DisconnectFlags, Status, TcpConnectionState
from chimney.verifier.books import Completed, Operation, Request
from chimney.verifier.check import Checks, enter, leave
from chimney.verifier.streams import FIN_SENT, Stream
from chimney.verifier.violation import name

_GRACEFUL = DisconnectFlags.GRACEFUL_CLOSE
_ABORTIVE = DisconnectFlags.ABORTIVE_CLOSE
_DISCONNECTS = "disconnect: disconnects"


def both_closed(stream: Stream) -> bool:
    """Whether both sides have closed in order: an abort sends nothing then (RFC 9293, 3.10.5)."""
    closing = stream.graceful is not None or stream.delegated.state in FIN_SENT
    return stream.peer_closed and closing


class DisconnectRequests(Checks):
    """NdisOffloadTcpDisconnect itself."""

    RULES = (
        "disconnect.pending-only",
        "disconnect.single-nbl",
        "disconnect.abort.no-data",
        "disconnect.host.no-reissue",
        "disconnect.no-refusal",
    )

    @enter(Kind.DISCONNECT)
    def called(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        buffers = sum(len(view.buffers) for view in crossing.nbls)
        self.check(
            "disconnect.single-nbl",
            len(crossing.nbls) == 1 and buffers == 1 and crossing.value in (_GRACEFUL, _ABORTIVE),
            lambda: f"{len(crossing.nbls)} lists with {buffers} NetBuffers, flags {crossing.value:#x}",
            crossing,
        )
        if crossing.value == _ABORTIVE:
            length = sum(view.length for view in crossing.nbls)
            self.check(
                "disconnect.abort.no-data", length == 0, lambda: f"an abort with {length} bytes of data", crossing
            )
        item = self.books.object(crossing)
        if item is not None:
            before = item.facts.get(_DISCONNECTS, {}).get(crossing.value)
            self.check(
                "disconnect.host.no-reissue",
                before is None,
                "the second disconnect of this kind during one offload",
                crossing,
            )

    @leave(Kind.DISCONNECT)
    def taken(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if crossing.boundary.top and item is not None and crossing.raised is None:
            item.facts.setdefault(_DISCONNECTS, {})[crossing.value] = crossing

    @leave(Kind.DISCONNECT, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        if crossing.raised is None:
            self.check(
                "disconnect.pending-only",
                crossing.result == Status.PENDING,
                lambda: f"MiniportTcpOffloadDisconnect returned {crossing.result!r}",
                crossing,
            )
        elif not isinstance(crossing.raised, (Misuse, ValueError)):
            self.check("disconnect.no-refusal", False, lambda: f"it raised {crossing.raised!r}", crossing)


class DisconnectCompletions(Checks):
    """Every list that a target gives to NdisTcpOffloadDisconnectComplete."""

    RULES = (
        "disconnect.complete.own-nbl-only",
        "disconnect.abort.rst",
        "disconnect.abort.success",
        "disconnect.abort.sends-first",
        "disconnect.graceful.sends-first",
        "disconnect.graceful.success",
        "disconnect.graceful.other-status",
        "disconnect.graceful.bytes",
        "disconnect.no-refusal",
    )

    @enter(Kind.DISCONNECT_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        entries: list[Completed] = crossing.notes
        request = entries[0].request if entries else None
        own = len(entries) == 1 and request is not None and request.kind is Kind.DISCONNECT
        self.check(
            "disconnect.complete.own-nbl-only",
            own,
            "what is completed is not the one list of a disconnect that is pending here",
            crossing,
        )
        if not own or request is None:
            return
        if request.flags == _ABORTIVE:
            self._abortive(crossing, entries[0], request)
        else:
            self._graceful(crossing, entries[0], request)

    @enter(Kind.SEND_COMPLETE)
    def send_ended(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            if entry.request is not None:
                self._send_ended(crossing, entry.request, entry.view.status)

    def _send_ended(self, crossing: Crossing, request: Request, status: int) -> None:
        stream = request.stream
        if stream.abort is not None and not stream.leaving and status != Status.SUCCESS:
            self.check(
                "disconnect.abort.sends-first",
                status == Status.REQUEST_ABORTED,
                lambda: f"a send of an aborted connection ends with {name(status)}",
                crossing,
                stream,
            )

    def _abortive(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        stream, status = request.stream, entry.view.status
        sent = stream.rst_sent is not None
        excuse = (
            stream.leaving
            or stream.reset is not None
            or stream.hardware_failure is not None
            or both_closed(stream)
            or "closing: rst lost" in stream.facts
        )
        message = f"the abort ends with {name(status)}, {'after' if sent else 'without'} an RST"
        if status == Status.SUCCESS:
            # In TIME-WAIT there is nobody left to be told (RFC 9293, 3.10.5).
            self.check("disconnect.abort.success", sent or both_closed(stream), message, crossing, stream)
        self.check("disconnect.abort.rst", sent or excuse, message, crossing, stream)
        if status != Status.SUCCESS:
            known = status in (Status.REQUEST_ABORTED, Status.UPLOAD_IN_PROGRESS)
            self.check("disconnect.no-refusal", known and excuse, message, crossing, stream)
        if not stream.leaving:
            left = self._sends(request)
            self.check(
                "disconnect.abort.sends-first",
                not left,
                lambda: f"{left} sends are still pending when the abort is completed",
                crossing,
                stream,
            )

    def _sends(self, request: Request) -> int:
        return sum(other.kind is Kind.SEND for other in request.book.requests.values())

    def _graceful(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        stream, view = request.stream, entry.view
        status, count = view.status, view.bytes_transferred
        if stream.terminate is None or status == Status.SUCCESS:
            left = self._sends(request)
            self.check(
                "disconnect.graceful.sends-first",
                not left,
                lambda: f"{left} sends are still pending when the close is completed",
                crossing,
                stream,
            )
        acked = min(max(stream.send.acked - request.start, 0), request.length)
        if status == Status.SUCCESS:
            fin_acked = stream.send.acked > request.end or stream.delegated.state in (
                TcpConnectionState.FIN_WAIT_2,
                TcpConnectionState.TIME_WAIT,
            )
            self.check(
                "disconnect.graceful.success",
                fin_acked,
                lambda: f"the peer has acknowledged {stream.send.acked} bytes, the FIN stands at {request.end}",
                crossing,
                stream,
            )
        else:
            self._graceful_failed(crossing, stream, status)
        exact = count == request.length if status == Status.SUCCESS else count <= acked
        before, after = request.view.buffers[0], view.buffers[0]
        advanced = after == (before[0] + count, before[1] - count, before[2])
        self.check(
            "disconnect.graceful.bytes",
            exact and advanced,
            lambda: (
                f"{count} of {request.length} bytes reported with {name(status)}, {acked} acknowledged; the data began "
                f"at {before[0]}, and begins at {after[0]} now, with {after[1]} bytes"
            ),
            crossing,
            stream,
        )

    def _graceful_failed(self, crossing: Crossing, stream: Stream, status: int) -> None:
        leaving = stream.leaving or self.books.of(crossing).uploading_all is not None
        failed = stream.failed or stream.abort_event is not None
        fitting = (status == Status.UPLOAD_IN_PROGRESS and leaving) or (status == Status.REQUEST_ABORTED and failed)
        message = f"the close ends with {name(status)}; upload under way: {leaving}, aborted: {failed}"
        self.check("disconnect.graceful.other-status", fitting, message, crossing, stream)
        known = status in (Status.UPLOAD_IN_PROGRESS, Status.REQUEST_ABORTED)
        self.check("disconnect.no-refusal", known and (leaving or failed), message, crossing, stream)


class Resources(Checks):
    """A closed connection is still there for the host, and its context with it."""

    RULES = ("disconnect.keep-resources",)

    @enter(Kind.TERMINATE, Kind.QUERY, Kind.UPDATE, Kind.INVALIDATE, stage=Stage.HANDLER)
    def asked(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(crossing.blocks, operation.objects, strict=True):
            if item is None or item.stream is None or not item.offloaded:
                continue
            stream = item.stream
            closed = stream.graceful or stream.abort or stream.fin_received or stream.reset
            if closed is not None:
                self.check(
                    "disconnect.keep-resources",
                    view.cell is not None and view.cell is item.cell,
                    "the context of a closed connection is not there any more",
                    crossing,
                    stream,
                )
