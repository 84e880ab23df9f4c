"""The whole stack on live connections: an unmodified kernel peer, data both ways, hand-overs in between."""

import gc
import itertools
import os
import select
import signal
import socket
import struct
import time
from types import SimpleNamespace

import pytest

import chimney
from chimney.host.linux import eligibility, timer
from chimney.host.linux.dump import TcpState, read_info
from chimney.lab.firewall import Block, Loss, StatefulFirewall
from chimney.ndis.status import StatusIndication
from tests.live.traffic import Traffic, cycle

V4, V6 = socket.AF_INET, socket.AF_INET6
WAYS = pytest.mark.parametrize(
    ("settings", "family", "role", "mapped", "loopback"),
    [
        ({}, V4, "client", False, False),
        ({}, V6, "server", False, False),
        ({}, V4, "server", True, False),
        ({}, V4, "server", False, True),
        ({}, V6, "client", False, True),
        ({"mtu": 9000}, V4, "server", False, False),
        ({"mtu": 1280}, V6, "client", False, False),
        ({"offloads": False}, V4, "server", False, False),
        ({"offloads": False, "mtu": 9000}, V6, "client", False, False),
    ],
    ids=["v4", "v6", "mapped", "lo v4", "lo v6", "v4 9000", "v6 1280", "v4 plain nic", "v6 9000 plain nic"],
)


@pytest.fixture
def stack():
    with chimney.Stack(intermediate_drivers=2) as made:
        yield made


@WAYS
def test_down_and_up_in_mid_transfer(make_lab, helpers, stack, settings, family, role, mapped, loopback):
    lab = make_lab(**settings)
    ours, theirs = lab.connect(family, role, mapped, loopback)
    size = 6_000_000
    outgoing, incoming = helpers.pattern(size), helpers.pattern(size, 1 << 32)
    sending = helpers.Sending(theirs, incoming)
    received = helpers.Receiving(theirs, size)
    connection = stack.connection(ours)
    traffic = Traffic(connection, outgoing)
    cycle(stack, connection, traffic, 10, 200_000)
    traffic.rest(stack, size)
    assert traffic.incoming == incoming
    assert received.join() == outgoing
    sending.join()
    info = connection.info()
    assert (info.offloads, info.uploads) == (10, 10)
    assert info.bytes_received_target + info.bytes_received_kernel == size
    assert lab.resets() == 0
    connection.detach()
    ours.sendall(b"the kernel's again")
    assert helpers.receive(theirs, 18) == b"the kernel's again"


def test_unread_and_unsent_data_go_along(lab, helpers, stack):
    ours, theirs = lab.connect()
    theirs.sendall(helpers.pattern(100_000))
    helpers.wait_until(lambda: len(ours.recv(200_000, socket.MSG_PEEK)) == 100_000, "unread data")
    ours.setblocking(False)
    unsent = 0
    while True:
        try:
            unsent += ours.send(helpers.pattern(65536, unsent))
        except BlockingIOError:
            break
    connection = stack.connection(ours)
    connection.offload()
    connection.post_send(helpers.pattern(1000, unsent))
    got = bytearray()
    while len(got) < 50_000:
        got += connection.recv(50_000 - len(got))
    connection.upload()
    received = helpers.Receiving(theirs, unsent + 1000)
    while len(got) < 100_000:
        got += connection.recv(100_000)
    while connection.sends:
        stack.poll(0.1)
    assert got == helpers.pattern(100_000)
    assert received.join() == helpers.pattern(unsent + 1000)


def test_the_socket_stays_the_applications(lab, helpers, stack):
    ours, theirs = lab.connect()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ours.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x20)
    ours.settimeout(3.5)
    duplicate = socket.socket(fileno=os.dup(ours.fileno()))
    epoll = select.epoll()
    epoll.register(ours.fileno(), select.EPOLLIN)
    descriptor, name = ours.fileno(), ours.getsockname()
    connection = stack.connection(ours)
    for _ in range(5):
        connection.offload()
        connection.upload()
    connection.detach()
    assert (ours.fileno(), ours.getsockname(), ours.gettimeout()) == (descriptor, name, 3.5)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert ours.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x20
    assert not ours.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).strip(b"\0")
    epoll.poll(0)
    theirs.sendall(b"news")
    assert epoll.poll(5) == [(descriptor, select.EPOLLIN)]
    assert duplicate.recv(10) == b"news"
    duplicate.close()
    epoll.close()


