"""The small parts against models: sequence numbers, options, queue, reassembly."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.tcp import Segment, parse_segment, seq
from chimney.tcp.ratelimit import RateLimiter
from chimney.tcp.reassembly import Reassembly
from chimney.tcp.send_queue import SendQueue
from chimney.tcp.state import TRANSITIONS, Cause, State, after

u32 = st.integers(0, 2**32 - 1)


# Sequence numbers.


@given(u32, st.integers(1 - 2**31, 2**31 - 1))
def test_sums_and_differences_wrap(a, n):
    b = seq.add(a, n)
    assert b == (a + n) % 2**32 and seq.diff(b, a) == n
    assert seq.lt(a, b) == (n > 0) and seq.leq(a, b) == (n >= 0)
    assert seq.latest(a, b) == (b if n > 0 else a)
    assert seq.unwrap(b, a, 10**12) == 10**12 + n


# Segments.

segments = st.builds(
    dict,
    seq=u32,
    ack=u32,
    flags=st.integers(0, 255),
    window=st.integers(0, 65535),
    ts=st.none() | st.tuples(u32, u32),
    sack=st.lists(st.tuples(u32, u32), max_size=3),
    data=st.binary(max_size=20),
)


@given(segments)
def test_what_is_built_is_parsed(fields):
    built = Segment()
    built.seq, built.ack, built.flags, built.window = (fields[k] for k in ("seq", "ack", "flags", "window"))
    if fields["ts"]:
        built.has_timestamp, (built.ts_val, built.ts_ecr) = True, fields["ts"]
    built.sack_blocks = fields["sack"]
    header = built.header_bytes(80, 12345)
    assert header[:4] == struct.pack("!HH", 80, 12345) and header[16:20] == bytes(4)
    assert len(header) == built.header_length() == (header[12] >> 4) * 4
    parsed = parse_segment(memoryview(header + fields["data"]), 3)
    assert parsed.header_bytes(80, 12345) == header
    assert bytes(parsed.payload) == fields["data"] and parsed.payload_length == len(fields["data"])
    assert parsed.segments == 3


def header(options, offset=None):
    size = (20 + len(options)) // 4 if offset is None else offset
    return struct.pack("!HHIIBBHHH", 1, 2, 3, 4, size << 4, 16, 6, 0, 0) + options


@pytest.mark.parametrize("size", range(20))
def test_a_short_header_is_malformed(size):
    assert parse_segment(memoryview(header(b""))[:size]) is None


@pytest.mark.parametrize("offset", [0, 1, 4, 6, 15])
def test_a_data_offset_that_lies_is_malformed(offset):
    assert parse_segment(memoryview(header(b"", offset))) is None


STAMP = b"\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x02"


@pytest.mark.parametrize(
    ("options", "stamp", "sack"),
    [
        (b"\x01\x01" + STAMP, (1, 2), []),
        (STAMP + b"\x00\x00", (1, 2), []),
        (b"\x1e\x06abcd" + STAMP, (1, 2), []),
        (b"\x1e\x00" + STAMP, None, []),
        (b"\x1e\x01" + STAMP, None, []),
        (b"\x1e\xff" + STAMP, None, []),
        (b"\x00\x00" + STAMP, None, []),
        (b"\x01\x01\x01\x08", None, []),
        (b"\x08\x0a\x00\x00", None, []),
        (b"\x08\x08\x00\x00\x00\x01\x00\x00", None, []),
        (STAMP + b"\x08\x0a\x00\x00\x00\x07\x00\x00\x00\x07", (1, 2), []),
        (b"\x05\x0a\x00\x00\x00\x05\x00\x00\x00\x09\x00\x00", None, [(5, 9)]),
        (b"\x05\x02\x00\x00", None, []),
        (b"\x05\x09" + bytes(10), None, []),
        (bytes(40), None, []),
        (b"\x02\x04\x05\xb4", None, []),
    ],
)
def test_options_are_read_as_far_as_they_make_sense(options, stamp, sack):
    parsed = parse_segment(memoryview(header(options) + b"data"))
    assert ((parsed.ts_val, parsed.ts_ecr) if parsed.has_timestamp else None) == stamp
    assert parsed.sack_blocks == sack and bytes(parsed.payload) == b"data"


@given(st.binary(min_size=20, max_size=80))
def test_no_bytes_crash_the_parser(data):
    parsed = parse_segment(memoryview(data))
    assert parsed is None or parsed.payload_length == len(parsed.payload)


# The send queue.


@given(st.integers(0, 2**32))
def test_the_queue_is_a_stream(seed):
    rng = random.Random(seed)
    queue, stream, released = SendQueue(), b"", 0
    for _ in range(rng.randrange(60)):
        piece = rng.randbytes(rng.choice([0, 1, 5, 100]))
        queue.append(memoryview(piece), rng.random() < 0.5)
        stream += piece
        if rng.random() < 0.4:
            released = rng.randint(released, len(stream))
            queue.release(released)
        if released < len(stream):
            start = rng.randrange(released, len(stream))
            length = rng.randint(1, len(stream) - start)
            assert b"".join(queue.gather(start, length)) == stream[start : start + length]
            assert queue.gathered == length
        assert (queue.start, queue.end) == (released, len(stream))


def test_a_queue_of_many_small_pieces_stays_small_and_fast():
    queue = SendQueue()
    for i in range(100_000):
        queue.append(memoryview(b"abc"), True)
        if i > 100:
            queue.release((i - 100) * 3)
    assert b"".join(queue.gather(queue.start, 300)) == b"abc" * 100
    queue.release(10**9)
    assert queue.start == queue.end == 300_000


# Reassembly, against a dictionary of bytes.


@given(st.integers(0, 2**32), st.sampled_from([3, 1000]))
def test_reassembly_keeps_the_first_copy_of_every_byte(seed, blocks):
    rng = random.Random(seed)
    queue, model, at, out, expected = Reassembly(blocks, 1000), {}, 0, [], bytearray()
    for _ in range(40):
        start = at + rng.randint(1, 30)
        data = rng.randbytes(rng.randint(1, 15))
        new = queue.insert(start, memoryview(data), False)
        if new >= 0:
            fresh = [i for i in range(start, start + len(data)) if i not in model]
            assert new == len(fresh)
            model.update((i, data[i - start]) for i in fresh)
        runs = sorted(queue.ranges(1000))
        assert {i for a, b in runs for i in range(a, b)} == {i for i in model if i >= at}
        assert all(b < c for (_, b), (c, _) in zip(runs, runs[1:], strict=False)) and len(runs) <= blocks
        if rng.random() < 0.2:
            gap = rng.randint(1, 10)
            at += gap
            reached = queue.pop(at, out)
            while at < reached:
                expected.append(model[at])
                at += 1
            assert at not in model
            assert b"".join(bytes(v) for v, _ in out) == expected
    assert queue.parts <= 1000


def test_the_latest_range_is_reported_first():
    queue = Reassembly(10, 100)
    for start in (10, 30, 50, 20):
        queue.insert(start, memoryview(b"x" * 5), False)
    queue.insert(35, memoryview(b"y"), False)
    assert queue.ranges(3) == [(30, 36), (20, 25), (50, 55)]


def test_filling_from_the_far_end_is_not_quadratic():
    queue = Reassembly(10_000, 10_000)
    for start in range(9000, 0, -1):
        queue.insert(start * 2, memoryview(b"ab"), False)
    out = []
    assert queue.pop(2, out) == 18_002 and len(out) == 9000


def test_the_rate_limiter_counts_in_intervals():
    limiter = RateLimiter(2, 100)
    assert [limiter.allows(t) for t in (0, 50, 99, 100, 150, 199)] == [True, True, False, True, True, False]


def test_transitions_lead_from_every_offloadable_state_to_an_end():
    for state in (State.ESTABLISHED, State.CLOSE_WAIT):
        seen = set()
        frontier = {state}
        while frontier:
            seen |= frontier
            frontier = {after(s, c) for s in frontier for c in Cause} - seen
        assert seen & {State.TIME_WAIT, State.CLOSED}
    assert not any(source in (State.CLOSED, State.TIME_WAIT) for source, _ in TRANSITIONS)
