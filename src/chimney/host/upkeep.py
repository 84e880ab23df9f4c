"""Upkeep of offloaded objects: query, update, relink, invalidate, and neighbors that come and go alone (9.4 to 9.7).

Everything here is asynchronous: a call starts an operation, its completion is told later. While one runs on an object,
no terminate that includes it may start, nor a second change (9.1); `is_busy` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from chimney.host.objects import NeighborRecord, ObjectTable, PathRecord, Record, TcpRecord
from chimney.host.trees import (
    is_offloaded,
    neighbor_back,
    neighbor_tree,
    query_block,
    reference,
    relink_tree,
    update_block,
)
from chimney.ndis.state import (
    NeighborCached,
    NeighborDelegated,
    PathCached,
    ProtocolOffloadBlockList,
    TcpCached,
    TcpDelegated,
)
from chimney.ndis.status import OffloadStateType, Status

if TYPE_CHECKING:
    from chimney.ndis.library import Binding

Done = Callable[[bool], None]


def is_busy(*records: Record) -> bool:
    """Whether a change, an initiate or a terminate is under way on one of these objects. Queries do not count."""
    return any(record.changing or record.pinned for record in records)


def may_query(record: Record) -> bool:
    """Whether a query of the object may be started: not while an initiate or a terminate is under way."""
    return not record.pinned


class _Operation:
    """One operation under way: which objects it keeps busy, and what happens when it has completed."""

    def __init__(
        self, records: Sequence[Record], completed: Callable[[ProtocolOffloadBlockList], None], changes: int = 1
    ) -> None:
        self._records = records
        self._completed = completed
        self._changes = changes
        for record in records:
            record.running += 1
            record.changing += changes

    def complete(self, tree: ProtocolOffloadBlockList) -> None:
        """The edge's call."""
        for record in self._records:
            record.running -= 1
            record.changing -= self._changes
        self._completed(tree)

    initiate_complete = update_complete = invalidate_complete = query_complete = terminate_complete = complete


