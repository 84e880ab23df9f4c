"""Each invariant notices what it is there for: a world in good order is tampered with, and looked at once more."""

from types import SimpleNamespace

import pytest

from chimney.host.connection import Owner
from chimney.sim.case import Abort, Case, Host, Offload, Read, Send, Shutdown, Upload
from chimney.sim.outcome import Cell
from chimney.sim.world import World


def steps(*hand_overs):
    """A few bytes both ways, of which the last ones of b's are not read by a before the end."""
    return (
        Read(at=0, side="b"),
        Read(at=0, side="a", size=500),
        Send(at=0, side="a", size=3000),
        Send(at=0, side="b", size=1000),
        *hand_overs,
        Read(at=20_000, side="a", depth=0),
        Send(at=21_000, side="b", size=700),
    )


class Stopped(Exception):
    """As far as a test wants to go."""


def stopped(case, at):
    """A world at a time (in microseconds from its start), between two events."""
    world = World(case)
    look = world.invariants.after_event

    def after_event():
        look()
        if world.now >= at:
            raise Stopped

    world.invariants.after_event = after_event
    with pytest.raises(Stopped):
        world.play()
    assert world.findings == []
    world.invariants.after_event = look
    return world


@pytest.fixture
def with_kernel():
    """1000 bytes have been read, 700 wait in the kernel's receive queue."""
    return stopped(Case(steps=steps()), 21_300)


@pytest.fixture
def with_target():
    """The same in the target."""
    return stopped(Case(steps=steps(Offload(at=5000))), 21_300)


@pytest.fixture
def finished():
    """A world that has come to its end, through two hand-overs."""
    world = World(Case(a=Host(chimney=True), steps=steps(Offload(at=5000), Upload(at=21_500))))
    world.play()
    assert world.findings == []
    assert world.hand_overs == 2
    return world


def seen(world):
    """What an event's look finds, once more."""
    world.invariants.after_event()
    return [(finding.kind, finding.message) for finding in world.findings]


def at_end(world):
    world.invariants.at_end()
    return [finding.kind for finding in world.findings]


def engine_of(world):
    (tcp,) = world.machines["a"].target.connections.values()
    return tcp.engine


def test_nothing_is_found_where_nothing_is(with_kernel, with_target, finished):
    assert seen(with_kernel) == seen(with_target) == at_end(finished) == []


# At every moment


@pytest.mark.parametrize("name", ["with_kernel", "with_target"])
def test_both_have_it(request, name, with_kernel):
    world = request.getfixturevalue(name)
    world.machines["a"].sock.tcp = with_kernel.machines["a"].sock.tcp
    world.machines["a"].target = SimpleNamespace(connections={"flow": "something"})
    assert [kind for kind, _ in seen(world)] == ["one owner"]


@pytest.mark.parametrize(("changed", "found"), [(1, "below RCV.NXT"), (-1, "below RCV.NXT")])
def test_bytes_of_the_target_that_are_in_no_memory(with_target, changed, found):
    (tcp,) = with_target.machines["a"].target.connections.values()
    tcp.delivery.buffered_bytes -= changed
    ((kind, message),) = seen(with_target)
    assert kind == "ack truth" and found in message
    assert len(seen(with_target)) == 1, "it is said once"


def test_bytes_of_the_kernel_that_are_in_no_memory(with_kernel):
    del with_kernel.machines["a"].sock.tcp.receiver.unread[-1:]
    ((kind, message),) = seen(with_kernel)
    assert (kind, message) == ("ack truth", "a: RCV.NXT is 1700 in ESTABLISHED, and 1699 bytes are there to be read")


def test_rcv_nxt_goes_back_behind_what_was_acknowledged(with_kernel):
    receiver = with_kernel.machines["a"].sock.tcp.receiver
    receiver.nxt -= 1
    del receiver.unread[-1:]
    kinds = dict(seen(with_kernel))
    assert kinds["monotone RCV.NXT"] == "a: RCV.NXT is 1699, after 1700"
    with_kernel.doors["a"].facts.ack = 1700
    with_kernel.findings.clear()
    assert seen(with_kernel) == [("ack truth", "a: RCV.NXT is 1699, and 1700 have been acknowledged")]


def test_rcv_nxt_is_ahead_of_what_has_arrived(with_kernel):
    receiver = with_kernel.machines["a"].sock.tcp.receiver
    receiver.nxt += 1
    receiver.unread += b"x"
    assert seen(with_kernel) == [("ack truth", "a: RCV.NXT is 1701, and only 1700 have arrived")]


def test_snd_una_goes_back(with_target):
    engine_of(with_target).sender.una -= 10
    assert seen(with_target) == [("monotone SND.UNA", "a: SND.UNA is 2990, after 3000")]


