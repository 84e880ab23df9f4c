"""What the host makes of a firewall: a kernel and a target that a test lets count, and a clock of its own."""

from types import SimpleNamespace

import pytest

from chimney.host import firewall
from chimney.host.errors import NotOffloadable
from chimney.host.firewall import FirewallWatch
from chimney.host.hand_over import Owner
from chimney.host.kernel import Flow
from chimney.host.passage import Mistrust
from chimney.host.services import Progress
from chimney.host.withdrawal import Withdrawals
from chimney.ndis.status import TcpConnectionState as State

SECOND = 1_000_000


class Rules:
    """The kernel's firewall: what it tells when it is asked."""

    def __init__(self):
        self.news = self.changed = False
        self.tracks_for = 300 * SECOND
        self.closed = False

    def fileno(self):
        return 7

    def read(self):
        return self.news

    def look(self):
        return self.changed

    def tracked_for(self):
        return self.tracks_for

    def close(self):
        self.closed = True


class Way:
    """A connection, its adapter and its passage in one."""

    def __init__(self, world, number):
        self.world = world
        self.flow = Flow(b"\x0a\0\0\1", number, b"\x0a\0\0\2", 80)
        self.owner = Owner.TARGET
        self.kernel = SimpleNamespace(passage=lambda: self, tcp_info=lambda: {"tcpi_segs_in": self.kernel_heard})
        self.chimney = SimpleNamespace(held=False)
        self.mistrust = None
        self.state = State.ESTABLISHED
        self.heard = self.sent = self.passed = self.kernel_heard = 0
        self.pending = self.foreign = self.forwarded = 0
        self.out = True
        self.tracked = [True]
        self.log = []

    def __repr__(self):
        return "<Way>"

    # Connection

    @property
    def offloaded(self):
        return self.owner is Owner.TARGET

    @property
    def adapter(self):
        return self

    def withdraw(self, reason):
        self.log.append(reason)

    # Adapter

    def progress(self, flow):
        assert flow is self.flow
        return Progress(self.state, self.heard, self.sent, 1000, 2000, 64)

    def drain(self):
        self.heard += self.pending
        self.pending = 0

    def flush(self):
        self.heard += self.forwarded
        self.forwarded = 0

    def keep_out(self, flow, out):
        self.log.append("kept out" if out else "let in")

    # Passage

    def let_in(self):
        return self.passed & 0xFFFFFFFF

    def lets_out(self, seq, ack, window):
        assert (seq, ack, window) == (1000, 2000, 64)
        self.log.append("ack")
        return self.out

    def keep_tracked(self):
        self.log.append("kept")
        return self.tracked.pop() if len(self.tracked) > 1 else self.tracked[0]


class World:
    def __init__(self):
        self.now = 0
        self.offloaded = {}
        self.withdrawals = Withdrawals()
        self.elsewhere = self
        self.rules = Rules()
        self.watch = FirewallWatch(self, self.rules)

    def clock(self):
        return self.now

    def drain(self):
        """As `Elsewhere`: what has come on other interfaces is forwarded."""
        for way in self.offloaded.values():
            way.forwarded += way.foreign
            way.foreign = 0

    def offload(self, number=1):
        way = Way(self, number)
        self.offloaded[way.flow] = way
        return way

    def run(self, duration):
        """As the stack does, until `duration` is over; returns how often the watch was called."""
        end, called = self.now + duration, 0
        while (due := self.watch.poll_at()) <= end:
            self.now = max(self.now, due)
            self.watch.run(self.now)
            called += 1
            assert called < 10_000, "it never rests"
        self.now = end
        return called


@pytest.fixture
def world():
    return World()


def test_nobody_is_offloaded_and_nothing_is_due(world):
    assert world.run(3600 * SECOND) == 0


def test_a_silent_connection_costs_a_look_a_second(world):
    world.offload()
    world.run(2 * SECOND)
    assert world.run(100 * SECOND) <= 250


def test_what_passes_stays(world):
    way = world.offload()
    for _ in range(2000):
        way.heard += 3
        way.passed += 3
        world.run(1000)
    assert not way.log


def test_what_passes_and_is_counted_less_often_stays(world):
    """A kernel that counts what was merged once."""
    way = world.offload()
    for _ in range(100):
        way.heard += 40
        way.passed += 1
        world.run(100_000)
    assert not way.log


