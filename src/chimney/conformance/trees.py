"""Block lists for the connections of one host, with the paths and neighbors that they share (documents: chapter 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from chimney.ndis.buffers import NetBufferList, iterate
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import (
    NeighborCached,
    NeighborConst,
    NeighborDelegated,
    PathCached,
    PathConst,
    PathDelegated,
    ProtocolOffloadBlockList,
    TcpCached,
    TcpConst,
    TcpDelegated,
    TimerRemainder,
)
from chimney.ndis.status import OffloadStateType, TcpCachedFlags, TcpConnectionState, TcpConstFlags

if TYPE_CHECKING:
    from chimney.conformance.end import End

Block = ProtocolOffloadBlockList
Type = OffloadStateType

CLASSES = ("const", "cached", "delegated")
NEIGHBOR_TYPES = (Type.NEIGHBOR_CONST, Type.NEIGHBOR_CACHED, Type.NEIGHBOR_DELEGATED, Type.NEIGHBOR)
IP4_TYPES = (Type.IP4_CONST, Type.IP4_CACHED, Type.IP4_DELEGATED, Type.IP4)
IP6_TYPES = (Type.IP6_CONST, Type.IP6_CACHED, Type.IP6_DELEGATED, Type.IP6)
TCP_TYPES = (Type.TCP_CONST, Type.TCP_CACHED, Type.TCP_DELEGATED, Type.TCP)
_DELEGATED, _ALL = 2, 3
_NUMBERS = [
    field.name
    for field in fields(TcpDelegated)
    if field.default is MISSING and field.name not in ("state", "keep_alive", "retransmit")
]


def row(blocks: Iterable[Block]) -> Block | None:
    """The blocks linked through ``next_block``."""
    first: Block | None = None
    last: Block | None = None
    for block in blocks:
        if last is None:
            first = block
        else:
            last.next_block = block
        last = block
    return first


def grouped(
    ends: Sequence[End],
    neighbor: Callable[[End], Block],
    path: Callable[[End], Block],
    tcp: Callable[[End], Block],
) -> Block:
    """A tree over ``ends``: neighbors, the paths over each, the connections over each; each block made once."""
    shape: dict[OffloadHandle, dict[OffloadHandle, list[End]]] = {}
    for end in ends:
        shape.setdefault(end.neighbor_handle, {}).setdefault(end.path_handle, []).append(end)
    neighbors = []
    for paths in shape.values():
        made = []
        for connections in paths.values():
            block = path(connections[0])
            block.dependent_block_list = row(tcp(end) for end in connections)
            made.append(block)
        below = neighbor(next(iter(paths.values()))[0])
        below.dependent_block_list = row(made)
        neighbors.append(below)
    tree = row(neighbors)
    assert tree is not None
    return tree


def offloaded(handle: OffloadHandle) -> bool:
    """Whether the target has this object."""
    return handle.miniport_offload_context is not None


def new_neighbor(end: End) -> Block:
    """The neighbor of ``end``: new state, or a linker."""
    block = Block(type=Type.NEIGHBOR, offload_handle=end.neighbor_handle)
    if not offloaded(end.neighbor_handle):
        block.const, block.cached = end.neighbor, end.neighbor_cached
        # HRD and NRD are equal at first (initiate.reach.equal).
        block.delegated = NeighborDelegated(end.neighbor_cached.host_reachability_delta)
    return block


def new_path(end: End) -> Block:
    """The path of ``end``: new state, or a linker."""
    block = Block(type=end.ip_type, offload_handle=end.path_handle)
    if not offloaded(end.path_handle):
        block.const = PathConst(end.flow.local_address, end.flow.remote_address)
        block.cached, block.delegated = PathCached(end.path_mtu), PathDelegated()
    return block


def new_connection(end: End, chain: NetBufferList | None = None) -> Block:
    """The connection itself, with ``chain`` as its outstanding send data."""
    if chain is not None:
        end.delegated.send_data_head = chain
        end.delegated.send_data_tail = list(iterate(chain))[-1]
    return Block(
        type=Type.TCP,
        const=end.const,
        cached=end.cached,
        delegated=end.delegated,
        net_buffer_list_chain=chain,
        offload_handle=end.handle,
    )


def initiate_tree(ends: Sequence[End]) -> Block:
    """Neighbors, paths and connections, each new where its handle is not offloaded, with the send data that each
    connection has outstanding.
    """
    return grouped(ends, new_neighbor, new_path, lambda end: new_connection(end, end.chain_to_hand_over()))


def empty_delegated() -> TcpDelegated:
    """A structure for the target to write a connection's delegated state into."""
    numbers: dict[str, Any] = dict.fromkeys(_NUMBERS, 0)
    return TcpDelegated(TcpConnectionState.CLOSED, keep_alive=TimerRemainder(), retransmit=TimerRemainder(), **numbers)


