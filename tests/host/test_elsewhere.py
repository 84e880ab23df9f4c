"""Whom the host hears on other interfaces, and what becomes of what it hears there."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest

from chimney.host.datagrams import sum16
from chimney.host.elsewhere import Elsewhere, Nowhere
from chimney.host.errors import NotOffloadable
from chimney.host.kernel import Flow, Plan
from chimney.host.listener import NEVER
from chimney.ndis.state import NeighborConst, PathConst

LOCAL, REMOTE = b"\x0a\0\0\1", b"\x0a\0\0\2"
FLOW = Flow(LOCAL, 80, REMOTE, 5000)
OTHER = replace(FLOW, remote_port=5001)
FOUR, OTHER_FOUR = (LOCAL, 80, REMOTE, 5000), (LOCAL, 80, REMOTE, 5001)


def plan(flow=FLOW, device=2, elsewhere=True):
    return Plan(
        flow=flow,
        device="eth0",
        arrives_on="eth0",
        neighbor=NeighborConst(),
        neighbor_mac=bytes(6),
        path=PathConst(LOCAL, REMOTE),
        path_mtu=1500,
        next_hop=REMOTE,
        device_index=device,
        device_mac=bytes(6),
        elsewhere=elsewhere,
    )


def packet(flow=FLOW, payload=b"data", seq=1, options=b"", damage=0):
    tcp = pack("!HHIIBBHHH", flow.remote_port, flow.local_port, seq, 2, 5 << 4, 16, 100, 0, 0) + payload
    total = sum16(tcp, sum16(flow.remote_address + flow.local_address + pack("!II", len(tcp), 6)))
    tcp = tcp[:16] + pack("!H", 0xFFFF ^ total ^ damage) + tcp[18:]
    header = 20 + len(options)
    ip = pack("!BBHHHBBH", 0x40 | header // 4, 0, header + len(tcp), 0, 0x4000, 64, 6, 0)
    return ip + flow.remote_address + flow.local_address + options + tcp, header


class Sockets:
    def __init__(self):
        self.wanted = {}
        self.waiting = []
        self.failure = None
        self.closed = False

    def fileno(self):
        return 77

    def listen(self, wanted):
        if self.failure is not None:
            raise self.failure
        self.wanted = {index: set(flows) for index, flows in wanted.items()}

    def receive(self, limit):
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def close(self):
        self.closed = True


class World:
    """The services, the kernel's devices, and the connections by flow."""

    def __init__(self):
        self.now = 1000
        self.devices = [2, 3, 5]
        self.sockets = Sockets()
        self.elsewhere = Elsewhere(self, self.sockets, lambda: list(self.devices))

    def clock(self):
        return self.now

    def watch(self, **fields):
        """A connection that goes down; the devices on which it is heard, and what its hand-over is told."""
        told = []
        return self.elsewhere.watch(plan(**fields), told.append), told

    def run(self):
        """The stack's next turns, as far as something is due by itself."""
        while (at := self.elsewhere.poll_at()) < NEVER:
            self.now = max(self.now, at)
            self.elsewhere.run(self.now)


@pytest.fixture
def world():
    return World()


def test_a_connection_is_heard_on_all_devices_but_its_own(world):
    assert world.watch()[0] == [3, 5]
    assert world.sockets.wanted == {3: {FOUR}, 5: {FOUR}}
    assert world.watch(flow=OTHER, device=3)[0] == [2, 5]
    assert world.sockets.wanted == {2: {OTHER_FOUR}, 3: {FOUR}, 5: {FOUR, OTHER_FOUR}}


def test_one_that_changes_its_device(world):
    world.watch()
    assert world.watch(device=3)[0] == [2, 5]
    assert world.sockets.wanted == {2: {FOUR}, 5: {FOUR}}


