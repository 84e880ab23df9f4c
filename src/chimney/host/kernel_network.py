"""What the host stack needs from the kernel besides its connections: news of the network, and its neighbors.

`host.linux.monitor` implements this on rtnetlink; a simulator implements it as a model.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

NeighborKey = tuple[int, bytes]
"""A neighbor as the kernel knows it: the device's index, and the next hop's address."""


class NeighborState(Enum):
    """What the kernel thinks of a neighbor (RFC 4861, 7.3.2).

    DOUBTED: it is used without proof, or being probed. UNKNOWN: there is no address, or none yet.
    """

    UNKNOWN = 0
    REACHABLE = 1
    STALE = 2
    DOUBTED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class NeighborView:
    """One entry of the kernel's neighbor table. ``confirmed_us`` microseconds ago it had proof that the neighbor works.
    """

    state: NeighborState
    confirmed_us: int


class KernelNetwork(Protocol):
    """The kernel's news, and its neighbors; none of the calls waits for anybody but the kernel."""

    def fileno(self) -> int:
        """The descriptor that is readable when there is news."""

    def read(self, neighbors: Container[NeighborKey]) -> bool:
        """Take in news, a bounded number of them; whether something has changed that may concern a route, or one of
        these neighbors. News that were lost count as a change.
        """

    def neighbor(self, key: NeighborKey) -> NeighborView:
        """What the kernel thinks of a neighbor now."""

    def probe(self, key: NeighborKey) -> None:
        """Have the kernel find out at once whether a neighbor is there, and what its hardware address is; the answer
        is news.
        """

    def confirm(self, key: NeighborKey) -> None:
        """The neighbor works: it has carried data to a peer, and the answer back."""

    def close(self) -> None:
        """Give the descriptors back."""
