"""A host stack without a TCP of its own: it records everything, and obeys the documents by itself where it can."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chimney.conformance import wire
from chimney.conformance.end import End, Request
from chimney.ndis.buffers import NetBufferList, iterate, link
from chimney.ndis.capabilities import OidRequest
from chimney.ndis.driver import Protocol
from chimney.ndis.handle import INITIATING, OFFLOADED, OffloadHandle
from chimney.ndis.state import NeighborCached, ProtocolOffloadBlockList, walk
from chimney.ndis.status import Status, StatusIndication, TcpConstFlags, TcpOffloadEvent, UploadReason

if TYPE_CHECKING:
    from chimney.conformance.world import Side

Tree = ProtocolOffloadBlockList


class Host(Protocol):
    """A protocol edge that writes everything down, in order, in ``log``: (what, subject, status or information, bytes).

    A completion's subject is its NetBufferList. ``answer`` decides about indications: it takes the bytes and returns
    how many are consumed. ``on`` holds callbacks that run inside the handler of that name, with the subject.

    An ``obedient`` host does by itself what the documents demand of a host: it terminates what a target asks back, has
    aborted or has failed, stops offloading when told to, returns the lists it was lent, forwards the segments that came
    to it. It does so in `attend`, never from within an upcall. ``keeps_lists``: it does not return lists until told.

    All calls downward go through its own methods of the documents' names, so that a test can change any of them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.side: Side = None  # type: ignore[assignment]  # set by Side
        self.obedient = True
        self.keeps_lists = False
        self.log: list[tuple[str, Any, int, int]] = []
        self.indicated = bytearray()
        self.answer: Callable[[bytes], int] = lambda data: 0
        self.held: list[NetBufferList] = []
        self.ordinary: list[bytes] = []
        self.on: dict[str, Callable[[Any], object]] = {}
        self.running: set[object] = set()
        self.paused = False
        self.upload_all = False
        self.reachability_answer = 1
        self.controls: Counter[OffloadHandle] = Counter()
        self._pieces: dict[tuple[bytes, bytes, int], dict[int, wire.Packet]] = {}

    def note(self, what: str, subject: Any, status: int, count: int = 0) -> None:
        """Write something down, and run the callback that waits for it."""
        self.log.append((what, subject, status, count))
        if what in self.on:
            self.on[what](subject)

    def took(self, what: str) -> list[tuple[Any, int, int]]:
        """The entries of one kind, without their name."""
        return [entry[1:] for entry in self.log if entry[0] == what]

    # Downward

    def initiate_offload(self, tree: Tree) -> None:
        self.binding.initiate_offload(tree)

    def terminate_offload(self, tree: Tree) -> None:
        self.binding.terminate_offload(tree)

    def update_offload(self, tree: Tree) -> None:
        self._begin(tree, 1)
        self.binding.update_offload(tree)

    def invalidate_offload(self, tree: Tree) -> None:
        self._begin(tree, 1)
        self.binding.invalidate_offload(tree)

    def query_offload_state(self, tree: Tree) -> None:
        self._begin(tree, 1)
        self.binding.query_offload_state(tree)

    def _begin(self, tree: Tree, count: int) -> None:
        for block in walk(tree):
            if block.offload_handle is not None:
                self.controls[block.offload_handle] += count

    def offload_tcp_send(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        return self.binding.offload_tcp_send(handle, net_buffer_list)

    def offload_tcp_receive(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        return self.binding.offload_tcp_receive(handle, net_buffer_list)

    def offload_tcp_disconnect(self, handle: OffloadHandle, net_buffer_list: NetBufferList, flags: int) -> int:
        return self.binding.offload_tcp_disconnect(handle, net_buffer_list, flags)

    def offload_tcp_forward(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        return self.binding.offload_tcp_forward(handle, net_buffer_list)

    def offload_tcp_receive_return(self, net_buffer_list: NetBufferList) -> int:
        return self.binding.offload_tcp_receive_return(net_buffer_list)

    def oid_request(self, request: OidRequest) -> int:
        return self.binding.oid_request(request)

    # Before an initiate, and after it

    def may_offload(self, end: End) -> bool:
        """Whether this connection needs nothing that only a host can do: its handshake carried no IP options
        (initiate.no-ip-options).
        """
        packets = map(wire.read_packet, self.ordinary)
        return not any(
            packet.special and packet.payload[13] & wire.SYN and self.side.end_of(packet) is end
            for packet in packets
            if packet is not None and packet.valid_tcp
        )

    def settle_acknowledgements(self, end: End) -> None:
        """Acknowledge what the host's own stack has received, before an initiate (initiate.host.flush-ack)."""
        state, options = end.delegated, b""
        if end.const.flags & TcpConstFlags.TIMESTAMP_ENABLED:
            options = struct.pack("!BBII", wire.TIMESTAMPS, 10, state.ts_time, state.ts_recent)
        offset = state.snd_nxt - end.iss & 0xFFFFFFFF
        acknowledged = state.rcv_nxt - end.peer.iss & 0xFFFFFFFF
        sent = end.peer.segment(offset, ack=acknowledged, push=False, options=options)
        end.side.port.send(end.peer.frame(sent), [], 0, 0, 0, False)

    def free_handed_over(self, net_buffer_list: NetBufferList) -> None:
        """BufferedData of an initiate that has succeeded: it is the target's business now."""
        for nbl in iterate(net_buffer_list):
            if nbl.pool is not None:
                nbl.pool.free(nbl)

    # State completions

    def initiate_offload_complete(self, block_list: Tree) -> None:
        for block, end in self._connections(block_list):
            end.initiated(block)
        self.note("initiate", block_list, block_list.status)

    def terminate_offload_complete(self, block_list: Tree) -> None:
        for block, end in self._connections(block_list):
            end.terminated(block)
        self.note("terminate", block_list, block_list.status)

    def update_offload_complete(self, block_list: Tree) -> None:
        self._ended(block_list)
        self.note("update", block_list, block_list.status)

    def invalidate_offload_complete(self, block_list: Tree) -> None:
        self._begin(block_list, -1)
        self.note("invalidate", block_list, block_list.status)

    def query_offload_complete(self, block_list: Tree) -> None:
        self._ended(block_list)
        self.note("query", block_list, block_list.status)

    def _ended(self, tree: Tree) -> None:
        """A query or update is over: what failed is to be terminated (query.failure, update.failure.host)."""
        self._begin(tree, -1)
        for block in walk(tree):
            if block.offload_handle is None or block.status == Status.SUCCESS:
                continue
            for end in self.side.ends:
                if block.offload_handle in (end.handle, end.path_handle, end.neighbor_handle):
                    end.upload_reason = "an operation failed"

    def _connections(self, tree: Tree) -> list[tuple[Tree, End]]:
        return [
            (block, block.offload_handle.protocol_context)
            for block in walk(tree)
            if block.offload_handle is not None and isinstance(block.offload_handle.protocol_context, End)
        ]

    # Data completions

    def _completed(self, what: str, head: NetBufferList) -> None:
        for nbl in iterate(head):
            nbl.next = None
            request = nbl.protocol_reserved
            if isinstance(request, Request):
                request.end.completed(what, nbl, request)
            self.note(what, nbl, nbl.status, nbl.tcp_offload_bytes_transferred)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        self._completed("send", net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        assert not self.running, "upcalls of one connection must not nest (recv.complete.no-nesting)"
        self.running.add(net_buffer_list)
        try:
            self._completed("receive", net_buffer_list)
        finally:
            self.running.clear()

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        assert net_buffer_list.next is None
        self._completed("disconnect", net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        self._completed("forward", net_buffer_list)

    # Indications

    def tcp_offload_receive_indicate(
        self, offload_context: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        assert not self.running, "upcalls of one connection must not nest (recv.complete.no-nesting)"
        assert net_buffer_list.next is None and status == Status.SUCCESS
        data = b"".join(net_buffer_list.first_net_buffer.views())
        self.running.add(net_buffer_list)
        try:
            consumed = self.answer(data)
            self.note("indicate", offload_context, consumed, len(data))
        finally:
            self.running.clear()
        self.indicated += data[:consumed]
        end = offload_context.protocol_context
        if isinstance(end, End):
            end.received += data[:consumed]
        if consumed == len(data):
            self.held.append(net_buffer_list)
            return Status.SUCCESS, consumed
        return (Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED if consumed else Status.OFFLOAD_DATA_NOT_ACCEPTED), consumed

    def tcp_offload_event(
        self, offload_context: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        event = TcpOffloadEvent(event_type)
        end = offload_context.protocol_context
        if isinstance(end, End):
            if event is TcpOffloadEvent.INDICATE_ABORT:
                end.aborted, end.upload_reason = True, event
            elif event is TcpOffloadEvent.INDICATE_DISCONNECT:
                end.peer_closed = True
            elif event is TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE:
                end.backlog = event_specific_information
            elif UploadReason(event_specific_information).mandatory and end.upload_reason is None:
                end.upload_reason = UploadReason(event_specific_information)
        self.note(event.name, offload_context, event_specific_information)

    def indicate_offload_event(self, block_list: Tree | None, indication_code: int) -> None:
        if self.obedient and block_list is not None and isinstance(block_list.cached, NeighborCached):
            block_list.cached.host_reachability_delta = self.reachability_answer
        self.note("generic", block_list, indication_code)

    def status_ex(self, status_code: int, status_buffer: object) -> None:
        if status_code == StatusIndication.OFFLOAD_PAUSE:
            self.paused = True
        elif status_code == StatusIndication.UPLOAD_ALL:
            self.upload_all = self.paused = True
        elif status_code == StatusIndication.OFFLOAD_RESUME:
            self.upload_all = self.paused = False
        self.note("status", status_code, 0)

    def receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        for nbl in iterate(net_buffer_list):
            frame = b"".join(nbl.first_net_buffer.views())
            self.ordinary.append(frame)
            if self.obedient:
                self._read_ordinary(frame)
            self.note("frame", frame, 0)

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        self.note("oid", request, status)

    # What it does of its own accord

    def _read_ordinary(self, frame: bytes) -> None:
        """A frame that came up the ordinary path: kept, and forwarded if it is for the target (forward.when)."""
        packet = wire.read_packet(frame)
        if packet is None or not packet.intact:
            return
        special = packet.special
        if packet.fragment:
            packet = self._reassemble(packet)
        if packet is None or not packet.valid_tcp:
            return
        end = self.side.end_of(packet)
        if end is None:
            return
        phase = end.handle.phase
        if phase == INITIATING or (phase == OFFLOADED and special and end.upload_reason is None):
            end.to_forward.append(packet.payload)
        elif phase != OFFLOADED or end.upload_reason is not None:
            end.kept.append(packet.payload)

    def _reassemble(self, packet: wire.Packet) -> wire.Packet | None:
        key = packet.source, packet.destination, packet.identification
        pieces = self._pieces.setdefault(key, {})
        pieces[packet.offset] = packet
        data = b""
        while len(data) in pieces:
            piece = pieces[len(data)]
            if not piece.payload:
                return None
            data += piece.payload
            if not piece.more:
                del self._pieces[key]
                return wire.Packet(packet.source, packet.destination, packet.protocol, data)
        return None

    def attend(self) -> int:
        """Do what is to be done by now; returns how much that was."""
        if not self.obedient:
            return 0
        done = 0
        if self.held and not self.keeps_lists:
            self.return_lists()
            done += 1
        for end in self.side.ends:
            phase = end.handle.phase
            if phase != OFFLOADED:
                if phase != INITIATING and end.waiting:
                    end.post_waiting()
                done += end.go_down()
                continue
            if end.to_forward:
                segments, end.to_forward = end.to_forward, []
                end.forward(*segments)
                done += 1
            done += end.post_waiting() + end.read_on()
        return done + self._take_back()

    def return_lists(self, count: int = 0) -> None:
        """Give back ``count`` of the lists that are held (0: all), oldest first, in one chain."""
        count = count or len(self.held)
        lists, self.held = self.held[:count], self.held[count:]
        head = link(lists)
        if head is not None:
            self.offload_tcp_receive_return(head)

    def wants_back(self, end: End) -> bool:
        """Whether the connection is to be terminated."""
        return self.upload_all or end.upload_reason is not None

    def _take_back(self) -> int:
        """Terminate what is to be terminated: all that is ready, in one tree."""
        ready = [
            end
            for end in self.side.ends
            if end.handle.phase == OFFLOADED and self.wants_back(end) and not self.controls[end.handle]
        ]
        if not ready or any(
            self.controls[handle] for end in ready for handle in (end.path_handle, end.neighbor_handle)
        ):
            return 0
        self.terminate_offload(self.side.terminate_tree(*ready))
        return 1
