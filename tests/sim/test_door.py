"""Everything a door has to notice, and nothing else."""

import struct
from collections import Counter
from types import SimpleNamespace

import pytest

from chimney.conformance.handshake import IPV4, IPV6, MACS
from chimney.conformance.wire import (
    ACK,
    ETHER_IPV4,
    ETHER_IPV6,
    FIN,
    PSH,
    RST,
    SYN,
    checked,
    ethernet,
    ip_packet,
)
from chimney.link.memory import Clock
from chimney.sim.application import pattern
from chimney.sim.case import Case
from chimney.sim.door import Door

PORTS = (40000, 80)
SCALE = 7


class Rig:
    """The door of side a, in a world that only remembers what it is told."""

    def __init__(self, **case):
        self.case = Case(iss=(0xFFFFFF00, 0x7FFFFF00), scale=SCALE, **case)
        self.clock = Clock(1_000_000_000)
        self.broken_off = []
        self.machines = {"a": SimpleNamespace(owner="kernel", state="ESTABLISHED", phase="")}
        self.doors = {"b": SimpleNamespace(ends_last=True)}
        self.note_to = None
        self.lines = []
        self.findings = []
        self.visits = Counter()
        self.stamp = 1000
        self.promptness = SimpleNamespace(arrives=lambda *segment: None, leaves=lambda *segment: None)
        self.door = Door("a", self)

    def note(self, side, kind, text):
        self.lines.append(f"{side} {kind} {text}")

    def broken(self, kind, message):
        self.findings.append((kind, message))

    def visit(self, side, event):
        assert side == "a"
        self.visits[event] += 1

    @property
    def kinds(self):
        return [kind for kind, _ in self.findings]

    def frame(self, by, at, size=0, ack=0, *, flags=ACK, window=512, payload=None, options=None, good=True):
        """A segment of side ``by``: positions, and a window in units of its scale."""
        own, other = self.case.iss if by == "a" else self.case.iss[::-1]
        if options is None:
            options = struct.pack("!IIII", 0x0101080A, self.stamp, 7, 0)[:12] if self.case.timestamps else b""
        if payload is None:
            payload = pattern(by, at, size) if size else b""
        header = struct.pack(
            "!HHIIBBHHH",
            *(PORTS if by == "a" else PORTS[::-1]),
            (own + at) % 2**32,
            (other + ack) % 2**32,
            (20 + len(options)) // 4 << 4,
            flags,
            window,
            0,
            0,
        )
        addresses = (IPV6 if self.case.ipv6 else IPV4)[:: 1 if by == "a" else -1]
        packet = ip_packet(*addresses, checked(*addresses, header + options + payload, good))
        return ethernet(*MACS[:: -1 if by == "a" else 1], ETHER_IPV6 if self.case.ipv6 else ETHER_IPV4, packet)

    def out(self, *arguments, speaker="kernel", **options):
        self.door.out(speaker, self.frame("a", *arguments, **options))
        return self.kinds

    def arrive(self, *arguments, intact=True, **options):
        """What the door makes of a segment of the peer's."""
        before = self.visits.copy()
        self.door.arrived(self.frame("b", *arguments, **options), intact)
        (event,) = (self.visits - before).elements()
        return event


@pytest.fixture
def rig():
    return Rig()


# What is as it should be


@pytest.mark.parametrize("case", [{}, {"ipv6": True}, {"timestamps": False}, {"sack": False}])
def test_a_conversation_over_the_wraps_of_both_sequence_spaces(case):
    rig = Rig(**case)
    for step in range(20):
        assert rig.arrive(step * 100, 100, step * 50) == "data"
        rig.stamp += step % 2
        assert rig.out(step * 50, 50, (step + 1) * 100) == []
    assert rig.arrive(2000, 0, 1000, flags=ACK | FIN) == "FIN"
    assert rig.out(1000, 0, 2001, flags=ACK | FIN) == []
    assert rig.out(1000, 0, 2001, flags=ACK | FIN) == []
    facts = rig.door.facts
    assert (facts.seq_end, facts.ack, facts.fin, facts.segments) == (1001, 2001, 1000, 22)
    assert facts.window == 512 << SCALE and facts.edge == 2001 + facts.window
    assert facts.tsval == (rig.stamp if rig.case.timestamps else -1)
    assert rig.door.in_order == 2001 and rig.door.heard.seq_end == 2001
    assert rig.door.sequence(256) == 0


def test_a_timestamp_may_wrap(rig):
    for stamp in (0xFFFFFFFE, 0xFFFFFFFF, 0, 1):
        rig.stamp = stamp
        assert rig.out(0) == []
    assert rig.door.facts.tsval == 0x100000001


