"""ICMP about offloaded connections: routers that tell the path MTU, or why nothing arrives, and forgers who do so."""

import errno
import json
import socket
import struct
import time

import pytest

import chimney
from chimney.host.icmp import IcmpMessage, Meaning
from chimney.host.icmp_watch import IcmpWatch
from chimney.host.kernel import Flow
from chimney.host.linux import icmp, inject
from chimney.host.linux.dump import endpoint_of

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
SIZE = 5_000_000
MSS = {V4: 1280 - 52, V6: 1280 - 72}
IP_RECVERR, IPV6_RECVERR, IPV6_HDRINCL = 11, 25, 36
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=1) as made:
        yield made


class Transfer:
    """Sends SIZE bytes of a pattern over an offloaded connection to the peer, which a thread of the peer's compares."""

    def __init__(self, lab, helpers, stack, family=V4, **ends):
        self.lab, self.stack = lab, stack
        self.ours, self.theirs = lab.connect(family, **ends)
        self.connection = stack.connection(self.ours)
        self.connection.offload()
        self.data = helpers.pattern(SIZE)
        self.received = helpers.Receiving(self.theirs, SIZE)
        self.at = self.limit = 0

    @property
    def tcp(self):
        return self.connection.info().tcp

    @property
    def engine(self):
        return next(tcp.engine for tcp in self.connection.adapter.target.connections.values())

    def until(self, condition, what, limit=15.0):
        """Go on sending until a condition holds."""
        end = time.monotonic() + limit
        view = memoryview(self.data)
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.connection.info()}"
            while self.at < self.limit and len(self.connection.sends) < 4:
                self.connection.post_send(view[self.at : self.at + 65536])
                self.at += 65536
            self.stack.poll(0.02)

    def some(self, count=SIZE // 4):
        """Until `count` bytes more have been posted, and some of them are outstanding."""
        self.limit = min(self.at + count, SIZE)
        self.until(lambda: self.at >= self.limit, "sending")

    def pause(self):
        """Until everything that was posted has been acknowledged."""
        self.until(lambda: not self.connection.sends, "the acknowledgement")

    def rest(self):
        """Until the peer has everything."""
        self.limit = SIZE
        self.until(lambda: self.at >= SIZE and not self.connection.sends, "the rest")
        assert self.received.join() == self.data
        assert not self.lab.resets()


def bound(sock):
    """Let it use one device only."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")


def watch_of(stack):
    """What judges the messages."""
    return next(listener for listener in stack._listeners.values() if isinstance(listener, IcmpWatch))


def route_mtu(lab, family):
    """What the host's kernel believes about the path to the peer; None if it has not been told anything."""
    found = json.loads(lab.host.run(["ip", "-j", "route", "get", lab.peer_end.address(family)]))[0]
    return next((part["mtu"] for part in found.get("metrics", []) if "mtu" in part), None)


class Forger:
    """Says what it likes about a connection of the host's, in the name of a router far away."""

    def __init__(self, transfer):
        self.lab = transfer.lab
        local, remote = endpoint_of(transfer.ours.getsockname()), endpoint_of(transfer.ours.getpeername())
        self.flow = Flow(local.address, local.port, remote.address, remote.port)
        self.ipv6 = len(local.address) == 16
        self.family = V6 if self.ipv6 else V4
        self.router = socket.inet_pton(self.family, "fd77::1" if self.ipv6 else "192.0.2.1")
        self.raw = self.lab.keep(self.lab.peer.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_RAW))
        if self.ipv6:
            self.raw.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)

    def too_big(self, seq, mtu):
        word = struct.pack("!I", mtu) if self.ipv6 else struct.pack("!HH", 0, mtu)
        self._say(Meaning.TOO_BIG, seq, (2, 0) if self.ipv6 else (3, 4), word)

    def unreachable(self, seq):
        self._say(Meaning.UNREACHABLE, seq, (1, 3) if self.ipv6 else (3, 1), bytes(4))

    def _say(self, meaning, seq, kind, word):
        message = IcmpMessage(meaning, self.flow, seq & 0xFFFFFFFF, 0, self.router, *kind, word)
        said, to = icmp.quoting(message, message.seq), self.flow.local_address
        if self.ipv6:
            pseudo = self.router + to + struct.pack("!II", len(said), socket.IPPROTO_ICMPV6)
            header = struct.pack("!IHBB", 6 << 28, len(said), socket.IPPROTO_ICMPV6, 64)
        else:
            pseudo = b""
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(said), 0, 0, 64, socket.IPPROTO_ICMP, 0)
        said = said[:2] + struct.pack("!H", inject.checksum(pseudo + said)) + said[4:]
        self.raw.sendto(header + self.router + to + said, (socket.inet_ntop(self.family, to), 0))


def outstanding(transfer):
    """SND.MAX of the offloaded connection, which an acknowledgement would carry, when it has paused."""
    transfer.pause()
    return transfer.engine.snd_max


