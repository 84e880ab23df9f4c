"""Namespaces, wires and connections for tests against real kernels, as root or in an unprivileged user namespace."""

import contextlib
import os
import select
import socket
import struct
import threading
import time

import pytest

from chimney.host.linux.dump import TcpState, endpoint_of, read_info
from chimney.lab.namespace import Namespace, can_make_namespaces, enter_user_namespace
from chimney.lab.routed import RoutedNetwork
from chimney.lab.tap import Tap
from chimney.lab.wire import veth_pair
from chimney.verifier.report import Coverage

# Before the test modules are collected, some of which look whether namespaces can be made. Where user namespaces are
# forbidden, every test that needs one says so itself.
if not can_make_namespaces():
    with contextlib.suppress(OSError):
        enter_user_namespace()

DEADLINE = 10.0


def wait_until(condition, what):
    """Poll for a condition of the kernel's that nothing reports."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s"
        time.sleep(0.001)


def state_of(sock):
    """The kernel's TCP state of a socket."""
    return TcpState(read_info(sock).state)


def receive(sock, size):
    """Exactly `size` bytes, or an AssertionError when nothing comes for long. The socket's blocking mode stays: another
    thread may be sending.
    """
    readable = select.poll()
    readable.register(sock, select.POLLIN)
    parts, left = [], size
    while left:
        assert readable.poll(DEADLINE * 1000), f"{left} of {size} bytes did not come"
        part = sock.recv(min(left, 1 << 20), socket.MSG_DONTWAIT)
        assert part, f"the stream ended {left} bytes early"
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class Sending:
    """A thread that sends `data` on a socket while the test does something else."""

    def __init__(self, sock, data):
        self.error = None
        self._thread = threading.Thread(target=self._run, args=(sock, data), daemon=True)
        self._thread.start()

    def _run(self, sock, data):
        try:
            sock.sendall(data)
        except OSError as error:
            self.error = error

    def join(self):
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the sender is stuck"
        assert self.error is None, self.error


class Receiving:
    """A thread that receives `size` bytes on a socket while the test does something else."""

    def __init__(self, sock, size):
        self._result = None
        self._thread = threading.Thread(target=self._run, args=(sock, size), daemon=True)
        self._thread.start()

    def _run(self, sock, size):
        try:
            self._result = receive(sock, size)
        except (AssertionError, OSError) as error:
            self._result = error

    def join(self):
        self._thread.join(6 * DEADLINE)
        assert not self._thread.is_alive(), "the receiver is stuck"
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class Ends:
    """A host and a peer, each in a namespace, and connections between them that a tap watches."""

    def __init__(self, stack, host_end, peer_end, tap):
        self._stack = stack
        self.host, self.peer = host_end.namespace, peer_end.namespace
        self.host_end, self.peer_end = host_end, peer_end
        self.device = host_end.name
        self.tap = stack.enter_context(tap)
        stack.enter_context(self.host)

    def connect(self, family=socket.AF_INET, role="client", mapped=False, loopback=False, prepare=None):
        """A connection: the host's socket, the peer's. `prepare(sock)` is called with the host's before it connects."""
        host, peer = self.host, self.host if loopback else self.peer
        ours_at = self.host_end.address(family)
        theirs_at = self.host_end.address(family) if loopback else self.peer_end.address(family)
        listening, connecting = (peer, host) if role == "client" else (host, peer)
        at = theirs_at if role == "client" else ours_at
        listen_family = socket.AF_INET6 if mapped and role == "server" else family
        connect_family = socket.AF_INET6 if mapped and role == "client" else family
        listener = self.keep(listening.socket(listen_family))
        if listen_family != family:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::ffff:" + at if listen_family != family else at, 0))
        listener.listen()
        client = self.keep(connecting.socket(connect_family))
        if prepare:
            prepare(listener if role == "server" else client)
        client.settimeout(DEADLINE)
        client.connect(("::ffff:" + at if connect_family != family else at, listener.getsockname()[1]))
        client.settimeout(None)
        server = self.keep(listener.accept()[0])
        return (client, server) if role == "client" else (server, client)

    def keep(self, sock):
        self._stack.callback(sock.close)
        return sock

    def heard(self, sock):
        """What the tap has seen from and to the host's socket, as two directions."""
        self.tap.drain()
        assert not self.tap.lost()
        local, remote = endpoint_of(sock.getsockname()), endpoint_of(sock.getpeername())
        ours, theirs = (local.address, local.port), (remote.address, remote.port)
        return self.tap.direction(ours, theirs), self.tap.direction(theirs, ours)

    def resets(self):
        """RSTs that the tap has seen, in either direction."""
        self.tap.drain()
        assert not self.tap.lost()
        return self.tap.resets()


