"""The probes on both sides of an observed boundary; a binding made without an observer has none of this in its way.

protocol edge -> ObservedBinding -> Binding (NDIS) -> MiniportProbe -> miniport edge
protocol edge <- ProtocolProbe <- MiniportHandle (NDIS) <- ObservedHandle <- miniport edge
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.capabilities import OidRequest, TcpConnectionOffload
from chimney.ndis.crossing import Boundary, Kind, Observer, Stage
from chimney.ndis.driver import Miniport, OffloadContext, Protocol
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import Binding, Library, MiniportHandle, TcpOffloadEventHandlers
from chimney.ndis.registration import Characteristics, Registration
from chimney.ndis.state import MiniportOffloadBlockList, OffloadBlockList, ProtocolOffloadBlockList

Result = TypeVar("Result")


def observe(
    protocol: Protocol, miniport: Miniport, observer: Observer, library: Library
) -> tuple[Binding, MiniportHandle, Registration]:
    """The two handles and the registration of an observed boundary."""
    boundary = Boundary(len(observer.boundaries), protocol, miniport)
    observer.attached(boundary)
    binding = ObservedBinding(boundary, observer, library.binding(protocol, MiniportProbe(boundary, observer)))
    handle = ObservedHandle(
        boundary, observer, library.handle(miniport, ProtocolProbe(boundary, observer), binding), binding
    )
    boundary.binding = binding
    boundary.handle = handle
    return binding, handle, ObservedRegistration(boundary, observer)


class ObservedRegistration(Registration):
    """Registration, seen."""

    def __init__(self, boundary: Boundary, observer: Observer) -> None:
        super().__init__()
        self._boundary = boundary
        self._observer = observer

    def set_optional_handlers(self, table: Characteristics) -> None:
        self._observer.run(
            self._boundary,
            Kind.SET_OPTIONAL_HANDLERS,
            Stage.CALL,
            lambda: Registration.set_optional_handlers(self, table),
            information=table,
        )


class ObservedBinding(Binding):
    """What the upper driver calls: each call is recorded, then made on NDIS's own binding."""

    def __init__(self, boundary: Boundary, observer: Observer, inner: Binding) -> None:
        super().__init__(boundary.protocol, boundary.miniport)
        self._boundary = boundary
        self._observer = observer
        self._inner = inner

    def _run(
        self,
        kind: Kind,
        call: Callable[[], Result],
        handle: OffloadHandle | None = None,
        nbl: NetBufferList | None = None,
        root: OffloadBlockList | None = None,
        value: int = 0,
        information: object = None,
    ) -> Result:
        self._inner.registered = self.registered
        return self._observer.run(self._boundary, kind, Stage.CALL, call, handle, None, nbl, root, value, information)

    def initiate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.INITIATE, lambda: self._inner.initiate_offload(block_list), root=block_list)

    def terminate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.TERMINATE, lambda: self._inner.terminate_offload(block_list), root=block_list)

    def update_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.UPDATE, lambda: self._inner.update_offload(block_list), root=block_list)

    def invalidate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.INVALIDATE, lambda: self._inner.invalidate_offload(block_list), root=block_list)

    def query_offload_state(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.QUERY, lambda: self._inner.query_offload_state(block_list), root=block_list)

    def offload_tcp_send(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.SEND,
            lambda: self._inner.offload_tcp_send(handle, net_buffer_list),
            handle=handle,
            nbl=net_buffer_list,
        )

    def offload_tcp_receive(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.RECEIVE,
            lambda: self._inner.offload_tcp_receive(handle, net_buffer_list),
            handle=handle,
            nbl=net_buffer_list,
        )

    def offload_tcp_disconnect(self, handle: OffloadHandle, net_buffer_list: NetBufferList, flags: int) -> int:
        return self._run(
            Kind.DISCONNECT,
            lambda: self._inner.offload_tcp_disconnect(handle, net_buffer_list, flags),
            handle=handle,
            nbl=net_buffer_list,
            value=flags,
        )

    def offload_tcp_forward(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.FORWARD,
            lambda: self._inner.offload_tcp_forward(handle, net_buffer_list),
            handle=handle,
            nbl=net_buffer_list,
        )

    def offload_tcp_receive_return(self, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.RECEIVE_RETURN,
            lambda: self._inner.offload_tcp_receive_return(net_buffer_list),
            nbl=net_buffer_list,
        )

    def oid_request(self, request: OidRequest) -> int:
        # The inner binding answers from what the observed handle has been told.
        self._inner.hardware_capabilities = self.hardware_capabilities
        self._inner.current_config = self.current_config
        self._inner.parameters = self.parameters
        status = self._run(Kind.OID, lambda: self._inner.oid_request(request), information=request)
        self.parameters = self._inner.parameters
        return status

    def close(self) -> None:
        self._run(Kind.CLOSE, self._inner.close)
        self.closed = True
        self.registered = False


