"""Segments that follow each other are processed as one, as receive offloads do it: what a segment costs besides its
bytes is paid once for all that a batch of frames holds.
"""

from __future__ import annotations

from chimney.link.base import ETHERNET_HEADER, Frame
from chimney.target.frames import end_of_continuation
from chimney.target.objects import TcpObject
from chimney.tcp.segment import PSH, Segment

_PSH = int(PSH)
_FLAGS_AT = 13
_SEQUENCES = 0xFFFFFFFF


IN_FRAMES = memoryview(b"what a train holds")
"""Stands for the bytes of a train, which are still in its frames."""


class Train:
    """The frames of a connection, ``tcp``, that will be processed as one ``segment``: None while there are none.

    Only data in order takes part, from a peer that has nothing else to say: acknowledgement, window and options are
    all the same. A PSH is the end. The payload stays where it is: the ``frames`` must not be released meanwhile.
    ``headers``: the bytes of each frame's IP and TCP headers.
    """

    def __init__(self) -> None:
        self.tcp: TcpObject | None = None
        self.segment: Segment | None = None
        self.frames: list[Frame] = []
        self.headers = 0
        self._start = 0
        self._payload = 0
        self._next = 0

    def begin(self, tcp: TcpObject, segment: Segment, frame: Frame, start: int, end: int) -> None:
        """``segment`` is the first; it was read from ``start`` to ``end`` of ``frame``, but for its payload."""
        self.tcp = tcp
        self.segment = segment
        self._start = start
        self._payload = end - segment.payload_length
        self.headers = self._payload - ETHERNET_HEADER
        self._next = segment.seq + segment.payload_length & _SEQUENCES
        frame.payload, frame.end = self._payload, end
        self.frames.append(frame)

    def take(self, frame: Frame) -> bool:
        """Whether the frame goes on where the train ends, and is part of it from now on."""
        segment = self.segment
        if segment is None or segment.flags & _PSH:
            return False
        first = self.frames[0]
        if not frame.checksum_ok or frame.vlan != first.vlan or frame.size <= self._payload:
            return False
        end = end_of_continuation(first.octets, frame.octets, self._start, self._payload, self._next)
        if end == 0:
            return False
        length = end - self._payload
        frame.payload, frame.end = self._payload, end
        self.frames.append(frame)
        segment.payload_length += length
        segment.segments += wire_segments(length, frame.gso_size)
        segment.flags |= frame.octets[self._start + _FLAGS_AT]
        self._next = self._next + length & _SEQUENCES
        return True

    def close(self, room: int) -> None:
        """The train is complete. Where it does not fit into ``room`` bytes of window, its engine must look into it."""
        segment = self.segment
        if segment is not None:
            fits = segment.payload_length <= room
            parts = [IN_FRAMES] if fits else [frame.part(frame.payload, frame.end) for frame in self.frames]
            segment.payload_parts = parts

    def clear(self) -> None:
        """There is no train any more."""
        self.segment = self.tcp = None
        self.frames.clear()


def wire_segments(length: int, gso_size: int) -> int:
    """For how many segments of the wire a frame stands with so much payload."""
    return (length + gso_size - 1) // gso_size if gso_size and length else 1
