"""Neighbor, path and TCP connection state, and the block lists that carry it.

A state object has up to three classes of variables: *constant* (nobody changes them while offloaded), *cached* (only
the host changes them, by update) and *delegated* (only the target changes them). Values are native: integers for
ports and sequence numbers, 6 bytes for a MAC address (empty: not set), 4 or 16 bytes for an IP address. Times are in
ticks of 1/TicksPerSecond. Sources: *NEIGHBOR_OFFLOAD_STATE_...*, *IP4/IP6_OFFLOAD_STATE_...*, *TCP_OFFLOAD_STATE_...*
and *NDIS_PROTOCOL_OFFLOAD_BLOCK_LIST* / *NDIS_MINIPORT_OFFLOAD_BLOCK_LIST*.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeVar

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.status import OffloadStateType, Status, TcpCachedFlags, TcpConnectionState, TcpConstFlags

TIMER_NOT_RUNNING = 0xFFFFFFFF
BACKLOG_UNSUPPORTED = 0xFFFFFFFF
NO_RETRANSMISSION_LIMIT = 0xFFFFFFFF


@dataclass(slots=True)
class NeighborConst:
    """Constant neighbor state. An empty ``dl_source_address`` means the interface's own; ``vlan_id`` 0 is not
    significant.
    """

    dl_source_address: bytes = b""
    vlan_id: int = 0


@dataclass(slots=True)
class NeighborCached:
    """Cached neighbor state: the next hop's MAC address, and when the host last confirmed it (ticks ago)."""

    dl_destination_address: bytes
    host_reachability_delta: int = 0


@dataclass(slots=True)
class NeighborDelegated:
    """Delegated neighbor state: when the target last confirmed the neighbor (ticks ago)."""

    nic_reachability_delta: int = 0


@dataclass(slots=True)
class PathConst:
    """Constant path state: 4 or 16 bytes each, in network order."""

    source_address: bytes
    destination_address: bytes


@dataclass(slots=True)
class PathCached:
    """Cached path state: the path MTU in bytes."""

    path_mtu: int


@dataclass(slots=True)
class PathDelegated:
    """Delegated path state: the documents define none."""


@dataclass(slots=True)
class TcpConst:
    """Constant TCP state (*TCP_OFFLOAD_STATE_CONST*)."""

    flags: TcpConstFlags
    remote_port: int
    local_port: int
    snd_wind_scale: int
    rcv_wind_scale: int
    remote_mss: int
    hash_value: int = 0


@dataclass(slots=True)
class TcpCached:
    """Cached TCP state (*TCP_OFFLOAD_STATE_CACHED*); times in ticks, windows in bytes."""

    flags: TcpCachedFlags
    initial_rcv_wnd: int
    rcv_indication_size: int = 0
    ka_probe_count: int = 0
    ka_timeout: int = 0
    ka_interval: int = 0
    max_rt: int = 0
    flow_label: int = 0
    ttl_or_hop_limit: int = 64
    tos_or_traffic_class: int = 0
    user_priority: int = 0


@dataclass(slots=True)
class TimerRemainder:
    """A timer as it is handed over: what it counted, and the ticks left (`TIMER_NOT_RUNNING`; 0: due now)."""

    count: int = 0
    timeout_delta: int = TIMER_NOT_RUNNING


@dataclass(slots=True)
class TcpDelegated:
    """Delegated TCP state (*TCP_OFFLOAD_STATE_DELEGATED*).

    ``s_rtt`` is eight times and ``rtt_var`` four times the value in ticks. ``send_data_head``, ``send_data_tail`` and
    ``buffered_data`` are used by initiate and terminate, the two backlog sizes by query alone.
    """

    state: TcpConnectionState
    rcv_nxt: int
    rcv_wnd: int
    snd_una: int
    snd_nxt: int
    snd_max: int
    snd_wnd: int
    max_snd_wnd: int
    send_wl1: int
    c_wnd: int
    ss_thresh: int
    s_rtt: int
    rtt_var: int
    ts_recent: int
    ts_recent_age: int
    ts_time: int
    total_rt: int
    dup_ack_count: int
    snd_wnd_probe_count: int
    keep_alive: TimerRemainder
    retransmit: TimerRemainder
    send_data_head: NetBufferList | None = None
    send_data_tail: NetBufferList | None = None
    buffered_data: NetBufferList | None = None
    send_backlog_size: int = BACKLOG_UNSUPPORTED
    receive_backlog_size: int = BACKLOG_UNSUPPORTED
    flags: int = 0
    d_wnd: int = 0


ConstState = NeighborConst | PathConst | TcpConst
CachedState = NeighborCached | PathCached | TcpCached
DelegatedState = NeighborDelegated | PathDelegated | TcpDelegated
State = TypeVar("State")

_STRUCTURES: tuple[type, ...] = (
    NeighborConst,
    NeighborCached,
    NeighborDelegated,
    PathConst,
    PathCached,
    PathDelegated,
    TcpConst,
    TcpCached,
    TcpDelegated,
)


