"""The link of a chimney on a simulated machine: as `PacketLink` is, with the world's door in the way out."""

import errno

import pytest

from chimney.conformance import wire
from chimney.link.base import NEVER, LinkError
from chimney.sim.case import Network
from chimney.sim.tap import RING, SEND_BUFFER
from tests.sim.small_world import SmallWorld, flow_of, send


def make(**changes):
    world = SmallWorld(**changes)
    machine = world.machines["a"]
    return world, machine, machine.platform.open_link(machine.device)


def test_what_a_target_sends_passes_the_door_in_wire_segments():
    world, machine, link = make(timestamps=False)
    assert send(machine, link, b"x" * 3000, gso_size=1000)
    assert [speaker for speaker, _ in world.doors["a"].sent] == ["target"] * 3
    assert all(wire.read_packet(frame).valid_tcp for _, frame in world.doors["a"].sent)
    world.run(1000)
    assert world.receive("b") == b"x" * 3000
    assert link.statistics.sent_frames == 1


def test_a_packet_that_is_too_large():
    world, machine, link = make()
    machine.nic.mtu = 1000
    with pytest.raises(LinkError) as refused:
        send(machine, link, b"x" * 1000)
    assert refused.value.errno == errno.EMSGSIZE
    # A device that shall cut it loses what is too large.
    assert send(machine, link, b"x" * 2000, gso_size=1400)
    assert [len(frame) for _, frame in world.doors["a"].sent] == [54 + 600]


def test_no_room_while_the_network_is_slow():
    world, machine, link = make(network=Network(bandwidth=8_000_000))
    assert link.writable_at() == NEVER
    count = 0
    while send(machine, link, b"x" * 1000):
        count += 1
    assert count * 1078 > SEND_BUFFER > (count - 2) * 1078
    assert not link.writable() and link.statistics.refused == 1
    room = link.writable_at()
    assert world.clock.now < room < world.clock.now + 2_500
    world.clock.advance_to(room)
    assert link.writable() and send(machine, link, b"x")
    machine.network.behave()
    assert link.writable()


def test_the_filter_counts_when_a_frame_arrives():
    world, machine, link = make()
    world.send("b", b"before")
    world.run(1000)
    assert link.pending() == 0
    link.set_filter([flow_of(machine)])
    world.send("b", b"while")
    world.run(1000)
    link.set_filter([])
    world.send("b", b"after")
    world.run(1000)
    (frame,) = link.receive(10)
    assert bytes(frame.data).endswith(b"while")
    assert link.readable and not link.pending()
    link.release()
    assert not link.readable


def test_a_full_ring_drops_the_newest():
    world, machine, link = make()
    link.set_filter(None)
    for number in range(RING + 5):
        link.arrived(None, number.to_bytes(2, "big"), -1, True, 0)
    assert link.pending() == RING and link.statistics.received_drops == 5
    assert [int.from_bytes(frame.data, "big") for frame in link.receive(3)] == [0, 1, 2]


def test_a_closed_link_and_one_whose_interface_is_down():
    world, machine, link = make()
    machine.surroundings.plugged = False
    with pytest.raises(LinkError) as refused:
        send(machine, link, b"x")
    assert refused.value.errno == errno.ENETDOWN
    assert not world.doors["a"].sent
    machine.surroundings.plugged = True
    assert machine.taps == [link]
    link.close()
    link.close()
    assert not machine.taps
    for call in (lambda: link.receive(1), link.writable, lambda: send(machine, link, b"x")):
        with pytest.raises(LinkError) as refused:
            call()
        assert refused.value.errno == errno.EBADF


def test_there_is_one_interface():
    with pytest.raises(LinkError) as refused:
        SmallWorld().machines["a"].platform.open_link("eth-b")
    assert refused.value.errno == errno.ENODEV