def test_several_connections_share_the_adapter(lab, helpers, stack):
    size = 1_500_000
    pairs = [lab.connect(V4 if n % 2 else V6, "server" if n % 3 else "client") for n in range(6)]
    connections = [stack.connection(ours) for ours, _ in pairs]
    sendings = [helpers.Sending(theirs, helpers.pattern(size, n << 32)) for n, (_, theirs) in enumerate(pairs)]
    receivings = [helpers.Receiving(theirs, size) for _, theirs in pairs]
    traffics = [Traffic(c, helpers.pattern(size, n << 40)) for n, c in enumerate(connections)]
    for round_ in range(6):
        for number, connection in enumerate(connections):
            (connection.upload if connection.offloaded else connection.offload)()
            traffics[number].more(stack, 100_000)
        assert all(c.offloaded is (round_ % 2 == 0) for c in connections)
    for number, traffic in enumerate(traffics):
        traffic.rest(stack, size)
        assert traffic.incoming == helpers.pattern(size, number << 32)
        assert receivings[number].join() == helpers.pattern(size, number << 40)
        sendings[number].join()
    assert lab.resets() == 0


def test_behind_a_stateful_firewall(lab, helpers, stack):
    ours, theirs = lab.connect(V4, "server")
    firewall = StatefulFirewall(lab.host, services=[ours.getsockname()[1]])
    size = 4_000_000
    sending, received = helpers.Sending(theirs, helpers.pattern(size)), helpers.Receiving(theirs, size)
    connection = stack.connection(ours)
    traffic = Traffic(connection, helpers.pattern(size, 1 << 32))
    cycle(stack, connection, traffic, 5, 200_000)
    traffic.rest(stack, size)
    sending.join()
    assert traffic.incoming == helpers.pattern(size) and received.join() == helpers.pattern(size, 1 << 32)
    assert firewall.invalid() == 0


@pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
def test_with_loss_both_ways(make_lab, helpers, stack, family):
    lab = make_lab(offloads=False)
    ours, theirs = lab.connect(family)
    losses = Loss(lab.peer, lab.peer_end.name, 2), Loss(lab.host, lab.host_end.name, 2)
    size = 1_500_000
    sending, received = helpers.Sending(theirs, helpers.pattern(size)), helpers.Receiving(theirs, size)
    connection = stack.connection(ours)
    traffic = Traffic(connection, helpers.pattern(size, 1 << 32))
    cycle(stack, connection, traffic, 5, 50_000)
    connection.offload()
    traffic.rest(stack, size, 60)
    sending.join()
    assert traffic.incoming == helpers.pattern(size) and received.join() == helpers.pattern(size, 1 << 32)
    assert sum(loss.lost() for loss in losses) > 0 and lab.resets() == 0


@pytest.mark.parametrize(("reading_us", "taught"), [(0, True), (5000, False)], ids=["short", "long"])
def test_the_kernel_knows_a_short_round_trip_when_it_is_back(lab, helpers, monkeypatch, reading_us, taught):
    # The target's clock goes on when it is read, and only then: what it measures does not depend on how busy this
    # machine is.
    readings = itertools.count(time.monotonic_ns(), reading_us * 1000)
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic_ns=readings.__next__))
    ours, theirs = lab.connect()
    with chimney.Stack(intermediate_drivers=2) as stack:
        connection = stack.connection(ours)
        connection.offload()
        connection.sendall(b"measured" * 1000)
        assert helpers.receive(theirs, 8000) == b"measured" * 1000
        deaf = Block(lab.peer, theirs.getsockname()[1])
        connection.post_send(b"on its way" * 100)
        connection.upload()
        info = read_info(ours)
        assert info.unacked
        if taught:
            # Without a measured round trip the kernel would wait 3 s.
            assert info.rtt_us and info.rto_us < 3_000_000
        else:
            # The hand-over does not wait for a long one.
            assert not info.rtt_us
        deaf.remove()
        assert helpers.receive(theirs, 1000) == b"on its way" * 100


# Ends of connections. What the peer's program sees must be what it would have seen of the kernel.


@pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("moves", ["do", "du", "dud"])
def test_we_close_first_while_offloaded(lab, helpers, stack, family, moves):
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    connection.offload()
    connection.post_send(b"last words")
    shutdown = connection.shutdown()
    while not shutdown.done:
        stack.poll(1)
    assert shutdown.error is None
    assert helpers.receive(theirs, 10) == b"last words" and theirs.recv(1) == b""
    if "u" in moves:
        connection.upload()
        assert helpers.state_of(ours) is TcpState.FIN_WAIT2
    if moves == "dud":
        connection.offload()
    theirs.sendall(b"and mine")
    assert connection.recv(20) == b"and mine"
    theirs.close()
    assert connection.recv(20) == b""
    connection.close()
    assert lab.resets() == 0


@pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("moves", ["do", "du", "dud", "-d"])
def test_the_peer_closes_first(lab, helpers, stack, family, moves):
    ours, theirs = lab.connect(family)
    connection = stack.connection(ours)
    if moves[0] == "d":
        connection.offload()
    theirs.sendall(b"question")
    theirs.shutdown(socket.SHUT_WR)
    if moves[0] == "-":
        helpers.wait_until(lambda: helpers.state_of(ours) is TcpState.CLOSE_WAIT, "the peer's FIN")
        connection.offload()
    assert connection.recv(20) == b"question"
    assert connection.recv(20) == b""
    if "u" in moves:
        connection.upload()
        assert helpers.state_of(ours) is TcpState.CLOSE_WAIT
    if moves == "dud":
        connection.offload()
    assert connection.recv(20) == b""
    connection.sendall(b"answer")
    shutdown = connection.shutdown()
    while not shutdown.done:
        stack.poll(1)
    assert helpers.receive(theirs, 6) == b"answer" and theirs.recv(1) == b""
    connection.close()
    assert lab.resets() == 0


def test_the_peer_resets_while_offloaded(lab, stack):
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    receive = connection.post_receive(bytearray(10))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    while not receive.done:
        stack.poll(1)
    assert isinstance(receive.error, ConnectionResetError)
    stack.poll(0)
    assert not connection.offloaded
    with pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_we_reset_while_offloaded(lab, stack):
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    connection.abort()
    theirs.settimeout(5)
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)
    with pytest.raises(ConnectionAbortedError):
        connection.recv(1)


def test_when_the_process_dies_the_peer_is_told(lab):
    ours, theirs = lab.connect()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        made = chimney.Stack()
        made.connection(ours).offload()
        os.write(writer, b"!")
        signal.pause()
    ours.close()
    assert os.read(reader, 1) == b"!"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    theirs.settimeout(5)
    theirs.sendall(b"anybody?")
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)


# Refusals


def test_refused_sockets_go_on_working(lab, helpers, stack):
    ours, theirs = lab.connect()
    theirs.send(b"!", socket.MSG_OOB)
    helpers.wait_until(lambda: select.select([], [], [ours], 0)[2], "urgent data")
    connection = stack.connection(ours)
    with pytest.raises(chimney.NotOffloadable, match="urgent"):
        connection.offload()
    assert not connection.offloaded
    theirs.sendall(b"more")
    assert connection.recv(10)
    connection.sendall(b"fine")
    assert helpers.receive(theirs, 4) == b"fine"


def test_what_is_no_connection_is_refused(lab, stack):
    with socket.socket() as unconnected, pytest.raises(chimney.ChimneyError, match="not connected"):
        stack.connection(unconnected)
    left, right = socket.socketpair()
    with left, right, pytest.raises(chimney.ChimneyError, match="no TCP socket"):
        stack.connection(left)
    ours, _ = lab.connect()
    stack.connection(ours)
    with pytest.raises(chimney.ChimneyError, match="already"):
        stack.connection(ours)


def test_a_blocking_call_in_a_callback_is_refused(lab, stack):
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    errors = []

    def callback(request):
        try:
            connection.recv(1)
        except chimney.ChimneyError as error:
            errors.append(error)

    request = connection.post_receive(bytearray(1), callback)
    theirs.sendall(b"x")
    while not request.done:
        stack.poll(1)
    assert len(errors) == 1 and "callback" in str(errors[0])


