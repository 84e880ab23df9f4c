"""The kernel stays in charge of the network: what changes there while a connection is offloaded, changes below too."""

import json
import socket
import time

import pytest

import chimney
from chimney.host import reachability, steering, withdrawal
from chimney.host.connection import Owner
from chimney.host.network import NetworkWatch
from chimney.lab.wire import veth_pair
from tests.live.traffic import Traffic

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
# Where the kernel and we do the same for both.
ONLY_V4 = pytest.mark.parametrize("family", [V4], ids=["v4"])
ONLY_V6 = pytest.mark.parametrize("family", [V6], ids=["v6"])
_BITS = {V4: 24, V6: 64}
_NETWORK = {V4: "10.9.9.0/24", V6: "fd09:9::/64"}


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=1) as made:
        yield made


@pytest.fixture
def stack_that_asks():
    with chimney.Stack(intermediate_drivers=1, config=chimney.StackConfig(neighbor_stale_ms=1000)) as made:
        yield made


class Flowing:
    """An offloaded connection with traffic both ways while the network changes."""

    def __init__(self, routed, helpers, stack, family, role="client", prepare=None, size=1_500_000):
        self.network, self.stack, self.family, self._helpers = routed.network, stack, family, helpers
        self.ours, self.theirs = routed.connect(family, role, prepare=prepare)
        self._routed = routed
        self._size = size
        self._outgoing, self._incoming = helpers.pattern(size), helpers.pattern(size, 1 << 32)
        self._sending = helpers.Sending(self.theirs, self._incoming)
        self._received = helpers.Receiving(self.theirs, size)
        self.connection = stack.connection(self.ours)
        self._traffic = Traffic(self.connection, self._outgoing, block=20_000)
        self.connection.offload()
        self.flow(50_000)

    def flow(self, count=20_000):
        self._traffic.more(self.stack, count)

    def push(self):
        """Have something on its way to the peer."""
        self._traffic._send(60_000)

    def run(self, seconds):
        """Let the stack run, whatever happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.stack.poll(min(0.02, seconds))

    def until(self, condition, limit=8.0):
        self._traffic.until(self.stack, condition, limit)

    def finish(self):
        """Everything arrives, on both sides, and nobody was reset."""
        self._traffic.rest(self.stack, self._size)
        assert self._traffic.incoming == self._incoming
        assert self._received.join() == self._outgoing
        self._sending.join()
        assert not self._traffic.errors
        assert self._routed.resets() == 0
        self.connection.detach()

    @property
    def path(self):
        return self.connection.chimney.record.path

    @property
    def info(self):
        return self.connection.info()

    def stayed(self):
        """Whether it has been below all the time."""
        return self.connection.owner is Owner.TARGET and (self.info.offloads, self.info.uploads) == (1, 0)


@pytest.fixture
def flowing(routed, helpers, stack):
    return lambda family, stack=stack, **settings: Flowing(routed, helpers, stack, family, **settings)


@FAMILIES
def test_the_next_hop_has_another_hardware_address(routed, flowing, family):
    flow = flowing(family)
    mac = routed.network.change_mac(routed.a)
    flow.until(lambda: flow.path.neighbor.cached.dl_destination_address == mac)
    flow.flow()
    assert flow.stayed()
    flow.finish()


@FAMILIES
def test_the_route_moves_to_another_gateway(routed, flowing, family):
    flow = flowing(family)
    for gateway in (routed.b, routed.a):
        before = flow.path.neighbor
        routed.network.route_by(gateway)
        mac = gateway.legs["eth0"].mac
        flow.until(lambda mac=mac: flow.path.neighbor.cached.dl_destination_address == mac)
        flow.until(lambda before=before: not before.offloaded)
        flow.flow()
    assert flow.stayed()
    flow.finish()


@ONLY_V4
def test_the_route_has_another_mtu(routed, flowing, family):
    flow = flowing(family)
    gateway = routed.a.address(family)
    for mtu in (1280, 1500):
        wanted = f"route replace {_NETWORK[family]} via {gateway} dev eth0" + (" mtu 1280" if mtu == 1280 else "")
        routed.host.run(["ip", *wanted.split()])
        flow.until(lambda mtu=mtu: flow.path.cached.path_mtu == mtu)
        flow.flow()
        assert flow.info.tcp["tcpi_pmtu"] == mtu
    assert flow.stayed()
    flow.finish()


@ONLY_V6
def test_our_own_hardware_address_changes(routed, flowing, family):
    """It is a constant of the neighbor: there is another one, and the path moves to it."""
    for setting in ("ipv4.conf.eth0.arp_notify", "ipv6.conf.eth0.ndisc_notify"):
        routed.host.sysctl(f"net.{setting}", 1)
    flow = flowing(family)
    mac = b"\x02\x09\x00\x00\x00\x77"
    routed.host.run(["ip", "link", "set", "eth0", "address", mac.hex(":")])
    flow.until(lambda: flow.path.neighbor.const.dl_source_address == mac)
    flow.flow()
    assert flow.stayed()
    flow.finish()


@pytest.mark.parametrize(
    ("away", "family"), [("route", V4), ("interface", V6), ("cable", V4)], ids=["route", "interface v6", "cable"]
)
def test_the_way_is_gone_for_a_moment(routed, flowing, family, away):
    """The connection waits below: the peer has silence, and nothing else."""
    network = routed.network
    leave, come = {
        "route": (network.no_route, lambda: network.route_by(routed.a)),
        "interface": (network.take_down, network.bring_up),
        "cable": (network.unplug, network.plug),
    }[away]
    flow = flowing(family)
    leave()
    flow.run(0.4)
    come()
    flow.flow()
    assert flow.stayed()
    flow.finish()


@FAMILIES
def test_the_way_is_gone_for_long(routed, flowing, family, monkeypatch):
    """The kernel gets the connection, without a route; when there is one, the connection goes down again."""
    monkeypatch.setattr(steering, "GRACE_US", 100_000)
    flow = flowing(family)
    routed.network.no_route()
    flow.until(lambda: flow.connection.owner is Owner.KERNEL)
    assert "no route" in flow.info.withdrawn
    routed.network.route_by(routed.a)
    flow.until(lambda: flow.connection.owner is Owner.TARGET)
    flow.flow()
    assert flow.info.withdrawn == ""
    assert (flow.info.offloads, flow.info.uploads) == (2, 1)
    flow.finish()


@ONLY_V6
def test_the_route_moves_to_another_interface(routed, flowing, family):
    flow = flowing(family)
    routed.network.route_by(routed.b, "eth1")
    routed.network.return_by(routed.b, "eth1")
    flow.until(lambda: flow.info.offloads == 2)
    flow.flow()
    assert flow.connection.hand_over.plan.device == "eth1"
    flow.finish()


@FAMILIES
def test_the_source_address_goes_and_comes(routed, flowing, family, monkeypatch):
    monkeypatch.setattr(steering, "GRACE_US", 100_000)
    flow = flowing(family)
    address = [f"{routed.network.eth0.address(family)}/{_BITS[family]}", "dev", "eth0"]
    routed.host.run(["ip", "addr", "del", *address])
    flow.until(lambda: flow.connection.owner is Owner.KERNEL)
    assert flow.info.withdrawn
    routed.host.run(["ip", "addr", "add", *address, *(["nodad"] if family == V6 else [])])
    routed.network.route_by(routed.a)
    flow.until(lambda: flow.connection.owner is Owner.TARGET)
    flow.flow()
    flow.finish()


@ONLY_V4
def test_what_the_application_has_uploaded_stays_up(routed, flowing, family, monkeypatch):
    monkeypatch.setattr(withdrawal, "FIRST_PAUSE_US", 50_000)
    flow = flowing(family)
    flow.connection.withdraw("a test wants it")
    flow.until(lambda: flow.info.offloads == 2)
    flow.connection.withdraw("a test wants it")
    flow.until(lambda: flow.connection.owner is Owner.KERNEL)
    flow.connection.upload()
    routed.network.change_mac(routed.a)
    flow.run(0.3)
    flow.flow()
    assert (flow.connection.owner, flow.info.withdrawn) == (Owner.KERNEL, "")
    flow.finish()


@ONLY_V4
def test_connections_share_their_path_until_their_ways_part(routed, flowing, family, monkeypatch):
    """A rule for marked packets moves one of two connections to another gateway: a path has one neighbor."""
    monkeypatch.setattr(withdrawal, "FIRST_PAUSE_US", 50_000)
    plain = flowing(family)
    marked = flowing(family, prepare=lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7))
    assert plain.path is marked.path
    assert len(plain.path.users) == 2
    version = "-6" if family == V6 else "-4"
    other = f"{version} route add {_NETWORK[family]} via {routed.b.address(family)} dev eth0 table 77"
    routed.host.run(["ip", *other.split()])
    routed.host.run(["ip", version, "rule", "add", "fwmark", "7", "lookup", "77"])
    marked.until(lambda: marked.info.offloads == 2)
    assert plain.stayed()
    assert marked.path.neighbor.cached.dl_destination_address == routed.b.legs["eth0"].mac
    assert plain.path.neighbor.cached.dl_destination_address == routed.a.legs["eth0"].mac
    marked.flow()
    plain.flow()
    marked.finish()
    plain.finish()


def entry(routed, address):
    """What the host's kernel thinks of a neighbor."""
    found = json.loads(routed.host.run(["ip", "-j", "neigh", "show", "to", address]))
    return found[0]["state"][0] if found else "NONE"


