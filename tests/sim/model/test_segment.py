"""Segments on the wire and back; nothing that is read raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.sim.model import ACK, FIN, RST, SYN, Segment, build, parse, reset_for
from chimney.sim.model.segment import MASK, unwrap
from chimney.tcp import parse_segment

numbers = st.integers(0, MASK)


@given(
    st.builds(
        Segment,
        seq=numbers,
        ack=numbers,
        flags=st.integers(0, 0x3F),
        window=st.integers(0, 65535),
        payload=st.binary(max_size=20),
        ts_val=st.one_of(st.just(-1), numbers),
        sack=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple),
    )
)
def test_what_is_built_is_read(segment):
    data = build(segment, 40000, 80)
    assert parse(data) == parse(bytearray(data)) == parse(memoryview(data)) == segment
    assert data[:4] == bytes.fromhex("9c40 0050")
    other = parse_segment(memoryview(data))
    assert (other.seq, other.ack, other.window, other.payload_length) == (
        segment.seq,
        segment.ack,
        segment.window,
        len(segment.payload),
    )
    assert other.has_timestamp == (segment.ts_val >= 0)
    assert tuple(other.sack_blocks) == segment.sack


@given(st.binary(max_size=80))
def test_no_bytes_crash_the_reader(data):
    parse(data)
    parse(data[:12] + bytes([0xF0]) + data[12:])


def header(options, offset=None):
    size = 20 + len(options) if offset is None else offset
    return bytes(12) + bytes([size << 2, ACK]) + bytes(6) + options


@pytest.mark.parametrize("data", [bytes(19), header(b"", 16), header(b"", 24)])
def test_a_header_that_lies_is_no_segment(data):
    assert parse(data) is None


@pytest.mark.parametrize(
    ("options", "ts_val", "sack", "mss"),
    [
        ("020405b4", -1, (), 1460),
        ("080a0000000500000006 0101", 5, (), 0),
        ("0101050a0000000100000002", -1, ((1, 2),), 0),
        ("fe0400000204ffff", -1, (), 65535),
        ("00020405b4000000", -1, (), 0),
        ("0801 0a000000050000000600", -1, (), 0),
        ("0101080b00000005000000", -1, (), 0),
        ("05020000", -1, (), 0),
        ("01010108", -1, (), 0),
    ],
)
def test_options_are_read_as_far_as_they_make_sense(options, ts_val, sack, mss):
    segment = parse(header(bytes.fromhex(options)))
    assert (segment.ts_val, segment.sack, segment.mss) == (ts_val, sack, mss)


@given(st.integers(1 << 33, 1 << 40), st.integers(-(1 << 31), (1 << 31) - 1))
def test_unwrapping_finds_the_nearest(reference, distance):
    assert unwrap((reference + distance) & MASK, reference) == reference + distance


def test_who_belongs_to_nobody_is_reset():
    assert reset_for(Segment(5, 9, ACK, 0, b"abc")) == Segment(9, 0, RST, 0)
    assert reset_for(Segment(MASK, 0, SYN, 0)) == Segment(0, 0, RST | ACK, 0)
    assert reset_for(Segment(MASK, 0, FIN, 0, b"abc")) == Segment(0, 3, RST | ACK, 0)
    assert reset_for(Segment(5, 9, RST, 0)) is None
