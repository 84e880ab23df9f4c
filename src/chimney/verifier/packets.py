"""A frame at the link's door, taken apart as far as rules speak of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chimney.link.checksum import is_valid, tcp_is_valid

if TYPE_CHECKING:
    from chimney.verifier.books import TcpBook
    from chimney.verifier.streams import Stream

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
TCP = 6
NO_VLAN = -1

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBxx4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBH")
_STAMPS = struct.Struct("!II")


@dataclass(slots=True, eq=False)
class Segment:
    """One wire segment of a super-segment: its part of the sequence space, and its flags."""

    seq: int
    length: int
    flags: int


@dataclass(slots=True, eq=False)
class Packet:
    """A frame that a target sent (``incoming`` False) or received.

    ``tcp`` tells whether it is a whole TCP segment, by lengths that agree; its fields are zero otherwise. Addresses as
    in the header; ``vlan`` the tag's control information or -1. ``parts`` is the payload (until all have seen it),
    ``payload_length`` bytes in all; a super-segment's wire segments come from `segments`. ``book`` is the offloaded
    connection it belongs to, if there is one; ``stream`` the last one of its addresses and ports.
    ``sent`` False: the link had no room, or failed (``lost``). ``expected`` is the position that was next when it
    arrived, ``interface`` the link's own address. ``acts`` False: a target may not take it. ``timestamps`` are TSval
    and TSecr (RFC 7323), None without the option.
    """

    number: int
    at: int
    link: str
    incoming: bool
    destination_mac: bytes = b""
    source_mac: bytes = b""
    vlan: int = NO_VLAN
    ethertype: int = 0
    source: bytes = b""
    destination: bytes = b""
    hops: int = 0
    traffic_class: int = 0
    identification: int = 0
    dont_fragment: bool = True
    fragment: bool = False
    ip_options: bool = False
    flow_label: int = 0
    ip_length: int = 0
    protocol: int = 0
    tcp: bool = False
    source_port: int = 0
    destination_port: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = 0
    window: int = 0
    options: dict[int, bytes] = field(default_factory=dict)
    tcp_header_length: int = 0
    parts: list[memoryview] = field(default_factory=list)
    payload_length: int = 0
    gso_size: int = 0
    checksum_ok: bool = True
    sent: bool = True
    lost: bool = False
    stream: Stream | None = None
    book: TcpBook | None = None
    acts: bool = True
    expected: int = 0
    interface: bytes = b""
    timestamps: tuple[int, int] | None = None

    @property
    def sack_blocks(self) -> list[tuple[int, int]]:
        """The SACK option's blocks (RFC 2018)."""
        value = self.options.get(5, b"")
        return list(struct.iter_unpack("!II", value[: len(value) // 8 * 8]))

    @property
    def sequence_length(self) -> int:
        """Sequence numbers it takes: its bytes, and one each for SYN and FIN."""
        return self.payload_length + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def segment_count(self) -> int:
        """How many wire segments it becomes, or was merged from."""
        return max(1, -(-self.payload_length // self.gso_size)) if self.gso_size else 1

    def segments(self) -> Iterator[Segment]:
        """The wire segments it becomes: PSH and FIN stand on the last, CWR aside."""
        size = self.gso_size
        if not size or self.payload_length <= size:
            yield Segment(self.seq, self.payload_length, self.flags)
            return
        for offset in range(0, self.payload_length, size):
            length = min(size, self.payload_length - offset)
            last = offset + length == self.payload_length
            yield Segment((self.seq + offset) & 0xFFFFFFFF, length, self.flags if last else self.flags & ~(PSH | FIN))

    def payload(self) -> bytes:
        """Its bytes, joined."""
        return b"".join(self.parts)

    def __str__(self) -> str:
        way = "->" if not self.incoming else "<-"
        if not self.tcp:
            return f"{self.link} {way} ethertype {self.ethertype:#06x} protocol {self.protocol}"
        names = "".join(letter for bit, letter in zip((1, 2, 4, 8, 16, 32), "FSRPAU", strict=True) if self.flags & bit)
        return (
            f"{self.link} {way} {self.source_port}>{self.destination_port} {names} seq {self.seq} ack {self.ack} "
            f"win {self.window} len {self.payload_length}"
        )


def parse(packet: Packet, header: memoryview) -> None:
    """Fill ``packet`` from a frame whose headers stand in ``header``; payload that follows them in ``header`` is added
    to ``parts`` first. What cannot be read is left as it is: it is not TCP, then.
    """
    if len(header) < 14:
        return
    packet.destination_mac, packet.source_mac, packet.ethertype = _ETHERNET.unpack_from(header)
    following = 0
    for part in packet.parts:
        following += part.nbytes
    if packet.ethertype == IPV4:
        start, end = _ipv4(packet, header)
    elif packet.ethertype == IPV6:
        start, end = _ipv6(packet, header)
    else:
        return
    if start and packet.protocol == TCP and not packet.fragment and end <= len(header) + following:
        _tcp(packet, header, start, end, following)


def _ipv4(packet: Packet, header: memoryview) -> tuple[int, int]:
    if len(header) < 34 or header[14] >> 4 != 4:
        return 0, 0
    (
        version,
        packet.traffic_class,
        packet.ip_length,
        packet.identification,
        fragment,
        packet.hops,
        packet.protocol,
        packet.source,
        packet.destination,
    ) = _IPV4.unpack_from(header, 14)
    length = (version & 15) * 4
    packet.dont_fragment = bool(fragment & 0x4000)
    packet.fragment = bool(fragment & 0x3FFF)
    packet.ip_options = length > 20
    return 14 + length, 14 + packet.ip_length


def _ipv6(packet: Packet, header: memoryview) -> tuple[int, int]:
    if len(header) < 54 or header[14] >> 4 != 6:
        return 0, 0
    word, length, packet.protocol, packet.hops, packet.source, packet.destination = _IPV6.unpack_from(header, 14)
    packet.traffic_class, packet.flow_label = (word >> 20) & 0xFF, word & 0xFFFFF
    packet.ip_length = length + 40
    packet.fragment = packet.protocol == 44
    return 54, 54 + length


def _tcp(packet: Packet, header: memoryview, start: int, end: int, following: int) -> None:
    if min(len(header), end) < start + 20:
        return
    (
        packet.source_port,
        packet.destination_port,
        packet.seq,
        packet.ack,
        offset,
        packet.flags,
        packet.window,
    ) = _TCP.unpack_from(header, start)
    size = (offset >> 4) * 4
    if size < 20 or min(len(header), end) < start + size:
        return
    packet.tcp = True
    packet.tcp_header_length = size
    if size > 20:
        packet.options = _options(bytes(header[start + 20 : start + size]))
        stamps = packet.options.get(8)
        if stamps is not None and len(stamps) == 8:
            packet.timestamps = _STAMPS.unpack(stamps)
    packet.payload_length = following
    if start + size < min(len(header), end):
        inline = header[start + size : min(len(header), end)]
        packet.parts.insert(0, inline)
        packet.payload_length += inline.nbytes


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        if data[at] == 1:
            at += 1
            continue
        if at + 1 >= len(data) or data[at + 1] < 2 or at + data[at + 1] > len(data):
            break
        found[data[at]] = data[at + 2 : at + data[at + 1]]
        at += data[at + 1]
    return found


def checksums_hold(frame: memoryview) -> bool:
    """Whether the checksums of a received TCP segment are right: IPv4's, and TCP's. True for what is no TCP segment."""
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    if ethertype == IPV4 and len(frame) >= 34:
        start = 14 + (frame[14] & 15) * 4
        (length,) = struct.unpack_from("!H", frame, 16)
        if not is_valid(frame[14:start]):
            return False
        return frame[23] != TCP or tcp_is_valid(frame[26:30], frame[30:34], frame[start : 14 + length])
    if ethertype == IPV6 and len(frame) >= 54 and frame[20] == TCP:
        (length,) = struct.unpack_from("!H", frame, 18)
        return tcp_is_valid(frame[22:38], frame[38:54], frame[54 : 54 + length])
    return True
