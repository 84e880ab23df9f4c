"""Where a connection's packets go: device, next hop, its MAC address, and how large they may be.

Sources: rtnetlink(7), arp(7); linux/rtnetlink.h, linux/neighbour.h, linux/if_link.h.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from chimney.host.errors import NotOffloadable
from chimney.host.linux import netlink
from chimney.host.linux.dump import Endpoint
from chimney.host.linux.timer import monotonic_us
from chimney.host.listener import NEVER

_GETLINK, _GETROUTE, _NEWNEIGH, _GETNEIGH = 18, 26, 28, 30
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_CACHEINFO = 1, 2, 4, 5, 8, 12
_RTA_MARK, _RTA_VIA, _RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 16, 18, 27, 28, 29
_RTAX_MTU = 2
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTM_F_FIB_MATCH = 0x2000
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFF_UP = 1
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_WITH_MAC = 2 | 4 | 8 | 16 | 64 | 128
_NUD_FAILED = 32
_NTF_USE = 1

_ROUTE = struct.Struct("=8BI")
_LINK = struct.Struct("=BxHiII")
_NEIGHBOR = struct.Struct("=BxxxiHBB")
# struct rta_cacheinfo up to rta_expires, in ticks of 1/100 s (USER_HZ).
_CACHE = struct.Struct("=8xi")
_TICK_US = 10_000
_RESOLVE_PAUSE = 0.002

Ask = Callable[[int, bytes], list[bytes]]
_ask_once: Ask = partial(netlink.request, netlink.NETLINK_ROUTE)


@dataclass(frozen=True, slots=True)
class Path:
    """How packets leave. MACs are 6 bytes (zero on the loopback device), MTUs in bytes of IP packet.

    `mtu` is the path's: the route's, or what the kernel has learnt about it, or the device's. `arrives_on` is the
    device that the kernel says the connection's packets come from: the same, but for a connection within the host,
    which leaves through the loopback device and arrives on the one that has the address. The kernel forgets what it has
    learnt of `mtu` at `mtu_until` (microseconds of the monotonic clock; NEVER if it is no lesson). `neighbor_mac` is
    empty if it is unknown.
    """

    device: str
    device_index: int
    device_mac: bytes
    device_mtu: int
    mtu: int
    next_hop: bytes
    neighbor_mac: bytes
    loopback: bool
    arrives_on: str
    mtu_until: int


def lookup(local: Endpoint, remote: Endpoint, mark: int = 0, device: int = 0, timeout: float = 3.0) -> Path:
    """`look`, and an unknown next hop is resolved, for at most `timeout` seconds. Raises NotOffloadable, as well if it
    does not answer.
    """
    path = look(local, remote, mark, device)
    if path.neighbor_mac:
        return path
    return replace(path, neighbor_mac=_resolve(path.next_hop, path.device_index, path.device, timeout))


def look(local: Endpoint, remote: Endpoint, mark: int = 0, device: int = 0) -> Path:
    """The path of a connection; `mark` (SO_MARK) and `device` (index, SO_BINDTODEVICE) as the socket has them.

    Never waits. Raises NotOffloadable when there is no path, OSError.
    """
    channel = netlink.Channel(netlink.NETLINK_ROUTE)
    try:
        return _look(channel.request, local, remote, mark, device)
    finally:
        channel.close()


def _look(ask: Ask, local: Endpoint, remote: Endpoint, mark: int, device: int) -> Path:
    found = _route(ask, local, remote, mark, device)
    if len(local.address) == 16 and not device and not _is_ours(ask, local.address):
        # Asked for an IPv4 route, the kernel says so itself.
        raise NotOffloadable(f"there is no route from {local} to {remote}: the address is not ours (any more)")
    index = struct.unpack("=i", found[_RTA_OIF])[0]
    name, kind, flags, mac, device_mtu = _link(ask, index)
    if not flags & _IFF_UP:
        raise NotOffloadable(f"{local} -> {remote} leaves through {name}, which is down")
    if kind not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
        raise NotOffloadable(
            f"{local} -> {remote} leaves through {name}, which carries no Ethernet frames (hardware type {kind}):"
            " only Ethernet-like and loopback devices are supported"
        )
    loopback = kind == _ARPHRD_LOOPBACK
    next_hop = _next_hop(found, remote)
    return Path(
        device=name,
        device_index=index,
        device_mac=mac,
        device_mtu=device_mtu,
        mtu=min(_route_mtu(found) or device_mtu, device_mtu),
        next_hop=next_hop,
        neighbor_mac=bytes(6) if loopback else _known(*_neighbor(ask, next_hop, index)),
        loopback=loopback,
        arrives_on=_link(ask, _owner(ask, local.address))[0] if loopback else name,
        mtu_until=_forgotten_at(found),
    )


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _text(address: bytes) -> str:
    return socket.inet_ntop(_family(address), address)


def _route(ask: Ask, local: Endpoint, remote: Endpoint, mark: int, device: int) -> dict[int, bytes]:
    bits = 8 * len(remote.address)
    body = _ROUTE.pack(_family(remote.address), bits, bits, 0, 0, 0, 0, 0, 0)
    body += netlink.attribute(_RTA_DST, remote.address) + netlink.attribute(_RTA_SRC, local.address)
    body += netlink.attribute(_RTA_IP_PROTO, bytes([socket.IPPROTO_TCP]))
    body += netlink.attribute(_RTA_SPORT, struct.pack("!H", local.port))
    body += netlink.attribute(_RTA_DPORT, struct.pack("!H", remote.port))
    if mark:
        body += netlink.attribute(_RTA_MARK, struct.pack("=I", mark))
    if device:
        body += netlink.attribute(_RTA_OIF, struct.pack("=i", device))
    try:
        answer = ask(_GETROUTE, body)[0]
    except OSError as error:
        raise NotOffloadable(f"there is no route from {local} to {remote}: {error.strerror}") from error
    kind = _ROUTE.unpack_from(answer)[7]
    if kind not in (_RTN_UNICAST, _RTN_LOCAL):
        raise NotOffloadable(f"the route from {local} to {remote} is none that packets can take (type {kind})")
    return netlink.attributes(answer[_ROUTE.size :])


def _is_ours(ask: Ask, address: bytes) -> bool:
    return bool(_ROUTE.unpack_from(_route_to(ask, address))[7] == _RTN_LOCAL)


def _owner(ask: Ask, address: bytes) -> int:
    """The index of the device that has a local address: the one of its entry in the local table."""
    index: int = struct.unpack("=i", netlink.attributes(_route_to(ask, address)[_ROUTE.size :])[_RTA_OIF])[0]
    return index


def _route_to(ask: Ask, address: bytes) -> bytes:
    body = _ROUTE.pack(_family(address), 8 * len(address), 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH)
    return ask(_GETROUTE, body + netlink.attribute(_RTA_DST, address))[0]


def _route_mtu(found: dict[int, bytes]) -> int:
    mtu = netlink.attributes(found.get(_RTA_METRICS, b"")).get(_RTAX_MTU)
    return int(struct.unpack("=I", mtu)[0]) if mtu else 0


def _forgotten_at(found: dict[int, bytes]) -> int:
    cache = found.get(_RTA_CACHEINFO, b"")
    ticks = _CACHE.unpack_from(cache)[0] if len(cache) >= _CACHE.size else 0
    # The kernel rounds down.
    return monotonic_us() + (ticks + 2) * _TICK_US if ticks > 0 else NEVER


def _next_hop(found: dict[int, bytes], remote: Endpoint) -> bytes:
    # RTA_VIA is a family and an address: an IPv4 route by way of an IPv6 neighbor.
    return found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:] or remote.address


def _link(ask: Ask, index: int) -> tuple[str, int, int, bytes, int]:
    answer = ask(_GETLINK, _LINK.pack(0, 0, index, 0, 0))[0]
    _, kind, _, flags, _ = _LINK.unpack_from(answer)
    found = netlink.attributes(answer[_LINK.size :])
    name = found[_IFLA_IFNAME].rstrip(b"\0").decode()
    return name, kind, flags, found.get(_IFLA_ADDRESS, b""), struct.unpack("=I", found[_IFLA_MTU])[0]


def _resolve(address: bytes, index: int, name: str, timeout: float) -> bytes:
    """The MAC address of a neighbor; the kernel is made to ask for it if it does not know."""
    deadline = time.monotonic() + timeout
    asked = False
    while True:
        state, mac = _neighbor(_ask_once, address, index)
        if known := _known(state, mac):
            return known
        if (asked and state & _NUD_FAILED) or time.monotonic() > deadline:
            raise NotOffloadable(
                f"the next hop {_text(address)} on {name} does not answer: its hardware address is unknown, so"
                " no packet can be sent to it"
            )
        if not asked:
            _ask(address, index)
            asked = True
        time.sleep(_RESOLVE_PAUSE)


def _neighbor(ask: Ask, address: bytes, index: int) -> tuple[int, bytes]:
    body = _NEIGHBOR.pack(_family(address), index, 0, 0, 0) + netlink.attribute(_NDA_DST, address)
    try:
        answer = ask(_GETNEIGH, body)[0]
    except OSError as error:
        if error.errno == errno.ENOENT:
            return 0, b""
        raise
    found = netlink.attributes(answer[_NEIGHBOR.size :])
    return _NEIGHBOR.unpack_from(answer)[2], found.get(_NDA_LLADDR, b"")


def _known(state: int, mac: bytes) -> bytes:
    return mac if state & _NUD_WITH_MAC else b""


def _ask(address: bytes, index: int) -> None:
    create = 0x400
    body = _NEIGHBOR.pack(_family(address), index, 0, _NTF_USE, 0) + netlink.attribute(_NDA_DST, address)
    netlink.request(netlink.NETLINK_ROUTE, _NEWNEIGH, body, flags=create)
