"""Requests over netlink, as few as the host stack needs.

Not pyroute2: its calls run an event loop of their own (0.9) and fail inside a coroutine.
Sources: netlink(7), RFC 3549; linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_XFRM = 6
NETLINK_NETFILTER = 12

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT = 5.0
_NUMBERS = 0x7FFFFFFF


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data`, by kind; the last of a kind counts."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            break
        found[kind & NLA_TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found


def request(protocol: int, kind: int, body: bytes, dump: bool = False, flags: int = 0) -> list[bytes]:
    """The bodies that the kernel answers to a request, made in the calling thread's network namespace.

    Raises OSError with the kernel's error number, TimeoutError if it does not answer.
    """
    channel = Channel(protocol)
    try:
        return channel.request(kind, body, dump, flags)
    finally:
        channel.close()


class Channel:
    """A socket for many requests, in the network namespace of the thread that made it. Raises OSError."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_TIMEOUT)
        self._number = 0

    def request(self, kind: int, body: bytes, dump: bool = False, flags: int = 0) -> list[bytes]:
        """The bodies that the kernel answers to a request.

        Raises OSError with the kernel's error number, TimeoutError if it does not answer.
        """
        flags |= NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
        self._number = self._number % _NUMBERS + 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0) + body)
        answers: list[bytes] = []
        while True:
            for number, answer_kind, answer in _numbered(self._socket.recv(1 << 18)):
                if number != self._number:
                    # Of a request that was given up.
                    continue
                if answer_kind == NLMSG_DONE:
                    return answers
                if answer_kind == NLMSG_ERROR:
                    error = -struct.unpack_from("=i", answer)[0]
                    if error:
                        raise OSError(error, os.strerror(error))
                    return answers
                answers.append(answer)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kinds and bodies of the messages in a datagram."""
    for _, kind, body in _numbered(data):
        yield kind, body


def _numbered(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, number, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield number, kind, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3