def test_what_does_not_pass_is_taken_back(world):
    way = world.offload()
    world.run(SECOND)
    way.heard += 1
    world.run(3 * SECOND)
    assert way.log and "input" in way.log[0]
    assert isinstance(way.mistrust, Mistrust)


def test_the_count_wraps(world):
    way = world.offload()
    way.passed = 0xFFFFFFFF
    world.run(SECOND)
    way.heard, way.passed = way.heard + 1, way.passed + 1
    world.run(SECOND)
    assert not way.log


def test_what_waited_in_the_tap_is_no_new_segment(world):
    """It has passed before the first look, and is heard after it."""
    way = world.offload()
    way.passed = way.pending = 5
    world.run(10 * SECOND)
    assert way.heard == 5 and not way.log


def test_what_came_on_another_interface_is_no_new_segment(world):
    way = world.offload()
    way.passed = way.foreign = 5
    world.run(0)
    world.drain()
    way.flush()
    world.run(10 * SECOND)
    assert way.heard == 5 and not way.log


def test_what_is_on_its_way_through_the_firewall_is_waited_for(world):
    way = world.offload()
    world.run(firewall.FIRST_PAUSE_US - 1)
    way.heard += 1
    world.run(firewall.ON_THE_WAY_US)
    assert not way.log
    way.passed += 1
    world.run(SECOND)
    assert not way.log


def test_news_are_acted_on_at_once(world):
    way = world.offload()
    world.run(10 * SECOND)
    way.heard, way.passed = way.heard + 100, way.passed + 100
    world.rules.news = True
    world.watch.ready()
    world.rules.news = False
    world.run(100)
    way.heard += 1
    world.run(10_000)
    assert any("input" in entry for entry in way.log)


def test_a_segment_that_came_with_the_news_is_not_overlooked(world):
    way = world.offload()
    world.run(10 * SECOND)
    way.heard += 1
    world.rules.news = True
    world.watch.ready()
    world.run(10_000)
    assert any("input" in entry for entry in way.log)


def test_news_for_many_are_acted_on_a_few_at_a_time(world):
    ways = [world.offload(number) for number in range(1000)]
    for way in ways:
        way.sent = 1
    world.run(SECOND)
    world.rules.news = True
    world.watch.ready()
    world.watch.run(world.now)
    world.watch.ready()
    assert sum("ack" in way.log for way in ways) < 100
    world.run(SECOND)
    assert all(way.log.count("ack") == 2 for way in ways)


