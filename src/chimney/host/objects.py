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
)
from chimney.ndis.status import OffloadStateType, Status

_RETURNED = {
    OffloadStateType.IP4: OffloadStateType.IP4_DELEGATED,
    OffloadStateType.IP6: OffloadStateType.IP6_DELEGATED,
}
_OFFLOADED = frozenset({Status.SUCCESS, Status.OFFLOAD_PARTIAL_SUCCESS})


class NeighborRecord:
    """One next hop. ``users``: paths that depend on it."""

    def __init__(self, const: NeighborConst, cached: NeighborCached) -> None:
        self.handle = OffloadHandle(self)
        self.const = const
        self.cached = cached
        self.users = 0


class PathRecord:
    """One pair of addresses with a path MTU, over a neighbor. ``users``: connections that depend on it."""

    def __init__(self, neighbor: NeighborRecord, const: PathConst, cached: PathCached) -> None:
        self.handle = OffloadHandle(self)
        self.neighbor = neighbor
        self.const = const
        self.cached = cached
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
        """The record for these values, made if there is none; it counts as offloaded once a tree with it succeeded."""
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
        """Drop the records that no offloaded object stands behind."""
        self._paths = {k: p for k, p in self._paths.items() if p.users}
        self._neighbors = {k: n for k, n in self._neighbors.items() if n.users}


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
    if not path.users:
        path_block.const, path_block.cached, path_block.delegated = path.const, path.cached, PathDelegated()
    neighbor_block = ProtocolOffloadBlockList(
        type=OffloadStateType.NEIGHBOR, offload_handle=path.neighbor.handle, dependent_block_list=path_block
    )
    if not path.neighbor.users:
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


def take_reference(record: TcpRecord) -> None:
    """Count an offloaded connection on its path and neighbor."""
    path = record.path
    if not path.users:
        path.neighbor.users += 1
    path.users += 1


def drop_reference(record: TcpRecord) -> None:
    """Count a connection that is back on its path and neighbor no longer."""
    path = record.path
    path.users -= 1
    if not path.users:
        path.neighbor.users -= 1


def unused_tree(initiated: ProtocolOffloadBlockList) -> ProtocolOffloadBlockList | None:
    """The tree that takes back what a refused initiate has offloaded all the same: the neighbor, or both it and the
    path, which nothing uses yet. None if there is nothing.
    """
    tree: ProtocolOffloadBlockList | None = None
    path = initiated.dependent_block_list
    assert path is not None
    if path.const is not None and path.status in _OFFLOADED:
        tree = ProtocolOffloadBlockList(
            type=_RETURNED[path.type],
            delegated=PathDelegated(),
            offload_handle=path.offload_handle,
        )
    if initiated.const is not None and initiated.status in _OFFLOADED:
        tree = ProtocolOffloadBlockList(
            type=OffloadStateType.NEIGHBOR_DELEGATED,
            delegated=NeighborDelegated(),
            offload_handle=initiated.offload_handle,
            dependent_block_list=tree,
        )
    return tree


def terminate_tree(record: TcpRecord, delegated: TcpDelegated) -> ProtocolOffloadBlockList:
    """The tree that takes ``record`` back, together with its path and neighbor where it is their last user;
    `drop_reference` when that has succeeded.
    """
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
