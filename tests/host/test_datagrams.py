"""Segments in frames that no target reads: with IP options, behind extension headers, in fragments."""

from __future__ import annotations

import random
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.host import reassembly
from chimney.host.datagrams import DatagramReader, plain_segment, sum16, tcp_is_intact
from chimney.host.kernel import Flow
from chimney.host.reassembly import TIMEOUT_US, Fragment, Reassembly

V4 = b"\x0a\0\0\2", b"\x0a\0\0\1"
V6 = bytes(15) + b"\2", bytes(15) + b"\1"
BOTH = pytest.mark.parametrize("addresses", [V4, V6], ids=["ipv4", "ipv6"])
ACK = 16
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, TCP, UDP = 0, 43, 44, 60, 6, 17


class Clock:
    now = 0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reader(clock):
    return DatagramReader(clock)


def flow_of(addresses):
    return Flow(addresses[1], 80, addresses[0], 5000)


def segment(addresses, payload, seq=1, check=None):
    """A TCP segment with the right checksum, unless one is given."""
    header = pack("!HHIIBBHHH", 5000, 80, seq, 2, 5 << 4, ACK, 100, 0, 0)
    if check is None:
        check = 0xFFFF ^ sum16(header + payload, pseudo(addresses, 20 + len(payload)))
    return header[:16] + pack("!H", check) + header[18:] + payload


def pseudo(addresses, size):
    return sum16(b"".join(addresses) + pack("!II", size, 6))


def frame(addresses, data, *, options=b"", next_header=TCP, identification=7, offset=0, more=False, total=None):
    """An Ethernet frame with an IP packet: of IPv4 with `options` and the place of a fragment, of IPv6 with what
    `next_header` says."""
    source, destination = addresses
    if len(source) == 16:
        size = len(data) if total is None else total
        header = pack("!IHBB", 6 << 28, size, next_header, 64)
        return memoryview(bytes(12) + b"\x86\xdd" + header + source + destination + data)
    words = 5 + len(options) // 4
    size = words * 4 + len(data) if total is None else total
    place = more << 13 | offset // 8
    header = pack("!BBHHHBBH", 0x40 | words, 0, size, identification, place, 64, next_header, 0)
    check = 0xFFFF ^ sum16(header + source + destination + options)
    header = header[:10] + pack("!H", check)
    return memoryview(bytes(12) + b"\x08\0" + header + source + destination + options + data)


def fragments(addresses, data, size, **fields):
    """The frames of a datagram cut at `size` bytes."""
    made = []
    for at in range(0, len(data), size):
        part, more = data[at : at + size], at + size < len(data)
        if len(addresses[0]) == 4:
            made.append(frame(addresses, part, offset=at, more=more, **fields))
        else:
            extension = pack("!BBHI", fields.get("inner", TCP), 0, at | more, fields.get("identification", 7))
            made.append(frame(addresses, extension + part, next_header=FRAGMENT))
    return made


@BOTH
def test_a_plain_segment_is_the_targets(reader, addresses):
    """Its checksum has been verified, or is not there yet."""
    whole = segment(addresses, b"data", check=1)
    found = reader.read(frame(addresses, whole))
    assert found.flow == flow_of(addresses) and found.tcp() == whole and not found.foreign


@BOTH
def test_what_is_behind_the_packet_is_padding(reader, addresses):
    whole = segment(addresses, b"")
    padded = memoryview(bytes(frame(addresses, whole)) + bytes(6))
    assert reader.read(padded).tcp() == whole


@pytest.mark.parametrize(("words", "taken"), [(4, False), (5, True), (6, True), (7, False)])
def test_a_header_that_ends_before_itself_or_behind_the_packet(reader, words, taken):
    tcp = pack("!HHIIBBHHHI", 2, 1, 0, 0, words << 4, ACK, 0, 0, 0, 0)
    assert (reader.read(frame(V4, tcp)) is not None) == taken


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (b"\x94\4\0\0", True),  # router alert
        (b"\1\1\1\0", True),
        (b"\x07\x07\4\0\0\0\0\0", True),  # record route
        (b"\0\xff\xff\xff", True),  # behind the end
        (b"\x83\7\4" + bytes(5), False),  # loose source route
        (b"\1\x89\3\4", False),  # strict source route
        (b"\x94\5\0\0", False),
        (b"\x94\1\0\0", False),
        (b"\1\1\1\x94", False),
    ],
)
def test_ipv4_options(reader, options, taken):
    whole = segment(V4, b"data")
    found = reader.read(frame(V4, whole, options=options))
    assert (found is not None) == taken
    if taken:
        assert found.foreign and found.tcp() == whole and found.flow == flow_of(V4)
        # A plain packet: who injects it says nothing of options.
        assert found.tcp_offset == 20 and found.packet[0] == 0x45 and found.packet[2:4] == pack("!H", 44)


