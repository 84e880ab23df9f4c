"""TCP segments as they stand in forwarded lists and in frames on the ordinary path, to be told from each other."""

from __future__ import annotations

import struct
from typing import NamedTuple

from chimney.ndis.crossing import Crossing
from chimney.verifier.packets import Packet, parse

Key = tuple[int, int, int, int, int, int | None]
"""Sequence and acknowledgement number, flags, window, payload length, TSval: two arrivals of the same segment."""

_TIMESTAMPS = 8


class TcpSegment(NamedTuple):
    """What identifies a segment; ``length`` is its payload's."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int
    header_length: int
    length: int
    ts_val: int | None

    @property
    def key(self) -> Key:
        return self.seq, self.ack, self.flags, self.window, self.length, self.ts_val


def key_of_packet(packet: Packet) -> Key:
    """The key of a frame at the door."""
    stamps = packet.timestamps
    ts_val = None if stamps is None else stamps[0]
    return packet.seq, packet.ack, packet.flags, packet.window, packet.payload_length, ts_val


def parse_segment(data: bytes) -> TcpSegment | None:
    """A segment that begins with its TCP header; None if it is none."""
    if len(data) < 20:
        return None
    source, destination, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", data)
    size = (offset >> 4) * 4
    if size < 20 or size > len(data):
        return None
    stamp = None
    at = 20
    while at < size and data[at]:
        if data[at] == 1:
            at += 1
            continue
        if at + 1 >= size or data[at + 1] < 2:
            break
        if data[at] == _TIMESTAMPS and data[at + 1] == 10 and at + 10 <= size:
            stamp = int.from_bytes(data[at + 2 : at + 6], "big")
        at += data[at + 1]
    return TcpSegment(source, destination, seq, ack, flags, window, size, len(data) - size, stamp)


def parse_ordinary(crossing: Crossing) -> list[Packet]:
    """The frames of an indication on the ordinary path, taken apart, without their payload."""
    frames = []
    for view in crossing.nbls:
        packet = Packet(crossing.number, crossing.at, crossing.boundary.miniport.name, True)
        parse(packet, memoryview(b"".join(view.nbl.first_net_buffer.views())))
        packet.parts.clear()
        frames.append(packet)
    return frames


def flow_of_packet(packet: Packet) -> tuple[bytes, int, bytes, int]:
    """The flow that a received frame belongs to, as its receiver sees it."""
    return packet.destination, packet.destination_port, packet.source, packet.source_port
