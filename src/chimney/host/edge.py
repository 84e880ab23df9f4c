"""The host stack's protocol edge on one adapter: it finds whom a completion, an event or a frame belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chimney.host.datagrams import DatagramReader
from chimney.host.kernel import Flow
from chimney.host.objects import NeighborRecord, ObjectTable
from chimney.host.segments import KeptSegment
from chimney.host.upkeep import Upkeep
from chimney.ndis.buffers import NetBufferList, iterate
from chimney.ndis.capabilities import OidRequest
from chimney.ndis.driver import Protocol
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import NeighborCached, NeighborDelegated, ProtocolOffloadBlockList
from chimney.ndis.status import Status, StatusIndication

_SUCCESS = int(Status.SUCCESS)
_PENDING = int(Status.PENDING)


class HostEdge(Protocol):
    """ProtocolXxx of the host stack.

    A request's owner stands in its list's ``protocol_reserved`` (a forward's with its segment), a state operation's in
    its root block's; a connection's in its handle's record. ``takers`` are told of the segments that a target has
    passed up, by flow: those of the connections that are out of the kernel. ``reachability(neighbor, nrd)`` answers the
    target's question when the host has had proof that a neighbor is reachable (11.2): ticks ago, 0 if that is too long.
    """

    def __init__(self, name: str, on_status: Callable[[StatusIndication], None], clock: Callable[[], int]) -> None:
        super().__init__(name)
        self.objects = ObjectTable()
        self.upkeep = Upkeep(lambda: self.binding, self.objects)
        self.reachability: Callable[[NeighborRecord, int], int] = _stale
        self.takers: dict[Flow, Callable[[list[KeptSegment]], None]] = {}
        self._reader = DatagramReader(clock)
        self._oids_under_way: dict[OidRequest, int] = {}
        self.on_status = on_status

    def ask(self, request: OidRequest, wait: Callable[[], None]) -> int:
        """NdisOidRequest; returns its status. ``wait()`` is called as long as it is pending, and may raise."""
        self._oids_under_way[request] = _PENDING
        try:
            status = self.binding.oid_request(request)
            while status == _PENDING:
                wait()
                status = self._oids_under_way[request]
            return status
        finally:
            del self._oids_under_way[request]

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        if request in self._oids_under_way:
            self._oids_under_way[request] = status

    def initiate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        owner: Any = block_list.protocol_reserved
        owner.initiate_complete(block_list)

    def terminate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        owner: Any = block_list.protocol_reserved
        owner.terminate_complete(block_list)

    def update_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        owner: Any = block_list.protocol_reserved
        owner.update_complete(block_list)

    def invalidate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        owner: Any = block_list.protocol_reserved
        owner.invalidate_complete(block_list)

    def query_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        owner: Any = block_list.protocol_reserved
        owner.query_complete(block_list)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        for nbl in _apart(net_buffer_list):
            request: Any = nbl.protocol_reserved
            request.connection.chimney.send_complete(request, nbl)

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        for nbl in _apart(net_buffer_list):
            request: Any = nbl.protocol_reserved
            request.connection.chimney.receive_complete(request, nbl)

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        request: Any = net_buffer_list.protocol_reserved
        request.connection.chimney.disconnect_complete(request, net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        for nbl in _apart(net_buffer_list):
            forwarded: Any = nbl.protocol_reserved
            path, segment = forwarded
            path.forward_complete(segment, nbl)

    def tcp_offload_receive_indicate(
        self, offload_context: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        record: Any = offload_context.protocol_context
        verdict: tuple[int, int] = record.owner.receive_indicate(net_buffer_list)
        return verdict

    def tcp_offload_event(
        self, offload_context: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        record: Any = offload_context.protocol_context
        record.owner.event(event_type, event_specific_information)

    def indicate_offload_event(self, block_list: ProtocolOffloadBlockList | None, indication_code: int) -> None:
        if block_list is None or not isinstance(block_list.cached, NeighborCached):
            return
        assert block_list.offload_handle is not None
        neighbor: Any = block_list.offload_handle.protocol_context
        delegated = block_list.delegated
        nrd = delegated.nic_reachability_delta if isinstance(delegated, NeighborDelegated) else 0
        block_list.cached.host_reachability_delta = self.reachability(neighbor, nrd)

    def status_ex(self, status_code: int, status_buffer: object) -> None:
        self.on_status(StatusIndication(status_code))

    def receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        # The kernel has its own copy of every frame; only what it does not answer now is ours to deal with.
        if not self.takers:
            return
        nbl: NetBufferList | None = net_buffer_list
        while nbl is not None:
            views = nbl.first_net_buffer.views()
            # A target passes up what is corrupt, too, and says so.
            intact = nbl.status == _SUCCESS
            read = self._reader.read
            kept = read(views[0] if len(views) == 1 else memoryview(b"".join(views))) if intact else None
            if kept is not None and (take := self.takers.get(kept.flow)) is not None:
                take([kept])
            nbl = nbl.next


def _stale(neighbor: NeighborRecord, nrd: int) -> int:
    """Nobody watches the kernel's neighbors."""
    return 0


def _apart(head: NetBufferList) -> Iterator[NetBufferList]:
    """The lists linked from ``head``, unlinked: a long chain that is freed as a whole is freed by recursion."""
    for nbl in iterate(head):
        nbl.next = None
        yield nbl