class MiniportProbe(Miniport):
    """Stands before a miniport edge: NDIS's calls of its handlers are recorded, then made."""

    def __init__(self, boundary: Boundary, observer: Observer) -> None:
        super().__init__(boundary.miniport.name)
        self.driver = boundary.miniport.driver
        self.level = boundary.miniport.level
        self._boundary = boundary
        self._observer = observer
        self._inner = boundary.miniport

    def _run(
        self,
        kind: Kind,
        call: Callable[[], Result],
        handle: OffloadHandle | None = None,
        context: object = None,
        nbl: NetBufferList | None = None,
        root: OffloadBlockList | None = None,
        value: int = 0,
        information: object = None,
    ) -> Result:
        return self._observer.run(
            self._boundary, kind, Stage.HANDLER, call, handle, context, nbl, root, value, information
        )

    def halt(self) -> None:
        self._run(Kind.CLOSE, self._inner.halt)
        self._inner.handle = None  # type: ignore[assignment]
        self._inner.handlers = None

    def oid_request(self, request: OidRequest) -> int:
        return self._run(Kind.OID, lambda: self._inner.oid_request(request), information=request)

    def initiate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.INITIATE, lambda: self._inner.initiate_offload(block_list), root=block_list)

    def terminate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.TERMINATE, lambda: self._inner.terminate_offload(block_list), root=block_list)

    def update_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.UPDATE, lambda: self._inner.update_offload(block_list), root=block_list)

    def invalidate_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.INVALIDATE, lambda: self._inner.invalidate_offload(block_list), root=block_list)

    def query_offload(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.QUERY, lambda: self._inner.query_offload(block_list), root=block_list)

    def tcp_offload_send(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.SEND,
            lambda: self._inner.tcp_offload_send(offload_context, net_buffer_list),
            context=offload_context,
            nbl=net_buffer_list,
        )

    def tcp_offload_receive(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.RECEIVE,
            lambda: self._inner.tcp_offload_receive(offload_context, net_buffer_list),
            context=offload_context,
            nbl=net_buffer_list,
        )

    def tcp_offload_disconnect(
        self, offload_context: OffloadContext, net_buffer_list: NetBufferList, flags: int
    ) -> int:
        return self._run(
            Kind.DISCONNECT,
            lambda: self._inner.tcp_offload_disconnect(offload_context, net_buffer_list, flags),
            context=offload_context,
            nbl=net_buffer_list,
            value=flags,
        )

    def tcp_offload_forward(self, offload_context: OffloadContext, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.FORWARD,
            lambda: self._inner.tcp_offload_forward(offload_context, net_buffer_list),
            context=offload_context,
            nbl=net_buffer_list,
        )

    def tcp_offload_receive_return(self, net_buffer_list: NetBufferList) -> int:
        return self._run(
            Kind.RECEIVE_RETURN, lambda: self._inner.tcp_offload_receive_return(net_buffer_list), nbl=net_buffer_list
        )


