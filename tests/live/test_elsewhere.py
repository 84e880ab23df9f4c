"""What arrives elsewhere reaches its connection all the same: on another interface, in fragments, with IP options.

The peer's kernel is told not to repeat anything for a long time: what arrives has been sent once.
"""

import contextlib
import itertools
import socket
import struct
import threading

import pytest

import chimney
from chimney.host.linux import handover, inject
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import Endpoint, endpoint_of
from chimney.host.linux.tcp_info import tcp_info
from chimney.lab import firewall
from chimney.lab.tap import Tap
from chimney.lab.wire import veth_pair
from chimney.link.raw import RawSockets
from tests.live.traffic import Traffic, cycle

V4, V6 = socket.AF_INET, socket.AF_INET6
BOTH = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
ROLES = pytest.mark.parametrize("role", ["client", "server"])
IPV6_HOPOPTS, IPV6_DSTOPTS = 54, 59
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=1) as made:
        yield made


@pytest.fixture
def net(routed):
    """The routed laboratory with a patient peer: no time-out, and no probe of the tail (TLP), for a minute."""
    routed.peer.sysctl("net.ipv4.tcp_early_retrans", 0)
    for version in ("-4", "-6"):
        [route] = routed.peer.run(["ip", version, "route", "show", "default"]).splitlines()
        routed.peer.run(["ip", version, "route", "replace", *route.split(), "rto_min", "60s"])
    return routed


def repeated(sock):
    """Segments that the kernel has sent again."""
    return tcp_info(sock)["tcpi_total_retrans"]


def by_another_way(net, family):
    """The peer's packets arrive on eth1 from now on; the host sends by eth0."""
    net.network.return_by(net.b, "eth1", (family,))


def settle(stack, condition, what, helpers):
    """Run the stack until something is the case."""
    helpers.wait_until(lambda: stack.poll(0.001) or condition(), what)


def receive(stack, connection, size, helpers):
    """That many bytes, or up to the end of the stream."""
    got = b""
    while len(got) < size:
        request = connection.post_receive(bytearray(size - len(got)))
        settle(stack, lambda: request.done, f"{size - len(got)} bytes more", helpers)  # noqa: B023
        assert request.error is None
        if not request.bytes_transferred:
            break
        got += request.view[: request.bytes_transferred]
    return got


# Another interface


@BOTH
@ROLES
def test_both_directions_take_different_interfaces(net, helpers, stack, family, role):
    """Down and up in mid-transfer, while nothing of the peer's arrives on the interface that the target has."""
    ours, theirs = net.connect(family, role)
    by_another_way(net, family)
    size, later = 6_000_000, 1_000_000
    outgoing, incoming = helpers.pattern(size), helpers.pattern(size, 1 << 32)
    sending, received = helpers.Sending(theirs, incoming[:-later]), helpers.Receiving(theirs, size)
    connection = stack.connection(ours)
    traffic = Traffic(connection, outgoing)
    cycle(stack, connection, traffic, 8, 100_000)
    connection.offload()
    traffic.more(stack, size - later - len(traffic.incoming))
    sending.join()
    sending = helpers.Sending(theirs, incoming[-later:])
    traffic.rest(stack, size)
    assert traffic.incoming == incoming and received.join() == outgoing
    sending.join()
    assert connection.info().bytes_received_target >= later
    assert net.resets() == 0
    # The end, too, comes that way.
    theirs.shutdown(socket.SHUT_WR)
    assert receive(stack, connection, 1, helpers) == b""
    connection.upload()
    connection.close()


@BOTH
def test_the_kernel_takes_back_what_the_peer_was_offered(net, helpers, family):
    """What waits unread, and what the peer has sent into the window, although the system lets sockets have little."""
    net.host.sysctl("net.ipv4.tcp_rmem", "4096 131072 1000000")
    ours, theirs = net.connect(family, "server")
    by_another_way(net, family)
    incoming = helpers.pattern(6_000_000)
    with net.host, chimney.Stack(intermediate_drivers=1) as stack:
        assert stack.config.receive_window == 500_000
        sending = helpers.Sending(theirs, incoming)
        traffic = Traffic(stack.connection(ours), b"")
        cycle(stack, traffic.connection, traffic, 20, 50_000)
        traffic.rest(stack, len(incoming))
    assert traffic.incoming == incoming
    sending.join()
    assert repeated(theirs) == net.resets() == 0


