"""Send completions: what comes back, in which order, with which figures and statuses (10.1, chapter 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.errors import Misuse
from chimney.ndis.status import DisconnectFlags, Status, TcpOffloadEvent
from chimney.verifier.books import POISON, Completed, Request
from chimney.verifier.check import Checks, enter, leave, packet
from chimney.verifier.packets import RST, SYN, Packet
from chimney.verifier.streams import Stream
from chimney.verifier.violation import VerificationError, name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier


class SendCompletion(Checks):
    """Every list that a target gives to NdisTcpOffloadSendComplete."""

    RULES = (
        "send.complete.origin",
        "send.complete.handle",
        "send.complete.status-first",
        "send.complete.success",
        "send.complete.bytes",
        "send.complete.keep-mdls",
        "send.complete.advance",
        "send.complete.advance-delta",
        "send.complete.partial-status",
        "send.complete.order",
    )

    @enter(Kind.SEND_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            self._origin(crossing, entry)

    def _origin(self, crossing: Crossing, entry: Completed) -> None:
        request, elsewhere = entry.request, entry.elsewhere
        if elsewhere is not None and not elsewhere.boundary.bottom:
            elsewhere = None
        self.check(
            "send.complete.handle",
            elsewhere is None,
            lambda: f"a send that was posted to {elsewhere and elsewhere.boundary.miniport.name} is completed here",
            crossing,
        )
        mine = request is not None and request.kind is Kind.SEND
        self.check(
            "send.complete.origin",
            mine or elsewhere is not None,
            "the list is no send that is pending here: never posted, or completed before",
            crossing,
        )
        if mine:
            assert request is not None
            self._figures(crossing, entry, request)
            self._order(crossing, request)

    def _figures(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        view = entry.view
        stream = request.stream
        count = view.bytes_transferred
        success = view.status == Status.SUCCESS
        self.check("send.complete.status-first", view.status != POISON, "no status was written", crossing, stream)
        if success:
            self.check(
                "send.complete.success",
                stream.send.acked >= request.end,
                lambda: f"the peer has acknowledged {stream.send.acked} bytes, the send ends at {request.end}",
                crossing,
                stream,
            )
        least = _share(acked_for_sure(stream), request)
        most = _share(stream.send.acked, request)
        exact = count == request.length if success else least <= count <= most
        self.check(
            "send.complete.bytes",
            exact,
            lambda: f"{count} of {request.length} bytes reported with {name(view.status)}, {most} acknowledged",
            crossing,
            stream,
        )
        if count < request.length:
            self.check(
                "send.complete.partial-status",
                not success,
                lambda: f"{count} of {request.length} bytes, and SUCCESS",
                crossing,
                stream,
            )
        before = [mdls for _, _, mdls in request.view.buffers]
        self.check(
            "send.complete.keep-mdls",
            [mdls for _, _, mdls in view.buffers] == before,
            "the MDL chain is not the one that was posted",
            crossing,
            stream,
        )
        self._advanced(crossing, entry, request)

    def _advanced(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        view, before = entry.view, request.view
        if len(view.buffers) != len(before.buffers):
            return
        count = left = view.bytes_transferred
        total = 0
        right = True
        for (offset, length, _), (new_offset, new_length, _) in zip(before.buffers, view.buffers, strict=True):
            delta = new_offset - offset
            right = right and delta == min(left, length) and new_length == length - delta
            left -= min(left, length)
            total += delta
        self.check(
            "send.complete.advance",
            right,
            lambda: f"{count} bytes reported: {_offsets(before.buffers)} became {_offsets(view.buffers)}",
            crossing,
            request.stream,
        )
        acked = _share(request.stream.send.acked, request)
        self.check(
            "send.complete.advance-delta",
            total == count and total <= acked,
            lambda: f"the data starts moved by {total} bytes, {count} are reported, {acked} acknowledged",
            crossing,
            request.stream,
        )

    def _order(self, crossing: Crossing, request: Request) -> None:
        facts = request.book.facts
        last = facts.get("send_completion: send completed", -1)
        facts["send_completion: send completed"] = max(last, request.order)
        if last >= 0:
            self.check(
                "send.complete.order",
                request.order > last,
                lambda: f"send {request.order} completes after send {last}",
                crossing,
                request.stream,
            )


def _ending(stream: Stream) -> bool:
    """Whether something has happened after which the target need not process what arrives."""
    return stream.failed or stream.leaving or stream.abort_event is not None or "send_completion: deaf" in stream.facts


def acked_for_sure(stream: Stream) -> int:
    """How far the acknowledgements go that the target must have processed.

    All that are there and not beside the window; but from an end on those that came in batches before it: the verifier
    sees the frames of one batch before the target looks at the first.
    """
    before: int = stream.facts.get("send_completion: acked for sure", 0)
    return before if _ending(stream) else stream.send.acked_surely


def _share(position: int, request: Request) -> int:
    """How many of the request's bytes lie before a position of the stream."""
    return min(max(position - request.start, 0), request.length)


def _offsets(buffers: tuple[tuple[int, int, Any], ...]) -> str:
    return ", ".join(f"{length} at {offset}" for offset, length, _ in buffers)


