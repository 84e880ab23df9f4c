"""One end of one connection, as the host that has it knows it, and shortcuts for all that can be asked for it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chimney.conformance import trees, wire
from chimney.conformance.handshake import CONST_FLAGS, IPV4, IPV6, ISS, MACS, SCALE, WINDOW, delegated
from chimney.link.base import NO_VLAN, Flow
from chimney.ndis.buffers import NetBuffer, NetBufferList, iterate, link, net_buffer_list
from chimney.ndis.handle import IDLE, INITIATING, OFFLOADED, TERMINATING, OffloadHandle
from chimney.ndis.state import (
    TIMER_NOT_RUNNING,
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathDelegated,
    ProtocolOffloadBlockList,
    TcpCached,
    TcpConst,
    TcpDelegated,
    walk,
)
from chimney.ndis.status import (
    DisconnectFlags,
    OffloadStateType,
    Status,
    TcpCachedFlags,
    TcpConnectionState,
)

if TYPE_CHECKING:
    from chimney.conformance.world import Side
    from chimney.target.objects import TcpObject

Part = bytes | bytearray | memoryview | list[bytes] | tuple[bytes, ...]

_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_BACK = frozenset({Status.UPLOAD_IN_PROGRESS, Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED})
_SHUT = {
    TcpConnectionState.ESTABLISHED: TcpConnectionState.FIN_WAIT_1,
    TcpConnectionState.CLOSE_WAIT: TcpConnectionState.LAST_ACK,
}


@dataclass(slots=True, eq=False)
class Request:
    """What a host remembers of a data request, in its ProtocolReserved; ``buffer`` is a receive's memory."""

    end: End
    kind: str
    buffer: bytearray | None = None


def list_of(part: Part) -> NetBufferList:
    """One send NetBufferList: bytes are one MDL, a list several MDLs of one NetBuffer, a tuple several NetBuffers."""
    if not isinstance(part, tuple):
        return net_buffer_list(*part) if isinstance(part, list) else net_buffer_list(part)
    lists = [net_buffer_list(piece) for piece in part]
    for before, after in zip(lists, lists[1:], strict=False):
        before.first_net_buffer.next = after.first_net_buffer
    return lists[0]


