"""The way between the machines: next hops, path MTUs and links that change, and what the kernels know of it."""

import pytest

from chimney.conformance.handshake import MACS
from chimney.host.errors import NotOffloadable
from chimney.host.kernel_network import KernelNetwork, NeighborState
from chimney.link.base import NEVER
from chimney.sim.case import Neighbor, Partition, PathMtu, Route, Unplug
from chimney.sim.icmp import SimIcmp
from chimney.sim.surroundings import DEVICE_INDEX, SimKernelNetwork
from chimney.sim.trouble import Trouble
from tests.sim.small_world import SmallWorld

ROUND_TRIP = 401


class Kernel:
    """Machine a, its kernel's view, what its host hears, and the trouble around it."""

    def __init__(self, **changes):
        self.world = SmallWorld(**changes)
        self.world.note_to, self.world.stacks = None, {}
        self.machine = self.world.machines["a"]
        self.surroundings = self.machine.surroundings
        self.network = SimKernelNetwork(self.machine)
        self.trouble = Trouble(self.world)
        self.side = self.machine.platform.kernel_side(self.machine.sock, 65536, self.machine.platform.interest)

    def reaches(self, data=b"hello"):
        """Whether something that a sends arrives within a moment."""
        self.world.send("a", data)
        self.world.run(1000)
        return self.world.receive("b") == data

    def reads(self):
        """Whether there is news."""
        return self.network.read(())

    def thinks(self):
        """What the kernel thinks of its next hop."""
        return self.network.neighbor((DEVICE_INDEX, self.surroundings.next_hop)).state

    def do(self, step):
        self.trouble.do(step)


@pytest.fixture
def kernel():
    return Kernel()


def test_it_is_what_the_host_wants():
    network: KernelNetwork = Kernel().network
    assert network.fileno() > 0 and not network.read(())


def test_to_begin_with_the_peer_is_the_next_hop(kernel):
    plan = kernel.side.where()
    assert plan == kernel.side.prepare()
    assert (plan.neighbor_mac, plan.device_mac) == (MACS[1], MACS[0])
    assert (plan.path_mtu, plan.path_mtu_until, plan.next_hop) == (1500, NEVER, plan.flow.remote_address)
    assert kernel.surroundings.next_at() == NEVER


def test_a_neighbor_with_another_mac_and_news_of_it(kernel):
    kernel.do(Neighbor(at=0, told_us=0))
    assert kernel.network.readable and kernel.reads() and not kernel.reads()
    assert kernel.side.where().neighbor_mac not in (MACS[1], b"")
    assert kernel.reaches()


def test_frames_to_the_old_mac_are_lost_until_there_is_news(kernel):
    kernel.do(Neighbor(at=0, told_us=5000))
    assert kernel.side.where().neighbor_mac == MACS[1]
    assert not kernel.reaches()
    kernel.world.run(5000)
    assert kernel.reads() and kernel.side.where().neighbor_mac != MACS[1]
    kernel.world.run(300_000)
    assert kernel.world.receive("b") == b"hello"


def test_news_that_come_before_the_fact(kernel):
    kernel.do(Neighbor(at=0, moves_us=5000, told_us=0))
    assert not kernel.reaches()
    kernel.world.run(300_000)
    assert kernel.world.receive("b") == b"hello"


def test_without_news_somebody_has_to_ask(kernel):
    kernel.do(Neighbor(at=0, told_us=-1))
    kernel.world.run(100_000_000)
    assert not kernel.reads() and kernel.side.where().neighbor_mac == MACS[1]
    kernel.network.probe((DEVICE_INDEX, kernel.side.where().next_hop))
    kernel.network.probe((DEVICE_INDEX, kernel.side.where().next_hop))
    assert not kernel.reads()
    kernel.world.run(ROUND_TRIP)
    assert kernel.reads() and kernel.side.where().neighbor_mac != MACS[1]
    assert kernel.reaches()


def test_a_kernel_that_uses_it_asks_by_itself(kernel):
    kernel.do(Neighbor(at=0, told_us=-1))
    assert not kernel.reaches()
    kernel.world.run(10_000_000)
    assert kernel.world.receive("b") == b"hello" and kernel.reads()