def test_one_that_is_bound_to_its_device_or_within_the_host_is_not_heard_elsewhere(world):
    world.watch()
    assert world.watch(elsewhere=False)[0] == []
    world.sockets.waiting.append(packet())
    world.elsewhere.ready()
    world.elsewhere.unwatch(FLOW)
    world.run()
    assert not world.sockets.wanted


def test_the_sockets_stay_for_a_while(world):
    world.watch()
    world.elsewhere.unwatch(FLOW)
    assert world.sockets.wanted and world.elsewhere.poll_at() > world.now
    world.watch()
    world.run()
    assert world.sockets.wanted == {3: {FOUR}, 5: {FOUR}}
    world.elsewhere.unwatch(FLOW)
    world.run()
    assert not world.sockets.wanted


def test_devices_come_and_go(world):
    world.devices = [2]
    assert world.watch()[0] == []
    world.devices = [2, 9]
    world.elsewhere.look_again()
    world.run()
    assert world.sockets.wanted == {9: {FOUR}}
    world.devices = [9]
    world.elsewhere.look_again()
    world.run()
    assert world.sockets.wanted == {9: {FOUR}}


def test_segments_go_to_their_connections_in_order(world):
    one, two = world.watch()[1], world.watch(flow=OTHER)[1]
    first, second, third = packet(seq=1), packet(OTHER), packet(seq=5, options=b"\1\1\1\0")
    world.sockets.waiting += [first, second, third]
    world.elsewhere.ready()
    assert [[segment.packet for segment in batch] for batch in two] == [[second[0]]]
    [batch] = one
    assert all(segment.foreign and segment.flow == FLOW for segment in batch)
    assert [bytes(segment.tcp()) for segment in batch] == [first[0][20:], third[0][24:]]
    # What is kept may be injected: it has no options any more.
    assert batch[1].tcp_offset == 20 and batch[1].packet[0] == 0x45


@pytest.mark.parametrize("wrong", [packet(damage=1), packet(replace(FLOW, local_port=81)), packet(payload=b"")])
def test_what_is_corrupt_or_nobodys(world, wrong):
    _, told = world.watch()
    data, header = wrong
    world.sockets.waiting += [(data[:-1] if len(data) == 40 else data, header)]
    world.elsewhere.ready()
    assert not told


def test_what_the_kernel_has_heard_is_not_the_targets(world):
    """It came while the connection was in the kernel, between two offloads."""
    world.watch()
    world.elsewhere.unwatch(FLOW)
    world.sockets.waiting.append(packet())
    _, told = world.watch()
    world.elsewhere.drain()
    assert not told and not world.sockets.waiting


def test_a_drain_takes_everything_that_is_there_but_comes_to_an_end(world):
    _, told = world.watch()
    world.sockets.waiting += [packet(seq=number) for number in range(200)]
    world.elsewhere.drain()
    assert sum(map(len, told)) == 200
    one = packet()
    world.sockets.receive = lambda limit: [one] * limit
    world.elsewhere.drain()


def test_sockets_that_cannot_be_made_refuse_the_offload(world):
    world.sockets.failure = OSError(24, "too many open files")
    with pytest.raises(NotOffloadable, match="too many open files"):
        world.watch()
    world.sockets.failure = None
    assert world.watch(flow=OTHER)[0] == [3, 5]
    assert world.sockets.wanted == {3: {OTHER_FOUR}, 5: {OTHER_FOUR}}
    world.sockets.failure = OSError(24, "too many open files")
    world.elsewhere.look_again()
    world.elsewhere.run(world.now)
    assert world.elsewhere.poll_at() > world.now
    world.sockets.failure = None
    world.run()


def test_a_host_that_hears_nothing_else(world):
    deaf = Nowhere()
    assert deaf.watch(plan(), print) == []
    deaf.drain()
    deaf.look_again()
    deaf.unwatch(FLOW)


def test_everything_is_given_back(world):
    assert world.elsewhere.fileno() == 77
    world.elsewhere.close()
    assert world.sockets.closed
