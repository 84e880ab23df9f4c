"""Cutting a super-segment into wire segments and completing checksums: what the kernel or the NIC does, in memory."""

from chimney.link.base import ETHERNET_HEADER
from chimney.link.checksum import checksum

_FIN_PSH = 0x09
_CWR = 0x80


def wire_segments(
    header: bytes | bytearray | memoryview,
    payload: list[memoryview],
    csum_start: int,
    csum_offset: int,
    gso_size: int,
    gso_ipv6: bool,
) -> list[bytearray]:
    """The Ethernet frames, untagged, that Link.send with the same arguments puts on the wire.

    Each segment has its own IP length, IPv4 identification (counting up, modulo 2**16) and header checksum, sequence
    number, and TCP checksum. FIN and PSH appear on the last only, CWR on the first only (as Linux does, RFC 3168
    section 6.1.2). A wrong pseudo-header sum leads to a wrong checksum in every segment, as it does in a NIC.
    """
    data = b"".join(payload)
    if not csum_start:
        return [bytearray(header) + data]
    size = gso_size or len(data) or 1
    field = csum_start + csum_offset
    whole_length = len(header) - csum_start + len(data)
    # The sum for another length: take the whole length out (its ones' complement negative), put the segment's in.
    pseudo = int.from_bytes(header[field : field + 2], "big") + 0xFFFF - whole_length % 0xFFFF
    segments = []
    for start in range(0, max(len(data), 1), size):
        frame = bytearray(header)
        frame += data[start : start + size]
        if gso_size:
            last = start + size >= len(data)
            _set_ip(frame, start // size, gso_ipv6)
            _set_tcp(frame, csum_start, start, start == 0, last)
        frame[field : field + 2] = b"\0\0"
        total = checksum(memoryview(frame)[csum_start:], pseudo + len(frame) - csum_start)
        frame[field : field + 2] = total.to_bytes(2, "big")
        segments.append(frame)
    return segments


def _set_ip(frame: bytearray, index: int, ipv6: bool) -> None:
    ip = ETHERNET_HEADER
    if ipv6:
        frame[ip + 4 : ip + 6] = (len(frame) - ip - 40).to_bytes(2, "big")
        return
    identification = int.from_bytes(frame[ip + 4 : ip + 6], "big") + index & 0xFFFF
    frame[ip + 2 : ip + 4] = (len(frame) - ip).to_bytes(2, "big")
    frame[ip + 4 : ip + 6] = identification.to_bytes(2, "big")
    frame[ip + 10 : ip + 12] = b"\0\0"
    end = ip + (frame[ip] & 0x0F) * 4
    frame[ip + 10 : ip + 12] = checksum(frame[ip:end]).to_bytes(2, "big")


def _set_tcp(frame: bytearray, tcp: int, start: int, first: bool, last: bool) -> None:
    sequence = int.from_bytes(frame[tcp + 4 : tcp + 8], "big") + start & 0xFFFFFFFF
    frame[tcp + 4 : tcp + 8] = sequence.to_bytes(4, "big")
    if not last:
        frame[tcp + 13] &= ~_FIN_PSH & 0xFF
    if not first:
        frame[tcp + 13] &= ~_CWR & 0xFF
