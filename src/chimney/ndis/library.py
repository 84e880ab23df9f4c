"""The NDIS library between two adjacent drivers. It binds a protocol edge to a miniport edge, routes requests down and
completions up, turns handles into the callee's contexts and one block-list form into the other. It never looks at data.

It keeps two books, in the structures themselves: where each request is (`NetBufferList.level`) and what is
under way with each state object (`OffloadHandle.phase`). A call that contradicts them raises `Misuse` before anything
has changed hands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from chimney.ndis.buffers import FREED_LEVEL, IDLE_LEVEL, NetBufferList
from chimney.ndis.capabilities import Oid, OidRequest, TcpConnectionOffload, TcpConnectionOffloadParameters
from chimney.ndis.driver import Miniport, Protocol
from chimney.ndis.errors import Misuse
from chimney.ndis.handle import IDLE, INITIATING, OFFLOADED, PHASES, TERMINATING, OffloadHandle
from chimney.ndis.registration import (
    ChimneyOffloadType,
    ClientGenericCharacteristics,
    ClientTcpCharacteristics,
    ProviderGenericCharacteristics,
    ProviderTcpCharacteristics,
    Registration,
)
from chimney.ndis.state import (
    MiniportOffloadBlockList,
    ProtocolOffloadBlockList,
    complete_into_protocol_form,
    mirror,
    to_miniport_form,
    walk,
)
from chimney.ndis.status import Status, StatusIndication

if TYPE_CHECKING:
    from chimney.ndis.crossing import Observer

_SEND = 1
_RECEIVE = 2
_DISCONNECT = 3
_FORWARD = 4
_KINDS = ("nothing", "send", "receive", "disconnect", "forward")
_INITIATING = INITIATING
_TERMINATING = TERMINATING
_IDLE_LEVEL = IDLE_LEVEL
_OFFLOADED_SUCCESSFULLY = (Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS)


class Binding:
    """NdisBindingHandle: what a protocol edge calls downward (documents: *NdisXxxOffload*, *NdisOffloadTcpXxx*).

    ``hardware_capabilities`` and ``current_config`` are what the adapter below has reported; None: no chimney here.
    ``parameters`` is what was set last. Every call raises Misuse, before anything has changed hands, if it comes at the
    wrong time or with a request that is somewhere else.
    """

    def __init__(self, protocol: Protocol, miniport: Miniport) -> None:
        self.protocol = protocol
        self.miniport = miniport
        self.level = miniport.level
        self.below = 2 * miniport.level
        self.above = _back(protocol, miniport)
        self.registered = False
        self.closed = False
        self.hardware_capabilities: TcpConnectionOffload | None = None
        self.current_config: TcpConnectionOffload | None = None
        self.parameters: TcpConnectionOffloadParameters | None = None

    # State operations

    def initiate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisInitiateOffload: offload the tree's new objects."""
        if not self.registered:
            if self.closed:
                raise Misuse(
                    "NdisInitiateOffload",
                    f"the binding of {self.protocol.name} to {self.miniport.name} is closed",
                    "offload through one that is open",
                    "cap.single-owner",
                )
            raise Misuse(
                "NdisInitiateOffload",
                f"{self.miniport.name} or {self.protocol.name} has not registered its chimney entry points",
                "register both tables in set_options, or do not offload through this driver",
                "reg.ndis.block-unregistered",
            )
        _begin_initiate(block_list)
        claimed: list[tuple[NetBufferList, int]] = []
        try:
            for block in walk(block_list):
                if block.net_buffer_list_chain is not None:
                    count = _claim(block.net_buffer_list_chain, self.below, self.above, _SEND)
                    claimed.append((block.net_buffer_list_chain, count))
            self.miniport.initiate_offload(_down(block_list))
        except BaseException:
            for head, count in claimed:
                _set_level(head, count, self.above)
            _settle_initiate(block_list, False)
            raise

    def terminate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisTerminateOffload: take the tree's objects back."""
        _require_offloaded(block_list, "NdisTerminateOffload")
        _set_phase(walk(block_list), TERMINATING)
        try:
            self.miniport.terminate_offload(_down(block_list))
        except BaseException:
            _set_phase(walk(block_list), OFFLOADED)
            raise

    def update_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisUpdateOffload: change cached variables."""
        _require_offloaded(block_list, "NdisUpdateOffload")
        self.miniport.update_offload(_down(block_list))

    def invalidate_offload(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisInvalidateOffload: the tree's objects must not be used for sending any more."""
        _require_offloaded(block_list, "NdisInvalidateOffload")
        self.miniport.invalidate_offload(_down(block_list))

    def query_offload_state(self, block_list: ProtocolOffloadBlockList) -> None:
        """NdisQueryOffloadState: read state."""
        _require_offloaded(block_list, "NdisQueryOffloadState")
        self.miniport.query_offload(_down(block_list))

    # Data operations

    def offload_tcp_send(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpSend; returns PENDING."""
        context = _context(handle, "NdisOffloadTcpSend")
        count = _claim(net_buffer_list, self.below, self.above, _SEND)
        try:
            return self.miniport.tcp_offload_send(context, net_buffer_list)
        except BaseException:
            _set_level(net_buffer_list, count, self.above)
            raise

    def offload_tcp_receive(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpReceive; returns PENDING."""
        context = _context(handle, "NdisOffloadTcpReceive")
        count = _claim(net_buffer_list, self.below, self.above, _RECEIVE)
        try:
            return self.miniport.tcp_offload_receive(context, net_buffer_list)
        except BaseException:
            _set_level(net_buffer_list, count, self.above)
            raise

    def offload_tcp_disconnect(self, handle: OffloadHandle, net_buffer_list: NetBufferList, flags: int) -> int:
        """NdisOffloadTcpDisconnect; returns PENDING."""
        context = _context(handle, "NdisOffloadTcpDisconnect")
        count = _claim(net_buffer_list, self.below, self.above, _DISCONNECT)
        try:
            return self.miniport.tcp_offload_disconnect(context, net_buffer_list, flags)
        except BaseException:
            _set_level(net_buffer_list, count, self.above)
            raise

    def offload_tcp_forward(self, handle: OffloadHandle, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpForward; returns PENDING."""
        context = _context(handle, "NdisOffloadTcpForward")
        count = _claim(net_buffer_list, self.below, self.above, _FORWARD)
        try:
            return self.miniport.tcp_offload_forward(context, net_buffer_list)
        except BaseException:
            _set_level(net_buffer_list, count, self.above)
            raise

    def offload_tcp_receive_return(self, net_buffer_list: NetBufferList) -> int:
        """NdisOffloadTcpReceiveReturn; returns SUCCESS."""
        return self.miniport.tcp_offload_receive_return(net_buffer_list)

    # The adapter

    def oid_request(self, request: OidRequest) -> int:
        """NdisOidRequest; returns a status, or PENDING if `Protocol.oid_request_complete` follows.

        NDIS itself answers what it knows: queries of capabilities and parameters (cap.parameters.set).
        """
        if not request.set and request.oid in _ANSWERED_BY_NDIS:
            request.information = getattr(self, _ANSWERED_BY_NDIS[request.oid])
            return Status.NOT_SUPPORTED if request.information is None else Status.SUCCESS
        status = self.miniport.oid_request(request)
        if status == Status.SUCCESS:
            self.oid_request_succeeded(request)
        return status

    def oid_request_succeeded(self, request: OidRequest) -> None:
        """Remember what has been set (for NDIS's own answers)."""
        if request.set and isinstance(request.information, TcpConnectionOffloadParameters):
            self.parameters = request.information

    def close(self) -> None:
        """NdisCloseAdapterEx: halt the adapter and take the edges apart. Raises Misuse if it is closed already, and
        while lists of indications are with the driver above (general.unload.after-returns).
        """
        if self.closed:
            raise Misuse(
                "NdisCloseAdapterEx",
                f"the binding of {self.protocol.name} to {self.miniport.name} is closed already",
                "close each binding once",
                "cap.single-owner",
            )
        self.miniport.halt()
        self.closed = True
        self.registered = False
        self.protocol.binding = None  # type: ignore[assignment]
        self.miniport.handle = None  # type: ignore[assignment]
        self.miniport.handlers = None


_ANSWERED_BY_NDIS = {
    Oid.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES: "hardware_capabilities",
    Oid.TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG: "current_config",
    Oid.TCP_CONNECTION_OFFLOAD_PARAMETERS: "parameters",
}


class TcpOffloadEventHandlers:
    """NDIS_TCP_OFFLOAD_EVENT_HANDLERS: the six NDIS entry points for TCP completions and indications
    (documents: *NdisTcpOffloadXxx*).
    """

    def __init__(self, miniport: Miniport, protocol: Protocol, binding: Binding) -> None:
        self.miniport = miniport
        self.protocol = protocol
        self.binding = binding
        self.below = 2 * miniport.level
        self.above = _back(binding.protocol, miniport)

    def tcp_offload_send_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadSendComplete."""
        _release(net_buffer_list, self.below, self.above, _SEND)
        self.protocol.tcp_offload_send_complete(net_buffer_list)

    def tcp_offload_receive_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadReceiveComplete."""
        _release(net_buffer_list, self.below, self.above, _RECEIVE)
        self.protocol.tcp_offload_receive_complete(net_buffer_list)

    def tcp_offload_disconnect_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadDisconnectComplete, with the one list of the request."""
        _release(net_buffer_list, self.below, self.above, _DISCONNECT)
        self.protocol.tcp_offload_disconnect_complete(net_buffer_list)

    def tcp_offload_forward_complete(self, net_buffer_list: NetBufferList) -> None:
        """NdisTcpOffloadForwardComplete."""
        _release(net_buffer_list, self.below, self.above, _FORWARD)
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


class MiniportHandle(TcpOffloadEventHandlers):
    """NdisMiniportHandle: what a miniport edge calls upward (documents: *NdisMXxx*). The six entry points for TCP are
    obtained by `get_offload_handlers`.
    """

    def get_offload_handlers(self, offload_type: int) -> tuple[int, TcpOffloadEventHandlers | None]:
        """NdisMGetOffloadHandlers: (SUCCESS, the entry points), or (NOT_SUPPORTED, None) for an unknown type."""
        if offload_type != ChimneyOffloadType.TCP:
            return Status.NOT_SUPPORTED, None
        return Status.SUCCESS, self

    def set_miniport_attributes(
        self, hardware_capabilities: TcpConnectionOffload | None, current_config: TcpConnectionOffload | None
    ) -> None:
        """NdisMSetMiniportAttributes: report what the adapter can do, and what of it is switched on (cap.report)."""
        recognised = hardware_capabilities is not None and hardware_capabilities.recognised
        self.binding.hardware_capabilities = hardware_capabilities if recognised else None
        self.binding.current_config = current_config if recognised else None

    def initiate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMInitiateOffloadComplete, with the tree that was received."""
        tree = _origin(block_list, "NdisMInitiateOffloadComplete")
        for block in walk(block_list):
            if block.net_buffer_list_chain is not None and block.status not in _OFFLOADED_SUCCESSFULLY:
                _release(block.net_buffer_list_chain, self.below, self.above, _SEND)
        complete_into_protocol_form(block_list)
        _settle_initiate(tree, True)
        self.protocol.initiate_offload_complete(tree)

    def terminate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMTerminateOffloadComplete, with the tree that was received.

        The offload of its objects ends here: their cells are cleared, so that a call on a stale handle is refused,
        and the handle may be offloaded again from within the handler. A failed object stays (A6).
        """
        tree = _origin(block_list, "NdisMTerminateOffloadComplete")
        for block in walk(block_list):
            if block.net_buffer_list_chain is not None:
                _release(block.net_buffer_list_chain, self.below, self.above, _SEND)
            handle = block.ndis_offload_handle
            if handle is not None:
                ended = block.status == Status.SUCCESS
                handle.phase = IDLE if ended else OFFLOADED
                if ended:
                    handle.miniport_offload_context = None
        complete_into_protocol_form(block_list)
        self.protocol.terminate_offload_complete(tree)

    def update_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMUpdateOffloadComplete, with the tree that was received."""
        tree = _origin(block_list, "NdisMUpdateOffloadComplete")
        complete_into_protocol_form(block_list)
        self.protocol.update_offload_complete(tree)

    def invalidate_offload_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMInvalidateOffloadComplete, with the tree that was received."""
        tree = _origin(block_list, "NdisMInvalidateOffloadComplete")
        complete_into_protocol_form(block_list)
        self.protocol.invalidate_offload_complete(tree)

    def query_offload_state_complete(self, block_list: MiniportOffloadBlockList) -> None:
        """NdisMQueryOffloadStateComplete, with the tree that was received."""
        tree = _origin(block_list, "NdisMQueryOffloadStateComplete")
        complete_into_protocol_form(block_list)
        self.protocol.query_offload_complete(tree)

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

    def indicate_status_ex(self, status_code: int, status_buffer: object = None) -> None:
        """NdisMIndicateStatusEx: a status indication of the adapter, with what it carries."""
        if status_code in _CARRY_CAPABILITIES and isinstance(status_buffer, TcpConnectionOffload):
            self.binding.hardware_capabilities = status_buffer if status_buffer.recognised else None
            self.binding.current_config = self.binding.hardware_capabilities
        self.protocol.status_ex(status_code, status_buffer)

    def indicate_receive_net_buffer_lists(self, net_buffer_list: NetBufferList) -> None:
        """NdisMIndicateReceiveNetBufferLists: frames on the ordinary path."""
        self.protocol.receive_net_buffer_lists(net_buffer_list)

    def oid_request_complete(self, request: OidRequest, status: int) -> None:
        """NdisMOidRequestComplete: a request that was answered with PENDING has ended."""
        if status == Status.SUCCESS:
            self.binding.oid_request_succeeded(request)
        self.protocol.oid_request_complete(request, status)


_CARRY_CAPABILITIES = (
    StatusIndication.OFFLOAD_RESUME,
    StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES,
)


class Library:
    """Makes the two handles of a binding; a verifier's test puts a faulty one in its place."""

    def binding(self, protocol: Protocol, miniport: Miniport) -> Binding:
        """What ``protocol`` calls."""
        return Binding(protocol, miniport)

    def handle(self, miniport: Miniport, protocol: Protocol, binding: Binding) -> MiniportHandle:
        """What ``miniport`` calls."""
        return MiniportHandle(miniport, protocol, binding)


def bind(
    protocol: Protocol, miniport: Miniport, observer: Observer | None = None, library: Library | None = None
) -> Binding:
    """Bind ``protocol`` above ``miniport`` (NdisOpenAdapterEx): initialise the miniport, register both edges' entry
    points, and give each its handle. A stack is bound from the target upward.

    ``observer`` sees every call over the boundary; without one there is nothing in the way. Raises Misuse if either is
    bound already: a miniport's offloads belong to one protocol at a time (cap.single-owner).
    """
    if miniport.handle is not None or protocol.binding is not None:
        bound = miniport.name if miniport.handle is not None else protocol.name
        raise Misuse(
            "NdisOpenAdapterEx",
            f"cannot bind {protocol.name} to {miniport.name}: {bound} is bound already",
            "close its binding first",
            "cap.single-owner",
        )
    library = library or Library()
    if observer is None:
        binding = library.binding(protocol, miniport)
        handle = library.handle(miniport, protocol, binding)
        registration = Registration()
    else:
        # Imported here: observation is made of bindings.
        from chimney.ndis.observation import observe

        binding, handle, registration = observe(protocol, miniport, observer, library)
    protocol.binding = binding
    miniport.handle = handle
    miniport.set_options(registration)
    miniport.initialize()
    protocol.set_options(registration)
    binding.registered = registration.registered(
        ProviderGenericCharacteristics,
        ProviderTcpCharacteristics,
        ClientGenericCharacteristics,
        ClientTcpCharacteristics,
    )
    return binding


def _down(block_list: ProtocolOffloadBlockList) -> MiniportOffloadBlockList:
    tree = mirror(block_list, to_miniport_form)
    assert tree is not None
    return tree


def _origin(block_list: MiniportOffloadBlockList, call: str) -> ProtocolOffloadBlockList:
    """The tree that a completed one was made from; it can be completed once."""
    origin = block_list.ndis_reserved
    if not isinstance(origin, ProtocolOffloadBlockList):
        raise Misuse(
            call,
            "this tree is not one that NDIS passed down, or has been completed already",
            "complete each tree once, with the block list that your handler received",
            "general.complete-exactly-once",
        )
    return origin


# The book of requests: NetBufferList.level is twice the level of the miniport that has a request, one more when it has
# come back from there to an intermediate driver, and _IDLE_LEVEL when no driver below the host has it.


def _back(protocol: Protocol, miniport: Miniport) -> int:
    """Where a request is that has come back over a boundary: with the host, or with an intermediate driver."""
    return _IDLE_LEVEL if protocol.driver is None else 2 * miniport.level + 1


def _claim(head: NetBufferList, below: int, above: int, operation: int) -> int:
    """Note that lists go down over a boundary, from ``above`` to ``below``; returns how many they are."""
    count = 0
    nbl: NetBufferList | None = head
    while nbl is not None:
        if nbl.level <= below or (nbl.operation != operation and nbl.level != _IDLE_LEVEL):
            _set_level(head, count, above)
            _refuse_claim(nbl, operation)
        nbl.level = below
        nbl.operation = operation
        count += 1
        nbl = nbl.next
    return count


def _set_level(head: NetBufferList, count: int, level: int) -> None:
    """Put the first ``count`` lists back where they were; the list may be a ring."""
    nbl: NetBufferList | None = head
    while count and nbl is not None:
        nbl.level = level
        nbl = nbl.next
        count -= 1


def _refuse_claim(nbl: NetBufferList, operation: int) -> None:
    call = f"a {_KINDS[operation]} request"
    if nbl.level == FREED_LEVEL:
        raise Misuse(
            call,
            "the NetBufferList has been freed",
            "allocate another one, and free it when it has been completed",
            "general.ownership.while-pending",
        )
    if nbl.operation != operation and nbl.operation:
        raise Misuse(
            call,
            f"the NetBufferList is a pending {_KINDS[nbl.operation]} request",
            "pass a request down by the function that it came by",
            "im.io.same-function",
        )
    raise Misuse(
        call,
        "the NetBufferList is with the driver below already, or stands twice in the list",
        "post a list again when it has been completed",
        "general.ownership.while-pending",
    )


def _release(head: NetBufferList, below: int, above: int, operation: int) -> int:
    """Note that lists come up over a boundary, from ``below`` to ``above``, each request once. Returns 0."""
    count = 0
    nbl: NetBufferList | None = head
    while nbl is not None:
        # A lower level that is odd: the driver below has it back.
        mine = nbl.level == below or (nbl.level < below and nbl.level & 1)
        if not mine or nbl.operation != operation:
            _set_level(head, count, below)
            _refuse_release(nbl, below, operation)
        nbl.level = above
        count += 1
        nbl = nbl.next
    return 0


def _refuse_release(nbl: NetBufferList, below: int, operation: int) -> None:
    call = f"a {_KINDS[operation]} completion"
    if nbl.operation == operation and 0 <= nbl.level < below:
        raise Misuse(
            call,
            "the NetBufferList is with a driver further down",
            "complete a request when it has come back to you",
            "general.ownership.while-pending",
        )
    if nbl.level in (_IDLE_LEVEL, FREED_LEVEL) or nbl.operation == operation:
        raise Misuse(
            call,
            "the NetBufferList is not pending here: it has been completed already, or was never posted",
            "complete each request once, on the handle of the adapter that it was posted to",
            "general.complete-exactly-once",
        )
    raise Misuse(
        call,
        f"the NetBufferList is a {_KINDS[nbl.operation]} request",
        "complete each request by its own completion function",
        "io.complete.functions",
    )


# The book of state objects


def _context(handle: OffloadHandle, call: str) -> object:
    context = handle.miniport_offload_context
    if context is None or handle.phase == _INITIATING:
        raise Misuse(
            call,
            f"the connection is {PHASES[handle.phase]}",
            "keep the request, and pass it down when the initiate has completed with success",
            "initiate.host.quiet",
        )
    return context


def _begin_initiate(root: ProtocolOffloadBlockList) -> None:
    blocks = [block.offload_handle for block in walk(root) if block.offload_handle is not None]
    for handle in blocks:
        if handle.phase not in (IDLE, OFFLOADED):
            raise Misuse(
                "NdisInitiateOffload",
                f"an object of the tree is {PHASES[handle.phase]}",
                "wait for the completion of the operation under way",
                "initiate.host.no-duplicate",
            )
    for handle in blocks:
        if handle.phase == IDLE:
            handle.phase = INITIATING


def _settle_initiate(root: ProtocolOffloadBlockList, completed: bool) -> None:
    for block in walk(root):
        handle = block.offload_handle
        if handle is not None and handle.phase == INITIATING:
            offloaded = completed and block.status in _OFFLOADED_SUCCESSFULLY
            handle.phase = OFFLOADED if offloaded else IDLE


def _require_offloaded(root: ProtocolOffloadBlockList, call: str) -> None:
    for block in walk(root):
        handle = block.offload_handle
        if handle is not None and handle.phase != OFFLOADED:
            raise Misuse(
                call,
                f"an object of the tree is {PHASES[handle.phase]}",
                "name offloaded objects only, and wait for the completion of the operation under way",
                "initiate.host.quiet" if handle.phase == INITIATING else "handle.context.lifetime",
            )


def _set_phase(blocks: Iterable[ProtocolOffloadBlockList], phase: int) -> None:
    for block in blocks:
        if block.offload_handle is not None:
            block.offload_handle.phase = phase
