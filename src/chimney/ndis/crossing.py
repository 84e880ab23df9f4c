"""What a crossing of a boundary is, as an observer sees it: arguments as they were when the call began.

A *crossing* is a driver's call of an NDIS function (stage CALL) and, within it, NDIS's call of the neighbour's handler
(stage HANDLER). The structures themselves change hands and are changed, so each crossing keeps snapshots of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from chimney.ndis.buffers import Mdl, NetBuffer, NetBufferList, NetBufferListContext
from chimney.ndis.driver import Miniport, Protocol
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import Binding, MiniportHandle
from chimney.ndis.state import (
    CachedState,
    ConstState,
    DelegatedState,
    OffloadBlockList,
    ProtocolOffloadBlockList,
    copy_of,
)
from chimney.ndis.status import OffloadStateType

Result = TypeVar("Result")


class Stage(Enum):
    """Which half of a crossing: a driver calls NDIS (``index`` 0), or NDIS calls the neighbour (1)."""

    CALL = "call"
    HANDLER = "handler"

    index: int

    # Members are looked up for every crossing; an enumeration's own hash is a Python function.
    __hash__ = object.__hash__


class Kind(Enum):
    """What crosses: (NDIS function, handler), by the documents' names.

    ``down``: the protocol edge calls, not the miniport edge. ``index`` counts the kinds.
    """

    down: bool
    index: int

    __hash__ = object.__hash__

    INITIATE = ("NdisInitiateOffload", "MiniportInitiateOffload")
    TERMINATE = ("NdisTerminateOffload", "MiniportTerminateOffload")
    UPDATE = ("NdisUpdateOffload", "MiniportUpdateOffload")
    INVALIDATE = ("NdisInvalidateOffload", "MiniportInvalidateOffload")
    QUERY = ("NdisQueryOffloadState", "MiniportQueryOffload")
    SEND = ("NdisOffloadTcpSend", "MiniportTcpOffloadSend")
    RECEIVE = ("NdisOffloadTcpReceive", "MiniportTcpOffloadReceive")
    DISCONNECT = ("NdisOffloadTcpDisconnect", "MiniportTcpOffloadDisconnect")
    FORWARD = ("NdisOffloadTcpForward", "MiniportTcpOffloadForward")
    RECEIVE_RETURN = ("NdisOffloadTcpReceiveReturn", "MiniportTcpOffloadReceiveReturn")
    OID = ("NdisOidRequest", "MiniportOidRequest")
    CLOSE = ("NdisCloseAdapterEx", "MiniportHaltEx")
    INITIATE_COMPLETE = ("NdisMInitiateOffloadComplete", "ProtocolInitiateOffloadComplete")
    TERMINATE_COMPLETE = ("NdisMTerminateOffloadComplete", "ProtocolTerminateOffloadComplete")
    UPDATE_COMPLETE = ("NdisMUpdateOffloadComplete", "ProtocolUpdateOffloadComplete")
    INVALIDATE_COMPLETE = ("NdisMInvalidateOffloadComplete", "ProtocolInvalidateOffloadComplete")
    QUERY_COMPLETE = ("NdisMQueryOffloadStateComplete", "ProtocolQueryOffloadComplete")
    SEND_COMPLETE = ("NdisTcpOffloadSendComplete", "ProtocolTcpOffloadSendComplete")
    RECEIVE_COMPLETE = ("NdisTcpOffloadReceiveComplete", "ProtocolTcpOffloadReceiveComplete")
    DISCONNECT_COMPLETE = ("NdisTcpOffloadDisconnectComplete", "ProtocolTcpOffloadDisconnectComplete")
    FORWARD_COMPLETE = ("NdisTcpOffloadForwardComplete", "ProtocolTcpOffloadForwardComplete")
    RECEIVE_INDICATE = ("NdisTcpOffloadReceiveHandler", "ProtocolTcpOffloadReceiveIndicate")
    EVENT = ("NdisTcpOffloadEventHandler", "ProtocolTcpOffloadEvent")
    OFFLOAD_EVENT = ("NdisMOffloadEventIndicate", "ProtocolIndicateOffloadEvent")
    STATUS = ("NdisMIndicateStatusEx", "ProtocolStatusEx")
    ORDINARY_RECEIVE = ("NdisMIndicateReceiveNetBufferLists", "ProtocolReceiveNetBufferLists")
    OID_COMPLETE = ("NdisMOidRequestComplete", "ProtocolOidRequestComplete")
    SET_OPTIONAL_HANDLERS = ("NdisSetOptionalHandlers", "")
    GET_OFFLOAD_HANDLERS = ("NdisMGetOffloadHandlers", "")
    SET_ATTRIBUTES = ("NdisMSetMiniportAttributes", "")


for _index, _stage in enumerate(Stage):
    _stage.index = _index
for _index, _kind in enumerate(Kind):
    _kind.index = _index
    _kind.down = _index < list(Kind).index(Kind.INITIATE_COMPLETE)


@dataclass(slots=True, eq=False)
class Boundary:
    """A binding under observation; ``number`` counts them in the order of binding (from the target upward).

    ``top``: a host stack is above; ``bottom``: a target is below.
    """

    number: int
    protocol: Protocol
    miniport: Miniport
    binding: Binding = None  # type: ignore[assignment]  # set by observe()
    handle: MiniportHandle = None  # type: ignore[assignment]  # set by observe()
    top: bool = field(init=False)
    bottom: bool = field(init=False)

    def __post_init__(self) -> None:
        self.top = self.protocol.driver is None
        self.bottom = self.miniport.driver is None

    def __str__(self) -> str:
        return f"{self.protocol.name} | {self.miniport.name}"


@dataclass(slots=True, eq=False)
class NblView:
    """A NetBufferList as it was: ``buffers`` has (data offset, data length, MDLs) of each NetBuffer, ``length`` is that
    of all, ``contexts`` has the owners on its context stack, top first.
    """

    nbl: NetBufferList
    next: NetBufferList | None
    status: int
    bytes_transferred: int
    no_push: bool
    buffers: tuple[tuple[int, int, tuple[Mdl, ...]], ...]
    contexts: tuple[object, ...]
    protocol_reserved: object
    source_handle: object
    length: int


@dataclass(slots=True, eq=False)
class BlockView:
    """A block as it was, with copies of its state structures. ``parent`` and ``depth`` describe its place in the tree
    (depth 0: the root's row), ``handle`` is the upper driver's, ``cell`` the value it held.
    """

    block: OffloadBlockList
    parent: BlockView | None
    depth: int
    type: OffloadStateType
    status: int
    handle: OffloadHandle | None
    cell: object
    const: ConstState | None
    cached: CachedState | None
    delegated: DelegatedState | None
    chain: tuple[NblView, ...]
    im_reserved: object
    protocol_reserved: object
    miniport_reserved: object
    source_handle: object
    port_number: int

    @property
    def placeholder(self) -> bool:
        return self.handle is None


@dataclass(slots=True, eq=False)
class Crossing:
    """One call: its arguments as they were when it began; ``result`` or ``raised`` once it has ended.

    ``parent`` is the call within which it was made (until it has been seen to end; a HANDLER's is its CALL unless NDIS
    strayed). ``handle`` is the OffloadHandle (CALL of a data request, indications), ``context`` the opaque value that a
    miniport's handler got, ``nbl`` the head of the list and ``nbls`` all of it; ``root`` the tree and ``blocks`` its
    nodes in documents' order.
    ``value`` is the status of an indication, event type, code, flags of a disconnect, or type of handlers asked for;
    ``information`` what came with it (event information, status buffer, OID request, registered table, capabilities).
    ``notes`` belongs to the observer.
    """

    number: int
    at: int
    boundary: Boundary
    kind: Kind
    stage: Stage
    parent: Crossing | None
    handle: OffloadHandle | None = None
    context: object = None
    nbl: NetBufferList | None = None
    nbls: tuple[NblView, ...] = ()
    root: OffloadBlockList | None = None
    blocks: tuple[BlockView, ...] = ()
    value: int = 0
    information: object = None
    result: Any = None
    raised: BaseException | None = None
    ended: bool = False
    ended_at: int = 0
    notes: Any = None

    @property
    def function(self) -> str:
        """The documents' name of what was called."""
        names: tuple[str, str] = self.kind.value
        return names[0 if self.stage is Stage.CALL else 1]


class Observer:
    """Sees the crossings of every boundary it is given to; the base numbers them and keeps the calls under way.

    clock  tells the time in microseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.boundaries: list[Boundary] = []
        self.running: list[Crossing] = []
        self.count = 0

    def attached(self, boundary: Boundary) -> None:
        """A boundary is about to be bound."""
        self.boundaries.append(boundary)

    def enter(self, crossing: Crossing) -> None:
        """A call begins; its arguments may still be looked at and, by a checker, poisoned."""

    def leave(self, crossing: Crossing) -> None:
        """It has ended."""

    def next_number(self) -> int:
        """The number of the next crossing."""
        self.count += 1
        return self.count - 1

    def run(
        self,
        boundary: Boundary,
        kind: Kind,
        stage: Stage,
        call: Callable[[], Result],
        handle: OffloadHandle | None = None,
        context: object = None,
        nbl: NetBufferList | None = None,
        root: OffloadBlockList | None = None,
        value: int = 0,
        information: object = None,
    ) -> Result:
        """Make ``call`` as one crossing."""
        running = self.running
        crossing = Crossing(
            self.next_number(),
            self.clock(),
            boundary,
            kind,
            stage,
            running[-1] if running else None,
            handle,
            context,
            nbl,
            () if nbl is None else view_list(nbl),
            root,
            () if root is None else view_tree(root),
            value,
            information,
        )
        running.append(crossing)
        try:
            self.enter(crossing)
            result = crossing.result = call()
            return result
        except BaseException as error:
            crossing.raised = error
            raise
        finally:
            running.pop()
            crossing.ended = True
            crossing.ended_at = self.clock()
            try:
                self.leave(crossing)
            finally:
                # Whoever keeps a call would keep, through what it was made within, all that has ever happened.
                crossing.parent = None


def view_list(head: NetBufferList | None) -> tuple[NblView, ...]:
    """A snapshot of each linked list; a ring is followed once."""
    if head is None:
        return ()
    if head.next is None:
        return (_view(head),)
    found: dict[int, NblView] = {}
    while head is not None and id(head) not in found:
        found[id(head)] = _view(head)
        head = head.next
    return tuple(found.values())


def _view(nbl: NetBufferList) -> NblView:
    buffers: tuple[tuple[int, int, tuple[Mdl, ...]], ...] = ()
    length = 0
    nb: NetBuffer | None = nbl.first_net_buffer
    while nb is not None:
        mdl = nb.mdl_chain
        mdls: tuple[Mdl, ...] = ()
        while mdl is not None:
            mdls += (mdl,)
            mdl = mdl.next
        buffers += ((nb.data_offset, nb.data_length, mdls),)
        length += nb.data_length
        nb = nb.next
    contexts: tuple[object, ...] = ()
    context: NetBufferListContext | None = nbl.context
    while context is not None:
        contexts += (context.owner,)
        context = context.next
    return NblView(
        nbl,
        nbl.next,
        nbl.status,
        nbl.tcp_offload_bytes_transferred,
        nbl.tcp_receive_no_push,
        buffers,
        contexts,
        nbl.protocol_reserved,
        nbl.source_handle,
        length,
    )


def view_tree(root: OffloadBlockList) -> tuple[BlockView, ...]:
    """A snapshot of each block, depth first and breadth next."""
    found: list[BlockView] = []
    _view_row(root, None, 0, found)
    return tuple(found)


def _view_row(block: Any, parent: BlockView | None, depth: int, found: list[BlockView]) -> None:
    protocol = isinstance(block, ProtocolOffloadBlockList)
    while block is not None:
        handle = block.offload_handle if protocol else block.ndis_offload_handle
        view = BlockView(
            block,
            parent,
            depth,
            block.type,
            int(block.status),
            handle,
            None if handle is None else handle.miniport_offload_context,
            copy_of(block.const),
            copy_of(block.cached),
            copy_of(block.delegated),
            view_list(block.net_buffer_list_chain),
            block.im_reserved,
            block.protocol_reserved,
            block.miniport_reserved,
            block.source_handle,
            block.port_number,
        )
        found.append(view)
        dependent = block.dependent_block_list
        if dependent is not None:
            _view_row(dependent, view, depth + 1, found)
        block = block.next_block
