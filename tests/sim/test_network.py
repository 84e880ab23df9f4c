import msgspec
import pytest

from chimney.link.base import NEVER
from chimney.link.memory import Clock
from chimney.sim.case import Network
from chimney.sim.network import BadNetwork

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")


@pytest.fixture
def clock():
    return Clock(1000)


def two(clock, network=Network(), seed=1):  # noqa: B008 (it is frozen)
    made = BadNetwork(clock, seed, network)
    links = [made.link(name, mac) for name, mac in zip("ab", MACS, strict=True)]
    for link in links:
        link.set_filter(None)
    return made, *links


def send(link, size=100):
    return link.send(MACS[1] + MACS[0] + b"\x08\0" + bytes(size), [], 0, 0, 0, False)


def arrivals(network, link, clock):
    times = []
    while network.next_at() < NEVER:
        clock.advance_to(max(clock(), network.next_at()))
        times += [clock()] * len(link.receive(64))
    return times


def test_every_property_of_a_cases_network_is_one_of_the_memory_network(clock):
    network, *_ = two(clock)
    values = {
        field.name: field.type(n + 2 if field.type is int else (n + 1) / 100)
        for n, field in enumerate(msgspec.structs.fields(Network))
        if field.type is not bool
    }
    network.change(Network(gro=True, **values))
    assert network.gro
    for name, value in values.items():
        assert getattr(network, name) == value


def test_by_default_it_behaves(clock):
    network, a, b = two(clock)
    for _ in range(50):
        send(a)
    assert arrivals(network, b, clock) == [1200] * 50
    assert network.segments == 50 and not network.lost


def test_what_behaves_again_has_no_memory_of_what_it_was(clock):
    network, a, b = two(clock, Network(loss=1.0, bandwidth=1000, queue_bytes=1))
    network.partition(a, NEVER - 1)
    send(a)
    network.behave()
    send(a)
    send(a)
    assert arrivals(network, b, clock) == [1200, 1200]
    assert network.lost == 1


def test_a_slower_network_does_not_let_a_faster_one_overtake(clock):
    network, a, b = two(clock, Network(delay_us=5000))
    send(a, 1)
    network.change(Network(delay_us=10))
    send(a, 2)
    clock.advance_to(7000)
    assert [len(frame.data) for frame in b.receive(9)] == [15, 16]


def test_what_is_injected_has_just_arrived_and_is_not_verified(clock):
    network, a, b = two(clock, Network(loss=1.0))
    frame = MACS[1] + MACS[0] + b"\x08\0" + bytes(60)
    network.inject(b, frame)
    assert network.next_at() == clock()
    (seen,) = b.receive(9)
    assert bytes(seen.data) == frame and not seen.checksum_ok
    assert network.segments == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_is_the_same_network(seed):
    bad = Network(jitter_us=50, loss=0.1, burst=0.05, reorder=0.2, duplicate=0.2, corrupt=0.1, bandwidth=10**8)
    seen = []
    for _ in range(2):
        clock = Clock(1000)
        network, a, b = two(clock, bad, seed)
        told = []
        network.happened = lambda name, what, told=told: told.append((name, what))
        for size in range(200):
            send(a, 50 + size)
        seen.append((arrivals(network, b, clock), told))
    assert seen[0] == seen[1] and {what for _, what in seen[0][1]} == {"lost", "late", "twice", "damaged"}
