"""The documents' statistics of live interfaces, against a tap and the kernel's own counters; and the file of them."""

import json
import socket

import pytest

import chimney
from chimney.intermediate import Layers, PassThrough
from chimney.lab.wire import veth_pair
from chimney.ndis.capabilities import IpOffloadStats, TcpOffloadStats
from chimney.ndis.status import Status

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
SIZE = 300_000


class Slow(PassThrough):
    """A driver that answers OID requests for statistics later, or never."""

    answers = True

    def __init__(self, name):
        super().__init__(name)
        self.kept = []

    @property
    def pending(self):
        return bool(self.kept)

    def on_oid_request(self, upper, request):
        if "STATS" not in request.oid.name:
            return super().on_oid_request(upper, request)
        self.kept.append((upper, request))
        return Status.PENDING

    def poll(self):
        if self.answers:
            upper, request = self.kept.pop()
            upper.handle.oid_request_complete(request, super().on_oid_request(upper, request))


def transfer(stack, helpers, ours, theirs):
    """Both ways, in the target."""
    connection = stack.connection(ours)
    connection.offload()
    sending, receiving = helpers.Sending(theirs, helpers.pattern(SIZE)), helpers.Receiving(theirs, SIZE)
    request = connection.post_send(helpers.pattern(SIZE))
    got = 0
    while got < SIZE:
        got += len(connection.recv(65536))
    while not request.done:
        stack.poll(0.1)
    receiving.join()
    sending.join()
    return connection


def snmp(family, counter):
    """The kernel's own, of this network namespace."""
    if family == V6:
        with open("/proc/net/snmp6") as lines:
            return int(next(line.split()[1] for line in lines if line.startswith(f"Ip6{counter} ")))
    with open("/proc/net/snmp") as lines:
        names, values = (line.split() for line in lines if line.startswith("Ip:"))
        return int(values[names.index(counter)])


@FAMILIES
def test_counters_are_those_of_the_wire(make_lab, helpers, family):
    lab = make_lab(offloads=False)
    ours, theirs = lab.connect(family)
    sent_before, got_before = (side.segments for side in lab.heard(ours))
    with chimney.Stack(intermediate_drivers=2) as stack:
        assert stack.statistics() == []
        connection = transfer(stack, helpers, ours, theirs)
        told = {one.device: one for one in stack.statistics()}[lab.device]
        sent, got = lab.heard(ours)
        tcp, ip = (told.tcp4, told.ip4) if family == V4 else (told.tcp6, told.ip6)
        other_tcp, other_ip = (told.tcp6, told.ip6) if family == V4 else (told.tcp4, told.ip4)
        # The kernel sends an acknowledgement that it owes at the cut; the host asks the firewall by others.
        assert 0 <= sent.segments - sent_before - ip.out_requests <= 4
        assert tcp.out_segments + tcp.retransmitted_segments == ip.out_requests
        assert 0 <= got.segments - got_before - tcp.in_segments <= 1
        assert ip.in_receives == ip.in_delivers == tcp.in_segments
        headers = 52 if family == V4 else 72
        assert ip.in_octets >= SIZE + headers * ip.in_receives and ip.out_octets >= SIZE + headers * ip.out_requests
        assert tcp.currently_established == told.offloaded == 1
        assert not any((tcp.in_errors, tcp.out_resets, tcp.reset_established, ip.in_discards, ip.out_discards))
        assert not other_tcp.in_segments and not other_ip.in_receives
        assert told.frames_in >= tcp.in_segments and 0 < told.frames_out <= ip.out_requests
        stack.reset_statistics()
        (told,) = stack.statistics()
        tcp, ip = (told.tcp4, told.ip4) if family == V4 else (told.tcp6, told.ip6)
        assert (tcp.in_segments, ip.in_octets, tcp.currently_established) == (0, 0, 1)
        connection.upload()
        assert stack.statistics()[0].offloaded == 0


@FAMILIES
def test_the_kernel_counts_what_comes_and_not_what_goes(lab, helpers, family):
    """Who adds both up must not count what arrives twice (docs/network.md)."""
    ours, theirs = lab.connect(family)
    with chimney.Stack() as stack:
        connection = stack.connection(ours)
        connection.offload()
        stack.poll(0.05)
        stack.reset_statistics()
        came, left = snmp(family, "InReceives"), snmp(family, "OutRequests")
        for _ in range(20):
            theirs.sendall(b"x" * 100)
            connection.recv(100)
            connection.sendall(b"y" * 100)
            helpers.receive(theirs, 100)
        (told,) = stack.statistics()
        ip = told.ip4 if family == V4 else told.ip6
        assert ip.in_receives >= 20 and ip.out_requests >= 20
        assert snmp(family, "InReceives") - came >= 20
        # The host's own probes of its neighbor, at most.
        assert snmp(family, "OutRequests") - left <= 3


