"""TCP segments as they stand in forwarded lists and in frames on the ordinary path, to be told from each other."""

from __future__ import annotations

import struct
from typing import NamedTuple

from chimney.ndis.buffers import NetBufferList
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


class OrdinarySegment(NamedTuple):
    """A segment in a frame on the ordinary path, and the flow it belongs to, as its receiver sees it."""

    flow: tuple[bytes, int, bytes, int]
    key: Key


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


def parse_ordinary(nbl: NetBufferList) -> OrdinarySegment | None:
    """The whole TCP segment in a frame that is indicated on the ordinary path; None if there is none."""
    frame = b"".join(nbl.first_net_buffer.views())
    packet = Packet(0, 0, "", True)
    parse(packet, memoryview(frame))
    if not packet.tcp:
        return None
    flow = (packet.destination, packet.destination_port, packet.source, packet.source_port)
    return OrdinarySegment(flow, key_of_packet(packet))