@pytest.mark.parametrize(
    ("family", "settings", "ends"),
    [
        (V4, {}, {}),
        (V6, {}, {"role": "server"}),
        (V4, {"offloads": False}, {"mapped": True}),
        (V6, {"offloads": False}, {"prepare": bound}),
    ],
    ids=["v4", "v6", "mapped plain nic", "v6 bound plain nic"],
)
def test_the_path_mtu_shrinks_in_mid_transfer(make_routed, helpers, stack, family, settings, ends):
    lab = make_routed(**settings)
    transfer = Transfer(lab, helpers, stack, family, **ends)
    transfer.some()
    transfer.pause()
    lab.network.set_mtu(1280)
    transfer.limit = SIZE
    transfer.until(lambda: transfer.tcp["tcpi_pmtu"] == 1280, "the target's path MTU")
    assert transfer.engine.stats.retransmitted_segments, "what was too big is sent again in the same turn"
    transfer.rest()
    assert transfer.tcp["tcpi_pmtu"] == 1280 and transfer.tcp["tcpi_snd_mss"] == MSS[family]
    assert route_mtu(lab, family) == 1280, "the kernel's route has learnt it, for whoever goes there"
    transfer.connection.upload()
    assert transfer.tcp["tcpi_pmtu"] == 1280


@FAMILIES
def test_a_black_hole_without_icmp(routed, helpers, stack, family):
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    routed.network.drop_icmp()
    routed.network.set_mtu(1280)
    transfer.rest()
    assert transfer.tcp["tcpi_snd_mss"] <= MSS[family] and transfer.tcp["tcpi_pmtu"] == 1500
    assert route_mtu(routed, family) is None


