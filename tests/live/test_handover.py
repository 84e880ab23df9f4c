"""Live connections out of the kernel and back: nothing lost, nothing said on the wire, nothing changed."""

import contextlib
import dataclasses
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from chimney.host.errors import ChimneyError, NotOffloadable, UploadFailed
from chimney.host.linux import handover, inject
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import size_of
from chimney.lab.firewall import Block

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
ADDRESSES = pytest.mark.parametrize(
    ("family", "mapped"), [(V4, False), (V6, False), (V4, True)], ids=["ipv4", "ipv6", "mapped"]
)


def there_and_back(sock, device, pause=0.0):
    """Out of the kernel and back; the state that was out."""
    placeholder = handover.take(sock, device)
    if pause:
        time.sleep(pause)
    returned = placeholder.give_back(placeholder.state)
    assert not returned.unsent and not returned.fin_pending
    return placeholder.state


def exchange(ours, theirs, helpers, size=200_000):
    """Data both ways at once, compared."""
    up, down = helpers.pattern(size), helpers.pattern(size, 8 * size)
    sending = helpers.Sending(ours, up), helpers.Sending(theirs, down)
    assert helpers.receive(theirs, size) == up
    assert helpers.receive(ours, size) == down
    for sender in sending:
        sender.join()


def flood(lab, ours, theirs, device, helpers, cycles):
    """Hand the host's socket over again and again while the peer sends; returns how many bytes arrived."""
    stop, sent = threading.Event(), 0

    def send():
        nonlocal sent
        while not stop.is_set():
            theirs.sendall(helpers.pattern(3000, sent))
            sent += 3000
            time.sleep(0.0002)

    peer = threading.Thread(target=send)
    peer.start()
    got = bytearray()
    try:
        for _ in range(cycles):
            ours.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                got += ours.recv(1 << 20)
            ours.settimeout(None)
            there_and_back(ours, device, pause=0.0003)
    finally:
        stop.set()
        ours.settimeout(0.05)
        while peer.is_alive():
            with contextlib.suppress(TimeoutError):
                got += ours.recv(1 << 20)
        peer.join()
    theirs.shutdown(socket.SHUT_WR)
    ours.settimeout(10)
    while part := ours.recv(1 << 20):
        got += part
    assert bytes(got) == helpers.pattern(sent)
    return sent


@ADDRESSES
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_a_flooded_connection_loses_nothing(make_lab, helpers, family, mapped, role, mtu):
    lab = make_lab(mtu=mtu)
    ours, theirs = lab.connect(family, role, mapped)
    assert flood(lab, ours, theirs, lab.device, helpers, 15) > 30_000
    out, back = lab.heard(ours)
    assert (lab.tap.resets(), out.ts_retreat, out.right_edge_retreat) == (0, 0, 0)
    ours.sendall(b"last words")
    ours.shutdown(socket.SHUT_WR)
    assert helpers.receive(theirs, 10) == b"last words" and theirs.recv(1) == b""


@FAMILIES
def test_a_connection_within_the_host(lab, helpers, family):
    ours, theirs = lab.connect(family, loopback=True)
    assert flood(lab, ours, theirs, "lo", helpers, 15) > 10_000


@FAMILIES
def test_both_queues_stay_full(lab, helpers, family):
    ours, theirs = lab.connect(family)
    data = helpers.pattern(2 << 20)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    accepted = fill(ours, data, helpers)
    theirs.sendall(helpers.pattern(100_000))
    helpers.wait_until(lambda: so.queue_length(ours.fileno(), so.SIOCINQ) == 100_000, "the peer's data")

    placeholder = handover.take(ours, lab.device)
    state = placeholder.state
    assert b"".join(state.receive_queue) == helpers.pattern(100_000)
    queued = size_of(state.send_queue)
    assert (state.write_seq - state.snd_una) % 2**32 == queued
    assert b"".join(state.send_queue) == data[accepted - queued : accepted]
    assert (state.snd_nxt - state.snd_una) % 2**32 < queued
    returned = placeholder.give_back(state)

    assert helpers.receive(ours, 100_000) == helpers.pattern(100_000)
    rest = b"".join(returned.unsent)
    ours.setblocking(True)
    sending = helpers.Sending(ours, rest + data[accepted:])
    assert helpers.receive(theirs, len(data)) == data
    sending.join()
    exchange(ours, theirs, helpers)
    assert not lab.tap.resets()


