"""The pass-through intermediate driver: every request goes down, every completion and indication goes up, nothing
changes.

It has one upper (miniport) and one lower (protocol) edge, its own offload handle for every state object, and a call
entry for every state operation under way (documents: *Propagating...*; chapter 12 of the interface). A data request
needs no record here: with one edge on either side, the way back is known.
"""

from __future__ import annotations

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.driver import Miniport, OffloadContext, Protocol
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.registration import Registration
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList, mirror
from chimney.ndis.status import Status


class OffloadEntry:
    """IM offload entry: one state object; the handle of the driver above, and our own for the driver below."""

    def __init__(self, upper_handle: OffloadHandle) -> None:
        self.upper_handle = upper_handle
        self.handle = OffloadHandle(self)


class CallEntry:
    """IM call entry: one state operation under way; what came from above, and the words to restore in it."""

    def __init__(
        self, upper: MiniportOffloadBlockList, pairs: list[tuple[MiniportOffloadBlockList, ProtocolOffloadBlockList]]
    ) -> None:
        self.upper = upper
        self.pairs = pairs
        self.im_reserved = upper.im_reserved
        self.source_handle = upper.source_handle


class UpperEdge(Miniport):
    """What the driver above sees: a target."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lower: LowerEdge = None  # type: ignore[assignment]  # set by PassThrough

    def initiate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.lower.binding.initiate_offload(_descend(block_list))

    def terminate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.lower.binding.terminate_offload(_descend(block_list))

    def update_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.lower.binding.update_offload(_descend(block_list))

    def invalidate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.lower.binding.invalidate_offload(_descend(block_list))

    def query_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self.lower.binding.query_offload_state(_descend(block_list))

    def tcp_offload_send(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self.lower.binding.offload_tcp_send(own_handle(offload_context), net_buffer_list)

    def tcp_offload_receive(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self.lower.binding.offload_tcp_receive(own_handle(offload_context), net_buffer_list)

    def tcp_offload_disconnect(
        self, offload_context: OffloadContext, net_buffer_list: NetBufferList, flags: int
    ) -> int:
        return self.lower.binding.offload_tcp_disconnect(own_handle(offload_context), net_buffer_list, flags)

    def tcp_offload_forward(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self.lower.binding.offload_tcp_forward(own_handle(offload_context), net_buffer_list)

    def tcp_offload_receive_return(self, net_buffer_list: NetBufferList) -> int:
        return self.lower.binding.offload_tcp_receive_return(net_buffer_list)


class LowerEdge(Protocol):
    """What the driver below sees: a host stack."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.upper: UpperEdge = None  # type: ignore[assignment]  # set by PassThrough

    def set_options(self, registration: Registration) -> None:
        super().set_options(registration)
        self.upper.level = self.binding.miniport.level + 1

    def initiate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        call = _ascend(block_list)
        for above, below in call.pairs:
            if not above.placeholder and below.status in (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS):
                assert below.offload_handle is not None
                above.miniport_offload_context = below.offload_handle.protocol_context
        self.upper.handle.initiate_offload_complete(call.upper)

    def terminate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.upper.handle.terminate_offload_complete(_ascend(block_list).upper)

    def update_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.upper.handle.update_offload_complete(_ascend(block_list).upper)

    def invalidate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.upper.handle.invalidate_offload_complete(_ascend(block_list).upper)

    def query_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self.upper.handle.query_offload_state_complete(_ascend(block_list).upper)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        self.upper.handle.tcp_offload_send_complete(net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        self.upper.handle.tcp_offload_receive_complete(net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        self.upper.handle.tcp_offload_disconnect_complete(net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        self.upper.handle.tcp_offload_forward_complete(net_buffer_list)

    def tcp_offload_receive_indicate(
        self, offload_context: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        return self.upper.handle.tcp_offload_receive_handler(upper_handle(offload_context), net_buffer_list, status)

    def tcp_offload_event(
        self, offload_context: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        self.upper.handle.tcp_offload_event_handler(
            upper_handle(offload_context), event_type, event_specific_information
        )

    def indicate_offload_event(self, block_list: ProtocolOffloadBlockList | None, indication_code: int) -> None:
        upper = None
        if block_list is not None:
            assert block_list.offload_handle is not None
            upper = MiniportOffloadBlockList(
                type=block_list.type,
                const=block_list.const,
                cached=block_list.cached,
                delegated=block_list.delegated,
                status=block_list.status,
                ndis_offload_handle=upper_handle(block_list.offload_handle),
            )
        self.upper.handle.offload_event_indicate(upper, indication_code)

    def status_ex(self, status_code: int, status_buffer: object) -> None:
        self.upper.handle.indicate_status_ex(status_code, status_buffer)

    def receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        self.upper.handle.indicate_receive_net_buffer_lists(net_buffer_list)


class PassThrough:
    """One pass-through driver instance: bind ``lower`` above a target or another driver, and a host or driver above
    ``upper``.
    """

    def __init__(self, name: str) -> None:
        self.upper = UpperEdge(f"{name} (upper edge)")
        self.lower = LowerEdge(f"{name} (lower edge)")
        self.upper.lower = self.lower
        self.lower.upper = self.upper
        self.upper.driver = self.lower.driver = self


def own_handle(entry: OffloadEntry) -> OffloadHandle:
    """Our handle for the driver below, from the context that the driver above got from us."""
    return entry.handle


def upper_handle(handle: OffloadHandle) -> OffloadHandle:
    """The driver above's handle, from our own that came with an indication."""
    entry: OffloadEntry = handle.protocol_context  # type: ignore[assignment]
    return entry.upper_handle


def _descend(upper: MiniportOffloadBlockList) -> ProtocolOffloadBlockList:
    pairs: list[tuple[MiniportOffloadBlockList, ProtocolOffloadBlockList]] = []

    def make(block: MiniportOffloadBlockList) -> ProtocolOffloadBlockList:
        made = _lower_form(block)
        pairs.append((block, made))
        return made

    lower = mirror(upper, make)
    assert lower is not None
    lower.im_reserved = CallEntry(upper, pairs)
    return lower


def _lower_form(block: MiniportOffloadBlockList) -> ProtocolOffloadBlockList:
    """One block for the driver below, without its links, with our own handle."""
    lower = ProtocolOffloadBlockList(
        type=block.type,
        const=block.const,
        cached=block.cached,
        delegated=block.delegated,
        net_buffer_list_chain=block.net_buffer_list_chain,
        port_number=block.port_number,
        protocol_reserved=block.protocol_reserved,
        source_handle=block.source_handle,
    )
    if block.ndis_offload_handle is not None:
        entry = block.miniport_offload_context or OffloadEntry(block.ndis_offload_handle)
        assert isinstance(entry, OffloadEntry)
        lower.offload_handle = entry.handle
    return lower


def _ascend(lower: ProtocolOffloadBlockList) -> CallEntry:
    """What a completed tree's call entry knows, with the results; the entry is used up (im.state.complete).

    Raises RuntimeError if the tree has been completed already.
    """
    call = lower.im_reserved
    if not isinstance(call, CallEntry):
        raise RuntimeError(
            "a state operation completed that is not under way: complete each tree once (general.complete-exactly-once)"
        )
    # Entry and tree refer to each other: without this they would wait for the garbage collector, state and all.
    lower.im_reserved = None
    for above, below in call.pairs:
        above.status = below.status
        above.net_buffer_list_chain = below.net_buffer_list_chain
    call.upper.im_reserved = call.im_reserved
    call.upper.source_handle = call.source_handle
    return call
