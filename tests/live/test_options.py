"""Socket options: which survive a connection's way down and up, and which have their effect while it is offloaded."""

import dataclasses
import errno
import select
import socket
import struct
import time

import pytest

import chimney
from chimney.host.linux import sockopts as so
from chimney.lab.firewall import Block
from chimney.ndis.status import TcpCachedFlags

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
TCP, SOCKET, IP, IPV6 = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6

# What an application may have set: (level, option, value, read back as).
OPTIONS = {
    "TCP_NODELAY": (TCP, socket.TCP_NODELAY, 1, 1),
    "TCP_KEEPIDLE": (TCP, socket.TCP_KEEPIDLE, 77, 77),
    "TCP_KEEPINTVL": (TCP, socket.TCP_KEEPINTVL, 11, 11),
    "TCP_KEEPCNT": (TCP, socket.TCP_KEEPCNT, 3, 3),
    "TCP_USER_TIMEOUT": (TCP, socket.TCP_USER_TIMEOUT, 12_345, 12_345),
    "TCP_CONGESTION": (TCP, socket.TCP_CONGESTION, b"reno", b"reno"),
    "TCP_LINGER2": (TCP, socket.TCP_LINGER2, 9, 9),
    "TCP_NOTSENT_LOWAT": (TCP, so.TCP_NOTSENT_LOWAT, 100_000, 100_000),
    "SO_KEEPALIVE": (SOCKET, socket.SO_KEEPALIVE, 1, 1),
    "SO_REUSEADDR": (SOCKET, socket.SO_REUSEADDR, 1, 1),
    "SO_LINGER": (SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7), struct.pack("ii", 1, 7)),
    "SO_MARK": (SOCKET, so.SO_MARK, 42, 42),
    "SO_PRIORITY": (SOCKET, socket.SO_PRIORITY, 5, 5),
    "SO_SNDBUF": (SOCKET, socket.SO_SNDBUF, 100_000, 200_000),
    "SO_RCVBUF": (SOCKET, socket.SO_RCVBUF, 100_000, 200_000),
    "SO_RCVLOWAT": (SOCKET, socket.SO_RCVLOWAT, 3, 3),
    "SO_OOBINLINE": (SOCKET, socket.SO_OOBINLINE, 1, 1),
    "SO_RCVTIMEO": (SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 3, 0), struct.pack("ll", 3, 0)),
    "SO_MAX_PACING_RATE": (SOCKET, 47, 5_000_000, 5_000_000),
}
OF_A_FAMILY = {
    V4: {"IP_TOS": (IP, socket.IP_TOS, 0x28, 0x28), "IP_TTL": (IP, socket.IP_TTL, 33, 33)},
    V6: {
        "IPV6_TCLASS": (IPV6, socket.IPV6_TCLASS, 0x28, 0x28),
        "IPV6_UNICAST_HOPS": (IPV6, socket.IPV6_UNICAST_HOPS, 33, 33),
    },
}


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=1) as made:
        yield made


def read(sock, level, option, like):
    if isinstance(like, bytes):
        return sock.getsockopt(level, option, 16)[: len(like)]
    return sock.getsockopt(level, option)


@FAMILIES
@pytest.mark.parametrize("when", ["before", "while offloaded"])
def test_every_option_survives_the_round_trip(lab, stack, family, when):
    ours, _ = lab.connect(family)
    # IP_TOS changes the priority, too.
    options = OF_A_FAMILY[family] | OPTIONS
    connection = stack.connection(ours)
    if when == "while offloaded":
        connection.offload()
    for level, option, value, _ in options.values():
        connection.setsockopt(level, option, value)
    connection.offload()
    assert connection.getsockopt(SOCKET, socket.SO_KEEPALIVE) and connection.getsockopt(SOCKET, socket.SO_REUSEADDR)
    for _ in range(3):
        connection.upload()
        connection.offload()
    connection.detach()
    found = {name: read(ours, level, option, shown) for name, (level, option, _, shown) in options.items()}
    assert found == {name: shown for name, (_, _, _, shown) in options.items()}


def test_a_filter_and_a_device_that_are_set_while_offloaded_are_the_kernels_afterwards(lab, helpers, stack):
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    own = so.assemble((0x06, 0, 0, 0x40000))
    connection.setsockopt(SOCKET, so.SO_ATTACH_FILTER, own.program)
    connection.setsockopt(SOCKET, socket.SO_BINDTODEVICE, lab.device.encode())
    connection.sendall(b"still offloaded")
    assert helpers.receive(theirs, 15) == b"still offloaded"
    connection.detach()
    assert so.read_filter(ours.fileno()).instructions == own.instructions
    assert ours.getsockopt(SOCKET, so.SO_BINDTOIFINDEX) == lab.host_end.index
    theirs.sendall(b"passed")
    assert helpers.receive(ours, 6) == b"passed"


def test_what_is_about_the_kernels_processing_is_refused_while_offloaded(lab, stack):
    ours, _ = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    with pytest.raises(chimney.ChimneyError, match="upload it first"):
        connection.setsockopt(TCP, so.TCP_ULP, b"tls")
    with pytest.raises(OSError) as raised:
        connection.setsockopt(SOCKET, so.SO_BINDTODEVICE, b"no such thing")
    assert raised.value.errno == errno.ENODEV