def fill(sock, data, helpers):
    """Send until neither the peer's window nor the send buffer has room; how much of `data` the kernel took."""
    sock.setblocking(False)
    done = 0
    while True:
        helpers.wait_until(lambda: not in_flight(sock), "a closed window")
        try:
            done += sock.send(data[done:])
        except BlockingIOError:
            return done


def in_flight(sock):
    """Bytes on their way to the peer."""
    return so.queue_length(sock.fileno(), so.SIOCOUTQ) - so.queue_length(sock.fileno(), so.SIOCOUTQNSD)


@FAMILIES
def test_bytes_in_flight_are_sent_again_when_they_were_lost(lab, helpers, family):
    ours, theirs = lab.connect(family)
    exchange(ours, theirs, helpers)
    block = Block(lab.peer, theirs.getsockname()[1])
    ours.sendall(helpers.pattern(5000))
    there_and_back(ours, lab.device)
    block.remove()
    assert helpers.receive(theirs, 5000) == helpers.pattern(5000)
    exchange(ours, theirs, helpers)


def test_sent_bytes_fit_a_buffer_that_the_application_made_small(lab, helpers):
    ours, theirs = lab.connect()
    data = helpers.pattern(300_000)
    block = Block(lab.peer, theirs.getsockname()[1])
    ours.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        ours.send(data)
    placeholder = handover.take(ours, lab.device)
    state = placeholder.state
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    before = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    # An engine has sent all of this.
    state.send_queue = [memoryview(data)]
    state.write_seq = state.snd_nxt = (state.snd_una + len(data)) % 2**32
    returned = placeholder.give_back(state)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before
    assert ours.getsockopt(socket.SOL_SOCKET, so.SO_BUF_LOCK) & so.SOCK_SNDBUF_LOCK
    block.remove()
    ours.settimeout(10)
    sending = helpers.Sending(ours, b"".join(returned.unsent))
    assert helpers.receive(theirs, len(data)) == data
    sending.join()


def test_a_full_receive_queue_flows_on_as_soon_as_it_is_read(lab, helpers):
    ours, theirs = lab.connect()
    data = helpers.pattern(4 << 20)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    sent = fill(theirs, data, helpers)
    state = there_and_back(ours, lab.device)
    unread = size_of(state.receive_queue)
    assert unread < sent
    started = time.monotonic()
    assert helpers.receive(ours, unread) == data[:unread]
    more = helpers.receive(ours, 1)
    # The peer's own probes come after 200 ms and more.
    assert time.monotonic() - started < 0.15
    theirs.setblocking(True)
    sending = helpers.Sending(theirs, data[sent:])
    assert unread + 1 + len(helpers.receive(ours, len(data) - unread - 1)) == len(data) and more == data[unread:][:1]
    sending.join()


@pytest.mark.parametrize("missing", ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"])
def test_options_that_were_not_negotiated_stay_off(lab, helpers, missing):
    lab.host.sysctl(f"net.ipv4.{missing}", 0)
    ours, theirs = lab.connect()
    # What counts is what the connection agreed on, not what the system would now.
    lab.host.sysctl(f"net.ipv4.{missing}", 1)
    first = there_and_back(ours, lab.device)
    exchange(ours, theirs, helpers)
    second = there_and_back(ours, lab.device)
    names = ("timestamps", "sack", "window_scaling", "snd_wscale", "rcv_wscale", "mss_clamp")
    assert [getattr(first, name) for name in names] == [getattr(second, name) for name in names]
    assert [first.timestamps, first.sack, first.window_scaling].count(False) == 1
    exchange(ours, theirs, helpers)


def test_segments_are_as_large_as_before(lab, helpers):
    ours, theirs = lab.connect()
    before = handover.take(ours, lab.device)
    before.give_back(before.state)
    exchange(ours, theirs, helpers)
    after = there_and_back(ours, lab.device)
    assert after.info.snd_mss == before.state.info.snd_mss == 1448


SETTINGS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 99),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 7),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 12_345),
    (socket.IPPROTO_TCP, socket.TCP_LINGER2, 11),
    (socket.IPPROTO_TCP, socket.TCP_SYNCNT, 4),
    (socket.IPPROTO_TCP, so.TCP_NOTSENT_LOWAT, 20_000),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 60_000),
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10),
    (socket.SOL_SOCKET, socket.SO_PRIORITY, 3),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    (socket.SOL_SOCKET, so.SO_MARK, 77),
    (socket.IPPROTO_IP, socket.IP_TOS, 0x20),
    (socket.IPPROTO_IP, socket.IP_TTL, 33),
]


