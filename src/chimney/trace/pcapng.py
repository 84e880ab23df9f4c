"""Packets in a file that Wireshark, tshark and tcpdump read: pcapng (draft-ietf-opsawg-pcapng, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack
from typing import BinaryIO

_SECTION_HEADER, _INTERFACE, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_UNKNOWN_LENGTH = -1
_ETHERNET = 1
_NO_LIMIT = 0
# Options: every block's, then those of its kind.
_END_OF_OPTIONS, _COMMENT = 0, 1
_SECTION_APPLICATION = 4
_INTERFACE_NAME, _INTERFACE_DESCRIPTION, _INTERFACE_RESOLUTION = 2, 3, 9
_PACKET_FLAGS = 2
_INBOUND, _OUTBOUND = 1, 2
_MICROSECONDS = 6  # decimal places of a second
_LONGEST_OPTION = 0xFFFF


class PcapngWriter:
    """Writes Ethernet frames, with microsecond time stamps, to a binary file that it does not close.

    file         opened for writing; it need not be seekable.
    application  what has made the file, for its readers.
    """

    def __init__(self, file: BinaryIO, application: str = "chimney") -> None:
        self._file = file
        self._interfaces = 0
        body = pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
        self._write(_SECTION_HEADER, body, [(_SECTION_APPLICATION, application.encode())])

    def interface(self, name: str, description: str = "") -> int:
        """Describe an interface; returns the number that its packets go by."""
        options = [(_INTERFACE_NAME, name.encode())]
        if description:
            options.append((_INTERFACE_DESCRIPTION, description.encode()))
        options.append((_INTERFACE_RESOLUTION, bytes([_MICROSECONDS])))
        self._write(_INTERFACE, pack("<HHI", _ETHERNET, 0, _NO_LIMIT), options)
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        at: int,
        frame: bytes | bytearray | memoryview,
        *,
        outbound: bool | None = None,
        comments: Iterable[str] = (),
    ) -> None:
        """Write a packet.

        interface  what `interface` returned: ValueError for another number.
        at         microseconds since the epoch.
        frame      from its destination address on, its VLAN tag included.
        outbound   whether the interface has sent it, or received it; None: nobody knows.
        comments   for its readers, each cut to 64 KiB.
        """
        if not 0 <= interface < self._interfaces:
            raise ValueError(f"there is no interface {interface}: describe it first")
        options = [(_COMMENT, comment.encode()) for comment in comments]
        if outbound is not None:
            options.append((_PACKET_FLAGS, pack("<I", _OUTBOUND if outbound else _INBOUND)))
        size = len(frame)
        body = pack("<IIIII", interface, at >> 32, at & 0xFFFFFFFF, size, size) + bytes(frame) + bytes(-size % 4)
        self._write(_ENHANCED_PACKET, body, options)

    def _write(self, kind: int, body: bytes, options: list[tuple[int, bytes]]) -> None:
        for code, value in options:
            if len(value) > _LONGEST_OPTION:
                value = value[:_LONGEST_OPTION].decode(errors="ignore").encode()
            body += pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
        if options:
            body += pack("<HH", _END_OF_OPTIONS, 0)
        # The length stands at both ends, so that files can be read backwards.
        length = pack("<I", 12 + len(body))
        self._file.write(b"".join((pack("<I", kind), length, body, length)))


class Capture:
    """A file of what a `chimney.link.memory.MemoryNetwork` carries, for its ``tap``.

    Every link is an interface of its own: a packet stands in the file where it has been sent, and again where it has
    arrived, so that what was lost on the way stands there once (Wireshark: ``frame.interface_name == "a"``).
    """

    def __init__(self, file: BinaryIO) -> None:
        self._writer = PcapngWriter(file)
        self._interfaces: dict[str, int] = {}
        self._remarks: list[str] = []

    def tap(self, at: int, link: str, direction: str, frame: bytes) -> None:
        """One packet, as `chimney.link.memory.Tap` says."""
        if link not in self._interfaces:
            self._interfaces[link] = self._writer.interface(link)
        remarks, self._remarks = self._remarks, []
        self._writer.packet(self._interfaces[link], at, frame, outbound=direction == "out", comments=remarks)

    def remark(self, text: str) -> None:
        """Something worth knowing: a comment of the next packet."""
        self._remarks.append(text)
