"""connect() and bind() in repair mode where there is no route at present, or the local address is gone.

A connection of the kernel's survives that; one that is put back must, too. Such a socket gets a route that leads
nowhere, over the loopback device, for the time of the call, and then has to look for one like any other.

Sources: ip(7), ipv6(7), socket(7), RFC 8754 (segment routing header); what the kernel makes of it was observed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from chimney.host.linux import sockopts as so

_LOOPBACK_INDEX = 1
_IP_TRANSPARENT, _IPV6_TRANSPARENT, _IPV6_RTHDR = 19, 75, 57
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EINVAL})
# Next header, length in 8 bytes, type, segments left, last entry, flags, tag, and one segment: ourselves.
_BY_OURSELVES = struct.pack("!6BH16s", 0, 2, 4, 0, 0, 0, 0, socket.inet_pton(socket.AF_INET6, "::1"))
_MAPPED = b"\0" * 10 + b"\xff" * 2
_IPV6_ADDRESS_AT = 8


def connect(descriptor: int, address: bytes) -> None:
    """connect() of a socket in repair mode to a sockaddr, whether there is a route or not. Raises OSError."""
    try:
        so.connect(descriptor, address)
    except OSError as error:
        if error.errno not in _NO_ROUTE:
            raise
        with _duplicate(descriptor) as sock, _foreign(sock), _led_nowhere(sock, address):
            so.connect(descriptor, address)


def bind(descriptor: int, address: bytes) -> None:
    """bind() of a socket to a sockaddr, whether the address is ours or not. Raises OSError."""
    try:
        so.bind(descriptor, address)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        with _duplicate(descriptor) as sock, _foreign(sock):
            so.bind(descriptor, address)


@contextmanager
def _duplicate(descriptor: int) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        yield sock


@contextmanager
def _foreign(sock: socket.socket) -> Iterator[None]:
    """Its address need not be one of ours meanwhile."""
    ipv6 = sock.family == socket.AF_INET6
    option = (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT) if ipv6 else (socket.IPPROTO_IP, _IP_TRANSPARENT)
    before = sock.getsockopt(*option)
    sock.setsockopt(*option, 1)
    try:
        yield
    finally:
        sock.setsockopt(*option, before)


@contextmanager
def _led_nowhere(sock: socket.socket, address: bytes) -> Iterator[None]:
    """It finds a route meanwhile; afterwards it has none, and looks for one when it has something to send."""
    if sock.family == socket.AF_INET6 and address[_IPV6_ADDRESS_AT:][: len(_MAPPED)] != _MAPPED:
        # The route is the one to the first address of a routing header; no IPv6 route is made up for a device. Until
        # the next connect, the kernel sends segments that leave room for it.
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RTHDR, _BY_OURSELVES)
        try:
            yield
        finally:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RTHDR, b"")
        return
    # Where no IPv4 route is found, a device that is asked for is believed to lead there.
    before = sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX)
    sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, _LOOPBACK_INDEX)
    try:
        yield
    finally:
        sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, before)
