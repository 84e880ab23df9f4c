"""What the kernel decides about the network, carried over to the targets: it is the single source of truth.

News only say that something has changed; what holds now, the kernel is asked.
"""

from __future__ import annotations

from typing import Protocol

from chimney.host.kernel import Flow
from chimney.host.services import Services

# A hand-over takes about a tenth of a millisecond.
_RETURNS_PER_TURN = 4


class KernelNetwork(Protocol):
    """The kernel's routes and neighbors; none of the calls waits."""

    def fileno(self) -> int:
        """The descriptor that is readable when there is news."""

    def read(self) -> bool:
        """Take in news, a bounded number of them; whether something has changed that may concern a route. News that
        were lost count as a change.
        """

    def probe(self, device_index: int, next_hop: bytes) -> None:
        """Ask a neighbor for its hardware address; the answer is news."""

    def confirm(self, flow: Flow) -> None:
        """The flow's next hop works: it has carried data to the peer, and the answer back."""

    def close(self) -> None:
        """Give the descriptors back."""


class NetworkWatch:
    """Compares what the targets have with what the kernel says, when there is news; a `chimney.host.listener.Listener`.

    It also has the connections that were withdrawn (`Connection.withdraw`) go down again.
    """

    def __init__(self, services: Services, network: KernelNetwork) -> None:
        self._services = services
        self._network = network
        self._changed = False

    def fileno(self) -> int:
        return self._network.fileno()

    def ready(self) -> None:
        if self._network.read():
            self.recheck_soon()

    def recheck_soon(self) -> None:
        """Look at the route of every offloaded connection again, from the next turn on."""
        self._changed = True

    def poll_at(self) -> int:
        return 0 if self._changed else self._services.withdrawals.poll_at()

    def run(self, now: int) -> None:
        if self._changed:
            self._changed = False
            self._services.withdrawals.try_all(now)
        for connection in self._services.withdrawals.due(now, _RETURNS_PER_TURN):
            self._services.hand_over_soon(connection, connection.come_back)

    def close(self) -> None:
        self._network.close()

