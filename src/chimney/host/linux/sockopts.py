"""Constants and small structures that Python's socket module lacks, and calls that keep the interpreter's lock.

Sources: linux/tcp.h, linux/sockios.h, asm-generic/socket.h, linux/filter.h, socket(7), tcp(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

IPPROTO_TCP = socket.IPPROTO_TCP
SOL_SOCKET = socket.SOL_SOCKET

TCP_NODELAY = 1
TCP_MAXSEG = 2
TCP_KEEPIDLE = 4
TCP_INFO = 11
TCP_QUICKACK = 12
TCP_CONGESTION = 13
TCP_MD5SIG = 14
TCP_USER_TIMEOUT = 18
TCP_REPAIR = 19
TCP_REPAIR_QUEUE = 20
TCP_QUEUE_SEQ = 21
TCP_REPAIR_OPTIONS = 22
TCP_TIMESTAMP = 24
TCP_NOTSENT_LOWAT = 25
TCP_REPAIR_WINDOW = 29
TCP_ULP = 31
TCP_AO_INFO = 40
TCP_RTO_MIN_US = 45

REPAIR_ON = 1
REPAIR_OFF_PROBE = 0
REPAIR_OFF = -1
NO_QUEUE, RECEIVE_QUEUE, SEND_QUEUE = 0, 1, 2

TCPOPT_MAXSEG = 2
TCPOPT_WINDOW = 3
TCPOPT_SACK_PERMITTED = 4
TCPOPT_TIMESTAMP = 8

INFO_TIMESTAMPS, INFO_SACK, INFO_WINDOW_SCALE, INFO_ECN = 1, 2, 4, 8

SO_REUSEADDR = 2
SO_ERROR = 4
SO_SNDBUF = 7
SO_RCVBUF = 8
SO_KEEPALIVE = 9
SO_ATTACH_FILTER = SO_GET_FILTER = 26
SO_DETACH_FILTER = 27
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_MARK = 36
SO_PROTOCOL = 38
SO_PEEK_OFF = 42
SO_LOCK_FILTER = 44
SO_ZEROCOPY = 60
SO_BINDTODEVICE = 25
SO_COOKIE = 57
SO_BINDTOIFINDEX = 62
SO_NETNS_COOKIE = 71
SO_BUF_LOCK = 72
SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK = 1, 2

SIOCINQ = 0x541B
SIOCOUTQ = 0x5411
SIOCOUTQNSD = 0x894B

IPPROTO_MPTCP = 262
IPV6_HDRINCL = 36
IP_XFRM_POLICY = 17
IPV6_XFRM_POLICY = 35
_XFRM_OUT = 1
_XFRM_BLOCK = 1
_NO_LIMIT = 0xFFFFFFFFFFFFFFFF

# The mark of segments that Chimney injects; any value would do that the machine's rules do not use.
INJECT_MARK = 0x43484D59

_libc = ctypes.PyDLL(None, use_errno=True)
_AF_UNSPEC = struct.pack("H14x", socket.AF_UNSPEC)


class Filter:
    """A classic BPF program, ready to be attached (`program`): instructions of (code, jt, jf, k)."""

    def __init__(self, instructions: bytes) -> None:
        self.instructions = instructions
        self._buffer = ctypes.create_string_buffer(instructions, len(instructions))
        self.program = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(self._buffer))


def assemble(*instructions: tuple[int, int, int, int]) -> Filter:
    """A filter from its instructions."""
    return Filter(b"".join(struct.pack("HBBI", *instruction) for instruction in instructions))


_RET_K, _LD_W_ABS, _JEQ_K, _AD_MARK = 0x06, 0x20, 0x15, 0xFFFFF000 + 20
DROP_ALL = assemble((_RET_K, 0, 0, 0))
ONLY_INJECTED = assemble(
    (_LD_W_ABS, 0, 0, _AD_MARK), (_JEQ_K, 0, 1, INJECT_MARK), (_RET_K, 0, 0, 0x40000), (_RET_K, 0, 0, 0)
)
NOT_INJECTED = assemble(
    (_LD_W_ABS, 0, 0, _AD_MARK), (_JEQ_K, 0, 1, INJECT_MARK), (_RET_K, 0, 0, 0), (_RET_K, 0, 0, 0x40000)
)


def signed32(value: int) -> int:
    """An unsigned 32-bit value as setsockopt takes it."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def read_filter(descriptor: int) -> Filter | None:
    """The classic filter attached to a socket; None without one. Raises OSError (EACCES) for an eBPF filter."""
    count = ctypes.c_uint32(0)
    if _libc.getsockopt(descriptor, SOL_SOCKET, SO_GET_FILTER, None, ctypes.byref(count)):
        raise _error("getsockopt(SO_GET_FILTER)")
    if not count.value:
        return None
    instructions = ctypes.create_string_buffer(count.value * 8)
    if _libc.getsockopt(descriptor, SOL_SOCKET, SO_GET_FILTER, instructions, ctypes.byref(count)):
        raise _error("getsockopt(SO_GET_FILTER)")
    return Filter(instructions.raw)


