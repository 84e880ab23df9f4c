"""Behind a firewall that drops what connection tracking calls invalid or new: it sees the peer's segments alone."""

import dataclasses
import socket
import struct

import pytest

import chimney
from chimney.host.linux import conntrack, handover, netlink
from chimney.host.linux.dump import TcpState, endpoint_of
from chimney.lab.firewall import StatefulFirewall
from tests.live.traffic import run_for, run_until

V4, V6 = socket.AF_INET, socket.AF_INET6
_FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
_TWO_GIGABYTES = (1 << 31) + 1


@pytest.fixture
def stack():
    with chimney.Stack() as made:
        yield made


def ends(sock):
    return endpoint_of(sock.getsockname()), endpoint_of(sock.getpeername())


def forget(sock):
    """What `conntrack -D` does."""
    delete = 1 << 8 | 2
    netlink.request(netlink.NETLINK_NETFILTER, delete, conntrack.whose(*ends(sock)))


def moved_on(state, *names):
    """A connection that is two gigabytes further, in the direction of these sequence numbers."""
    return dataclasses.replace(state, **{name: (getattr(state, name) + _TWO_GIGABYTES) & 0xFFFFFFFF for name in names})


def nothing_was_dropped(firewall):
    found = firewall.counters()
    return not found["invalid"].packets and not found["invalid_out"].packets and not found["rest"].packets


@pytest.mark.parametrize(("family", "role"), [(V4, "client"), (V6, "server")], ids=["v4 client", "v6 server"])
def test_a_long_offloaded_connection_stays_tracked(lab, stack, helpers, family, role):
    """Its entry would time out: the tracker has not seen the last data acknowledged."""
    ours, theirs = lab.connect(family, role)
    firewall = StatefulFirewall(lab.host)
    lab.host.sysctl("net.netfilter.nf_conntrack_tcp_timeout_unacknowledged", 1)
    connection = stack.connection(ours)
    connection.offload()
    theirs.sendall(b"first")
    assert connection.recv(5) == b"first"
    run_for(stack, 2.0)
    assert conntrack.lookup(*ends(ours)) is not None
    theirs.sendall(b"second")
    assert connection.recv(6) == b"second"
    connection.sendall(b"third")
    assert helpers.receive(theirs, 5) == b"third"
    run_for(stack, 0.1)
    assert nothing_was_dropped(firewall)
    assert connection.offloaded and connection.info().offloads == 1


@_FAMILIES
def test_a_forgotten_connection_is_learnt_again(lab, stack, helpers, family):
    """By a segment of ours, as the tracker would learn it from the kernel's own."""
    ours, theirs = lab.connect(family)
    firewall = StatefulFirewall(lab.host)
    lab.host.sysctl("net.netfilter.nf_conntrack_tcp_timeout_unacknowledged", 1)
    connection = stack.connection(ours)
    connection.offload()
    forget(ours)
    run_until(stack, lambda: conntrack.lookup(*ends(ours)) is not None, "it is tracked again")
    sending = helpers.Sending(theirs, helpers.pattern(100_000))
    got = b""
    while len(got) < 100_000:
        got += connection.recv(100_000)
    sending.join()
    assert got == helpers.pattern(100_000)
    run_for(stack, 0.1)
    assert nothing_was_dropped(firewall)
    assert connection.offloaded and connection.info().offloads == 1
    connection.upload()
    sending = helpers.Sending(theirs, helpers.pattern(100_000))
    assert helpers.receive(ours, 100_000) == helpers.pattern(100_000)
    sending.join()
    assert nothing_was_dropped(firewall)


@_FAMILIES
def test_an_rst_gets_through_two_gigabytes_later(lab, stack, helpers, monkeypatch, family):
    """The tracker compares an RST with the last acknowledgement that it has seen of ours."""
    ours, theirs = lab.connect(family)
    firewall = StatefulFirewall(lab.host)
    ours.sendall(b"tracked")
    assert helpers.receive(theirs, 7) == b"tracked"
    with lab.peer:
        peer = handover.take(theirs, lab.peer_end.name)
    connection = stack.connection(ours)
    connection.offload()
    # Both ends are moved on, as if the peer had sent so much meanwhile.
    give_back = connection.kernel.give_back

    def give_back_later(given, meanwhile):
        given.delegated = moved_on(given.delegated, "rcv_nxt", "send_wl1")
        give_back(given, meanwhile)

    monkeypatch.setattr(connection.kernel, "give_back", give_back_later)
    connection.upload()
    with lab.peer:
        peer.give_back(moved_on(peer.state, "snd_una", "snd_nxt", "write_seq"))
    theirs.sendall(b"on we go")
    assert helpers.receive(ours, 8) == b"on we go"
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE, "the reset")
    assert nothing_was_dropped(firewall)


def closes(way, connection, theirs):
    """One end after the other, or both at once."""
    if way == "we first":
        connection.shutdown()
        yield
        theirs.shutdown(socket.SHUT_WR)
    elif way == "the peer first":
        theirs.shutdown(socket.SHUT_WR)
        yield
        connection.shutdown()
    else:
        connection.shutdown()
        theirs.shutdown(socket.SHUT_WR)
    yield


@_FAMILIES
@pytest.mark.parametrize("uploads", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("way", ["we first", "the peer first", "both at once"])
def test_a_connection_that_closes(lab, stack, helpers, family, way, uploads):
    """While it is offloaded, to its end, or up in between."""
    ours, theirs = lab.connect(family)
    firewall = StatefulFirewall(lab.host)
    connection = stack.connection(ours)
    connection.offload()
    connection.sendall(b"ours")
    assert helpers.receive(theirs, 4) == b"ours"
    receive = connection.post_receive(bytearray(1))
    for _ in closes(way, connection, theirs):
        run_for(stack, 0.05)
        if uploads:
            connection.upload()
    run_until(stack, lambda: receive.done, "the end of the stream")
    assert not receive.error and not receive.bytes_transferred
    assert theirs.recv(1) == b""
    connection.close()
    helpers.wait_until(lambda: helpers.state_of(theirs) in (TcpState.CLOSE, TcpState.TIME_WAIT), "the peer's end")
    assert lab.resets() == 0
    assert nothing_was_dropped(firewall)
