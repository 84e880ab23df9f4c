"""Writing a connection's queues in repair mode, and making room for them.

Sources: socket(7), tcp(7); linux/socket.h (SO_BUF_LOCK).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from chimney.host.linux import sockopts as so

_PIECE = 1 << 16
_UNLIMITED = 0xFFFFFFFF


class Room:
    """A socket buffer (SO_SNDBUF or SO_RCVBUF) that can be made larger for a while; `restore` puts it back.

    Without CAP_NET_ADMIN over the machine the system's limit (net.core.wmem_max, rmem_max) holds.
    """

    def __init__(self, sock: socket.socket, queue: int) -> None:
        self._sock = sock
        sending = queue == so.SEND_QUEUE
        self._option = so.SO_SNDBUF if sending else so.SO_RCVBUF
        self._force = so.SO_SNDBUFFORCE if sending else so.SO_RCVBUFFORCE
        self._before: tuple[int, int] | None = None

    def make(self, size: int) -> bool:
        """Room for about `size` bytes more than there is; False if the system grants none."""
        held = self._sock.getsockopt(so.SOL_SOCKET, self._option)
        if self._before is None:
            self._before = held, self._sock.getsockopt(so.SOL_SOCKET, so.SO_BUF_LOCK)
        # The kernel doubles what it is told, and counts its own overhead against it.
        self._set(held // 2 + size + _PIECE)
        return self._sock.getsockopt(so.SOL_SOCKET, self._option) > held

    def restore(self) -> None:
        """As it was, whether the application had set it or the kernel tunes it."""
        if self._before is not None:
            self._set(self._before[0] // 2)
            self._sock.setsockopt(so.SOL_SOCKET, so.SO_BUF_LOCK, self._before[1])
            self._before = None

    def _set(self, size: int) -> None:
        size = min(size, 0x3FFFFFFF)
        try:
            self._sock.setsockopt(so.SOL_SOCKET, self._force, size)
        except PermissionError:
            self._sock.setsockopt(so.SOL_SOCKET, self._option, size)


def write_queue(sock: socket.socket, queue: int, data: Sequence[memoryview], room: Room) -> list[memoryview]:
    """Fill a queue of a socket in repair mode; returns what did not fit although room was made.

    Bytes written to the send queue count as sent. Raises OSError.
    """
    descriptor = sock.fileno()
    sock.setsockopt(so.IPPROTO_TCP, so.TCP_REPAIR_QUEUE, queue)
    low_water = sock.getsockopt(so.IPPROTO_TCP, so.TCP_NOTSENT_LOWAT) & _UNLIMITED if queue == so.SEND_QUEUE else 0
    if low_water:
        sock.setsockopt(so.IPPROTO_TCP, so.TCP_NOTSENT_LOWAT, 0)
    try:
        return _fill(descriptor, data, room)
    finally:
        if low_water:
            sock.setsockopt(so.IPPROTO_TCP, so.TCP_NOTSENT_LOWAT, so.signed32(low_water))


def _fill(descriptor: int, data: Sequence[memoryview], room: Room) -> list[memoryview]:
    left = sum(map(len, data))
    pieces = _pieces(data)
    for piece in pieces:
        content = bytes(piece)
        done = 0
        while done < len(content):
            count = so.send(descriptor, content[done:] if done else content)
            if not count and not room.make(left):
                return [piece[done:], *pieces]
            done += count
            left -= count
    return []


def _pieces(data: Sequence[memoryview]) -> Iterator[memoryview]:
    for view in data:
        for at in range(0, len(view), _PIECE):
            yield view[at : at + _PIECE]
