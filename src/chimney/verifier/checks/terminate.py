"""Terminate: when the host asks for it, that nothing is done meanwhile, and that nothing is left afterwards (9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import NeighborConst
from chimney.verifier.books import REQUESTS, Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, packet
from chimney.verifier.packets import FIN, RST, Packet
from chimney.verifier.recent import Recent
from chimney.verifier.segments import Key, flow_of_packet, key_of_packet, parse_segment
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

Flow = tuple[bytes, int, bytes, int]
_CONTROL = (Kind.QUERY, Kind.UPDATE, Kind.INVALIDATE)
_REMEMBERED = 256
_PROMPT_US = 1_000_000


class Terminates(Checks):
    """NdisTerminateOffload and its completion, as calls."""

    RULES = (
        "terminate.host-only",
        "terminate.host.control-drained",
        "terminate.host.calls-returned",
        "terminate.host.no-new-io",
        "terminate.host.refcount",
        "terminate.async",
        "terminate.free-after",
    )

    @enter(Kind.TERMINATE)
    def called(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not isinstance(operation, Operation):
            return
        if not crossing.boundary.top:
            asked = any(
                o.kind is Kind.TERMINATE for book in self.books.above(crossing.boundary) for o in book.operations
            )
            self.check("terminate.host-only", asked, "a driver terminates, and its host has not asked for it", crossing)
            return
        items = [item for item in operation.objects if item is not None]
        running = [
            other
            for other in self.verifier.running
            if other.boundary is crossing.boundary
            and other.kind in REQUESTS
            and other.stage is Stage.CALL
            and any(other.handle is item.handle for item in items)
        ]
        self.check(
            "terminate.host.calls-returned",
            not running,
            lambda: f"{running[0].function} has not returned yet",
            crossing,
        )
        leaving = set(map(id, items))
        for item in items:
            self._object(crossing, operation, item, leaving)

    def _object(self, crossing: Crossing, operation: Operation, item: ObjectBook, leaving: set[int]) -> None:
        others = [o for o in item.operations if o is not operation and o.kind in _CONTROL]
        self.check(
            "terminate.host.control-drained",
            not others,
            lambda: f"{others[0].call.function} has not been completed yet",
            crossing,
            item,
        )
        if item.layer is not Layer.TCP:
            left = sum(id(dependent) not in leaving for dependent in item.dependents if not dependent.ended)
            self.check(
                "terminate.host.refcount",
                not left,
                lambda: f"{left} offloaded objects depend on this {item.layer.name.lower()}",
                crossing,
                item,
            )

    @enter(Kind.SEND, Kind.RECEIVE)
    def posted(self, crossing: Crossing) -> None:
        item = self.books.object(crossing) if crossing.boundary.top else None
        if item is not None and any(operation.kind is Kind.TERMINATE for operation in item.operations):
            self.check(
                "terminate.host.no-new-io",
                False,
                lambda: f"{crossing.function} for a connection that is being terminated",
                crossing,
                item,
            )

    @enter(Kind.TERMINATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.top:
            self.exercise("terminate.host.no-new-io")
        if not crossing.boundary.bottom:
            return
        known = isinstance(operation, Operation)
        self.check("terminate.host-only", known, "a terminate is completed that is not under way", crossing)
        if not known:
            return
        handler = operation.handler
        self.check(
            "terminate.async",
            handler is not None and handler.ended,
            "the terminate is completed from within the call that asks for it",
            crossing,
        )
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and item.cell is not None:
                self.check(
                    "terminate.free-after",
                    view.cell is item.cell,
                    "the context is gone before the terminate has completed",
                    crossing,
                    item,
                )


class LentLists(Checks):
    """The lists of BufferedData go back, each once."""

    RULES = ("terminate.buffered.return",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._back: Recent[int, NetBufferList] = Recent(_REMEMBERED)

    @enter(Kind.RECEIVE_RETURN)
    def returned(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        for view, lent in zip(crossing.nbls, crossing.notes, strict=True):
            if lent is not None and lent[1].kind is Kind.TERMINATE_COMPLETE:
                self.exercise("terminate.buffered.return")
                self._back[id(view.nbl)] = view.nbl
            elif lent is None and id(view.nbl) in self._back:
                self.check("terminate.buffered.return", False, "a list of BufferedData is returned again", crossing)

    @finish
    def ended(self) -> None:
        for book in self.books.boundaries.values():
            if not book.boundary.top:
                continue
            for _, crossing, stream in book.lent.values():
                if crossing.kind is Kind.TERMINATE_COMPLETE:
                    message = "a list of BufferedData has not been returned"
                    self.check("terminate.buffered.return", False, message, crossing, stream)


class Afterwards(Checks):
    """Segments that arrive during a terminate and after it, and those that leave then."""

    RULES = ("terminate.stop-timers", "terminate.segments", "terminate.segments.not-back")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._expected: dict[tuple[Flow, Key], tuple[int, Packet]] = {}
        self._during: Recent[Flow, set[Key]] = Recent(_REMEMBERED)

    @enter(Kind.TERMINATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                if stream.terminated is crossing:
                    self.exercise("terminate.stop-timers")

    @packet
    def seen(self, packet: Packet) -> None:
        stream = packet.stream
        if stream is None or stream.terminate is None:
            return
        if packet.incoming:
            self._arrived(packet, stream)
        elif stream.terminated is not None and packet.sent:
            # A bare acknowledgement can be the host's, which has the same link.
            ours = packet.payload_length > 0 or packet.flags & (FIN | RST)
            if ours:
                message = "a segment leaves after the terminate has completed"
                self.check("terminate.stop-timers", False, message, packet, stream)

    def _arrived(self, packet: Packet, stream: Stream) -> None:
        item = stream.bottom
        neighbor = item.parent.parent if item is not None and item.parent is not None else None
        tagged = neighbor is not None and isinstance(neighbor.const, NeighborConst) and neighbor.const.vlan_id
        if packet.acts and not tagged and not packet.destination_mac[0] & 1:
            key = stream.flow, key_of_packet(packet)
            count, _ = self._expected.get(key, (0, packet))
            self._expected[key] = (count + 1, packet)
            self._overdue()

    @enter(Kind.ORDINARY_RECEIVE)
    def passed_up(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom and not crossing.boundary.top:
            return
        for frame in crossing.notes:
            if not frame.tcp:
                continue
            flow, key = flow_of_packet(frame), key_of_packet(frame)
            if crossing.boundary.bottom:
                self._came((flow, key))
            stream = self.books.streams.get(flow)
            if crossing.boundary.top and stream is not None:
                if stream.terminate is not None and stream.terminated is None:
                    self._kept(flow, key)

    def _came(self, key: tuple[Flow, Key]) -> None:
        count, packet = self._expected.pop(key, (0, None))
        if packet is not None:
            self.exercise("terminate.segments")
            if count > 1:
                self._expected[key] = (count - 1, packet)

    def _kept(self, flow: Flow, key: Key) -> None:
        self.exercise("terminate.segments.not-back")
        kept = self._during[flow] = self._during.get(flow, set())
        if len(kept) < _REMEMBERED:
            kept.add(key)

    def _overdue(self) -> None:
        """The oldest that has not come up in time; they come in this order."""
        key, (_, packet) = next(iter(self._expected.items()))
        stream = packet.stream
        if stream is not None and stream.hardware_failure is not None and stream.terminated is None:
            # Its terminate has failed: it keeps them until the host asks once more (A6), which a driver may not let it.
            return
        if self.verifier.clock() - packet.at > _PROMPT_US:
            self._missing(key, packet)

    def _missing(self, key: tuple[Flow, Key], packet: Packet) -> None:
        del self._expected[key]
        message = "a segment of a connection that is being terminated does not come up the ordinary path"
        self.check("terminate.segments", False, message, packet)

    @finish
    def ended(self) -> None:
        for key, (_, late) in list(self._expected.items()):
            self._missing(key, late)

    @enter(Kind.FORWARD)
    def forwarded(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        for request in crossing.notes:
            kept = self._during.get(request.stream.flow)
            segment = parse_segment(request.data()) if kept else None
            if kept and segment is not None:
                self.check(
                    "terminate.segments.not-back",
                    segment.key not in kept,
                    "a segment that came up during a terminate is forwarded to the target",
                    crossing,
                    request.stream,
                )