def test_a_target_pauses_takes_nothing_back_and_resumes(lab, helpers, stack):
    pairs = [lab.connect() for _ in range(2)]
    elsewhere = lab.connect(V4, "server", loopback=True)
    first, second, other = connections = [stack.connection(ours) for ours, _ in [*pairs, elsewhere]]
    for connection in connections:
        connection.offload()
    handle = first.adapter.target.handle
    second.upload()
    handle.indicate_status_ex(StatusIndication.OFFLOAD_PAUSE)
    with pytest.raises(chimney.NotOffloadable, match="at present"):
        second.offload()
    assert first.offloaded and not second.offloaded
    handle.indicate_status_ex(StatusIndication.UPLOAD_ALL)
    # An indication's handler does not wait for a terminate (general.context.dispatch-level).
    assert first.offloaded
    stack.poll(0)
    assert [connection.offloaded for connection in connections] == [False, False, True]
    handle.indicate_status_ex(StatusIndication.OFFLOAD_RESUME)
    second.offload()
    second.sendall(b"again")
    assert helpers.receive(pairs[1][1], 5) == b"again" and other.adapter is not second.adapter


def test_a_hand_over_that_is_asked_for_again_and_again_does_not_keep_the_poll(lab, stack):
    ours, _ = lab.connect()
    connection = stack.connection(ours)
    tries = []

    def again():
        tries.append(1)
        if len(tries) < 100:
            stack.hand_over_soon(connection, again)
        raise chimney.UploadFailed("no memory, as before")

    stack.hand_over_soon(connection, again)
    for expected in (1, 2, 3):
        assert select.select([stack.fileno()], [], [], 1)[0]
        stack.poll(None)
        assert len(tries) == expected


def test_what_a_callback_raises_comes_out_of_the_poll(lab, stack):
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()

    def callback(request):
        raise ValueError("a slip of the application's")

    request = connection.post_receive(bytearray(1), callback)
    theirs.sendall(b"xy")
    with pytest.raises(ValueError, match="slip"):
        while not request.done:
            stack.poll(1)
    assert connection.recv(1) == b"y"


def test_a_connection_comes_back_over_an_interface_that_is_down_and_nothing_is_lost(lab, helpers, stack):
    ours, theirs = lab.connect()
    connection = stack.connection(ours)
    connection.offload()
    connection.sendall(b"before")
    lab.host.run(["ip", "link", "set", lab.device, "down"])
    connection.upload()
    with pytest.raises(chimney.NotOffloadable):
        connection.offload()
    request = connection.post_send(b"and after")
    lab.host.run(["ip", "link", "set", lab.device, "up"])
    while not request.done:
        stack.poll(1)
    assert helpers.receive(theirs, 15) == b"beforeand after"


def test_a_closed_stack_leaves_no_descriptor_behind(lab):
    ours, theirs = lab.connect()

    def hand_over():
        with chimney.Stack(intermediate_drivers=1) as made:
            made.connection(ours).offload()
        gc.collect()

    # The first one opens the questions to the kernel, which the process keeps.
    hand_over()
    before = len(os.listdir("/proc/self/fd"))
    hand_over()
    theirs.sendall(b"still there?")
    assert ours.recv(20) == b"still there?"
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("address", ["wire", "loopback"])
@pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
def test_a_connection_within_the_host_arrives_on_the_device_that_has_the_address(lab, helpers, stack, family, address):
    at = lab.host_end.address(family) if address == "wire" else {V4: "127.0.0.1", V6: "::1"}[family]
    with socket.create_server((at, 0), family=family) as listener:
        theirs = lab.keep(socket.create_connection(listener.getsockname()[:2]))
        ours = lab.keep(listener.accept()[0])
    plan = eligibility.plan(ours)
    # Bound to any other device, the socket would not hear its peer during the cut, and the kernel would answer RST.
    assert (plan.device, plan.arrives_on) == ("lo", lab.device if address == "wire" else "lo")
    size = 2_000_000
    sending = helpers.Sending(theirs, helpers.pattern(size))
    connection = stack.connection(ours)
    traffic = Traffic(connection, b"")
    cycle(stack, connection, traffic, 5, 50_000)
    traffic.rest(stack, size)
    sending.join()
    assert traffic.incoming == helpers.pattern(size)