def test_options_in_another_order(rig):
    sack = struct.pack("!BBII", 5, 10, 0x7FFFFF00 + 10, 0x7FFFFF00 + 20)
    stamps = struct.pack("!BBII", 8, 10, 1001, 7)
    assert rig.out(0, options=b"\1\1" + sack + stamps + b"\1\1") == []
    assert rig.door.facts.tsval == 1001


# What is not


@pytest.mark.parametrize(("owner", "says"), [("target", "the target may"), (None, "nobody may")])
def test_somebody_else_speaks(rig, owner, says):
    rig.machines["a"].owner = owner
    assert rig.out(0) == ["one speaker"]
    assert says in rig.findings[0][1]


@pytest.mark.parametrize(("repair", "found"), [(True, []), (False, ["monotone acknowledgement"])])
def test_a_timer_may_speak_before_the_kernel_knows_of_the_fin_again(rig, repair, found):
    rig.arrive(0, 100, flags=ACK | FIN)
    assert rig.out(0, 0, 101) == []
    rig.machines["a"].phase, rig.machines["a"].sock = "restoring", SimpleNamespace(repair=repair)
    assert rig.out(0, 0, 100) == found


def test_an_acknowledgement_goes_back(rig):
    rig.arrive(0, 100)
    assert rig.out(0, 0, 100) == []
    assert rig.out(0, 0, 99, window=600) == ["monotone acknowledgement"]


def test_the_right_edge_goes_back(rig):
    rig.arrive(0, 1024)
    assert rig.out(0, 0, 0, window=16) == []
    assert rig.out(0, 0, 1024, window=8) == []
    assert rig.out(0, 0, 1024, window=7) == ["monotone window"]


@pytest.mark.parametrize(
    ("speaker", "window", "kinds"),
    [
        ("target", 15, []),
        ("target", 14, ["monotone window"]),
        ("kernel", 15, ["monotone window"]),
    ],
)
def test_a_target_or_a_new_speaker_may_round_the_right_edge(rig, speaker, window, kinds):
    """The scale cannot tell 2048 from 2020: 100 acknowledged and 15 units of 128 bytes."""
    rig.arrive(0, 100)
    assert rig.out(0, 0, 0, window=16) == []
    rig.machines["a"].owner = speaker
    assert rig.out(0, 0, 100, window=window, speaker=speaker) == kinds


def test_a_target_may_round_again_and_again(rig):
    rig.machines["a"].owner = "target"
    rig.arrive(0, 200)
    for ack, window, kinds in ((0, 16, []), (100, 15, []), (200, 14, []), (200, 13, ["monotone window"])):
        assert rig.out(0, 0, ack, window=window, speaker="target") == kinds


@pytest.mark.parametrize(
    ("phase", "repair", "ack", "kinds"),
    [
        ("restoring", True, 100, []),
        ("restoring", True, 99, ["monotone acknowledgement"]),
        ("restoring", False, 100, ["monotone acknowledgement"]),
        ("", True, 100, ["monotone acknowledgement"]),
    ],
)
def test_a_socket_in_repair_mode_may_not_know_of_the_fin_yet(rig, phase, repair, ack, kinds):
    rig.arrive(0, 100, flags=ACK | FIN)
    assert rig.out(0, 0, 101) == []
    rig.machines["a"].phase = phase
    rig.machines["a"].sock = SimpleNamespace(repair=repair)
    assert rig.out(0, 0, ack) == kinds


def test_behind_the_peer_s_fin_a_window_means_nothing(rig):
    assert rig.out(0, 0, 0, window=16) == []
    rig.arrive(0, 10, flags=ACK | FIN)
    assert rig.out(0, 0, 11, window=1) == []


def test_an_acknowledgement_ahead_of_what_was_sent(rig):
    """A kernel that was told so takes for sent what has never left."""
    assert rig.out(500) == []
    assert rig.door.facts.seq_end == 0
    assert rig.out(0, 500, flags=ACK | FIN) == []


def test_the_timestamp_goes_back(rig):
    assert rig.out(0) == []
    rig.stamp -= 1
    assert rig.out(0) == ["monotone timestamp"]


@pytest.mark.parametrize("sent", [99, 150, 101])
def test_bytes_that_are_not_the_application_s(rig, sent):
    """Of the wrong place, even by one."""
    assert rig.out(100, 50, payload=pattern("a", sent, 50)) == ["streams"] * (sent != 100)


def test_bytes_of_the_other_stream(rig):
    assert rig.out(0, payload=pattern("b", 0, 10)) == ["streams"]