@ONLY_V6
def test_a_next_hop_with_another_hardware_address_that_says_nothing(routed, flowing, family):
    """Retransmissions make the kernel probe; what it finds out, the target is told at once."""
    routed.network.quick_neighbors(reachable=60)
    flow = flowing(family)
    mac = routed.network.change_mac(routed.a, announce=False)
    flow.until(lambda: flow.path.neighbor.cached.dl_destination_address == mac)
    flow.flow()
    assert flow.stayed()
    flow.finish()


@ONLY_V4
def test_progress_confirms_the_kernels_entry(routed, flowing, stack_that_asks, family, monkeypatch):
    """The target asks about a next hop that the kernel has not heard of for long; what it has seen itself, counts."""
    monkeypatch.setattr(reachability, "_DELAY_US", 50_000)
    flow = flowing(family, stack=stack_that_asks)
    address = routed.a.address(family)
    flow.run(1.6)
    routed.host.run(["ip", "neigh", "change", address, "dev", "eth0", "nud", "stale"])
    flow.push()
    flow.flow()
    flow.until(lambda: entry(routed, address) == "REACHABLE")
    flow.finish()


@ONLY_V6
def test_a_next_hop_that_is_gone_for_good(routed, flowing, family, monkeypatch):
    """Nothing answers any more: the kernel gets the connection, and it goes down again when something does."""
    monkeypatch.setattr(steering, "GRACE_US", 100_000)
    routed.network.quick_neighbors()
    flow = flowing(family)
    port = routed.network.switch
    port.run(["ip", "link", "set", "porta", "down"])
    flow.push()
    flow.until(lambda: flow.connection.owner is Owner.KERNEL, 15.0)
    assert "does not answer" in flow.info.withdrawn
    port.run(["ip", "link", "set", "porta", "up"])
    flow.until(lambda: flow.connection.owner is Owner.TARGET)
    flow.flow()
    flow.finish()