@BOTH
def test_the_peers_packets_change_their_way_all_the_time(net, helpers, stack, family):
    """In the middle of hand-overs, too."""
    ours, theirs = net.connect(family, "server")
    size = 6_000_000
    incoming = helpers.pattern(size)
    stop = threading.Event()

    def flap():
        for gateway, device in itertools.cycle([(net.b, "eth1"), (net.a, "eth0")]):
            net.network.return_by(gateway, device, (family,))
            if stop.is_set():
                return

    flapping = threading.Thread(target=flap)
    flapping.start()
    try:
        sending = helpers.Sending(theirs, incoming)
        connection = stack.connection(ours)
        traffic = Traffic(connection, b"")
        cycle(stack, connection, traffic, 20, 50_000)
        traffic.rest(stack, size)
    finally:
        stop.set()
        flapping.join()
    assert traffic.incoming == incoming
    sending.join()
    assert net.resets() == 0


class Arrivals:
    """What has reached the host on eth1 so far."""

    def __init__(self, net, theirs, helpers, contexts):
        self._tap = contexts.enter_context(Tap(net.host, "eth1"))
        self._theirs, self._helpers = theirs, helpers
        self.sent = b""

    def one(self):
        """The peer sends a byte, and it has arrived when this returns; nobody need have processed it."""
        self._tap.drain()
        self.sent += bytes([len(self.sent) % 256])
        self._theirs.sendall(self.sent[-1:])
        self._helpers.wait_until(lambda: any(packet.length for packet in self._tap.drain()), "a segment on eth1")


@pytest.fixture
def arrivals(net, helpers):
    with contextlib.ExitStack() as contexts:
        yield lambda theirs: Arrivals(net, theirs, helpers, contexts)


@BOTH
@ROLES
def test_at_every_step_of_a_hand_over(net, helpers, stack, arrivals, family, role, monkeypatch):
    """A segment that arrives on the other interface before any of the calls that change who hears what is neither
    answered by an RST, nor lost."""
    ours, theirs = net.connect(family, role)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    by_another_way(net, family)
    connection = stack.connection(ours)
    connection.offload()
    connection.upload()
    arriving = arrivals(theirs)
    steps = []

    def meanwhile(name, call):
        def called(*arguments):
            arriving.one()
            steps.append(name)
            return call(*arguments)

        return called

    for module, name in ((so, "connect"), (so, "disconnect"), (so, "bind"), (handover, "dump")):
        monkeypatch.setattr(module, name, meanwhile(name, getattr(module, name)))
    connection.offload()
    down, steps = steps, []
    monkeypatch.setattr(connection._kernel, "give_back", meanwhile("give_back", connection._kernel.give_back))
    connection.upload()
    assert {"connect", "disconnect", "dump"} <= set(down) and {"connect", "disconnect", "give_back"} <= set(steps)
    assert receive(stack, connection, len(arriving.sent), helpers) == arriving.sent
    assert net.resets() == 0 and repeated(theirs) == 0


@BOTH
def test_in_the_middle_of_an_initiate(net, helpers, stack, arrivals, family, monkeypatch):
    """What comes between the cut and the target's first word is forwarded."""
    ours, theirs = net.connect(family)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    by_another_way(net, family)
    connection = stack.connection(ours)
    arriving = arrivals(theirs)
    take = connection._kernel.take

    def taken(*arguments):
        state = take(*arguments)
        arriving.one()
        return state

    monkeypatch.setattr(connection._kernel, "take", taken)
    connection.offload()
    arriving.one()
    assert receive(stack, connection, 2, helpers) == arriving.sent and connection.offloaded
    assert repeated(theirs) == 0


