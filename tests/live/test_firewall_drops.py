"""What an administrator drops for an established connection is dropped for an offloaded one, too."""

import resource
import socket

import pytest

import chimney
from chimney.host import firewall as watch
from chimney.host.connection import Owner
from chimney.host.errors import NotOffloadable
from chimney.host.linux.netfilter import LinuxFirewall
from chimney.lab import firewall
from chimney.lab.firewall import StatefulFirewall
from tests.live.traffic import run_for, run_until

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])


@pytest.fixture
def stack():
    with chimney.Stack() as made:
        yield made


def rules(lab, hook, rule, policy="accept"):
    """A firewall with one rule at a hook, until `firewall.clear`."""
    chain = f"chain c {{ type filter hook {hook} priority 0; policy {policy}; {rule}; }};"
    firewall.load(lab.host, f"table inet t_{hook} {{ {chain} }}")


def port_of(sock):
    return sock.getsockname()[1]


class Reader:
    """Reads all that comes on a connection."""

    def __init__(self, connection):
        self.received = bytearray()
        self._connection = connection
        self._buffer = bytearray(1 << 16)
        self._post()

    def _post(self):
        self._connection.post_receive(self._buffer, self._done)

    def _done(self, request):
        if request.error is None and request.bytes_transferred:
            self.received += self._buffer[: request.bytes_transferred]
            self._post()


@pytest.mark.parametrize(("family", "hook"), [(V4, "prerouting"), (V6, "input")], ids=["prerouting v4", "input v6"])
def test_what_arrives(lab, stack, helpers, family, hook):
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    reader = Reader(connection)
    theirs.sendall(b"heard ")
    run_until(stack, lambda: reader.received == b"heard ", "what is let in")
    rules(lab, hook, f"tcp sport {port_of(theirs)} drop")
    size = 20_000_000
    sending = helpers.Sending(theirs, helpers.pattern(size))
    run_until(stack, lambda: connection.owner is Owner.KERNEL, "the kernel has the connection")
    before = len(reader.received)
    assert before < size
    run_for(stack, 0.3)
    assert len(reader.received) == before
    with pytest.raises(NotOffloadable, match="the firewall drops what arrives"):
        connection.offload()
    firewall.clear(lab.host)
    run_until(stack, lambda: connection.offloaded, "it has gone down again")
    run_until(stack, lambda: len(reader.received) == size + 6, "the rest")
    sending.join()
    assert reader.received == b"heard " + helpers.pattern(size)
    assert lab.resets() == 0


@pytest.mark.parametrize(("family", "hook"), [(V4, "output"), (V6, "postrouting")], ids=["output v4", "postrouting v6"])
def test_what_is_sent(lab, stack, helpers, family, hook):
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    rules(lab, hook, f"tcp dport {port_of(theirs)} drop")
    with pytest.raises(NotOffloadable, match="the firewall drops what is to be sent"):
        connection.offload()
    firewall.clear(lab.host)
    theirs.sendall(b"as before")
    assert connection.recv(9) == b"as before"
    connection.offload()
    connection.sendall(b"let out ")
    assert helpers.receive(theirs, 8) == b"let out "
    rules(lab, hook, f"tcp dport {port_of(theirs)} drop")
    run_until(stack, lambda: connection.owner is Owner.KERNEL, "the kernel has the connection")
    connection.post_send(helpers.pattern(100_000))
    run_for(stack, 0.3)
    with pytest.raises(BlockingIOError):
        theirs.recv(1, socket.MSG_DONTWAIT)
    receiving = helpers.Receiving(theirs, 100_000)
    firewall.clear(lab.host)
    run_until(stack, lambda: connection.offloaded, "it has gone down again")
    run_until(stack, lambda: not connection.sends, "the rest")
    assert receiving.join() == helpers.pattern(100_000)
    assert lab.resets() == 0


@pytest.mark.parametrize("verdict", ["reject", "reject with tcp reset"])
def test_what_is_rejected_is_not_offloaded(lab, stack, helpers, verdict):
    ours, theirs = lab.connect()
    rules(lab, "output", f"tcp dport {port_of(theirs)} {verdict}")
    with pytest.raises(NotOffloadable, match="the firewall drops what is to be sent"):
        stack.connection(ours).offload()
    firewall.clear(lab.host)
    theirs.sendall(b"as before")
    assert helpers.receive(ours, 9) == b"as before"


@FAMILIES
def test_everything_at_once(lab, stack, helpers, family):
    """What an administrator does in an emergency: the firewall must not keep the kernel from taking the connection."""
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    connection.sendall(b"before")
    assert helpers.receive(theirs, 6) == b"before"
    for hook in ("input", "output"):
        rules(lab, hook, "counter", policy="drop")
    run_until(stack, lambda: connection.owner is Owner.KERNEL, "the kernel has the connection")
    connection.post_send(b"after")
    run_for(stack, 0.2)
    with pytest.raises(BlockingIOError):
        theirs.recv(1, socket.MSG_DONTWAIT)
    firewall.clear(lab.host)
    run_until(stack, lambda: connection.offloaded, "it has gone down again")
    assert helpers.receive(theirs, 5) == b"after"


