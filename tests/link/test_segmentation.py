"""Cutting on the way out (gso) and merging on the way in (gro)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.link.gro import Merger
from chimney.link.gso import wire_segments

FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
V4 = {"source": "10.0.0.1", "destination": "10.0.0.2"}
V6 = {"source": "fd00::1", "destination": "fd00::2"}
both = pytest.mark.parametrize("addresses", [V4, V6], ids=["ipv4", "ipv6"])


def cut(made, gso_size, pieces=1):
    view = memoryview(made.payload)
    step = max(1, -(-len(view) // pieces))
    parts = [view[i : i + step] for i in range(0, len(view), step)]
    return wire_segments(made.header, parts, made.csum_start, 16, gso_size, made.ipv6)


def merge(segments, vlans=None, ok=True):
    merger = Merger(bytearray(segments[0]), -1, ok)
    taken = [merger.append(bytearray(s), -1, ok) for s in segments[1:]]
    return merger.finish(), taken


@both
@pytest.mark.parametrize("size", [1, 1447, 1448, 1449, 2896, 65000])
def test_segments_are_whole_packets_of_their_own(frames, addresses, size):
    data = bytes(i * 7 % 251 for i in range(size))
    seq, ident = 0xFFFFFF00, 0xFFFE
    made = frames.build(data, **addresses, seq=seq, identification=ident, flags=FIN | PSH | ACK | CWR, offload=True)
    seen = [frames.parse(s) for s in cut(made, 1448, pieces=3)]
    assert b"".join(s.payload for s in seen) == data
    assert [len(s.payload) for s in seen[:-1]] == [1448] * (len(seen) - 1)
    for i, s in enumerate(seen):
        assert s.seq == (seq + 1448 * i) % 2**32
        assert bool(s.flags & FIN) == bool(s.flags & PSH) == (i == len(seen) - 1)
        assert bool(s.flags & CWR) == (i == 0)
        assert (s.ack, s.window, s.ports, s.options) == (7, 500, (1000, 2000), seen[0].options)
        if addresses is V4:
            assert s.identification == (ident + i) % 2**16


@both
@pytest.mark.parametrize("size", [0, 1, 1448])
def test_without_segmentation_only_the_checksum_is_completed(frames, addresses, size):
    data = b"\xff" * size
    made = frames.build(data, **addresses, flags=PSH | ACK, offload=True)
    (segment,) = cut(made, 0)
    assert bytes(segment) == frames.build(data, **addresses, flags=PSH | ACK).frame


def test_without_offload_the_frame_stays_as_it_is():
    assert wire_segments(b"anything", [memoryview(b" at all")], 0, 0, 0, False) == [b"anything at all"]


@pytest.mark.parametrize("gso_size", [0, 1000])
def test_a_wrong_pseudo_header_sum_shows(frames, gso_size):
    made = frames.build(bytes(3000), offload=True)
    header = bytearray(made.header)
    header[made.csum_start + 17] ^= 1
    for segment in wire_segments(header, [memoryview(made.payload)], made.csum_start, 16, gso_size, False):
        with pytest.raises(AssertionError):
            frames.parse(segment)


@both
@given(
    data=st.binary(min_size=1, max_size=4000), gso_size=st.integers(1, 1500), flags=st.sampled_from([ACK, ACK | PSH])
)
def test_what_was_cut_can_be_merged_again(frames, addresses, data, gso_size, flags):
    made = frames.build(data, **addresses, flags=flags, offload=True)
    segments = cut(made, gso_size)
    frame, taken = merge(segments)
    assert all(taken)
    assert frame.gso_size == (gso_size if len(segments) > 1 else 0)
    assert frame.checksum_ok
    assert bytes(frame.data[: made.csum_start]) == made.header[: made.csum_start]
    assert bytes(frame.data[made.csum_start + 18 :]) == made.frame[made.csum_start + 18 :]


@pytest.mark.parametrize(
    "second",
    [
        {"seq": 1002},
        {"seq": 1000},
        {"seq": 1001, "ack": 8},
        {"seq": 1001, "window": 501},
        {"seq": 1001, "tcp_options": b"\x01\x01\x08\x0a" + b"\1" * 8},
        {"seq": 1001, "ports": (1001, 2000)},
        {"seq": 1001, "destination": "10.0.0.3"},
        {"seq": 1001, "flags": 0x14},
        {"seq": 1001, "flags": 0x50},
        {"seq": 1001, "payload": b""},
        {"seq": 1001, "payload": bytes(1001)},
        {"seq": 1001, "fragment": 0x2000},
        {"seq": 1001, "ip_options": b"\1\1\1\0"},
        {"seq": 1001, "protocol": 17},
    ],
    ids=str,
)
def test_what_does_not_continue_is_not_merged(frames, second):
    first = frames.build(bytes(1000))
    frame, taken = merge([first.frame, frames.build(**{"payload": bytes(1000), **second}).frame])
    assert taken == [False]
    assert bytes(frame.data) == first.frame
    assert frame.gso_size == 0


@pytest.mark.parametrize("last", [{"flags": ACK | PSH}, {"flags": ACK | FIN}, {"payload": bytes(999)}], ids=str)
def test_a_short_or_pushed_segment_ends_the_merge(frames, last):
    segments = [
        frames.build(bytes(1000)).frame,
        frames.build(**{"payload": bytes(1000), "seq": 1001, **last}).frame,
        frames.build(bytes(1000), seq=1001 + len(last.get("payload", bytes(1000)))).frame,
    ]
    assert merge(segments)[1] == [True, False]


def test_a_merged_packet_stays_within_the_ip_length(frames):
    segments = [frames.build(bytes(10000), seq=1 + 10000 * i).frame for i in range(8)]
    frame, taken = merge(segments)
    assert taken == [True] * 5 + [False] * 2
    assert len(frame.data) == 14 + 20 + 32 + 60000


def test_unverified_checksums_are_not_merged(frames):
    segments = [frames.build(bytes(10)).frame, frames.build(bytes(10), seq=11).frame]
    frame, taken = merge(segments, ok=False)
    assert taken == [False]
    assert not frame.checksum_ok


def test_padding_behind_the_packet_is_not_payload(frames):
    first, second = frames.build(b"a"), frames.build(b"b", seq=2)
    merger = Merger(bytearray(first.frame + bytes(3)), -1, True)
    assert not merger.append(bytearray(second.frame), -1, True)
    merger = Merger(bytearray(first.frame), -1, True)
    assert merger.append(bytearray(second.frame + bytes(3)), -1, True)
    assert bytes(merger.finish().data).endswith(b"ab")
