"""The network devices of this host: on which of them packets for it may arrive.

Sources: rtnetlink(7), netdevice(7); linux/if_link.h.
"""

from __future__ import annotations

import struct

from chimney.host.linux import netlink

_GETLINK = 18
_LINK = struct.Struct("=BxHiII")
_IFF_UP, _IFF_LOOPBACK = 1, 8
_IFLA_MASTER = 10


def arrivals() -> list[int]:
    """The indices of the devices that are up, of any kind; not the loopback device, and none that is part of another
    one (of a bridge, a bond): there, packets arrive on that. Raises OSError.
    """
    found = []
    for answer in netlink.request(netlink.NETLINK_ROUTE, _GETLINK, _LINK.pack(0, 0, 0, 0, 0), dump=True):
        _, _, index, flags, _ = _LINK.unpack_from(answer)
        is_part = _IFLA_MASTER in netlink.attributes(answer[_LINK.size :])
        if flags & _IFF_UP and not flags & _IFF_LOOPBACK and not is_part:
            found.append(index)
    return found
