"""What this process may put into a socket's buffers: an upload must fit into them.

Sources: socket(7) (SO_SNDBUF, SO_SNDBUFFORCE, net.core.wmem_max, net.core.rmem_max), tcp(7) (tcp_rmem).
"""

from __future__ import annotations

import socket

from chimney.host.linux import sockopts as so

_PLENTY = 64 << 20


def send_room() -> int:
    """Bytes of a connection's queue that can be restored as sent."""
    return _room(so.SO_SNDBUF, so.SO_SNDBUFFORCE)


def receive_room() -> int:
    """Bytes of a connection's queue that can be restored as unread, while the peer goes on sending."""
    with open("/proc/sys/net/ipv4/tcp_rmem") as setting:
        tuned = int(setting.read().split()[2])
    return min(_room(so.SO_RCVBUF, so.SO_RCVBUFFORCE), tuned // 2)


def _room(option: int, force: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(so.SOL_SOCKET, force, _PLENTY)
        except PermissionError:
            probe.setsockopt(so.SOL_SOCKET, option, _PLENTY)
        # The kernel tells twice what it was given, and needs the other half for its own bookkeeping.
        return probe.getsockopt(so.SOL_SOCKET, option) // 2
