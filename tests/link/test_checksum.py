import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.link import checksum as c


@given(st.binary(max_size=300))
def test_equals_the_sum_word_by_word(frames, data):
    assert c.checksum(data) == frames.slow_checksum(data)


@given(st.binary(max_size=300), st.binary(max_size=300).filter(lambda b: len(b) % 2 == 0))
def test_initial_is_what_came_before(frames, data, before):
    assert c.checksum(data, c.ones_sum(before)) == frames.slow_checksum(before + data)


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_pieces_of_odd_lengths_sum_up_as_one(frames, parts):
    assert 0xFFFF ^ c.ones_sum_parts(parts) == frames.slow_checksum(b"".join(parts))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xFFFF),
        (b"\0\0", 0xFFFF),
        (b"\0", 0xFFFF),
        (b"\xff\xff", 0),
        (b"\xff\xfe\0\1", 0),
        (b"\xff\xff\xff\xff", 0),
        (b"\1", 0xFEFF),
        (b"\x80\0\x80\0", 0xFFFE),
        (bytes.fromhex("0001f203f4f5f6f7"), 0xFFFF ^ 0xDDF2),  # the example of RFC 1071 section 3
    ],
)
def test_the_two_zeros(data, expected):
    assert c.checksum(data) == expected


def test_any_buffer_will_do():
    data = bytes(range(251))
    assert c.checksum(bytearray(data)) == c.checksum(memoryview(data)) == c.checksum(data)


@given(st.binary(max_size=200).filter(lambda b: len(b) % 2 == 0))
def test_a_filled_in_checksum_is_valid_and_a_flipped_bit_is_not(data):
    whole = bytearray(data + c.checksum(data).to_bytes(2, "big"))
    assert c.is_valid(whole)
    whole[len(whole) // 2] ^= 0x10
    assert not c.is_valid(whole)


@pytest.mark.parametrize(("source", "destination"), [("10.1.2.3", "10.255.255.255"), ("fd00::1", "ffff:ffff::")])
@pytest.mark.parametrize("size", [0, 1, 2, 1447, 1448])
def test_tcp_over_the_pseudo_header(frames, source, destination, size):
    made = frames.build(bytes(i % 256 for i in range(size)), source=source, destination=destination)
    seen = frames.parse(made.frame)
    segment = bytearray(made.frame[made.csum_start :])
    assert c.tcp_is_valid(seen.source, seen.destination, segment)

    (field,) = struct.unpack_from("!H", segment, 16)
    segment[16:18] = b"\0\0"
    header, payload = segment[:32], segment[32:]
    assert c.tcp_checksum(seen.source, seen.destination, [header, payload[:7], payload[7:]]) == field

    offloaded = frames.build(bytes(size), source=source, destination=destination, offload=True)
    (partial,) = struct.unpack_from("!H", offloaded.header, offloaded.csum_start + 16)
    assert c.pseudo_header_sum(seen.source, seen.destination, 32 + size) == partial


def test_a_segment_without_its_last_byte_is_invalid(frames):
    made = frames.build(b"abc\1")
    seen = frames.parse(made.frame)
    assert not c.tcp_is_valid(seen.source, seen.destination, made.frame[made.csum_start : -1])