def values_of(kind: type, besides: tuple[str, ...] = ()) -> Callable[[Any], tuple[Any, ...]]:
    """What reads all members of a structure of this kind, except those named, in their order."""
    names = [field.name for field in fields(kind) if field.name not in besides]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda structure: tuple(getattr(structure, name) for name in names)


_VALUES = {kind: values_of(kind) for kind in _STRUCTURES}


def copy_of(structure: State) -> State:
    """A shallow copy of a state structure, or None of None; several times as fast as `copy.copy`."""
    if structure is None:
        return structure
    kind = type(structure)
    values = _VALUES.get(kind)
    return copy(structure) if values is None else kind(*values(structure))


@dataclass(slots=True, eq=False)
class OffloadBlockList:
    """What the two forms of a block have in common: links, status, state, chain, and the reserved words."""

    type: OffloadStateType
    const: ConstState | None = None
    cached: CachedState | None = None
    delegated: DelegatedState | None = None
    net_buffer_list_chain: NetBufferList | None = None
    port_number: int = 0
    status: Status = Status.FAILURE
    im_reserved: object = None
    protocol_reserved: object = None
    miniport_reserved: object = None
    ndis_reserved: object = None
    scratch: object = None
    source_handle: object = None


@dataclass(slots=True, eq=False)
class ProtocolOffloadBlockList(OffloadBlockList):
    """NDIS_PROTOCOL_OFFLOAD_BLOCK_LIST: a block as the upper driver sees it. No ``offload_handle``: a placeholder."""

    offload_handle: OffloadHandle | None = None
    next_block: ProtocolOffloadBlockList | None = None
    dependent_block_list: ProtocolOffloadBlockList | None = None


@dataclass(slots=True, eq=False)
class MiniportOffloadBlockList(OffloadBlockList):
    """NDIS_MINIPORT_OFFLOAD_BLOCK_LIST: a block as the lower driver sees it.

    ``ndis_offload_handle`` is what the lower driver gives back in every indication; None marks a placeholder.
    """

    ndis_offload_handle: OffloadHandle | None = None
    next_block: MiniportOffloadBlockList | None = None
    dependent_block_list: MiniportOffloadBlockList | None = None

    @property
    def placeholder(self) -> bool:
        """True for a node that is there for the shape of the tree alone (null MiniportOffloadContext)."""
        return self.ndis_offload_handle is None

    @property
    def miniport_offload_context(self) -> object:
        """The value in the cell: None for a new offload; the lower driver's own context otherwise."""
        return None if self.ndis_offload_handle is None else self.ndis_offload_handle.miniport_offload_context

    @miniport_offload_context.setter
    def miniport_offload_context(self, value: object) -> None:
        if self.ndis_offload_handle is None:
            raise ValueError("a placeholder has no cell to write an offload context into (bl.placeholder.meaning)")
        self.ndis_offload_handle.miniport_offload_context = value


Block = TypeVar("Block", ProtocolOffloadBlockList, MiniportOffloadBlockList)
Mirrored = TypeVar("Mirrored", ProtocolOffloadBlockList, MiniportOffloadBlockList)


def walk(block: Block | None) -> list[Block]:
    """Every block of a tree, depth first and breadth next: the node, its dependents, then the next of its row."""
    found: list[Block] = []
    rows: list[Block] = []
    while block is not None:
        found.append(block)
        following = block.next_block
        if block.dependent_block_list is not None:
            if following is not None:
                rows.append(following)
            block = block.dependent_block_list
        elif following is not None or not rows:
            block = following
        else:
            block = rows.pop()
    return found


def mirror(block: Block | None, make: Callable[[Block], Mirrored]) -> Mirrored | None:
    """The row that begins with ``block`` and all above it, in the same shape; ``make`` turns one node into another."""
    first: Mirrored | None = None
    last: Mirrored | None = None
    while block is not None:
        made = make(block)
        made.dependent_block_list = mirror(block.dependent_block_list, make)
        if last is None:
            first = made
        else:
            last.next_block = made
        last = made
        block = block.next_block
    return first


def to_miniport_form(block: ProtocolOffloadBlockList) -> MiniportOffloadBlockList:
    """One block in miniport form, without its links; state structures are shared; it remembers its origin in
    ``ndis_reserved``.
    """
    return MiniportOffloadBlockList(
        type=block.type,
        const=block.const,
        cached=block.cached,
        delegated=block.delegated,
        net_buffer_list_chain=block.net_buffer_list_chain,
        port_number=block.port_number,
        im_reserved=block.im_reserved,
        protocol_reserved=block.protocol_reserved,
        ndis_reserved=block,
        source_handle=block.source_handle,
        ndis_offload_handle=block.offload_handle,
    )


def complete_into_protocol_form(root: MiniportOffloadBlockList) -> ProtocolOffloadBlockList:
    """Copy what a completion carries (status, chain) back into the tree that ``root`` was made from, and return that
    tree. ``root`` is used up.
    """
    tree = root.ndis_reserved
    for block in walk(root):
        origin = block.ndis_reserved
        assert isinstance(origin, ProtocolOffloadBlockList)
        origin.status = block.status
        origin.net_buffer_list_chain = block.net_buffer_list_chain
        block.ndis_reserved = None
    assert isinstance(tree, ProtocolOffloadBlockList)
    return tree