class Laboratory(Ends):
    """Host and peer joined by a wire, with the tap on the host's side."""

    def __init__(self, stack, mtu=1500, offloads=True, keep=160):
        host, peer = Namespace(), Namespace()
        stack.callback(host.close)
        stack.callback(peer.close)
        host_end, peer_end = veth_pair(host, peer, mtu=mtu, offloads=offloads)
        super().__init__(stack, host_end, peer_end, Tap(host, host_end.name, keep=keep))


class RoutedLaboratory(Ends):
    """Host and peer with routers between them (`network`, see chimney.lab.routed), and the tap on the *peer's* side.

    Connections are between the host's eth0 and the peer; `a` and `b` are the gateways.
    """

    def __init__(self, stack, keep=160, **settings):
        self.network = stack.enter_context(RoutedNetwork(**settings))
        self.a, self.b = self.network.a, self.network.b
        super().__init__(
            stack, self.network.eth0, self.network.peer_end, Tap(self.network.peer, "peer0", keep=keep)
        )


@pytest.fixture(autouse=True)
def verified(tmp_path_factory, monkeypatch):
    """Every stack of these tests is verified, those of child processes too: a finding fails the test."""
    # Not in the test's own folder, which is the test's to look into.
    report = tmp_path_factory.mktemp("verified") / "report"
    monkeypatch.setenv("CHIMNEY_VERIFY", "count")
    monkeypatch.setenv("CHIMNEY_VERIFY_REPORT", str(report))
    yield
    coverage = Coverage()
    coverage.add_file(report)
    assert not coverage.failures
    assert not coverage.violations, "\n".join(violation["text"] for violation in coverage.violations[:3])


@pytest.fixture
def make_lab():
    """Makes laboratories; the test runs inside the host's namespace of the last one made."""
    if not can_make_namespaces():
        pytest.skip("network namespaces need root, or user namespaces (sysctl kernel.unprivileged_userns_clone=1)")
    with contextlib.ExitStack() as stack:
        yield lambda **settings: Laboratory(stack, **settings)


@pytest.fixture
def lab(make_lab):
    """A laboratory with the usual settings."""
    return make_lab()


@pytest.fixture
def make_routed():
    """Makes laboratories with routers; the test runs inside the host's namespace of the last one made."""
    if not can_make_namespaces():
        pytest.skip("network namespaces need root, or user namespaces (sysctl kernel.unprivileged_userns_clone=1)")
    with contextlib.ExitStack() as stack:
        yield lambda **settings: RoutedLaboratory(stack, **settings)


@pytest.fixture
def routed(make_routed):
    """A routed laboratory with the usual settings."""
    return make_routed()


@pytest.fixture
def helpers():
    """The functions of this file: test folders are no packages."""

    class Helpers:
        pass

    for helper in (wait_until, state_of, receive, Sending, Receiving):
        setattr(Helpers, helper.__name__, staticmethod(helper))
    Helpers.pattern = staticmethod(pattern)
    return Helpers


def pattern(size, start=0):
    """Bytes that tell a stream's offset: a hole or a repetition never goes unnoticed."""
    first = start // 8
    words = struct.pack(f"!{size // 8 + 2}Q", *range(first, first + size // 8 + 2))
    return words[start - first * 8 :][:size]


@pytest.fixture
def unprivileged():
    """Runs a function in a child process without any capability; returns what it returned (a string)."""

    def run(function):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                drop_capabilities()
                os.write(writing, function().encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read().decode()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return said

    return run


def drop_capabilities():
    """capset(2): an empty set of everything."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    version_3 = 0x20080522
    if libc.capset(struct.pack("Ii", version_3, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")
