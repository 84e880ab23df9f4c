"""Connection tracking: what it knows about a connection, and what it has to be told about one that is offloaded.

The tracker sees what the peer sends, and nothing of what the target sends (packet sockets are below netfilter). Told to
be liberal, it does not judge the flow by sequence numbers: a firewall that drops `ct state invalid` would drop a
connection that comes back with numbers that the tracker has not seen.

Source: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from chimney.host.linux import netlink
from chimney.host.linux.dump import Endpoint

_CT_NEW, _CT_GET = 1 << 8, 1 << 8 | 1
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _HELP, _TIMEOUT = 1, 2, 3, 4, 5, 7
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_PROTOINFO_TCP = 1
_STATE, _FLAGS_ORIGINAL, _FLAGS_REPLY = 1, 4, 5
_HELP_NAME = 1
_BE_LIBERAL, _DATA_UNACKNOWLEDGED, _MAXACK_SET = 0x08, 0x10, 0x20
_ESTABLISHED = 3
_SEQUENCE_ADJUSTED = 1 << 6
# The kernel knows no such flow, or tracks none at all.
_NOT_TRACKED = {errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ECONNREFUSED}
_SETTINGS = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_"
_ESTABLISHED_SECONDS, _UNACKNOWLEDGED_SECONDS = 432_000, 300


@dataclass(frozen=True, slots=True)
class Entry:
    """What the tracker knows of one connection.

    ``wire_local`` and ``wire_remote`` are its two ends as its packets show them to the network. ``helper`` is the
    protocol helper that reads its stream ("" for none); ``sequence_adjusted``: its packets have other sequence numbers
    than its socket.
    """

    wire_local: Endpoint
    wire_remote: Endpoint
    established: bool
    helper: str
    sequence_adjusted: bool


def lookup(local: Endpoint, remote: Endpoint) -> Entry | None:
    """What the tracker knows of the connection of a socket; None if it is not tracked. Raises OSError."""
    try:
        answer = netlink.request(netlink.NETLINK_NETFILTER, _CT_GET, whose(local, remote))[0]
    except OSError as error:
        if error.errno in _NOT_TRACKED:
            return None
        raise
    found = netlink.attributes(answer[4:])
    original, reply = _tuple(found[_TUPLE_ORIG]), _tuple(found[_TUPLE_REPLY])
    # One of the two is as the socket sees it; the other one tells what its packets look like outside.
    source, destination = (reply[1], reply[0]) if original == (local, remote) else (original[1], original[0])
    tcp = netlink.attributes(netlink.attributes(found.get(_PROTOINFO, b"")).get(_PROTOINFO_TCP, b""))
    helper = netlink.attributes(found.get(_HELP, b"")).get(_HELP_NAME, b"")
    return Entry(
        wire_local=source,
        wire_remote=destination,
        established=tcp.get(_STATE, b"\0")[0] == _ESTABLISHED,
        helper=helper.rstrip(b"\0").decode(errors="replace"),
        sequence_adjusted=bool(struct.unpack("!I", found.get(_STATUS, bytes(4)))[0] & _SEQUENCE_ADJUSTED),
    )


def make_liberal(local: Endpoint, remote: Endpoint) -> bool:
    """Let the tracker accept any sequence number of this connection, both ways; False if it is not tracked.

    Raises OSError, PermissionError without CAP_NET_ADMIN.
    """
    return _change(whose(local, remote) + _flags(_BE_LIBERAL, _BE_LIBERAL))


def forget_acknowledgements(local: Endpoint, remote: Endpoint) -> bool:
    """The connection is about to come back: what the tracker has seen acknowledged is old by now. It would call an RST
    invalid whose sequence number seems to be below it, which two gigabytes later it does.

    False if it is not tracked, or cannot be told.
    """
    try:
        return _change(whose(local, remote) + _flags(_BE_LIBERAL, _BE_LIBERAL | _DATA_UNACKNOWLEDGED | _MAXACK_SET))
    except OSError:
        return False


def keep(local: Endpoint, remote: Endpoint) -> bool:
    """Let an established connection stay in the tracker as long as one whose acknowledgements it sees; False if it does
    not know it. Raises OSError.
    """
    entry = lookup(local, remote)
    if entry is None:
        return False
    if not entry.established:
        # One that is closing is to be forgotten soon, as any other.
        return True
    timeout = netlink.attribute(_TIMEOUT, struct.pack("!I", _setting("established", _ESTABLISHED_SECONDS)))
    return _change(whose(local, remote) + timeout + _flags(_BE_LIBERAL, _BE_LIBERAL))


def forgets_after() -> int:
    """Seconds after which the tracker forgets an established connection, if it has not seen the last data acknowledged.
    """
    return min(
        _setting("unacknowledged", _UNACKNOWLEDGED_SECONDS),
        _setting("max_retrans", _UNACKNOWLEDGED_SECONDS),
        _setting("established", _ESTABLISHED_SECONDS),
    )


def _setting(name: str, default: int) -> int:
    try:
        with open(_SETTINGS + name) as setting:
            return int(setting.read())
    except (OSError, ValueError):
        return default


def _flags(value: int, mask: int) -> bytes:
    flags = struct.pack("BB", value, mask)
    return netlink.nested(
        _PROTOINFO,
        netlink.nested(
            _PROTOINFO_TCP,
            netlink.attribute(_FLAGS_ORIGINAL, flags),
            netlink.attribute(_FLAGS_REPLY, flags),
        ),
    )


def _change(body: bytes) -> bool:
    try:
        netlink.request(netlink.NETLINK_NETFILTER, _CT_NEW, body)
    except OSError as error:
        if error.errno in _NOT_TRACKED:
            return False
        raise
    return True


def whose(local: Endpoint, remote: Endpoint) -> bytes:
    """The body of a request about the connection of a socket: the tracker finds it by either direction."""
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    source, destination = (1, 2) if family == socket.AF_INET else (3, 4)
    return struct.pack("!BBH", family, 0, 0) + netlink.nested(
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


def _tuple(data: bytes) -> tuple[Endpoint, Endpoint]:
    parts = netlink.attributes(data)
    addresses = netlink.attributes(parts[_TUPLE_IP])
    ports = netlink.attributes(parts[_TUPLE_PROTO])
    source, destination = addresses.get(1) or addresses[3], addresses.get(2) or addresses[4]
    return (
        Endpoint(source, *struct.unpack("!H", ports[_PROTO_SRC_PORT])),
        Endpoint(destination, *struct.unpack("!H", ports[_PROTO_DST_PORT])),
    )
