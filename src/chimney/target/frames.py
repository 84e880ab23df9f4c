"""Ethernet, IP and VLAN around TCP segments: building those that are sent (16.1-16.3), reading those that arrive."""

from __future__ import annotations

import struct

from chimney.link.base import ETHERNET_HEADER, Flow, Frame
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
_FRAGMENT_HEADER = 44  # a next header of IPv6
_VERSION_4_NO_OPTIONS = 0x45
_VERSION_6 = 6
_ETHER_IPV4 = 0x0800
_ETHER_IPV6 = 0x86DD
_ECN = 3  # of the TOS octet or traffic class (RFC 3168, 5)
# Where the TCP header's fields begin and end that may differ between segments of a train: all others agree.
_SEQUENCE_AT = 4
_SEQUENCE_END = 8
_FLAGS_AT = 13
_WINDOW_AT = 14
_URGENT_AT = 18
_ACK = 0x10
_PSH = 0x08


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

    ``start``, ``end``: where the TCP segment lies in the frame. ``fragment``: it is a fragment, of IPv6 if
    ``ipv6``. ``ecn``: the codepoint in the IP header.
    """

    def __init__(self) -> None:
        self.ipv6 = False
        self.start = 0
        self.end = 0
        self.ecn = 0
        self.fragment = False

    def read(self, data: memoryview) -> bool:
        """Whether the frame is a whole TCP segment that a target may process.

        False for what is not for a target (16.4: no TCP, a fragment, IP options or extension headers) and for lengths
        that contradict each other.
        """
        size = len(data)
        self.fragment = False
        if size < ETHERNET_HEADER + _IPV4_HEADER + _TCP_HEADER:
            return False
        ether_type = data[12] << 8 | data[13]
        if ether_type == _ETHER_IPV4:
            total = data[16] << 8 | data[17]
            self.ipv6 = False
            self.fragment = ((data[20] << 8 | data[21]) & _FRAGMENT) != 0
            if data[14] != _VERSION_4_NO_OPTIONS or data[23] != _TCP or self.fragment:
                return False
            if ETHERNET_HEADER + total > size or total < _IPV4_HEADER + _TCP_HEADER:
                return False
            self.ecn = data[15] & _ECN
            self.start = ETHERNET_HEADER + _IPV4_HEADER
            self.end = ETHERNET_HEADER + total
            return True
        if ether_type != _ETHER_IPV6 or size < ETHERNET_HEADER + _IPV6_HEADER + _TCP_HEADER:
            return False
        length = data[18] << 8 | data[19]
        end = ETHERNET_HEADER + _IPV6_HEADER + length
        self.ipv6 = True
        self.fragment = data[20] == _FRAGMENT_HEADER
        if data[14] >> 4 != _VERSION_6 or data[20] != _TCP or end > size or length < _TCP_HEADER:
            return False
        self.ecn = data[15] >> 4 & _ECN
        self.start = ETHERNET_HEADER + _IPV6_HEADER
        self.end = end
        return True

    def key(self, frame: Frame) -> bytes:
        """Of the frame that was read, as `flow_key` makes it."""
        return bytes(frame.part(22, 58) if self.ipv6 else frame.part(26, 38))

    def checksums_hold(self, data: memoryview) -> bool:
        """Verify the checksums of the frame that was read: the IPv4 header's, and TCP's."""
        segment = data[self.start : self.end]
        if self.ipv6:
            return tcp_is_valid(data[22:38], data[38:54], segment)
        return is_valid(data[ETHERNET_HEADER : self.start]) and tcp_is_valid(data[26:30], data[30:34], segment)


def end_of_continuation(first: memoryview, other: memoryview, tcp: int, payload: int, sequence: int) -> int:
    """Whether a frame holds the data that goes on at ``sequence``, and agrees with the first frame of a train in all
    that is not different for each of them anyway: where its payload ends, or 0.

    tcp, payload: where the TCP header and the payload begin in ``first``; ``other`` is longer than that.
    """
    at = tcp + _SEQUENCE_AT
    here = other[at] << 8 | other[at + 1]
    if here << 16 | other[at + 2] << 8 | other[at + 3] != sequence or other[tcp + _FLAGS_AT] & ~_PSH != _ACK:
        return 0
    # Ethernet; the IP header, but for length, identification and IPv4's checksum.
    if tcp == ETHERNET_HEADER + _IPV6_HEADER:
        same = _agree(first, other, 0, 18) and _agree(first, other, 20, at)
        end = tcp + (other[18] << 8 | other[19])
    else:
        same = _agree(first, other, 0, 16) and _agree(first, other, 20, 24) and _agree(first, other, 26, at)
        end = ETHERNET_HEADER + (other[16] << 8 | other[17])
    if not same or not payload < end <= len(other):
        return 0
    # Acknowledgement and offset, window, urgent pointer and options.
    same = (
        _agree(first, other, tcp + _SEQUENCE_END, tcp + _FLAGS_AT)
        and _agree(first, other, tcp + _WINDOW_AT, tcp + _CHECKSUM_AT)
        and _agree(first, other, tcp + _URGENT_AT, payload)
    )
    return end if same else 0


def _agree(first: memoryview, other: memoryview, start: int, end: int) -> bool:
    for at in range(start, end):
        if first[at] != other[at]:
            return False
    return True


def flow_key(flow: Flow) -> bytes:
    """What tells a flow's received frames from all others: both addresses and both ports, as they stand in a frame."""
    ports = struct.pack("!HH", flow.remote_port, flow.local_port)
    return flow.remote_address + flow.local_address + ports