@FAMILIES
def test_a_connection_that_the_peer_has_half_closed(lab, stack, helpers, family):
    """The kernel would have to hear the peer's FIN once more, which the firewall drops: the target hears nothing."""
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    theirs.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    rules(lab, "input", f"tcp sport {port_of(theirs)} drop")
    # Its acknowledgement is what the target may hear still.
    connection.post_send(b"!")
    assert helpers.receive(theirs, 1) == b"!"
    run_for(stack, 0.1)
    send = connection.post_send(helpers.pattern(3_000_000))
    receiving = helpers.Receiving(theirs, 3_000_000)
    run_for(stack, 0.1)
    heard = connection.info().tcp["tcpi_segs_in"]
    run_for(stack, 0.3)
    assert connection.offloaded and not send.done
    assert connection.info().tcp["tcpi_segs_in"] == heard
    firewall.clear(lab.host)
    run_until(stack, lambda: send.done, "the rest")
    assert send.error is None
    assert receiving.join() == helpers.pattern(3_000_000)
    assert lab.resets() == 0


def test_a_half_closed_connection_that_the_kernel_does_not_take(lab, stack, helpers):
    """Nothing may leave, not even on the loopback device, and the reverse-path filter there is strict."""
    lab.host.sysctl("net.ipv4.conf.all.rp_filter", 1)
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    theirs.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    rules(lab, "output", "counter", policy="drop")
    run_until(stack, lambda: connection.hand_over_error or connection.info().withdrawn, "the attempt to withdraw it")
    run_until(stack, lambda: not connection.info().withdrawn, "the end of the attempts")
    assert connection.offloaded
    heard = connection.info().tcp["tcpi_segs_in"]
    send = connection.post_send(helpers.pattern(3_000_000))
    receiving = helpers.Receiving(theirs, 3_000_000)
    run_for(stack, 0.3)
    assert connection.info().tcp["tcpi_segs_in"] == heard and not send.done
    firewall.clear(lab.host)
    run_until(stack, lambda: send.done, "the rest")
    assert receiving.join() == helpers.pattern(3_000_000)
    assert lab.resets() == 0


def test_within_the_host(lab, stack, helpers):
    ours, theirs = lab.connect(loopback=True)
    connection = stack.connection(ours)
    connection.offload()
    reader = Reader(connection)
    theirs.sendall(b"heard")
    run_until(stack, lambda: reader.received == b"heard", "what is let in")
    rules(lab, "input", f"tcp sport {port_of(theirs)} drop")
    theirs.sendall(b"!")
    run_until(stack, lambda: connection.owner is Owner.KERNEL, "the kernel has the connection")


def test_an_address_that_is_put_on_a_list(lab, stack, helpers):
    """The rule has been there before; the list is what changes."""
    firewall.load(
        lab.host,
        "table inet t { set banned { type ipv4_addr; }; chain c { type filter hook input priority 0;"
        " ip saddr @banned drop; }; }",
    )
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    reader = Reader(connection)
    theirs.sendall(b"heard")
    run_until(stack, lambda: reader.received == b"heard", "what is let in")
    lab.host.run(["nft", "add", "element", "inet", "t", "banned", f"{{ {lab.peer_end.address(V4)} }}"])
    theirs.sendall(b"!")
    run_until(stack, lambda: connection.owner is Owner.KERNEL, "the kernel has the connection")


@pytest.mark.parametrize("offloads", [True, False], ids=["merged", "single frames"])
def test_nothing_is_taken_back_that_passes(make_lab, stack, helpers, monkeypatch, offloads):
    """A careful administrator's firewall, a flood, and as many looks as there can be."""
    monkeypatch.setattr(watch, "LONGEST_PAUSE_US", 1000)
    monkeypatch.setattr(watch, "FIRST_PAUSE_US", 1000)
    monkeypatch.setattr(watch, "OUTPUT_PAUSE_US", 20_000)
    lab = make_lab(offloads=offloads)
    size = 40_000_000 if offloads else 4_000_000
    firewall_ = StatefulFirewall(lab.host)
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    sending = helpers.Sending(theirs, bytes(size))
    receiving = helpers.Receiving(theirs, size // 4)
    send = connection.post_send(bytes(size // 4))
    left, buffer = size, bytearray(1 << 20)
    while left:
        left -= connection.recv_into(buffer)
    run_until(stack, lambda: send.done, "what is sent")
    sending.join()
    receiving.join()
    for number in range(100):
        theirs.sendall(b"%4d" % number)
        assert connection.recv(4) == b"%4d" % number
    assert connection.info().offloads == 1 and connection.offloaded
    assert firewall_.invalid() == 0


def test_who_cannot_ask_goes_on(lab, stack, helpers):
    """No descriptor is left for what asks the firewall, and connection tracking."""
    firewall.load(lab.host, "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }")
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    passage = connection.kernel.passage()
    rules_ = LinuxFirewall()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert passage.lets_out(0, 0, 0)
        assert passage.keep_tracked()
        assert not rules_.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        rules_.close()
    connection.sendall(b"on we go")
    assert helpers.receive(theirs, 8) == b"on we go"


@FAMILIES
def test_who_asks_takes_no_window_back(lab, stack, helpers, monkeypatch, family):
    """The acknowledgements that try the firewall tell the peer nothing new."""
    monkeypatch.setattr(watch, "OUTPUT_PAUSE_US", 1000)
    monkeypatch.setattr(watch, "LONGEST_PAUSE_US", 1000)
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    for number in range(10):
        theirs.sendall(bytes(1001))
        helpers.wait_until(lambda: len(ours.recv(1 << 16, socket.MSG_PEEK)) >= 1001, "unread bytes")
        connection.offload()
        theirs.sendall(bytes(777))
        run_for(stack, 0.02)
        connection.sendall(b"%d" % number)
        run_for(stack, 0.02)
        connection.upload()
    said, _ = lab.heard(ours)
    assert said.right_edge_retreat == 0
    assert lab.resets() == 0