class End:
    """One end of one connection: what the host knows of it, and shortcuts for its requests.

    ``application`` is all that was given to be sent, ``received`` all that has arrived, by whichever way.
    ``unfinished`` is send data that has come back and waits for the next initiate; ``waiting`` are requests for which
    the initiate under way has not completed; ``kept`` are segments that the host received itself. ``upload_reason``:
    why the connection is to be terminated, as soon as that is possible. ``reading``: the application always has a
    receive of so many bytes posted (0: it does not). ``returns``: the host offloads it again whenever it has come back.
    """

    def __init__(self, side: Side, port: int, ipv6: bool = False, addresses: tuple[bytes, bytes] | None = None) -> None:
        self.side = side
        self.host = side.host
        addresses = addresses or (IPV6 if ipv6 else IPV4)
        ports = (port, port + 1)
        mine, theirs = side.number, 1 - side.number
        self.flow = Flow(addresses[mine], ports[mine], addresses[theirs], ports[theirs])
        self.handle = OffloadHandle(self)
        self.path_handle = OffloadHandle("path")
        self.neighbor_handle = OffloadHandle("neighbor")
        self.neighbor = NeighborConst()
        self.neighbor_cached = NeighborCached(MACS[theirs])
        self.path_mtu = 1500
        self.const = TcpConst(CONST_FLAGS, ports[theirs], ports[mine], SCALE, SCALE, 1460)
        self.cached = TcpCached(TcpCachedFlags(0), WINDOW)
        self.delegated = delegated(side.number)
        self.application = bytearray()
        self.received = bytearray()
        self.unfinished: list[NetBufferList] = []
        self.later: list[NetBufferList] = []
        self.interrupted_close: NetBufferList | None = None
        self.waiting: list[tuple[str, NetBufferList, int]] = []
        self.kept: list[bytes] = []
        self.to_forward: list[bytes] = []
        self.requests: dict[NetBufferList, str] = {}
        self.reading = 0
        self.returns = False
        self.upload_reason: object = None
        self.aborted = False
        self.reset = False
        self.peer_closed = False
        self.backlog = 0
        self.uploaded_at: int | None = None
        side.ends.append(self)

    # What belongs to it

    @property
    def iss(self) -> int:
        """The sequence number of the first byte that this end sends."""
        return ISS[self.side.number]

    @property
    def ip_type(self) -> OffloadStateType:
        return OffloadStateType.IP4 if len(self.flow.local_address) == 4 else OffloadStateType.IP6

    @property
    def offloaded(self) -> TcpObject | None:
        """The target's own record."""
        for side in self.side.world.sides[self.side.number :: 2]:
            found: TcpObject | None = side.target.find(self.flow)
            if found is not None:
                return found
        return None

    @property
    def peer(self) -> End:
        """The other end of this connection."""
        return next(
            end
            for side in self.side.world.sides[1 - self.side.number :: 2]
            for end in side.ends
            if (end.flow.local_port, end.flow.remote_port) == (self.flow.remote_port, self.flow.local_port)
        )

    def share(self, other: End, *, path: bool = True) -> End:
        """Use the path (or at least the neighbor) of ``other``. Returns self."""
        self.neighbor_handle = other.neighbor_handle
        self.neighbor, self.neighbor_cached = other.neighbor, other.neighbor_cached
        if path:
            self.path_handle, self.path_mtu = other.path_handle, other.path_mtu
        return self

    # Initiate

    def initiate_tree(self, chain: NetBufferList | None = None) -> ProtocolOffloadBlockList:
        """Neighbor, path and connection, each new where its handle is not offloaded."""
        if chain is None:
            chain = self.chain_to_hand_over()
        return trees.grouped([self], trees.new_neighbor, trees.new_path, lambda end: trees.new_connection(end, chain))

    def initiate(self, chain: NetBufferList | None = None) -> list[Status]:
        """Offload; the statuses of neighbor, path and connection, once it has completed."""
        tree = self.initiate_tree(chain)
        self.side.start("initiate_offload", tree)
        self.side.wait_for("initiate", tree)
        return [block.status for block in walk(tree)]

    def chain_to_hand_over(self) -> NetBufferList | None:
        """The send data that has come back from the offload before, one NetBuffer in each list, from SndUna on; and the
        delegated state made as old as it is.
        """
        if not self.host.obedient:
            return None
        self._age()
        self._catch_up()
        pieces: list[NetBufferList] = []
        for nbl in self.unfinished:
            nb: NetBuffer | None = nbl.first_net_buffer
            while nb is not None:
                if nb.data_length:
                    pieces.append(net_buffer_list(*nb.views()))
                nb = nb.next
        for piece in pieces:
            piece.protocol_reserved = Request(self, "send")
        return link(pieces)

    def _catch_up(self) -> None:
        """Process the data of segments that the host received itself and was not to forward, as far as it is in
        sequence, and acknowledge it (forward.complete.host, terminate.segments.not-back).
        """
        state, taken = self.delegated, 0
        segments, self.kept = self.kept, []
        for segment in sorted(segments, key=lambda segment: _seq(segment) - state.rcv_nxt + _HALF & _MASK):
            data = segment[(segment[12] >> 4) * 4 :]
            skip = state.rcv_nxt - _seq(segment) & _MASK
            if segment[13] & (wire.SYN | wire.RST | wire.URG) or skip >= len(data):
                continue
            self.received += data[skip:]
            taken += len(data) - skip
            state.ts_recent = _timestamp(segment) or state.ts_recent
            state.rcv_nxt = (state.rcv_nxt + len(data) - skip) & _MASK
        if taken:
            self.host.settle_acknowledgements(self)

    def _age(self) -> None:
        """The host's own timers and timestamp clock have run since the upload (ts.host-delta)."""
        if self.uploaded_at is None:
            return
        ticks = (self.side.clock() - self.uploaded_at) * self.side.ticks_per_second // 1_000_000
        self.uploaded_at = self.side.clock()
        state = self.delegated
        state.ts_time = (state.ts_time + ticks) & _MASK
        state.ts_recent_age += ticks
        for timer in (state.keep_alive, state.retransmit):
            if timer.timeout_delta != TIMER_NOT_RUNNING:
                timer.timeout_delta = max(timer.timeout_delta - ticks, 0)

    @property
    def state(self) -> TcpConnectionState:
        """The state of the connection at the target; that in which it was uploaded, if it is not offloaded."""
        found = self.offloaded
        return self.delegated.state if found is None else TcpConnectionState(found.engine.state)

    def is_in(self, state: TcpConnectionState) -> bool:
        """Whether the connection is in this state."""
        return self.state is state

    def initiated(self, block: ProtocolOffloadBlockList) -> None:
        """The host's bookkeeping when an initiate of this connection has completed."""
        if block.status not in (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS):
            return
        self.unfinished, self.uploaded_at = [], None
        self.requests |= dict.fromkeys(iterate(block.net_buffer_list_chain), "send")
        if self.delegated.buffered_data is not None:
            self.host.free_handed_over(self.delegated.buffered_data)
            self.delegated.buffered_data = None
        self.peer_closed = False

    # Terminate

    def terminate_tree(self, connection: bool = True) -> ProtocolOffloadBlockList:
        """Neighbor and path, and the connection above them."""
        tcp = trees.returned_connection(self) if connection else None
        path = ProtocolOffloadBlockList(
            type=trees.types_of_path(self)[2],
            delegated=PathDelegated(),
            offload_handle=self.path_handle,
            dependent_block_list=tcp,
        )
        return ProtocolOffloadBlockList(
            type=OffloadStateType.NEIGHBOR_DELEGATED,
            delegated=NeighborDelegated(),
            offload_handle=self.neighbor_handle,
            dependent_block_list=path,
        )

    def terminate(self) -> ProtocolOffloadBlockList:
        """Take connection, path and neighbor back; returns the connection's block; `delegated` is its state then."""
        tree = self.terminate_tree()
        self.side.start("terminate_offload", tree)
        self.side.wait_for("terminate", tree)
        [tcp] = [block for block in walk(tree) if block.offload_handle is self.handle]
        assert {block.status for block in walk(tree)} == {Status.SUCCESS}
        return tcp

    def terminated(self, block: ProtocolOffloadBlockList) -> None:
        """The host's bookkeeping when a terminate of this connection has completed."""
        if block.status != Status.SUCCESS or not isinstance(block.delegated, TcpDelegated):
            return
        self.delegated = state = block.delegated
        if not self.host.obedient:
            return
        self.upload_reason = None
        self.uploaded_at = self.side.clock()
        for nbl in iterate(block.net_buffer_list_chain):
            self.requests.pop(nbl, None)
            self.unfinished.append(nbl)
        if self.interrupted_close is not None and not self.aborted:
            self.unfinished.append(self.interrupted_close)
            # The host finishes the close itself: a FIN stands behind the data (disconnect.host.no-reissue).
            state.state = _SHUT.get(state.state, state.state)
        self.interrupted_close = None
        self.unfinished += self.later
        self.later = []
        for nbl in iterate(state.buffered_data):
            self.received += b"".join(nbl.first_net_buffer.views())
            nbl.next = None
            self.host.held.append(nbl)
        state.buffered_data = None

    # Query, update, invalidate

    def reference(
        self,
        connection: ProtocolOffloadBlockList | None = None,
        path: ProtocolOffloadBlockList | None = None,
        neighbor: ProtocolOffloadBlockList | None = None,
    ) -> ProtocolOffloadBlockList:
        """A tree of those blocks that are given; a path or neighbor below is a placeholder if it is not."""
        tree = connection
        if path is not None or (neighbor is not None and tree is not None):
            path = path or ProtocolOffloadBlockList(type=self.ip_type)
            path.dependent_block_list = tree
            tree = path
        if neighbor is not None:
            neighbor.dependent_block_list = tree
            tree = neighbor
        assert tree is not None
        return tree

    def query_tree(
        self, connection: str | None = "all", path: str | None = None, neighbor: str | None = None
    ) -> ProtocolOffloadBlockList:
        """A query of "const", "cached", "delegated" or "all" of each object that is not None."""
        return self.reference(
            None if connection is None else trees.tcp_reference(self, connection),
            None if path is None else trees.path_reference(self, path),
            None if neighbor is None else trees.neighbor_reference(self, neighbor),
        )

    def query(
        self, connection: str | None = "all", path: str | None = None, neighbor: str | None = None
    ) -> list[ProtocolOffloadBlockList]:
        """Query, and wait; the blocks, filled in, from neighbor to connection."""
        return self.side.perform("query", self.query_tree(connection, path, neighbor))

    def update(self, **changes: Any) -> list[ProtocolOffloadBlockList]:
        """Update cached variables of the connection, and wait."""
        self.cached = replace(self.cached, **changes)
        block = ProtocolOffloadBlockList(
            type=OffloadStateType.TCP_CACHED, cached=replace(self.cached), offload_handle=self.handle
        )
        orders = TcpCachedFlags.KEEP_ALIVE_RESTART | TcpCachedFlags.MAX_RT_RESTART | TcpCachedFlags.UPDATE_RCV_WND
        self.cached.flags &= ~orders
        return self.side.perform("update", block)

    def update_path(self, mtu: int) -> list[ProtocolOffloadBlockList]:
        """Update the path's MTU, and wait."""
        for end in self.side.ends:
            if end.path_handle is self.path_handle:
                end.path_mtu = mtu
        block = trees.path_reference(self, "cached")
        block.cached = PathCached(mtu)
        return self.side.perform("update", block)

    def update_neighbor(self, mac: bytes, host_reachability_delta: int = 0) -> list[ProtocolOffloadBlockList]:
        """Update the next hop's address, and wait."""
        self.neighbor_cached = NeighborCached(mac, host_reachability_delta)
        block = trees.neighbor_reference(self, "cached")
        block.cached = replace(self.neighbor_cached)
        return self.side.perform("update", block)

    def relink(self, neighbor: End) -> list[ProtocolOffloadBlockList]:
        """Move this path to the neighbor of another connection, and wait (9.5)."""
        root = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR, offload_handle=neighbor.neighbor_handle)
        root.dependent_block_list = ProtocolOffloadBlockList(type=self.ip_type, offload_handle=self.path_handle)
        blocks = self.side.perform("update", root)
        for end in self.side.ends:
            if end.path_handle is self.path_handle:
                end.share(neighbor, path=False)
        return blocks

    def invalidate(self, what: str = "connection") -> list[ProtocolOffloadBlockList]:
        """Invalidate the "connection", "path" or "neighbor", and wait."""
        block = {
            "connection": trees.tcp_reference,
            "path": trees.path_reference,
            "neighbor": trees.neighbor_reference,
        }[what](self, None)
        return self.side.perform("invalidate", block)

    # Data

    def send(self, *data: Part) -> list[NetBufferList]:
        """Post a list of sends, one for each argument (see `list_of`).

        A host that obeys keeps what comes while the connection is not offloaded (general.switch).
        """
        lists = [list_of(part) for part in data]
        for nbl in lists:
            nbl.protocol_reserved = Request(self, "send")
            self.application += _bytes_of(nbl)
        self._post("send", lists)
        return lists

    def receive(
        self, *sizes: int, push: bool = True, filled: bytes = b"", mdls: int = 1
    ) -> list[tuple[NetBufferList, bytearray]]:
        """Post a list of receives; a list of (NetBufferList, buffer). ``filled``: bytes that the buffers of non-push
        requests begin with already (A9). ``mdls``: into how many pieces each buffer is divided.
        """
        pairs = []
        for size in sizes:
            buffer = bytearray(filled.ljust(size, b"\0"))
            step = max(-(-size // mdls), 1)
            pieces = [memoryview(buffer)[at : at + step] for at in range(0, size, step)] or [memoryview(buffer)]
            nbl = net_buffer_list(*pieces)
            nbl.tcp_receive_no_push = not push
            nbl.tcp_offload_bytes_transferred = len(filled)
            nbl.protocol_reserved = Request(self, "receive", buffer)
            pairs.append((nbl, buffer))
        self._post("receive", [nbl for nbl, _ in pairs])
        return pairs

    def disconnect(self, data: bytes = b"", flags: int = DisconnectFlags.GRACEFUL_CLOSE) -> NetBufferList:
        """Post a disconnect."""
        nbl = net_buffer_list(data)
        nbl.protocol_reserved = Request(self, "disconnect")
        self.application += data
        if flags == DisconnectFlags.ABORTIVE_CLOSE:
            self.reset = True
        self._post("disconnect", [nbl], flags)
        return nbl

    def abort(self) -> NetBufferList:
        """Post an abortive disconnect."""
        return self.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)

    def forward(self, *segments: bytes) -> list[NetBufferList]:
        """Forward segments that the host received itself, in one list."""
        lists = [net_buffer_list(segment) for segment in segments]
        for nbl in lists:
            nbl.protocol_reserved = Request(self, "forward")
        self._call("forward", link(lists), 0)
        return lists

    def _post(self, kind: str, lists: Sequence[NetBufferList], flags: int = 0) -> None:
        head = link(lists)
        assert head is not None
        if self.host.obedient and self.handle.phase == INITIATING:
            self.waiting.append((kind, head, flags))
        elif self.host.obedient and self.handle.phase != OFFLOADED:
            # The ordinary path has it: this host's own TCP sends nothing, but keeps it for the next offload.
            if kind == "send":
                (self.later if self.handle.phase == TERMINATING else self.unfinished).extend(iterate(head))
            elif kind == "disconnect":
                self.interrupted_close = head
        else:
            self._call(kind, head, flags)

    def _call(self, kind: str, head: NetBufferList | None, flags: int) -> None:
        assert head is not None
        self.requests |= dict.fromkeys(iterate(head), kind)
        if kind == "disconnect":
            self.host.offload_tcp_disconnect(self.handle, head, flags)
        else:
            getattr(self.host, f"offload_tcp_{kind}")(self.handle, head)

    def pending(self, kind: str) -> list[NetBufferList]:
        """The requests of a kind that have been passed down and are not back."""
        return [nbl for nbl, known in self.requests.items() if known == kind]

    def post_waiting(self) -> bool:
        """Post what has waited for the initiate; whether there was anything."""
        waiting, self.waiting = self.waiting, []
        for kind, head, flags in waiting:
            self._post(kind, list(iterate(head)), flags)
        return bool(waiting)

    def go_down(self) -> bool:
        """Offload it again, if it is to be and can be."""
        ended = self.aborted or self.reset or not self.delegated.state.offloadable
        if not self.returns or ended or self.host.paused or self.handle.phase != IDLE:
            return False
        # A path or neighbor that is on its way up has to arrive there first.
        if any(handle.phase in (INITIATING, TERMINATING) for handle in (self.path_handle, self.neighbor_handle)):
            return False
        self.side.start("initiate_offload", self.initiate_tree())
        return True

    def read_on(self) -> bool:
        """Post the next receive, if the application reads (``reading`` bytes at a time) and none is posted."""
        at_end = self.peer_closed or self.reset or self.aborted or self.upload_reason is not None
        if not self.reading or at_end or self.pending("receive"):
            return False
        self.receive(self.reading)
        return True

    def completed(self, kind: str, nbl: NetBufferList, request: Request) -> None:
        """The host's bookkeeping when one of the requests has completed."""
        self.requests.pop(nbl, None)
        if kind == "receive" and request.buffer is not None:
            self.received += request.buffer[: nbl.tcp_offload_bytes_transferred]
        if nbl.status in (Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED) and self.upload_reason is None:
            self.upload_reason = "a driver has no memory"
        if kind == "disconnect" and self.reset and self.upload_reason is None:
            self.upload_reason = "the connection has been reset"
        if nbl.status not in _BACK:
            return
        if kind == "send":
            self.unfinished.append(nbl)
        elif kind == "disconnect":
            self.interrupted_close = nbl
        elif kind == "forward":
            self.kept.append(_bytes_of(nbl))

    # The peer, by hand

    def segment(
        self,
        offset: int,
        data: bytes = b"",
        *,
        ack: int = 0,
        push: bool = True,
        flags: int = wire.ACK,
        window: int = WINDOW,
        urgent: int = 0,
        options: bytes = b"",
    ) -> bytes:
        """A TCP segment from the peer with data from ``offset`` of its stream, acknowledging ``ack`` bytes of ours."""
        mine, theirs = ISS[self.side.number], ISS[1 - self.side.number]
        numbers = (theirs + offset) & _MASK, (mine + ack) & _MASK
        flags |= wire.PSH if push else 0
        flags |= wire.URG if urgent else 0
        options += b"\1" * (-len(options) % 4)
        ports = self.flow.remote_port, self.flow.local_port
        size = (20 + len(options)) << 2
        header = struct.pack("!HHIIBBHHH", *ports, *numbers, size, flags, window >> SCALE, 0, urgent)
        return header + options + data

    def frame(
        self,
        segment: bytes,
        *,
        options: bytes = b"",
        identification: int = 1,
        destination: bytes | None = None,
        good: bool = True,
        good_header: bool = True,
    ) -> bytes:
        """An Ethernet frame from the peer with that segment. ``options``: IPv4's; ``destination``: another MAC address
        than ours; ``good`` and ``good_header``: whether the two checksums are right.
        """
        source, ours = self.flow.remote_address, self.flow.local_address
        packet = ip_of(source, ours, wire.checked(source, ours, segment, good), options, identification, good_header)
        ether_type = wire.ETHER_IPV4 if len(ours) == 4 else wire.ETHER_IPV6
        number = self.side.number
        return wire.ethernet(destination or self.side.link.mac, MACS[1 - number], ether_type, packet)

    def inject(self, *frames: bytes, vlan: int = NO_VLAN) -> None:
        """Put frames on the wire towards this side, as if the peer had sent them."""
        self.side.inject(*frames, vlan=vlan)

    def arrives(self, offset: int, data: bytes = b"", **options: Any) -> None:
        """A segment from the peer's hand arrives (see `segment`); the world is polled."""
        self.inject(self.frame(self.segment(offset, data, **options)))
        self.side.world.settle()


def ip_of(source: bytes, destination: bytes, segment: bytes, options: bytes, identification: int, good: bool) -> bytes:
    return wire.ip_packet(source, destination, segment, options=options, identification=identification, good=good)


def _timestamp(segment: bytes) -> int:
    """The timestamp value of a segment, 0 without one."""
    at, end = 20, (segment[12] >> 4) * 4
    while at < end:
        if segment[at] == wire.TIMESTAMPS:
            return int.from_bytes(segment[at + 2 : at + 6], "big")
        at += 1 if segment[at] in (wire.END_OF_OPTIONS, wire.NO_OPERATION) else max(segment[at + 1], 2)
    return 0


def _seq(segment: bytes) -> int:
    return int.from_bytes(segment[4:8], "big")


def _bytes_of(nbl: NetBufferList) -> bytes:
    found: list[memoryview] = []
    nb: NetBuffer | None = nbl.first_net_buffer
    while nb is not None:
        found += nb.views()
        nb = nb.next
    return b"".join(found)
