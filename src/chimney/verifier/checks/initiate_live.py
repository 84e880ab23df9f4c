"""Initiate: from when on a connection is the target's, and over which path and neighbor it goes (9.2, 5.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import NeighborCached, NeighborConst
from chimney.verifier.books import BoundaryBook, Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, leave, segment_in, segment_out
from chimney.verifier.packets import ACK, FIN, RST, SYN, URG, Packet
from chimney.verifier.relations import below, nodes, open_initiate
from chimney.verifier.segments import flow_of_packet
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_MARGIN_US = 50_000
"""What a target has read before it completed an initiate has been dealt with after so long."""


class Alive(Checks):
    """Segments that arrive while a connection is being offloaded, and afterwards."""

    RULES = ("initiate.enabled-at-once", "initiate.rx.early-processing")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._seen: BaseException | None = None

    @segment_in
    @segment_out
    def passes(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if not item.initiate_returned:
            self._early(packet, item, stream)
        elif not packet.incoming and packet.flags & ACK and "initiate_live: handled" not in stream.facts:
            self._late(packet, stream)
        if not packet.incoming:
            stream.facts["initiate_live: source mac"] = packet.source_mac

    def _early(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        operation = open_initiate(item)
        if operation is None or operation.handler is None:
            return
        if packet.incoming:
            if packet.acts and packet.payload_length and not packet.flags & (SYN | RST | URG):
                stream.facts["initiate_live: early"] = stream.receive.available
            return
        stream.facts["initiate_live: spoke early"] = True
        self.check(
            "initiate.enabled-at-once",
            not packet.flags & RST or stream.abort is not None,
            "a segment that came while the connection was being offloaded is answered with RST",
            packet,
        )

    def _late(self, packet: Packet, stream: Stream) -> None:
        """What came early must have been kept by one of the two."""
        facts = stream.facts
        acknowledged = stream.receive.position(packet.ack)
        early = facts.get("initiate_live: early")
        if early is not None and packet.at > facts["initiate_live: initiated"] + _MARGIN_US:
            facts["initiate_live: handled"] = True
            self.check(
                "initiate.enabled-at-once",
                "initiate_live: passed up" in facts or acknowledged >= early or early > self._window(stream),
                lambda: f"bytes up to {early} came while it was being offloaded, {acknowledged} are acknowledged",
                packet,
            )
        elif acknowledged > stream.receive.handed_over and early is None:
            facts["initiate_live: handled"] = True
            self.exercise("initiate.enabled-at-once")

    def _window(self, stream: Stream) -> int:
        return stream.delegated.rcv_wnd + stream.receive.handed_over

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                stream.facts["initiate_live: initiated"] = crossing.at

    @enter(Kind.ORDINARY_RECEIVE)
    def passed_up(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        book = self.books.of(crossing)
        for frame, view in zip(crossing.notes, crossing.nbls, strict=True):
            if not frame.tcp:
                continue
            stream = self.books.streams.get(flow_of_packet(frame))
            item = None if stream is None else stream.bottom
            if stream is None or item is None or item.boundary is not crossing.boundary:
                continue
            if not item.initiate_returned:
                stream.facts["initiate_live: passed up"] = True
            elif item.offloaded and not self._excused(frame, view.status, stream, item, book):
                self.check(
                    "initiate.enabled-at-once",
                    crossing.at <= stream.facts["initiate_live: initiated"] + _MARGIN_US,
                    "a segment of an offloaded connection is passed up the ordinary path",
                    crossing,
                    stream,
                )

    def _excused(self, packet: Packet, status: int, stream: Stream, item: ObjectBook, book: BoundaryBook) -> bool:
        """Whether the frame is the host's business for another reason (16.4)."""
        if status or packet.flags & (SYN | RST | URG | FIN) or packet.ip_options or packet.fragment:
            return True
        if stream.leaving or stream.failed or stream.fin_received is not None or book.uploading_all is not None:
            return True
        ours = stream.facts.get("initiate_live: source mac")
        if ours is None or packet.destination_mac != ours:
            return True
        return any(isinstance(o.const, NeighborConst) and o.const.vlan_id for o in below(item))

    @leave(Kind.INITIATE_COMPLETE, stage=Stage.HANDLER)
    def told(self, crossing: Crossing) -> None:
        if isinstance(crossing.notes, Operation) and any(
            "initiate_live: spoke early" in s.facts for s in crossing.notes.streams()
        ):
            raised = crossing.raised
            self.check(
                "initiate.rx.early-processing",
                raised is None or raised is self._seen,
                lambda: f"the target had begun to process segments, and the handler raised {raised!r}",
                crossing,
                culprit=crossing.boundary.protocol.name,
            )
            self._seen = raised


