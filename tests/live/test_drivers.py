"""Drivers of every kind between the host and the targets of two interfaces, on live connections."""

import contextlib
import gc
import hashlib
import os
import random
import re
import select
import socket
import sys
from pathlib import Path

import pytest

import chimney
from chimney.host.linux.timer import monotonic_us
from chimney.intermediate import SEND, Faults, FaultyDriver, IntermediateDriver, Multiplexer, PassThrough
from chimney.lab.tap import Tap
from chimney.lab.wire import veth_pair
from tests.live.traffic import Traffic, cycle

README = Path(__file__).parents[2] / "README.md"
V4, V6 = socket.AF_INET, socket.AF_INET6


class Wire:
    """A second wire between host and peer of a laboratory, with its tap."""

    def __init__(self, lab, stack):
        self.lab = lab
        self.host_end, self.peer_end = veth_pair(
            lab.host,
            lab.peer,
            addresses_a=("10.10.0.1/24", "fd10::1/64"),
            addresses_b=("10.10.0.2/24", "fd10::2/64"),
        )
        self.device = self.host_end.name
        self.tap = stack.enter_context(Tap(lab.host, self.device, keep=160))

    def connect(self, family=V4):
        """The host's socket, the peer's."""
        with self.lab.peer:
            listener = self.lab.keep(socket.create_server((self.peer_end.address(family), 0), family=family))
        ours = self.lab.keep(socket.create_connection(listener.getsockname()[:2]))
        return ours, self.lab.keep(listener.accept()[0])

    def resets(self):
        self.tap.drain()
        assert not self.tap.lost()
        return self.tap.resets()


@pytest.fixture
def wires(lab):
    """Two wires to the same peer: the laboratory's, and another one."""
    with contextlib.ExitStack() as stack:
        yield lab, Wire(lab, stack)


def trouble(seed, **others):
    """A maker of drivers that delay, link and cut whatever comes up."""
    faults = Faults(seed=seed, delay=0.5, longest=5, merge=0.7, split=0.5, **others)
    return lambda name: FaultyDriver(name, faults)


def start(stack, helpers, pairs, size):
    """Each pair of sockets with data both ways: connections, applications, and the peers' senders and receivers."""
    connections = [stack.connection(ours) for ours, _ in pairs]
    senders = [helpers.Sending(theirs, incoming(helpers, size, n)) for n, (_, theirs) in enumerate(pairs)]
    receivers = [helpers.Receiving(theirs, size) for _, theirs in pairs]
    traffics = [Traffic(c, outgoing(helpers, size, n), 20_000) for n, c in enumerate(connections)]
    return connections, traffics, senders, receivers


def incoming(helpers, size, number):
    return helpers.pattern(size, number << 32)


def outgoing(helpers, size, number):
    return helpers.pattern(size, number << 40)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def finish(stack, helpers, size, traffics, senders, receivers):
    for number, traffic in enumerate(traffics):
        traffic.rest(stack, size, 60)
        assert not traffic.errors
        assert digest(traffic.incoming) == digest(incoming(helpers, size, number))
        assert digest(receivers[number].join()) == digest(outgoing(helpers, size, number))
        senders[number].join()


def at_rest(team):
    """Nothing is left of any connection in a team's drivers."""
    return all(driver.call_entries == driver.offload_entries == driver.pending == 0 for driver in team.drivers)


class Team(chimney.Team):
    """A team that remembers its drivers, for the test to look at."""

    def __init__(self, *devices, layers):
        self.drivers = []
        super().__init__(*devices, layers=chimney.Layers(*[self.remembering(make) for make in layers]))

    def remembering(self, make):
        def made(name):
            self.drivers.append(make(name))
            return self.drivers[-1]

        return made

    def multiplexer(self):
        return self.remembering(lambda name: super(Team, self).multiplexer())("team")

    def of(self, kind):
        return [driver for driver in self.drivers if type(driver) is kind]