def test_a_neighbor_that_does_not_answer(kernel):
    kernel.do(Partition(at=0, of="b", lasts_us=10_000_000))
    kernel.network.probe((DEVICE_INDEX, kernel.side.where().next_hop))
    kernel.world.run(2_900_000)
    assert not kernel.reads()
    kernel.world.run(200_000)
    assert kernel.reads() and kernel.side.where().neighbor_mac == b""
    # Who wants to offload a connection now asks, and waits for the answer, or does not.
    with pytest.raises(NotOffloadable, match="next hop"):
        kernel.side.prepare(patient=False)
    with pytest.raises(NotOffloadable, match="next hop"):
        kernel.side.prepare()
    kernel.world.network.heal()
    assert kernel.side.prepare().neighbor_mac == MACS[1]


def test_nobody_is_asked_who_is_not_there(kernel):
    kernel.network.probe((DEVICE_INDEX, b"\x7f\0\0\1"))
    kernel.network.confirm((DEVICE_INDEX, b"\x7f\0\0\1"))
    assert kernel.network.neighbor((DEVICE_INDEX, b"\x7f\0\0\1")).state is NeighborState.UNKNOWN
    assert kernel.surroundings.next_at() == NEVER


@pytest.mark.parametrize("old_works", [False, True])
def test_a_route_by_a_gateway(kernel, old_works):
    kernel.do(Route(at=0, gateway=2, old_works=old_works))
    plan = kernel.side.where()
    assert kernel.reads() and plan.next_hop != plan.flow.remote_address and plan.neighbor_mac != MACS[1]
    assert kernel.surroundings.leads(MACS[1]) is old_works
    assert kernel.reaches()
    kernel.do(Route(at=0, gateway=0))
    assert kernel.side.where().neighbor_mac == MACS[1] and kernel.reaches(b"back")


def test_a_gateway_that_is_not_known_yet(kernel):
    kernel.do(Route(at=0, gateway=1, known=False))
    assert kernel.side.where().neighbor_mac == b""
    assert not kernel.reaches()
    kernel.world.run(300_000)
    assert kernel.side.where().neighbor_mac and kernel.world.receive("b") == b"hello"
    # The other machine has a way of its own.
    assert kernel.world.machines["b"].surroundings.gateway == 0


def test_a_path_that_takes_small_packets_only(kernel):
    kernel.do(PathMtu(at=0, mtu=1000, told_us=700, forgets_us=400_000))
    kernel.world.send("a", b"x" * 1400)
    kernel.world.run(600)
    assert kernel.side.where().path_mtu == 1500
    kernel.world.run(100)
    plan = kernel.side.where()
    assert plan.path_mtu == 1000
    assert plan.path_mtu_until == kernel.world.clock.now + 400_000
    kernel.world.run(399_999)
    assert kernel.world.receive("b") == b"x" * 1400
    # What the kernel learns and forgets it does not tell.
    kernel.world.run(1)
    assert kernel.side.where().path_mtu == 1500 and kernel.side.where().path_mtu_until == NEVER
    assert not kernel.reads()


def test_a_path_that_says_nothing_and_one_that_takes_everything_again(kernel):
    kernel.do(PathMtu(at=0, mtu=1000, told_us=-1))
    assert kernel.reaches(b"x" * 900) and not kernel.reaches(b"x" * 1400)
    kernel.world.run(5_000_000)
    assert kernel.world.receive("b") == b"" and kernel.side.where().path_mtu == 1500
    kernel.do(PathMtu(at=0, mtu=1500))
    kernel.world.run(10_000_000)
    assert kernel.world.receive("b") == b"x" * 1400


@pytest.mark.parametrize("what", ["link", "address"])
def test_what_is_unplugged_comes_back(kernel, what):
    kernel.do(Unplug(at=0, what=what, lasts_us=50_000))
    assert kernel.reads()
    with pytest.raises(NotOffloadable, match="no route"):
        kernel.side.where()
    assert not kernel.reaches()
    kernel.world.run(50_000)
    assert kernel.reads() and kernel.side.where().path_mtu == 1500
    kernel.world.run(1_000_000)
    assert kernel.world.receive("b") == b"hello"