class ObservedHandle(MiniportHandle):
    """What the lower driver calls: each call is recorded, then made on NDIS's own handle."""

    def __init__(self, boundary: Boundary, observer: Observer, inner: MiniportHandle, binding: Binding) -> None:
        super().__init__(boundary.miniport, boundary.protocol, binding)
        self._boundary = boundary
        self._observer = observer
        self._inner = inner

    def _run(
        self,
        kind: Kind,
        call: Callable[[], Result],
        handle: OffloadHandle | None = None,
        context: object = None,
        nbl: NetBufferList | None = None,
        root: OffloadBlockList | None = None,
        value: int = 0,
        information: object = None,
    ) -> Result:
        return self._observer.run(
            self._boundary, kind, Stage.CALL, call, handle, context, nbl, root, value, information
        )

    def get_offload_handlers(self, offload_type: int) -> tuple[int, TcpOffloadEventHandlers | None]:
        def call() -> tuple[int, TcpOffloadEventHandlers | None]:
            status, handlers = self._inner.get_offload_handlers(offload_type)
            return status, None if handlers is None else self

        return self._run(Kind.GET_OFFLOAD_HANDLERS, call, value=offload_type)

    def set_miniport_attributes(
        self, hardware_capabilities: TcpConnectionOffload | None, current_config: TcpConnectionOffload | None
    ) -> None:
        self._run(
            Kind.SET_ATTRIBUTES,
            lambda: self._inner.set_miniport_attributes(hardware_capabilities, current_config),
            information=(hardware_capabilities, current_config),
        )

    def initiate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.INITIATE_COMPLETE, lambda: self._inner.initiate_offload_complete(block_list), root=block_list)

    def terminate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.TERMINATE_COMPLETE, lambda: self._inner.terminate_offload_complete(block_list), root=block_list)

    def update_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.UPDATE_COMPLETE, lambda: self._inner.update_offload_complete(block_list), root=block_list)

    def invalidate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(
            Kind.INVALIDATE_COMPLETE, lambda: self._inner.invalidate_offload_complete(block_list), root=block_list
        )

    def query_offload_state_complete(self, block_list: MiniportOffloadBlockList) -> None:
        self._run(Kind.QUERY_COMPLETE, lambda: self._inner.query_offload_state_complete(block_list), root=block_list)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.SEND_COMPLETE,
            lambda: self._inner.tcp_offload_send_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.RECEIVE_COMPLETE,
            lambda: self._inner.tcp_offload_receive_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.DISCONNECT_COMPLETE,
            lambda: self._inner.tcp_offload_disconnect_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.FORWARD_COMPLETE,
            lambda: self._inner.tcp_offload_forward_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_receive_handler(
        self, ndis_offload_handle: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        return self._run(
            Kind.RECEIVE_INDICATE,
            lambda: self._inner.tcp_offload_receive_handler(ndis_offload_handle, net_buffer_list, status),
            handle=ndis_offload_handle,
            nbl=net_buffer_list,
            value=status,
        )

    def tcp_offload_event_handler(
        self, ndis_offload_handle: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        self._run(
            Kind.EVENT,
            lambda: self._inner.tcp_offload_event_handler(ndis_offload_handle, event_type, event_specific_information),
            handle=ndis_offload_handle,
            value=event_type,
            information=event_specific_information,
        )

    def offload_event_indicate(self, block_list: MiniportOffloadBlockList | None, indication_code: int) -> None:
        self._run(
            Kind.OFFLOAD_EVENT,
            lambda: self._inner.offload_event_indicate(block_list, indication_code),
            root=block_list,
            value=indication_code,
        )

    def indicate_status_ex(self, status_code: int, status_buffer: object = None) -> None:
        self._run(
            Kind.STATUS,
            lambda: self._inner.indicate_status_ex(status_code, status_buffer),
            value=status_code,
            information=status_buffer,
        )

    def indicate_receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.ORDINARY_RECEIVE,
            lambda: self._inner.indicate_receive_net_buffer_lists(net_buffer_list),
            nbl=net_buffer_list,
        )

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        self._run(
            Kind.OID_COMPLETE,
            lambda: self._inner.oid_request_complete(request, status),
            value=status,
            information=request,
        )


class ProtocolProbe(Protocol):
    """Stands before a protocol edge: NDIS's calls of its handlers are recorded, then made."""

    def __init__(self, boundary: Boundary, observer: Observer) -> None:
        super().__init__(boundary.protocol.name)
        self.driver = boundary.protocol.driver
        self._boundary = boundary
        self._observer = observer
        self._inner = boundary.protocol

    def _run(
        self,
        kind: Kind,
        call: Callable[[], Result],
        handle: OffloadHandle | None = None,
        context: object = None,
        nbl: NetBufferList | None = None,
        root: OffloadBlockList | None = None,
        value: int = 0,
        information: object = None,
    ) -> Result:
        return self._observer.run(
            self._boundary, kind, Stage.HANDLER, call, handle, context, nbl, root, value, information
        )

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        self._run(
            Kind.OID_COMPLETE,
            lambda: self._inner.oid_request_complete(request, status),
            value=status,
            information=request,
        )

    def initiate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.INITIATE_COMPLETE, lambda: self._inner.initiate_offload_complete(block_list), root=block_list)

    def terminate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.TERMINATE_COMPLETE, lambda: self._inner.terminate_offload_complete(block_list), root=block_list)

    def update_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.UPDATE_COMPLETE, lambda: self._inner.update_offload_complete(block_list), root=block_list)

    def invalidate_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(
            Kind.INVALIDATE_COMPLETE, lambda: self._inner.invalidate_offload_complete(block_list), root=block_list
        )

    def query_offload_complete(self, block_list: ProtocolOffloadBlockList) -> None:
        self._run(Kind.QUERY_COMPLETE, lambda: self._inner.query_offload_complete(block_list), root=block_list)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.SEND_COMPLETE,
            lambda: self._inner.tcp_offload_send_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.RECEIVE_COMPLETE,
            lambda: self._inner.tcp_offload_receive_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.DISCONNECT_COMPLETE,
            lambda: self._inner.tcp_offload_disconnect_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.FORWARD_COMPLETE,
            lambda: self._inner.tcp_offload_forward_complete(net_buffer_list),
            nbl=net_buffer_list,
        )

    def tcp_offload_receive_indicate(
        self, offload_context: OffloadHandle, net_buffer_list: NetBufferList, status: int
    ) -> tuple[int, int]:
        return self._run(
            Kind.RECEIVE_INDICATE,
            lambda: self._inner.tcp_offload_receive_indicate(offload_context, net_buffer_list, status),
            handle=offload_context,
            nbl=net_buffer_list,
            value=status,
        )

    def tcp_offload_event(
        self, offload_context: OffloadHandle, event_type: int, event_specific_information: int
    ) -> None:
        self._run(
            Kind.EVENT,
            lambda: self._inner.tcp_offload_event(offload_context, event_type, event_specific_information),
            handle=offload_context,
            value=event_type,
            information=event_specific_information,
        )

    def indicate_offload_event(self, block_list: ProtocolOffloadBlockList | None, indication_code: int) -> None:
        self._run(
            Kind.OFFLOAD_EVENT,
            lambda: self._inner.indicate_offload_event(block_list, indication_code),
            root=block_list,
            value=indication_code,
        )

    def status_ex(self, status_code: int, status_buffer: object) -> None:
        self._run(
            Kind.STATUS,
            lambda: self._inner.status_ex(status_code, status_buffer),
            value=status_code,
            information=status_buffer,
        )

    def receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        self._run(
            Kind.ORDINARY_RECEIVE,
            lambda: self._inner.receive_net_buffer_lists(net_buffer_list),
            nbl=net_buffer_list,
        )
