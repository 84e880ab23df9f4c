"""How the verifier's books are kept: what each crossing, and each packet, changes in them."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from chimney.ndis.capabilities import TcpConnectionOffload, TcpConnectionOffloadParameters
from chimney.ndis.crossing import BlockView, Crossing, Kind, NblView, Stage, view_list
from chimney.ndis.state import OffloadBlockList, PathConst, TcpConst, TcpDelegated, walk
from chimney.ndis.status import DisconnectFlags, Status, TcpConstFlags, TcpOffloadEvent, UploadReason
from chimney.verifier.addressing import foreign_address, foreign_vlan, neighbor_of
from chimney.verifier.books import (
    COMPLETIONS,
    OFFLOADED,
    OPERATION_COMPLETIONS,
    OPERATIONS,
    POISON,
    REQUESTS,
    Books,
    BoundaryBook,
    Completed,
    Layer,
    ObjectBook,
    Operation,
    Request,
    layer_of,
)
from chimney.verifier.check import enter, leave, packet
from chimney.verifier.layers import relate
from chimney.verifier.packets import Packet
from chimney.verifier.relations import below, connections_of
from chimney.verifier.segments import parse_ordinary
from chimney.verifier.streams import ReceiveBook, SendBook, Stream, chain_bytes

_ENDED_STREAMS = 256


class Bookkeeping(Books):
    """The books, and the one who writes them, told of crossings and frames like checks."""

    def __init__(self) -> None:
        super().__init__()
        self._completions = 0
        self._ended: dict[int, Stream] = {}

    @enter(*COMPLETIONS, stage=Stage.HANDLER)
    def came_back(self, crossing: Crossing) -> None:
        """NDIS passes completed lists on."""
        crossing.notes = crossing.parent.notes if crossing.parent is not None else []

    @enter(Kind.RECEIVE_RETURN)
    def returned(self, crossing: Crossing) -> None:
        """Lists that were indicated come back."""
        book = self.of(crossing)
        crossing.notes = [book.lent.pop(id(view.nbl), None) for view in crossing.nbls]

    @enter(Kind.ORDINARY_RECEIVE)
    def passed_up(self, crossing: Crossing) -> None:
        """Frames go up the ordinary path: they are taken apart once for all who look at them."""
        boundary = crossing.boundary
        crossing.notes = parse_ordinary(crossing) if boundary.bottom or boundary.top else []

    @enter(Kind.SET_OPTIONAL_HANDLERS)
    def registered(self, crossing: Crossing) -> None:
        """A driver registers a table of entry points."""
        self.of(crossing).tables.append(crossing.information)

    @leave(Kind.INITIATE_COMPLETE)
    def initiate_returned(self, crossing: Crossing) -> None:
        """The completion of an initiate has been told."""
        if crossing.raised is None and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None:
                    item.initiate_returned = True

    @leave(Kind.SET_ATTRIBUTES)
    def attributes_set(self, crossing: Crossing) -> None:
        """A miniport has reported what it can."""
        if crossing.raised is None and isinstance(crossing.information, tuple):
            self.of(crossing).capabilities = crossing.information[0]

    @enter(*REQUESTS)
    def posted(self, crossing: Crossing) -> None:
        """Requests go down."""
        book = self.of(crossing)
        item = self.object(crossing)
        crossing.notes = []
        if item is None:
            return
        numbers: tuple[int, ...] = ()
        reentrant = False
        call = crossing.parent
        while call is not None:
            numbers += (call.number,)
            reentrant = reentrant or _completes(call, crossing.kind, item)
            call = call.parent
        for view in crossing.nbls:
            request = self._request(book, crossing.kind, view, item, crossing)
            request.flags = crossing.value
            request.inside = numbers
            request.reentrant = reentrant
            crossing.notes.append(request)
        if book.boundary.top:
            for view in crossing.nbls:
                view.nbl.status = POISON

    def _request(self, book: BoundaryBook, kind: Kind, view: NblView, item: ObjectBook, crossing: Crossing) -> Request:
        order = item.orders.get(kind, 0)
        item.orders[kind] = order + 1
        request = Request(kind, view.nbl, book.boundary, item, crossing, view, order)
        if id(view.nbl) not in book.requests:
            book.requests[id(view.nbl)] = item.requests[id(view.nbl)] = request
        for upper in self.above(crossing.boundary):
            above = upper.requests.get(id(view.nbl))
            if above is not None:
                request.above = above
                above.below = request
        return request

    @enter(*REQUESTS, stage=Stage.HANDLER)
    def arrived(self, crossing: Crossing) -> None:
        """A request reaches the target: the byte books begin with it."""
        if not crossing.boundary.bottom:
            return
        call = crossing.parent
        requests = call.notes if call is not None and isinstance(call.notes, list) else []
        crossing.notes = requests
        for request in requests:
            stream = request.stream
            if crossing.kind is Kind.SEND:
                stream.send.add(request)
            elif crossing.kind is Kind.DISCONNECT:
                if crossing.value == DisconnectFlags.GRACEFUL_CLOSE:
                    stream.send.add(request)
                    if stream.graceful is None:
                        stream.graceful = crossing
                        stream.send.fin_posted = True
                elif stream.abort is None:
                    stream.abort = crossing
            elif crossing.kind is Kind.FORWARD and not stream.leaving:
                segment = request.data()
                if len(segment) >= 20:
                    seq, ack = int.from_bytes(segment[4:8], "big"), int.from_bytes(segment[8:12], "big")
                    stream.segment_in(seq, ack, segment[13], segment[(segment[12] >> 4) * 4 :], crossing)

    @leave(*REQUESTS)
    def refused(self, crossing: Crossing) -> None:
        """A call was refused: nothing has changed hands."""
        if crossing.raised is None:
            return
        book = self.of(crossing)
        posted: list[Request] = crossing.notes or []
        for request in posted:
            if book.requests.get(id(request.nbl)) is request:
                book.take(request.nbl)
            request.nbl.status = request.view.status
            if request.stream.send.requests and request.stream.send.requests[-1] is request:
                request.stream.send.requests.pop()
                request.stream.send.posted = request.start

    @enter(*COMPLETIONS)
    def completed(self, crossing: Crossing) -> None:
        """Requests come back."""
        book = self.of(crossing)
        crossing.notes = []
        book.forget_done()
        for view in crossing.nbls:
            request = book.take(view.nbl)
            entry = Completed(view, request)
            if request is None:
                entry.earlier = book.done.get(id(view.nbl))
                for other in self.boundaries.values():
                    entry.elsewhere = entry.elsewhere or other.requests.get(id(view.nbl))
            else:
                request.completed = crossing
                request.serial = self._serial()
                book.finished(request)
                if book.boundary.bottom:
                    self._settle(request, entry)
            crossing.notes.append(entry)

    def _serial(self) -> int:
        self._completions += 1
        return self._completions

    def _settle(self, request: Request, entry: Completed) -> None:
        stream = request.stream
        if request.kind is Kind.RECEIVE:
            # Checked against the memory by who looks at it; the books move on.
            count = entry.view.bytes_transferred - request.prefilled
            entry.delivered = stream.receive.deliver(max(0, count))
        elif request.kind in (Kind.SEND, Kind.DISCONNECT):
            stream.send.forget(request)

    @enter(*OPERATIONS)
    def operation(self, crossing: Crossing) -> None:
        """A state operation begins."""
        book = self.of(crossing)
        objects: list[ObjectBook | None] = []
        new: list[bool] = []
        by_view: dict[int, ObjectBook | None] = {}
        for block in crossing.blocks:
            item = None
            fresh = False
            if block.handle is not None:
                item = book.objects.get(id(block.handle))
                parent = by_view.get(id(block.parent)) if block.parent is not None else None
                if crossing.kind is Kind.INITIATE and block.cell is None and (item is None or not item.offloaded):
                    fresh = True
                    item = ObjectBook(
                        crossing.boundary,
                        block.handle,
                        layer_of(block.type),
                        parent,
                        block.const,
                        block.cached,
                        crossing,
                    )
                    if item.layer is Layer.TCP:
                        item.stream = self._stream(crossing, block, parent)
                        if item.stream is not None and crossing.boundary.bottom:
                            item.stream.bottom = item
                    book.objects[id(block.handle)] = item
            by_view[id(block)] = item
            objects.append(item)
            new.append(fresh)
        operation = Operation(crossing.kind, crossing.boundary, crossing, _root(crossing), objects, new)
        for item in objects:
            if item is not None:
                item.operations.append(operation)
        if crossing.boundary.protocol.driver is not None:
            relate(self, operation)
        book.operations.append(operation)
        crossing.notes = operation

    def _stream(self, crossing: Crossing, block: BlockView, parent: ObjectBook | None) -> Stream | None:
        const, delegated = block.const, block.delegated
        path = parent.const if parent is not None else None
        if (
            not isinstance(const, TcpConst)
            or not isinstance(delegated, TcpDelegated)
            or not isinstance(path, PathConst)
        ):
            return None
        flow = (path.source_address, const.local_port, path.destination_address, const.remote_port)
        known = self.streams.get(flow)
        if known is not None and not crossing.boundary.top and known.terminated is None:
            return known
        buffered = []
        nbl = delegated.buffered_data
        while nbl is not None:
            buffered.append(nbl)
            nbl = nbl.next
        stream = Stream(
            f"{_address(flow[0], flow[1])} > {_address(flow[2], flow[3])}",
            flow,
            delegated,
            SendBook(delegated.snd_una, delegated.snd_nxt, delegated.snd_max),
            ReceiveBook(delegated.rcv_nxt, delegated.rcv_wnd, chain_bytes(buffered)),
            0 if known is None else known.period + 1,
            const.rcv_wind_scale if const.flags & TcpConstFlags.WINDOW_SCALING_ENABLED else 0,
        )
        self.streams[flow] = stream
        return stream

    @enter(*OPERATIONS, stage=Stage.HANDLER)
    def operation_arrived(self, crossing: Crossing) -> None:
        """A state operation reaches the driver below."""
        call = crossing.parent
        if call is None or not isinstance(call.notes, Operation):
            return
        operation = call.notes
        operation.handler = crossing
        operation.lower_root = crossing.root
        crossing.notes = operation
        if crossing.root is not None:
            for block in walk(crossing.root):  # type: ignore[type-var]
                block.status = POISON  # type: ignore[assignment]
                block.scratch = None
        if crossing.boundary.bottom:
            if crossing.kind is Kind.INITIATE:
                self._chains(crossing, operation)
            elif crossing.kind is Kind.TERMINATE:
                for stream in operation.streams():
                    stream.terminate = crossing
            elif crossing.kind is Kind.INVALIDATE:
                for item in operation.objects:
                    if item is not None:
                        item.invalid = crossing
        elif crossing.kind is Kind.INITIATE:
            self._chains(crossing, operation)

    def _chains(self, crossing: Crossing, operation: Operation) -> None:
        """The send data of an initiate is pending with the driver below, like posted sends."""
        book = self.of(crossing)
        for block, item in zip(operation.before, operation.objects, strict=True):
            if item is None or item.stream is None:
                continue
            for view in block.chain:
                request = self._request(book, Kind.SEND, view, item, crossing)
                request.chained = True
                if crossing.boundary.bottom:
                    item.stream.send.add(request)

    @leave(*OPERATIONS)
    def operation_refused(self, crossing: Crossing) -> None:
        """A state operation was refused."""
        operation = crossing.notes
        if crossing.raised is None:
            return
        if isinstance(operation, Operation) and operation in self.of(crossing).operations:
            self._close(operation)
            if operation.above is not None:
                operation.above.parts.remove(operation)
            for item, fresh in zip(operation.objects, operation.new, strict=True):
                if fresh and item is not None:
                    item.ended = True
                    self._drop(item)

    def _close(self, operation: Operation) -> None:
        self.of(operation.boundary).operations.remove(operation)
        for item in operation.objects:
            if item is not None and operation in item.operations:
                item.operations.remove(operation)

    def _drop(self, item: ObjectBook) -> None:
        objects = self.of(item.boundary).objects
        if objects.get(id(item.handle)) is item:
            del objects[id(item.handle)]
        stream = item.stream
        if stream is not None:
            if stream.bottom is item:
                stream.bottom = None
            if stream.bottom is None:
                self._retire(stream)
        if item.parent is not None and item in item.parent.dependents:
            item.parent.dependents.remove(item)

    def _retire(self, stream: Stream) -> None:
        """What may still arrive for a connection that is not offloaded any more arrives soon."""
        self._ended[id(stream)] = stream
        if len(self._ended) > _ENDED_STREAMS:
            oldest = self._ended.pop(next(iter(self._ended)))
            if self.streams.get(oldest.flow) is oldest:
                del self.streams[oldest.flow]

    @enter(*OPERATION_COMPLETIONS)
    @enter(*OPERATION_COMPLETIONS, stage=Stage.HANDLER)
    def operation_completed(self, crossing: Crossing) -> None:
        """A state operation comes back."""
        book = self.of(crossing)
        if crossing.stage is Stage.HANDLER:
            crossing.notes = crossing.parent.notes if crossing.parent is not None else None
            return
        wanted = OPERATION_COMPLETIONS[crossing.kind]
        for operation in book.operations:
            if operation.lower_root is crossing.root and operation.kind is wanted:
                break
        else:
            return
        operation.completion = crossing
        crossing.notes = operation
        self._close(operation)
        if len(operation.after) != len(operation.objects):
            return
        for block, item, fresh in zip(operation.after, operation.objects, operation.new, strict=True):
            if item is not None:
                self._object_completed(operation, block, item, fresh)

    def _object_completed(self, operation: Operation, block: BlockView, item: ObjectBook, fresh: bool) -> None:
        stream = item.stream
        book = self.of(item.boundary)
        if operation.kind is Kind.INITIATE and fresh:
            item.offloaded = block.status in OFFLOADED
            item.cell = block.cell
            if item.offloaded:
                if item.parent is not None:
                    item.parent.dependents.append(item)
                return
            item.ended = True
            for view in operation.before[operation.objects.index(item)].chain:
                book.take(view.nbl)
            self._drop(item)
            # A driver may have refused what the target has never seen.
            if stream is not None and (item.boundary.bottom or stream.bottom is None):
                stream.terminated = operation.completion
        elif operation.kind is Kind.UPDATE and block.status == Status.SUCCESS:
            if block.cached is not None:
                item.cached = block.cached
            parent = operation.objects[operation.after.index(block.parent)] if block.parent is not None else None
            if item.layer is Layer.PATH and parent is not None and parent is not item.parent:
                if item.parent is not None and item in item.parent.dependents:
                    item.parent.dependents.remove(item)
                item.parent = parent
                parent.dependents.append(item)
                if item.boundary.bottom and not any(part.invalid for part in below(item)):
                    for connection in connections_of(item):
                        if connection.stream is not None:
                            connection.stream.stays()
        elif operation.kind is Kind.TERMINATE:
            book.forget_done()
            for view in block.chain:
                request = book.take(view.nbl)
                if request is not None:
                    request.completed = operation.completion
                    request.serial = self._serial()
                    request.returned_in_chain = True
                    book.finished(request)
                    if item.boundary.bottom:
                        request.stream.send.forget(request)
            if block.status == Status.SUCCESS:
                item.offloaded = False
                item.ended = True
                if stream is not None and item.boundary.bottom:
                    stream.terminated = operation.completion
                if isinstance(block.delegated, TcpDelegated):
                    for lent in view_list(block.delegated.buffered_data):
                        assert operation.completion is not None
                        book.lent[id(lent.nbl)] = (lent.nbl, operation.completion, stream)
                self._drop(item)

    @enter(Kind.EVENT)
    def event(self, crossing: Crossing) -> None:
        """Something has happened to a connection."""
        item = self.object(crossing)
        if item is None or item.stream is None or not crossing.boundary.bottom:
            return
        stream = item.stream
        if crossing.value == TcpOffloadEvent.INDICATE_DISCONNECT:
            stream.disconnect_event = stream.disconnect_event or crossing
        elif crossing.value == TcpOffloadEvent.INDICATE_ABORT:
            stream.abort_event = stream.abort_event or crossing
        elif crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE:
            if crossing.information in UploadReason._value2member_map_:
                reason = UploadReason(crossing.information)  # type: ignore[arg-type]
                stream.retrieves.append((crossing, reason))
                if reason.mandatory and stream.mandatory is None:
                    stream.mandatory = crossing
                if reason is UploadReason.HARDWARE_FAILURE and stream.hardware_failure is None:
                    stream.hardware_failure = crossing
                if reason is UploadReason.INVALID_STATE and stream.invalidated is None:
                    stream.invalidated = crossing

    @leave(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        """Received data have been indicated."""
        if crossing.raised is not None or not isinstance(crossing.result, tuple):
            return
        item = self.object(crossing)
        status, consumed = crossing.result
        book = self.of(crossing)
        stream = None if item is None else item.stream
        if status == Status.SUCCESS and crossing.nbl is not None:
            book.lent[id(crossing.nbl)] = (crossing.nbl, crossing, stream)
            consumed = sum(view.length for view in crossing.nbls)
        elif status == Status.OFFLOAD_DATA_NOT_ACCEPTED:
            consumed = 0
        if stream is not None and crossing.boundary.bottom:
            stream.receive.deliver(consumed)

    @enter(Kind.STATUS)
    def status(self, crossing: Crossing) -> None:
        """An adapter tells of a change."""
        # Imported names of the enumeration would hide which indication is meant.
        from chimney.ndis.status import StatusIndication as Indication

        book = self.of(crossing)
        if crossing.value == Indication.OFFLOAD_PAUSE:
            book.paused = crossing
        elif crossing.value == Indication.UPLOAD_ALL:
            book.uploading_all = crossing
        elif crossing.value == Indication.OFFLOAD_RESUME:
            book.paused = book.uploading_all = None
        carries = (Indication.OFFLOAD_RESUME, Indication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES)
        if crossing.value in carries and isinstance(crossing.information, TcpConnectionOffload):
            book.capabilities = crossing.information

    @leave(Kind.OID)
    def oid_answered(self, crossing: Crossing) -> None:
        """A request to the adapter has been answered."""
        request: Any = crossing.information
        if crossing.raised is not None or crossing.result != Status.SUCCESS:
            return
        if request.set and isinstance(request.information, TcpConnectionOffloadParameters):
            self.of(crossing).parameters = request.information

    @packet
    def passed(self, packet: Packet) -> None:
        """A frame at a link's door: find its connection, and keep the byte books."""
        if not packet.tcp:
            return
        if packet.incoming:
            flow = (packet.destination, packet.destination_port, packet.source, packet.source_port)
        else:
            flow = (packet.source, packet.source_port, packet.destination, packet.destination_port)
        stream = self.streams.get(flow)
        if stream is None:
            return
        packet.stream = stream
        packet.book = stream.bottom
        if packet.book is None and stream.terminate is None:
            # A driver keeps the initiate for itself: the target does not know of the connection yet.
            packet.acts = False
        if packet.incoming:
            packet.expected = stream.receive.next
            neighbor = neighbor_of(packet.book)
            packet.acts = packet.acts and not foreign_vlan(packet, neighbor) and not foreign_address(packet, neighbor)
            if packet.acts and stream.terminate is None:
                stream.segment_in(packet.seq, packet.ack, packet.flags, packet.payload(), packet)
        elif packet.sent:
            stream.packet_out(packet)


def _completes(call: Crossing, kind: Kind, item: ObjectBook) -> bool:
    """Whether ``call`` completes requests of this kind of a connection, at its boundary."""
    if COMPLETIONS.get(call.kind) is not kind or call.stage is not Stage.CALL or call.boundary is not item.boundary:
        return False
    return any(entry.request is not None and entry.request.book is item for entry in call.notes)


def _root(crossing: Crossing) -> OffloadBlockList:
    assert crossing.root is not None
    return crossing.root


@lru_cache(1024)
def _address(address: bytes, port: int) -> str:
    text = ipaddress.ip_address(address).compressed
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