def test_the_kernel_comes_out_of_a_black_hole_that_a_target_has_found(routed, helpers, stack, family=V4):
    """It would look for one itself only if net.ipv4.tcp_mtu_probing were set."""
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    routed.network.drop_icmp()
    routed.network.set_mtu(1280)
    transfer.limit = SIZE
    transfer.until(lambda: transfer.tcp["tcpi_snd_mss"] <= MSS[family] and transfer.at > SIZE // 2, "smaller segments")
    transfer.connection.upload()
    transfer.rest()
    assert transfer.connection.info().owner == "kernel"
    assert route_mtu(routed, family) <= 1280


def test_the_kernel_hears_of_it_for_its_own_connections_and_so_does_the_target(routed, helpers, stack, family=V4):
    """One connection in the kernel, one offloaded, to the same destination: what one finds out, both know."""
    transfer = Transfer(routed, helpers, stack, family)
    other, its_peer = routed.connect(family)
    routed.network.set_mtu(1280)
    received = helpers.Receiving(its_peer, 100_000)
    other.sendall(helpers.pattern(100_000))
    assert received.join() == helpers.pattern(100_000)
    assert route_mtu(routed, family) == 1280
    transfer.until(lambda: transfer.tcp["tcpi_pmtu"] == 1280, "the target's path MTU")
    transfer.rest()


def test_the_kernel_hears_of_it_by_another_protocol(routed, helpers, stack, family=V6):
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    transfer.pause()
    routed.network.set_mtu(1280)
    other = routed.keep(routed.host.socket(family, socket.SOCK_DGRAM))
    level, option = (socket.IPPROTO_IP, IP_MTU_DISCOVER) if family == V4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
    other.setsockopt(level, option, PMTUDISC_DO)
    other.sendto(bytes(1400), (routed.peer_end.address(family), 9))
    transfer.until(lambda: transfer.tcp["tcpi_pmtu"] == 1280, "the target's path MTU", 2.0)
    transfer.rest()
    assert not transfer.engine.stats.retransmitted_segments


@FAMILIES
def test_hand_overs_while_the_path_changes(routed, helpers, stack, family):
    transfer = Transfer(routed, helpers, stack, family)
    for turn in range(6):
        transfer.some(SIZE // 10)
        routed.network.set_mtu(1280 if turn % 2 == 0 else 1500)
        if turn % 2:
            routed.network.forget_mtu()
        transfer.some(SIZE // 40)
        transfer.connection.upload()
        transfer.some(SIZE // 100)
        transfer.connection.offload()
    routed.network.set_mtu(1280)
    transfer.rest()
    assert transfer.tcp["tcpi_pmtu"] == 1280


@FAMILIES
def test_forged_messages_do_nothing(routed, helpers, stack, family):
    transfer = Transfer(routed, helpers, stack, family)
    forger = Forger(transfer)
    transfer.some()
    watch = watch_of(stack)
    heard = watch.counters.received
    for offset in (-100_000_000, 100_000_000, 1 << 31):
        forger.too_big(outstanding(transfer) + offset, 1280)
        forger.unreachable(outstanding(transfer) + offset)
    transfer.until(lambda: watch.counters.received == heard + 6, "six messages")
    assert watch.counters.ignored == 6
    # Larger than what is known is no news.
    forger.too_big(outstanding(transfer), 9000)
    forger.too_big(outstanding(transfer), 1500)
    transfer.until(lambda: watch.counters.received == heard + 8, "two more")
    transfer.rest()
    assert transfer.tcp["tcpi_pmtu"] == 1500 and route_mtu(routed, family) is None
    assert not transfer.ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@FAMILIES
def test_a_tiny_mtu_is_clamped_as_the_kernel_does_it(routed, helpers, stack, family):
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    Forger(transfer).too_big(outstanding(transfer), 68)
    watch = watch_of(stack)
    transfer.until(lambda: watch.counters.too_big, "the message")
    # RFC 8201, 4: for IPv6 it is nonsense.
    least = 552 if family == V4 else 1500
    transfer.until(lambda: transfer.tcp["tcpi_pmtu"] == least, "the clamped path MTU")
    assert route_mtu(routed, family) == (least if family == V4 else None)
    transfer.rest()


def test_a_flood_of_messages_is_not_listened_to(routed, helpers, stack):
    transfer = Transfer(routed, helpers, stack)
    forger = Forger(transfer)
    transfer.some()
    watch = watch_of(stack)
    for _ in range(600):
        forger.too_big(12345, 1280)
    transfer.until(lambda: watch.counters.received >= 64, "some of them")
    transfer.some()
    assert watch.counters.received <= 600 and watch.counters.too_big == 0
    transfer.until(lambda: watch.hears, "listening again")
    routed.network.set_mtu(1280)
    transfer.rest()
    assert transfer.tcp["tcpi_pmtu"] == 1280


def no_way(routed, family):
    """The host's gateway does not know any more where the peer is, and says so, until what is returned is called."""
    command = ["ip", "-4" if family == V4 else "-6", "route"]
    way = ["10.9.9.0/24" if family == V4 else "fd09:9::/64", "via", routed.a.far.address(family), "dev", "wan"]
    routed.a.namespace.run([*command, "del", *way])
    return lambda: routed.a.namespace.run([*command, "add", *way])


@FAMILIES
def test_unreachable_is_what_a_time_out_will_have_been_caused_by(routed, helpers, stack, family):
    """RFC 1122, 4.2.3.9: the connection lives on; the socket knows the reason until data arrives again."""
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    way_again = no_way(routed, family)
    watch = watch_of(stack)
    transfer.limit = SIZE
    transfer.until(lambda: watch.counters.unreachable, "an error")
    error = transfer.ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert error in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    way_again()
    transfer.until(lambda: watch.errors == 0, "the error is overcome")
    assert not transfer.ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    transfer.rest()


def test_a_time_out_tells_its_cause(routed, helpers, stack, family=V6):
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    transfer.ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 900)
    transfer.connection.upload()
    transfer.connection.offload()
    no_way(routed, family)
    request = transfer.connection.post_send(bytes(1000))
    transfer.until(lambda: request.done, "the end", 5.0)
    assert request.error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def test_an_error_goes_along_with_the_connection(routed, helpers, stack, family=V4):
    transfer = Transfer(routed, helpers, stack, family)
    transfer.some()
    Forger(transfer).unreachable(outstanding(transfer))
    watch = watch_of(stack)
    transfer.until(lambda: watch.errors, "an error")
    transfer.connection.upload()
    helpers.wait_until(lambda: stack.poll(0.01) or not watch.errors, "the kernel is told")
    transfer.rest()
    assert transfer.connection.info().owner == "kernel"


@FAMILIES
def test_who_wants_to_hear_of_errors_does(routed, helpers, stack, family):
    transfer = Transfer(routed, helpers, stack, family)
    level, option = (socket.IPPROTO_IP, IP_RECVERR) if family == V4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
    transfer.ours.setsockopt(level, option, 1)
    transfer.some()
    request = transfer.connection.post_receive(bytearray(10))
    Forger(transfer).unreachable(outstanding(transfer))
    transfer.until(lambda: request.done, "the error")
    assert request.error.errno == errno.EHOSTUNREACH


def test_behind_a_firewall_that_drops_what_is_invalid(routed, helpers, stack):
    """The kernel is told through the loopback device: connection tracking must find what is said related."""
    chains = "".join(
        f"  chain {name} {{\n    type filter hook {name} priority 0;\n    ct state invalid counter name invalid drop\n"
        "    ct state established,related accept\n  }\n"
        for name in ("input", "output")
    )
    routed.host.run(["nft", "-f", "-"], input=f"table inet strict {{\n  counter invalid {{ }}\n{chains}}}\n")
    transfer = Transfer(routed, helpers, stack)
    transfer.some()
    routed.network.set_mtu(1280)
    transfer.rest()
    assert transfer.tcp["tcpi_pmtu"] == 1280
    assert '"packets": 0' in routed.host.run(["nft", "-j", "list", "counters"])