class Upkeep:
    """What the host does to one adapter's offloaded objects besides handing connections over.

    binding  the host's edge's. ``changed`` is called when an operation has completed that has changed something.

    A caller makes sure that no object is busy, and that those it updates are offloaded and not invalid; what the edge's
    table knows is kept up to date here.
    """

    def __init__(self, binding: Callable[[], Binding], objects: ObjectTable) -> None:
        self._binding = binding
        self._objects = objects
        self.changed: Callable[[], None] = _nothing
        # Neighbors that were offloaded by themselves, or that paths have been moved away from.
        self._alone: dict[NeighborRecord, None] = {}

    def update_neighbor(self, neighbor: NeighborRecord, mac: bytes, done: Done) -> None:
        """The next hop has another hardware address. ``done`` is told whether the target has taken it."""
        self._update(neighbor, NeighborCached(mac), done)

    def update_path(self, path: PathRecord, mtu: int, done: Done) -> None:
        """The path has another MTU, in bytes. ``done`` is told whether the target has taken it."""
        self._update(path, PathCached(mtu), done)

    def update_connection(self, connection: TcpRecord, cached: TcpCached, done: Done) -> None:
        """The connection's cached variables have other values. ``done`` is told whether the target has taken them."""
        self._update(connection, cached, done)

    def _update(self, record: Record, cached: NeighborCached | PathCached | TcpCached, done: Done) -> None:
        def completed(tree: ProtocolOffloadBlockList) -> None:
            taken = tree.status == Status.SUCCESS
            if taken and isinstance(record, NeighborRecord) and isinstance(cached, NeighborCached):
                record.cached = cached
            elif taken and isinstance(record, PathRecord) and isinstance(cached, PathCached):
                record.cached = cached
            done(taken)
            self.changed()

        block = update_block(record, cached)
        block.protocol_reserved = _Operation([record], completed)
        self._binding().update_offload(block)

    def offload_neighbor(self, neighbor: NeighborRecord, done: Done) -> None:
        """Give the target a neighbor that paths are to be moved to. ``done`` is told whether it has taken it."""

        def completed(tree: ProtocolOffloadBlockList) -> None:
            neighbor.offloaded = is_offloaded(tree)
            if neighbor.offloaded:
                self._alone[neighbor] = None
            self._objects.forget_unused(None, neighbor)
            done(neighbor.offloaded)
            self.changed()

        tree = neighbor_tree(neighbor)
        tree.protocol_reserved = _Operation([neighbor], completed)
        self._binding().initiate_offload(tree)

    def relink(self, paths: list[PathRecord], neighbor: NeighborRecord, done: Done) -> None:
        """Move paths to another neighbor. ``done`` is told whether the target has moved them all."""

        def completed(tree: ProtocolOffloadBlockList) -> None:
            block = tree.dependent_block_list
            for path in paths:
                assert block is not None
                if block.status == Status.SUCCESS:
                    self._alone[path.neighbor] = None
                    self._objects.relinked(path, neighbor)
                block = block.next_block
            done(all(path.neighbor is neighbor for path in paths))
            self.changed()

        tree = relink_tree(neighbor, paths)
        others = list(dict.fromkeys(path.neighbor for path in paths))
        tree.protocol_reserved = _Operation([neighbor, *others, *paths], completed)
        self._binding().update_offload(tree)

    def invalidate(self, neighbor: NeighborRecord) -> None:
        """Nothing is sent to this neighbor any more, from now on (9.7)."""
        self._objects.invalidated(neighbor)
        tree = reference(neighbor)
        tree.protocol_reserved = _Operation([neighbor], lambda tree: self.changed())
        self._binding().invalidate_offload(tree)

    def take_back_unused(self, wanted: Container[NeighborRecord] = ()) -> bool:
        """Terminate the neighbors that nothing depends on, unless they are ``wanted``; returns whether some are still
        to come back.
        """
        for neighbor in list(self._alone):
            if neighbor.paths or not neighbor.offloaded:
                del self._alone[neighbor]
            elif neighbor not in wanted and not (neighbor.running or neighbor.pinned):
                self._take_back(neighbor)
        return bool(self._alone)

    def _take_back(self, neighbor: NeighborRecord) -> None:
        def completed(tree: ProtocolOffloadBlockList) -> None:
            # It is tried again later if a driver had no memory for it.
            if tree.status == Status.SUCCESS:
                neighbor.offloaded = False
                self._objects.forget_unused(None, neighbor)
                self.changed()

        tree = neighbor_back(neighbor)
        tree.protocol_reserved = _Operation([neighbor], completed)
        self._binding().terminate_offload(tree)

    def query_reachability(self, neighbor: NeighborRecord, told: Callable[[int], None]) -> None:
        """Ask when the target last had proof that the neighbor works: ``told`` gets NRD, in ticks; not called if the
        target does not know.
        """

        def completed(tree: ProtocolOffloadBlockList) -> None:
            if tree.status == Status.SUCCESS and isinstance(tree.delegated, NeighborDelegated):
                told(tree.delegated.nic_reachability_delta)
            if neighbor in self._alone:
                # It may have kept the neighbor from being taken back.
                self.changed()

        block = query_block(neighbor)
        block.protocol_reserved = _Operation([neighbor], completed, changes=0)
        self._binding().query_offload_state(block)

    def query_connection(
        self, connection: TcpRecord, blank: TcpDelegated, told: Callable[[TcpDelegated | None], None]
    ) -> None:
        """Have the connection's delegated state written into ``blank``, which ``told`` then gets; None if the target
        does not know.
        """

        def completed(tree: ProtocolOffloadBlockList) -> None:
            told(blank if tree.status == Status.SUCCESS else None)

        block = ProtocolOffloadBlockList(
            type=OffloadStateType.TCP_DELEGATED, delegated=blank, offload_handle=connection.handle
        )
        block.protocol_reserved = _Operation([connection], completed, changes=0)
        self._binding().query_offload_state(block)


def _nothing() -> None:
    """Nobody wants to know."""
