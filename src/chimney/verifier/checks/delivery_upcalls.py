"""The delivery algorithm (13.2): when completions and indications are made, and what must not be indicated."""

from __future__ import annotations

from chimney.ndis.crossing import Crossing, Kind, view_list
from chimney.ndis.state import TcpDelegated
from chimney.ndis.status import Status
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, leave
from chimney.verifier.receiving import ACCEPTED, COMPLETED, REFUSED, Receiving, receives, receiving, receiving_of
from chimney.verifier.relations import nodes, view_bytes


class Upcalls(Checks):
    """Completions and indications of one connection, one at a time; an indication when it is due."""

    RULES = (
        "recv.complete.serialized",
        "recv.complete.no-nesting",
        "recv.complete.reentrant-post",
        "recv.use-posted",
        "recv.zero-length",
        "delivery.seg.busy",
        "delivery.seg.append",
        "delivery.seg.indicate",
        "delivery.leftover.indicate",
        "delivery.indicated.accepted",
        "delivery.indicated.refused",
        "indicate.no-repeat",
        "indicate.requests-first",
        "indicate.keep-refused",
    )

    @enter(Kind.RECEIVE_COMPLETE)
    def completing(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for stream in {id(r.stream): r.stream for _, r, _ in receives(crossing.notes)}.values():
                self._begin(crossing, receiving_of(self.books, stream))

    @enter(Kind.RECEIVE_INDICATE)
    def indicating(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.bottom or item is None or item.stream is None:
            return
        state = receiving_of(self.books, item.stream)
        self._begin(crossing, state)
        if not state.excused:
            self._due(crossing, state)
        if state.refused and not state.blocked:
            self._begins_with_refused(crossing, state)

    def _begin(self, crossing: Crossing, state: Receiving) -> None:
        running, stream = state.upcall, state.stream
        text = f"{crossing.function} while {running.function if running else ''} of this connection is running"
        self.check("recv.complete.serialized", running is None, text, crossing, stream)
        if running is None:
            state.upcall = crossing
            state.posted_inside = state.arrived_inside = False
            return
        if running.kind is Kind.RECEIVE_COMPLETE and crossing.kind is Kind.RECEIVE_COMPLETE:
            self.check("recv.complete.no-nesting", False, text, crossing, stream)
        if state.arrived_inside:
            self.check("delivery.seg.busy", False, text + ", for a segment that came meanwhile", crossing, stream)

    def _due(self, crossing: Crossing, state: Receiving) -> None:
        """Whether anything may be indicated now."""
        stream = state.stream
        waiting = state.ordinary
        text = f"data is indicated, and a receive request of {waiting.length if waiting else 0} bytes waits"
        rules = ["recv.use-posted"]
        if state.last == REFUSED:
            rules += ["indicate.requests-first", "delivery.indicated.refused"]
        elif state.last == ACCEPTED:
            rules.append("delivery.indicated.accepted")
        if stream.disconnect_event is None:
            for rule in rules:
                self.check(rule, waiting is None, text, crossing, stream)
        if state.blocked:
            text = "bytes that were refused or handed over are indicated, and no request was posted meanwhile"
            self.check("indicate.no-repeat", state.last != REFUSED, text, crossing, stream)
            if state.fresh:
                self.check("delivery.seg.append", False, text, crossing, stream)
        elif state.left_over:
            self.exercise("delivery.leftover.indicate")
        else:
            self.exercise("delivery.seg.indicate")

    def _begins_with_refused(self, crossing: Crossing, state: Receiving) -> None:
        """After a zero-length request what was refused is indicated again, from its first byte."""
        receive = state.stream.receive
        if receive.unsure:
            return
        length = min(state.refused_to - receive.delivered, sum(view.length for view in crossing.nbls))
        ok = view_bytes(crossing.nbls, length) == receive.content[:length]
        text = "the indication does not begin with the first byte that was refused"
        self.check("indicate.keep-refused", ok, text, crossing, state.stream)
        self.check("delivery.indicated.refused", ok, text, crossing, state.stream)
        if state.reenabled:
            self.check("recv.zero-length", ok, text, crossing, state.stream)

    @leave(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry, request, _ in receives(crossing.notes):
            state = receiving_of(self.books, request.stream)
            receive = request.stream.receive
            state.last, state.reenabled = COMPLETED, request.length == 0
            if entry.view.status == Status.SUCCESS:
                state.completed_to = max(state.completed_to, receive.delivered)
            if state.upcall is crossing:
                self._end(crossing, state)
                if state.posted_inside:
                    self.exercise("recv.complete.no-nesting")
                    self.exercise("recv.complete.reentrant-post")
            state.left_over = request.length > 0 and receive.available > receive.delivered and state.head is None

    @leave(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.bottom or item is None or item.stream is None:
            return
        state = receiving_of(self.books, item.stream)
        if state.upcall is not crossing:
            return
        self._end(crossing, state)
        state.left_over = state.reenabled = False
        if not isinstance(crossing.result, tuple):
            return
        status, consumed = crossing.result
        if status == Status.OFFLOAD_DATA_NOT_ACCEPTED:
            consumed = 0
        delivered = item.stream.receive.delivered
        if status == Status.SUCCESS:
            state.last = ACCEPTED
            state.indicated_to = delivered
            return
        state.last = REFUSED
        state.refused_from = delivered
        state.refused_to = delivered - consumed + sum(view.length for view in crossing.nbls)
        state.indicated_to = state.refused_to
        state.blocked = not state.posted_inside
        state.fresh = False

    def _end(self, crossing: Crossing, state: Receiving) -> None:
        state.upcall = None
        state.idle_at = crossing.ended_at
        if state.arrived_inside:
            self.exercise("delivery.seg.busy")


class Refused(Checks):
    """What becomes of refused bytes when their connection goes back."""

    RULES = ("indicate.keep-refused",)

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item, _ in nodes(operation):
            if item is not None and block.status == Status.SUCCESS and isinstance(block.delegated, TcpDelegated):
                self._kept(crossing, item, block.delegated)

    def _kept(self, crossing: Crossing, item: ObjectBook, delegated: TcpDelegated) -> None:
        stream = item.stream
        state = None if stream is None else receiving(stream)
        if stream is None or state is None or not state.refused or stream.receive.unsure:
            return
        if stream.failed or stream.abort_event is not None or state.reset_seen:
            return
        wanted = bytes(stream.receive.content[: state.refused_to - stream.receive.delivered])
        self.check(
            "indicate.keep-refused",
            view_bytes(view_list(delegated.buffered_data), len(wanted)) == wanted,
            f"{len(wanted)} refused bytes are neither delivered nor in BufferedData",
            crossing,
            stream,
        )
