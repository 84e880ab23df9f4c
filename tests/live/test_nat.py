"""Network address translation by the host itself: such a connection is refused, and says what it looks like outside."""

import socket

import pytest

import chimney
from chimney.host.errors import NotOffloadable
from chimney.lab import firewall

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
ELSEWHERE = {V4: "10.9.0.77", V6: "fd09::77"}


@pytest.fixture
def stack():
    with chimney.Stack() as made:
        yield made


def nat(lab, hook, rule):
    """A rule of the host's, at a hook where addresses are translated."""
    firewall.load(lab.host, f"table inet n_{hook} {{ chain c {{ type nat hook {hook} priority 0; {rule}; }}; }}")


def connect(lab, family, listening, at, to, connecting):
    """A connection from one namespace to `to` of the other one, which listens at `at`; both sockets."""
    listener = lab.keep(listening.socket(family))
    listener.bind(at)
    listener.listen()
    client = lab.keep(connecting.socket(family))
    client.settimeout(10)
    client.connect(to)
    client.settimeout(None)
    return client, lab.keep(listener.accept()[0])


def works(helpers, one, other):
    one.sendall(b"there")
    other.sendall(b"back")
    return helpers.receive(other, 5) == b"there" and helpers.receive(one, 4) == b"back"


def text(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@FAMILIES
def test_a_destination_that_is_translated(lab, stack, helpers, family):
    """DNAT of the host's own connection, as a service proxy does it."""
    peer = lab.peer_end.address(family)
    to = f"[{peer}]" if family == V6 else peer
    word = "ip6" if family == V6 else "ip"
    nat(lab, "output", f"{word} daddr {ELSEWHERE[family]} tcp dport 80 dnat {word} to {to}:8080")
    ours, theirs = connect(lab, family, lab.peer, (peer, 8080), (ELSEWHERE[family], 80), lab.host)
    connection = stack.connection(ours)
    with pytest.raises(NotOffloadable, match="NAT") as refused:
        connection.offload()
    assert text(ELSEWHERE[family], 80) in str(refused.value) and text(peer, 8080) in str(refused.value)
    connection.detach()
    assert works(helpers, ours, theirs)


@FAMILIES
def test_a_source_that_is_translated(lab, stack, helpers, family):
    """Masquerading of the host's own connection."""
    nat(lab, "postrouting", "meta l4proto tcp masquerade to :20000-20100")
    at = lab.peer_end.address(family), 8080
    ours, theirs = connect(lab, family, lab.peer, at, at, lab.host)
    connection = stack.connection(ours)
    with pytest.raises(NotOffloadable, match="NAT") as refused:
        connection.offload()
    assert text(*theirs.getpeername()[:2]) in str(refused.value)
    connection.detach()
    assert works(helpers, ours, theirs)


@FAMILIES
def test_a_service_that_is_redirected(lab, stack, helpers, family):
    """REDIRECT of what arrives: the host accepts at another port than the peer has called."""
    nat(lab, "prerouting", "tcp dport 80 redirect to :8080")
    host = lab.host_end.address(family)
    theirs, ours = connect(lab, family, lab.host, (host, 8080), (host, 80), lab.peer)
    connection = stack.connection(ours)
    with pytest.raises(NotOffloadable, match="NAT") as refused:
        connection.offload()
    assert text(host, 80) in str(refused.value)
    connection.detach()
    assert works(helpers, ours, theirs)


@FAMILIES
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_connection_that_the_rules_leave_alone(lab, stack, helpers, family, role):
    for hook in ("output", "prerouting"):
        nat(lab, hook, "tcp dport 80 redirect to :8080")
    ours, theirs = lab.connect(family, role)
    connection = stack.connection(ours)
    connection.offload()
    connection.sendall(b"there")
    assert helpers.receive(theirs, 5) == b"there"
    theirs.sendall(b"back")
    assert connection.recv(4) == b"back"


def test_a_stream_that_a_helper_reads(lab, stack):
    """Such as that of FTP's control connection: it would miss what the target sends."""
    firewall.load(
        lab.host,
        'table inet h { ct helper f { type "ftp" protocol tcp; }; chain c { type filter hook output priority 0;'
        ' meta l4proto tcp ct helper set "f"; }; }',
    )
    ours, _ = lab.connect()
    with pytest.raises(NotOffloadable, match="helper"):
        stack.connection(ours).offload()


def test_sequence_numbers_that_are_changed(lab, stack, helpers):
    """By SYNPROXY, which has answered the peer before the host's socket did."""
    lab.host.sysctl("net.netfilter.nf_conntrack_tcp_loose", 0)
    firewall.load(
        lab.host,
        "table inet s { chain r { type filter hook prerouting priority raw; tcp dport 8080 tcp flags syn notrack; };"
        " chain c { type filter hook input priority 0; tcp dport 8080 ct state invalid,untracked synproxy mss 1460"
        " wscale 7 timestamp sack-perm; ct state invalid drop; }; }",
    )
    at = lab.host_end.address(V4), 8080
    theirs, ours = connect(lab, V4, lab.host, at, at, lab.peer)
    with pytest.raises(NotOffloadable, match="SYNPROXY"):
        stack.connection(ours).offload()
