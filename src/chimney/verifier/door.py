"""The link's door: every frame that a target sends or receives, shown to the verifier on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chimney.link.base import NO_VLAN, Flow, Frame, Link, Statistics
from chimney.verifier.packets import Packet, checksums_hold, parse


class WatchedLink(Link):
    """A link in front of another one: what passes is reported, and nothing else changes.

    report(packet) is called with a frame received before the target sees it, and with one sent once the link has
    answered; polled(name) whenever the target asks for frames: it has dealt with those before, most likely.
    ``lost``: it could not be read the last time.
    """

    def __init__(self, link: Link, next_number: Callable[[], int], clock: Callable[[], int]) -> None:
        super().__init__(link.name, link.mac, link.mtu)
        self.inner = link
        self.report: Callable[[Packet], None] = lambda packet: None
        self.polled: Callable[[str], None] = lambda name: None
        self._number = next_number
        self._clock = clock
        self.lost = False

    def fileno(self) -> int:
        return self.inner.fileno()

    def pending(self) -> int:
        return self.inner.pending()

    def current_mtu(self) -> int:
        self.mtu = self.inner.current_mtu()
        return self.mtu

    def is_gone(self) -> bool:
        return self.inner.is_gone()

    def receive(self, limit: int) -> list[Frame]:
        self.polled(self.name)
        # Until it has been read.
        self.lost = True
        frames = self.inner.receive(limit)
        self.lost = False
        for frame in frames:
            packet = Packet(
                self._number(),
                self._clock(),
                self.name,
                True,
                vlan=frame.vlan,
                gso_size=frame.gso_size,
                interface=self.mac,
            )
            parse(packet, frame.data)
            packet.checksum_ok = frame.checksum_ok or checksums_hold(frame.data)
            packet.acts = packet.checksum_ok and not packet.ip_options
            self.report(packet)
        return frames

    def release(self) -> None:
        self.inner.release()

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
        packet = Packet(
            self._number(),
            self._clock(),
            self.name,
            False,
            vlan=vlan,
            gso_size=gso_size,
            interface=self.mac,
            parts=list(payload),
            sent=False,
        )
        parse(packet, memoryview(header))
        try:
            packet.sent = self.inner.send(header, payload, csum_start, csum_offset, gso_size, gso_ipv6, vlan)
        except OSError:
            packet.lost = True
            raise
        finally:
            self.report(packet)
        return packet.sent

    def writable(self) -> bool:
        return self.inner.writable()

    def set_filter(self, flows: Iterable[Flow] | None) -> None:
        self.inner.set_filter(flows)

    @property
    def statistics(self) -> Statistics:
        return self.inner.statistics

    def close(self) -> None:
        self.inner.close()
