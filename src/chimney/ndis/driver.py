"""The two edges of a driver: `Miniport` (upper edge: what NDIS calls downward) and `Protocol` (lower edge: what NDIS
calls upward).

An offload target has a Miniport, a host stack a Protocol; an intermediate driver *has* one or more of each (one class
cannot be both when compiled). Handlers never wait for another chimney operation. A handler that a driver does not
define raises `HandlerNotRegistered` when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.capabilities import OidRequest, TcpConnectionOffload
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.registration import (
    ChimneyOffloadType,
    ClientGenericCharacteristics,
    ClientTcpCharacteristics,
    ProviderGenericCharacteristics,
    ProviderTcpCharacteristics,
    Registration,
)
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList
from chimney.ndis.status import Status

if TYPE_CHECKING:
    from chimney.ndis.library import Binding, MiniportHandle, TcpOffloadEventHandlers


# The lower driver's own record, opaque to NDIS and to the driver above: only its owner knows its type.
OffloadContext = Any


class HandlerNotRegistered(RuntimeError):
    """A driver was called through an entry point that it has not registered."""


def _missing(driver: object, handler: str) -> NoReturn:
    name = type(driver).__name__
    raise HandlerNotRegistered(
        f"{name}.{handler} was called, but {name} does not define it: define the handler, or do not offload through "
        "this driver (reg.target.two-registrations, reg.client.two-registrations)"
    )


class Miniport:
    """The upper edge of a target or an intermediate driver: one adapter, or one virtual miniport.

    ``handle`` is its NdisMiniportHandle, and ``handlers`` the table of NDIS entry points that it got from it; through
    these it completes and indicates; `bind` sets them. ``driver`` is the intermediate driver that this is an edge of,
    None for a target. ``level`` counts the drivers from here down to the target (0). State operations
    record the tree and return, and are completed later by the function of the handle that each names; data operations
    return PENDING and nothing else, except receive-return, which returns SUCCESS (documents: *MiniportXxxOffload*,
    *MiniportTcpOffloadXxx*).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.handle: MiniportHandle = None  # type: ignore[assignment]  # set by bind(), before any call
        self.handlers: TcpOffloadEventHandlers | None = None
        self.driver: object = None
        self.level = 0

    @property
    def base(self) -> type:
        """The class whose handlers are not there."""
        return Miniport

    def set_options(self, registration: Registration) -> None:
        """MiniportSetOptions: register the entry points, both tables (reg.target.two-registrations)."""
        registration.set_optional_handlers(ProviderGenericCharacteristics.of(self))
        registration.set_optional_handlers(ProviderTcpCharacteristics.of(self))

    def initialize(self) -> None:
        """MiniportInitializeEx: fetch NDIS's entry points, once, and report the capabilities."""
        status, handlers = self.handle.get_offload_handlers(ChimneyOffloadType.TCP)
        if status == Status.SUCCESS:
            self.handlers = handlers
            self.handle.set_miniport_attributes(self.hardware_capabilities(), self.current_config())

    def hardware_capabilities(self) -> TcpConnectionOffload | None:
        """What this adapter can do; None: no chimney."""
        return TcpConnectionOffload()

    def current_config(self) -> TcpConnectionOffload | None:
        """What of it is switched on; None: nothing."""
        return self.hardware_capabilities()

    def halt(self) -> None:
        """MiniportHaltEx: the binding is closed. Raises Misuse while lists of indications are with the host
        (general.unload.after-returns).
        """

    def oid_request(self, request: OidRequest) -> int:
        """MiniportOidRequest: a set or query. Returns its status; PENDING: ``handle.oid_request_complete`` follows."""
        return Status.NOT_SUPPORTED

    def initiate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        """MiniportInitiateOffload: take the new state of the tree; then ``handle.initiate_offload_complete``."""
        _missing(self, "initiate_offload")

    def terminate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        """MiniportTerminateOffload: give the tree's objects back; then ``handle.terminate_offload_complete``."""
        _missing(self, "terminate_offload")

    def update_offload(self, block_list: MiniportOffloadBlockList) -> None:
        """MiniportUpdateOffload: take new cached variables; then ``handle.update_offload_complete``."""
        _missing(self, "update_offload")

    def invalidate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        """MiniportInvalidateOffload: stop sending on the objects; then ``handle.invalidate_offload_complete``."""
        _missing(self, "invalidate_offload")

    def query_offload(self, block_list: MiniportOffloadBlockList) -> None:
        """MiniportQueryOffload: fill in the attached state; then ``handle.query_offload_state_complete``."""
        _missing(self, "query_offload")

    def tcp_offload_send(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        """MiniportTcpOffloadSend: queue the data of the list; then ``handle.tcp_offload_send_complete``."""
        _missing(self, "tcp_offload_send")

    def tcp_offload_receive(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        """MiniportTcpOffloadReceive: queue the buffers to fill; then ``handle.tcp_offload_receive_complete``."""
        _missing(self, "tcp_offload_receive")

    def tcp_offload_disconnect(
        self, offload_context: OffloadContext, net_buffer_list: NetBufferList, flags: int
    ) -> int:
        """MiniportTcpOffloadDisconnect: end the sending half; then ``handle.tcp_offload_disconnect_complete``."""
        _missing(self, "tcp_offload_disconnect")

    def tcp_offload_forward(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        """MiniportTcpOffloadForward: process segments that the host received; then
        ``handle.tcp_offload_forward_complete``.
        """
        _missing(self, "tcp_offload_forward")

    def tcp_offload_receive_return(self, net_buffer_list: NetBufferList) -> int:
        """MiniportTcpOffloadReceiveReturn: take the lists of accepted indications back. Synchronous; never fails."""
        _missing(self, "tcp_offload_receive_return")


class Protocol:
    """The lower edge of a host stack or an intermediate driver: one binding to a miniport.

    ``binding`` is its NdisBindingHandle, through which it calls downward; `bind` sets it. ``driver`` is the
    intermediate driver that this is an edge of, None for a host stack. The object itself is the ProtocolBindingContext
    of the documents (*ProtocolXxxOffloadComplete*, *ProtocolTcpOffloadXxxComplete*).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.binding: Binding = None  # type: ignore[assignment]  # set by bind(), before any call
        self.driver: object = None

    @property
    def base(self) -> type:
        """The class whose handlers are not there."""
        return Protocol

    def set_options(self, registration: Registration) -> None:
        """ProtocolSetOptions: register the entry points, both tables (reg.client.two-registrations)."""
        registration.set_optional_handlers(ClientGenericCharacteristics.of(self))
        registration.set_optional_handlers(ClientTcpCharacteristics.of(self))

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        """ProtocolOidRequestComplete: a request that was PENDING has ended."""

    def initiate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        """ProtocolInitiateOffloadComplete: the tree this edge had passed down, with a status in every node."""
        _missing(self, "initiate_offload_complete")

    def terminate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        """ProtocolTerminateOffloadComplete: the tree with the delegated state filled in."""
        _missing(self, "terminate_offload_complete")

    def update_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        """ProtocolUpdateOffloadComplete."""
        _missing(self, "update_offload_complete")

    def invalidate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        """ProtocolInvalidateOffloadComplete."""
        _missing(self, "invalidate_offload_complete")

    def query_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        """ProtocolQueryOffloadComplete: the tree with the queried state filled in."""
        _missing(self, "query_offload_complete")

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        """ProtocolTcpOffloadSendComplete: one list or several linked ones, of one or several send calls."""
        _missing(self, "tcp_offload_send_complete")

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        """ProtocolTcpOffloadReceiveComplete: one list or several linked ones, of one or several receive calls."""
        _missing(self, "tcp_offload_receive_complete")

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        """ProtocolTcpOffloadDisconnectComplete: the single list of the disconnect request."""
        _missing(self, "tcp_offload_disconnect_complete")

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        """ProtocolTcpOffloadForwardComplete: one list or several linked ones, of one or several forward calls."""
        _missing(self, "tcp_offload_forward_complete")

    def tcp_offload_receive_indicate(
        self, offload_context: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        """ProtocolTcpOffloadReceiveIndicate: data without a receive request.

        Returns SUCCESS (everything taken; the list stays with this driver until receive-return), or
        OFFLOAD_DATA_NOT_ACCEPTED, or OFFLOAD_DATA_PARTIALLY_ACCEPTED; and how many bytes were consumed.
        """
        _missing(self, "tcp_offload_receive_indicate")

    def tcp_offload_event(
        self, offload_context: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        """ProtocolTcpOffloadEvent: an event of one connection; the information is an upload reason or a number of
        bytes.
        """
        _missing(self, "tcp_offload_event")

    def indicate_offload_event(self, block_list: ProtocolOffloadBlockList | None, indication_code: int) -> None:
        """ProtocolIndicateOffloadEvent: a generic event, such as the question whether a neighbor is reachable."""
        _missing(self, "indicate_offload_event")

    def status_ex(self, status_code: int, status_buffer: object) -> None:
        """ProtocolStatusEx: a status indication of the adapter (pause, upload all, resume); with a resume, and with
        changed hardware capabilities, comes the new `TcpConnectionOffload`.
        """
        _missing(self, "status_ex")

    def receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        """ProtocolReceiveNetBufferLists: Ethernet frames on the ordinary path; they are valid during the call alone."""
        _missing(self, "receive_net_buffer_lists")
