"""The NDIS library between two adjacent drivers. It binds a protocol edge to a miniport edge, routes requests down and
completions up, turns handles into the callee's contexts and one block-list form into the other. It never looks at data.
"""

from __future__ import annotations

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.driver import Miniport, Protocol
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import (
    MiniportOffloadBlockList,
    ProtocolOffloadBlockList,
    complete_into_protocol_form,
    mirror,
    to_miniport_form,
    walk,
)
from chimney.ndis.status import Status


class Binding:
    """NdisBindingHandle: what a protocol edge calls downward (documents: *NdisXxxOffload*, *NdisOffloadTcpXxx*)."""

    def __init__(self, protocol: Protocol, miniport: Miniport) -> None:
        self.protocol = protocol
        self.miniport = miniport

    def initiate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisInitiateOffload: offload the tree's new objects."""
        self.miniport.initiate_offload(_down(block_list))

    def terminate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisTerminateOffload: take the tree's objects back."""
        self.miniport.terminate_offload(_down(block_list))

    def update_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisUpdateOffload: change cached variables."""
        self.miniport.update_offload(_down(block_list))

    def invalidate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisInvalidateOffload: the tree's objects must not be used for sending any more."""
        self.miniport.invalidate_offload(_down(block_list))

    def query_offload_state(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisQueryOffloadState: read state."""
        self.miniport.query_offload(_down(block_list))

    def offload_tcp_send(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpSend; returns PENDING."""
        return self.miniport.tcp_offload_send(_context(handle, "offload_tcp_send"), net_buffer_list)

    def offload_tcp_receive(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpReceive; returns PENDING."""
        return self.miniport.tcp_offload_receive(_context(handle, "offload_tcp_receive"), net_buffer_list)

    def offload_tcp_disconnect(self, handle: OffloadHandle, net_buffer_list: NetBufferList, flags: int) -> int:
        """NdisOffloadTcpDisconnect; returns PENDING."""
        return self.miniport.tcp_offload_disconnect(_context(handle, "offload_tcp_disconnect"), net_buffer_list, flags)

    def offload_tcp_forward(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpForward; returns PENDING."""
        return self.miniport.tcp_offload_forward(_context(handle, "offload_tcp_forward"), net_buffer_list)

    def offload_tcp_receive_return(self, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpReceiveReturn; returns SUCCESS."""
        return self.miniport.tcp_offload_receive_return(net_buffer_list)


class MiniportHandle:
    """NdisMiniportHandle: what a miniport edge calls upward (documents: *NdisMXxx*, *NdisTcpOffloadXxx*)."""

    def __init__(self, miniport: Miniport, protocol: Protocol) -> None:
        self.miniport = miniport
        self.protocol = protocol

    def initiate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMInitiateOffloadComplete, with the tree that was received."""
        self.protocol.initiate_offload_complete(complete_into_protocol_form(block_list))

    def terminate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMTerminateOffloadComplete, with the tree that was received.

        The offload of its objects ends here: their cells are cleared, so that a call on a stale handle is refused,
        and the handle may be offloaded again from within the handler. A failed object stays (A6).
        """
        for block in walk(block_list):
            if block.status == Status.SUCCESS and not block.placeholder:
                block.miniport_offload_context = None
        self.protocol.terminate_offload_complete(complete_into_protocol_form(block_list))

    def update_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMUpdateOffloadComplete, with the tree that was received."""
        self.protocol.update_offload_complete(complete_into_protocol_form(block_list))

    def invalidate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMInvalidateOffloadComplete, with the tree that was received."""
        self.protocol.invalidate_offload_complete(complete_into_protocol_form(block_list))

    def query_offload_state_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMQueryOffloadStateComplete, with the tree that was received."""
        self.protocol.query_offload_complete(complete_into_protocol_form(block_list))

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadSendComplete."""
        self.protocol.tcp_offload_send_complete(net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadReceiveComplete."""
        self.protocol.tcp_offload_receive_complete(net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadDisconnectComplete, with the one list of the request."""
        self.protocol.tcp_offload_disconnect_complete(net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadForwardComplete."""
        self.protocol.tcp_offload_forward_complete(net_buffer_list)

    def tcp_offload_receive_handler(
        self, ndis_offload_handle: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        """NdisTcpOffloadReceiveHandler: indicate received data; returns the verdict and the bytes consumed."""
        return self.protocol.tcp_offload_receive_indicate(ndis_offload_handle, net_buffer_list, status)

    def tcp_offload_event_handler(
        self, ndis_offload_handle: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        """NdisTcpOffloadEventHandler: indicate an event of one connection."""
        self.protocol.tcp_offload_event(ndis_offload_handle, event_type, event_specific_information)

    def offload_event_indicate(self, block_list: MiniportOffloadBlockList | None, indication_code: int) -> None:
        """NdisMOffloadEventIndicate: a generic event; the host may write into the attached cached neighbor state."""
        upper = None
        if block_list is not None:
            upper = ProtocolOffloadBlockList(
                type=block_list.type,
                const=block_list.const,
                cached=block_list.cached,
                delegated=block_list.delegated,
                status=block_list.status,
                offload_handle=block_list.ndis_offload_handle,
            )
        self.protocol.indicate_offload_event(upper, indication_code)

    def indicate_status_ex(self, status_code: int) -> None:
        """NdisMIndicateStatusEx: a status indication of the adapter."""
        self.protocol.status_ex(status_code)

    def indicate_receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        """NdisMIndicateReceiveNetBufferLists: frames on the ordinary path."""
        self.protocol.receive_net_buffer_lists(net_buffer_list)


def bind(protocol: Protocol, miniport: Miniport) -> Binding:
    """Bind ``protocol`` above ``miniport`` (NdisOpenAdapterEx), and give each its handle.

    Raises ValueError if either is bound already: a miniport's offloads belong to one protocol at a time
    (cap.single-owner).
    """
    if miniport.handle is not None or protocol.binding is not None:
        bound = miniport.name if miniport.handle is not None else protocol.name
        raise ValueError(f"cannot bind {protocol.name} to {miniport.name}: {bound} is bound already")
    binding = Binding(protocol, miniport)
    protocol.binding = binding
    miniport.handle = MiniportHandle(miniport, protocol)
    return binding


def _down(block_list: ProtocolOffloadBlockList) -> MiniportOffloadBlockList:
    tree = mirror(block_list, to_miniport_form)
    assert tree is not None
    return tree


def _context(handle: OffloadHandle, call: str) -> object:
    context = handle.miniport_offload_context
    if context is None:
        raise ValueError(
            f"{call} on an object that is not offloaded: its initiate has not completed with success, or its terminate "
            "has completed. Keep the request, and pass it down when the object is offloaded (initiate.host.quiet)"
        )
    return context
