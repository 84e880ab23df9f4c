"""Sockets that cannot be offloaded: refused with a reason that a person understands, and working on as before."""

import contextlib
import ctypes
import select
import socket
import struct
import threading

import pytest

from chimney.host.errors import NotOffloadable
from chimney.host.linux import conntrack, eligibility, route
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import endpoint_of
from chimney.lab.namespace import Namespace
from chimney.lab.wire import veth_pair

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])


def refused(sock, words):
    with pytest.raises(NotOffloadable, match=words):
        eligibility.plan(sock)


def echo(ours, theirs, helpers):
    ours.sendall(b"still there?")
    assert helpers.receive(theirs, 12) == b"still there?"
    theirs.sendall(b"yes")
    assert helpers.receive(ours, 3) == b"yes"


def ip_options(sock):
    """No operations, as many as fill a word."""
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x01")


def destination_options(sock):
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\x00\x00\x01\x04\x00\x00\x00\x00")


def locked_filter(sock):
    accept = so.assemble((0x06, 0, 0, 0xFFFF))
    sock.setsockopt(socket.SOL_SOCKET, so.SO_ATTACH_FILTER, accept.program)
    sock.setsockopt(socket.SOL_SOCKET, so.SO_LOCK_FILTER, 1)


def peek_offset(sock):
    sock.setsockopt(socket.SOL_SOCKET, so.SO_PEEK_OFF, 0)


def repair_mode(sock):
    sock.setsockopt(socket.IPPROTO_TCP, so.TCP_REPAIR, 1)


def leave_repair_mode(sock):
    sock.setsockopt(socket.IPPROTO_TCP, so.TCP_REPAIR, -1)


def nothing(sock):
    pass


@pytest.mark.parametrize(
    ("family", "spoil", "words", "mend"),
    [
        (V4, ip_options, "IP options", nothing),
        (V6, destination_options, "extension headers", nothing),
        (V4, locked_filter, "filter is locked", nothing),
        (V4, peek_offset, "peek offset", nothing),
        (V4, repair_mode, "repair mode", leave_repair_mode),
    ],
    ids=["ip options", "ipv6 options", "locked filter", "peek offset", "repair mode"],
)
def test_what_a_socket_can_have(lab, helpers, family, spoil, words, mend):
    ours, theirs = lab.connect(family)
    spoil(ours)
    refused(ours, words)
    mend(ours)
    echo(ours, theirs, helpers)


def test_an_ebpf_filter(lab, helpers):
    ours, theirs = lab.connect()
    program = load_socket_filter()
    if program is None:
        pytest.skip("the kernel does not let this user load eBPF (kernel.unprivileged_bpf_disabled)")
    ours.setsockopt(socket.SOL_SOCKET, 50, struct.pack("i", program))
    refused(ours, "use a classic filter")
    echo(ours, theirs, helpers)


def load_socket_filter():
    """`return 0xffff` as an eBPF socket filter, by bpf(2); None when that is forbidden."""
    move, leave = struct.pack("=BBhi", 0xB7, 0, 0, 0xFFFF), struct.pack("=BBhi", 0x95, 0, 0, 0)
    code = ctypes.create_string_buffer(move + leave, 16)
    license_name = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(license_name)).ljust(128, b"\0")
    program_load, prog_load_command = 321, 5
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(
        program_load, prog_load_command, ctypes.create_string_buffer(attributes, 128), 128
    )
    return descriptor if descriptor >= 0 else None


def test_urgent_data(lab, helpers):
    ours, theirs = lab.connect()
    theirs.send(b"!", socket.MSG_OOB)
    poll = select.poll()
    poll.register(ours, select.POLLPRI)
    assert poll.poll(5000)
    refused(ours, "urgent data")
    assert ours.recv(1, socket.MSG_OOB) == b"!"
    echo(ours, theirs, helpers)


def test_sockets_that_are_no_established_connections(lab):
    listener = lab.keep(lab.host.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    refused(listener, "it listens: pass the sockets that it accepts")
    refused(lab.keep(lab.host.socket()), "not connected")
    refused(lab.keep(lab.host.socket(kind=socket.SOCK_DGRAM)), "no TCP socket")
    unix, other = socket.socketpair()
    with unix, other:
        refused(unix, "no TCP socket")
    closed = lab.host.socket()
    closed.close()
    refused(closed, "closed")
    opening = lab.keep(lab.host.socket())
    opening.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        opening.connect(("10.9.0.77", 9))
    refused(opening, "still being opened")


@FAMILIES
def test_the_way_of_a_connection_that_has_ended(lab, helpers, family):
    ours, theirs = lab.connect(family)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionResetError):
        helpers.receive(ours, 1)
    for _ in range(2):
        with pytest.raises(NotOffloadable, match="does not tell about it"):
            eligibility.where(ours)
        ours.close()


def test_multipath_tcp(lab):
    try:
        multipath = lab.keep(lab.host.socket(protocol=so.IPPROTO_MPTCP))
    except OSError:
        pytest.skip("this kernel has no Multipath TCP")
    refused(multipath, "Multipath TCP")


