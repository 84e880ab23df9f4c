"""The events of a connection: end of stream, RST, upload requests, backlog (11.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.status import Status, TcpOffloadEvent, UploadReason
from chimney.verifier.books import Completed, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish, packet
from chimney.verifier.packets import URG, Packet
from chimney.verifier.relations import below, connections_of
from chimney.verifier.streams import Stream
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_PROMPT_US = 5_000_000
_UNSENT_US = 5_000_000
# The host's "as soon as possible": other operations have to end first, and a program may be busy.
_SOON_US = 60_000_000
# What certainly is frequent, and small: events less than so far apart, changes by less than such a part.
_FREQUENT_US = 10_000
_SMALL_PART = 10


class EndOfStream(Checks):
    """TcpIndicateDisconnect, and that the other half goes on."""

    RULES = ("event.disconnect.after-data", "event.disconnect.half")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._half: dict[int, Stream] = {}

    @enter(Kind.EVENT)
    def indicated(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is None or crossing.value != TcpOffloadEvent.INDICATE_DISCONNECT:
            return
        _, stream = found
        receive = stream.receive
        ended = stream.peer_closed
        missing = 0 if receive.fin is None else receive.fin - receive.delivered
        self.check(
            "event.disconnect.after-data",
            ended and missing <= 0,
            lambda: f"{missing} bytes before the FIN have not been consumed" if ended else "no FIN has come",
            crossing,
            stream,
        )
        self._half[id(stream)] = stream

    @enter(Kind.EVENT)
    def passed_up(self, crossing: Crossing) -> None:
        """A driver that keeps completions back keeps the end of the stream behind them."""
        item = self.books.object(crossing)
        if crossing.boundary.bottom or item is None or crossing.value != TcpOffloadEvent.INDICATE_DISCONNECT:
            return
        event = None if item.stream is None else item.stream.disconnect_event
        if event is None:
            return
        # What has no data may be completed by the target after that.
        completions = [
            one.below.completed
            for one in self.books.of(crossing).open_requests(item, Kind.RECEIVE)
            if one.below is not None and one.below.completed is not None
        ]
        overtaken = sum(completed.number < event.number for completed in completions)
        self.check(
            "event.disconnect.after-data",
            not overtaken,
            lambda: f"{overtaken} receives are done below, and have not been completed above",
            crossing,
            item,
        )

    @enter(Kind.SEND_COMPLETE)
    def send_ended(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                if entry.request is not None:
                    self._send_ended(crossing, entry, entry.request)

    def _send_ended(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        stream = request.stream
        event = stream.disconnect_event
        if event is None or request.posted.number < event.number:
            return
        reason = stream.failed or stream.leaving or self.books.of(crossing).uploading_all is not None
        self.check(
            "event.disconnect.half",
            entry.view.status == Status.SUCCESS or reason,
            lambda: f"a send that was posted after the peer's FIN ends with {name(entry.view.status)}",
            crossing,
            stream,
        )

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def taken_back(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.bottom and isinstance(operation, Operation):
            for stream in operation.streams():
                if self._half.pop(id(stream), None) is not None:
                    self._look(stream, crossing)

    @finish
    def ended(self) -> None:
        for stream in self._half.values():
            self._look(stream, None)

    def _look(self, stream: Stream, where: Crossing | None) -> None:
        """What was posted long ago, with nothing before it that waits for an acknowledgement, must be on the wire."""
        send, event = stream.send, stream.disconnect_event
        failed = stream.failed or stream.mandatory is not None or stream.invalidated is not None
        if failed or not send.requests or event is None or "closing: refused" in stream.facts:
            return
        request = send.requests[0]
        waiting = self.verifier.clock() - request.posted.at > _UNSENT_US and request.length > 0
        window = stream.facts.get("closing: peer window", stream.delegated.snd_wnd)
        if waiting and request.posted.number > event.number and send.acked >= request.start and window:
            self.check(
                "event.disconnect.half",
                send.sent > request.start,
                "a send that was posted after the peer's FIN never appears on the wire",
                where,
                stream,
            )


class Aborts(Checks):
    """An acceptable RST: the event, and the end of every request."""

    RULES = ("event.abort.sequence",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._awaited: dict[int, tuple[Stream, int]] = {}

    @packet
    def seen(self, packet: Packet) -> None:
        if packet.stream is not None and packet.stream.reset is packet:
            self._reset(packet.stream, packet.at)

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is not None and found[1].reset is crossing:
            self._reset(found[1], crossing.at)

    def _reset(self, stream: Stream, now: int) -> None:
        item = stream.bottom
        other_end = stream.leaving or stream.abort is not None or stream.hardware_failure is not None
        if not other_end and item is not None and item.offloaded and stream.receive.exact:
            self._awaited[id(stream)] = (stream, now)

    @enter(Kind.EVENT)
    def indicated(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is None or crossing.value != TcpOffloadEvent.INDICATE_ABORT:
            return
        _, stream = found
        awaited = self._awaited.pop(id(stream), None)
        if awaited is not None:
            late = crossing.at - awaited[1]
            self.check(
                "event.abort.sequence",
                late <= _PROMPT_US,
                lambda: f"the host hears of the RST {late} us later",
                crossing,
                stream,
            )

    @enter(Kind.SEND_COMPLETE, Kind.RECEIVE_COMPLETE, Kind.DISCONNECT_COMPLETE)
    def request_ended(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                if entry.request is not None:
                    self._request_ended(crossing, entry, entry.request)

    def _request_ended(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        stream, status = request.stream, entry.view.status
        event = stream.abort_event
        if event is None or status in (Status.SUCCESS, Status.INVALID_STATE):
            return
        if stream.mandatory is not None and stream.hardware_failure is None:
            return
        self.check(
            "event.abort.sequence",
            status == Status.REQUEST_ABORTED,
            lambda: f"a {request.kind.name.lower()} of an aborted connection ends with {name(status)}",
            crossing,
            stream,
        )

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def taken_back(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for item in operation.objects:
            if item is not None and item.stream is not None:
                self._taken_back(crossing, item, item.stream)

    def _taken_back(self, crossing: Crossing, item: ObjectBook, stream: Stream) -> None:
        awaited = self._awaited.pop(id(stream), None)
        if awaited is not None:
            self._missing(stream, crossing.at - awaited[1], crossing)
        event = stream.abort_event
        if event is None or stream.hardware_failure is not None or crossing.at - event.at <= _PROMPT_US:
            return
        kinds = (Kind.SEND, Kind.RECEIVE, Kind.DISCONNECT)
        left = self.books.of(crossing).open_requests(item, *kinds)
        old = [request for request in left if crossing.at - request.posted.at > _PROMPT_US]
        message = f"{len(old)} requests are still outstanding long after the abort"
        self.check("event.abort.sequence", not old, message, crossing, stream)

    @finish
    def ended(self) -> None:
        for stream, since in self._awaited.values():
            self._missing(stream, self.verifier.clock() - since, stream.bottom)

    def _missing(self, stream: Stream, waited: int, where: Crossing | ObjectBook | None) -> None:
        # The terminate may have come before the target had looked at the segment.
        if waited > _PROMPT_US:
            message = f"the host has not heard of the RST within {waited} us"
            self.check("event.abort.sequence", False, message, where, stream)


class UploadRequests(Checks):
    """TcpIndicateRetrieve: a reason, and one that can be true."""

    RULES = ("event.retrieve.reason",)

    @packet
    def seen(self, packet: Packet) -> None:
        if packet.incoming and packet.flags & URG and packet.stream is not None:
            packet.stream.facts["events: urgent"] = True

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is not None:
            for request in crossing.notes:
                data = request.data(0, min(20, request.length))
                if len(data) > 13 and data[13] & URG:
                    found[1].facts["events: urgent"] = True

    @enter(Kind.EVENT)
    def indicated(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is None or crossing.value != TcpOffloadEvent.INDICATE_RETRIEVE:
            return
        item, stream = found
        known = crossing.information in UploadReason._value2member_map_
        reason = UploadReason(crossing.information) if known else None  # type: ignore[arg-type]
        self.check(
            "event.retrieve.reason",
            reason is not None and self._is_possible(reason, item, stream),
            lambda: (
                f"{crossing.information!r} is no upload reason"
                if reason is None
                else f"{reason.name}, and nothing of that kind has happened"
            ),
            crossing,
            stream,
        )

    def _is_possible(self, reason: UploadReason, item: ObjectBook, stream: Stream) -> bool:
        if reason is UploadReason.RECEIVED_URGENT_DATA:
            return "events: urgent" in stream.facts
        if reason is UploadReason.INVALID_STATE:
            below: ObjectBook | None = item
            while below is not None and below.invalid is None:
                below = below.parent
            return below is not None
        # The others are matters of a target's own judgement.
        return True


class Backlog(Checks):
    """TcpIndicateSendBacklogChange comes seldom, and for a reason."""

    RULES = ("event.backlog.throttle",)

    @enter(Kind.EVENT)
    def indicated(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is None or crossing.value != TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE:
            return
        stream, value = found[1], crossing.information
        before = stream.facts.get("events: backlog")
        stream.facts["events: backlog"] = (crossing.at, value)
        if before is None or not isinstance(value, int):
            return
        since, known = crossing.at - before[0], before[1]
        self.check(
            "event.backlog.throttle",
            since >= _FREQUENT_US and abs(value - known) * _SMALL_PART >= known,
            lambda: f"{value} instead of {known} bytes, {since} us after the last change",
            crossing,
            stream,
        )


class HostAfterEvents(Checks):
    """What the host does about an abort and about a mandatory upload request: it terminates the offload."""

    RULES = ("event.abort.host", "terminate.on-request")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        # The object, what it was told, since when the host can do something about it, and the rule.
        self._awaited: dict[int, tuple[ObjectBook, Crossing, int, str]] = {}

    @enter(Kind.EVENT, stage=Stage.HANDLER)
    def told(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.top or item is None or any(o.kind is Kind.TERMINATE for o in item.operations):
            return
        if crossing.value == TcpOffloadEvent.INDICATE_ABORT:
            self._awaited[id(item)] = (item, crossing, crossing.at, "event.abort.host")
        elif crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE:
            known = crossing.information in UploadReason._value2member_map_
            if known and UploadReason(crossing.information).mandatory:  # type: ignore[arg-type]
                known_already = self._awaited.get(id(item))
                if known_already is None or _was_silenced(known_already[1]):
                    self._awaited[id(item)] = (item, crossing, crossing.at, "terminate.on-request")

    @enter(Kind.INITIATE_COMPLETE)
    def initiated(self, crossing: Crossing) -> None:
        """A driver may have asked for a connection on its way down: it can be given back from now on, and if it was
        refused, there is nothing to be had.
        """
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for item in operation.objects:
            awaited = self._awaited.pop(id(item), None)
            if item is not None and awaited is not None and not item.ended:
                self._awaited[id(item)] = (item, awaited[1], crossing.at, awaited[3])

    @enter(Kind.QUERY_COMPLETE, Kind.UPDATE_COMPLETE, Kind.INVALIDATE_COMPLETE)
    def freed(self, crossing: Crossing) -> None:
        """Until these have completed, a terminate has to wait (9.6)."""
        operation = crossing.notes
        if not self._awaited or not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for item in operation.objects:
            for connection in () if item is None else connections_of(item):
                awaited = self._awaited.get(id(connection))
                if awaited is not None:
                    self._awaited[id(connection)] = (connection, awaited[1], crossing.at, awaited[3])

    @enter(Kind.TERMINATE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for item in operation.objects:
            awaited = self._awaited.pop(id(item), None)
            if awaited is not None:
                self._came(awaited, crossing.at)

    def _came(self, awaited: tuple[ObjectBook, Crossing, int, str], now: int) -> None:
        item, event, since, rule = awaited
        if _is_revived(item, event):
            return
        late = now - max(event.ended_at, since)
        self.check(rule, late <= _SOON_US, lambda: f"the host terminates the offload {late} us later", event, item)

    @finish
    def ended(self) -> None:
        for item, event, _, rule in self._awaited.values():
            if not _is_revived(item, event):
                self.check(rule, False, "the host does not terminate the offload", event, item)


def _was_silenced(event: Crossing) -> bool:
    """Whether the upload was asked for since the connection, or what it depends on, was invalid."""
    return event.information == UploadReason.INVALID_STATE


def _is_revived(item: ObjectBook, event: Crossing) -> bool:
    """Whether the connection depends on nothing invalid any more: its path has got another neighbor (9.5, 9.7)."""
    return _was_silenced(event) and not any(part.invalid for part in below(item))