def test_bytes_before_the_first(rig):
    assert rig.out(-1, payload=b"\0") == ["streams"]


def test_a_fin_that_moves(rig):
    assert rig.out(0, 100, flags=ACK | FIN) == []
    assert rig.out(0, 100, flags=ACK | FIN) == []
    assert rig.out(0, 99, flags=ACK | FIN) == ["streams"]


def test_a_fin_before_the_last_byte(rig):
    assert rig.out(0, 100) == []
    assert rig.out(0, 50, flags=ACK | FIN) == ["streams"]


def test_data_behind_the_fin(rig):
    assert rig.out(0, 100, flags=ACK | FIN) == []
    assert rig.out(101) == []
    assert rig.out(100, 10) == ["streams"]


def test_what_has_not_arrived_is_acknowledged(rig):
    rig.arrive(0, 100)
    rig.arrive(200, 100)
    assert rig.out(0, 0, 100) == []
    assert rig.out(0, 0, 101) == ["ack truth"]
    rig.arrive(100, 100)
    assert rig.out(0, 0, 300) == ["ack truth"]
    assert rig.out(0, 0, 301, flags=ACK) == ["ack truth"] * 2
    rig.arrive(300, 0, flags=ACK | FIN)
    assert rig.out(0, 0, 301) == ["ack truth"] * 2


def test_islands_that_overlap(rig):
    for start, size in ((300, 100), (100, 50), (120, 100), (100, 20), (220, 90)):
        assert rig.arrive(start, size) == "data out of order"
    assert rig.arrive(0, 100) == "data"
    assert rig.door.in_order == 400


def test_a_segment_without_acknowledgement(rig):
    assert rig.out(0, flags=PSH) == ["peer blindness"]


def test_a_syn(rig):
    assert rig.out(0, flags=SYN | ACK) == ["peer blindness"]


def test_an_rst_needs_a_reason(rig):
    assert rig.out(0, flags=RST) == ["peer blindness"]
    rig.machines["a"].state = "CLOSED"
    assert len(rig.out(0, flags=RST)) == 1
    rig.machines["a"].state = "ESTABLISHED"
    rig.broken_off.append("a aborts")
    assert len(rig.out(0, 0, 9999, flags=RST | ACK, options=b"")) == 1
    assert rig.door.facts.rst


@pytest.mark.parametrize(("agreed", "options"), [(True, b""), (False, None), (True, b"\x08\x04\0\0")])
def test_timestamps_are_there_if_and_only_if_they_were_agreed_on(agreed, options):
    rig = Rig(timestamps=agreed)
    if options is None:
        options = struct.pack("!III", 0x0101080A, 5, 6)
    assert rig.out(0, options=options) == ["peer blindness"]


def test_sack_that_was_not_agreed_on():
    rig = Rig(sack=False, timestamps=False)
    assert rig.out(0, options=b"\1\1\5\x0a" + bytes(8)) == ["peer blindness"]


# What timers send


def test_what_leaves_again(rig):
    rig.out(0, 100)
    rig.out(100, 100, flags=ACK | FIN)
    rig.out(201)
    assert not rig.visits
    rig.out(50, 100)
    rig.out(200, 0, flags=ACK | FIN)
    assert rig.visits == {"retransmits": 2}


@pytest.mark.parametrize(("start", "size"), [(100, 1), (99, 0)])
def test_a_probe_of_a_closed_window(rig, start, size):
    """With a byte beyond the window, or with none and an old sequence number."""
    rig.out(0, 100)
    rig.arrive(0, 0, 100, window=0)
    rig.visits.clear()
    assert rig.out(start, size) == []
    assert rig.visits == {"probes": 1}


@pytest.mark.parametrize(("waits_us", "delayed"), [(29_999, 0), (30_000, 1)])
def test_a_delayed_acknowledgement(rig, waits_us, delayed):
    rig.arrive(0, 100)
    rig.clock.advance(waits_us)
    rig.out(0, 0, 100)
    rig.clock.advance(waits_us)
    rig.out(0, 0, 100)
    assert rig.visits["delayed acknowledgement"] == delayed


# What arrives


def test_what_an_acknowledgement_says(rig):
    rig.out(0, 740)
    assert rig.arrive(0, 0, 100, window=4) == "acknowledgement"
    assert rig.arrive(0, 0, 100, window=4) == "duplicate acknowledgement"
    assert rig.arrive(0, 0, 100, window=3) == "duplicate acknowledgement"
    assert rig.arrive(0, 0, 100, window=5) == "window update"
    assert rig.arrive(0, 0, 50, window=9) == "duplicate acknowledgement", "it is old"
    assert rig.arrive(0, 0, 740, window=0) == "zero window"
    assert rig.arrive(0, 0, 740, window=0) == "duplicate acknowledgement"
    assert rig.arrive(0, 0, 740, window=1) == "window update"


