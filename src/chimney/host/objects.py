"""The host's records of the state objects that a target has: neighbors, paths, and connections on them (7).

Connections over one adapter share their path, and paths their neighbor. What makes objects the same is what the host
cannot change in them: a neighbor is a next hop seen from one of our hardware addresses, a path is a pair of addresses
over a neighbor. The next hop's hardware address and the path MTU are variables of theirs.
"""

from __future__ import annotations

from typing import Any

from chimney.host.kernel import Plan
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import NeighborCached, NeighborConst, PathCached, PathConst
from chimney.ndis.status import OffloadStateType

NeighborKey = tuple[int, bytes, bytes, int]
PathKey = tuple[bytes, bytes, NeighborKey]


class NeighborRecord:
    """One next hop. ``device_index`` and ``next_hop`` are the kernel's names for it.

    offloaded  a target has it.
    paths      those that a target has, and that depend on it (keys, in their order).
    invalid    the target has been told to send nothing to it; it gets no new paths, and is never updated.
    running    operations of `chimney.host.upkeep` under way on it; ``changing``: those of them that are no queries.
    pinned     initiates and terminates under way that it has a part in.
    """

    def __init__(self, key: NeighborKey, const: NeighborConst, cached: NeighborCached) -> None:
        self.handle = OffloadHandle(self)
        self.key = key
        self.device_index, self.next_hop = key[:2]
        self.const = const
        self.cached = cached
        self.offloaded = False
        self.paths: dict[PathRecord, None] = {}
        self.invalid = False
        self.running = 0
        self.changing = 0
        self.pinned = 0


class PathRecord:
    """One pair of addresses, over a neighbor.

    offloaded  a target has it; ``users``: offloaded connections that depend on it (keys, in their order).
    refused    the target could not take a new value: its connections are taken back, and it gets no new ones.
    running, changing, pinned  as a `NeighborRecord` has them.
    """

    def __init__(self, neighbor: NeighborRecord, const: PathConst, cached: PathCached) -> None:
        self.handle = OffloadHandle(self)
        self.neighbor = neighbor
        self.const = const
        self.cached = cached
        self.offloaded = False
        self.users: dict[TcpRecord, None] = {}
        self.refused = False
        self.running = 0
        self.changing = 0
        self.pinned = 0

    @property
    def type(self) -> OffloadStateType:
        """Which IP version the path speaks."""
        return OffloadStateType.IP4 if len(self.const.source_address) == 4 else OffloadStateType.IP6

    @property
    def key(self) -> PathKey:
        """What makes it distinct, over the neighbor that it has now."""
        return self.const.source_address, self.const.destination_address, self.neighbor.key

    @property
    def usable(self) -> bool:
        """Whether another connection may be offloaded on it."""
        return not self.refused and not self.neighbor.invalid


class TcpRecord:
    """One offloaded connection (the host's TCB); ``owner`` takes its completions, events and indications."""

    def __init__(self, owner: Any, path: PathRecord) -> None:
        self.handle = OffloadHandle(self)
        self.owner = owner
        self.path = path
        self.running = 0
        self.changing = 0
        self.pinned = 0


Record = NeighborRecord | PathRecord | TcpRecord


class ObjectTable:
    """Neighbor and path records of one adapter, found by what makes them distinct.

    What gets no new users is not found any more; it lives on in the records that depend on it.
    """

    def __init__(self) -> None:
        self._neighbors: dict[NeighborKey, NeighborRecord] = {}
        self._paths: dict[PathKey, PathRecord] = {}
        self._own_mac = b""

    def key_of(self, plan: Plan) -> NeighborKey:
        """What makes the neighbor distinct that a plan goes by."""
        return plan.device_index, plan.next_hop, plan.device_mac, plan.neighbor.vlan_id

    def neighbor(self, plan: Plan) -> NeighborRecord:
        """The record of the neighbor that ``plan`` goes by, made if there is none."""
        key = self.key_of(plan)
        found = self._neighbors.get(key)
        if found is None:
            found = NeighborRecord(key, self._const(plan), NeighborCached(plan.neighbor_mac))
            self._neighbors[key] = found
        return found

    def _const(self, plan: Plan) -> NeighborConst:
        """The target uses the interface's hardware address as it was when the adapter was made, unless told another."""
        if not self._own_mac:
            self._own_mac = plan.device_mac
        own = plan.neighbor.dl_source_address
        if plan.device_mac != self._own_mac:
            own = plan.device_mac
        return NeighborConst(own, plan.neighbor.vlan_id)

    def path(self, plan: Plan) -> PathRecord:
        """The record of the path that ``plan`` describes, made if there is none that can be used."""
        neighbor = self.neighbor(plan)
        key = plan.path.source_address, plan.path.destination_address, neighbor.key
        found = self._paths.get(key)
        if found is None or not found.usable:
            found = PathRecord(neighbor, plan.path, PathCached(plan.path_mtu))
            self._paths[key] = found
        return found

    def relinked(self, path: PathRecord, neighbor: NeighborRecord) -> None:
        """The path depends on another neighbor from now on."""
        if self._paths.get(path.key) is path:
            del self._paths[path.key]
        path.neighbor.paths.pop(path, None)
        path.neighbor = neighbor
        neighbor.paths[path] = None
        self._paths.setdefault(path.key, path)

    def invalidated(self, neighbor: NeighborRecord) -> None:
        """The neighbor is not used any more; the next plan that goes by it has a new record."""
        neighbor.invalid = True
        for path in neighbor.paths:
            for connection in path.users:
                connection.owner.held = True
        if self._neighbors.get(neighbor.key) is neighbor:
            del self._neighbors[neighbor.key]

    def forget_unused(self, path: PathRecord | None, neighbor: NeighborRecord) -> None:
        """Drop these records if no target has what they stand for."""
        if path is not None and not path.offloaded and self._paths.get(path.key) is path:
            del self._paths[path.key]
        if not neighbor.offloaded and self._neighbors.get(neighbor.key) is neighbor:
            del self._neighbors[neighbor.key]
