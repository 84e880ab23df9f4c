"""The delivery algorithm (13.2): why receive requests complete. What comes in is written down here for the checks that
follow in the alphabet.
"""

from __future__ import annotations

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.status import Status
from chimney.verifier.books import Completed, ObjectBook, Request
from chimney.verifier.check import Checks, enter, leave, segment_in
from chimney.verifier.packets import PSH, RST, Packet
from chimney.verifier.receiving import (
    ACCEPTED,
    REFUSED,
    Receiving,
    misplaced,
    push_interval,
    receives,
    receiving_of,
)
from chimney.verifier.relations import view_bytes
from chimney.verifier.streams import Stream

_AT_ONCE_US = 20_000
# A target may take the time before it reads, and read much at a time.
_READ_US = 100_000


class Arrivals(Checks):
    """Requests and segments on their way in."""

    RULES = ("indicate.no-repeat", "delivery.seg.append")

    @enter(Kind.RECEIVE, stage=Stage.HANDLER)
    def posted(self, crossing: Crossing) -> None:
        requests: list[Request] = crossing.notes
        if not crossing.boundary.bottom or not requests:
            return
        stream = requests[0].stream
        state = receiving_of(self.books, stream)
        if state.blocked and state.last == REFUSED:
            self.exercise("indicate.no-repeat")
            if state.fresh:
                self.exercise("delivery.seg.append")
        state.requests.extend(requests)
        state.blocked = False
        state.posted_inside = state.upcall is not None
        state.posted_with = stream.receive.available

    @leave(Kind.RECEIVE, stage=Stage.HANDLER)
    def refused(self, crossing: Crossing) -> None:
        if crossing.raised is not None and crossing.boundary.bottom and crossing.notes:
            state = receiving_of(self.books, crossing.notes[0].stream)
            for request in crossing.notes:
                if request in state.requests:
                    state.requests.remove(request)

    @segment_in
    def arrived(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if packet.acts:
            self._segment(stream, packet.at, packet.seq, packet.flags, packet.payload_length)

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for request in crossing.notes:
                data = view_bytes((request.view,), 20)
                if len(data) == 20:
                    length = max(0, request.length - (data[12] >> 4) * 4)
                    self._segment(request.stream, crossing.at, int.from_bytes(data[4:8], "big"), data[13], length)

    def _segment(self, stream: Stream, at: int, seq: int, flags: int, length: int) -> None:
        if stream.terminate is not None:
            return
        state = receiving_of(self.books, stream)
        if flags & RST:
            state.reset_seen = True
        state.arrived(at, stream.receive.position(seq), length, bool(flags & PSH))


class Causes(Checks):
    """Why requests complete with success."""

    RULES = (
        "recv.use-posted",
        "recv.modes",
        "recv.complete.filled",
        "recv.push.complete-partial",
        "recv.push.timer-start",
        "recv.push.restart",
        "recv.nopush.only-full",
        "recv.zero-length",
        "delivery.seg.place",
        "delivery.seg.partial",
        "delivery.post",
        "delivery.timer",
        "delivery.run-to-end",
        "delivery.indicated.accepted",
        "delivery.indicated.refused",
        "indicate.keep-refused",
        "indicate.requests-first",
        "timer.push",
    )

    @enter(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry, request, start in receives(crossing.notes):
                self._entry(crossing, entry, request, start)

    def _entry(self, crossing: Crossing, entry: Completed, request: Request, start: int) -> None:
        stream, count = request.stream, entry.view.bytes_transferred
        state = receiving_of(self.books, stream)
        if entry.delivered and state.refused_from <= start < state.refused_to:
            # The bytes that the host refused come first.
            wrong = misplaced(entry, stream)
            for rule in ("delivery.indicated.refused", "indicate.keep-refused"):
                self.check(rule, not wrong, wrong, crossing, stream)
            self.exercise("indicate.requests-first")
        if entry.view.status != Status.SUCCESS:
            return
        if entry.delivered:
            self.exercise("recv.use-posted")
            if state.last == ACCEPTED:
                self.exercise("delivery.indicated.accepted")
        if request.length == 0:
            self.check("recv.zero-length", count == 0, f"{count} bytes in a request of none", crossing, stream)
        # A FIN that had come before the offload stands behind what was handed over.
        fin = stream.receive.handed_over if stream.receive.fin is None else stream.receive.fin
        end = start + len(entry.delivered)
        if count >= request.length:
            self._filled(state, request, start)
        elif stream.peer_closed and end >= fin:
            # The end of the stream ends requests of either mode (A10).
            self.exercise("recv.modes")
        else:
            self._partial(crossing, state, request, (start, end), count)

    def _filled(self, state: Receiving, request: Request, start: int) -> None:
        self.exercise("recv.complete.filled")
        if request.length:
            waited = start < state.stream.receive.handed_over or state.arrival(start) < request.posted.at
            self.exercise("delivery.post" if waited else "delivery.seg.place")
            self.exercise("delivery.run-to-end")

    def _partial(
        self, crossing: Crossing, state: Receiving, request: Request, span: tuple[int, int], count: int
    ) -> None:
        """A request that is not full has completed with success, and the stream has not ended."""
        stream = state.stream
        push = not request.view.no_push
        text = f"a non-push request completes with {count} of {request.length} bytes"
        self.check("recv.modes", push, text, crossing, stream)
        self.check("delivery.seg.partial", push, text, crossing, stream)
        if not push:
            self.check("recv.nopush.only-full", False, text, crossing, stream)
            return
        self.check("delivery.timer", count > 0, "a request completes without a byte", crossing, stream)
        if not count:
            return
        again = 0 <= state.pushed_again_at and crossing.at - state.pushed_again_at < _AT_ONCE_US
        pushed = state.pushed(*span) or again or span[0] < stream.receive.handed_over
        interval = push_interval(self.books, state)
        if pushed or interval is None:
            self.exercise("recv.push.complete-partial")
        else:
            self._timed(crossing, state, request, span, interval)

    def _timed(
        self, crossing: Crossing, state: Receiving, request: Request, span: tuple[int, int], interval: int
    ) -> None:
        """No PSH: it must have been the timer, which a target may have read a little before we did."""
        first = max(state.arrival(span[0]), request.posted.at)
        last = max(state.arrival(span[1] - 1), request.posted.at)
        latest = crossing.at + max(interval // 4, _READ_US) - interval
        text = f"after the {{}} byte a partly filled request completes, without PSH; the push timer has {interval} us"
        for rule in ("recv.push.complete-partial", "delivery.seg.partial", "timer.push"):
            self.check(rule, first <= latest, f"{crossing.at - first} us " + text.format("first"), crossing)
        if first <= latest:
            self.exercise("recv.push.timer-start")
            self.exercise("delivery.timer")
            if last > first:
                self.check(
                    "recv.push.restart",
                    last <= latest,
                    f"{crossing.at - last} us " + text.format("last"),
                    crossing,
                    state.stream,
                )

    @leave(Kind.RECEIVE_COMPLETE)
    def returned(self, crossing: Crossing) -> None:
        """A non-push request that was filled in several steps has waited for it."""
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                request = entry.request
                if request is not None and request.kind is Kind.RECEIVE and request.view.no_push:
                    if entry.view.status == Status.SUCCESS and entry.view.bytes_transferred >= request.length > 0:
                        self.exercise("recv.nopush.only-full")
                        self.exercise("recv.modes")
