"""A routed network: a host with two interfaces, two gateways, a router beyond them, and a peer behind it.

                   switch
    host eth0 ───────┬──────── lan a wan ───┐
                     └──────── lan b wan ──── far ──── peer0 peer
    host eth1 ──────────────── dmz b

Every one of them is a namespace, so that routes, neighbors, path MTUs and ICMP are the kernel's own. Both families.
What an administrator, a broken cable or a gateway's fail-over does to such a network is a method here. As root and in a
user namespace.

Sources: ip-link(8), ip-route(8), Documentation/networking/ip-sysctl.rst (arp_notify, ndisc_notify, rp_filter), nft(8).
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from chimney.lab import firewall
from chimney.lab.namespace import Namespace
from chimney.lab.wire import End, veth_pair

BOTH = (socket.AF_INET, socket.AF_INET6)
# By device of the host: the network that it is on. The peer's network is the one that the routes lead to.
_LAN, _DMZ, _PEERS = ("10.9.0.0/24", "fd09::/64"), ("10.9.1.0/24", "fd09:1::/64"), ("10.9.9.0/24", "fd09:9::/64")
_SILENCE = "lab_silence"
# What routers are asked for, and what only tells about paths.
_SILENT = (
    "icmp type { destination-unreachable, time-exceeded, parameter-problem } counter drop",
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } counter drop",
)
_numbers = itertools.count(1)


@dataclass
class Gateway:
    """A router between the host's networks and the router `far`.

    `wan` and `far` are the two ends of the link between them; `legs`, by the host's device, its end of that network.
    """

    name: str
    namespace: Namespace
    wan: End
    far: End
    legs: dict[str, End] = field(default_factory=dict)

    def address(self, family: int, device: str = "eth0") -> str:
        """What the host calls it by, on the network of its `device`."""
        return self.legs[device].address(family)


class RoutedNetwork:
    """`host`, `switch`, the gateways `a` and `b`, `far` and `peer`; use it as a context manager, or call `close`.

    The host's packets take `a` by eth0 and the peer's come back the same way, until something else is asked for.

    mtu       of every link, in bytes of IP packet.
    offloads  False: every frame on every link is a segment of the wire.
    """

    def __init__(self, mtu: int = 1500, offloads: bool = True) -> None:
        self._opened = ExitStack()
        try:
            self._build(mtu, offloads)
        except BaseException:
            self.close()
            raise

    def _build(self, mtu: int, offloads: bool) -> None:
        self.mtu, self._offloads = mtu, offloads
        self.host, self.switch, self.far, self.peer = (self._namespace() for _ in range(4))
        self.eth0, port = self._wire(self.host, "eth0", self.switch, "port0", _at(_LAN, 1), ())
        self._ports = {"eth0": port}
        # By family: the host's route to the peer.
        self._ways: dict[int, tuple[Gateway, str]] = {}
        self.peer_end, far_peer = self._wire(self.peer, "peer0", self.far, "peers", _at(_PEERS, 1), _at(_PEERS, 254))
        self.a, self.b = self._gateway("a", 2), self._gateway("b", 3)
        self.eth1, dmz = self._wire(self.host, "eth1", self.b.namespace, "dmz", _at(_DMZ, 1), _at(_DMZ, 3))
        self.b.legs["eth1"], self._ports["eth1"] = dmz, dmz
        for router in (self.a.namespace, self.b.namespace, self.far):
            _forward(router)
        # Packets may come by another way than the answers take.
        for namespace in (self.host, self.peer):
            _trust(namespace)
        _ip(self.switch, ["link add switch type bridge", "link set switch up"])
        _ip(self.switch, [f"link set {name} master switch" for name in ("port0", "porta", "portb")])
        for gateway in (self.a, self.b):
            _ip(gateway.namespace, _routes("replace", _PEERS, gateway.far, gateway.wan.name))
        _ip(self.peer, _routes("add", ("default", "default"), far_peer, "peer0"))
        self.route_by(self.a)
        self.return_by(self.a)

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._opened.callback(namespace.close)
        return namespace

    def _wire(
        self, one: Namespace, name: str, other: Namespace, its: str, at: Sequence[str], its_at: Sequence[str]
    ) -> tuple[End, End]:
        return veth_pair(
            one, other, names=(name, its), mtu=self.mtu, addresses_a=at, addresses_b=its_at, offloads=self._offloads
        )

    def _gateway(self, name: str, number: int) -> Gateway:
        namespace = self._namespace()
        lan, _ = self._wire(namespace, "lan", self.switch, f"port{name}", _at(_LAN, number), ())
        between = (f"10.9.{100 + number}.0/24", f"fd09:{100 + number}::/64")
        wan, far = self._wire(namespace, "wan", self.far, f"wan{name}", _at(between, 1), _at(between, 2))
        return Gateway(name, namespace, wan, far, {"eth0": lan})

    def close(self) -> None:
        """Take everything away; harmless when repeated."""
        self._opened.close()

    def __enter__(self) -> RoutedNetwork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Neighbors

    def change_mac(self, gateway: Gateway, announce: bool = True, device: str = "eth0") -> bytes:
        """The gateway has another MAC address (returned) on the network of the host's `device` from now on, as after a
        fail-over. With `announce` it says so, by a gratuitous ARP and an unsolicited neighbor advertisement; without,
        the host finds out when the gateway asks for *its* address, or by its own probes.
        """
        leg = gateway.legs[device]
        gateway.namespace.sysctl(f"net.ipv4.conf.{leg.name}.arp_notify", int(announce))
        gateway.namespace.sysctl(f"net.ipv6.conf.{leg.name}.ndisc_notify", int(announce))
        leg.mac = b"\x02\x09" + next(_numbers).to_bytes(4, "big")
        _ip(gateway.namespace, [f"link set {leg.name} address {leg.mac.hex(':')}"])
        return leg.mac

    def quick_neighbors(self, reachable: float = 1.0, delay: int = 1, retransmit: float = 0.1) -> None:
        """The host doubts and probes its neighbors sooner than after half a minute: an entry is reachable for about
        `reachable` seconds, is probed `delay` seconds after its next use, every `retransmit` seconds.
        """
        for family, device in itertools.product(("ipv4", "ipv6"), ("eth0", "eth1")):
            settings = {
                "base_reachable_time_ms": round(reachable * 1000),
                "delay_first_probe_time": delay,
                "retrans_time_ms": round(retransmit * 1000),
            }
            for name, value in settings.items():
                self.host.sysctl(f"net.{family}.neigh.{device}.{name}", value)

    # Routes

    def route_by(self, gateway: Gateway, device: str = "eth0", families: Sequence[int] = BOTH) -> None:
        """The host reaches the peer by this gateway from now on, in one step; its addresses stay what they are."""
        _ip(self.host, _routes("replace", _PEERS, gateway.legs[device], device, families))
        self._ways |= dict.fromkeys(families, (gateway, device))

    def no_route(self, families: Sequence[int] = BOTH) -> None:
        """The host has no way to the peer until `route_by`."""
        _ip(self.host, [f"route del {_of(_PEERS, family)}" for family in families])
        for family in families:
            self._ways.pop(family, None)

    def return_by(self, gateway: Gateway, device: str = "eth0", families: Sequence[int] = BOTH) -> None:
        """The peer's packets to the host come by this gateway, and on this device of the host's, from now on (those to
        the address of eth0 as well as those to the address of eth1).
        """
        host = self.eth0 if device == "eth0" else self.eth1
        for family in families:
            bits = 32 if family == socket.AF_INET else 128
            for end in (self.eth0, self.eth1):
                at = f"{end.address(family)}/{bits}"
                _ip(self.far, [f"route replace {at} via {gateway.wan.address(family)} dev {gateway.far.name}"])
                leg = gateway.legs[device].name
                by = "" if end is host else f" via {host.address(family)}"
                _ip(gateway.namespace, [f"route replace {at}{by} dev {leg}"])

    # Path MTU

    def set_mtu(self, mtu: int, gateways: Sequence[Gateway] = ()) -> None:
        """The links between the gateways (both, unless some are given) and the router beyond carry packets of at most
        `mtu` bytes from now on, in both directions. The routers answer larger ones with ICMP.
        """
        for gateway in gateways or (self.a, self.b):
            for end in (gateway.wan, gateway.far):
                _ip(end.namespace, [f"link set {end.name} mtu {mtu}"])

    def forget_mtu(self) -> None:
        """Host and peer forget at once which path MTUs they have learnt (the kernel does it after ten minutes). Nothing
        on rtnetlink tells of it.
        """
        for namespace in (self.host, self.peer):
            for family in ("-4", "-6"):
                namespace.run(["ip", family, "route", "flush", "cache"])

    def forget_mtu_after(self, seconds: int, families: Sequence[int] = BOTH) -> None:
        """What host and peer learn about path MTUs from now on, they forget after so long. Raises FileNotFoundError for
        IPv6 in a user namespace, where the kernel does not show the setting: see `forget_mtu`.
        """
        for namespace, family in itertools.product((self.host, self.peer), families):
            name = "ipv6" if family == socket.AF_INET6 else "ipv4"
            namespace.sysctl(f"net.{name}.route.mtu_expires", seconds)

    def drop_icmp(self, drop: bool = True) -> None:
        """The routers tell nobody any more about packets that they could not forward: a black hole."""
        for router in (self.a.namespace, self.b.namespace, self.far):
            firewall.load(router, f"table inet {_SILENCE} {{ }}\ndelete table inet {_SILENCE}\n")
            if drop:
                rules = "".join(f"    {rule}\n" for rule in _SILENT)
                chain = f"  chain sent {{\n    type filter hook output priority 0;\n{rules}  }}\n"
                firewall.load(router, f"table inet {_SILENCE} {{\n{chain}}}\n")

    # Links

    def unplug(self, device: str = "eth0") -> None:
        """The host's cable comes out at the other end: no carrier. Addresses and routes stay."""
        port = self._ports[device]
        _ip(port.namespace, [f"link set {port.name} down"])

    def plug(self, device: str = "eth0") -> None:
        """The cable is back."""
        port = self._ports[device]
        _ip(port.namespace, [f"link set {port.name} up"])
        if port is self.b.legs["eth1"]:
            self._configure(port)

    def take_down(self, device: str = "eth0") -> None:
        """An administrator takes the host's interface down: the kernel forgets its routes and its IPv6 addresses."""
        _ip(self.host, [f"link set {device} down"])

    def bring_up(self, device: str = "eth0") -> None:
        """The interface comes up again as its configuration says: with its addresses and the route that led over it."""
        _ip(self.host, [f"link set {device} up"])
        self._configure(self.eth0 if device == "eth0" else self.eth1)
        for family, (gateway, way) in self._ways.items():
            if way == device:
                self.route_by(gateway, device, (family,))

    def _configure(self, end: End) -> None:
        """What the kernel forgot with the interface."""
        _ip(end.namespace, [f"addr replace {end.address(socket.AF_INET6)}/64 dev {end.name} nodad"])