def test_two_targets_under_a_multiplexer(wires, helpers):
    """Every connection has three different drivers in its way, and goes down and up in the middle of its transfers."""
    first, second = wires
    team = Team(first.device, second.device, layers=[PassThrough, trouble(7)])
    size, rounds = 5_000_000, 20
    pairs = [first.connect(V4), second.connect(V4), first.connect(V6), second.connect(V6)]
    devices = [first.device, second.device] * 2
    verifier = chimney.Verifier(monotonic_us)
    with chimney.Stack(intermediate_drivers=team, verifier=verifier) as stack:
        connections, traffics, senders, receivers = start(stack, helpers, pairs, size)
        for round_ in range(2 * rounds):
            down = round_ % 2 == 0
            for connection, traffic in zip(connections, traffics, strict=True):
                (connection.offload if down else connection.upload)()
                traffic.more(stack, 60_000)
            for connection, device in zip(connections, devices, strict=True):
                assert connection.hand_over_error is None and connection.offloaded is down
                assert connection.adapter.device == device
                assert len(connection.adapter.target.connections) == (2 if down else 0)
            [multiplexer] = team.of(Multiplexer)
            behind = [entry.lower.index for entry in multiplexer.entries if entry.connection]
            assert sorted(behind) == ([0, 0, 1, 1] if down else [])
            assert all(entry.lower.index == entry.upper.index for entry in multiplexer.entries)
            assert first.resets() == second.resets() == 0
        finish(stack, helpers, size, traffics, senders, receivers)
        for connection in connections:
            info = connection.info()
            assert (info.offloads, info.uploads) == (rounds, rounds)
            assert info.bytes_received_target + info.bytes_received_kernel == size
            assert info.bytes_received_target and info.bytes_sent_target
        assert at_rest(team) and len(team.of(PassThrough)) == len(team.of(FaultyDriver)) == 2
        faulty = team.of(FaultyDriver)
        for kind in ("delay", "merge", "split"):
            assert sum(getattr(driver.triggers, kind).happened for driver in faulty)
    verifier.finish()
    assert not verifier.violations and verifier.exercised["im.complete.same-nbl"]
    assert first.resets() == second.resets() == 0


def descriptors():
    # Those of earlier tests that nobody has any more are none of ours.
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_troublesome_driver_loses_nothing(wires, helpers):
    """It refuses offloads, has no memory now and then, and asks for uploads of its own accord."""
    first, second = wires
    makers = [trouble(3, refuse=0.2, out_of_memory=0.02, upload=0.03), PassThrough]
    team = Team(first.device, second.device, layers=makers)
    size = 6_000_000
    chance = random.Random(5)
    pairs = [first.connect(V4), second.connect(V6)]
    with chimney.Stack(intermediate_drivers=team) as stack:
        connections, traffics, senders, receivers = start(stack, helpers, pairs, size)
        refused = 0
        for _ in range(40):
            for connection, traffic in zip(connections, traffics, strict=True):
                if chance.random() < 0.7:
                    try:
                        connection.offload()
                    except chimney.NotOffloadable:
                        refused += 1
                else:
                    connection.upload()
                traffic.more(stack, 60_000)
        finish(stack, helpers, size, traffics, senders, receivers)
        for connection in connections:
            connection.upload()
        assert at_rest(team)
        faulty = team.of(FaultyDriver)
        for kind in ("refuse", "out_of_memory", "upload"):
            assert sum(getattr(driver.triggers, kind).happened for driver in faulty), kind
        assert refused and sum(connection.info().uploads for connection in connections) > 10
    assert first.resets() == second.resets() == 0


def test_other_interfaces_have_the_layers_alone(wires, helpers):
    first, second = wires
    team = Team(first.device, second.device, layers=[PassThrough])
    pairs = [first.connect(), first.connect(loopback=True)]
    with chimney.Stack(intermediate_drivers=team) as stack:
        for ours, theirs in pairs:
            connection = stack.connection(ours)
            connection.offload()
            connection.sendall(b"hello")
            assert helpers.receive(theirs, 5) == b"hello"
        assert len(team.of(Multiplexer)) == 1 and len(team.of(PassThrough)) == 3


