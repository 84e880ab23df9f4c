"""The host's records of offloaded state objects, and the block trees made from them.

Connections over one adapter share their path and neighbor objects: the first one offloads them, later ones name them by
linkers, and the last one takes them back in the same tree (terminate.host.refcount).
"""

from __future__ import annotations

from typing import Any

from chimney.ndis.buffers import NetBufferList
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
    walk,
)
from chimney.ndis.status import OffloadStateType, Status

_RETURNED = {
    OffloadStateType.IP4: OffloadStateType.IP4_DELEGATED,
    OffloadStateType.IP6: OffloadStateType.IP6_DELEGATED,
}
_OFFLOADED = frozenset({Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS})


class NeighborRecord:
    """One next hop. ``offloaded``: a target has it; ``users``: offloaded paths that depend on it."""

    def __init__(self, const: NeighborConst, cached: NeighborCached) -> None:
        self.handle = OffloadHandle(self)
        self.const = const
        self.cached = cached
        self.offloaded = False
        self.users = 0


class PathRecord:
    """One pair of addresses with a path MTU, over a neighbor. ``offloaded``: a target has it; ``users``: offloaded
    connections that depend on it.
    """

    def __init__(self, neighbor: NeighborRecord, const: PathConst, cached: PathCached) -> None:
        self.handle = OffloadHandle(self)
        self.neighbor = neighbor
        self.const = const
        self.cached = cached
        self.offloaded = False
        self.users = 0

    @property
    def type(self) -> OffloadStateType:
        """Which IP version the path speaks."""
        return OffloadStateType.IP4 if len(self.const.source_address) == 4 else OffloadStateType.IP6


class TcpRecord:
    """One offloaded connection (the host's TCB); ``owner`` takes its completions, events and indications."""

    def __init__(self, owner: Any, path: PathRecord) -> None:
        self.handle = OffloadHandle(self)
        self.owner = owner
        self.path = path


class ObjectTable:
    """Neighbor and path records of one adapter, found by what makes them distinct."""

    def __init__(self) -> None:
        self._neighbors: dict[tuple[bytes, bytes, int], NeighborRecord] = {}
        self._paths: dict[tuple[bytes, bytes, int, bytes], PathRecord] = {}

    def path(
        self, neighbor_const: NeighborConst, neighbor_mac: bytes, path_const: PathConst, path_mtu: int
    ) -> PathRecord:
        """The record for these values, made if there is none."""
        neighbor_key = (neighbor_const.dl_source_address, neighbor_mac, neighbor_const.vlan_id)
        neighbor = self._neighbors.get(neighbor_key)
        if neighbor is None:
            neighbor = NeighborRecord(neighbor_const, NeighborCached(neighbor_mac))
            self._neighbors[neighbor_key] = neighbor
        path_key = (path_const.source_address, path_const.destination_address, path_mtu, neighbor_mac)
        path = self._paths.get(path_key)
        if path is None:
            path = PathRecord(neighbor, path_const, PathCached(path_mtu))
            self._paths[path_key] = path
        return path

    def forget_unused(self) -> None:
        """Drop the records of what no target has."""
        self._paths = {k: p for k, p in self._paths.items() if p.offloaded}
        self._neighbors = {k: n for k, n in self._neighbors.items() if n.offloaded}


def initiate_tree(
    record: TcpRecord, const: TcpConst, cached: TcpCached, delegated: TcpDelegated, chain: NetBufferList | None
) -> ProtocolOffloadBlockList:
    """The tree that offloads ``record``: new nodes for what the target does not have yet, linkers for what it has."""
    path = record.path
    tcp_block = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP,
        const=const,
        cached=cached,
        delegated=delegated,
        net_buffer_list_chain=chain,
        offload_handle=record.handle,
    )
    path_block = ProtocolOffloadBlockList(type=path.type, offload_handle=path.handle, dependent_block_list=tcp_block)
    if not path.offloaded:
        path_block.const, path_block.cached, path_block.delegated = path.const, path.cached, PathDelegated()
    neighbor_block = ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR, offload_handle=path.neighbor.handle, dependent_block_list=path_block
    )
    if not path.neighbor.offloaded:
        neighbor_block.const = path.neighbor.const
        neighbor_block.cached = path.neighbor.cached
        neighbor_block.delegated = NeighborDelegated(path.neighbor.cached.host_reachability_delta)
    return neighbor_block


def tcp_block_of(tree: ProtocolOffloadBlockList) -> ProtocolOffloadBlockList:
    """The one TCP block of a tree that `initiate_tree` or `terminate_tree` made."""
    block = tree
    while block.dependent_block_list is not None:
        block = block.dependent_block_list
    return block


def note_initiated(record: TcpRecord, tree: ProtocolOffloadBlockList) -> None:
    """What a completed initiate has offloaded: maybe the neighbor, or both it and the path, without the connection."""
    path, path_block = record.path, tree.dependent_block_list
    assert path_block is not None
    if tree.const is not None and tree.status in _OFFLOADED:
        path.neighbor.offloaded = True
    if path_block.const is not None and path_block.status in _OFFLOADED:
        path.offloaded = True
        path.neighbor.users += 1
    if tcp_block_of(tree).status == Status.SUCCESS:
        path.users += 1


def note_terminated(record: TcpRecord, tree: ProtocolOffloadBlockList) -> None:
    """What a terminate that succeeded has brought back."""
    path = record.path
    for block in walk(tree):
        if block.offload_handle is record.handle:
            path.users -= 1
        elif block.offload_handle is path.handle:
            path.offloaded = False
            path.neighbor.users -= 1
        elif block.offload_handle is path.neighbor.handle:
            path.neighbor.offloaded = False


def unused_tree(record: TcpRecord) -> ProtocolOffloadBlockList | None:
    """The tree that takes back what nothing uses after a refused initiate: the path, the neighbor, or both. None if
    there is nothing.
    """
    path = record.path
    tree: ProtocolOffloadBlockList | None = None
    if path.offloaded and not path.users:
        tree = ProtocolOffloadBlockList(
            type=_RETURNED[path.type],
            delegated=PathDelegated(),
            offload_handle=path.handle,
        )
    if path.neighbor.offloaded and path.neighbor.users == (0 if tree is None else 1):
        tree = ProtocolOffloadBlockList(
            type=OffloadStateType.NEIGHBOR_DELEGATED,
            delegated=NeighborDelegated(),
            offload_handle=path.neighbor.handle,
            dependent_block_list=tree,
        )
    return tree


def terminate_tree(record: TcpRecord, delegated: TcpDelegated) -> ProtocolOffloadBlockList:
    """The tree that takes ``record`` back, together with its path and neighbor where it is their last user."""
    path = record.path
    tree = ProtocolOffloadBlockList(
        type=OffloadStateType.TCP_DELEGATED, delegated=delegated, offload_handle=record.handle
    )
    if path.users > 1:
        return tree
    tree = ProtocolOffloadBlockList(
        type=_RETURNED[path.type],
        delegated=PathDelegated(),
        offload_handle=path.handle,
        dependent_block_list=tree,
    )
    if path.neighbor.users > 1:
        return tree
    return ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR_DELEGATED,
        delegated=NeighborDelegated(),
        offload_handle=path.neighbor.handle,
        dependent_block_list=tree,
    )
