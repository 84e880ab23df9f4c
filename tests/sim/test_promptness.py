"""Who waits without need is found, and nobody else: whatever somebody may wait for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chimney.host.connection import Owner
from chimney.link.base import NEVER
from chimney.link.memory import Clock
from chimney.sim.case import Case, Driver, Host, Layer, Mtu, Network
from chimney.sim.door import Facts
from chimney.sim.promptness import Promptness

MS = 1000
LATE = 110 * MS
BUFFER = 4000


class Rig:
    """Promptness in a world of which only side a matters; it does what it is told, and nothing by itself."""

    def __init__(self, **case):
        hosts = {side: case.pop(side, Host(receive_buffer=BUFFER, receive_window=BUFFER)) for side in "ab"}
        self.case = Case(a=hosts["a"], b=hosts["b"], mss=1000, timestamps=False, **case)
        self.clock = Clock(1_000_000_000)
        self.broken_off = []
        self.findings = []
        self.connections = {}
        self.machines = {
            side: SimpleNamespace(state="ESTABLISHED", phase="", target=None, sock=SimpleNamespace(tcp=None))
            for side in "ab"
        }
        self.doors = {side: SimpleNamespace(facts=Facts(), heard=Facts(), in_order=0) for side in "ab"}
        self.applications = {side: SimpleNamespace(posted=0, received=0) for side in "ab"}
        self.door, self.application, self.machine = self.doors["a"], self.applications["a"], self.machines["a"]
        self.busy = NEVER
        self.promptness = Promptness(self)

    def busy_since(self, side):
        return self.busy if side == "a" else NEVER

    def broken(self, kind, message):
        assert kind == "promptness"
        self.findings.append(message)

    def hears(self, start, end, ack=0, window=BUFFER, stamp=-1):
        self.promptness.arrives("a", start, end, ack, ack + window, stamp)
        if start <= self.door.in_order:
            self.door.in_order = max(self.door.in_order, end)

    def says(self, start, end, ack):
        self.promptness.leaves("a", start, end, ack)
        self.door.facts.seq_end = max(self.door.facts.seq_end, end)
        self.door.facts.ack = max(self.door.facts.ack, ack)

    def after(self, microseconds):
        """What has been found when so much time has passed."""
        self.clock.advance(microseconds)
        self.promptness.after_event()
        return self.findings


@pytest.fixture
def rig():
    return Rig()


def test_what_arrives_is_acknowledged(rig):
    rig.hears(0, 100)
    assert not rig.after(60 * MS)
    rig.says(0, 0, ack=100)
    assert not rig.after(LATE)


def test_what_arrives_is_not_acknowledged(rig):
    rig.hears(0, 100)
    assert not rig.after(60 * MS)
    assert rig.after(60 * MS) == ["a does not acknowledge what has arrived, for 100 ms"]


def test_a_part_is_not_acknowledged(rig):
    rig.hears(0, 100)
    rig.clock.advance(2 * MS)
    rig.says(0, 0, ack=50)
    assert rig.findings == ["a acknowledges 50 only, and all up to 100 has been there for long"]


def test_what_has_just_arrived_may_cross_an_acknowledgement(rig):
    rig.hears(0, 100)
    rig.says(0, 0, ack=50)
    assert not rig.findings


@pytest.mark.parametrize(("ack", "found"), [(1000, 1), (2000, 0)])
def test_what_closes_a_gap_brings_in_what_is_behind_it(rig, ack, found):
    rig.hears(1000, 2000)
    rig.hears(0, 1000)
    rig.clock.advance(2 * MS)
    rig.says(0, 0, ack=ack)
    assert len(rig.findings) == found


def test_nobody_keeps_what_is_beyond_the_window(rig):
    rig.door.facts.edge = 50
    rig.hears(0, 100)
    rig.clock.advance(2 * MS)
    rig.says(0, 0, ack=50)
    assert not rig.findings


def test_an_old_timestamp(rig):
    rig.hears(0, 0, stamp=5)
    rig.hears(0, 100, stamp=4)
    assert not rig.after(LATE)


def test_a_forged_acknowledgement(rig):
    rig.hears(0, 0, ack=10_000)
    rig.hears(0, 100, ack=10_000 - BUFFER - 1)
    assert not rig.after(LATE)


@pytest.mark.parametrize(("end", "found"), [(100, 1), (101, 0)])
def test_what_the_peer_has_is_not_sent_again(rig, end, found):
    rig.says(0, 200, ack=0)
    rig.hears(0, 0, ack=100)
    rig.clock.advance(2 * MS)
    rig.says(0, end, ack=0)
    assert len(rig.findings) == found


def test_an_acknowledgement_in_an_unacceptable_segment_is_none(rig):
    rig.says(0, 200, ack=0)
    rig.hears(0, 100)
    rig.hears(99, 100, ack=200)
    rig.clock.advance(2 * MS)
    rig.says(0, 200, ack=100)
    assert not rig.findings


@pytest.mark.parametrize(("posted", "window", "found"), [(500, 500, 1), (500, 499, 0), (5000, 1000, 1), (5000, 999, 0)])
def test_what_may_leave_leaves(rig, posted, window, found):
    """A whole segment, or all there is; less may wait for more of a window."""
    rig.application.posted = posted
    rig.hears(0, 0, window=window)
    rig.after(0)
    assert len(rig.after(LATE)) == found


def test_the_window_of_an_older_segment(rig):
    """RFC 9293, 3.10.7.4: of two that acknowledge the same, the one that begins later counts."""
    rig.application.posted = 500
    rig.hears(0, 0, window=100)
    rig.says(0, 100, ack=0)
    rig.hears(200, 300, ack=100, window=0)
    rig.hears(0, 200, ack=100)
    rig.says(0, 0, ack=300)
    rig.after(0)
    assert not rig.after(LATE)


def test_what_is_under_way_is_waited_for(rig):
    rig.application.posted = 500
    rig.hears(0, 0)
    rig.says(0, 100, ack=0)
    rig.after(0)
    assert not rig.after(LATE)


@pytest.mark.parametrize(
    "case",
    [
        {"a": Host(receive_buffer=BUFFER, layers=(Layer(delay=1.0),))},
        {"steps": (Driver(at=0, side="a", what="hold"),)},
    ],
)
def test_a_driver_may_keep_back_what_is_to_be_sent(case):
    rig = Rig(**case)
    rig.application.posted = 500
    rig.hears(0, 0)
    rig.after(0)
    assert not rig.after(LATE)


@pytest.mark.parametrize(("window", "found"), [(BUFFER // 4 - 1, 1), (BUFFER // 4, 0)])
def test_an_open_window_is_told(rig, window, found):
    rig.hears(0, 100)
    rig.says(0, 0, ack=100)
    rig.application.received = 100
    rig.door.facts.edge = 100 + window
    rig.after(0)
    assert len(rig.after(LATE)) == found


def test_after_the_peers_fin_no_window_is_told(rig):
    rig.hears(0, 100)
    rig.says(0, 0, ack=100)
    rig.application.received = rig.door.facts.edge = 100
    rig.door.heard.fin = 100
    rig.after(0)
    assert not rig.after(LATE)


@pytest.mark.parametrize(
    "case", [{"network": Network(bandwidth=1_000_000)}, {"steps": (Mtu(at=0, mtu=1000),)}], ids=["full", "mtu"]
)
def test_a_link_that_loses_what_an_engine_has_sent(case):
    rig = Rig(**case)
    rig.hears(0, 100)
    assert not rig.after(LATE)


def test_who_has_broken_off_need_not_care(rig):
    rig.hears(0, 100)
    rig.broken_off.append("b aborts")
    assert not rig.after(LATE)


@pytest.mark.parametrize("owner", [Owner.OFFLOADING, Owner.UPLOADING])
def test_a_hand_over_takes_its_time(rig, owner):
    rig.connections["a"] = SimpleNamespace(owner=owner)
    rig.hears(0, 100)
    assert not rig.after(LATE)
    rig.clock.advance(LATE)
    rig.connections["a"].owner = Owner.TARGET
    # What came meanwhile is processed one by one when it is over.
    rig.says(0, 0, ack=50)
    assert not rig.after(60 * MS)
    assert len(rig.after(60 * MS)) == 1


def test_a_process_that_is_busy_comes_to_it_afterwards(rig):
    rig.hears(0, 100)
    rig.busy = rig.clock.now
    assert not rig.after(LATE)
    rig.busy = NEVER
    rig.promptness.was_busy("a", took_time=True)
    assert not rig.after(60 * MS)
    assert len(rig.after(60 * MS)) == 1


def test_a_hand_over_loses_what_is_out_of_order(rig):
    rig.connections["a"] = SimpleNamespace(owner=Owner.TARGET)
    rig.hears(1000, 2000)
    rig.machine.sock.tcp = object()
    rig.hears(0, 1000)
    rig.clock.advance(2 * MS)
    rig.says(0, 0, ack=1000)
    assert not rig.after(LATE)


@pytest.mark.parametrize(("looked_after", "found"), [(0, 0), (2 * MS, 1)])
def test_a_hand_over_loses_what_was_out_of_order_when_the_process_looked_last(rig, looked_after, found):
    """And it may take its time until it is seen to be one."""
    rig.connections["a"] = SimpleNamespace(owner=Owner.TARGET)
    rig.hears(0, 500)
    rig.hears(1000, 2000)
    rig.hears(500, 1000)
    rig.hears(2000, 2500)
    rig.clock.advance(looked_after)
    rig.busy = rig.clock.now
    rig.clock.advance(5 * MS)
    rig.machine.sock.tcp = object()
    rig.promptness.was_busy("a", took_time=True)
    rig.busy = NEVER
    rig.clock.advance(2 * MS)
    rig.says(0, 0, ack=1000)
    assert len(rig.findings) == found
    rig.clock.advance(LATE)
    assert bool(rig.after(LATE)) == found


def test_nothing_more_is_owed_than_a_hand_over_has_left(rig):
    rig.connections["a"] = SimpleNamespace(owner=Owner.TARGET)
    rig.hears(1000, 2000)
    rig.hears(0, 1000)
    rig.says(0, 0, ack=1000)
    rig.machine.sock.tcp = object()
    rig.promptness.was_busy("a", took_time=False)
    assert not rig.after(LATE)


def test_a_window_that_closes_counts_even_if_it_was_overtaken(rig):
    rig.application.posted = 500
    rig.hears(0, 0, ack=0, window=2500)
    rig.hears(0, 0, ack=0, window=0)
    assert not rig.after(LATE)


def test_a_hand_over_that_takes_no_time_begins_the_wait_anew_at_once(rig):
    """And not when something happens next, which may be the peer's time-out."""
    rig.connections["a"] = SimpleNamespace(owner=Owner.TARGET)
    rig.hears(0, 100)
    rig.machine.sock.tcp = object()
    rig.promptness.was_busy("a", took_time=False)
    rig.clock.advance(LATE)
    rig.promptness.after_event()
    assert rig.findings == ["a does not acknowledge what has arrived, for 100 ms"]


