"""The demonstration's laboratory: two namespaces, the wire between them, a firewall, loss, and the tap."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from chimney.lab.firewall import Loss, StatefulFirewall
from chimney.lab.namespace import Namespace
from chimney.lab.tap import Tap
from chimney.lab.wire import End, set_offloads, veth_pair

PORT = 8080
# Room for a second of small packets while the demonstration's own process has other things to do.
_TAP_SLOTS = 131072
_SINGLE_PACKETS = ("tso", "gso", "gro")
# Of the routes that the kernel makes for an address, which are to be replaced (linux/rtnetlink.h, net/ipv6).
_LINK_SCOPE = 253
_KERNEL_PRIORITY = 256
_KNOWN_ALGORITHMS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


class DemoError(Exception):
    """The demonstration cannot run here; the message says why, and what to do."""


@dataclass
class Laboratory:
    """Where the demonstration happens."""

    server: Namespace
    peer: Namespace
    interface: str
    address: str
    tap: Tap
    firewall: StatefulFirewall | None
    loss: Loss | None


def find_program(name: str) -> str | None:
    """The path of a program; Debian keeps some out of an ordinary user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def build(stack: ExitStack, *, ipv6: bool, mtu: int, loss_percent: float) -> Laboratory:
    """Set the laboratory up; `stack` takes it down again. The server's firewall is left out where nft is missing.

    Packets are lost in a third namespace, a router between the two: what is dropped on a host itself is seen by the
    taps of that host, and known to its own TCP. Raises DemoError.
    """
    nft = find_program("nft")
    if loss_percent and nft is None:
        raise DemoError("--loss needs nft, which is missing (Debian: apt-get install nftables)")
    if nft is not None:
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{os.path.dirname(nft)}"
    try:
        server, peer = _namespace(stack), _namespace(stack)
        loss = None
        if loss_percent:
            server_end, peer_end, loss = _join_by_lossy_router(_namespace(stack), server, peer, mtu, loss_percent)
        else:
            server_end, peer_end = veth_pair(server, peer, names=("server0", "peer0"), mtu=mtu)
            _use_cubic(peer_end)
        tap = stack.enter_context(Tap(peer, peer_end.name, slots=_TAP_SLOTS))
        firewall = StatefulFirewall(server, services=[PORT]) if nft is not None else None
    except (OSError, RuntimeError, NetlinkError) as error:
        raise DemoError(f"the laboratory cannot be set up: {error}. 'chimney doctor' says what works here") from error
    address = server_end.address(socket.AF_INET6 if ipv6 else socket.AF_INET)
    return Laboratory(server, peer, server_end.name, address, tap, firewall, loss)


def _namespace(stack: ExitStack) -> Namespace:
    namespace = Namespace()
    stack.callback(namespace.close)
    return namespace


def _cubic() -> dict[str, str]:
    """A route's metric: connections use CUBIC. curl has no option for it, and a namespace may not choose a default."""
    return {"cc_algo": "cubic"} if "cubic" in _KNOWN_ALGORITHMS.read_text().split() else {}


def _use_cubic(end: End) -> None:
    with end.namespace, IPRoute() as routes:
        routes.route("replace", dst="10.9.0.0/24", oif=end.index, scope=_LINK_SCOPE, metrics=_cubic())
        routes.route("replace", dst="fd09::/64", oif=end.index, priority=_KERNEL_PRIORITY, metrics=_cubic())


def _join_by_lossy_router(
    router: Namespace, server: Namespace, peer: Namespace, mtu: int, percent: float
) -> tuple[End, End, Loss]:
    ends = []
    for number, (namespace, name) in enumerate(((server, "server0"), (peer, "peer0")), start=1):
        end, hop = veth_pair(
            namespace,
            router,
            names=(name, f"hop{number}"),
            mtu=mtu,
            addresses_a=(f"10.9.{number}.1/24", f"fd09:{number}::1/64"),
            addresses_b=(f"10.9.{number}.2/24", f"fd09:{number}::2/64"),
        )
        for one in (end, hop):
            set_offloads(one.namespace, one.name, False, _SINGLE_PACKETS)
        with namespace, IPRoute() as routes:
            for gateway, everything in zip(hop.addresses, ("0.0.0.0/0", "::/0"), strict=True):
                routes.route("add", dst=everything, gateway=gateway, oif=end.index, metrics=_cubic())
        ends.append(end)
    router.sysctl("net.ipv4.ip_forward", 1)
    router.sysctl("net.ipv6.conf.all.forwarding", 1)
    return ends[0], ends[1], Loss(router, "hop*", percent)
