"""Frames as bytes: made by hand for a peer that misbehaves, and read as a host stack reads them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chimney.link.checksum import checksum, is_valid, tcp_checksum, tcp_is_valid

ETHER_IPV4 = 0x0800
ETHER_ARP = 0x0806
ETHER_IPV6 = 0x86DD
TCP = 6
ICMP = 1
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
END_OF_OPTIONS, NO_OPERATION, TIMESTAMPS = 0, 1, 8
FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

_ETHERNET = 14
_V6_FRAGMENT = 44


def ethernet(destination: bytes, source: bytes, ether_type: int, payload: bytes) -> bytes:
    """An untagged Ethernet frame."""
    return destination + source + ether_type.to_bytes(2, "big") + payload


def ip_packet(
    source: bytes,
    destination: bytes,
    payload: bytes,
    *,
    protocol: int = TCP,
    options: bytes = b"",
    identification: int = 1,
    fragment: int = DONT_FRAGMENT,
    good: bool = True,
) -> bytes:
    """An IPv4 or IPv6 packet, by the length of its addresses. ``options``, ``identification`` and ``fragment`` (flags
    and offset as they stand in the header) are IPv4's; ``good``: whether the header's checksum is right.
    """
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload
    options += bytes(-len(options) % 4)
    size = 20 + len(options)
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + len(payload), identification, fragment, 64, protocol, 0)
    )
    header += source + destination + options
    header[10:12] = ((checksum(header) + (not good)) & 0xFFFF).to_bytes(2, "big")
    return bytes(header) + payload


def checked(source: bytes, destination: bytes, segment: bytes, good: bool = True) -> bytes:
    """A TCP segment with its checksum, right or wrong."""
    made = bytearray(segment)
    made[16:18] = b"\0\0"
    made[16:18] = (tcp_checksum(source, destination, [made]) ^ (0 if good else 0x5555)).to_bytes(2, "big")
    return bytes(made)


def fragments(frame: bytes, at: int) -> list[bytes]:
    """An untagged IPv4 frame without options as two fragments, cut ``at`` bytes (a multiple of 8) behind the header."""
    header, payload = frame[_ETHERNET : _ETHERNET + 20], frame[_ETHERNET + 20 :]
    identification = int.from_bytes(header[4:6], "big")
    made = []
    for data, flags in ((payload[:at], MORE_FRAGMENTS), (payload[at:], at // 8)):
        packet = ip_packet(
            header[12:16],
            header[16:20],
            data,
            protocol=header[9],
            identification=identification,
            fragment=flags,
        )
        made.append(frame[:_ETHERNET] + packet)
    return made


@dataclass(slots=True)
class Packet:
    """An IP packet, read. ``offset`` and ``more`` are a fragment's; ``special``: it has options, extension headers, or
    is a fragment. ``intact``: the IP header's checksum is right.
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    options: bytes = b""
    identification: int = 0
    offset: int = 0
    more: bool = False
    intact: bool = True

    @property
    def fragment(self) -> bool:
        return self.more or self.offset > 0

    @property
    def special(self) -> bool:
        return self.fragment or bool(self.options)

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port of a TCP segment."""
        return struct.unpack_from("!HH", self.payload)

    @property
    def valid_tcp(self) -> bool:
        """A TCP segment whose checksum is right."""
        return (
            self.intact
            and self.protocol == TCP
            and len(self.payload) >= 20
            and tcp_is_valid(self.source, self.destination, self.payload)
        )


def read_packet(frame: bytes) -> Packet | None:
    """The IP packet in an untagged frame; None if there is none that makes sense."""
    ether_type = int.from_bytes(frame[12:14], "big")
    ip = frame[_ETHERNET:]
    if ether_type == ETHER_IPV4 and len(ip) >= 20:
        size = (ip[0] & 0x0F) * 4
        total, identification, fragment = struct.unpack_from("!HHH", ip, 2)
        if ip[0] >> 4 != 4 or size < 20 or total < size or total > len(ip):
            return None
        return Packet(
            ip[12:16],
            ip[16:20],
            ip[9],
            ip[size:total],
            ip[20:size],
            identification,
            (fragment & 0x1FFF) * 8,
            bool(fragment & MORE_FRAGMENTS),
            is_valid(ip[:size]),
        )
    if ether_type == ETHER_IPV6 and len(ip) >= 40:
        length = int.from_bytes(ip[4:6], "big")
        if ip[6] == _V6_FRAGMENT or 40 + length > len(ip):
            return None
        return Packet(ip[8:24], ip[24:40], ip[6], ip[40 : 40 + length])
    return None