def test_each_interface_of_a_team_has_its_own(make_lab, helpers):
    """Not the sum of all, as many times as there are interfaces."""
    lab = make_lab()
    ours, theirs = lab.connect()
    veth_pair(lab.host, lab.peer, addresses_a=["10.9.7.1/24"], addresses_b=["10.9.7.2/24"], names=("idle0", "idle1"))
    with chimney.Stack(intermediate_drivers=chimney.Team("idle0", lab.device, layers=Layers(PassThrough))) as stack:
        transfer(stack, helpers, ours, theirs)
        told = {one.device: one for one in stack.statistics()}
        assert told[lab.device].tcp4.currently_established == 1 and told[lab.device].tcp4.out_segments > 10
        assert told["idle0"].tcp4 == TcpOffloadStats() and told["idle0"].ip4 == IpOffloadStats()
        stack.reset_statistics()
        assert stack.statistics()[1].tcp4.out_segments == 0


def test_a_driver_may_take_its_time_to_answer(lab, helpers, monkeypatch):
    ours, theirs = lab.connect()
    with chimney.Stack(Layers(Slow)) as stack:
        connection = transfer(stack, helpers, ours, theirs)
        (told,) = stack.statistics()
        assert told.tcp4.out_segments > 0
        refusals = []

        def asked_in_a_callback(request):
            try:
                stack.statistics()
            except chimney.ChimneyError as error:
                refusals.append(str(error))

        connection.post_send(b"x", asked_in_a_callback)
        helpers.receive(theirs, 1)
        while not refusals:
            stack.poll(0.1)
        assert "callbacks" in refusals[0]
        while stack._assemblies[0].pending:
            stack.poll(0.1)
        monkeypatch.setattr("chimney.stack._OID_PATIENCE_US", 20_000)
        Slow.answers = False
        try:
            with pytest.raises(chimney.ChimneyError, match="has not answered"):
                stack.statistics()
        finally:
            Slow.answers = True


def test_a_file_holds_them(lab, helpers, monkeypatch, tmp_path):
    file = tmp_path / "statistics"
    monkeypatch.setenv("CHIMNEY_STATISTICS", str(file))
    ours, theirs = lab.connect()
    with chimney.Stack() as stack:
        assert json.loads(file.read_text())["interfaces"] == []
        connection = transfer(stack, helpers, ours, theirs)
        # As if a second had passed.
        stack._statistics_file._due = 0
        stack.poll()
        found = json.loads(file.read_text())
        assert found["interfaces"][0]["tcp4"]["currently_established"] == 1
        assert found["icmp"]["received"] == stack.icmp.received == 0
        (one,) = found["connections"]
        assert one["owner"] == "target" and one["bytes_sent_target"] == SIZE and one["offload_us"] > 0
        assert one["local"] == f"{lab.host_end.address(V4)}:{ours.getsockname()[1]}" and one["tcp"]["tcpi_pmtu"] == 1500
        connection.upload()
    (one,) = json.loads(file.read_text())["connections"]
    assert one["owner"] == "kernel" and one["uploads"] == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_refused_and_given_up(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("CHIMNEY_STATISTICS", str(tmp_path / "missing" / "statistics"))
    with pytest.raises(chimney.ChimneyError, match="CHIMNEY_STATISTICS"):
        chimney.Stack()
    (tmp_path / "missing").mkdir()
    with chimney.Stack() as stack:
        (tmp_path / "missing" / "statistics").unlink()
        (tmp_path / "missing").rmdir()
        stack._statistics_file._due = 0
        with pytest.warns(RuntimeWarning, match="not kept"):
            stack.poll()
        stack.poll()


def carried(connection):
    info = connection.info()
    return info.bytes_sent_kernel, info.bytes_sent_target, info.bytes_received_kernel, info.bytes_received_target


@FAMILIES
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_stream_bytes_are_counted_and_nothing_else(lab, helpers, family, role, used):
    """The kernel's counters of acknowledged and received bytes have SYN and FINs in them."""
    ours, theirs = lab.connect(family, role)
    already = 0
    if used:
        ours.sendall(b"before the stack knows it")
        helpers.receive(theirs, 25)
        already = 25
    with chimney.Stack() as stack:
        connection = stack.connection(ours)

        def exchange(sent, received):
            connection.sendall(b"s" * sent)
            helpers.receive(theirs, sent)
            if received:
                theirs.sendall(b"r" * received)
            while received:
                received -= len(connection.recv(received))

        def acknowledged(*wanted):
            helpers.wait_until(lambda: stack.poll(0.01) or carried(connection) == wanted, f"bytes {wanted}")

        acknowledged(already, 0, 0, 0)
        exchange(100, 10)
        acknowledged(already + 100, 0, 10, 0)
        connection.offload()
        exchange(200, 20)
        acknowledged(already + 100, 200, 10, 20)
        connection.upload()
        exchange(300, 30)
        acknowledged(already + 400, 200, 40, 20)
        theirs.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        acknowledged(already + 400, 200, 40, 20)
        connection.offload()
        exchange(7, 0)
        acknowledged(already + 400, 207, 40, 20)
        connection.upload()
        connection.shutdown()
        stack.poll(0.1)
        assert not theirs.recv(1)
        acknowledged(already + 400, 207, 40, 20)


def test_a_socket_in_full_flight_when_the_stack_gets_it(lab, helpers):
    ours, theirs = lab.connect()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours.settimeout(0.2)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += ours.send(bytes(100_000))
    receiving = helpers.Receiving(theirs, sent)
    with chimney.Stack() as stack:
        connection = stack.connection(ours)
        helpers.wait_until(lambda: stack.poll(0.01) or carried(connection)[0] == sent, "all bytes")
        receiving.join()
