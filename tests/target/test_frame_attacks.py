"""Frames that lie: lengths that contradict each other, extension headers, fragments, packets in packets (Ripple20)."""

import struct

import pytest

from chimney.link.checksum import ones_sum, pseudo_header_sum
from chimney.target.frames import FrameReader
from tests.target.machine import IPV4, IPV6, MACS, World

A, B = MACS
SEGMENT = struct.pack("!HHIIBBHHH", 1000, 1001, 1, 2, 5 << 4, 16, 500, 0, 0) + b"payload"


def ipv4(payload=SEGMENT, *, first=0x45, length=None, fragment=0x4000, protocol=6, options=b"", trailer=b""):
    total = 20 + len(options) + len(payload) if length is None else length
    ip = struct.pack("!BBHHHBBH", first, 0, total, 1, fragment, 64, protocol, 0) + b"".join(IPV4) + options
    return B + A + b"\x08\x00" + ip + payload + trailer


def ipv6(payload=SEGMENT, *, first=6 << 28, length=None, next_header=6, trailer=b""):
    ip = struct.pack("!IHBB", first, len(payload) if length is None else length, next_header, 64) + b"".join(IPV6)
    return B + A + b"\x86\xdd" + ip + payload + trailer


def reads(frame):
    reader = FrameReader()
    return bytes(frame[reader.start : reader.end]) if reader.read(memoryview(frame)) else None


def extension(kind, next_header=6, size=8):
    """A header of that kind, with what follows it."""
    if kind == 44:
        return struct.pack("!BBHI", next_header, 0, 0, 7) + SEGMENT
    return bytes([next_header, size // 8 - 1]) + bytes(size - 2) + SEGMENT


@pytest.mark.parametrize("make", [ipv4, ipv6])
@pytest.mark.parametrize("trailer", [b"", b"\0", b"\xff" * 6, bytes(1400)])
def test_what_stands_behind_the_packet_is_no_data(make, trailer):
    assert reads(make(trailer=trailer)) == SEGMENT


@pytest.mark.parametrize("length", [0, 1, 19, 20, 39, 48, 1000, 65_535])
def test_a_total_length_that_is_not_the_packets(length):
    """CVE-2020-11896: shorter than its headers, or longer than the frame."""
    assert reads(ipv4(length=length)) is None


@pytest.mark.parametrize("length", [40, 41, 46])
def test_a_total_length_that_is_less_than_what_came_cuts_the_segment(length):
    assert reads(ipv4(length=length)) == SEGMENT[: length - 20]


@pytest.mark.parametrize("length", [0, 1, 19, 28, 1000, 65_535])
def test_a_payload_length_that_is_not_the_packets(length):
    """0 announces a jumbogram, which no Ethernet carries."""
    assert reads(ipv6(length=length)) is None


@pytest.mark.parametrize("first", [0x44, 0x40, 0x46, 0x4F, 0x55, 0x65, 0x05])
def test_another_version_or_header_length(first):
    assert reads(ipv4(first=first)) is None
    assert reads(ipv4(first=first, options=bytes(4))) is None


@pytest.mark.parametrize("version", [0, 4, 5, 7, 15])
def test_another_version_in_an_ipv6_frame(version):
    assert reads(ipv6(first=version << 28)) is None


@pytest.mark.parametrize("kind", [0, 43, 44, 51, 60, 135, 139, 140, 253])
@pytest.mark.parametrize("then", [6, 0, 43, 60, 59])
@pytest.mark.parametrize("size", [8, 16, 2048])
def test_extension_headers_are_the_hosts_to_read(kind, then, size):
    """One, or one that announces another, or itself; also with a length that goes beyond the packet."""
    payload = extension(kind, then, 8)
    payload = bytes([payload[0], size // 8 - 1 & 0xFF]) + payload[2:]
    assert reads(ipv6(payload, next_header=kind)) is None


@pytest.mark.parametrize("inner", [4, 41, 47, 50, 94])
def test_packets_in_packets_are_the_hosts_to_read(inner):
    """CVE-2020-11896 once more: IP in IP, and what else wraps it."""
    assert reads(ipv4(ipv4()[14:], protocol=inner)) is None
    assert reads(ipv6(ipv6()[14:], next_header=inner)) is None


@pytest.mark.parametrize("fragment", [0x2000, 0x2001, 0x0001, 0x1FFF, 0x3FFF, 0x6000, 0xA000])
def test_fragments_are_the_hosts_to_put_together(fragment):
    reader = FrameReader()
    assert not reader.read(memoryview(ipv4(fragment=fragment)))
    assert reader.fragment
    assert not reader.read(memoryview(ipv4(fragment=0x4000)[:30])) and not reader.fragment


def test_fragments_of_ipv6_are_the_hosts_as_well():
    reader = FrameReader()
    assert not reader.read(memoryview(ipv6(next_header=44))) and reader.fragment and reader.ipv6
    assert not reader.read(memoryview(ipv6(next_header=60))) and not reader.fragment


@pytest.mark.parametrize("flags", [0x0000, 0x4000, 0x8000, 0xC000])
def test_the_reserved_bit_makes_no_fragment(flags):
    assert reads(ipv4(fragment=flags)) == SEGMENT


@pytest.mark.parametrize("make", [ipv4, ipv6])
def test_a_frame_that_is_cut_off_anywhere_is_none(make):
    frame = make()
    assert [size for size in range(len(frame) + 1) if reads(frame[:size]) is not None] == [len(frame)]


@pytest.mark.parametrize("make", [ipv4, ipv6])
@pytest.mark.parametrize("kind", [b"\x08\x06", b"\x86\xdd", b"\x08\x00", b"\x81\x00", b"\x88\xa8", b"\x00\x00"])
def test_the_type_of_the_frame_decides(make, kind):
    frame = make()
    assert (reads(frame[:12] + kind + frame[14:]) is not None) == (kind == frame[12:14])


@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_over_another_length_does_not_hold(version):
    """What is summed up is what the headers announce, not what came."""
    addresses, make = (IPV4, ipv4) if version == 4 else (IPV6, ipv6)
    total = pseudo_header_sum(*addresses, len(SEGMENT)) + ones_sum(SEGMENT)
    total = (total & 0xFFFF) + (total >> 16)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    right = SEGMENT[:16] + struct.pack("!H", check) + SEGMENT[18:]
    frame = bytearray(make(right, trailer=b"\x12\x34"))
    if version == 4:
        frame[24:26] = struct.pack("!H", ~ones_sum(bytes(frame[14:34])) & 0xFFFF)
    reader = FrameReader()
    assert reader.read(memoryview(frame)) and reader.checksums_hold(memoryview(frame))
    spoilt = bytearray(frame)
    spoilt[17 if version == 4 else 19] ^= 1
    assert reader.read(memoryview(spoilt)) and not reader.checksums_hold(memoryview(spoilt))



def test_what_the_reader_refuses_reaches_no_connection(seed):
    """All of the above, at the link of a target: nothing is delivered, and the connection works afterwards."""
    world = World(seed=seed)
    a, b = world.connect(ipv6=True)
    b.side.link.set_filter(None)
    b.receive(100)
    inside = SEGMENT[:4] + b.segment(0, b"evil")[4:]
    for next_header in (0, 43, 44, 60, 41):
        payload = extension(next_header)[: -len(SEGMENT)] + inside
        world.sides[0].link.send(ipv6(payload, next_header=next_header), [], 0, 0, 0, False)
    world.poll()
    assert b.side.target.frames_passed_up == 5 and not b.host.took("receive")
    a.send(b"good")
    world.run()
    assert bytes(b.received) == b"good"
