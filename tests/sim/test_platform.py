"""What a stack stands on inside a simulation: readiness, timers and waiting."""

import pytest

from chimney.host.errors import ChimneyError
from chimney.link.base import NEVER
from chimney.platform import Platform
from chimney.sim.case import Network
from chimney.sim.platform import SimPlatform
from tests.sim.small_world import SmallWorld, flow_of, send


def make(**changes):
    world = SmallWorld(**changes)
    machine = world.machines["a"]
    platform = machine.platform
    side = platform.kernel_side(machine.sock, 65536, platform.interest)
    return world, machine, platform, side


def test_it_is_a_platform():
    platform: Platform = make()[2]
    assert isinstance(platform, SimPlatform)
    assert platform.room() == (4 << 20, 4 << 20)


def test_only_its_own_sockets():
    world, machine, platform, side = make()
    with pytest.raises(ChimneyError):
        platform.kernel_side(object(), 65536, platform.interest)
    assert side.fileno() not in (machine.sock.fileno(), platform.fileno(), -1)


def test_a_socket_is_told_of_as_long_as_it_is_ready():
    world, machine, platform, side = make()
    platform.interest(side.fileno(), True, False)
    assert platform.wait(0.0) == [] and platform.process_at() == NEVER
    world.send("b", b"hello")
    world.run(1000)
    assert platform.process_at() == world.clock.now
    assert platform.wait(0.0) == platform.wait(0.0) == [side.fileno()]
    platform.interest(side.fileno(), False, False)
    platform.interest(side.fileno(), False, False)
    assert platform.wait(0.0) == []
    platform.interest(side.fileno(), False, True)
    assert platform.wait(0.0) == [side.fileno()]


def test_the_end_is_told_whatever_was_asked_for():
    world, machine, platform, side = make()
    platform.interest(side.fileno(), True, False)
    world.machines["b"].tcp.abort(world.clock.now)
    world.machines["b"].flush()
    world.run(1000)
    assert platform.wait(0.0) == [side.fileno()]


def test_waiting_ends_when_something_is_ready():
    world, machine, platform, side = make()
    platform.interest(side.fileno(), True, False)
    world.send("b", b"hello")
    started = world.clock.now
    assert platform.wait(None) == [side.fileno()]
    assert world.clock.now == started + 200


def test_waiting_ends_in_time():
    world, machine, platform, side = make()
    started = world.clock.now
    assert platform.wait(0.25) == []
    assert world.clock.now == started + 250_000
    platform.arm(started + 300_000)
    # The earlier deadline stays.
    platform.arm(started + 400_000)
    assert platform.process_at() == started + 300_000
    assert platform.wait(None) == []
    assert world.clock.now == started + 300_000
    # It has expired, and was seen.
    assert platform.process_at() == NEVER
    platform.arm(0)
    assert platform.ready() and platform.wait(1.0) == [] and not platform.ready()
    assert world.clock.now == started + 300_000


def test_a_link_is_told_of_while_frames_wait_or_are_lent():
    world, machine, platform, side = make()
    link = platform.open_link(machine.device)
    link.set_filter([flow_of(machine)])
    platform.interest(link.fileno(), True, False)
    world.send("b", b"hello")
    assert platform.wait(None) == [link.fileno()]
    link.receive(1)
    assert platform.wait(0.0) == [link.fileno()]
    link.release()
    assert platform.wait(0.0) == []


def test_a_full_link_is_told_of_when_it_has_room():
    world, machine, platform, side = make(network=Network(bandwidth=8_000_000))
    link = platform.open_link(machine.device)
    while send(machine, link, b"x" * 1000):
        pass
    started = world.clock.now
    platform.interest(link.fileno(), True, True)
    assert platform.wait(None) == [link.fileno()]
    assert started < world.clock.now < started + 2_500
    assert link.writable()


def test_closed_nothing_is_ready():
    world, machine, platform, side = make()
    platform.interest(side.fileno(), False, True)
    platform.arm(0)
    platform.close()
    assert platform.wait(0.0) == [] and platform.process_at() == NEVER
