"""ECN on a connection whose kernels have negotiated it: the target goes on with it, hears marks and echoes them."""

import socket

import pytest

import chimney
from chimney.host.linux import sockopts as so
from chimney.host.linux.tcp_info import tcp_info
from chimney.lab import firewall

SIZE = 8_000_000
# What leaves the peer is marked on its way out, what comes to it on its way in: the host's tap hears before netfilter.
MARKS = """
table inet marks {
  counter out { }
  counter in { }
  chain outgoing {
    type filter hook output priority 0;
    ip ecn ect0 numgen random mod 100 < 5 counter name out ip ecn set ce
    ip6 ecn ect0 numgen random mod 100 < 5 counter name out ip6 ecn set ce
  }
  chain incoming {
    type filter hook prerouting priority -300;
    ip ecn ect0 numgen random mod 100 < 5 counter name in ip ecn set ce
    ip6 ecn ect0 numgen random mod 100 < 5 counter name in ip6 ecn set ce
  }
}
"""


@pytest.fixture
def ecn_lab(lab):
    """Both kernels want ECN; the peer's network marks every twentieth packet."""
    for namespace in (lab.host, lab.peer):
        namespace.sysctl("net.ipv4.tcp_ecn", 1)
    firewall.load(lab.peer, MARKS)
    return lab


def cubic(sock):
    """BBR hears no marks."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_marks_are_heard_and_echoed_in_both_directions(ecn_lab, helpers, family):
    ours, theirs = ecn_lab.connect(family, prepare=cubic)
    cubic(theirs)
    assert tcp_info(ours)["tcpi_options"] & so.INFO_ECN
    outgoing, incoming = helpers.pattern(SIZE), helpers.pattern(SIZE, 1 << 32)
    with chimney.Stack() as stack:
        connection = stack.connection(ours)
        connection.offload()
        received = helpers.Receiving(theirs, SIZE)
        connection.sendall(outgoing)
        assert received.join() == outgoing
        seen = connection.info().tcp
        assert seen["tcpi_options"] & so.INFO_ECN
        assert firewall.counters(ecn_lab.peer, "marks")["in"].packets > 0
        assert seen["tcpi_delivered_ce"] > 0, "the peer has echoed the marks"
        sending = helpers.Sending(theirs, incoming)
        got = bytearray()
        while len(got) < SIZE:
            got += connection.recv(1 << 20)
        sending.join()
        assert bytes(got) == incoming
        assert firewall.counters(ecn_lab.peer, "marks")["out"].packets > 0
        assert tcp_info(theirs)["tcpi_delivered_ce"] > 0, "the target has echoed the marks"


def test_it_survives_the_way_up_and_down_again(ecn_lab, helpers):
    """TCP_REPAIR cannot set it, but a recycled socket keeps it: its packets are capable, and it hears echoes."""
    ours, theirs = ecn_lab.connect(prepare=cubic)
    data = helpers.pattern(SIZE)
    with chimney.Stack() as stack:
        connection = stack.connection(ours)
        for _ in range(2):
            connection.offload()
            assert connection.info().tcp["tcpi_options"] & so.INFO_ECN
            connection.sendall(b"down")
            assert helpers.receive(theirs, 4) == b"down"
            connection.upload()
            assert connection.info().tcp["tcpi_options"] & so.INFO_ECN
            received = helpers.Receiving(theirs, SIZE)
            connection.sendall(data)
            assert received.join() == data
            assert connection.info().tcp["tcpi_delivered_ce"] > 0


def test_without_ecn_no_packet_says_that_it_is_capable(lab, helpers):
    firewall.load(lab.peer, MARKS.replace(" numgen random mod 100 < 5", ""))
    ours, theirs = lab.connect()
    with chimney.Stack() as stack:
        connection = stack.connection(ours)
        connection.offload()
        connection.sendall(bytes(100_000))
        assert helpers.receive(theirs, 100_000) == bytes(100_000)
        assert not connection.info().tcp["tcpi_options"] & so.INFO_ECN
        assert firewall.counters(lab.peer, "marks")["in"].packets == 0
