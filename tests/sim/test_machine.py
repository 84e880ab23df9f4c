"""Machines: what the NIC, the kernel and the taps make of frames, and what the kernel puts on the wire."""

import pytest

from chimney.conformance import wire
from chimney.conformance.handshake import MACS
from chimney.link import flows
from chimney.link.base import NEVER
from chimney.sim.case import Host, Network
from chimney.sim.model import ACK, FIN, RST, SYN, Segment, build
from chimney.sim.tap import flow_key, key_of
from tests.sim.small_world import SmallWorld, flow_of


def tap_on(machine, watched=True):
    link = machine.platform.open_link(machine.device)
    link.set_filter([flow_of(machine)] if watched else [])
    return link


def frame_for(machine, tcp, *, source=None, destination=None, good=True, **options):
    """A frame as the peer would send it: a TCP segment without checksum in an IP packet."""
    source = source or machine.flow.remote_address
    destination = destination or machine.flow.local_address
    packet = wire.ip_packet(source, destination, wire.checked(source, destination, tcp, good), **options)
    ether_type = wire.ETHER_IPV6 if len(source) == 16 else wire.ETHER_IPV4
    return wire.ethernet(machine.nic.mac, MACS[1], ether_type, packet)


def arrive(world, frame):
    world.network.inject(world.machines["a"].nic, frame)
    world.run(0)


@pytest.mark.parametrize("ipv6", [False, True])
def test_what_a_kernel_sends_is_right_on_the_wire(ipv6):
    world = SmallWorld(ipv6=ipv6)
    world.send("a", b"odd" * 1001)
    world.run(20_000)
    assert world.receive("b") == b"odd" * 1001
    for side, other in ("ab", "ba"):
        assert world.doors[side].sent and [speaker for speaker, _ in world.doors[side].sent].count("kernel")
        for _, frame in world.doors[side].sent:
            packet = wire.read_packet(frame)
            assert packet.valid_tcp and packet.source == world.machines[side].flow.local_address
            assert flows.flow_of(frame) == flow_of(world.machines[other])
            assert len(frame) <= 1514
    assert world.doors["b"].heard == [frame for _, frame in world.doors["a"].sent]


def test_one_thing_at_a_time():
    world = SmallWorld()
    world.send("a", b"x" * 3000)
    machine = world.machines["b"]
    assert machine.next_at() == world.clock.now + 200
    world.clock.advance(200)
    for count in (1, 2, 3):
        machine.softirq()
        assert len(world.doors["b"].heard) == count
    assert machine.tcp.readable


def test_timers_expire():
    world = SmallWorld(network=Network(loss=1.0))
    machine = world.machines["a"]
    world.send("a", b"x")
    rto = machine.next_at()
    assert world.clock.now + 200_000 <= rto <= world.clock.now + 300_000
    world.network.behave()
    world.run(400_000)
    assert len([frame for _, frame in world.doors["a"].sent if frame.endswith(b"x")]) == 2
    assert machine.next_at() == NEVER


def test_every_tap_gets_a_copy_of_what_it_lets_in():
    world = SmallWorld()
    machine = world.machines["a"]
    watching, other = tap_on(machine), tap_on(machine, watched=False)
    everything = machine.platform.open_link(machine.device)
    everything.set_filter(None)
    world.send("b", b"hello")
    world.run(1000)
    assert world.receive("a") == b"hello"
    assert (watching.pending(), other.pending(), everything.pending()) == (1, 0, 1)
    first, second = watching.receive(10)[0], everything.receive(10)[0]
    assert bytes(first.data) == bytes(second.data) == world.doors["a"].heard[0]
    assert first.checksum_ok and not first.gso_size
    watching.release()
    assert set(first.data) == {0xDD} and bytes(second.data) == world.doors["a"].heard[0]


def test_what_is_no_tcp_or_not_for_us_reaches_nobody():
    world = SmallWorld()
    machine = world.machines["a"]
    tap = tap_on(machine)
    segment = build(Segment(machine.settings.irs, machine.settings.iss, ACK, 100, b"data"), 80, 40000)
    arrive(world, b"\0" * 60)
    arrive(world, machine.nic.mac + MACS[1] + b"\x08\x00")
    arrive(world, frame_for(machine, segment, fragment=wire.MORE_FRAGMENTS))
    arrive(world, frame_for(machine, segment, protocol=17))
    arrive(world, frame_for(machine, segment)[:-3])
    arrive(world, frame_for(machine, b"\0" * 10))
    assert not world.doors["a"].sent and not machine.tcp.readable
    arrive(world, frame_for(machine, segment, destination=b"\x0a\0\0\x09"))
    assert not world.doors["a"].sent and not machine.tcp.readable
    del tap


@pytest.mark.parametrize("changes", [{"good": False}, {"damaged_header": True}])
def test_a_kernel_drops_what_is_damaged(changes):
    world = SmallWorld()
    machine = world.machines["a"]
    tap = tap_on(machine)
    segment = build(Segment(machine.settings.irs, machine.settings.iss, ACK, 100, b"data", 1, 1), 80, 40000)
    frame = bytearray(frame_for(machine, segment, good=changes.get("good", True)))
    if "damaged_header" in changes:
        frame[22] ^= 1
    arrive(world, bytes(frame))
    assert not machine.tcp.readable
    assert tap.pending() == 1 and not tap.receive(1)[0].checksum_ok
    arrive(world, frame_for(machine, segment))
    assert machine.tcp.readable