PADDING = b"\1\4\0\0\0\0"
ALERT = b"\5\2\0\0\1\0"


@pytest.mark.parametrize(
    ("chain", "taken"),
    [
        ([(DESTINATION, PADDING)], True),
        ([(HOP_BY_HOP, ALERT), (DESTINATION, PADDING)], True),
        ([(HOP_BY_HOP, bytes(6)), (ROUTING, bytes(6)), (DESTINATION, PADDING + PADDING[:2] + bytes(6))], True),
        ([(DESTINATION, PADDING), (HOP_BY_HOP, PADDING)], False),
        ([(ROUTING, b"\0\1" + bytes(4))], False),  # a segment left
        ([(DESTINATION, b"\xc9\4\0\0\0\0")], False),  # a home address
        ([(DESTINATION, b"\x45\4\0\0\0\0")], False),
        ([(DESTINATION, b"\1\5\0\0\0\0")], False),  # an option that ends behind its header
        ([(DESTINATION, PADDING)] * 9, False),
    ],
)
def test_ipv6_extension_headers(reader, chain, taken):
    whole = segment(V6, b"data")
    data, following = whole, TCP
    for kind, body in reversed(chain):
        data, following = bytes((following, (len(body) + 2) // 8 - 1)) + body + data, kind
    found = reader.read(frame(V6, data, next_header=following))
    assert (found is not None) == taken
    if taken:
        assert found.foreign and found.tcp() == whole and found.flow == flow_of(V6)
        assert found.tcp_offset == 40 and found.packet[6] == TCP


@BOTH
@pytest.mark.parametrize("size", [8, 104, 1400])
@pytest.mark.parametrize("order", ["in order", "reversed", "shuffled"])
def test_fragments(reader, addresses, size, order):
    whole = segment(addresses, random.Random(size).randbytes(2000 if size < 1000 else 60_000))
    parts = fragments(addresses, whole, size)
    if order == "reversed":
        parts.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(parts)
    if len(parts) > 250:
        parts = fragments(addresses, whole, 1400)
    *first, last = [reader.read(part) for part in parts]
    assert first == [None] * len(first)
    assert last.foreign and last.tcp() == whole and last.flow == flow_of(addresses)
    assert len(reader._reassembly) == 0


def test_fragments_with_options_and_extension_headers(reader):
    whole = segment(V4, bytes(100))
    first = frame(V4, whole[:64], options=b"\x94\4\0\0", more=True)
    assert reader.read(first) is None
    assert reader.read(frame(V4, whole[64:], offset=64)).tcp() == whole
    whole = segment(V6, bytes(100))
    inner = bytes((TCP, 0)) + PADDING + whole
    cut = [bytes((DESTINATION, 0)) + pack("!HI", place, 9) for place in (1, 64)]
    cut = [cut[0] + inner[:64], cut[1] + inner[64:]]
    chain = bytes((FRAGMENT, 0)) + ALERT
    assert reader.read(frame(V6, chain + cut[0], next_header=HOP_BY_HOP)) is None
    assert reader.read(frame(V6, chain + cut[1], next_header=HOP_BY_HOP)).tcp() == whole


def test_fragments_of_other_things_are_not_ours(reader):
    whole = segment(V6, bytes(100))
    assert [reader.read(part) for part in fragments(V6, whole, 64, inner=UDP)] == [None, None]
    assert [reader.read(part) for part in fragments(V4, segment(V4, bytes(100)), 64, next_header=UDP)] == [None, None]
    assert reader.read(frame(V6, bytes(4), next_header=FRAGMENT)) is None


@BOTH
def test_a_wrong_checksum(reader, addresses):
    right = segment(addresses, b"data" * 20)
    wrong = right[:50] + b"x" + right[51:]
    partial = segment(addresses, b"data" * 20, check=pseudo(addresses, len(right)))
    assert [tcp_is_intact(*addresses, tcp) for tcp in (right, wrong, partial, right[:19])] == [True, False, True, False]
    for tcp in (wrong, right):
        whole = [reader.read(part) for part in fragments(addresses, tcp, 40)][-1]
        assert (whole is not None) == (tcp is right)


def test_a_wrong_ipv4_header_checksum(reader):
    damaged = bytearray(frame(V4, segment(V4, b"data"), options=b"\x94\4\0\0"))
    damaged[14 + 8] ^= 1
    assert reader.read(memoryview(damaged)) is None


@given(data=st.data())
def test_damaged_frames_never_raise(data):
    addresses = data.draw(st.sampled_from([V4, V6]))
    whole = segment(addresses, bytes(40))
    kinds = [[frame(addresses, whole)], fragments(addresses, whole, 24)]
    if addresses is V4:
        kinds.append([frame(V4, whole, options=b"\x94\4\0\0" * 3)])
    else:
        kinds.append([frame(V6, bytes((TCP, 0)) + ALERT + whole, next_header=HOP_BY_HOP)])
    reader = DatagramReader(lambda: 0)
    for part in data.draw(st.sampled_from(kinds)):
        damaged = bytearray(part)
        for _ in range(data.draw(st.integers(0, 4))):
            damaged[data.draw(st.integers(12, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        reader.read(memoryview(damaged)[: data.draw(st.integers(0, len(damaged)))])


def test_a_packet_that_a_raw_socket_has_read():
    packet = bytes(frame(V4, segment(V4, b"data")))[14:]
    assert plain_segment(*V4, packet, 20).tcp() == segment(V4, b"data")


# Reassembly

KEY = b"s", b"d", 1


def part(offset, size, more=True, key=KEY, fill=None):
    return Fragment(key, offset, more, TCP, (fill or bytes([offset // 8 & 255])) * size)


def test_a_fragment_that_comes_twice_does_no_harm():
    waiting = Reassembly()
    assert waiting.add(part(0, 8), 0) is None and waiting.add(part(0, 8), 0) is None
    assert waiting.add(part(8, 3, more=False), 0) == (TCP, bytes(8) + b"\1\1\1")


@pytest.mark.parametrize(
    "spoiling",
    [
        part(8, 16),  # begins where another one does
        part(0, 16),
        part(16, 8, more=False),  # an end before what is there
        part(64, 4),  # not the end, and not a multiple of 8
        part(64, 0),
        part(65528, 16),
    ],
)
def test_fragments_that_contradict_each_other_spoil_their_datagram(spoiling):
    waiting = Reassembly()
    for one in (part(8, 8), part(24, 8)):
        waiting.add(one, 0)
    assert waiting.add(spoiling, 0) is None and len(waiting) == 0


def test_nothing_comes_behind_the_end():
    waiting = Reassembly()
    waiting.add(part(16, 3, more=False), 0)
    assert waiting.add(part(24, 8), 0) is None and len(waiting) == 0


def test_a_datagram_waits_for_a_limited_time():
    waiting = Reassembly()
    waiting.add(part(0, 8), 0)
    assert waiting.add(part(8, 8, more=False), TIMEOUT_US) is None
    assert waiting.add(part(0, 8), TIMEOUT_US) is not None


def test_datagrams_and_fragments_are_bounded():
    waiting = Reassembly()
    for number in range(1000):
        waiting.add(part(0, 8, key=(b"s", b"d", number)), number)
    assert len(waiting) == reassembly._MOST_DATAGRAMS
    assert waiting.add(part(8, 1, more=False, key=(b"s", b"d", 999)), 1000) is not None
    for number in range(1000):
        waiting.add(part(number * 8, 8, key=KEY), 1000)
    assert sum(len(one.parts) for one in waiting._waiting.values()) < 1000


@given(
    st.lists(st.integers(1, 12).map(lambda units: units * 8), min_size=1, max_size=20),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_any_cut_in_any_order(sizes, rest, chance):
    whole = chance.randbytes(sum(sizes) + rest)
    cut, at = [], 0
    for size in [*sizes, rest]:
        cut.append(Fragment(KEY, at, at + size < len(whole), TCP, whole[at : at + size]))
        at += size
    cut += chance.choices(cut[:-1] or cut, k=3)
    chance.shuffle(cut)
    waiting = Reassembly()
    results = [result for one in cut if (result := waiting.add(one, 0)) is not None]
    assert results[0] == (TCP, whole)
