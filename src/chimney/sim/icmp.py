"""What routers say about packets that were too big, as a host hears it that follows its kernel."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from chimney.host.icmp import IcmpMessage, parse_ipv4, parse_ipv6
from chimney.link.base import ETHERNET_HEADER

if TYPE_CHECKING:
    from chimney.sim.machine import Machine

_KEPT = 256
# A router quotes what fits into a small packet; the sequence number is among it.
_QUOTED = 128
_SENDER = {4: bytes([192, 0, 2, 1]), 6: b"\x20\x01\x0d\xb8" + bytes(11) + b"\1"}


def too_big(frame: bytes, mtu: int) -> IcmpMessage | None:
    """What a router says that could not forward the packet in ``frame``, as the host reads it."""
    packet = frame[ETHERNET_HEADER:]
    quoted, version = packet[:_QUOTED], packet[0] >> 4
    if version == 6:
        said = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
        return parse_ipv6(_SENDER[6], memoryview(said))
    said = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(said), 0, 0, 64, 1, 0) + _SENDER[4] + packet[12:16]
    return parse_ipv4(memoryview(header + said))


class SimIcmp:
    """Implements `chimney.host.icmp_watch.IcmpSource` on a machine."""

    def __init__(self, machine: Machine) -> None:
        self._surroundings = machine.surroundings
        self._descriptor = machine.descriptor()
        self._heard: list[IcmpMessage] = []
        self._hears = True
        self._surroundings.too_big_heard = self._hear

    def _hear(self, message: IcmpMessage) -> None:
        if self._hears and len(self._heard) < _KEPT:
            self._heard.append(message)

    @property
    def readable(self) -> bool:
        """Whether there is something to read."""
        return bool(self._heard)

    def fileno(self) -> int:
        return self._descriptor

    def listen(self, on: bool) -> None:
        self._hears = on

    def read(self, most: int) -> tuple[int, list[IcmpMessage]]:
        heard, self._heard = self._heard[:most], self._heard[most:]
        return len(heard), heard

    def close(self) -> None:
        self._surroundings.too_big_heard = None
        self._heard.clear()