def test_ip_options_do_not_hide_a_connection():
    world = SmallWorld()
    machine = world.machines["a"]
    segment = build(Segment(machine.settings.irs, machine.settings.iss, ACK, 100, b"data", 1, 1), 80, 40000)
    frame = frame_for(machine, segment, options=b"\x01" * 4)
    assert flow_key(frame, 14) == key_of(flow_of(machine))
    arrive(world, frame)
    assert machine.tcp.readable


@pytest.mark.parametrize(
    ("segment", "answer"),
    [
        (Segment(100, 555, ACK, 10, b"data"), (555, 0, RST)),
        (Segment(100, 0, SYN, 10), (0, 101, RST | ACK)),
        (Segment(100, 0, FIN, 10, b"data"), (0, 105, RST | ACK)),
        (Segment(100, 555, RST | ACK, 10), None),
    ],
)
@pytest.mark.parametrize("ipv6", [False, True])
def test_what_nobody_has_is_answered_with_a_reset(segment, answer, ipv6):
    """RFC 9293, 3.10.7.1."""
    world = SmallWorld(ipv6=ipv6)
    machine = world.machines["a"]
    arrive(world, frame_for(machine, build(segment, 80, 40001)))
    sent = [wire.read_packet(frame) for _, frame in world.doors["a"].sent]
    if answer is None:
        assert not sent
        return
    (packet,) = sent
    assert packet.valid_tcp and packet.ports == (40001, 80)
    sequence, acknowledged = (int.from_bytes(packet.payload[at : at + 4], "big") for at in (4, 8))
    assert (sequence, acknowledged, packet.payload[13]) == answer


def test_a_connection_that_is_over_is_nobodys():
    world = SmallWorld()
    machine = world.machines["b"]
    machine.tcp.abort(world.clock.now)
    machine.flush()
    world.run(1000)
    assert world.machines["a"].state == machine.state == "CLOSED"
    assert isinstance(world.machines["a"].tcp.error, ConnectionResetError)


def test_merged_frames():
    world = SmallWorld(network=Network(gro=True))
    tap = tap_on(world.machines["b"]) if world.machines["b"].platform else None
    world.send("a", b"x" * 4000)
    world.run(1000)
    assert tap is None and len(world.doors["b"].heard) == 1
    assert world.receive("b") == b"x" * 4000


def test_a_network_interface_that_is_down():
    world = SmallWorld()
    world.machines["b"].surroundings.plugged = False
    world.send("a", b"lost")
    world.run(1000)
    assert not world.doors["b"].heard
    world.machines["b"].surroundings.plugged = True
    world.run(400_000)
    assert world.receive("b") == b"lost"


def test_states_have_the_names_of_the_rfc():
    world = SmallWorld()
    a, b = world.machines["a"], world.machines["b"]
    seen = [(a.state, b.state)]
    for act in (lambda: world.shutdown("a"), lambda: None, lambda: world.shutdown("b"), lambda: None):
        act()
        seen.append((a.state, b.state))
        world.run(50_000)
    assert seen == [
        ("ESTABLISHED", "ESTABLISHED"),
        ("FIN-WAIT-1", "ESTABLISHED"),
        ("FIN-WAIT-2", "CLOSE-WAIT"),
        ("FIN-WAIT-2", "LAST-ACK"),
        ("TIME-WAIT", "CLOSED"),
    ]
    world.run(61_000_000)
    assert a.state == "CLOSED"


def test_the_mtu_counts_from_the_next_segment_on():
    world = SmallWorld()
    machine = world.machines["a"]
    machine.nic.mtu = 800
    machine.mtu_changed(800)
    world.send("a", b"x" * 3000)
    assert max(len(frame) for _, frame in world.doors["a"].sent) == 814
    world.run(50_000)
    assert world.receive("b") == b"x" * 3000


def test_nodelay():
    world = SmallWorld(a=Host(chimney=True, nodelay=False))
    machine = world.machines["a"]
    world.send("a", b"x")
    world.send("a", b"y")
    assert len(world.doors["a"].sent) == 1
    machine.set_nodelay(True)
    world.send("a", b"z")
    assert [frame[-2:] for _, frame in world.doors["a"].sent[1:]] == [b"yz"]


class TestDeath:
    def test_a_kernel_closes_the_sockets_of_a_dead_process(self):
        world = SmallWorld()
        machine = world.machines["a"]
        machine.die()
        world.run(1000)
        assert machine.dead and world.machines["b"].state == "CLOSE-WAIT"
        assert machine.process_at() == NEVER
        world.send("b", b"for nobody")
        world.run(1000)
        assert world.machines["b"].state == "CLOSED"

    def test_unread_data_means_a_reset(self):
        world = SmallWorld()
        world.send("b", b"unread")
        world.run(1000)
        world.machines["a"].die()
        world.run(1000)
        assert world.machines["b"].state == "CLOSED"

    def test_a_placeholder_goes_without_a_word(self):
        world = SmallWorld()
        machine = world.machines["a"]
        side = machine.platform.kernel_side(machine.sock, 65536, machine.platform.interest)
        side.take(side.prepare())
        assert machine.owner == "target"
        sent = len(world.doors["a"].sent)
        machine.die()
        world.run(1000)
        assert len(world.doors["a"].sent) == sent and machine.owner == "kernel" and not machine.taps
        world.send("b", b"who is there?")
        world.run(1000)
        assert world.machines["b"].state == "CLOSED"
        assert world.doors["a"].sent[-1][0] == "kernel"
