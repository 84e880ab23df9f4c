"""Connection tracking, told not to judge a flow by its sequence numbers.

A firewall that drops `ct state invalid` would drop a connection that comes back with sequence numbers which the tracker
has not seen. Source: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_tcp.h (IP_CT_TCP_FLAG_BE_LIBERAL).
"""

from __future__ import annotations

import errno
import socket
import struct

from chimney.host.linux import netlink
from chimney.host.linux.dump import Endpoint

_CT_NEW = 1 << 8
_TUPLE_ORIG, _PROTOINFO = 1, 4
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_PROTOINFO_TCP = 1
_FLAGS_ORIGINAL, _FLAGS_REPLY = 4, 5
_BE_LIBERAL = 8
# The kernel knows no such flow, or tracks none at all.
_NOT_TRACKED = {errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ECONNREFUSED}


def make_liberal(local: Endpoint, remote: Endpoint) -> bool:
    """Let the tracker accept any sequence number of this connection, both ways; False if it is not tracked.

    Raises OSError, PermissionError without CAP_NET_ADMIN.
    """
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    source, destination = (1, 2) if family == socket.AF_INET else (3, 4)
    flags = struct.pack("BB", _BE_LIBERAL, _BE_LIBERAL)
    body = (
        struct.pack("!BBH", family, 0, 0)
        + netlink.nested(
            _TUPLE_ORIG,
            netlink.nested(
                _TUPLE_IP,
                netlink.attribute(source, local.address),
                netlink.attribute(destination, remote.address),
            ),
            netlink.nested(
                _TUPLE_PROTO,
                netlink.attribute(_PROTO_NUM, bytes([socket.IPPROTO_TCP])),
                netlink.attribute(_PROTO_SRC_PORT, struct.pack("!H", local.port)),
                netlink.attribute(_PROTO_DST_PORT, struct.pack("!H", remote.port)),
            ),
        )
        + netlink.nested(
            _PROTOINFO,
            netlink.nested(
                _PROTOINFO_TCP,
                netlink.attribute(_FLAGS_ORIGINAL, flags),
                netlink.attribute(_FLAGS_REPLY, flags),
            ),
        )
    )
    try:
        netlink.request(netlink.NETLINK_NETFILTER, _CT_NEW, body)
    except OSError as error:
        if error.errno in _NOT_TRACKED:
            return False
        raise
    return True