def _of(networks: tuple[str, str], family: int) -> str:
    return networks[family == socket.AF_INET6]


def _at(networks: tuple[str, str], number: int) -> tuple[str, str]:
    """The addresses of one that is on a network, with the prefix lengths."""
    v4, v6 = networks
    return v4.replace(".0/", f".{number}/"), v6.replace("::/", f"::{number}/")


def _routes(
    verb: str, networks: tuple[str, str], gateway: End, device: str, families: Sequence[int] = BOTH
) -> list[str]:
    return [
        f"route {verb} {_of(networks, family)} via {gateway.address(family)} dev {device}"
        for family in families
    ]


def _ip(namespace: Namespace, commands: Sequence[str]) -> None:
    """Commands of ip(8), in order, in one process. Raises RuntimeError with its words."""
    namespace.run(["ip", "-batch", "-"], input="".join(f"{command}\n" for command in commands))


def _forward(namespace: Namespace) -> None:
    namespace.sysctl("net.ipv4.ip_forward", 1)
    namespace.sysctl("net.ipv6.conf.all.forwarding", 1)
    namespace.sysctl("net.ipv4.conf.all.send_redirects", 0)
    _trust(namespace)


def _trust(namespace: Namespace) -> None:
    """Packets are taken from wherever they come (the stricter of `all` and the device's own setting counts)."""
    with namespace:
        devices = [name for _, name in socket.if_nameindex()]
    for device in ("all", "default", *devices):
        namespace.sysctl(f"net.ipv4.conf.{device}.rp_filter", 0)