def test_over_a_link_that_was_down_everybody_is_asked_anew(kernel):
    kernel.do(Unplug(at=0, what="link", lasts_us=50_000))
    kernel.network.probe((DEVICE_INDEX, kernel.machine.flow.remote_address))
    kernel.world.run(60_000)
    assert kernel.side.where().neighbor_mac == b""
    kernel.network.probe((DEVICE_INDEX, kernel.machine.flow.remote_address))
    kernel.world.run(ROUND_TRIP)
    assert kernel.side.where().neighbor_mac == MACS[1]


def test_segments_for_an_address_that_is_gone_are_for_the_taps_alone(kernel):
    link = kernel.machine.platform.open_link(kernel.machine.device)
    link.set_filter(None)
    kernel.do(Unplug(at=0, what="address", lasts_us=50_000))
    kernel.world.send("b", b"hello")
    kernel.world.run(1000)
    assert link.pending() == 1 and kernel.world.receive("a") == b""


def test_in_the_end_everything_is_there_but_what_nobody_has_told(kernel):
    kernel.do(Unplug(at=0, what="link", lasts_us=10**12))
    kernel.do(Unplug(at=0, what="address", lasts_us=10**12))
    kernel.trouble.behave()
    assert kernel.surroundings.routed and kernel.side.where().neighbor_mac == b""
    assert kernel.side.prepare().neighbor_mac == MACS[1]
    kernel.do(PathMtu(at=0, mtu=600))
    kernel.world.send("a", b"x" * 1400)
    kernel.world.run(1000)
    assert kernel.side.where().path_mtu == 600
    kernel.do(Neighbor(at=0, told_us=-1))
    kernel.trouble.behave()
    assert kernel.side.where().path_mtu == 1500 and not kernel.surroundings.leads(kernel.side.where().neighbor_mac)


def test_the_log_says_what_the_kernel_learns(kernel):
    kernel.do(Neighbor(at=0))
    kernel.do(Route(at=0, gateway=3))
    assert [note.partition(": ")[2].split(" has ")[0] for note in kernel.world.notes] == [
        "the peer",
        "the route goes by gateway 3",
    ]


def test_what_the_kernel_thinks_of_a_neighbor(kernel):
    assert kernel.thinks() is NeighborState.REACHABLE
    kernel.world.run(40_000_000)
    assert kernel.thinks() is NeighborState.STALE
    key = DEVICE_INDEX, kernel.surroundings.next_hop
    kernel.network.confirm(key)
    assert kernel.thinks() is NeighborState.REACHABLE and kernel.network.neighbor(key).confirmed_us == 0
    kernel.do(Partition(at=0, of="b", lasts_us=10_000_000))
    kernel.network.probe(key)
    assert kernel.thinks() is NeighborState.DOUBTED
    kernel.world.run(4_000_000)
    assert kernel.thinks() is NeighborState.FAILED
    kernel.network.probe(key)
    assert kernel.thinks() is NeighborState.UNKNOWN


def test_the_host_hears_what_the_kernel_cannot_judge(kernel):
    icmp = SimIcmp(kernel.machine)
    kernel.do(PathMtu(at=0, mtu=1000, told_us=700))
    kernel.world.send("a", b"x" * 1400)
    kernel.machine.owner = "target"
    kernel.world.run(699)
    assert not icmp.readable
    kernel.world.run(1)
    count, (message,) = icmp.read(64)
    assert count == 1 and not icmp.readable
    assert (message.mtu, message.flow) == (1000, kernel.machine.flow)
    assert kernel.side.where().path_mtu == 1500
    kernel.side.icmp(message)
    assert kernel.side.where().path_mtu == 1000
    # Larger is no news.
    kernel.side.icmp(message._replace(mtu=1200))
    assert kernel.side.where().path_mtu == 1000


def test_who_does_not_listen_hears_nothing(kernel):
    icmp = SimIcmp(kernel.machine)
    kernel.do(PathMtu(at=0, mtu=1000, told_us=100))
    icmp.listen(False)
    kernel.world.send("a", b"x" * 1400)
    kernel.world.run(200)
    assert not icmp.readable
