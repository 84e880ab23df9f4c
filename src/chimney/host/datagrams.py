"""TCP segments in frames that a target has passed up, since it processes neither IP options nor fragments (16.4).

What of it the kernel would accept is accepted: options and extension headers that need no answer, no source routes.
Sources: RFC 791, RFC 1122 (3.2.1.8), RFC 8200 (4), RFC 9293 (3.1), RFC 1071.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from chimney.host.kernel import Flow
from chimney.host.reassembly import Fragment, Reassembly
from chimney.host.segments import KeptSegment

_ETHERNET = 14
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER = 20, 40, 20
_TCP = 6
_LIFE = 64
_MORE = 0x2000
_OFFSET = 0x1FFF
# Options of IPv4: the end, nothing, and the two source routes, by which nobody may reach a host.
_END, _NOP, _LOOSE_ROUTE, _STRICT_ROUTE = 0, 1, 131, 137
# Next headers, and the option types of theirs that every host skips.
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_PAD_1 = 0
_ANSWER_WANTED = 0xC0
_MOST_EXTENSIONS = 8


class DatagramReader:
    """Reads frames one after the other; it keeps fragments until their datagram is complete.

    ``clock`` tells the time in microseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._reassembly = Reassembly()

    def read(self, frame: memoryview) -> KeptSegment | None:
        """The TCP segment that an Ethernet frame brings, or completes, copied; None if there is none, or if it is
        corrupt. One that a target does not process is marked ``foreign``.
        """
        if frame.nbytes < _ETHERNET + _IPV4_HEADER:
            return None
        ether_type = bytes(frame[12:14])
        if ether_type == _IPV4:
            return self._read_ipv4(frame[_ETHERNET:])
        if ether_type == _IPV6 and frame.nbytes >= _ETHERNET + _IPV6_HEADER:
            return self._read_ipv6(frame[_ETHERNET:])
        return None

    def _read_ipv4(self, ip: memoryview) -> KeptSegment | None:
        header = (ip[0] & 15) * 4
        total = ip[2] << 8 | ip[3]
        if ip[0] >> 4 != 4 or ip[9] != _TCP or not _IPV4_HEADER <= header <= total <= ip.nbytes:
            return None
        source, destination = bytes(ip[12:16]), bytes(ip[16:20])
        fragment = ip[6] << 8 | ip[7]
        if header == _IPV4_HEADER and not fragment & (_MORE | _OFFSET):
            return plain_segment(source, destination, bytes(ip[:total]), header)
        if sum16(ip[:header]) != 0xFFFF or not _options_are_acceptable(ip[_IPV4_HEADER:header]):
            return None
        tcp = bytes(ip[header:total])
        if fragment & (_MORE | _OFFSET):
            key = source, destination, ip[4] << 8 | ip[5]
            part = Fragment(key, (fragment & _OFFSET) * 8, bool(fragment & _MORE), _TCP, tcp)
            whole = self._reassembly.add(part, self._clock())
            if whole is None:
                return None
            tcp = whole[1]
        return foreign_segment(source, destination, tcp)

    def _read_ipv6(self, ip: memoryview) -> KeptSegment | None:
        end = _IPV6_HEADER + (ip[4] << 8 | ip[5])
        if ip[0] >> 4 != 6 or end > ip.nbytes:
            return None
        source, destination = bytes(ip[8:24]), bytes(ip[24:40])
        if ip[6] == _TCP:
            return plain_segment(source, destination, bytes(ip[:end]), _IPV6_HEADER)
        next_header, data = _skip_extensions(ip[6], ip[_IPV6_HEADER:end], first=True)
        if next_header == _FRAGMENT and data.nbytes >= 8:
            position = data[2] << 8 | data[3]
            key = source, destination, int.from_bytes(data[4:8], "big")
            part = Fragment(key, position & ~7, bool(position & 1), data[0], bytes(data[8:]))
            whole = self._reassembly.add(part, self._clock())
            if whole is None:
                return None
            next_header, data = _skip_extensions(whole[0], memoryview(whole[1]), first=False)
        return foreign_segment(source, destination, bytes(data)) if next_header == _TCP else None


