"""What is known of a target beyond what it reports: how much room it has, and what it is short of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chimney.ndis.crossing import BlockView
from chimney.ndis.state import NeighborConst, PathCached, PathConst, TcpCached
from chimney.ndis.status import Status
from chimney.verifier.books import BoundaryBook, Layer, ObjectBook

_NO_MAC = bytes(6)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one target; None: not known. ``announced``: somebody has told of them.

    ``mac`` is its interface's own address, ``interface_vlans`` the VLANs that it is a member of (empty: none are
    configured), ``path_mtu`` and ``initial_rcv_wnd`` the largest that it takes, in bytes. ``short_of`` are the codes of
    what has run short; ``no_copies``: there is no memory for BufferedData; ``no_segments``: none for segments that
    arrive.
    """

    neighbors: int | None = None
    paths: int | None = None
    connections: int | None = None
    ip_addresses: int | None = None
    hw_addresses: int | None = None
    vlans: int | None = None
    interface_vlans: frozenset[int] | None = None
    mac: bytes | None = None
    initial_rcv_wnd: int | None = None
    path_mtu: int | None = None
    short_of: frozenset[Status] = frozenset()
    no_copies: bool = False
    no_segments: bool = False
    announced: bool = True

    def standing_in_the_way(self, book: BoundaryBook, block: BlockView, item: ObjectBook) -> set[Status]:
        """The codes that an initiate of this object may fail with, by what is offloaded besides it."""
        found = set(self.short_of & CODES[item.layer])
        others = [other for other in book.offloaded(item.layer) if other is not item]
        const, cached = block.const, block.cached
        if item.layer is Layer.NEIGHBOR and isinstance(const, NeighborConst):
            if _full(self.neighbors, len(others)):
                found.add(Status.OFFLOAD_NEIGHBOR_ENTRIES)
            if self.needs_mac(const) and self._exhausted(self.hw_addresses, others, self._mac_of, const):
                found.add(Status.OFFLOAD_HW_ADDRESS_ENTRIES)
            if const.vlan_id and self._exhausted(self.vlans, others, _vlan_of, const):
                found.add(Status.OFFLOAD_VLAN_ENTRIES)
            if const.vlan_id and self.interface_vlans and const.vlan_id not in self.interface_vlans:
                found.add(Status.OFFLOAD_VLAN_MISMATCH)
        elif item.layer is Layer.PATH and isinstance(const, PathConst):
            if _full(self.paths, len(others)):
                found.add(Status.OFFLOAD_PATH_ENTRIES)
            if self._exhausted(self.ip_addresses, others, _address_of, const):
                found.add(Status.OFFLOAD_IP_ADDRESS_ENTRIES)
            if isinstance(cached, PathCached) and self.path_mtu is not None and cached.path_mtu > self.path_mtu:
                found.add(Status.OFFLOAD_PATH_MTU)
        elif isinstance(cached, TcpCached):
            if _full(self.connections, len(others)):
                found.add(Status.OFFLOAD_TCP_ENTRIES)
            if self.initial_rcv_wnd is not None and cached.initial_rcv_wnd > self.initial_rcv_wnd:
                found.add(Status.OFFLOAD_TCP_RCV_WINDOW)
        return found

    def knows(self, code: Status) -> bool:
        """Whether it is known when this code is right."""
        name = _FIELDS.get(code)
        return name is not None and getattr(self, name) is not None

    def needs_mac(self, const: NeighborConst) -> bool:
        """Whether this neighbor asks for a source MAC address that is not the interface's own."""
        return self.mac is not None and const.dl_source_address not in (b"", _NO_MAC, self.mac)

    def _mac_of(self, const: object) -> object:
        return const.dl_source_address if isinstance(const, NeighborConst) and self.needs_mac(const) else None

    def _exhausted(
        self, limit: int | None, others: list[ObjectBook], value: Callable[[object], object], const: object
    ) -> bool:
        if limit is None:
            return False
        used = {value(other.const) for other in others} - {None}
        return value(const) not in used and len(used) >= limit


def _full(limit: int | None, used: int) -> bool:
    return limit is not None and used >= limit


def _vlan_of(const: object) -> object:
    return const.vlan_id or None if isinstance(const, NeighborConst) else None


def _address_of(const: object) -> object:
    return const.source_address if isinstance(const, PathConst) else None


_FIELDS = {
    Status.OFFLOAD_NEIGHBOR_ENTRIES: "neighbors",
    Status.OFFLOAD_PATH_ENTRIES: "paths",
    Status.OFFLOAD_TCP_ENTRIES: "connections",
    Status.OFFLOAD_IP_ADDRESS_ENTRIES: "ip_addresses",
    Status.OFFLOAD_VLAN_ENTRIES: "vlans",
    Status.OFFLOAD_TCP_RCV_WINDOW: "initial_rcv_wnd",
}
CODES = {
    Layer.NEIGHBOR: frozenset(
        {
            Status.RESOURCES,
            Status.OFFLOAD_NEIGHBOR_ENTRIES,
            Status.OFFLOAD_HW_ADDRESS_ENTRIES,
            Status.OFFLOAD_VLAN_ENTRIES,
            Status.OFFLOAD_VLAN_MISMATCH,
        }
    ),
    Layer.PATH: frozenset(
        {
            Status.RESOURCES,
            Status.OFFLOAD_PATH_ENTRIES,
            Status.OFFLOAD_IP_ADDRESS_ENTRIES,
            Status.OFFLOAD_PATH_MTU,
        }
    ),
    Layer.TCP: frozenset(
        {
            Status.RESOURCES,
            Status.OFFLOAD_TCP_ENTRIES,
            Status.OFFLOAD_TCP_XMIT_BUFFER,
            Status.OFFLOAD_TCP_RCV_BUFFER,
            Status.OFFLOAD_TCP_RCV_WINDOW,
            Status.OFFLOAD_PATH_MTU,
            Status.OFFLOAD_CONNECTION_REJECTED,
        }
    ),
}
"""The codes with a meaning, beside FAILURE, that an object of each layer may fail with."""