def test_snd_una_is_ahead_of_what_the_peer_has_said(with_target):
    engine_of(with_target).sender.una += 1
    assert seen(with_target) == [("ack truth", "a: SND.UNA is 3001, and the peer has acknowledged 3000 only")]


@pytest.mark.parametrize(("beyond", "kinds"), [(0, []), (127, []), (128, ["window truth"])])
def test_a_window_that_the_peer_has_not_been_told_of(with_kernel, with_target, beyond, kinds):
    """The scale of 7 tells units of 128 bytes."""
    with_kernel.machines["a"].sock.tcp.receiver.edge = with_kernel.doors["a"].facts.edge + (1 << 32) + beyond
    with_kernel.machines["a"].sock.tcp.receiver.edge += with_kernel.case.iss[1]
    assert [kind for kind, _ in seen(with_kernel)] == kinds
    with_target.doors["a"].facts.edge -= beyond
    assert [kind for kind, _ in seen(with_target)] == kinds


@pytest.mark.parametrize("disturb", ["phase", "dead"])
def test_nothing_is_asked_of_a_connection_between_two_owners(with_kernel, disturb):
    machine = with_kernel.machines["a"]
    machine.sock.tcp.receiver.nxt += 1
    setattr(machine, disturb, True)
    assert seen(with_kernel) == []


# At the end


def test_bytes_are_missing(finished):
    finished.applications["a"].received -= 1
    assert at_end(finished) == ["streams"]


def test_bytes_too_many_have_left(finished):
    finished.doors["a"].facts.seq_end += 1
    assert at_end(finished) == ["streams"]


def test_no_fin(finished):
    finished.doors["b"].facts.fin = -1
    finished.doors["b"].facts.seq_end -= 1
    assert at_end(finished) == ["streams"]


def test_what_is_broken_off_need_not_be_complete():
    world = World(Case(steps=(*steps(Offload(at=100)), Abort(at=150, side="b"))))
    world.play()
    assert world.findings == [] and world.broken_off


@pytest.mark.parametrize(
    ("told", "others", "kinds"), [(False, [], ["streams"]), (True, [], []), (False, ["b has died"], [])]
)
def test_a_reset_that_nobody_hears_of(finished, told, others, kinds):
    finished.applications["a"].resets = True
    finished.broken_off += ["a aborts", *others]
    finished.doors["a"].facts.rst = told
    assert at_end(finished) == kinds


@pytest.mark.parametrize("queue", ["sends", "receives"])
def test_requests_that_nobody_completes(finished, queue):
    getattr(finished.applications["a"], queue).append("one")
    assert at_end(finished) == ["completion"]


def test_a_shutdown_that_nobody_completes(finished):
    finished.applications["a"].shutdown_done = False
    assert at_end(finished) == ["completion"]


def test_the_host_stack_keeps_something(finished):
    finished.connections["a"].receives.append("one")
    finished.connections["a"].owner = Owner.TARGET
    assert at_end(finished) == ["one owner", "completion"]


@pytest.mark.parametrize(
    "keep",
    [
        lambda machine: machine.target.chimney_pool.allocate(None),
        lambda machine: machine.target.ordinary_pool.allocate(None),
        lambda machine: machine.target.lent.add("a list"),
        lambda machine: machine.target.paths.add("a path"),
        lambda machine: machine.target.neighbors.add("a neighbor"),
        lambda machine: machine.target.connections.update({"a flow": "a connection"}),
        lambda machine: machine.taps.append("a tap"),
        lambda machine: machine.sock.duplicate(),
        lambda machine: setattr(machine.sock, "repair", True),
        lambda machine: setattr(machine.sock, "hears", False),
        lambda machine: machine.drivers.append(SimpleNamespace(name="x", call_entries=1, offload_entries=0, pending=0)),
        lambda machine: machine.drivers.append(SimpleNamespace(name="x", call_entries=0, offload_entries=1, pending=0)),
        lambda machine: machine.drivers.append(SimpleNamespace(name="x", call_entries=0, offload_entries=0, pending=1)),
    ],
)
def test_something_is_not_given_back(finished, keep):
    keep(finished.machines["a"])
    assert at_end(finished) == ["everything back"]


def test_a_cell_that_cannot_be(finished):
    finished.cells[Cell("TIME-WAIT", "data", "target")] += 1
    assert at_end(finished) == ["coverage"]


def test_a_shutdown_in_the_script_is_the_last_thing_that_is_needed():
    world = World(Case(steps=(*steps(Offload(at=100)), Shutdown(at=30_000, side="a"))))
    world.play()
    assert world.findings == []