def received_packet(packet: bytes | memoryview, header: int) -> KeptSegment | None:
    """The segment in an IP packet that the kernel has passed up on another interface, and that begins with ``header``
    bytes of IP header; None if it is corrupt.
    """
    ipv6 = packet[0] >> 4 == 6
    addresses = bytes(packet[8:40] if ipv6 else packet[12:20])
    source, destination = addresses[: len(addresses) // 2], addresses[len(addresses) // 2 :]
    tcp = memoryview(packet)[header:]
    if not ipv6 and header != _IPV4_HEADER:
        return foreign_segment(source, destination, bytes(tcp))
    if not tcp_is_intact(source, destination, tcp):
        return None
    found = plain_segment(source, destination, packet, header)
    return None if found is None else found._replace(foreign=True)


def plain_segment(
    source: bytes, destination: bytes, packet: bytes | memoryview, header: int
) -> KeptSegment | None:
    """The segment in an IP packet whose header of ``header`` bytes has no options; None if it is malformed.

    Who passed it up has verified its checksum.
    """
    size = len(packet) - header
    if size < _TCP_HEADER or not _TCP_HEADER <= (packet[header + 12] >> 4) * 4 <= size:
        # The kernel drops it, and nobody else may be bothered with it (forward.one-segment).
        return None
    remote_port, local_port = struct.unpack_from("!HH", packet, header)
    return KeptSegment(Flow(destination, local_port, source, remote_port), packet, header)


def foreign_segment(source: bytes, destination: bytes, tcp: bytes) -> KeptSegment | None:
    """A segment that no target has read or will read from its link, in an IP packet without options; None if it is
    corrupt.
    """
    if not tcp_is_intact(source, destination, tcp):
        return None
    size = len(tcp)
    if len(source) == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, (_IPV4_HEADER + size) & 0xFFFF, 0, 0x4000, _LIFE, _TCP, 0)
    else:
        ip = struct.pack("!IHBB", 6 << 28, size & 0xFFFF, _TCP, _LIFE)
    found = plain_segment(source, destination, b"".join((ip, source, destination, tcp)), len(ip) + 2 * len(source))
    return None if found is None else found._replace(foreign=True)


def tcp_is_intact(source: bytes, destination: bytes, tcp: bytes | memoryview) -> bool:
    """Whether the checksum is right, or left to be completed by a device: the kernel has merged the segment, having
    verified its parts, or it has never left this machine. The field then holds the pseudo-header's sum alone.
    """
    if len(tcp) < _TCP_HEADER:
        return False
    pseudo = sum16(source + destination + struct.pack("!II", len(tcp), _TCP))
    return tcp[16] << 8 | tcp[17] == pseudo or sum16(tcp, pseudo) == 0xFFFF


def sum16(data: bytes | memoryview, initial: int = 0) -> int:
    """The folded ones' complement sum of 16-bit words: with the checksum among them, 0xFFFF."""
    total = int.from_bytes(data, "big") << 8 * (len(data) & 1)
    total += initial
    return total % 0xFFFF or (0xFFFF if total else 0)


def _options_are_acceptable(options: memoryview) -> bool:
    """Whether the kernel would accept a packet with these IPv4 options."""
    at = 0
    while at < options.nbytes and options[at] != _END:
        if options[at] == _NOP:
            at += 1
            continue
        size = options[at + 1] if at + 1 < options.nbytes else 0
        if size < 2 or at + size > options.nbytes or options[at] in (_LOOSE_ROUTE, _STRICT_ROUTE):
            return False
        at += size
    return True


def _skip_extensions(next_header: int, data: memoryview, first: bool) -> tuple[int, memoryview]:
    """What stands behind the extension headers that every host skips: TCP, a fragment header, or something else, which
    is not ours. Hop-by-hop options stand only at the beginning of a packet (``first``).
    """
    for count in range(_MOST_EXTENSIONS):
        if next_header not in (_HOP_BY_HOP, _ROUTING, _DESTINATION):
            break
        size = (data[1] + 1) * 8 if data.nbytes >= 8 else 0
        if not 0 < size <= data.nbytes:
            return -1, data
        if next_header == _ROUTING:
            acceptable = data[3] == 0
        elif next_header == _HOP_BY_HOP:
            acceptable = first and not count and _all_may_be_skipped(data[2:size])
        else:
            acceptable = _all_may_be_skipped(data[2:size])
        if not acceptable:
            return -1, data
        next_header, data = data[0], data[size:]
    return next_header, data


def _all_may_be_skipped(options: memoryview) -> bool:
    """Whether there is none among the IPv6 options that calls for anything but skipping it where it is unknown."""
    at = 0
    while at < options.nbytes:
        if options[at] == _PAD_1:
            at += 1
            continue
        if options[at] & _ANSWER_WANTED or at + 1 >= options.nbytes:
            return False
        at += 2 + options[at + 1]
    return at == options.nbytes