def test_a_signed_connection(lab, helpers):
    def sign(address):
        def prepare(sock):
            key = b"secret"
            to = struct.pack("=H", V4) + struct.pack("!H", 0) + socket.inet_aton(address) + bytes(120)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, 14, to + struct.pack("=BBHi80s", 0, 0, len(key), 0, key))
                signed.append(sock)

        return prepare

    signed = []
    listener = lab.keep(lab.peer.socket())
    listener.bind((lab.peer_end.address(V4), 0))
    listener.listen()
    ours = lab.keep(lab.host.socket())
    sign(lab.peer_end.address(V4))(ours)
    sign(lab.host_end.address(V4))(listener)
    if len(signed) < 2:
        pytest.skip("this kernel has no TCP MD5 signatures")
    ours.connect(listener.getsockname())
    theirs = lab.keep(listener.accept()[0])
    refused(ours, "signed")
    echo(ours, theirs, helpers)


def test_another_network_namespace(lab, helpers):
    ours, theirs = lab.connect()
    said = []

    def elsewhere():
        try:
            with lab.peer:
                eligibility.check(ours)
        except NotOffloadable as error:
            said.append(str(error))

    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()
    assert "another network namespace" in said[0]
    eligibility.check(ours)
    echo(ours, theirs, helpers)


def test_link_local_addresses(lab, helpers):
    def link_local(end):
        with end.namespace, open("/proc/net/if_inet6") as table:
            found = next(line.split()[0] for line in table if line.startswith("fe80") and end.name in line)
        return socket.inet_ntop(V6, bytes.fromhex(found))

    listener = lab.keep(lab.peer.socket(V6))
    listener.bind((link_local(lab.peer_end), 0, 0, lab.peer_end.index))
    listener.listen()
    ours = lab.keep(lab.host.socket(V6))
    ours.connect((*listener.getsockname()[:2], 0, lab.host_end.index))
    refused(ours, "link-local")
    echo(ours, lab.keep(listener.accept()[0]), helpers)


def test_without_privileges(lab, unprivileged):
    ours, _ = lab.connect()

    def attempt():
        try:
            eligibility.plan(ours)
        except NotOffloadable as error:
            return str(error)
        return "offloadable"

    assert "CAP_NET_ADMIN" in unprivileged(attempt)


@FAMILIES
@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
def test_the_plan_of_a_connection(lab, family, mapped):
    if mapped and family == V6:
        family = V4
    ours, theirs = lab.connect(family, mapped=mapped)
    plan = eligibility.plan(ours)
    assert plan.device == lab.device and plan.path_mtu == 1500
    assert plan.neighbor_mac == lab.peer_end.mac
    assert plan.flow.local_address == socket.inet_pton(family, lab.host_end.address(family))
    assert plan.flow.remote_port == theirs.getsockname()[1]
    assert plan.path.destination_address == socket.inet_pton(family, lab.peer_end.address(family))


@FAMILIES
def test_the_plan_within_the_host(lab, family):
    ours, _ = lab.connect(family, loopback=True)
    plan = eligibility.plan(ours)
    assert (plan.device, plan.neighbor_mac, plan.path_mtu) == ("lo", bytes(6), 65536)


@FAMILIES
def test_an_unknown_neighbor_is_asked_for(lab, family):
    ours, _ = lab.connect(family)
    lab.host.run(["ip", "neigh", "flush", "dev", lab.device])
    assert eligibility.plan(ours).neighbor_mac == lab.peer_end.mac


def test_a_neighbor_that_does_not_answer(lab):
    local, remote = endpoint_of(("10.9.0.1", 1)), endpoint_of(("10.9.0.99", 2))
    with pytest.raises(NotOffloadable, match="10.9.0.99 on .* does not answer"):
        route.lookup(local, remote, timeout=0.05)


def test_no_route(lab):
    with pytest.raises(NotOffloadable, match="no route"):
        route.lookup(endpoint_of(("10.9.0.1", 1)), endpoint_of(("192.0.2.1", 2)))
    lab.host.run(["ip", "route", "add", "blackhole", "192.0.2.0/24"])
    with pytest.raises(NotOffloadable, match="no route|none that packets can take"):
        route.lookup(endpoint_of(("10.9.0.1", 1)), endpoint_of(("192.0.2.1", 2)))


@FAMILIES
def test_a_gateway_and_a_path_with_a_smaller_mtu(lab, family):
    far, gateway = "192.0.2.1" if family == V4 else "2001:db8::1", lab.peer_end.address(family)
    lab.host.run(["ip", "route", "add", far, "via", gateway, "mtu", "1400"])
    name = (far, 2) if family == V4 else (far, 2, 0, 0)
    here = lab.host_end.address(family)
    path = route.lookup(endpoint_of((here, 1) if family == V4 else (here, 1, 0, 0)), endpoint_of(name))
    assert path.next_hop == socket.inet_pton(family, gateway)
    assert (path.mtu, path.device_mtu, path.neighbor_mac) == (1400, 1500, lab.peer_end.mac)


def test_the_route_of_a_marked_or_bound_socket(lab):
    third = Namespace()
    second_wire, _ = veth_pair(lab.host, third, addresses_a=["10.8.0.1/24"], addresses_b=["10.9.0.2/32", "10.8.0.2/24"])
    lab.host.run(["ip", "route", "add", "10.9.0.2", "via", "10.8.0.2", "table", "99"])
    lab.host.run(["ip", "rule", "add", "fwmark", "7", "table", "99"])
    local, remote = endpoint_of(("10.9.0.1", 1)), endpoint_of(("10.9.0.2", 2))
    assert route.lookup(local, remote).device == lab.device
    assert route.lookup(local, remote, mark=7).device == second_wire.name
    third.close()


def test_connection_tracking_that_does_not_know_the_flow(lab):
    assert conntrack.make_liberal(endpoint_of(("10.9.0.1", 1)), endpoint_of(("10.9.0.2", 2))) is False
