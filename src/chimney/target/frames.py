"""Ethernet, IP and VLAN around TCP segments: building those that are sent (16.1-16.3), reading those that arrive."""

from __future__ import annotations

import struct

from chimney.link.base import ETHERNET_HEADER, Flow
from chimney.link.checksum import is_valid, ones_sum, pseudo_header_sum, tcp_is_valid

_IPV4_HEADER = 20
_IPV6_HEADER = 40
_TCP_HEADER = 20
_TCP = 6
_CHECKSUM_AT = 16
_FIRST_ID = 0x8000
_LAST_ID = 0xFFFF
_DONT_FRAGMENT = 0x4000
_FRAGMENT = 0x3FFF  # "more fragments" and the offset
_VERSION_4_NO_OPTIONS = 0x45
_ETHER_IPV4 = 0x0800
_ETHER_IPV6 = 0x86DD
_ECN = 3  # of the TOS octet or traffic class (RFC 3168, 5)
# EtherType; version and IHL, TOS, total length, identification, fragment, TTL, protocol.
_IPV4 = struct.Struct("!12xHBBH2xHxB")
# EtherType; version and so on, payload length, next header, hop limit.
_IPV6 = struct.Struct("!12xHIHBx")


class HeaderTemplate:
    """Everything before the TCP header of one connection's segments.

    It is made anew when neighbor, path or cached variables change. ``vlan``: the tag's control information, -1 for
    no tag. The ECN field is each segment's own: ``tos`` says nothing about it.
    """

    def __init__(
        self,
        source_mac: bytes,
        destination_mac: bytes,
        source: bytes,
        destination: bytes,
        ttl: int,
        tos: int,
        flow_label: int,
        vlan_id: int,
        user_priority: int,
    ) -> None:
        self.ipv6 = len(source) == 16
        tos &= ~_ECN
        ethernet = destination_mac + source_mac
        if self.ipv6:
            ip = struct.pack("!IHBB", 6 << 28 | tos << 20 | flow_label & 0xFFFFF, 0, _TCP, ttl) + source + destination
            self.prefix = bytearray(ethernet + struct.pack("!H", _ETHER_IPV6) + ip)
        else:
            ip = struct.pack("!BBHHHBBH", _VERSION_4_NO_OPTIONS, tos, 0, 0, _DONT_FRAGMENT, ttl, _TCP, 0)
            ip += source + destination
            self.prefix = bytearray(ethernet + struct.pack("!H", _ETHER_IPV4) + ip)
        self.tcp_start = len(self.prefix)
        self.ip_sum = ones_sum(ip)
        self.pseudo_sum = pseudo_header_sum(source, destination, 0)
        self.vlan = user_priority << 13 | vlan_id if vlan_id or user_priority else -1
        self.next_id = _FIRST_ID

    def headers(self, tcp_header: bytes, payload_length: int, segments: int, ecn: int) -> bytearray:
        """The headers of one TCP segment, or of a super-segment of ``segments``; the lengths are those of the whole.

        ``ecn``: the codepoint of its IP header.

        The checksum field of the TCP header holds the sum of the pseudo-header, for the link to complete.
        """
        headers = self.prefix + tcp_header
        length = len(tcp_header) + payload_length
        if self.ipv6:
            if ecn:
                headers[15] |= ecn << 4
            headers[18] = length >> 8
            headers[19] = length & 0xFF
        else:
            total = length + _IPV4_HEADER
            # Segmentation counts on from the first identification; the lower half is the host's (16.2).
            identification = self.next_id
            if identification + segments - 1 > _LAST_ID:
                identification = _FIRST_ID
            self.next_id = identification + segments
            headers[15] |= ecn
            headers[16] = total >> 8
            headers[17] = total & 0xFF
            headers[18] = identification >> 8
            headers[19] = identification & 0xFF
            checksum = self.ip_sum + total + identification + ecn
            checksum = (checksum & 0xFFFF) + (checksum >> 16)
            checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
            headers[24] = checksum >> 8
            headers[25] = checksum & 0xFF
        pseudo = self.pseudo_sum + length
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
        at = self.tcp_start + _CHECKSUM_AT
        headers[at] = pseudo >> 8
        headers[at + 1] = pseudo & 0xFF
        return headers


class FrameReader:
    """Reads one received frame after the other; the attributes tell about the last one.

    ``key``: as `flow_key` makes it. ``start``, ``end``: where the TCP segment lies in the frame. ``fragment``: it is an
    IPv4 fragment; ``addresses`` are its source and destination then. ``ecn``: the codepoint in the IP header.
    """

    def __init__(self) -> None:
        self.key = b""
        self.ipv6 = False
        self.start = 0
        self.end = 0
        self.ecn = 0
        self.fragment = False
        self.addresses = b""

    def read(self, data: memoryview) -> bool:
        """Whether the frame is a whole TCP segment that a target may process.

        False for what is not for a target (16.4: no TCP, a fragment, IP options or extension headers) and for lengths
        that contradict each other.
        """
        size = len(data)
        self.fragment = False
        if size < ETHERNET_HEADER + _IPV4_HEADER + _TCP_HEADER:
            return False
        ether_type, version, tos, total, fragment, protocol = _IPV4.unpack_from(data)
        if ether_type == _ETHER_IPV4:
            end = ETHERNET_HEADER + total
            if version != _VERSION_4_NO_OPTIONS or protocol != _TCP or fragment & _FRAGMENT:
                if fragment & _FRAGMENT:
                    self.fragment = True
                    self.addresses = bytes(data[26:34])
                return False
            if end > size or total < _IPV4_HEADER + _TCP_HEADER:
                return False
            self.ipv6 = False
            self.ecn = tos & _ECN
            self.key = bytes(data[26:38])
            self.start = ETHERNET_HEADER + _IPV4_HEADER
            self.end = end
            return True
        if ether_type != _ETHER_IPV6 or size < ETHERNET_HEADER + _IPV6_HEADER + _TCP_HEADER:
            return False
        _, word, length, next_header = _IPV6.unpack_from(data)
        end = ETHERNET_HEADER + _IPV6_HEADER + length
        if word >> 28 != 6 or next_header != _TCP or end > size or length < _TCP_HEADER:
            return False
        self.ipv6 = True
        self.ecn = word >> 20 & _ECN
        self.key = bytes(data[22:58])
        self.start = ETHERNET_HEADER + _IPV6_HEADER
        self.end = end
        return True

    def checksums_hold(self, data: memoryview) -> bool:
        """Verify the checksums of the frame that was read: the IPv4 header's, and TCP's."""
        segment = data[self.start : self.end]
        if self.ipv6:
            return tcp_is_valid(data[22:38], data[38:54], segment)
        return is_valid(data[ETHERNET_HEADER : self.start]) and tcp_is_valid(data[26:30], data[30:34], segment)


def flow_key(flow: Flow) -> bytes:
    """What tells a flow's received frames from all others: both addresses and both ports, as they stand in a frame."""
    ports = struct.pack("!HH", flow.remote_port, flow.local_port)
    return flow.remote_address + flow.local_address + ports
