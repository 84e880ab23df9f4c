"""A wire between two namespaces: a veth pair with addresses and the offloads wanted."""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import itertools
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from chimney.lab.namespace import Namespace

SIOCETHTOOL = 0x8946
IFA_F_NODAD = 2
# linux/ethtool.h: ETHTOOL_S... of the offloads that merge, split or complete segments
OFFLOADS = {"rx-checksum": 0x15, "tx-checksum": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}

_numbers = itertools.count()


@dataclass
class End:
    """One end of a wire: namespace, interface name and index, MAC (6 bytes), addresses without prefix length."""

    namespace: Namespace
    name: str
    index: int
    mac: bytes
    addresses: list[str] = field(default_factory=list)

    def address(self, family: int) -> str:
        """Its first address of AF_INET or AF_INET6."""
        wanted = 6 if family == socket.AF_INET6 else 4
        return next(text for text in self.addresses if ipaddress.ip_address(text).version == wanted)


def veth_pair(
    a: Namespace,
    b: Namespace,
    *,
    names: tuple[str, str] | None = None,
    mtu: int = 1500,
    addresses_a: Sequence[str] = ("10.9.0.1/24", "fd09::1/64"),
    addresses_b: Sequence[str] = ("10.9.0.2/24", "fd09::2/64"),
    offloads: bool = True,
) -> tuple[End, End]:
    """Join two namespaces by a veth pair; both ends are up when this returns and their addresses are usable at once.

    `mtu` in bytes; addresses as "address/prefix length", of either family (no duplicate address detection);
    `offloads` False switches segmentation, merging and checksum offload off, so that every frame is a wire segment.
    """
    number = next(_numbers)
    name_a, name_b = names or (f"wire{number}a", f"wire{number}b")
    with a, IPRoute() as routes:
        routes.link("add", ifname=name_a, kind="veth", peer={"ifname": name_b, "net_ns_fd": b.fileno()})
    return (
        _configure(a, name_a, mtu, addresses_a, offloads),
        _configure(b, name_b, mtu, addresses_b, offloads),
    )


def _configure(namespace: Namespace, name: str, mtu: int, addresses: Sequence[str], offloads: bool) -> End:
    # An interface on one machine needs no proof that nobody else has its addresses, and no router to ask.
    namespace.sysctl(f"net.ipv6.conf.{name}.accept_dad", 0)
    namespace.sysctl(f"net.ipv6.conf.{name}.router_solicitations", 0)
    with namespace, IPRoute() as routes:
        index = routes.link_lookup(ifname=name)[0]
        routes.link("set", index=index, mtu=mtu, state="up")
        for text in addresses:
            interface = ipaddress.ip_interface(text)
            # The kernel looks at accept_dad later, and nobody can use the address until then.
            flags = IFA_F_NODAD if interface.version == 6 else 0
            address, prefix = str(interface.ip), interface.network.prefixlen
            routes.addr("add", index=index, address=address, prefixlen=prefix, flags=flags)
        mac = routes.link("get", index=index)[0].get_attr("IFLA_ADDRESS")
    if not offloads:
        set_offloads(namespace, name, False)
    return End(namespace, name, index, bytes.fromhex(mac.replace(":", "")), [text.split("/")[0] for text in addresses])


def set_offloads(namespace: Namespace, name: str, on: bool, which: Sequence[str] = tuple(OFFLOADS)) -> None:
    """Switch offloads of an interface (keys of `OFFLOADS`)."""
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for offload in which:
            value = ctypes.create_string_buffer(struct.pack("II", OFFLOADS[offload], int(on)), 8)
            fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(value)))
