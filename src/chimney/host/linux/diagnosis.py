"""What only a look from outside tells about a connection: signatures on its segments, and IPsec.

Sources: sock_diag(7); linux/inet_diag.h, linux/xfrm.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from chimney.host.linux import netlink
from chimney.host.linux.dump import Endpoint

_DIAG_BY_FAMILY = 20
_DIAG_REQUEST = struct.Struct("=BBBBI")
_DIAG_ID = struct.Struct("!HH16s16s")
_DIAG_ANSWER = 72
_DIAG_MD5SIG = 18
_DIAG_WANT_INFO = 1 << 1

_XFRM_GETPOLICY = 0x15
_XFRM_SELECTOR = struct.Struct("=16s16s8xHBBB3xiI")
_XFRM_DIRECTION_AT, _XFRM_INFO = 160, 168
_XFRM_OUT = 1
_XFRMA_TMPL = 5


def has_md5(local: Endpoint, remote: Endpoint) -> bool:
    """Whether segments of the connection carry MD5 signatures (RFC 2385). Needs CAP_NET_ADMIN; raises OSError."""
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    # Signatures are told only to those who ask for TCP_INFO, too.
    body = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, _DIAG_WANT_INFO, 0, 0xFFFFFFFF)
    body += _DIAG_ID.pack(local.port, remote.port, local.address.ljust(16, b"\0"), remote.address.ljust(16, b"\0"))
    body += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    answers = netlink.request(netlink.NETLINK_SOCK_DIAG, _DIAG_BY_FAMILY, body)
    return any(_DIAG_MD5SIG in netlink.attributes(answer[_DIAG_ANSWER:]) for answer in answers)


def has_ipsec(local: Endpoint, remote: Endpoint) -> bool:
    """Whether an IPsec policy of this namespace applies to packets from `local` to `remote`. Raises OSError."""
    try:
        policies = netlink.request(netlink.NETLINK_XFRM, _XFRM_GETPOLICY, bytes(64), dump=True)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP):
            return False
        raise
    return any(_applies(policy, local, remote) for policy in policies)


def _applies(policy: bytes, local: Endpoint, remote: Endpoint) -> bool:
    if _XFRMA_TMPL not in netlink.attributes(policy[_XFRM_INFO:]) or policy[_XFRM_DIRECTION_AT] != _XFRM_OUT:
        return False
    destination, source, family, destination_bits, source_bits, protocol, _, _ = _XFRM_SELECTOR.unpack_from(policy)
    size = len(local.address)
    if family and (family == socket.AF_INET) != (size == 4):
        return False
    return (
        protocol in (0, socket.IPPROTO_TCP)
        and _within(remote.address, destination[:size], destination_bits)
        and _within(local.address, source[:size], source_bits)
    )


def _within(address: bytes, network: bytes, bits: int) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network((network, bits), strict=False)
