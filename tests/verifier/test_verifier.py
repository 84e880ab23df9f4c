"""What a verifier does about a broken rule, how it says so, and that it can watch for as long as a server runs."""

import gc
import types
import warnings
from collections import deque
from dataclasses import replace

import pytest

from chimney.conformance.host import Host
from chimney.conformance.world import World, soft_target
from chimney.link.memory import Clock
from chimney.ndis.crossing import Kind, Stage
from chimney.ndis.library import Library, MiniportHandle
from chimney.ndis.state import NeighborConst
from chimney.ndis.status import Status
from chimney.verifier import Mode, RuleViolation, VerificationError, Verifier, catalogue
from chimney.verifier import verifier as module
from chimney.verifier.check import entering, leaving
from chimney.verifier.packets import ACK, Packet
from chimney.verifier.recent import Recent
from chimney.verifier.relations import same_state
from chimney.verifier.report import Coverage, append
from chimney.verifier.streams import ReceiveBook, SendBook, Stream
from chimney.verifier.violation import VerifierFailure
from tests.verifier import mutants_intermediate  # noqa: F401  # registers its mutants
from tests.verifier.mutation import MUTANTS, verify
from tests.verifier.shims import LinkShim, TargetShim

LABEL = "10.0.0.1:1000 > 10.0.0.2:1001"


class Miscounts(TargetShim):
    """Says that it has sent one byte more than it was given."""

    def tcp_offload_send_complete(self, net_buffer_list):
        net_buffer_list.tcp_offload_bytes_transferred += 1
        super().tcp_offload_send_complete(net_buffer_list)


def world_with(mode=Mode.COUNT, **options):
    clock = Clock(1_000_000)
    verifier = Verifier(clock, mode)
    return World(clock=clock, observer=verifier, **options), verifier


def miscounting(mode=Mode.COUNT, **options):
    """A world whose side 0 has a target that miscounts."""
    return world_with(mode, target=lambda side: (TargetShim if side.index else Miscounts)(soft_target(side)), **options)


def transfer(world, data=b"data", times=1):
    a, b = world.connect()
    for _ in range(times):
        b.receive(len(data))
        a.send(data)
        world.run(until=lambda: len(b.received) == len(a.application))
        # Until the acknowledgement has come, too.
        world.run(duration=100_000)
    return a, b


# The modes


def test_counting_disturbs_nothing():
    world, verifier = miscounting()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _, b = transfer(world, times=3)
    assert b.received == b"data" * 3 and not warned
    assert verifier.counts["send.complete.bytes"] == 3 == len(found(verifier, "send.complete.bytes"))


def test_warning_disturbs_nothing_and_says_it_at_once():
    world, verifier = miscounting(Mode.WARN)
    with pytest.warns(RuleViolation) as warned:
        _, b = transfer(world)
    assert b.received == b"data"
    assert [str(warning.message) for warning in warned] == [str(violation) for violation in verifier.violations]


def test_aborting_raises_where_it_happens():
    world, verifier = miscounting(Mode.ABORT)
    with pytest.raises(VerificationError) as caught:
        transfer(world)
    assert caught.value.violation is verifier.violations[0]
    assert str(caught.value) == str(verifier.violations[0])
    assert sum(verifier.counts.values()) == 1


def test_a_violation_without_end_is_counted_and_not_kept(monkeypatch):
    monkeypatch.setattr(module, "_KEPT_VIOLATIONS", 2)
    world, verifier = miscounting(Mode.WARN)
    with pytest.warns(RuleViolation) as warned:
        transfer(world, times=5)
    assert len(verifier.violations) == len(warned) == 2
    assert verifier.counts["send.complete.bytes"] == 5


# A bug of the verifier's own


def broken(verifier, error):
    """Let a check fail at every send completion."""

    def check(crossing):
        raise error

    for stage in Stage:
        verifier.hooks(entering(Kind.SEND_COMPLETE, stage)).insert(1, check)
        verifier.hooks(leaving(Kind.SEND_COMPLETE, stage)).insert(1, check)