class Quiet(Checks):
    """No upcalls for what is being offloaded."""

    RULES = ("initiate.rx.no-early-indication", "initiate.no-indications")

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        item = self.books.object(crossing) if crossing.boundary.bottom else None
        if item is None:
            return
        self.check(
            "initiate.rx.no-early-indication",
            item.initiate_returned,
            "data is indicated, and the completion of the initiate has not returned",
            crossing,
            item,
        )
        self._quiet(crossing, item)

    @enter(Kind.EVENT)
    def event(self, crossing: Crossing) -> None:
        item = self.books.object(crossing) if crossing.boundary.bottom else None
        if item is not None:
            self._quiet(crossing, item)

    @enter(Kind.OFFLOAD_EVENT)
    def generic_event(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for block in crossing.blocks:
                item = None if block.handle is None else self.books.of(crossing).objects.get(id(block.handle))
                if item is not None:
                    self._quiet(crossing, item)

    def _quiet(self, crossing: Crossing, item: ObjectBook) -> None:
        self.check(
            "initiate.no-indications",
            open_initiate(item) is None,
            lambda: f"{crossing.function} while it is being offloaded",
            crossing,
            item,
        )


class Links(Checks):
    """A connection's frames go to the neighbor that its path is linked to."""

    RULES = ("initiate.links", "update.relink")

    @enter(Kind.UPDATE, stage=Stage.HANDLER)
    def update(self, crossing: Crossing) -> None:
        """While an update is under way, old and new are right."""
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.before, operation.objects, strict=True):
            if item is not None and item.layer is not Layer.TCP:
                item.facts["initiate_live: links in doubt"] = item.facts.get("initiate_live: links in doubt", 0) + 1
                if item.layer is Layer.PATH and block.parent is not None and not block.parent.placeholder:
                    item.facts["initiate_live: relinking"] = item.parent

    @enter(Kind.UPDATE_COMPLETE)
    def updated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for _, item, _ in nodes(operation):
            if item is None or "initiate_live: links in doubt" not in item.facts:
                continue
            item.facts["initiate_live: links in doubt"] -= 1
            before = item.facts.pop("initiate_live: relinking", item.parent)
            if before is not item.parent:
                item.facts["initiate_live: relinked"] = True

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        path = item.parent
        neighbor = None if path is None else path.parent
        if path is None or neighbor is None or not isinstance(neighbor.cached, NeighborCached):
            return
        if path.facts.get("initiate_live: links in doubt") or neighbor.facts.get("initiate_live: links in doubt"):
            return
        const = neighbor.const
        source = const.dl_source_address if isinstance(const, NeighborConst) else b""
        right = packet.destination_mac == neighbor.cached.dl_destination_address and (
            not any(source) or packet.source_mac == source
        )
        if path.facts.get("initiate_live: relinked"):
            self.check(
                "update.relink",
                right,
                lambda: f"sent to {packet.destination_mac.hex(':')}, which is not the new neighbor",
                packet,
            )
        self.check(
            "initiate.links",
            right,
            lambda: f"sent from {packet.source_mac.hex(':')} to {packet.destination_mac.hex(':')}",
            packet,
        )