@BOTH
def test_what_the_firewall_drops_there_is_dropped(net, helpers, stack, family):
    ours, theirs = net.connect(family)
    by_another_way(net, family)
    connection = stack.connection(ours)
    connection.offload()
    rule = 'iifname "eth1" tcp flags & (syn|rst) == 0 counter name dropped drop'
    chain = f"  chain incoming {{\n    type filter hook input priority 0;\n    {rule}\n  }}\n"
    firewall.load(net.host, f"table inet strict {{\n  counter dropped {{ }}\n{chain}}}\n")
    request = connection.post_receive(bytearray(10))
    theirs.sendall(b"forbidden")
    dropped = lambda: firewall.counters(net.host, "strict")["dropped"].packets  # noqa: E731
    settle(stack, dropped, "a packet that the firewall drops", helpers)
    for _ in range(20):
        stack.poll(0.001)
    assert not request.done


@BOTH
def test_a_corrupt_segment_is_no_segment(net, helpers, stack, arrivals, family):
    ours, theirs = net.connect(family)
    by_another_way(net, family)
    connection = stack.connection(ours)
    connection.offload()
    request = connection.post_receive(bytearray(10))
    send, tcp = crafted(net, theirs, ours, b"corrupt")
    send(tcp[:16] + bytes([tcp[16] ^ 1]) + tcp[17:])
    arriving = arrivals(theirs)
    arriving.one()
    settle(stack, lambda: request.done, "the next segment", helpers)
    assert bytes(request.view[: request.bytes_transferred]) == arriving.sent


def test_an_interface_that_comes_later(lab, helpers, stack):
    """The kernel tells of it."""
    ours, theirs = lab.connect(V4)
    connection = stack.connection(ours)
    connection.offload()
    names = ("later0", "later1")
    later, _ = veth_pair(lab.host, lab.peer, names=names, addresses_a=["10.77.0.1/24"], addresses_b=["10.77.0.2/24"])
    for device in ("all", "later0"):
        lab.host.sysctl(f"net.ipv4.conf.{device}.rp_filter", 0)
    stack.poll(0.01)
    lab.peer.run(["ip", "route", "add", "10.9.0.1/32", "via", "10.77.0.1", "dev", "later1"])
    theirs.sendall(b"by the new one")
    settle(stack, lambda: stack.elsewhere._devices and later.index in stack.elsewhere._devices, "the news", helpers)
    assert receive(stack, connection, 14, helpers) == b"by the new one"


@BOTH
def test_very_many_connections_are_heard_by_their_local_ports(lab, helpers, family):
    """And few of them exactly."""
    here, there = lab.host_end.address(family), lab.peer_end.address(family)
    addresses = socket.inet_pton(family, here), socket.inet_pton(family, there)
    raw = lab.keep(lab.peer.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP))
    flows = [(addresses[0], 80, addresses[1], port) for port in range(1000, 1100)]

    def heard():
        """Which of some segments, by their numbers: the last one always is."""
        ports = ((1000, 80), (5000, 80), (1000, 81), (1001, 80), (1000, 80))
        for seq, pair in enumerate(ports):
            source, destination = (Endpoint(at, port) for at, port in zip(addresses[::-1], pair, strict=True))
            raw.sendto(inject.segment(source, destination, seq, 2, inject.ACK), (here, 0))
        found = []

        def last_one():
            found.extend(struct.unpack_from("!I", packet, at + 4)[0] for packet, at in sockets.receive(8))
            return found[-1:] == [len(ports) - 1]

        helpers.wait_until(last_one, "the last segment")
        return found

    with contextlib.closing(RawSockets()) as sockets:
        sockets.listen({lab.host_end.index: flows, 4711: flows})
        assert heard() == [0, 1, 3, 4]
        sockets.listen({lab.host_end.index: flows[:1]})
        assert heard() == [0, 4]
        sockets.listen({})
        assert not sockets.receive(8)


# IP options, extension headers and fragments

RECORD_ROUTE = bytes((7, 7, 4, 0, 0, 0, 0, 0))
PADDING = bytes((0, 0, 1, 4, 0, 0, 0, 0))
WITH_OPTIONS = pytest.mark.parametrize(
    ("family", "level", "option", "value"),
    [
        (V4, socket.IPPROTO_IP, socket.IP_OPTIONS, RECORD_ROUTE),
        (V6, socket.IPPROTO_IPV6, IPV6_DSTOPTS, PADDING),
        (V6, socket.IPPROTO_IPV6, IPV6_HOPOPTS, PADDING),
    ],
    ids=["record route", "destination options", "hop-by-hop options"],
)
ANYWHERE = pytest.mark.parametrize("other", [False, True], ids=["here", "elsewhere"])