# socket.connect and its like give the interpreter's lock away, and inside a hand-over another thread would take it for
# milliseconds. None of these calls can block.


def queue_length(descriptor: int, request: int) -> int:
    """SIOCINQ, SIOCOUTQ or SIOCOUTQNSD, in bytes."""
    value = ctypes.c_int()
    if _libc.ioctl(descriptor, request, ctypes.byref(value)):
        raise _error("ioctl")
    return value.value


def peek(descriptor: int, limit: int) -> bytes:
    """Up to `limit` bytes of the queue selected in repair mode, left where they are."""
    buffer = bytearray(limit)
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
    count = _libc.recv(descriptor, (ctypes.c_char * limit).from_buffer(buffer), limit, flags)
    if count < 0:
        if ctypes.get_errno() == errno.EAGAIN:
            return b""
        raise _error("recv(MSG_PEEK)")
    return bytes(memoryview(buffer)[:count])


def send(descriptor: int, data: bytes) -> int:
    """Write to the queue selected in repair mode; returns how much fitted, 0 if none did."""
    count: int = _libc.send(descriptor, data, len(data), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    if count < 0:
        if ctypes.get_errno() in (errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS):
            return 0
        raise _error("send")
    return count


def connect(descriptor: int, address: bytes) -> None:
    """connect() to a sockaddr."""
    if _libc.connect(descriptor, address, len(address)):
        raise _error("connect")


def listen(descriptor: int) -> None:
    """listen() on a bound socket."""
    if _libc.listen(descriptor, 0):
        raise _error("listen")


def stop_listening(descriptor: int) -> None:
    """A listening socket becomes one that is merely bound; it can listen again."""
    _libc.shutdown(descriptor, socket.SHUT_RD)


def disconnect(descriptor: int) -> None:
    """Recycle a socket: a connected socket in repair mode becomes a fresh one, silently; its error is cleared."""
    if _libc.connect(descriptor, _AF_UNSPEC, len(_AF_UNSPEC)):
        raise _error("connect(AF_UNSPEC)")
    value, length = ctypes.c_int(), ctypes.c_uint32(4)
    _libc.getsockopt(descriptor, SOL_SOCKET, SO_ERROR, ctypes.byref(value), ctypes.byref(length))


def bind(descriptor: int, address: bytes) -> None:
    """bind() to a sockaddr; a socket that kept its port when it was recycled answers EINVAL, and is right."""
    if _libc.bind(descriptor, address, len(address)) and ctypes.get_errno() != errno.EINVAL:
        raise _error("bind")


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


@contextmanager
def muted(sock: socket.socket, *, ipv6: bool) -> Iterator[None]:
    """Nothing leaves the socket meanwhile: a policy of its own blocks its output (struct xfrm_userpolicy_info).

    Where the kernel is built without such policies, what would leave leaves.
    """
    level, option = (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY) if ipv6 else (socket.IPPROTO_IP, IP_XFRM_POLICY)
    selector = struct.pack("=40xH14x", socket.AF_INET6 if ipv6 else socket.AF_INET)
    lifetime = struct.pack("=4Q64x", *(_NO_LIMIT,) * 4)
    policy = selector + lifetime + struct.pack("=2I4BI", 0, 0, _XFRM_OUT, _XFRM_BLOCK, 0, 0, 0)
    try:
        sock.setsockopt(level, option, policy)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        _libc.setsockopt(sock.fileno(), level, option, None, 0)
        # What was kept back has left its error behind.
        sock.getsockopt(SOL_SOCKET, SO_ERROR)