def settings_of(sock):
    found = {(level, name): sock.getsockopt(level, name) for level, name, _ in SETTINGS}
    found["locks"] = sock.getsockopt(socket.SOL_SOCKET, so.SO_BUF_LOCK)
    found["congestion"] = sock.getsockopt(socket.IPPROTO_TCP, so.TCP_CONGESTION, 16)
    found["linger"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    found["timeout"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    found["device"] = sock.getsockopt(socket.SOL_SOCKET, so.SO_BINDTOIFINDEX)
    found["blocking"] = os.get_blocking(sock.fileno())
    found["names"] = sock.getsockname(), sock.getpeername()
    return found


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("bound", [False, True], ids=["any device", "bound"])
def test_settings_survive(lab, helpers, role, bound):
    ours, theirs = lab.connect(role=role)
    for level, name, value in SETTINGS:
        ours.setsockopt(level, name, value)
    ours.setsockopt(socket.IPPROTO_TCP, so.TCP_CONGESTION, b"reno")
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 4, 0))
    if bound:
        ours.setsockopt(socket.SOL_SOCKET, so.SO_BINDTODEVICE, lab.device.encode())
    ours.setblocking(False)
    before = settings_of(ours)
    for _ in range(3):
        there_and_back(ours, lab.device)
    assert settings_of(ours) == before
    ours.setblocking(True)
    exchange(ours, theirs, helpers, 20_000)


def test_the_placeholder_says_nothing(lab, helpers):
    ours, theirs = lab.connect()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    placeholder = handover.take(ours, lab.device)
    out, _ = lab.heard(ours)
    before = out.segments
    theirs.sendall(b"x" * 10_000)
    # Longer than the keepalive time; the peer retransmits meanwhile.
    time.sleep(1.3)
    assert lab.heard(ours)[0].segments == before
    placeholder.give_back(placeholder.state)
    assert helpers.receive(ours, 10_000) == b"x" * 10_000


def test_a_filter_of_the_application_survives(lab, helpers):
    accept_all = so.assemble((0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 7))
    ours, theirs = lab.connect()
    ours.setsockopt(socket.SOL_SOCKET, so.SO_ATTACH_FILTER, accept_all.program)
    there_and_back(ours, lab.device)
    assert so.read_filter(ours.fileno()).instructions == accept_all.instructions
    exchange(ours, theirs, helpers)


def test_every_descriptor_of_the_socket_goes_on(lab, helpers):
    ours, theirs = lab.connect()
    duplicate = lab.keep(ours.dup())
    watcher = select.epoll()
    watcher.register(duplicate, select.EPOLLIN)
    echo = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(s.recv(5)[::-1])"
    command = [sys.executable, "-c", "input(); " + echo, str(ours.fileno())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[ours.fileno()]) as child:
        there_and_back(ours, lab.device)
        assert watcher.poll(0) == []
        theirs.sendall(b"early")
        assert watcher.poll(5) == [(duplicate.fileno(), select.EPOLLIN)]
        child.communicate(b"\n", timeout=10)
    assert helpers.receive(theirs, 5) == b"ylrae"
    exchange(duplicate, theirs, helpers)
    watcher.close()


def test_reading_that_was_shut_stays_shut(lab, helpers):
    ours, theirs = lab.connect()
    ours.shutdown(socket.SHUT_RD)
    there_and_back(ours, lab.device)
    assert ours.recv(1) == b""
    ours.sendall(b"still writing")
    assert helpers.receive(theirs, 13) == b"still writing"


@FAMILIES
def test_what_arrived_meanwhile_is_delivered_by_injection(make_lab, helpers, family):
    lab = make_lab(keep=4096)
    ours, theirs = lab.connect(family)
    for size in (1000, 60_000):
        placeholder = handover.take(ours, lab.device)
        lab.tap.drain()
        theirs.sendall(helpers.pattern(size))
        assert select.select([lab.tap], [], [], 5)[0], "the peer is silent"
        # The tap keeps the beginning of a super-segment only, so the payload is put together here.
        first = lab.tap.drain()[0]
        placeholder.give_back(placeholder.state)
        tcp = first.data[14 + (20 if family == V4 else 40) :]
        whole = tcp[: (tcp[12] >> 4) * 4] + helpers.pattern(first.length)
        inject.deliver([whole], first.source[0], first.destination[0], ours)
        assert so.queue_length(ours.fileno(), so.SIOCINQ) >= first.length
        assert helpers.receive(ours, size) == helpers.pattern(size)
    exchange(ours, theirs, helpers)
    assert not lab.tap.resets()


