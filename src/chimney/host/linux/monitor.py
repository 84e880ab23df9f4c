"""The kernel's news about links, addresses, routes, rules and neighbors, and its neighbor table.

Sources: rtnetlink(7), netlink(7), arp(7); linux/rtnetlink.h, linux/neighbour.h; Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Container

from chimney.host.kernel_network import NeighborKey, NeighborState, NeighborView
from chimney.host.linux import netlink

_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
# RTNLGRP_ LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, NEXTHOP
_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 32)
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_NLM_F_REPLACE, _NLM_F_CREATE = 0x100, 0x400
_NDA_DST, _NDA_CACHEINFO = 1, 3
_NTF_USE = 1
_REACHABLE, _STALE, _DELAY, _PROBE, _FAILED = 2, 4, 8, 16, 32
_CERTAIN = 64 | 128  # NUD_NOARP, NUD_PERMANENT
_NEIGHBOR = struct.Struct("=BxxxiHBB")
_CONFIRMED = struct.Struct("=I")
_TICK_US = 10_000  # USER_HZ
_ROUTE_BYTES = 1 << 16
# Datagrams of news in one turn: what is beyond has the next one.
_READS = 64
_STATES = {
    _REACHABLE: NeighborState.REACHABLE,
    _STALE: NeighborState.STALE,
    _DELAY: NeighborState.DOUBTED,
    _PROBE: NeighborState.DOUBTED,
    _FAILED: NeighborState.FAILED,
}


class LinuxNetwork:
    """Implements `host.network.KernelNetwork` in the network namespace of the thread that makes it. Raises OSError."""

    def __init__(self) -> None:
        self._channel = netlink.Channel(netlink.NETLINK_ROUTE)
        try:
            self._news = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, netlink.NETLINK_ROUTE
            )
        except BaseException:
            self._channel.close()
            raise
        try:
            self._news.bind((0, 0))
            for group in _GROUPS:
                self._news.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._news.fileno()

    def read(self, neighbors: Container[NeighborKey]) -> bool:
        changed = False
        for _ in range(_READS):
            try:
                data = self._news.recv(_ROUTE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # Some news are lost: anything may have changed.
                changed = True
                continue
            changed = changed or any(_matters(kind, body, neighbors) for kind, body in netlink.messages(data))
        return changed

    def neighbor(self, key: NeighborKey) -> NeighborView:
        body = _header(key) + netlink.attribute(_NDA_DST, key[1])
        try:
            answer = self._channel.request(_GETNEIGH, body)[0]
        except OSError:
            return NeighborView(NeighborState.UNKNOWN, 0)
        state = _NEIGHBOR.unpack_from(answer)[2]
        if state & _CERTAIN:
            return NeighborView(NeighborState.REACHABLE, 0)
        cache = netlink.attributes(answer[_NEIGHBOR.size :]).get(_NDA_CACHEINFO, bytes(_CONFIRMED.size))
        return NeighborView(_STATES.get(state, NeighborState.UNKNOWN), _CONFIRMED.unpack_from(cache)[0] * _TICK_US)

    def probe(self, key: NeighborKey) -> None:
        # One whose address is known is asked at that address, first; one that is not, by broadcast or multicast.
        known = self.neighbor(key).state in (NeighborState.REACHABLE, NeighborState.STALE, NeighborState.DOUBTED)
        self._change(key, _PROBE if known else 0, known)

    def confirm(self, key: NeighborKey) -> None:
        if self.neighbor(key).state in (NeighborState.STALE, NeighborState.DOUBTED):
            self._change(key, _REACHABLE, True)

    def _change(self, key: NeighborKey, state: int, known: bool) -> None:
        """Give an entry another state, or have the kernel look for a neighbor; one that is gone by now stays gone."""
        flags = _NLM_F_REPLACE if known else _NLM_F_CREATE
        body = _header(key, state, 0 if known else _NTF_USE) + netlink.attribute(_NDA_DST, key[1])
        try:
            self._channel.request(_NEWNEIGH, body, flags=flags)
        except OSError:
            # The device or the entry has just gone: there are news about it. Or it is not ours to do any more.
            pass

    def close(self) -> None:
        self._news.close()
        self._channel.close()


def _header(key: NeighborKey, state: int = 0, flags: int = 0) -> bytes:
    index, address = key
    return _NEIGHBOR.pack(socket.AF_INET if len(address) == 4 else socket.AF_INET6, index, state, flags, 0)


def _matters(kind: int, body: bytes, neighbors: Container[NeighborKey]) -> bool:
    """Whether a piece of news may concern us: of neighbors, only those that somebody goes by."""
    if kind not in (_NEWNEIGH, _DELNEIGH):
        return True
    if len(body) < _NEIGHBOR.size:
        return False
    address = netlink.attributes(body[_NEIGHBOR.size :]).get(_NDA_DST, b"")
    return (_NEIGHBOR.unpack_from(body)[1], address) in neighbors