def test_nobody_asks_whether_the_window_is_still_closed(rig):
    rig.application.posted = 500
    rig.hears(0, 0, ack=0, window=0)
    assert not rig.after(0)
    assert not rig.after(9_900 * MS)
    assert rig.after(200 * MS) == ["a does not ask whether the window is still closed, for 10000 ms"]


@pytest.mark.parametrize("probe", [(-1, -1), (0, 1)])
def test_who_has_asked_for_a_closed_window_may_wait_longer_the_next_time(rig, probe):
    rig.application.posted = 500
    rig.hears(0, 0, ack=0, window=0)
    assert not rig.after(0)
    rig.clock.advance(3_000 * MS)
    rig.says(*probe, ack=0)
    assert not rig.after(100_000 * MS)


def test_an_acknowledgement_does_not_ask_for_a_window(rig):
    rig.application.posted = 500
    rig.hears(0, 0, ack=0, window=0)
    assert not rig.after(0)
    rig.says(0, 0, ack=0)
    assert rig.after(10_100 * MS)


def test_who_takes_over_asks_for_a_closed_window_anew(rig):
    rig.connections["a"] = SimpleNamespace(owner=Owner.TARGET)
    rig.application.posted = 500
    rig.hears(0, 0, ack=0, window=0)
    assert not rig.after(0)
    rig.says(-1, -1, ack=0)
    rig.machine.sock.tcp = object()
    rig.promptness.was_busy("a", took_time=False)
    assert rig.after(10_100 * MS)
