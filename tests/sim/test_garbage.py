import struct
from random import Random
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from chimney.conformance.handshake import IPV4, IPV6, MACS
from chimney.conformance.wire import ACK, PSH, RST, SYN, URG, read_packet
from chimney.sim import garbage
from chimney.sim.application import pattern
from chimney.sim.case import Case, Garbage, Host, Offload, Read, Send, Upload
from chimney.sim.door import Facts
from chimney.sim.run import run
from chimney.sim.world import World

KINDS = get_args(get_type_hints(Garbage)["kind"])
# Towards a: b has sent 5000 bytes, of which a has acknowledged 3000; a has sent 900, and heard of 700.
A = Facts(seq_end=900, ack=3000, edge=66_000, window=63_000, tsval=1_000_000, tsecr=77, segments=3)
B = Facts(seq_end=5000, ack=800, edge=60_000, window=59_200, tsval=(1 << 32) + 50, tsecr=99, segments=4)
HEARD = Facts(seq_end=4000, ack=700, edge=50_000, window=49_280, segments=2)
ISS = (0xFFFFFF00, 0x7FFFFF00)


def made(kind, offset=0, amount=100, facts=(A, B), **changes):
    """The frame towards a, and its packet."""
    world = SimpleNamespace(
        case=Case(iss=ISS, **changes),
        doors={
            "a": SimpleNamespace(facts=facts[0], heard=HEARD),
            "b": SimpleNamespace(facts=facts[1], heard=Facts()),
        },
        chance=Random(1),
    )
    frame = garbage.craft(world, Garbage(at=0, to="a", kind=kind, offset=offset, amount=amount))
    return frame, None if frame is None else read_packet(frame)


def fields(packet):
    """Sequence and acknowledgement number (counted from the initial ones), flags, options, payload."""
    _, _, seq, ack, offset, flags, _ = struct.unpack_from("!HHIIBBH", packet.payload)
    size = (offset >> 4) * 4
    positions = ((seq - ISS[1] + (1 << 31)) & 0xFFFFFFFF) - (1 << 31), ((ack - ISS[0] + (1 << 31)) & 0xFFFFFFFF) - (
        1 << 31
    )
    return *positions, flags, packet.payload[20:size], packet.payload[size:]


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_as_if_it_came_from_the_peer(kind, ipv6):
    frame, packet = made(kind, ipv6=ipv6)
    assert frame[:12] == MACS[0] + MACS[1]
    assert (packet.destination, packet.source) == (IPV6 if ipv6 else IPV4)
    assert packet.ports == (80, 40000)
    assert packet.valid_tcp or kind in ("truncated", "checksum", "random")


def test_numbers_are_wrong_as_the_kind_says():
    assert fields(made("rst-blind", 5)[1])[:3] == (5006, -ISS[0] & 0xFFFFFFFF, RST)
    assert fields(made("rst-outside", 5)[1])[0] > 66_000 + 65_536
    assert fields(made("rst-outside", -5)[1])[0] < 0
    assert fields(made("syn")[1])[0] == 5001 and fields(made("syn")[1])[2] == SYN
    assert fields(made("old", 7)[1])[:3] == (3000 - 100 - 7, 700, ACK | PSH)
    start, *_, payload = fields(made("beyond")[1])
    assert start > 66_000 and len(payload) == 100
    assert fields(made("ack-future")[1])[1] > 900 + 1_000_000
    assert fields(made("ack-old")[1])[:2] == (5000, 600)
    assert fields(made("urgent")[1])[:3] == (5000, 700, ACK | URG)


def test_an_exact_guess_is_deadly():
    for kind, flag in (("rst-blind", RST), ("syn", SYN)):
        assert fields(made(kind, -1)[1])[0] == 3000 and fields(made(kind)[1])[2] == flag
        assert garbage.is_deadly(Garbage(at=0, to="a", kind=kind, offset=-1))
        assert not garbage.is_deadly(Garbage(at=0, to="a", kind=kind, offset=0))
    assert not garbage.is_deadly(Garbage(at=0, to="a", kind="old", offset=-1))


def test_an_old_timestamp_is_on_the_peers_own_bytes():
    start, ack, _, options, payload = fields(made("paws", 3, 50)[1])
    assert (start, ack, payload) == (3000, 700, pattern("b", 3000, 50))
    assert struct.unpack("!BBBBII", options) == (1, 1, 8, 10, (50 - 54) & 0xFFFFFFFF, 1_000_000)
    assert made("paws", timestamps=False)[0] is None
    fin = Facts(seq_end=3001, ack=800, tsval=50, fin=3000)
    assert fields(made("paws", amount=50, facts=(A, fin))[1])[4] == b""
    everything = Facts(seq_end=3000, ack=800, tsval=50)
    assert fields(made("paws", amount=50, facts=(A, everything))[1])[0] == 2950


def test_timestamps_are_there_where_they_are_agreed_on_and_known():
    def stamps(**changes):
        return fields(made("old", **changes)[1])[3]

    assert struct.unpack("!BBBBII", stamps()) == (1, 1, 8, 10, 50, 1_000_000)
    assert stamps(timestamps=False) == b"" == stamps(facts=(Facts(), Facts()))


def test_windows_are_what_the_peer_says():
    assert made("options")[1].payload[14:16] == (49_280 >> 7).to_bytes(2, "big")
    assert made("options", scale=-1)[1].payload[14:16] == (49_280).to_bytes(2, "big")


@pytest.mark.parametrize("offset", range(30))
def test_options_that_make_no_sense_fit_into_a_header(offset):
    _, packet = made("options", offset)
    assert packet.valid_tcp and len(packet.payload) == (packet.payload[12] >> 4) * 4 > 20


def test_headers_that_make_no_sense():
    for offset in range(4):
        payload = made("truncated", offset)[1].payload
        assert len(payload) < 20 or not 20 <= (payload[12] >> 4) * 4 <= len(payload)
    assert not made("checksum", 0)[1].valid_tcp and made("checksum", 0)[1].intact
    assert not made("checksum", 1)[1].intact
    assert len(made("random", amount=333)[1].payload) == 337


STEPS = (
    Read(at=0, side="a"),
    Read(at=0, side="b"),
    Send(at=0, side="a", size=7000),
    Send(at=100, side="b", size=4000),
    Offload(event=4),
    Upload(event=20),
)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_survives_it(kind, ipv6):
    for event, timestamps, offset in ((1, True, 0), (2, False, 1), (7, False, 2), (9, True, 3), (16, True, 5)):
        bad = tuple(Garbage(event=event, to=to, kind=kind, offset=offset) for to in "ab")
        case = Case(ipv6=ipv6, timestamps=timestamps, b=Host(chimney=event > 8), steps=(*STEPS, *bad))
        outcome = run(case)
        assert outcome.findings == [], (case, outcome.findings)
        assert outcome.bytes_delivered == 11_000


def test_the_target_gets_it():
    errors = {}
    for kind in ("checksum", "truncated", "urgent", "rst-blind"):
        lines = []
        bad = Garbage(event=9, to="a", kind=kind, offset=2)
        world = World(Case(steps=(*STEPS, bad)), lambda *line, lines=lines: lines.append(line[3:]))
        world.play()
        assert any(what == "in" and text.startswith("garbage") for what, text in lines)
        errors[kind] = world.machines["a"].target.frame_errors
        # What is urgent is the kernel's business, before it is its turn.
        asked = lines.index(("kern", "the socket is restored")) < lines.index(("do", "upload"))
        assert asked == (kind == "urgent")
    assert errors == {"checksum": 1, "truncated": 1, "urgent": 0, "rst-blind": 0}
