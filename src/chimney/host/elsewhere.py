"""Segments of offloaded connections that arrive on other interfaces than their adapter's: the host's to forward (10.7).

The kernel passes them up in sockets that stand on the other interfaces, as long as something is offloaded. During a
hand-over, in both directions, they are kept like what the adapter's tap shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from chimney.host.datagrams import received_packet
from chimney.host.errors import NotOffloadable
from chimney.host.kernel import Flow, Plan
from chimney.host.listener import NEVER
from chimney.host.segments import KeptSegment
from chimney.host.services import Services

_BATCH = 64
# Packets that a hand-over waits for at most: what comes on is left to the next turn.
_MOST = 4096
# The sockets stay for a while when nothing is offloaded any more: most connections come back.
_LINGER_US = 2_000_000

Taker = Callable[[list[KeptSegment]], None]
FourTuple = tuple[bytes, int, bytes, int]


class DeviceSockets(Protocol):
    """What hears TCP packets on network devices, as the kernel passes them up: whole, and judged by its firewall."""

    def fileno(self) -> int:
        """The descriptor that is readable while packets wait."""

    def listen(self, wanted: Mapping[int, Iterable[FourTuple]]) -> None:
        """Hear these flows on these devices, and nothing else, from now on. Raises OSError."""

    def receive(self, limit: int) -> Sequence[tuple[bytes | memoryview, int]]:
        """What has arrived, about ``limit`` packets at most: each an IP packet, and where TCP begins in it."""

    def close(self) -> None:
        """Give the descriptors back."""


class Nowhere:
    """A host that has one interface, or none yet: what a stack has before its first connection is offloaded."""

    def watch(self, plan: Plan, take: Taker) -> list[int]:
        """There is no other device."""
        return []

    def unwatch(self, flow: Flow) -> None:
        """Nothing is watched."""

    def look_again(self) -> None:
        """There is nothing to see."""

    def drain(self) -> None:
        """Nothing has arrived."""


class Elsewhere(Nowhere):
    """Hears the offloaded connections on the devices that are not their adapters'; a `Listener`.

    ``devices()`` are the numbers of the devices on which packets may arrive: all that are up, but the loopback device.
    ``observer(flow, segment)`` is told of every segment that is heard, from its TCP header on.
    """

    def __init__(self, services: Services, sockets: DeviceSockets, devices: Callable[[], list[int]]) -> None:
        self._services = services
        self._sockets = sockets
        self._list_devices = devices
        self._devices: list[int] | None = None
        # Each flow's own device, and who takes what is heard.
        self._flows: dict[Flow, tuple[int, Taker]] = {}
        self._listening = False
        self._listen_at = NEVER
        self.observer: Callable[[FourTuple, memoryview], None] | None = None

    # For the hand-over

    def watch(self, plan: Plan, take: Taker) -> list[int]:
        """Hear a connection on all devices but its own, even before it is offloaded; returns these devices. ``take`` is
        called with what has been heard, in order.

        Raises NotOffloadable.
        """
        flow = plan.flow
        self.unwatch(flow)
        if not plan.elsewhere:
            return []
        try:
            others = [index for index in self._devices_now() if index != plan.device_index]
            # What came while the kernel had the connection is the kernel's.
            self.drain()
            self._flows[flow] = plan.device_index, take
            self._listen()
        except OSError as error:
            self._flows.pop(flow, None)
            raise NotOffloadable(f"the kernel does not let us hear {flow} on other interfaces: {error}") from error
        return others

    def unwatch(self, flow: Flow) -> None:
        """The connection is the kernel's again."""
        if self._flows.pop(flow, None) is not None and self._listen_at == NEVER:
            self._listen_at = self._services.clock() + _LINGER_US

    def look_again(self) -> None:
        """Devices may have come, gone, or changed: from the next turn on, listen on those that there are."""
        self._devices = None
        if self._flows:
            self._listen_at = 0

    def drain(self) -> None:
        """Take in everything that has arrived up to now."""
        if not self._listening:
            return
        for _ in range(0, _MOST, _BATCH):
            if not self._take_in(_BATCH):
                break

    # For the stack

    def fileno(self) -> int:
        return self._sockets.fileno()

    def ready(self) -> None:
        self._take_in(_BATCH)

    def poll_at(self) -> int:
        return self._listen_at

    def run(self, now: int) -> None:
        try:
            self._devices_now()
            self._listen()
        except OSError:
            # No memory, no descriptors: it is tried again.
            self._listen_at = now + _LINGER_US

    def close(self) -> None:
        self._sockets.close()

    def _devices_now(self) -> list[int]:
        if self._devices is None:
            self._devices = self._list_devices()
        return self._devices

    def _listen(self) -> None:
        self._listen_at = NEVER
        wanted: dict[int, list[FourTuple]] = {}
        for flow, (own, _) in self._flows.items():
            four = _four_tuple(flow)
            for index in self._devices or ():
                if index != own:
                    wanted.setdefault(index, []).append(four)
        self._sockets.listen(wanted)
        self._listening = bool(wanted)

    def _take_in(self, limit: int) -> int:
        """Give what has arrived to the connections; returns how much that was."""
        packets = self._sockets.receive(limit)
        by_flow: dict[Flow, list[KeptSegment]] = {}
        for packet, tcp_offset in packets:
            segment = received_packet(packet, tcp_offset)
            # With very many flows, others are heard, too.
            if segment is not None and segment.flow in self._flows:
                by_flow.setdefault(segment.flow, []).append(segment)
        for flow, segments in by_flow.items():
            if self.observer is not None:
                for segment in segments:
                    self.observer(_four_tuple(flow), segment.tcp())
            self._flows[flow][1](segments)
        return len(packets)


def _four_tuple(flow: Flow) -> FourTuple:
    return flow.local_address, flow.local_port, flow.remote_address, flow.remote_port
