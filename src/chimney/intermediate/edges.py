"""The two kinds of edges of an intermediate driver, and its record of a state object.

An upper edge is a virtual miniport: the driver above takes it for a target. A lower edge is a binding: the driver below
takes it for a host stack. Both only hand over to their driver (`IntermediateDriver`), where everything is decided; what
needs no decision they pass on themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.capabilities import OidRequest, TcpConnectionOffload
from chimney.ndis.driver import Miniport, OffloadContext, Protocol
from chimney.ndis.errors import Misuse
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.registration import Registration
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList
from chimney.ndis.status import OffloadStateType

if TYPE_CHECKING:
    from chimney.intermediate.base import IntermediateDriver

SEND = 1
RECEIVE = 2
DISCONNECT = 3
FORWARD = 4
_SEND, _RECEIVE, _DISCONNECT, _FORWARD = SEND, RECEIVE, DISCONNECT, FORWARD


class OffloadEntry:
    """IM offload entry: one state object, from its initiate to the end of its offload (12.2).

    ``upper_handle`` is the driver above's NDIS_OFFLOAD_HANDLE, and ``upper`` the edge it came by; ``handle`` is our
    own, and ``lower`` the edge behind which the object is. ``type`` is that of the block it came with, ``data`` for the
    driver itself.

    sends_below, receives_below  requests (lists) on this connection that the driver below has; a disconnect counts as
                 a send. Kept only by a driver that keeps records.
    refusing     bits: which requests are not passed down any more.
    held         refused requests that wait until older ones have come back: (operation, head).
    deferred     what came up before the initiate was completed upward; None at all other times.
    """

    def __init__(self, upper_handle: OffloadHandle, upper: UpperEdge, lower: LowerEdge) -> None:
        self.upper_handle = upper_handle
        self.upper = upper
        self.lower = lower
        self.handle = OffloadHandle(self)
        self.type: OffloadStateType | None = None
        self.data: object = None
        self.sends_below = 0
        self.receives_below = 0
        self.refusing = 0
        self.held: list[tuple[int, NetBufferList]] = []
        self.deferred: list[tuple[int, object, int]] | None = None

    @property
    def connection(self) -> bool:
        """Whether the object is a TCP connection."""
        return self.type == OffloadStateType.TCP


class UpperEdge(Miniport):
    """A virtual miniport: what the driver above sees. ``index`` counts the upper edges of its driver."""

    def __init__(self, name: str, owner: IntermediateDriver, index: int) -> None:
        super().__init__(name)
        self.driver = owner
        self.owner = owner
        self.index = index
        self.head: NetBufferList | None = None
        self.tail: NetBufferList | None = None

    def initialize(self) -> None:
        """MiniportInitializeEx. Raises Misuse if a lower edge is not bound: levels and capabilities come from below."""
        for lower in self.owner.lowers:
            if lower.binding is None:
                raise Misuse(
                    "NdisOpenAdapterEx",
                    f"{self.name} is opened before {lower.name} is bound",
                    "bind a stack from the targets upward",
                    "reg.im.both-edges",
                )
        super().initialize()

    def hardware_capabilities(self) -> TcpConnectionOffload | None:
        return self.owner.hardware_capabilities(self) if self.owner.allows_offload else None

    def current_config(self) -> TcpConnectionOffload | None:
        return self.owner.current_config(self) if self.owner.allows_offload else None

    def oid_request(self, request: OidRequest) -> int:
        return self.owner.on_oid_request(self, request)

    def initiate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.owner.on_state_request(self, "initiate", block_list)

    def terminate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.owner.on_state_request(self, "terminate", block_list)

    def update_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.owner.on_state_request(self, "update", block_list)

    def invalidate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.owner.on_state_request(self, "invalidate", block_list)

    def query_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.owner.on_state_request(self, "query", block_list)

    def tcp_offload_send(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        if self.owner.direct_down:
            entry: OffloadEntry = offload_context
            return entry.lower.binding.offload_tcp_send(entry.handle, net_buffer_list)
        return self.owner.on_request(offload_context, _SEND, net_buffer_list, 0)

    def tcp_offload_receive(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        if self.owner.direct_down:
            entry: OffloadEntry = offload_context
            return entry.lower.binding.offload_tcp_receive(entry.handle, net_buffer_list)
        return self.owner.on_request(offload_context, _RECEIVE, net_buffer_list, 0)

    def tcp_offload_disconnect(
        self, offload_context: OffloadContext, net_buffer_list: NetBufferList, flags: int
    ) -> int:
        return self.owner.on_request(offload_context, _DISCONNECT, net_buffer_list, flags)

    def tcp_offload_forward(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self.owner.on_request(offload_context, _FORWARD, net_buffer_list, 0)

    def tcp_offload_receive_return(self, net_buffer_list: NetBufferList) -> int:
        return self.owner.on_receive_return(net_buffer_list)


class LowerEdge(Protocol):
    """A binding: what the driver below sees. ``index`` counts the lower edges of its driver."""

    def __init__(self, name: str, owner: IntermediateDriver, index: int) -> None:
        super().__init__(name)
        self.driver = owner
        self.owner = owner
        self.index = index
        self.head: NetBufferList | None = None
        self.tail: NetBufferList | None = None

    def set_options(self, registration: Registration) -> None:
        super().set_options(registration)
        self.owner.lower_bound()

    def initiate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.owner.on_state_completion(self, "initiate", block_list)

    def terminate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.owner.on_state_completion(self, "terminate", block_list)

    def update_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.owner.on_state_completion(self, "update", block_list)

    def invalidate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.owner.on_state_completion(self, "invalidate", block_list)

    def query_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.owner.on_state_completion(self, "query", block_list)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        if self.owner.direct_up:
            self.owner.upper.handle.tcp_offload_send_complete(net_buffer_list)
        else:
            self.owner.on_completion(self, _SEND, net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        if self.owner.direct_up:
            self.owner.upper.handle.tcp_offload_receive_complete(net_buffer_list)
        else:
            self.owner.on_completion(self, _RECEIVE, net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        self.owner.on_completion(self, _DISCONNECT, net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        self.owner.on_completion(self, _FORWARD, net_buffer_list)

    def tcp_offload_receive_indicate(
        self, offload_context: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        entry: OffloadEntry = offload_context.protocol_context  # type: ignore[assignment]  # we made it
        if self.owner.direct_in:
            return entry.upper.handle.tcp_offload_receive_handler(entry.upper_handle, net_buffer_list, status)
        return self.owner.on_indication(entry, net_buffer_list, status)

    def tcp_offload_event(
        self, offload_context: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        entry: OffloadEntry = offload_context.protocol_context  # type: ignore[assignment]  # we made it
        self.owner.on_event(entry, event_type, event_specific_information)

    def indicate_offload_event(self, block_list: ProtocolOffloadBlockList | None, indication_code: int) -> None:
        self.owner.on_offload_event(self, block_list, indication_code)

    def status_ex(self, status_code: int, status_buffer: object) -> None:
        self.owner.on_status(self, status_code, status_buffer)

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        self.owner.on_oid_completion(self, request, status)

    def receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        self.owner.on_frames(self, net_buffer_list)
