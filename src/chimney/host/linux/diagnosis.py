"""What only a look from outside tells about a connection (signatures on its segments, IPsec), or does to it.

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
_DIAG_DESTROY = 21
_DIAG_REQUEST = struct.Struct("=BBBBI")
_DIAG_ID = struct.Struct("!HH16s16s")
_DIAG_ANSWER = 72
_DIAG_MD5SIG = 18
_DIAG_WANT_INFO = 1 << 1
_DIAG_ANY_STATE = 0xFFFFFFFF
_DIAG_NO_COOKIE = b"\xff" * 8

_XFRM_GETPOLICY = 0x15
_XFRM_SELECTOR = struct.Struct("=16s16s8xHBBB3xiI")
_XFRM_DIRECTION_AT, _XFRM_INFO = 160, 168
_XFRM_OUT = 1
_XFRMA_TMPL = 5


def has_md5(local: Endpoint, remote: Endpoint, device: int) -> bool:
    """Whether segments of the connection carry MD5 signatures (RFC 2385). ``device`` is the index of the one that its
    socket is bound to, or 0. Needs CAP_NET_ADMIN; raises OSError.
    """
    # Signatures are told only to those who ask for TCP_INFO, too.
    body = _question(local, remote, device, _DIAG_WANT_INFO, _DIAG_NO_COOKIE)
    answers = netlink.request(netlink.NETLINK_SOCK_DIAG, _DIAG_BY_FAMILY, body)
    return any(_DIAG_MD5SIG in netlink.attributes(answer[_DIAG_ANSWER:]) for answer in answers)


def destroy(local: Endpoint, remote: Endpoint, cookie: bytes) -> None:
    """End the connection of the socket, bound to no device, that has the SO_COOKIE ``cookie`` with an RST; the socket
    shows ECONNABORTED.

    Raises OSError: EOPNOTSUPP where the kernel is built without CONFIG_INET_DIAG_DESTROY.
    """
    netlink.request(netlink.NETLINK_SOCK_DIAG, _DIAG_DESTROY, _question(local, remote, 0, 0, cookie))


def _question(local: Endpoint, remote: Endpoint, device: int, extensions: int, cookie: bytes) -> bytes:
    """A struct inet_diag_req_v2 for one connection; 0 finds no socket that is bound to a device."""
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    body = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, extensions, 0, _DIAG_ANY_STATE)
    body += _DIAG_ID.pack(local.port, remote.port, local.address.ljust(16, b"\0"), remote.address.ljust(16, b"\0"))
    return body + struct.pack("=I", device) + cookie


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