# Effects while offloaded


def cached_below(connection):
    """The cached variables that the target has."""
    [tcp] = connection.adapter.target.connections.values()
    return tcp.cached


def test_the_target_hears_of_options_set_before_and_of_those_changed(lab, stack):
    ours, _ = lab.connect()
    ours.setsockopt(SOCKET, socket.SO_KEEPALIVE, 1)
    ours.setsockopt(TCP, socket.TCP_KEEPIDLE, 50)
    connection = stack.connection(ours)
    connection.offload()
    below = cached_below(connection)
    assert below.flags == TcpCachedFlags.KEEP_ALIVE_ENABLED | TcpCachedFlags.NAGLING_ENABLED
    assert (below.ka_timeout, below.max_rt) == (50_000, 0)
    before = dataclasses.replace(below)
    connection.setsockopt(TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(SOCKET, socket.SO_KEEPALIVE, 0)
    connection.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 9_000)
    connection.setsockopt(IP, socket.IP_TTL, 7)
    connection.setsockopt(IP, socket.IP_TOS, 0x28)
    connection.setsockopt(SOCKET, socket.SO_RCVBUF, 300_000)
    while cached_below(connection).initial_rcv_wnd == before.initial_rcv_wnd:
        stack.poll(1)
    below = cached_below(connection)
    assert below.flags == TcpCachedFlags(0)
    assert (below.max_rt, below.ttl_or_hop_limit, below.tos_or_traffic_class) == (9_000, 7, 0x28)
    assert below.initial_rcv_wnd == ours.getsockopt(SOCKET, socket.SO_RCVBUF) // 2
    # Nobody is asked twice.
    stack.poll(0)
    assert connection.offloaded and not connection.setsockopt(IP, socket.IP_TTL, 7)


@FAMILIES
def test_packets_carry_the_changed_ttl_and_tos(lab, helpers, stack, family):
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    level, hops, traffic_class = (
        (IP, socket.IP_TTL, socket.IP_TOS) if family == V4 else (IPV6, socket.IPV6_UNICAST_HOPS, socket.IPV6_TCLASS)
    )
    connection.setsockopt(level, hops, 99)
    connection.setsockopt(level, traffic_class, 0x48)
    stack.poll(0)
    with lab.peer:
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    with listening:
        listening.bind((lab.peer_end.name, 3))
        connection.sendall(b"marked")
        assert helpers.receive(theirs, 6) == b"marked"
        # The kernel has something to say as well, about multicast groups for instance.
        packets = iter(lambda: listening.recv(2000, socket.MSG_DONTWAIT), None)
        packet = next(packet for packet in packets if packet.endswith(b"marked"))
    if family == V4:
        assert (packet[8], packet[1]) == (99, 0x48)
    else:
        assert (packet[7], (packet[0] << 8 | packet[1]) >> 4 & 0xFF) == (99, 0x48)


# The errors at the end of options' times


def expire(stack, connection, request):
    started = time.monotonic()
    while not request.done:
        stack.poll(1)
        assert time.monotonic() - started < 10
    return request.error


@FAMILIES
def test_a_user_timeout_ends_it_as_in_the_kernel(lab, helpers, stack, family):
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    connection.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 300)
    theirs.sendall(b"unread")
    stack.poll(0.2)
    deaf = Block(lab.peer, theirs.getsockname()[1])
    send = connection.post_send(b"to nobody")
    receive = connection.post_receive(bytearray(1))
    error = expire(stack, connection, send)
    deaf.remove()
    assert isinstance(error, TimeoutError) and error.errno == errno.ETIMEDOUT
    assert receive.done and receive.error is None
    while connection.offloaded:
        stack.poll(0.1)
    rest = connection.recv(10)
    assert rest == b"nread"
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.detach()
    assert helpers.state_of(ours).name == "CLOSE"
    # A request has told of it: the socket need not.
    assert ours.getsockopt(SOCKET, socket.SO_ERROR) == 0 and ours.recv(1) == b""
    assert ours.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 300


def test_keepalive_ends_it_as_in_the_kernel(lab, helpers, stack):
    ours, theirs = lab.connect()
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 1)):
        ours.setsockopt(TCP, option, value)
    ours.setsockopt(SOCKET, socket.SO_KEEPALIVE, 1)
    connection = stack.connection(ours)
    connection.offload()
    Block(lab.peer, theirs.getsockname()[1])
    while connection.offloaded:
        stack.poll(1)
    connection.detach()
    # Nobody has been told: the socket tells it, as it would have.
    poll = select.poll()
    poll.register(ours, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    assert [events for _, events in poll.poll(0)] == [
        select.POLLIN | select.POLLOUT | select.POLLERR | select.POLLHUP | select.POLLRDHUP
    ]
    assert ours.getsockopt(SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
    assert ours.getsockopt(SOCKET, socket.SO_ERROR) == 0
    with pytest.raises(BrokenPipeError):
        ours.send(b"x")
