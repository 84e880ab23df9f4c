"""Which frames are for a connection, by the neighbor that it is offloaded over (16.3, tcp.rx-mac)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.state import NeighborConst
from chimney.verifier.packets import NO_VLAN, Packet

if TYPE_CHECKING:
    from chimney.verifier.books import ObjectBook

_VLAN_ID = 0x0FFF
_GROUP_BIT = 1


def neighbor_of(book: ObjectBook | None) -> ObjectBook | None:
    """The neighbor object that a connection's frames come from."""
    path = None if book is None else book.parent
    return None if path is None else path.parent


def foreign_address(packet: Packet, neighbor: ObjectBook | None) -> bool:
    """Whether the frame is addressed to nobody here: no group that may have been joined, not the connection's MAC."""
    const = None if neighbor is None else neighbor.const
    if not isinstance(const, NeighborConst):
        return False
    own = const.dl_source_address if any(const.dl_source_address) else packet.interface
    group = packet.destination_mac[:1] and packet.destination_mac[0] & _GROUP_BIT
    return bool(own) and packet.destination_mac != own and (not group or packet.destination_mac == b"\xff" * 6)


def foreign_vlan(packet: Packet, neighbor: ObjectBook | None) -> bool:
    """Whether the frame is of another VLAN than the neighbor's, which has one."""
    const = None if neighbor is None else neighbor.const
    if not isinstance(const, NeighborConst) or not const.vlan_id:
        return False
    return packet.vlan == NO_VLAN or packet.vlan & _VLAN_ID != const.vlan_id
