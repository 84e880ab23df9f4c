"""A path between two hosts: a host, a peer, and what is between them, each in a namespace.

Two kinds, both without privilege (in a user namespace): a router of the kernel that loses packets at random (nftables),
and a wire that a relay in user space holds in its hands (`relay.py`), which delays, reorders, duplicates and loses.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import TracebackType

from chimney.lab.firewall import load
from chimney.lab.namespace import Namespace
from chimney.lab.relay import Behaviour, Relay
from chimney.lab.wire import End, set_offloads, veth_pair

_SEGMENTATION = ("tso", "gso", "gro")
_FRAME = 1514


class Path:
    """`host` and `peer` with what is between them; use it as a context manager. `address`: the host's (IPv4)."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self.host, self.peer = self._namespace(), self._namespace()
        self.address = ""

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._opened.callback(namespace.close)
        return namespace

    def close(self) -> None:
        """Take everything away; harmless when repeated."""
        self._opened.close()

    def __enter__(self) -> Path:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RoutedPath(Path):
    """Host, `router`, peer. The router loses `loss` percent of the TCP packets, in both directions.

    super_segments  the offloads of all four interfaces are on: the router forwards, and loses, up to 64 KB at once.
                    Otherwise every packet on the path is a segment of the wire.
    merging         then host and peer merge what arrives (GRO), as most machines do, and the router does not.
    rate            bits a second that the router forwards towards the peer (tbf, `queue` bytes deep); 0: as it can.
    steer_to        the core on which the router, and with it the peer, works on what the host sends; None: on that of
                    the process that sends, as far as nothing else is in the way. Only the machine's root may say so.
    """

    def __init__(
        self,
        loss: float = 0.0,
        super_segments: bool = False,
        merging: bool = False,
        rate: int = 0,
        queue: int = 0,
        steer_to: int | None = None,
    ) -> None:
        super().__init__()
        router = self.router = self._namespace()
        near, router_near = veth_pair(
            self.host, router, addresses_a=("10.9.0.1/24",), addresses_b=("10.9.0.254/24",), names=("host0", "near0")
        )
        far, router_far = veth_pair(
            self.peer, router, addresses_a=("10.9.1.1/24",), addresses_b=("10.9.1.254/24",), names=("peer0", "far0")
        )
        router.sysctl("net.ipv4.ip_forward", 1)
        for end, gateway in ((near, "10.9.0.254"), (far, "10.9.1.254")):
            end.namespace.run(["ip", "route", "add", "default", "via", gateway])
        if not super_segments:
            for end in (near, router_near, far, router_far):
                set_offloads(end.namespace, end.name, False, _SEGMENTATION)
            if merging:
                for end in (near, far):
                    set_offloads(end.namespace, end.name, True, ("gro",))
        if loss:
            _lose(router, loss)
        if rate:
            _shape(router, router_far, rate, queue)
        if steer_to is not None:
            _steer(router, router_near, steer_to)
        self.address = near.address(socket.AF_INET)


class RelayedPath(Path):
    """Host, relay, peer: every packet on the path is a segment of the wire, and goes through the relay's hands."""

    def __init__(self, behaviour: Behaviour, cpu: int | None = None) -> None:
        super().__init__()
        middle = self._namespace()
        near, middle_near = veth_pair(
            self.host, middle, addresses_a=("10.9.0.1/24",), addresses_b=(), names=("host0", "near0"), offloads=False
        )
        _, middle_far = veth_pair(
            self.peer, middle, addresses_a=("10.9.0.2/24",), addresses_b=(), names=("peer0", "far0"), offloads=False
        )
        relay = Relay(middle, middle_near.name, middle_far.name, behaviour, cpu)
        self._opened.callback(relay.stop)
        self.address = near.address(socket.AF_INET)


def _steer(router: Namespace, end: End, core: int) -> None:
    """Receive packet steering (Linux, Documentation/networking/scaling.rst)."""
    queue = f"/sys/class/net/{end.name}/queues/rx-0/rps_cpus"
    # The namespace's own view of its devices, for this command alone.
    router.run(["unshare", "-m", "sh", "-c", f"mount -t sysfs sysfs /sys && echo {1 << core:x} > {queue}"])


def _lose(router: Namespace, percent: float) -> None:
    load(
        router,
        "table inet lab_path {\n"
        "  counter lost { }\n"
        "  chain passing {\n"
        "    type filter hook forward priority 0;\n"
        f"    meta l4proto tcp numgen random mod 100000 < {round(percent * 1000)} counter name lost drop\n"
        "  }\n"
        "}\n",
    )


def _shape(router: Namespace, end: End, rate: int, queue: int) -> None:
    # A burst of a timer's tick; a super-segment must fit, or the shaper cuts it.
    burst = max(rate // 8 // 250, 2 * _FRAME)
    shaper = ["tbf", "rate", f"{rate}bit", "burst", str(burst), "limit", str(queue)]
    router.run(["tc", "qdisc", "add", "dev", end.name, "root", *shaper])
