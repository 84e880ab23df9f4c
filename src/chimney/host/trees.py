"""Block trees made from the host's records, and what their completions say about these (5, 9)."""

from __future__ import annotations

from chimney.host.objects import NeighborRecord, PathRecord, Record, TcpRecord
from chimney.ndis.buffers import NetBufferList
from chimney.ndis.state import (
    NeighborCached,
    NeighborDelegated,
    PathCached,
    PathDelegated,
    ProtocolOffloadBlockList,
    TcpCached,
    TcpConst,
    TcpDelegated,
    walk,
)
from chimney.ndis.status import OffloadStateType, Status

_CACHED = {
    OffloadStateType.NEIGHBOR: OffloadStateType.NEIGHBOR_CACHED,
    OffloadStateType.IP4: OffloadStateType.IP4_CACHED,
    OffloadStateType.IP6: OffloadStateType.IP6_CACHED,
    OffloadStateType.TCP: OffloadStateType.TCP_CACHED,
}
_RETURNED = {
    OffloadStateType.IP4: OffloadStateType.IP4_DELEGATED,
    OffloadStateType.IP6: OffloadStateType.IP6_DELEGATED,
}
_OFFLOADED = frozenset({Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS})


# Initiate


def neighbor_tree(neighbor: NeighborRecord) -> ProtocolOffloadBlockList:
    """A neighbor's block of an initiate: new state, or a linker if the target has it."""
    block = ProtocolOffloadBlockList(type=OffloadStateType.NEIGHBOR, offload_handle=neighbor.handle)
    if not neighbor.offloaded:
        block.const, block.cached = neighbor.const, neighbor.cached
        block.delegated = NeighborDelegated(neighbor.cached.host_reachability_delta)
    return block


def initiate_tree(
    record: TcpRecord, const: TcpConst, cached: TcpCached, delegated: TcpDelegated, chain: NetBufferList | None
) -> ProtocolOffloadBlockList:
    """The tree that offloads ``record``: new nodes for what the target does not have yet, linkers for what it has."""
    path = record.path
    path_block = ProtocolOffloadBlockList(type=path.type, offload_handle=path.handle)
    if not path.offloaded:
        path_block.const, path_block.cached, path_block.delegated = path.const, path.cached, PathDelegated()
    path_block.dependent_block_list = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP,
        const=const,
        cached=cached,
        delegated=delegated,
        net_buffer_list_chain=chain,
        offload_handle=record.handle,
    )
    tree = neighbor_tree(path.neighbor)
    tree.dependent_block_list = path_block
    return tree


def tcp_block_of(tree: ProtocolOffloadBlockList) -> ProtocolOffloadBlockList:
    """The one TCP block of a tree that `initiate_tree` or `terminate_tree` made."""
    block = tree
    while block.dependent_block_list is not None:
        block = block.dependent_block_list
    return block


def is_offloaded(block: ProtocolOffloadBlockList) -> bool:
    """Whether a completed initiate has offloaded the new object of this block."""
    return block.const is not None and block.status in _OFFLOADED


def note_initiated(record: TcpRecord, tree: ProtocolOffloadBlockList) -> None:
    """What a completed initiate has offloaded: maybe the neighbor, or both it and the path, without the connection."""
    path, path_block = record.path, tree.dependent_block_list
    assert path_block is not None
    if is_offloaded(tree):
        path.neighbor.offloaded = True
    if is_offloaded(path_block):
        path.offloaded = True
        path.neighbor.paths[path] = None
    if tcp_block_of(tree).status == Status.SUCCESS:
        path.users[record] = None


# Terminate


def note_terminated(record: TcpRecord, tree: ProtocolOffloadBlockList) -> None:
    """What a terminate that succeeded has brought back."""
    path = record.path
    for block in walk(tree):
        if block.offload_handle is record.handle:
            path.users.pop(record, None)
        elif block.offload_handle is path.handle:
            path.offloaded = False
            path.neighbor.paths.pop(path, None)
        elif block.offload_handle is path.neighbor.handle:
            path.neighbor.offloaded = False


def unused_tree(record: TcpRecord) -> ProtocolOffloadBlockList | None:
    """The tree that takes back what nothing uses after a refused initiate: the path, the neighbor, or both. None if
    there is nothing.
    """
    path = record.path
    tree: ProtocolOffloadBlockList | None = None
    if path.offloaded and not path.users:
        tree = _path_back(path, None)
    if path.neighbor.offloaded and len(path.neighbor.paths) == (0 if tree is None else 1):
        tree = neighbor_back(path.neighbor, tree)
    return tree


def terminate_tree(record: TcpRecord, delegated: TcpDelegated) -> ProtocolOffloadBlockList:
    """The tree that takes ``record`` back, together with its path and neighbor where it is their last user."""
    path = record.path
    tree = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP_DELEGATED, delegated=delegated, offload_handle=record.handle
    )
    if len(path.users) > 1:
        return tree
    tree = _path_back(path, tree)
    return tree if len(path.neighbor.paths) > 1 else neighbor_back(path.neighbor, tree)


def _path_back(path: PathRecord, dependent: ProtocolOffloadBlockList | None) -> ProtocolOffloadBlockList:
    return ProtocolOffloadBlockList(
        type=_RETURNED[path.type],
        delegated=PathDelegated(),
        offload_handle=path.handle,
        dependent_block_list=dependent,
    )


def neighbor_back(
    neighbor: NeighborRecord, dependent: ProtocolOffloadBlockList | None = None
) -> ProtocolOffloadBlockList:
    """A neighbor's block of a terminate."""
    return ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR_DELEGATED,
        delegated=NeighborDelegated(),
        offload_handle=neighbor.handle,
        dependent_block_list=dependent,
    )


# Query, update, invalidate


def reference(record: Record) -> ProtocolOffloadBlockList:
    """A block that names an object and carries no state."""
    if isinstance(record, NeighborRecord):
        kind = OffloadStateType.NEIGHBOR
    else:
        kind = record.type if isinstance(record, PathRecord) else OffloadStateType.TCP
    return ProtocolOffloadBlockList(type=kind, offload_handle=record.handle)


def update_block(record: Record, cached: NeighborCached | PathCached | TcpCached) -> ProtocolOffloadBlockList:
    """The block of an update: the object, and the values that its cached variables have from now on."""
    block = reference(record)
    block.type = _CACHED[block.type]
    block.cached = cached
    return block


def relink_tree(neighbor: NeighborRecord, paths: list[PathRecord]) -> ProtocolOffloadBlockList:
    """The tree that moves paths to another neighbor (9.5)."""
    tree = reference(neighbor)
    row: ProtocolOffloadBlockList | None = None
    for path in reversed(paths):
        block = reference(path)
        block.next_block, row = row, block
    tree.dependent_block_list = row
    return tree


def query_block(neighbor: NeighborRecord) -> ProtocolOffloadBlockList:
    """The block of a query for a neighbor's delegated state."""
    return neighbor_back(neighbor)