class SendFailure(Checks):
    """What sends end with that are not fully acknowledged, and what must not happen to them any more."""

    RULES = (
        "send.complete.failure-meaning",
        "send.complete.fail-rest",
        "send.complete.one-partial",
        "send.complete.upload",
        "send.complete.abort",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._number = -1
        self._batch = 0

    # What the target is sure to have processed: frames of one batch are seen before it looks at the first of them,
    # and after some events it need not look at any.

    @packet
    def seen(self, packet: Packet) -> None:
        if packet.number != self._number + 1 or not packet.incoming:
            self._batch += 1
        self._number = packet.number
        if packet.book is None or packet.book.stream is None:
            return
        stream = packet.book.stream
        if packet.incoming:
            self._arrived(stream)
        elif packet.sent and packet.payload_length and not packet.flags & (SYN | RST):
            self._sent(packet, stream)

    def _arrived(self, stream: Stream) -> None:
        facts = stream.facts
        if facts.get("send_completion: batch") != self._batch:
            facts["send_completion: batch"] = self._batch
            if not _ending(stream):
                facts["send_completion: acked for sure"] = facts.get("send_completion: acked before", 0)
        facts["send_completion: acked before"] = stream.send.acked_surely

    @enter(Kind.DISCONNECT, stage=Stage.HANDLER)
    def aborted(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.value == DisconnectFlags.ABORTIVE_CLOSE:
            for request in crossing.notes:
                request.stream.facts["send_completion: deaf"] = True

    @enter(Kind.STATUS)
    def status(self, crossing: Crossing) -> None:
        """After an upload-all the target may give back what it is asked to send, and process no more (A29)."""
        book = self.books.of(crossing)
        if crossing.boundary.bottom and book.uploading_all is crossing:
            for item in book.offloaded():
                if item.stream is not None:
                    item.stream.facts["send_completion: deaf"] = True

    def _sent(self, packet: Packet, stream: Stream) -> None:
        failed = stream.facts.get("send_completion: failed from")
        if failed is None:
            return
        end = stream.send.position(packet.seq) + packet.payload_length
        self.check(
            "send.complete.fail-rest",
            end <= failed,
            lambda: f"bytes up to {end} go out, sends have failed from {failed} on",
            packet,
        )

    @enter(Kind.SEND_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        done: dict[Stream, list[Completed]] = {}
        for entry in crossing.notes:
            if entry.request is not None and entry.request.kind is Kind.SEND:
                done.setdefault(entry.request.stream, []).append(entry)
        for stream, entries in done.items():
            self._pattern(crossing, stream, entries)
            for entry in entries:
                if entry.view.status != Status.SUCCESS:
                    self._failed(crossing, stream, entry)

    def _pattern(self, crossing: Crossing, stream: Stream, entries: list[Completed]) -> None:
        """Within one list: success, then failure; all acknowledged, then a part of one, then none."""
        failures = [entry.view.status != Status.SUCCESS for entry in entries]
        if any(failures):
            self.check(
                "send.complete.fail-rest",
                failures == sorted(failures),
                "a send succeeds behind one that has failed",
                crossing,
                stream,
            )
            lengths = [entry.request.length for entry in entries if entry.request is not None]
            short = [entry.view.bytes_transferred < length for entry, length in zip(entries, lengths, strict=True)]
            behind = entries[short.index(True) + 1 :] if any(short) else []
            self.check(
                "send.complete.one-partial",
                all(entry.view.bytes_transferred == 0 for entry in behind),
                lambda: f"bytes acknowledged: {[entry.view.bytes_transferred for entry in entries]}",
                crossing,
                stream,
            )

    def _failed(self, crossing: Crossing, stream: Stream, entry: Completed) -> None:
        request, view = entry.request, entry.view
        assert request is not None
        facts = stream.facts
        start = request.start + min(view.bytes_transferred, request.length)
        facts["send_completion: failed from"] = min(start, facts.get("send_completion: failed from", start))
        if request.length:
            self.check(
                "send.complete.failure-meaning",
                acked_for_sure(stream) < request.end,
                lambda: f"{name(view.status)}, but the peer has acknowledged all of it",
                crossing,
                stream,
            )
        book = self.books.of(crossing)
        aborting = stream.failed or stream.abort_event is not None
        if stream.leaving and not aborting:
            self.check(
                "send.complete.upload",
                view.status == Status.UPLOAD_IN_PROGRESS,
                lambda: f"the connection is being uploaded, the send ends with {name(view.status)}",
                crossing,
                stream,
            )
        told = stream.abort_event is not None and stream.hardware_failure is None
        unasked = stream.mandatory is None and stream.abort is None and book.uploading_all is None
        if unasked and told:
            self._status_after_reset(crossing, stream, view.status)
        elif unasked and stream.reset is not None:
            # Whether the target has accepted the RST is known when it says so.
            facts.setdefault("send_completion: before abort event", []).append(view.status)

    def _status_after_reset(self, crossing: Crossing, stream: Stream, status: int) -> None:
        self.check(
            "send.complete.abort",
            status == Status.REQUEST_ABORTED,
            lambda: f"the peer has reset the connection, a send ended with {name(status)}",
            crossing,
            stream,
        )

    @enter(Kind.EVENT)
    def event(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom or crossing.value != TcpOffloadEvent.INDICATE_ABORT:
            return
        item = self.books.object(crossing)
        if item is not None and item.stream is not None:
            for status in item.stream.facts.pop("send_completion: before abort event", ()):
                self._status_after_reset(crossing, item.stream, status)


class Tolerance(Checks):
    """What a target may do with send completions, and those above have to take."""

    RULES = ("send.complete.any-level", "send.complete.batch")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._seen: BaseException | None = None

    @leave(Kind.SEND_COMPLETE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        raised = crossing.raised
        # What comes through from further up is the driver's there; a misuse may be the fault of the one below.
        own = raised is not None and raised is not self._seen and not isinstance(raised, (Misuse, VerificationError))
        self._seen = raised
        who = crossing.boundary.protocol.name
        message = f"the handler raised {raised!r}"
        self.check("send.complete.any-level", not own, message, crossing, culprit=who)
        calls = {entry.request.posted.number for entry in crossing.notes or () if entry.request is not None}
        if len(calls) > 1:
            self.check("send.complete.batch", not own, message, crossing, culprit=who)