def test_what_the_kernel_has_learnt_of_a_path_expires(routed, flowing, helpers, stack):
    """There is no news of that: the target is told when the time has come."""
    routed.network.forget_mtu_after(2, [V4])
    flow = flowing(V4)
    routed.network.set_mtu(1280)
    ask = routed.keep(routed.host.socket(V4, socket.SOCK_DGRAM))
    ask.setsockopt(socket.SOL_IP, 10, 2)
    ask.connect((routed.peer_end.address(V4), 9))

    def learnt():
        try:
            ask.send(bytes(1400))
        except OSError:
            # Too large, or the peer has nobody at this port.
            pass
        return ask.getsockopt(socket.SOL_IP, 14) == 1280

    helpers.wait_until(learnt, "a path MTU")
    # Whoever has told the kernel says so.
    next(listener for listener in stack._listeners.values() if isinstance(listener, NetworkWatch)).recheck_soon()
    flow.until(lambda: flow.path.cached.path_mtu == 1280)
    routed.network.set_mtu(1500)
    flow.until(lambda: flow.path.cached.path_mtu == 1500)
    assert flow.stayed()
    flow.finish()


@ONLY_V4
def test_the_interface_may_carry_larger_packets_now(make_lab, helpers, stack, family):
    lab = make_lab(mtu=1500)
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    for namespace, name in ((lab.host, lab.device), (lab.peer, lab.peer_end.name)):
        namespace.run(["ip", "link", "set", name, "mtu", "9000"])
    path = connection.chimney.record.path
    helpers.wait_until(lambda: stack.poll(0.01) or path.cached.path_mtu == 9000, "the path's MTU")
    receiving = helpers.Receiving(theirs, 100_000)
    connection.sendall(helpers.pattern(100_000))
    assert receiving.join() == helpers.pattern(100_000)
    assert connection.offloaded and connection.info().uploads == 0
    connection.detach()


@FAMILIES
def test_the_interface_is_taken_away_and_made_anew(make_lab, helpers, stack, family, monkeypatch):
    """The kernel gets the connection without any interface; it goes down again over another one of the same name."""
    monkeypatch.setattr(steering, "GRACE_US", 100_000)
    lab = make_lab()
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    connection.sendall(b"before")
    assert helpers.receive(theirs, 6) == b"before"
    names = (lab.device, lab.peer_end.name)
    lab.host.run(["ip", "link", "del", lab.device])
    helpers.wait_until(lambda: stack.poll(0.01) or connection.owner is Owner.KERNEL, "the way up")
    waiting = connection.post_send(b"meanwhile")
    veth_pair(lab.host, lab.peer, names=names)
    helpers.wait_until(lambda: stack.poll(0.01) or connection.owner is Owner.TARGET, "the way down")
    connection.sendall(b"after")
    assert helpers.receive(theirs, 14) == b"meanwhileafter"
    theirs.sendall(b"answer")
    assert connection.recv(6) == b"answer"
    assert waiting.done
    connection.detach()