def test_what_data_is(rig):
    assert rig.arrive(100, 100) == "data out of order"
    assert rig.arrive(0, 100) == "data"
    assert rig.arrive(0, 200) == "data again"
    assert rig.arrive(150, 51) == "data", "with a byte that is new"
    assert rig.arrive(0, 5, 100, flags=ACK | FIN) == "FIN"


def test_an_rst_arrives(rig):
    assert rig.arrive(0, flags=RST) == "RST"
    assert rig.door.heard.rst


def test_what_is_damaged_is_nobody_s(rig):
    assert rig.arrive(0, 100, intact=False, good=False) == "garbage"
    assert rig.door.in_order == 0
    assert rig.arrive(0, 100, intact=False) == "data"


@pytest.mark.parametrize("cut", [14, 20, 34, 40, 53, 60])
def test_what_is_cut_off_is_nobody_s(rig, cut):
    rig.door.arrived(rig.frame("b", 0, 100)[:cut], False)
    assert rig.visits == {"garbage": 1}


@pytest.mark.parametrize(("payload", "counts"), [(None, 100), (b"\xa5" * 100, 0)])
def test_what_is_injected_is_not_the_peer_s(rig, payload, counts):
    """But true bytes are true bytes."""
    frame = rig.frame("b", 0, 100, 77, payload=payload)
    rig.door.inject(frame)
    rig.door.arrived(bytearray(frame), True)
    assert rig.visits == {"garbage": 1} and rig.door.in_order == counts
    assert rig.door.heard.segments == rig.door.heard.ack == 0
    rig.door.arrived(bytearray(frame), True)
    assert rig.door.heard.segments == 1, "the same once more is the peer's"


# What the log is told


def test_the_peers_last_words_are_answered_once(rig):
    """However often it has said them: a second answer at once meets nobody any more."""
    rig.machines["a"].phase = "restoring"
    rig.out(0, flags=ACK | FIN)
    rig.arrive(0, ack=1)
    rig.arrive(0, ack=1, flags=ACK | FIN)
    rig.arrive(0, ack=1, flags=ACK | FIN)
    assert rig.out(1, ack=1) == []
    rig.arrive(0, ack=1, flags=ACK | FIN)
    assert rig.out(1, ack=1) == []
    assert rig.out(1, ack=1) == ["peer blindness"]


def test_who_closes_at_the_same_time_is_not_gone(rig):
    rig.doors["b"].ends_last = False
    rig.machines["a"].phase = "restoring"
    rig.out(0, flags=ACK | FIN)
    rig.arrive(0, flags=ACK | FIN)
    rig.arrive(0, ack=1, flags=ACK | FIN)
    assert rig.out(1, ack=1) == rig.out(1, ack=1) == []


@pytest.mark.parametrize("last", [True, False])
def test_who_ends_last(rig, last):
    if last:
        rig.arrive(0, flags=ACK | FIN)
    rig.out(0, ack=last, flags=ACK | FIN)
    rig.arrive(0, flags=ACK | FIN)
    rig.out(0, ack=1, flags=ACK | FIN)
    assert rig.door.ends_last is last


def test_who_is_still_there_may_be_answered_twice(rig):
    """As long as our own end is not acknowledged, or later."""
    rig.machines["a"].phase = "restoring"
    rig.out(0, flags=ACK | FIN)
    rig.arrive(0, flags=ACK | FIN)
    assert rig.out(1, ack=1) == rig.out(1, ack=1) == []
    rig.arrive(1, ack=1)
    assert rig.out(1, ack=1) == []
    rig.clock.advance(1)
    assert rig.out(1, ack=1) == []
    rig.machines["a"].phase = ""
    assert rig.out(1, ack=1) == []


def test_the_log_is_told_every_segment(rig):
    rig.note_to = rig.note
    rig.door.out("kernel", rig.frame("a", 0, 100, 0, flags=ACK | PSH))
    rig.door.arrived(rig.frame("b", 5, 10, 100), True)
    rig.door.inject(rig.frame("b", 0)[:40])
    rig.door.arrived(rig.frame("b", 0)[:40], True)
    assert rig.lines == [
        "a out kernel data 0..100 ack 0 win 65536 [PA] ts 1000/7",
        "a in data out of order: data 5..15 ack 100 win 65536 [A] ts 1000/7",
        "a in garbage: 6 bytes that are no TCP segment",
    ]