@FAMILIES
def test_injection_reaches_a_socket_that_is_bound_to_a_device(lab, helpers, family):
    ours, theirs = lab.connect(family)
    ours.setsockopt(socket.SOL_SOCKET, so.SO_BINDTODEVICE, lab.device.encode())
    placeholder = handover.take(ours, lab.device)
    state = placeholder.state
    placeholder.give_back(state)
    said = inject.segment(state.remote, state.local, state.rcv_nxt, state.snd_una, inject.ACK, 100, payload=b"hello")
    descriptors = os.listdir("/proc/self/fd")
    inject.deliver([said], state.remote.address, state.local.address, ours)
    assert helpers.receive(ours, 5) == b"hello"
    assert os.listdir("/proc/self/fd") == descriptors, "the raw socket stays open"
    assert ours.getsockopt(socket.SOL_SOCKET, so.SO_BINDTOIFINDEX) == lab.host_end.index
    assert not lab.tap.resets()


def test_the_peers_clock_is_echoed_from_the_first_segment(lab, helpers):
    ours, theirs = lab.connect()
    exchange(ours, theirs, helpers, 1000)
    placeholder = handover.take(ours, lab.device)
    last = lab.heard(ours)[1].last_ts
    echoed = []
    lab.tap.on_packet = lambda packet: echoed.append(packet.ts_ecr) if packet.outgoing else None
    placeholder.give_back(dataclasses.replace(placeholder.state, ts_recent=last))
    exchange(ours, theirs, helpers, 1000)
    lab.tap.drain()
    assert echoed and echoed[0] == last and 0 not in echoed


def test_a_clock_about_to_wrap_goes_on(lab, helpers):
    ours, theirs = lab.connect()
    placeholder = handover.take(ours, lab.device)
    state = dataclasses.replace(placeholder.state, timestamp=0xFFFFFFFF)
    placeholder.give_back(state)
    again = handover.take(ours, lab.device)
    assert again.state.timestamp < 10_000
    again.give_back(dataclasses.replace(again.state, timestamp=placeholder.state.timestamp + 10_000))
    exchange(ours, theirs, helpers)


def test_a_device_that_does_not_exist(lab, helpers):
    ours, theirs = lab.connect()
    before = settings_of(ours)
    with pytest.raises(NotOffloadable, match="refused to hand over"):
        handover.take(ours, "nowhere0")
    assert settings_of(ours) == before
    exchange(ours, theirs, helpers)


def test_a_take_that_fails_at_the_last_step_is_undone(lab, helpers, monkeypatch):
    ours, theirs = lab.connect()
    theirs.sendall(helpers.pattern(50_000))
    helpers.wait_until(lambda: so.queue_length(ours.fileno(), so.SIOCINQ) == 50_000, "the peer's data")
    before = settings_of(ours)

    def fail(self, cover):
        cover.change(self._own)
        raise OSError(12, "no memory")

    monkeypatch.setattr(handover.Placeholder, "stand", fail)
    with pytest.raises(NotOffloadable, match="no memory"):
        handover.take(ours, lab.device)
    assert settings_of(ours) == before
    assert helpers.receive(ours, 50_000) == helpers.pattern(50_000)
    exchange(ours, theirs, helpers)


@pytest.mark.parametrize("moment", ["before", "behind the addresses"])
def test_a_connection_that_ends_meanwhile_is_left_alone(lab, helpers, monkeypatch, moment):
    """The application hears of the reset."""
    ours, theirs = lab.connect()

    def reset():
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        helpers.wait_until(lambda: select.select([ours], [], [], 0)[0], "the reset")

    if moment == "before":
        reset()
    else:
        duplicate = handover._duplicate
        monkeypatch.setattr(handover, "_duplicate", lambda sock: (reset(), duplicate(sock))[1])
    with pytest.raises(NotOffloadable, match="just ended"):
        handover.take(ours, lab.device)
    with pytest.raises(ConnectionResetError):
        ours.recv(1)


def test_a_give_back_that_fails_leaves_the_placeholder(lab, helpers):
    ours, theirs = lab.connect()
    placeholder = handover.take(ours, lab.device)
    wrong = dataclasses.replace(placeholder.state, send_queue=[memoryview(b"surplus")])
    with pytest.raises(UploadFailed, match="7 bytes to send"):
        placeholder.give_back(wrong)
    theirs.sendall(b"ignored so far")
    placeholder.give_back(placeholder.state)
    assert helpers.receive(ours, 14) == b"ignored so far"
    exchange(ours, theirs, helpers)
    assert not lab.tap.resets()
    with pytest.raises(ChimneyError, match="given back already"):
        placeholder.give_back(placeholder.state)