def empty_tcp_const() -> TcpConst:
    """A structure for the target to write into, and so are the next two."""
    return TcpConst(TcpConstFlags(0), 0, 0, 0, 0, 0)


def empty_tcp_cached() -> TcpCached:
    return TcpCached(TcpCachedFlags(0), 0)


def empty_path_const(end: End) -> PathConst:
    return PathConst(bytes(len(end.flow.local_address)), bytes(len(end.flow.local_address)))


def terminate_tree(ends: Sequence[End], leaving: Callable[[OffloadHandle], bool]) -> Block:
    """The connections, with delegated structures to be filled in, and those paths and neighbors that are ``leaving``
    with them; the others are placeholders. Nothing but connections: a row of these.
    """

    def neighbor(end: End) -> Block:
        if not leaving(end.neighbor_handle):
            return Block(type=Type.NEIGHBOR)
        return Block(type=Type.NEIGHBOR_DELEGATED, delegated=NeighborDelegated(), offload_handle=end.neighbor_handle)

    def path(end: End) -> Block:
        if not leaving(end.path_handle):
            return Block(type=end.ip_type)
        return Block(type=types_of_path(end)[_DELEGATED], delegated=PathDelegated(), offload_handle=end.path_handle)

    if not any(leaving(end.path_handle) for end in ends):
        tree = row(returned_connection(end) for end in ends)
        assert tree is not None
        return tree
    return grouped(ends, neighbor, path, returned_connection)


def returned_connection(end: End) -> Block:
    """A connection's block in a terminate."""
    return Block(type=Type.TCP_DELEGATED, delegated=empty_delegated(), offload_handle=end.handle)


def types_of_path(end: End) -> tuple[Type, Type, Type, Type]:
    return IP4_TYPES if len(end.flow.local_address) == 4 else IP6_TYPES


def tcp_reference(end: End, what: str | None) -> Block:
    """A reference to the connection with structures for a query: "const", "cached", "delegated", "all", None: none."""
    block = Block(type=_type(TCP_TYPES, what), offload_handle=end.handle)
    if what in ("const", "all"):
        block.const = empty_tcp_const()
    if what in ("cached", "all"):
        block.cached = empty_tcp_cached()
    if what in ("delegated", "all"):
        block.delegated = empty_delegated()
    return block


def path_reference(end: End, what: str | None) -> Block:
    """The same for its path."""
    block = Block(type=_type(types_of_path(end), what), offload_handle=end.path_handle)
    if what in ("const", "all"):
        block.const = empty_path_const(end)
    if what in ("cached", "all"):
        block.cached = PathCached(0)
    if what in ("delegated", "all"):
        block.delegated = PathDelegated()
    return block


def neighbor_reference(end: End, what: str | None) -> Block:
    """The same for its neighbor."""
    block = Block(type=_type(NEIGHBOR_TYPES, what), offload_handle=end.neighbor_handle)
    if what in ("const", "all"):
        block.const = NeighborConst()
    if what in ("cached", "all"):
        block.cached = NeighborCached(bytes(6))
    if what in ("delegated", "all"):
        block.delegated = NeighborDelegated()
    return block


def _type(types: tuple[Type, Type, Type, Type], what: str | None) -> Type:
    return types[CLASSES.index(what)] if what in CLASSES else types[_ALL]
