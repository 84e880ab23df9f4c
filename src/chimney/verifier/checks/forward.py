"""Segments that the host has received itself, and forwards to the target (10.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from chimney.ndis.crossing import BlockView, Crossing, Kind, NblView, Stage
from chimney.ndis.state import PathConst, TcpConst, TcpDelegated
from chimney.ndis.status import Status, TcpConstFlags
from chimney.verifier.books import Completed, Layer, ObjectBook, Operation, Request, layer_of
from chimney.verifier.check import Checks, elsewhere, enter, finish, leave, packet, segment_in
from chimney.verifier.packets import ACK, RST, SYN, Packet
from chimney.verifier.recent import Recent
from chimney.verifier.segments import Key, TcpSegment, flow_of_packet, key_of_packet, parse_segment
from chimney.verifier.streams import Stream, distance
from chimney.verifier.violation import name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

Flow = tuple[bytes, int, bytes, int]
_REMEMBERED = 256
_PROMPT_US = 5_000_000


class Forwards(Checks):
    """NdisOffloadTcpForward: when, and of what."""

    RULES = (
        "forward.when",
        "forward.not-during-offload",
        "forward.not-during-terminate",
        "forward.one-segment",
        "forward.pending-only",
        "forward.queue",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._sums: dict[int, int] = {}
        # What has come up on the ordinary path, and when: the numbers of its first and of its last arrival.
        self._ordinary: Recent[Flow, Recent[Key, tuple[int, int]]] = Recent(_REMEMBERED)
        self._arrivals = 0
        # What has come on other interfaces.
        self._foreign: Recent[Flow, Recent[Key, bool]] = Recent(_REMEMBERED)

    @elsewhere
    def heard(self, flow: Flow, tcp: memoryview) -> None:
        segment = parse_segment(bytes(tcp))
        if segment is not None:
            keys = self._foreign[flow] = self._foreign.get(flow) or Recent(_REMEMBERED)
            keys[segment.key] = True

    @segment_in
    def arrived(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        """What the target takes from the wire itself is nothing to forward."""
        if packet.acts and item.offloaded and not stream.leaving:
            stream.facts.setdefault("forward: segments taken", Recent(_REMEMBERED))[key_of_packet(packet)] = True

    @enter(Kind.ORDINARY_RECEIVE)
    def passed_up(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for frame in crossing.notes:
            if frame.tcp:
                flow = flow_of_packet(frame)
                # Moved to the end: what has been quiet for long is forgotten first.
                keys = self._ordinary[flow] = self._ordinary.get(flow) or Recent(_REMEMBERED)
                key = key_of_packet(frame)
                self._arrivals += 1
                keys[key] = keys.get(key, (self._arrivals, 0))[0], self._arrivals

    @enter(Kind.FORWARD)
    def called(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.top or item is None:
            return
        self.check(
            "forward.not-during-offload",
            item.offloaded or item.ended,
            "segments are forwarded although the initiate has not completed",
            crossing,
            item,
        )
        terminating = any(operation.kind is Kind.TERMINATE for operation in item.operations)
        self.check(
            "forward.not-during-terminate",
            not terminating,
            "segments are forwarded although the connection is being terminated",
            crossing,
            item,
        )
        for request in crossing.notes:
            self._sums[id(request.nbl)] = crc32(request.data())
            self._segment(crossing, request, item)
        if item.stream is not None:
            self._in_order(crossing, item.stream)

    def _in_order(self, crossing: Crossing, stream: Stream) -> None:
        """The host forwards what has come as it has come: the target takes each for what it would be on the wire."""
        ordinary = self._ordinary.get(stream.flow)
        if ordinary is None:
            return
        latest = 0
        for request in crossing.notes:
            segment = parse_segment(request.data())
            first, last = (0, 0) if segment is None else ordinary.get(segment.key, (0, 0))
            if last:
                self.check("forward.when", latest <= last, "forwarded behind what has come after it", crossing, stream)
                latest = max(latest, first)

    def _segment(self, crossing: Crossing, request: Request, item: ObjectBook) -> None:
        stream = item.stream
        segment = parse_segment(request.data())
        if stream is None:
            return
        _, local_port, _, remote_port = stream.flow
        fits = segment is not None and (segment.source_port, segment.destination_port) == (remote_port, local_port)
        whole = segment is not None and _header_in_first_mdl(request.view, segment.header_length)
        self.check(
            "forward.one-segment",
            fits and whole and len(request.view.buffers) == 1,
            "no single TCP segment of this connection, with its header in the first MDL",
            crossing,
            stream,
        )
        if segment is not None:
            known = any(segment.key in heard.get(stream.flow, ()) for heard in (self._ordinary, self._foreign))
            self.check(
                "forward.when",
                known or segment.key not in stream.facts.get("forward: segments taken", ()),
                "the target has received this segment itself",
                crossing,
                stream,
            )

    @leave(Kind.FORWARD, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.raised is None:
            self.check(
                "forward.pending-only",
                crossing.result == Status.PENDING,
                lambda: f"MiniportTcpOffloadForward returned {crossing.result!r}",
                crossing,
            )

    @leave(Kind.FORWARD)
    def withdrawn(self, crossing: Crossing) -> None:
        if crossing.boundary.top and crossing.raised is not None:
            for view in crossing.nbls:
                self._sums.pop(id(view.nbl), None)

    @enter(Kind.FORWARD_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        for entry in crossing.notes:
            before = self._sums.pop(id(entry.view.nbl), None)
            if before is not None and entry.request is not None:
                self._unchanged(crossing, entry.request, before)

    def _unchanged(self, crossing: Crossing, request: Request, before: int) -> None:
        self.check(
            "forward.queue",
            crc32(request.data()) == before,
            "the segment has changed while it was the target's",
            crossing,
            request.stream,
            culprit=crossing.boundary.protocol.name,
        )


def _header_in_first_mdl(view: NblView, length: int) -> bool:
    offset, _, mdls = view.buffers[0]
    return bool(mdls) and offset + length <= mdls[0].byte_count


class ForwardCompletions(Checks):
    """Every list that a target gives to NdisTcpOffloadForwardComplete, and what becomes of it."""

    RULES = ("forward.complete.status", "forward.processed", "forward.complete.batch")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._owing: dict[int, Stream] = {}
        self._batched: dict[int, tuple[Request, Crossing]] = {}

    @enter(Kind.FORWARD_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        for entry in crossing.notes:
            if entry.request is not None:
                below = entry.request.below
                if below is not None:
                    self._batched.pop(id(below), None)
                if crossing.boundary.bottom:
                    self._status(crossing, entry, entry.request)

    def _status(self, crossing: Crossing, entry: Completed, request: Request) -> None:
        stream, status = request.stream, entry.view.status
        leaving = stream.leaving or self.books.of(crossing).uploading_all is not None
        aborted = stream.failed or stream.abort_event is not None
        fitting = (
            status == Status.SUCCESS
            or (status == Status.UPLOAD_IN_PROGRESS and leaving)
            or (status == Status.REQUEST_ABORTED and aborted)
        )
        self.check(
            "forward.complete.status",
            fitting,
            lambda: f"a forward ends with {name(status)}; upload under way: {leaving}, aborted: {aborted}",
            crossing,
            stream,
        )
        if status == Status.SUCCESS and not leaving and not aborted:
            self._owe(request, stream, crossing.at)

    # What has been processed is acknowledged

    def _owe(self, request: Request, stream: Stream, now: int) -> None:
        segment = parse_segment(request.data())
        item = stream.bottom
        if (
            segment is None
            or item is None
            or not isinstance(item.const, TcpConst)
            or "forward: forwarded" in stream.facts
        ):
            return
        lacks_timestamp = item.const.flags & TcpConstFlags.TIMESTAMP_ENABLED and segment.ts_val is None
        if not segment.length or segment.flags & (SYN | RST) or not segment.flags & ACK or lacks_timestamp:
            return
        receive = stream.receive
        end = receive.position(segment.seq) + segment.length
        if receive.exact and receive.handed_over < end <= receive.available:
            stream.facts["forward: forwarded"] = (end, now)
            self._owing[id(stream)] = stream
            self._look(stream, None)

    def _settled(self, stream: Stream) -> None:
        del stream.facts["forward: forwarded"]
        self._owing.pop(id(stream), None)

    def _look(self, stream: Stream, where: Packet | Crossing | ObjectBook | None) -> None:
        owed = stream.facts.get("forward: forwarded")
        if owed is None:
            return
        if stream.receive.acknowledged >= owed[0]:
            self.exercise("forward.processed")
            self._settled(stream)
        elif stream.failed or stream.leaving or stream.invalidated is not None or "closing: refused" in stream.facts:
            self._settled(stream)
        elif self.verifier.clock() - owed[1] > _PROMPT_US:
            self._settled(stream)
            self.check("forward.processed", False, "the data of a forwarded segment is not acknowledged", where, stream)

    @packet
    def seen(self, packet: Packet) -> None:
        if packet.stream is not None and "forward: forwarded" in packet.stream.facts:
            self._look(packet.stream, packet)

    @enter(Kind.TERMINATE)
    def taken_back(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for stream in crossing.notes.streams():
                self._look(stream, crossing)

    # Lists that mix calls

    @leave(Kind.FORWARD_COMPLETE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        requests = [entry.request for entry in crossing.notes if entry.request is not None]
        if len({id(request.posted) for request in requests}) < 2:
            return
        self.check(
            "forward.complete.batch",
            crossing.raised is None,
            lambda: f"the handler raised {crossing.raised!r} at a list that mixes calls",
            crossing,
            culprit=crossing.boundary.protocol.name,
        )
        for request in requests:
            if request.above is not None and request.above.completed is None:
                self._batched[id(request)] = (request, crossing)

    @finish
    def ended(self) -> None:
        for stream in list(self._owing.values()):
            self._look(stream, stream.bottom)
        for request, crossing in self._batched.values():
            self._lost(request, crossing)

    def _lost(self, request: Request, crossing: Crossing) -> None:
        self.check(
            "forward.complete.batch",
            request.above is not None and request.above.completed is not None,
            "a forward of a list that mixes calls has not been passed up",
            crossing,
            request.stream,
            culprit=crossing.boundary.protocol.name,
        )


class Unprocessed(Checks):
    """What the host does with forwards that come back: it processes them itself, or (after an RST) nobody does.

    That shows when the connection is offloaded once more.
    """

    RULES = ("forward.complete.host",)

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._returned: Recent[Flow, list[tuple[int, TcpSegment]]] = Recent(_REMEMBERED)
        self._ended: Recent[Flow, int] = Recent(_REMEMBERED)

    @enter(Kind.FORWARD_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        for entry in crossing.notes:
            if entry.request is not None and entry.view.status != Status.SUCCESS:
                self._keep(entry.request, entry.view.status)

    def _keep(self, request: Request, status: int) -> None:
        segment = parse_segment(request.data())
        if segment is not None and segment.length and not segment.flags & (SYN | RST):
            flow = request.stream.flow
            kept = self._returned[flow] = self._returned.get(flow, [])
            if len(kept) < _REMEMBERED:
                kept.append((status, segment))

    @enter(Kind.TERMINATE_COMPLETE, stage=Stage.HANDLER)
    def taken_back(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and item.stream is not None and isinstance(view.delegated, TcpDelegated):
                if item.stream.flow in self._returned:
                    self._ended[item.stream.flow] = view.delegated.rcv_nxt

    @enter(Kind.INITIATE)
    def offloaded(self, crossing: Crossing) -> None:
        if not crossing.boundary.top or not self._returned:
            return
        for view in crossing.blocks:
            if layer_of(view.type) is Layer.TCP and isinstance(view.delegated, TcpDelegated):
                self._again(crossing, view, view.delegated)

    def _again(self, crossing: Crossing, view: BlockView, delegated: TcpDelegated) -> None:
        flow = _flow(view)
        before = self._ended.pop(flow, None) if flow is not None else None
        if flow is None or before is None:
            return
        kept = self._returned.pop(flow, [])
        reached = lost = before
        for status, segment in sorted(kept, key=lambda entry: distance(entry[1].seq, before)):
            after = (segment.seq + segment.length) & 0xFFFFFFFF
            if status == Status.REQUEST_ABORTED:
                lost = after
            elif distance(segment.seq, reached) <= 0 < distance(after, reached):
                reached = after
        moved = distance(delegated.rcv_nxt, before)
        self.check(
            "forward.complete.host",
            moved >= distance(reached, before) and not 0 < moved <= distance(lost, before),
            lambda: (
                f"{distance(reached, before)} bytes came back unprocessed, {distance(lost, before)} after an RST; "
                f"the host offloads the connection again {moved} bytes further"
            ),
            crossing,
        )


def _flow(view: BlockView) -> Flow | None:
    """Addresses and ports of a new TCP block; None if its path is a linker, or it is not new."""
    path = view.parent.const if view.parent is not None else None
    if not isinstance(view.const, TcpConst) or not isinstance(path, PathConst):
        return None
    return path.source_address, view.const.local_port, path.destination_address, view.const.remote_port