def test_a_team_with_an_interface_that_is_not_there_takes_nothing(lab, helpers):
    ours, theirs = lab.connect()
    with chimney.Stack(intermediate_drivers=chimney.Team(lab.device, "absent0")) as stack:
        connection = stack.connection(ours)
        with pytest.raises(chimney.NotOffloadable, match="absent0"):
            connection.offload()
        before = descriptors()
        with pytest.raises(chimney.NotOffloadable, match="absent0"):
            connection.offload()
        assert descriptors() == before
        connection.sendall(b"in the kernel")
        assert helpers.receive(theirs, 13) == b"in the kernel"


def test_drivers_that_cannot_be_made_leave_nothing_open(lab, helpers):
    made = []

    def drivers(device, below, bind):
        driver = PassThrough("the only one")
        bind(driver.lower, below)
        made.append(driver)
        if len(made) < 3:
            raise RuntimeError("no second one")
        return driver.upper

    ours, theirs = lab.connect()
    with chimney.Stack(intermediate_drivers=drivers) as stack:
        connection = stack.connection(ours)
        with pytest.raises(RuntimeError, match="no second"):
            connection.offload()
        before = descriptors()
        with pytest.raises(RuntimeError, match="no second"):
            connection.offload()
        assert descriptors() == before
        assert all(driver.lower.binding is None for driver in made)
        connection.offload()
        connection.sendall(b"third time lucky")
        assert helpers.receive(theirs, 16) == b"third time lucky"


def test_a_team_is_of_different_interfaces():
    for devices in ((), ("eth0",), ("eth0", "eth0")):
        with pytest.raises(ValueError, match="two or more"):
            chimney.Team(*devices)


class Slow(IntermediateDriver):
    """Keeps every completion of a send for so many turns."""

    TURNS = 50

    def __init__(self, name):
        super().__init__(name)
        self.kept = []
        self.turns = 0

    @property
    def pending(self):
        return len(self.kept)

    def poll(self):
        self.turns += 1
        if self.turns % self.TURNS == 0:
            kept, self.kept = self.kept, []
            for operation, head in kept:
                self.complete(operation, head)

    def on_completion(self, lower, operation, net_buffer_list):
        if operation == SEND:
            self.kept.append((operation, net_buffer_list))
        else:
            self.complete(operation, net_buffer_list)


def test_a_driver_that_keeps_something_back_has_its_turn(lab, helpers):
    """The peer says nothing more, and no timer runs out: only the driver itself is a reason to wake."""
    ours, theirs = lab.connect()
    with chimney.Stack(intermediate_drivers=chimney.Layers(PassThrough, Slow, PassThrough)) as stack:
        connection = stack.connection(ours)
        connection.offload()
        request = connection.post_send(b"anybody there?")
        while not request.done:
            assert select.select([stack], [], [], 5)[0], "the stack does not say that a driver is due"
            stack.poll()
        assert helpers.receive(theirs, 14) == b"anybody there?"


@pytest.mark.parametrize("count", range(5))
def test_so_many_pass_throughs(lab, helpers, count):
    ours, theirs = lab.connect()
    size = 2_000_000
    with chimney.Stack(intermediate_drivers=count) as stack:
        connections, traffics, senders, receivers = start(stack, helpers, [(ours, theirs)], size)
        cycle(stack, connections[0], traffics[0], 10, 50_000)
        finish(stack, helpers, size, traffics, senders, receivers)
    assert lab.resets() == 0


def test_the_example_of_the_readme(wires, helpers, tmp_path):
    first, second = wires
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    code = code.replace("eth0", first.device).replace("eth1", second.device)
    server = first.peer.popen([sys.executable, "-m", "http.server", "8000", "--directory", str(tmp_path)])

    def listening():
        with first.peer.socket() as probe:
            return probe.connect_ex(("127.0.0.1", 8000)) == 0

    try:
        helpers.wait_until(listening, "the server")
        output = first.host.run([sys.executable, "-c", code], timeout=30)
    finally:
        server.terminate()
        server.wait()
    assert output.splitlines() == [f"{wire.device} HTTP/1.0 200 OK" for wire in wires]
