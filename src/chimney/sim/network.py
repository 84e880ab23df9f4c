"""The network between the two machines, as bad as a case says."""

from __future__ import annotations

from collections.abc import Callable

from chimney.link.base import ETHERNET_HEADER
from chimney.link.memory import MemoryLink, MemoryNetwork, Tap
from chimney.sim import case

_WELL_BEHAVED = case.Network()


class BadNetwork(MemoryNetwork):
    """A `MemoryNetwork` that a case drives. ``segments`` counts what its links have put on the wire.

    clock, seed, tap  as the MemoryNetwork's.
    network           how it behaves to begin with.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        seed: int = 0,
        network: case.Network = _WELL_BEHAVED,
        tap: Tap | None = None,
    ) -> None:
        super().__init__(clock, seed, tap=tap)
        self._mtu = 0
        self._too_big: Callable[[str, bytes], None] | None = None
        self._leads: Callable[[str, bytes], bool] | None = None
        self.change(network)

    def limit(self, mtu: int, too_big: Callable[[str, bytes], None] | None = None) -> None:
        """Lose all IP packets that are larger, and call ``too_big`` with the name of the link and the frame of each; 0:
        none is too large.
        """
        self._mtu, self._too_big = mtu, too_big
        self._choose()

    def go_by(self, leads: Callable[[str, bytes], bool]) -> None:
        """Lose frames that lead nowhere: ``leads`` is called with a link's name and a destination hardware address."""
        self._leads = leads
        self._choose()

    def _choose(self) -> None:
        self.drop_if = self._is_lost if self._mtu or self._leads is not None else None

    def _is_lost(self, link: str, frame: bytes) -> bool:
        if self._leads is not None and not self._leads(link, frame[:6]):
            return True
        if not self._mtu or len(frame) - ETHERNET_HEADER <= self._mtu:
            return False
        if self._too_big is not None:
            self._too_big(link, frame)
        return True

    def change(self, network: case.Network) -> None:
        """Behave like this from now on. What is under way arrives as it would have."""
        self.delay_us = network.delay_us
        self.jitter_us = network.jitter_us
        self.loss = network.loss
        self.burst = network.burst
        self.burst_length = network.burst_length
        self.reorder = network.reorder
        self.reorder_us = network.reorder_us
        self.duplicate = network.duplicate
        self.corrupt = network.corrupt
        self.bandwidth = network.bandwidth
        self.queue_bytes = network.queue_bytes
        self.gro = network.gro

    def behave(self) -> None:
        """From now on nothing is lost, late, twice, out of order or damaged, and there is room for everything; all
        partitions are over, and no packet is too large.
        """
        self.change(_WELL_BEHAVED)
        self.limit(0)
        self.heal()

    def inject(self, to: MemoryLink, frame: bytes) -> None:
        """Put a frame in front of a link as if it had just arrived, whatever the network is like. Its checksums are to
        be verified.
        """
        self.arrive(to, bytearray(frame))