@WITH_OPTIONS
@ANYWHERE
def test_options(net, helpers, stack, family, level, option, value, other):
    """All of the peer's packets carry them; its kernel would leave no room for them."""
    ours, theirs = net.connect(
        family, prepare=lambda sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1200)
    )
    theirs.setsockopt(level, option, value)
    chunk_by_chunk(net, helpers, stack, ours, theirs, other)


@ANYWHERE
def test_fragments_by_a_router(net, helpers, stack, other):
    """The peer does not ask for "don't fragment", and a router has a smaller MTU."""
    ours, theirs = net.connect(V4)
    theirs.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    net.network.set_mtu(600)
    chunk_by_chunk(net, helpers, stack, ours, theirs, other)


def chunk_by_chunk(net, helpers, stack, ours, theirs, other):
    """The peer sends, down and up and down again, and ends; nothing was sent twice."""
    if other:
        by_another_way(net, theirs.family)
    connection = stack.connection(ours)
    size, at = 50_000, 0
    for step in range(6):
        (connection.upload if step % 2 else connection.offload)()
        words = helpers.pattern(size, at)
        sending = helpers.Sending(theirs, words)
        assert receive(stack, connection, size, helpers) == words
        sending.join()
        connection.sendall(b"thanks")
        assert helpers.receive(theirs, 6) == b"thanks"
        at += size
    connection.offload()
    assert connection.info().bytes_received_target == 3 * size
    theirs.shutdown(socket.SHUT_WR)
    assert receive(stack, connection, 1, helpers) == b""
    assert net.resets() == 0 and repeated(theirs) == 0


@BOTH
@ANYWHERE
def test_fragments_by_the_peer(net, helpers, stack, family, other):
    """The second one first."""
    ours, theirs = net.connect(family)
    if other:
        by_another_way(net, family)
    connection = stack.connection(ours)
    connection.offload()
    words = helpers.pattern(900)
    send, tcp = crafted(net, theirs, ours, words)
    send(tcp[512:], 512, False)
    send(tcp[:512], 0, True)
    assert receive(stack, connection, len(words), helpers) == words
    # The peer's kernel says the same, which is no news, and goes on.
    theirs.sendall(words + b"and more")
    assert receive(stack, connection, 8, helpers) == b"and more"


def crafted(net, theirs, ours, payload):
    """What sends (a part of) an IP packet from the peer, and the segment that the peer would send next."""
    family = theirs.family
    source, destination = endpoint_of(theirs.getsockname()), endpoint_of(theirs.getpeername())
    raw = net.keep(net.peer.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
    if family == V6:
        raw.setsockopt(socket.IPPROTO_IPV6, so.IPV6_HDRINCL, 1)
    back, out = net.heard(ours)[::-1]
    stamp = None if back.last_ts is None else (back.last_ts + 1, out.last_ts)
    flags = inject.ACK | inject.PSH
    tcp = inject.segment(source, destination, back.seq_end, back.last_ack, flags, 500, stamp, payload)
    pseudo = source.address + destination.address + struct.pack("!II", len(tcp), socket.IPPROTO_TCP)
    tcp = tcp[:16] + struct.pack("!H", inject.checksum(pseudo + tcp)) + tcp[18:]

    def send(part, offset=0, more=False):
        if family == V4:
            place = offset // 8 | more << 13
            header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 4711, place, 64, socket.IPPROTO_TCP, 0)
        else:
            fragment = b""
            if offset or more:
                fragment = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, offset | more, 4711)
            following = 44 if fragment else socket.IPPROTO_TCP
            header = struct.pack("!IHBB", 6 << 28, len(fragment) + len(part), following, 64)
            part = fragment + part
        raw.sendto(header + source.address + destination.address + part, theirs.getpeername()[:1] + (0,))

    return send, tcp
