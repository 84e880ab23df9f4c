"""TcpIndicateRetrieve: when a target may ask for a connection, when it has to, and what it does afterwards (9.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.status import Status, StatusIndication, TcpConnectionState, TcpOffloadEvent, UploadReason
from chimney.verifier.books import Layer, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish, packet, polled, segment
from chimney.verifier.overdue import Debt
from chimney.verifier.packets import FIN, RST, SYN, Packet
from chimney.verifier.relations import below
from chimney.verifier.streams import FIN_SENT, PEER_CLOSED, Stream
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

LINK_STATE = 0x40010017
"""NDIS_STATUS_LINK_STATE (public header *ndis.h*): 1 in the buffer: connected."""

_PROMPT_US = 1_000_000
_LOSS_US = 10_000_000
_SOON_US = 60_000_000
_IO = (Kind.SEND_COMPLETE, Kind.RECEIVE_COMPLETE, Kind.DISCONNECT_COMPLETE)
_OWN_DECISION = (UploadReason.UPLOAD_REQUESTED, UploadReason.HARDWARE_FAILURE)


def has_to_go(stream: Stream) -> bool:
    """Whether the target has said that it cannot continue the connection, and still cannot: an invalid neighbor may
    have been replaced meanwhile.
    """
    if any(reason.mandatory and reason is not UploadReason.INVALID_STATE for _, reason in stream.retrieves):
        return True
    item = stream.bottom
    return stream.mandatory is not None and item is not None and any(part.invalid for part in below(item))


def is_over(stream: Stream) -> bool:
    """Whether something else than an upload has ended it."""
    return stream.failed or stream.abort_event is not None


class Refusals(Checks):
    """What is posted, and what is sent, once the target has said that it cannot go on."""

    RULES = ("upload.sends", "upload.mandatory-stop")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._late: dict[int, Request] = {}

    @enter(Kind.SEND, stage=Stage.HANDLER)
    def posted(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for request in crossing.notes:
                stream = request.stream
                goes = has_to_go(stream) or self.books.of(crossing).uploading_all is not None
                if goes and not is_over(stream) and stream.terminate is None:
                    self._late[id(request)] = request

    @enter(Kind.SEND_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            request = self._late.pop(id(entry.request), None)
            if request is None or is_over(request.stream):
                continue
            stream, status = request.stream, entry.view.status
            if has_to_go(stream) or self.books.of(crossing).uploading_all is not None:
                self.check(
                    "upload.sends",
                    status == Status.UPLOAD_IN_PROGRESS,
                    f"a send posted after the upload request ends with {name(status)}",
                    crossing,
                    stream,
                )

    @enter(Kind.EVENT)
    def requested(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is not None and crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE and has_to_go(found[1]):
            # What had been read from the link by now may have been processed by now. Who is silent goes on receiving.
            found[1].facts["upload_requests: stopped at"] = found[1].receive.next

    @packet
    def seen(self, packet: Packet) -> None:
        stream = packet.stream
        if packet.incoming or not packet.sent or stream is None or "upload_requests: stopped at" not in stream.facts:
            return
        if stream.terminated is not None or is_over(stream) or packet.flags & RST or not has_to_go(stream):
            return
        acknowledged = stream.receive.position(packet.ack)
        taken: int = stream.facts["upload_requests: stopped at"]
        self.check(
            "upload.mandatory-stop",
            not packet.payload_length and not packet.flags & FIN and acknowledged <= taken,
            lambda: (
                f"after a mandatory upload request it acknowledges {acknowledged} bytes, {taken} had come before"
                if acknowledged > taken
                else f"after a mandatory upload request it sends {packet.payload_length} bytes of data, or a FIN"
            ),
            packet,
            stream,
        )

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                if "upload_requests: stopped at" in stream.facts and stream.terminated is crossing:
                    self.exercise("upload.mandatory-stop")
            if self._late:
                # Some came back in the chain.
                self._late = {key: r for key, r in self._late.items() if r.completed is None}

    @finish
    def ended(self) -> None:
        """Requests keep their owners alive."""
        self._late.clear()


class Manners(Checks):
    """Which connections are asked for, and that those that the host may keep go on."""

    RULES = ("upload.one-per-call", "upload.half-closed", "upload.optional-continue")

    @enter(Kind.EVENT)
    def requested(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom or crossing.value != TcpOffloadEvent.INDICATE_RETRIEVE:
            return
        item = self.books.object(crossing)
        if item is None:
            return
        text = f"the upload of a {item.layer.name.lower()} object is asked for: it has to be one TCP connection"
        self.check("upload.one-per-call", item.layer is Layer.TCP, text, crossing, item)
        known = crossing.information in UploadReason._value2member_map_
        if item.stream is None or not known or UploadReason(crossing.information).mandatory:  # type: ignore[arg-type]
            return
        state = _half_closed(item.stream)
        self.check(
            "upload.half-closed",
            not state or is_over(item.stream),
            lambda: f"{UploadReason(crossing.information).name} for a connection in {state}",  # type: ignore[arg-type]
            crossing,
            item,
        )

    @enter(*_IO)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            stream = None if entry.request is None else entry.request.stream
            if stream is None or not stream.retrieves or stream.leaving or is_over(stream):
                continue
            if self.books.of(crossing).uploading_all is None:
                self.check(
                    "upload.optional-continue",
                    entry.view.status in (Status.SUCCESS, Status.INVALID_STATE),
                    lambda entry=entry: (  # type: ignore[misc]
                        f"after an upload request that the host may ignore, a {entry.request.kind.name.lower()} ends "
                        f"with {name(entry.view.status)}"
                    ),
                    crossing,
                    stream,
                )


def _half_closed(stream: Stream) -> str:
    """The half-closed state that the connection is in without doubt; empty if it may be in another."""
    receive, before = stream.receive, stream.delegated.state
    sent = stream.fin_sent is not None or before in FIN_SENT
    told = stream.disconnect_event is not None or (receive.fin is not None and receive.acknowledged > receive.fin)
    if sent and receive.fin is None and before not in PEER_CLOSED:
        return "FIN_WAIT_1 or FIN_WAIT_2"
    if not sent and (told or before is TcpConnectionState.CLOSE_WAIT):
        return "CLOSE_WAIT"
    return ""


class Needs(Checks):
    """When a target has to ask for an upload: in TIME_WAIT, and for want of memory; and when it has no reason to."""

    RULES = ("upload.time-wait", "upload.resource", "upload.media-loss")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._links: dict[int, str] = {}
        self._lost_at: dict[int, int] = {}
        self._lost_links: set[str] = set()

    @segment
    def seen(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        self._links[item.boundary.number] = packet.link
        if packet.incoming:
            if packet.flags & SYN:
                stream.facts["upload_requests: syn"] = True
            if packet.payload_length and packet.acts:
                self._memory(packet, stream)
        elif packet is stream.fin_sent:
            fin = stream.receive.fin
            stream.facts["upload_requests: active close"] = fin is None or stream.receive.position(packet.ack) <= fin
        if item.offloaded:
            self._closed(packet, stream)

    def _closed(self, packet: Packet, stream: Stream) -> None:
        receive, send, before = stream.receive, stream.send, stream.delegated.state
        if receive.fin is None or receive.acknowledged <= receive.fin or "upload_requests: time wait" in stream.facts:
            return
        if before in FIN_SENT:
            ours = before is TcpConnectionState.FIN_WAIT_2 or send.acked >= send.handed_over
            active = before is not TcpConnectionState.LAST_ACK
        else:
            ours = send.fin_posted and send.acked > send.posted
            active = stream.facts.get("upload_requests: active close", False)
        if ours and active:
            stream.facts["upload_requests: time wait"] = True
            self._expect("upload.time-wait", packet, stream)

    def _memory(self, packet: Packet, stream: Stream) -> None:
        item = stream.bottom
        limits = None if item is None else self.verifier.limits.get(item.boundary.miniport.name)
        short = limits is not None and limits.no_segments
        if (
            short
            and stream.receive.acknowledged < stream.receive.available
            and "upload_requests: short" not in stream.facts
        ):
            stream.facts["upload_requests: short"] = True
            self._expect("upload.resource", packet, stream)

    def _expect(self, rule: str, packet: Packet, stream: Stream) -> None:
        if not stream.leaving and not is_over(stream):
            debt = stream.facts[f"upload_requests: {rule}"] = Debt(stream, self._not_asked_for, _PROMPT_US, rule)
            self.verifier.debts.owe(debt, packet.link, packet.at)

    @enter(Kind.EVENT)
    def requested(self, crossing: Crossing) -> None:
        found = self.connection(crossing)
        if found is None:
            return
        item, stream = found
        if crossing.value == TcpOffloadEvent.INDICATE_ABORT:
            self._settle(stream)
        known = crossing.information in UploadReason._value2member_map_
        if crossing.value != TcpOffloadEvent.INDICATE_RETRIEVE or not known:
            return
        reason = UploadReason(crossing.information)  # type: ignore[arg-type]
        if reason.mandatory:
            for rule in self._settle(stream):
                self.exercise(rule)
        lost = self._lost_at.get(crossing.boundary.number)
        if lost is None or reason not in _OWN_DECISION or crossing.at - lost > _LOSS_US:
            return
        closing = stream.peer_closed and (stream.fin_sent is not None or stream.delegated.state in FIN_SENT)
        cause = (
            closing
            or is_over(stream)
            or "upload_requests: syn" in stream.facts
            or "upload_requests: short" in stream.facts
        )
        failing = any(o.kind in (Kind.QUERY, Kind.INVALIDATE, Kind.TERMINATE) for o in item.operations)
        cause = cause or failing or "hardware_failure: lost" in stream.facts
        text = f"{reason.name}, {crossing.at - lost} us after the medium was lost, and for no other reason"
        if not cause:
            self.check("upload.media-loss", False, text, crossing, stream)

    def _settle(self, stream: Stream) -> list[str]:
        open_ = [
            rule
            for rule in self.RULES
            if f"upload_requests: {rule}" in stream.facts
            and stream.facts[f"upload_requests: {rule}"].due <= self.verifier.clock()
        ]
        for rule in open_:
            stream.facts[f"upload_requests: {rule}"].settle()
        return open_

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def taken_back(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                self._settle(stream)

    def _not_asked_for(self, debt: Debt) -> None:
        stream = debt.stream
        if not stream.leaving and not is_over(stream):
            time_wait = debt.what == "upload.time-wait"
            text = "the connection is in TIME_WAIT" if time_wait else "there is no memory for what it receives"
            self.check(debt.what, False, f"{text}, and its upload is not asked for", stream.bottom, stream)

    @polled
    def listen(self, link: str) -> None:
        """A link that cannot be read has lost its medium, or its interface."""
        lost = False
        for watched in self.verifier.links:
            if watched.lost and watched.name == link:
                lost = True
        if not lost and link not in self._lost_links:
            return
        now = self.verifier.clock()
        for number, own in self._links.items():
            if own == link:
                self._media(number, lost, now)
        if lost:
            self._lost_links.add(link)
        else:
            self._lost_links.discard(link)

    @enter(Kind.STATUS)
    def status(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.value == LINK_STATE:
            self._media(crossing.boundary.number, not crossing.information, crossing.at)

    def _media(self, number: int, lost: bool, now: int) -> None:
        if not lost:
            self._lost_at.pop(number, None)
        elif number not in self._lost_at:
            self._lost_at[number] = now
            book = self.books.boundaries.get(number)
            if book is not None and book.offloaded(Layer.TCP):
                self.exercise("upload.media-loss")


class UploadAll(Checks):
    """NDIS_STATUS_UPLOAD_ALL: the host takes everything back, and offloads nothing before the next resume."""

    RULES = ("upload.all.host",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._left: dict[int, tuple[Crossing, dict[int, ObjectBook]]] = {}

    @enter(Kind.STATUS, stage=Stage.HANDLER)
    def told(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        number = crossing.boundary.number
        if crossing.value == StatusIndication.UPLOAD_ALL and number not in self._left:
            going = {
                id(item): item
                for item in self.books.of(crossing).offloaded()
                if not any(o.kind is Kind.TERMINATE for o in item.operations)
            }
            self._left[number] = (crossing, going)
        elif crossing.value == StatusIndication.OFFLOAD_RESUME:
            # What has not been taken back by now need not be any more.
            self._left.pop(number, None)

    @enter(Kind.TERMINATE)
    def terminated(self, crossing: Crossing) -> None:
        told, left = self._left.get(crossing.boundary.number, (None, None))
        if told is None or not left or not isinstance(crossing.notes, Operation):
            return
        late = crossing.at - told.at
        for item in crossing.notes.objects:
            if left.pop(id(item), None) is not None:
                self.check(
                    "upload.all.host",
                    late <= _SOON_US,
                    lambda: f"it is taken back {late} us after UPLOAD_ALL",
                    crossing,
                    item,
                )

    @enter(Kind.INITIATE)
    def initiated(self, crossing: Crossing) -> None:
        if crossing.boundary.top and crossing.boundary.number in self._left:
            text = "objects are offloaded to a target that wants everything back"
            self.check("upload.all.host", False, text, crossing)

    @finish
    def ended(self) -> None:
        for told, left in self._left.values():
            for item in left.values():
                self.check("upload.all.host", False, "it has not been taken back since UPLOAD_ALL", told, item)
        self._left.clear()
