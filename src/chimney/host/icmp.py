"""ICMP messages about segments of TCP connections: what they say, and about which connection.

Nothing in them is to be believed before the sequence number that they quote is seen to be outstanding (RFC 5927, 4.1):
`is_outstanding`. Sources: RFC 792, RFC 1191, RFC 4443, RFC 8201 (formats); RFC 1122, 4.2.3.9, RFC 5927 and
linux/icmp.h, linux/icmpv6.h (what they mean to a connection).
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

from chimney.host.kernel import Flow

_TCP = 6
_IPV4_UNREACHABLE, _IPV4_TIME_EXCEEDED, _IPV4_PARAMETER = 3, 11, 12
_FRAGMENTATION_NEEDED = 4
_IPV6_UNREACHABLE, _IPV6_TOO_BIG, _IPV6_TIME_EXCEEDED, _IPV6_PARAMETER = 1, 2, 3, 4
_HEADER = 8
_LAST_UNREACHABLE = {4: 15, 16: 7}
# Ports and sequence number: RFC 792 lets routers quote no more of a segment.
_QUOTED = struct.Struct("!HHI")
_MASK = 0xFFFFFFFF

IPV4_TYPES = (_IPV4_UNREACHABLE, _IPV4_TIME_EXCEEDED, _IPV4_PARAMETER)
IPV6_TYPES = (_IPV6_UNREACHABLE, _IPV6_TOO_BIG, _IPV6_TIME_EXCEEDED, _IPV6_PARAMETER)


class Meaning(Enum):
    """What a message says: a packet was too big for a link, or it did not arrive for another reason."""

    TOO_BIG = "too-big"
    UNREACHABLE = "unreachable"


class IcmpMessage(NamedTuple):
    """A message about a segment of ours. ``flow`` and ``seq`` (SEG.SEQ) are the segment's; of a packet that is none of
    TCP's, which may have been too big all the same, the ports are 0.

    ``mtu`` is what a too-big message says, in bytes of IP packet, 0 otherwise; ``sender`` is the address of who sent
    it. ``type`` and ``code`` are those of its IP version. ``word`` are the four bytes behind the checksum.
    """

    meaning: Meaning
    flow: Flow
    seq: int
    mtu: int
    sender: bytes
    type: int
    code: int
    word: bytes


def too_big(flow: Flow, seq: int, mtu: int) -> IcmpMessage:
    """A message of our own, for the kernel: the segment of `flow` with this sequence number was too big."""
    if len(flow.local_address) == 4:
        kind, code, word = _IPV4_UNREACHABLE, _FRAGMENTATION_NEEDED, struct.pack("!HH", 0, mtu)
    else:
        kind, code, word = _IPV6_TOO_BIG, 0, struct.pack("!I", mtu)
    return IcmpMessage(Meaning.TOO_BIG, flow, seq, mtu, flow.local_address, kind, code, word)


def parse_ipv4(packet: memoryview) -> IcmpMessage | None:
    """The message in an IPv4 packet whose payload is ICMP, and intact; None if it says nothing about what we sent."""
    header = _ipv4_header(packet)
    if not header or packet.nbytes < header + _HEADER:
        return None
    total = packet[2] << 8 | packet[3]
    message = packet[header : min(total, packet.nbytes)]
    if message.nbytes < _HEADER:
        return None
    kind, code = message[0], message[1]
    if kind not in IPV4_TYPES or (kind == _IPV4_UNREACHABLE and code > _LAST_UNREACHABLE[4]):
        return None
    quoted = message[_HEADER:]
    inner = _ipv4_header(quoted)
    # Only a first fragment has ports, and who sent the packet is who hears of it.
    if not inner or (quoted[6] << 8 | quoted[7]) & 0x1FFF or quoted[12:16] != packet[16:20]:
        return None
    mtu = -1
    if kind == _IPV4_UNREACHABLE and code == _FRAGMENTATION_NEEDED:
        mtu = message[6] << 8 | message[7]
    return _message(message, bytes(packet[12:16]), mtu, quoted[9], quoted[12:16], quoted[16:20], quoted[inner:])


def parse_ipv6(sender: bytes, message: memoryview) -> IcmpMessage | None:
    """The message of `sender` in an intact ICMPv6 message (without IPv6 header); None if it says nothing about what we
    sent.
    """
    if message.nbytes < _HEADER + 40:
        return None
    kind, code = message[0], message[1]
    if kind not in IPV6_TYPES or (kind == _IPV6_UNREACHABLE and code > _LAST_UNREACHABLE[16]):
        return None
    quoted = message[_HEADER:]
    if quoted[0] >> 4 != 6:
        return None
    mtu = struct.unpack("!I", message[4:8])[0] if kind == _IPV6_TOO_BIG else -1
    return _message(message, sender, mtu, quoted[6], quoted[8:24], quoted[24:40], quoted[40:])


def _ipv4_header(packet: memoryview) -> int:
    """The length of an IPv4 header; 0 if there is none."""
    if packet.nbytes < 20 or packet[0] >> 4 != 4:
        return 0
    length = (packet[0] & 15) * 4
    return length if 20 <= length <= packet.nbytes else 0


def _message(
    message: memoryview,
    sender: bytes,
    mtu: int,
    protocol: int,
    local: memoryview,
    remote: memoryview,
    segment: memoryview,
) -> IcmpMessage | None:
    """`mtu` is -1 if the message says none. What we send over TCP has no extension headers."""
    local_port = remote_port = seq = 0
    if protocol == _TCP and segment.nbytes >= _QUOTED.size:
        local_port, remote_port, seq = _QUOTED.unpack_from(segment)
    elif protocol == _TCP or mtu < 0:
        return None
    meaning = Meaning.TOO_BIG if mtu >= 0 else Meaning.UNREACHABLE
    flow = Flow(bytes(local), local_port, bytes(remote), remote_port)
    kind, code, word = message[0], message[1], bytes(message[4:8])
    return IcmpMessage(meaning, flow, seq, max(mtu, 0), sender, kind, code, word)


def is_outstanding(seq: int, snd_una: int, snd_max: int) -> bool:
    """RFC 5927, 4.1: whether a segment with this sequence number can have been sent and not been acknowledged.

    SND.MAX itself is allowed, as Linux does: a keepalive or an acknowledgement carries it.
    """
    return (seq - snd_una) & _MASK <= (snd_max - snd_una) & _MASK
