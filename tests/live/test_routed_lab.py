"""The routed laboratory: what its methods promise, seen by ordinary UDP sockets and the kernel's own tables."""

import errno
import json
import socket

import pytest

from chimney.lab import firewall

V4, V6 = socket.AF_INET, socket.AF_INET6
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2
IP_MTU, IPV6_MTU = 14, 24
HEADERS = {V4: 28, V6: 48}
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])


class Echo:
    """Asks the peer something of a size, over and over if need be, and says whether an answer came."""

    def __init__(self, routed, family):
        self._peer = routed.keep(routed.peer.socket(family, socket.SOCK_DGRAM))
        self._peer.bind((routed.peer_end.address(family), 0))
        self._family = family
        self.sock = routed.keep(routed.host.socket(family, socket.SOCK_DGRAM))
        self.sock.bind((routed.host_end.address(family), 0))
        level, option = (socket.SOL_IP, IP_MTU_DISCOVER) if family == V4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        self.sock.setsockopt(level, option, PMTUDISC_DO)
        self.sock.connect(self._peer.getsockname()[:2])
        for sock in (self._peer, self.sock):
            sock.settimeout(0.1)

    def answered(self, size=1000, patience=5.0):
        """Whether a packet of `size` bytes reaches the peer and its answer the host."""
        for _ in range(round(patience / 0.1)):
            try:
                self.sock.send(bytes(size - HEADERS[self._family]))
                self._peer.sendto(b"x", self._peer.recvfrom(9000)[1])
                return bool(self.sock.recv(1))
            except TimeoutError:
                continue
            except OSError as error:
                # One that an earlier packet has earned is told now.
                if error.errno == errno.EMSGSIZE and size > self.mtu():
                    return False
        return False

    def mtu(self):
        level, option = (socket.SOL_IP, IP_MTU) if self._family == V4 else (socket.IPPROTO_IPV6, IPV6_MTU)
        return self.sock.getsockopt(level, option)


def lladdr(routed, address):
    """What the host believes to be a neighbor's MAC."""
    found = json.loads(routed.host.run(["ip", "-j", "neigh", "show", "to", address]))
    return found[0].get("lladdr") if found else None


def frames(namespace, device, family):
    """A function that says how many packets of a family a router has forwarded from a device since."""
    table = f"frames_{device}"
    wanted = f'iifname "{device}" meta nfproto {"ipv4" if family == V4 else "ipv6"} counter name forwarded'
    chain = f"  chain passing {{\n    type filter hook forward priority 0;\n    {wanted}\n  }}\n"
    firewall.load(namespace, f"table inet {table} {{\n  counter forwarded {{ }}\n{chain}}}\n")
    return lambda: firewall.counters(namespace, table)["forwarded"].packets


@FAMILIES
def test_gateways_and_ways_back(routed, family):
    echo, network = Echo(routed, family), routed.network
    by_a, by_b = frames(routed.a.namespace, "lan", family), frames(routed.b.namespace, "lan", family)
    by_eth1 = frames(routed.b.namespace, "dmz", family)
    back_b = frames(routed.b.namespace, "wan", family)
    assert echo.answered()
    assert (by_a() > 0, by_b(), by_eth1(), back_b()) == (True, 0, 0, 0)
    network.route_by(routed.b)
    assert echo.answered()
    assert by_b() > 0
    network.route_by(routed.b, "eth1")
    assert echo.answered()
    assert by_eth1() > 0
    assert back_b() == 0
    network.return_by(routed.b, "eth1")
    assert echo.answered()
    assert back_b() > 0
    network.no_route()
    with pytest.raises(OSError, match="unreachable"):
        echo.sock.send(b"x")


@FAMILIES
def test_a_gateway_that_says_so_has_another_mac(routed, helpers, family):
    echo = Echo(routed, family)
    assert echo.answered()
    mac = routed.network.change_mac(routed.a)
    helpers.wait_until(lambda: lladdr(routed, routed.a.address(family)) == mac.hex(":"), "the new MAC")
    assert echo.answered()


@FAMILIES
def test_a_gateway_that_does_not_is_found_out(routed, family):
    echo = Echo(routed, family)
    routed.network.quick_neighbors(reachable=0.2)
    assert echo.answered()
    before = lladdr(routed, routed.a.address(family))
    mac = routed.network.change_mac(routed.a, announce=False)
    assert lladdr(routed, routed.a.address(family)) == before
    assert echo.answered(patience=10.0)
    assert lladdr(routed, routed.a.address(family)) == mac.hex(":")


@FAMILIES
def test_a_narrow_link_is_told_of_and_forgotten(routed, family):
    echo, network = Echo(routed, family), routed.network
    assert echo.answered(1500)
    network.set_mtu(1280)
    assert not echo.answered(1500)
    assert echo.mtu() == 1280
    assert echo.answered(1280)
    network.set_mtu(1500)
    assert not echo.answered(1500)
    network.forget_mtu()
    assert echo.answered(1500)


@FAMILIES
def test_a_black_hole(routed, family):
    echo, network = Echo(routed, family), routed.network
    assert echo.answered(1500)
    network.drop_icmp()
    network.set_mtu(1280)
    assert not echo.answered(1500, patience=0.2)
    assert echo.mtu() == 1500
    assert echo.answered(1280)
    network.drop_icmp(False)
    assert not echo.answered(1500)
    assert echo.mtu() == 1280


@FAMILIES
@pytest.mark.parametrize("way", [("unplug", "plug"), ("take_down", "bring_up")], ids=["cable", "interface"])
def test_an_interface_that_is_away_for_a_while(routed, family, way):
    echo, network = Echo(routed, family), routed.network
    away, back = way
    assert echo.answered()
    getattr(network, away)()
    assert not echo.answered(patience=0.2)
    getattr(network, back)()
    assert echo.answered()


@FAMILIES
def test_what_returns_is_the_way_that_was_asked_for(routed, family):
    network = routed.network
    network.route_by(routed.b, "eth1")
    network.take_down()
    network.bring_up()
    echo = Echo(routed, family)
    by_eth1 = frames(routed.b.namespace, "dmz", family)
    assert echo.answered()
    assert by_eth1() > 0


@FAMILIES
def test_connections_go_through_the_routers(routed, helpers, family):
    for role in ("client", "server"):
        ours, theirs = routed.connect(family, role)
        ours.sendall(b"there")
        theirs.sendall(b"back")
        assert helpers.receive(theirs, 5) == b"there"
        assert helpers.receive(ours, 4) == b"back"
        sent, got = routed.heard(ours)
        assert (sent.bytes, got.bytes) == (5, 4)
