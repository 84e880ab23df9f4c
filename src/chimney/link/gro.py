"""Putting consecutive segments of a flow together, as the kernel's receive offload does (net/ipv4/tcp_offload.c)."""

from chimney.link.base import ETHERNET_HEADER, Frame
from chimney.link.checksum import checksum

_FIN, _PSH, _ACK = 0x01, 0x08, 0x10
_LARGEST_PACKET = 65535


class Merger:
    """One frame that grows while the segments offered to it continue it.

    It takes segments with payload and a verified checksum that agree with the first in everything but lengths,
    identification, sequence number, FIN and PSH. A segment that is shorter than the first, or has FIN or PSH, is the
    last.
    """

    def __init__(self, frame: bytearray, vlan: int, checksum_ok: bool) -> None:
        self._frame = frame
        self._vlan = vlan
        self._checksum_ok = checksum_ok
        self._first = _Segment(frame) if checksum_ok else None
        self._segments = 1
        first = self._first
        self._open = (
            first is not None and first.mergeable and not first.ends and first.start + first.payload == len(frame)
        )

    def append(self, frame: bytearray, vlan: int, checksum_ok: bool) -> bool:
        """Takes the segment in, if it is the next. The caller gives up the buffers of both."""
        first = self._first
        if not self._open or first is None or not checksum_ok or vlan != self._vlan:
            return False
        segment = _Segment(frame)
        if (
            not segment.mergeable
            or segment.key != first.key
            or segment.sequence != (first.sequence + len(self._frame) - first.start) & 0xFFFFFFFF
            or segment.payload > first.payload
            or len(self._frame) - ETHERNET_HEADER + segment.payload > _LARGEST_PACKET
        ):
            return False
        self._frame += memoryview(frame)[segment.start : segment.start + segment.payload]
        self._frame[first.flags_at] |= segment.flags
        self._segments += 1
        self._open = not segment.ends and segment.payload == first.payload
        return True

    def finish(self) -> Frame:
        """The frame as it is now, its IP lengths and IPv4 header checksum made right. The TCP checksum field is not."""
        frame, first = self._frame, self._first
        if first is None or self._segments == 1:
            return Frame(memoryview(frame), self._vlan, self._checksum_ok, 0)
        ip = ETHERNET_HEADER
        if first.ipv6:
            frame[ip + 4 : ip + 6] = (len(frame) - ip - 40).to_bytes(2, "big")
        else:
            frame[ip + 2 : ip + 4] = (len(frame) - ip).to_bytes(2, "big")
            frame[ip + 10 : ip + 12] = b"\0\0"
            frame[ip + 10 : ip + 12] = checksum(frame[ip : ip + 20]).to_bytes(2, "big")
        return Frame(memoryview(frame), self._vlan, True, first.payload)


class _Segment:
    """What merging has to know of one frame. Not mergeable: anything but a plain TCP segment with payload."""

    def __init__(self, frame: bytearray) -> None:
        self.mergeable = False
        ip = ETHERNET_HEADER
        start = bytes(frame[12:15])
        self.ipv6 = start[:2] == b"\x86\xdd"
        if self.ipv6:
            tcp = ip + 40
            if len(frame) < tcp + 20 or frame[ip + 6] != 6:
                return
            end = tcp + int.from_bytes(frame[ip + 4 : ip + 6], "big")
            ip_key = bytes(frame[: ip + 4]) + bytes(frame[ip + 6 : tcp])
        else:
            tcp = ip + 20
            if start != b"\x08\x00\x45" or len(frame) < tcp + 20 or frame[ip + 9] != 6:
                return
            if frame[ip + 6] & 0x3F or frame[ip + 7]:
                return
            end = ip + int.from_bytes(frame[ip + 2 : ip + 4], "big")
            ip_key = bytes(frame[: ip + 2]) + bytes(frame[ip + 6 : ip + 10]) + bytes(frame[ip + 12 : tcp])
        self.start = tcp + (frame[tcp + 12] >> 4) * 4
        self.payload = end - self.start
        self.flags_at = tcp + 13
        self.flags = frame[tcp + 13]
        self.ends = bool(self.flags & (_FIN | _PSH))
        self.sequence = int.from_bytes(frame[tcp + 4 : tcp + 8], "big")
        # Ports, acknowledgement, data offset, window, urgent pointer and options.
        self.key = (
            ip_key,
            bytes(frame[tcp : tcp + 4]) + bytes(frame[tcp + 8 : tcp + 13]) + bytes(frame[tcp + 14 : tcp + 16]),
            bytes(frame[tcp + 18 : self.start]),
        )
        self.mergeable = self.flags & ~(_FIN | _PSH) == _ACK and self.payload > 0 and end <= len(frame)
