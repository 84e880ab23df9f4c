"""TCP segments as the model reads and writes them (RFC 9293, 3.1; RFC 7323, 3.2; RFC 2018, 3).

Inside the model a sequence number is a plain integer that never wraps; `unwrap` makes one from the 32 bits on the wire,
and the low 32 bits of it go back onto the wire.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
MASK = 0xFFFFFFFF

_HALF = 1 << 31
_END, _NOP, _MSS, _SACK, _TIMESTAMPS = 0, 1, 2, 5, 8
_HEADER = struct.Struct("!HHIIBBHHH")
_STAMPED = struct.Struct("!HHIIBBHHHIII")
_TWO = struct.Struct("!II")
# NOP, NOP, kind 8, length 10: how everybody lays out a timestamp option, and nearly always the only one.
_STAMP = 0x0101080A
_STAMP_BYTES = _STAMP.to_bytes(4, "big")


@dataclass(slots=True)
class Segment:
    """A segment without its ports. Numbers are those on the wire (32 bits, ``window`` unscaled).

    ts_val   -1 if it has no timestamp option.
    sack     blocks as (left edge, right edge), in the order in which they stand.
    mss      of the option of that name; 0 if there is none. Read only.
    """

    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes = b""
    ts_val: int = -1
    ts_ecr: int = 0
    sack: tuple[tuple[int, int], ...] = ()
    mss: int = 0

    @property
    def length(self) -> int:
        """SEG.LEN: what it takes of the sequence space."""
        return len(self.payload) + bool(self.flags & FIN) + bool(self.flags & SYN)


def unwrap(number: int, reference: int) -> int:
    """The integer nearest to ``reference`` whose low 32 bits are ``number``."""
    return reference + ((number - reference + _HALF) & MASK) - _HALF


def build(segment: Segment, source_port: int, destination_port: int) -> bytes:
    """TCP header and payload; the checksum is left 0."""
    sack = segment.sack
    if not sack:
        if segment.ts_val < 0:
            return (
                _HEADER.pack(
                    source_port, destination_port, segment.seq, segment.ack, 0x50, segment.flags, segment.window, 0, 0
                )
                + segment.payload
            )
        return (
            _STAMPED.pack(
                source_port, destination_port, segment.seq, segment.ack, 0x80, segment.flags, segment.window, 0, 0,
                _STAMP, segment.ts_val, segment.ts_ecr,
            )  # fmt: skip
            + segment.payload
        )
    options = b""
    if segment.ts_val >= 0:
        options = _STAMP_BYTES + _TWO.pack(segment.ts_val, segment.ts_ecr)
    options += bytes((_NOP, _NOP, _SACK, 2 + 8 * len(sack)))
    for block in sack:
        options += _TWO.pack(*block)
    offset = (20 + len(options)) << 2
    header = _HEADER.pack(
        source_port, destination_port, segment.seq, segment.ack, offset, segment.flags, segment.window, 0, 0
    )
    return header + options + segment.payload


def parse(data: bytes | bytearray | memoryview) -> Segment | None:
    """The segment in ``data`` (header and payload), whatever its checksum; None if the header makes no sense.

    Options are read as far as they make sense.
    """
    size = len(data)
    if size < 20:
        return None
    _, _, seq, ack, offset, flags, window, _, _ = _HEADER.unpack_from(data)
    header = (offset >> 4) << 2
    if header == 20:
        return Segment(seq, ack, flags, window, bytes(data[20:]))
    if header < 20 or header > size:
        return None
    if header == 32 and data[20:24] == _STAMP_BYTES:
        ts_val, ts_ecr = _TWO.unpack_from(data, 24)
        return Segment(seq, ack, flags, window, bytes(data[32:]), ts_val, ts_ecr)
    segment = Segment(seq, ack, flags, window, bytes(data[header:]))
    _read_options(segment, bytes(data[20:header]))
    return segment


def reset_for(segment: Segment) -> Segment | None:
    """What a host answers to a segment that belongs to no connection (RFC 9293, 3.10.7.1); None for an RST."""
    if segment.flags & RST:
        return None
    if segment.flags & ACK:
        return Segment(segment.ack, 0, RST, 0)
    return Segment(0, (segment.seq + segment.length) & MASK, RST | ACK, 0)


def _read_options(segment: Segment, options: bytes) -> None:
    at = 0
    while at < len(options) and options[at] != _END:
        kind = options[at]
        if kind == _NOP:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            return
        if kind == _TIMESTAMPS and size == 10:
            segment.ts_val, segment.ts_ecr = _TWO.unpack_from(options, at + 2)
        elif kind == _SACK and size > 2 and size % 8 == 2:
            segment.sack = tuple(_TWO.iter_unpack(options[at + 2 : at + size]))
        elif kind == _MSS and size == 4:
            segment.mss = int.from_bytes(options[at + 2 : at + 4], "big")
        at += size