def test_news_do_not_hurry_what_is_on_its_way(world):
    way = world.offload()
    world.run(firewall.FIRST_PAUSE_US - 1)
    way.heard += 1
    world.run(firewall.ON_THE_WAY_US // 2)
    world.rules.news = True
    world.watch.ready()
    world.rules.news = False
    world.run(firewall.ON_THE_WAY_US // 4)
    assert not any("input" in entry for entry in way.log)
    way.passed += 1
    world.run(SECOND)
    assert not any("input" in entry for entry in way.log)


def test_rules_without_news_are_looked_at(world):
    way = world.offload()
    way.sent = 1
    world.run(2 * SECOND)
    way.out = False
    world.rules.changed = True
    world.run(2 * SECOND)
    assert any("output" in entry for entry in way.log)


def test_what_may_leave_is_tried_now_and_then_if_it_sends(world):
    way = world.offload()
    world.run(100 * SECOND)
    assert "ack" not in way.log
    for _ in range(10):
        way.sent += 1
        world.run(firewall.OUTPUT_PAUSE_US)
    assert 8 <= way.log.count("ack") <= 10


@pytest.mark.parametrize("state", [State.CLOSING, State.LAST_ACK, State.TIME_WAIT, State.CLOSED])
def test_a_peer_that_may_be_gone_is_not_bothered(world, state):
    way = world.offload()
    way.state, way.sent = state, 1
    world.rules.news = True
    world.watch.ready()
    world.run(100 * SECOND)
    assert "ack" not in way.log


@pytest.mark.parametrize("state", [State.CLOSE_WAIT, State.FIN_WAIT_2, State.LAST_ACK])
def test_what_the_kernel_could_not_take_hears_nothing_until_something_comes_through(world, state):
    way = world.offload()
    way.state = state
    world.run(SECOND)
    way.heard += 1
    world.run(3 * SECOND)
    assert way.log == ["kept out"]
    world.run(100 * SECOND)
    assert set(way.log) == {"kept out", "kept"}
    way.passed += 1
    world.run(SECOND)
    assert way.log[-1] == "let in" and way.log.count("kept out") == 1


def test_what_the_kernel_does_not_take_is_kept_from_sending_more(world):
    """By hearing nothing, until something may leave."""
    way = world.offload()
    way.state = State.CLOSE_WAIT
    world.run(SECOND)
    way.out = False
    world.rules.news = True
    world.watch.ready()
    world.rules.news = False
    world.run(SECOND)
    said = [entry for entry in way.log if entry != "ack"]
    assert "output" in said[0] and said[1:] == ["kept out"]
    way.passed += 1
    world.run(3 * SECOND)
    assert "let in" not in way.log
    way.out = True
    world.run(SECOND)
    assert "let in" in way.log
    acks = way.log.count("ack")
    world.run(SECOND)
    assert way.log.count("ack") <= acks + 1


def test_a_mistrusted_connection_stays_until_the_kernel_has_heard_of_the_peer(world):
    way = world.offload()
    world.run(SECOND)
    way.heard += 1
    world.run(3 * SECOND)
    way.owner, way.kernel_heard = Owner.KERNEL, 5
    del world.offloaded[way.flow]
    world.run(SECOND)
    with pytest.raises(NotOffloadable, match="drops what arrives"):
        way.mistrust.check(way)
    way.kernel_heard = 6
    way.mistrust.check(way)


def test_connection_tracking_is_kept_awake(world):
    way = world.offload()
    world.run(1000 * SECOND)
    assert 9 <= way.log.count("kept") <= 10 and "ack" not in way.log


def test_a_connection_that_the_tracker_has_forgotten_is_shown_to_it(world):
    way = world.offload()
    way.tracked = [True, False]
    world.run(101 * SECOND)
    assert way.log == ["kept", "ack", "kept"]


def test_a_connection_that_is_not_tracked_is_shown_once(world):
    way = world.offload()
    way.tracked = [False]
    world.run(1000 * SECOND)
    assert way.log.count("ack") == 1


def test_a_connection_on_its_way_is_looked_at_when_it_is_there(world):
    way = world.offload()
    way.owner = Owner.OFFLOADING
    way.heard = 3
    world.run(SECOND)
    way.owner = Owner.TARGET
    world.run(SECOND)
    way.heard += 1
    world.run(3 * SECOND)
    assert way.log


def test_many_connections_are_looked_at_a_few_at_a_time_and_less_often(world):
    ways = [world.offload(number) for number in range(2500)]
    world.run(4 * SECOND)
    asked = []
    for way in ways:
        way.let_in = lambda: asked.append(1) or 0
    assert world.run(4 * SECOND) <= 8000
    assert not asked, "who hears nothing is not asked for"
    for way in ways:
        way.heard += 1
    world.run(5 * SECOND)
    assert all(way.log for way in ways)


def test_who_goes_up_and_comes_down_again_is_looked_at_anew(world):
    """With another placeholder, and a target that counts from nought."""
    way = world.offload()
    world.run(SECOND)
    way.heard = way.passed = 7
    world.run(SECOND)
    del world.offloaded[way.flow]
    other = world.offload(2)
    way.chimney = SimpleNamespace(held=False)
    way.heard, way.passed = 0, 7
    world.offloaded[way.flow] = way
    world.run(SECOND)
    for one in (way, other):
        one.heard += 1
    world.run(3 * SECOND)
    assert "input" in way.log[0] and "input" in other.log[0]


def test_what_the_kernel_has_not_taken_is_counted_anew(world):
    """It stands where it stood among the offloaded: others have come since."""
    way, _ = world.offload(1), world.offload(2)
    way.heard = way.passed = 7
    world.run(SECOND)
    way.chimney, way.heard = SimpleNamespace(held=False), 0
    world.run(10 * SECOND)
    assert not way.log
    # And what is dropped from then on is noticed.
    way.heard = 1
    world.run(2 * SECOND)
    assert len(way.log) == 1


def test_its_descriptor_is_the_rules(world):
    assert world.watch.fileno() == 7
    world.watch.close()
    assert world.rules.closed