@pytest.mark.parametrize("mode", [Mode.COUNT, Mode.WARN])
def test_a_check_that_fails_disturbs_nothing_and_hides_nothing(mode):
    world, verifier = miscounting(mode)
    broken(verifier, KeyError("forgotten"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _, b = transfer(world, times=3)
    assert b.received == b"data" * 3 and verifier.counts["send.complete.bytes"] == 3
    [(_, text)] = verifier.failures.items()
    assert "KeyError('forgotten')" in text and "test_verifier.py" in text
    [told] = [warning for warning in warned if warning.category is VerifierFailure]
    assert text in str(told.message)


def test_a_check_that_fails_aborts_where_that_is_wanted():
    world, verifier = world_with(Mode.ABORT)
    broken(verifier, KeyError("forgotten"))
    with pytest.raises(KeyError, match="forgotten"):
        transfer(world)


def test_what_has_failed_is_reported(tmp_path):
    world, verifier = world_with()
    broken(verifier, KeyError("forgotten"))
    with pytest.warns(VerifierFailure):
        transfer(world)
    append([verifier, verifier], tmp_path / "report")
    coverage = Coverage()
    assert coverage.add_file(tmp_path / "report") == 2
    assert len(coverage.failures) == 2 and coverage.as_json()["failures"] == coverage.failures
    assert coverage.exercised["send.pending-only"] == 2 * verifier.exercised["send.pending-only"] > 0


# What is said


def found(verifier, rule):
    return [violation for violation in verifier.violations if violation.rule.id == rule]


def test_a_violation_can_be_read():
    world, verifier = miscounting(drivers=1)
    transfer(world)
    [violation] = found(verifier, "send.complete.bytes")
    rule = catalogue()["send.complete.bytes"]
    first, broken_by, demands, source, at, *history = str(violation).splitlines()
    assert first == f"send.complete.bytes: {rule.title}"
    assert broken_by.startswith(f"  broken by target 0 on {LABEL}: ") and "5" in broken_by
    assert demands == f"  rule: {rule.rule}" and source == f"  source: {rule.source}"
    assert at == f"  at {violation.at} us, after:" and violation.at > 1_000_000
    lines = [line.split("us", 1)[1].strip() for line in history]
    boundary = "driver 0.0 (lower edge) | target 0"
    assert lines[-1] == f"^  {boundary}: NdisTcpOffloadSendComplete on {LABEL} (1 list, 5 bytes transferred, SUCCESS)"
    assert f"v  {boundary}: NdisOffloadTcpSend on {LABEL} (1 list, 4 bytes) -> PENDING" in lines
    assert f"vv {boundary}: MiniportTcpOffloadSend on {LABEL} (1 list, 4 bytes) -> PENDING" in lines
    assert any(line.startswith("a -> 1000>1001 PA seq ") and line.endswith(" len 4") for line in lines)
    assert any("MiniportInitiateOffload" in line and "TCP SUCCESS" not in line for line in lines)


def test_events_and_flags_stand_by_name():
    world, verifier = world_with(target=lambda side: Miscounts(soft_target(side)))
    a, b = world.connect()
    a.disconnect()
    world.run(duration=10_000)
    b.send(b"data")
    world.run(duration=100_000)
    text = "\n".join(verifier.violations[-1].history)
    assert f"NdisOffloadTcpDisconnect on {LABEL} (1 list, 0 bytes) GRACEFUL_CLOSE -> PENDING" in text
    assert "NdisTcpOffloadEventHandler on 10.0.0.2:1001 > 10.0.0.1:1000 INDICATE_DISCONNECT 0" in text
    assert "0x" not in text


def test_the_history_is_the_last_of_what_was_seen():
    world, verifier = miscounting()
    transfer(world, times=30)
    last = verifier.violations[-1]
    assert len(last.history) == module._HISTORY
    assert "NdisTcpOffloadSendComplete" in last.history[-1] and f"{last.at} us" in last.history[-1]


class ShortSends(Host):
    """Posts receives that claim to be filled already."""

    def offload_tcp_receive(self, handle, net_buffer_list):
        net_buffer_list.tcp_offload_bytes_transferred = 7
        return super().offload_tcp_receive(handle, net_buffer_list)


class StatusOfItsOwn(MiniportHandle):
    """NDIS that answers a completion."""

    def tcp_offload_send_complete(self, net_buffer_list):
        super().tcp_offload_send_complete(net_buffer_list)
        return Status.SUCCESS


class Forges(LinkShim):
    """Acknowledges what has never come."""

    def outgoing(self, segment):
        if segment.payload:
            segment.ack += 1000
        return [segment]


def culprits(verifier, *binds):
    return {violation.culprit for violation in verifier.violations if violation.rule.binds in binds}


def test_the_host_is_named():
    world, verifier = world_with(host=lambda name: (ShortSends if name == "host 1" else Host)(name))
    transfer(world)
    assert culprits(verifier, "host_stack") == {"host 1"}
    assert found(verifier, "recv.prefilled")[0].connection == "10.0.0.2:1001 > 10.0.0.1:1000"


def test_the_target_is_named_and_also_if_the_wire_shows_it():
    world, verifier = world_with(link=lambda side, link: link if side.index else Forges(link))
    a, b = world.connect()
    b.receive(4)
    a.send(b"data")
    world.run(duration=10_000)
    assert culprits(verifier, "target") == {"target 0"}
    assert found(verifier, "tcp.rfc.core")[0].connection == LABEL


def test_ndis_is_named():
    class Faulty(Library):
        def handle(self, miniport, protocol, binding):
            return StatusOfItsOwn(miniport, protocol, binding)

    world, verifier = world_with(library=Faulty())
    transfer(world)
    assert culprits(verifier, "ndis") == {"ndis"}


@pytest.mark.parametrize(
    "rule",
    [
        "im.io.own-handle",
        "im.complete.same-function",
        "im.disconnect.propagate",
        "im.event.propagate",
        "im.state.restore",
        "im.state.complete",
        "im.cap.query",
    ],
)
def test_the_driver_is_named_among_several(rule):
    known = next(mutant for mutant in MUTANTS if mutant.rule == rule)
    verifier, _ = verify(known.scenario, **replace(known, stack="pmp").world_options())
    assert {violation.culprit.split(" (")[0] for violation in found(verifier, rule)} == {"driver 0.1"}


# The end


def test_the_end_is_the_end():
    world, verifier = world_with()
    a, _ = transfer(world)
    a.receive(10)
    verifier.finish()
    left, exercised = dict(verifier.counts), dict(verifier.exercised)
    assert left
    verifier.finish()
    world.close()
    assert dict(verifier.counts) == left and dict(verifier.exercised) == exercised


def test_a_finding_at_the_end_lets_go_of_the_run_all_the_same():
    world, verifier = world_with(Mode.ABORT)
    a, _ = transfer(world)
    a.receive(10)
    with pytest.raises(VerificationError):
        verifier.finish()
    verifier.finish()
    assert not verifier.books.boundaries


# Hours


def test_no_packet_keeps_the_memory_of_its_bytes():
    world, verifier = world_with()
    transfer(world)
    packets = [event for event in verifier._history if isinstance(event, Packet)]
    assert any(packet.payload_length for packet in packets)
    assert not any(packet.parts for packet in packets)


def test_what_comes_far_behind_the_window_is_not_kept():
    book = ReceiveBook(1000, 5000, b"")
    stream = Stream("", (b"", 0, b"", 0), None, SendBook(0, 0, 0), book)
    for seq in range(6000, 60_000_000, 1_000_000):
        stream.segment_in(seq, 0, ACK, bytes(100), None)
    assert 0 < book.held <= 200
    stream.segment_in(1000, 0, ACK, bytes(100), None)
    assert book.available == 100


def test_what_is_set_last_is_kept():
    kept = Recent(2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3
    kept["c"] = 4
    assert kept == {"a": 3, "c": 4}


def forget(world):
    """What the rig itself records."""
    world.wire.clear()
    for side in world.sides:
        side.host.log.clear()
        for end in side.ends:
            end.application.clear()
            end.received.clear()


def remembered(root):
    """How many objects of the verifier's, of NDIS's and of the collections in them a verifier keeps."""
    left, seen = [root], {id(root)}
    while left:
        for item in gc.get_referents(left.pop()):
            kept = type(item).__module__.startswith(("chimney.verifier", "chimney.ndis"))
            if id(item) not in seen and (kept or isinstance(item, (dict, list, tuple, set, deque, types.MethodType))):
                seen.add(id(item))
                left.append(item)
    return len(seen)


def send(world, number):
    a, b = (side.ends[0] for side in world.sides) if number else world.connect()
    for _ in range(20):
        b.receive(100)
    a.send(*[bytes(100)] * 20)
    world.run(duration=3000)


def post_within_completions(world, number):
    a, b = (side.ends[0] for side in world.sides) if number else world.connect()
    if not number:
        b.host.on["receive"] = lambda nbl: b.receive(100)
        b.receive(100)
    a.send(bytes(100), bytes(100))
    world.run(duration=3000)


def hand_over(world, number, ending=None):
    a, b = world.connect(port=1001 + number)
    b.receive(100)
    a.send(bytes(100), bytes(100))
    world.run(duration=3000)
    if ending is not None:
        ending(a)
        world.run(duration=3000)
    for side, end in zip(world.sides, (a, b), strict=True):
        if end.offloaded:
            side.terminate(end)
        side.ends.clear()


def disconnect(world, number):
    hand_over(world, number, lambda end: end.disconnect(b"last"))


def abort(world, number):
    hand_over(world, number, lambda end: end.abort())


@pytest.mark.parametrize("drivers", [0, 1])
@pytest.mark.parametrize(
    ("once", "rounds"),
    [(send, 40), (post_within_completions, 200), (hand_over, 300), (disconnect, 300), (abort, 300)],
)
def test_what_it_keeps_does_not_grow(once, rounds, drivers):
    assert grows(once, rounds, drivers=drivers) < 0.02


def grows(once, rounds, **options):
    """How much more a verifier keeps after twice as many rounds, as a fraction."""
    world, verifier = world_with(**options)
    sizes = []
    for half in range(2):
        for number in range(rounds):
            once(world, half * rounds + number)
            forget(world)
        gc.collect()
        sizes.append(remembered(verifier))
    assert not verifier.counts and not verifier.failures
    return sizes[1] / sizes[0] - 1


# Who is told


def test_the_books_are_told_first_and_every_verifier_has_checks_of_its_own():
    one, other = Verifier(Clock()), Verifier(Clock())
    event = entering(Kind.SEND, Stage.CALL)
    assert one.hooks(event)[0].__self__ is one.books
    assert [hook.__name__ for hook in one.hooks(event)] == [hook.__name__ for hook in other.hooks(event)]
    assert all(a.__self__ is not b.__self__ for a, b in zip(one.hooks(event), other.hooks(event), strict=True))


def test_state_agrees_but_for_what_is_excepted():
    one, other = NeighborConst(bytes(6), 1), NeighborConst(bytes(6), 2)
    assert same_state(one, one) and same_state(None, None)
    assert not same_state(one, other) and same_state(one, other, "vlan_id")
    assert not same_state(one, None, "vlan_id") and not same_state(one, other, "dl_source_address")
