"""The link that a chimney gets on a simulated machine: what a packet socket with a ring is to `PacketLink`."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from chimney.link.base import ETHERNET_HEADER, NEVER, NO_VLAN, Flow, Frame, Link, LinkError, Statistics
from chimney.link.gso import wire_segments

if TYPE_CHECKING:
    from chimney.sim.machine import Machine

RING = 1024
"""Frames that wait to be read at most."""

SEND_BUFFER = 16384
"""Bytes that wait for a slow network before the link has no room."""

_GARBAGE = b"\xdd"


class TapLink(Link):
    """A second way into and out of a machine's NIC, beside the kernel's.

    It gets copies of the frames that its filter lets in when they arrive; what it sends, the target says. Released
    frames are overwritten.
    """

    def __init__(self, machine: Machine, descriptor: int) -> None:
        super().__init__(machine.device, machine.nic.mac, machine.nic.mtu)
        self._machine = machine
        self._descriptor = descriptor
        self._waiting: deque[Frame] = deque()
        self._lent: list[Frame] = []
        self._keys: frozenset[bytes] | None = frozenset()
        self._refused_now = False
        self._closed = False
        self._dead = False
        self._received_frames = 0
        self._received_bytes = 0
        self._drops = 0
        self._sent_frames = 0
        self._sent_bytes = 0
        self._refused = 0

    def arrived(self, key: bytes | None, data: bytes, vlan: int, checksum_ok: bool, gso_size: int) -> None:
        """A frame has reached the NIC; ``key`` is its flow as `chimney.sim.machine.flow_key` has it."""
        if self._dead or (self._keys is not None and key not in self._keys):
            return
        if len(self._waiting) + len(self._lent) >= RING:
            self._drops += 1
            return
        self._waiting.append(Frame(memoryview(bytearray(data)), vlan, checksum_ok, gso_size))

    def dies(self) -> None:
        """Neither hear nor say anything from now on, and nobody is told."""
        self._dead = True
        self._waiting.clear()

    def fileno(self) -> int:
        return self._descriptor

    def pending(self) -> int:
        return len(self._waiting)

    @property
    def readable(self) -> bool:
        """Whether its descriptor would be."""
        return bool(self._waiting or self._lent)

    def writable_at(self) -> int:
        """When it has room, after it has refused something; NEVER if it has refused nothing."""
        if not self._refused_now:
            return NEVER
        machine = self._machine
        network = machine.network
        now: int = machine.clock()
        if not network.bandwidth:
            return now
        excess = network.waiting(machine.nic) - SEND_BUFFER
        return now + (excess * 8_000_000 // network.bandwidth + 1 if excess > 0 else 0)

    def receive(self, limit: int) -> list[Frame]:
        self.release()
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        waiting, lent = self._waiting, self._lent
        while waiting and len(lent) < limit:
            frame = waiting.popleft()
            self._received_bytes += len(frame.data)
            lent.append(frame)
        self._received_frames += len(lent)
        return list(lent)

    def release(self) -> None:
        for frame in self._lent:
            frame.data[:] = _GARBAGE * len(frame.data)
        self._lent.clear()

    def send(
        self,
        header: bytes | bytearray | memoryview,
        payload: list[memoryview],
        csum_start: int,
        csum_offset: int,
        gso_size: int,
        gso_ipv6: bool,
        vlan: int = NO_VLAN,
    ) -> bool:
        machine = self._machine
        if self._closed or machine.dead:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        if machine.down:
            raise LinkError(errno.ENETDOWN, f"{self.name}: the network interface is down")
        if self._has_no_room():
            self._refused += 1
            self._refused_now = True
            return False
        self._refused_now = False
        segments = wire_segments(header, payload, csum_start, csum_offset, gso_size, gso_ipv6)
        mtu = machine.nic.mtu
        packet = len(segments[0]) - ETHERNET_HEADER
        if packet > mtu and not gso_size:
            raise LinkError(errno.EMSGSIZE, f"{self.name}: a packet of {packet} bytes exceeds the MTU of {mtu}")
        self._sent_frames += 1
        for segment in segments:
            self._sent_bytes += len(segment)
            # What a device is to cut into pieces that are too large, it loses.
            if len(segment) - ETHERNET_HEADER <= mtu and not self._dead:
                machine.transmit("target", segment, vlan)
        return True

    def _has_no_room(self) -> bool:
        network = self._machine.network
        return bool(network.bandwidth) and network.waiting(self._machine.nic) > SEND_BUFFER

    def writable(self) -> bool:
        if self._closed:
            raise LinkError(errno.EBADF, f"{self.name}: the link is closed")
        return not self._has_no_room()

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        self._keys = None if flows is None else frozenset(map(key_of, flows))

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            self._received_frames, self._received_bytes, self._drops, self._sent_frames, self._sent_bytes, self._refused
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.release()
            self._waiting.clear()
            self._machine.taps.remove(self)


def key_of(flow: Flow) -> bytes:
    """A flow as received packets have it: both addresses and both ports, the other side's first."""
    return b"".join(
        (
            flow.remote_address,
            flow.local_address,
            flow.remote_port.to_bytes(2, "big"),
            flow.local_port.to_bytes(2, "big"),
        )
    )


def flow_key(packet: bytes, at: int = 0) -> bytes | None:
    """The same from a received IP packet that begins at ``at``; None for what is no TCP, a fragment, or behind IPv6
    extension headers.
    """
    first = packet[at] if len(packet) > at else 0
    if first == 0x45:
        if packet[at + 9] == 6 and not (packet[at + 6] & 0x3F or packet[at + 7]):
            return packet[at + 12 : at + 24]
    elif first >> 4 == 6:
        if packet[at + 6] == 6:
            return packet[at + 8 : at + 44]
    elif first >> 4 == 4 and packet[at + 9] == 6 and not (packet[at + 6] & 0x3F or packet[at + 7]):
        ports = at + (first & 15) * 4
        return packet[at + 12 : at + 20] + packet[ports : ports + 4]
    return None
