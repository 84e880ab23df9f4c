"""What the kernel decides about the network, carried over to the targets: it is the single source of truth.

News only say that something has changed; what holds now, the kernel is asked (`KernelSide.where`). There are no news
of a path MTU that it has learnt or forgotten: now and then everything is looked at without any.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from chimney.host.errors import NotOffloadable
from chimney.host.hand_over import Owner
from chimney.host.kernel import Plan
from chimney.host.kernel_network import KernelNetwork, NeighborKey
from chimney.host.reachability import Reachability
from chimney.host.services import Adapter, Services
from chimney.host.steering import Finding, Steering

if TYPE_CHECKING:
    from chimney.host.connection import Connection

# A look takes about a tenth of a millisecond, a hand-over as long.
_LOOKS_PER_TURN = 16
_RETURNS_PER_TURN = 4
# Between two rounds without news, and how much of the time rounds may take: with news, and without.
_REGULAR_US = 10_000_000
_SHARE, _REGULAR_SHARE = 10, 100


class NetworkWatch:
    """Compares what the targets have with what the kernel says, when there is news; a `chimney.host.listener.Listener`.

    A *round* looks at every offloaded connection, some in each turn; then `Steering` acts on what was found. What has
    been started is looked at again when it has completed: there is no state but the kernel's and the targets'. The
    connections that were withdrawn (`Connection.withdraw`) are tried again here, too.
    """

    def __init__(self, services: Services, network: KernelNetwork) -> None:
        self._services = services
        self._network = network
        self._steering = Steering(services, network)
        self._reachability = Reachability(services, network)
        self._queue: deque[Connection] = deque()
        self._findings: list[Finding] = []
        # An adapter's first connection was looked at before there was somebody to hear news.
        self._dirty = True
        self._began = 0
        self._not_before = 0
        self._regular_at = 0
        self._awaited: set[NeighborKey] = set()
        services.on_adapter.append(self._meet)

    def _meet(self, adapter: Adapter) -> None:
        """There is another adapter."""
        self._steering.edges.append(adapter.edge)
        adapter.edge.upkeep.changed = self.recheck_soon
        adapter.edge.reachability = lambda neighbor, nrd: self._reachability.answer(adapter.edge, neighbor, nrd)
        self.recheck_soon()

    def fileno(self) -> int:
        return self._network.fileno()

    def ready(self) -> None:
        if self._network.read(self._steering.neighbors | self._awaited):
            self.recheck_soon()
            self._services.elsewhere.look_again()
            self._awaited.clear()
            self._services.withdrawals.try_all(self._services.clock())

    def recheck_soon(self) -> None:
        """Look at the route of every offloaded connection again, from the next turn on."""
        self._dirty = True

    def may_have_shrunk(self, connection: Connection) -> None:
        """A connection's path may take smaller packets only, now: what was lost for that shall not wait for a round."""
        plan, _ = _where(connection)
        if plan is not None and connection.owner is Owner.TARGET:
            self._steering.shrink(connection, plan)
        self.recheck_soon()

    def poll_at(self) -> int:
        if self._queue:
            return 0
        services = self._services
        at = services.withdrawals.poll_at()
        if services.offloaded:
            at = min(at, self._steering.look_at, self._regular_at, self._reachability.poll_at())
        return min(at, self._not_before) if self._dirty else at

    def run(self, now: int) -> None:
        if self._services.offloaded:
            self._reachability.run(now)
        if now >= min(self._regular_at, self._steering.look_at):
            self._dirty = True
        if self._dirty and not self._queue and now >= self._not_before:
            self._dirty = False
            self._began = now
            self._queue.extend(self._services.offloaded.values())
            if not self._queue:
                self._end_round()
        if self._queue:
            self._look()
        for connection in self._services.withdrawals.due(now, _RETURNS_PER_TURN):
            self._try_again(connection, now)

    def _look(self) -> None:
        """Look at some of the round's connections, and act when it was the last one."""
        for _ in range(min(_LOOKS_PER_TURN, len(self._queue))):
            connection = self._queue.popleft()
            if connection.owner is Owner.TARGET:
                self._findings.append(Finding(connection, *_where(connection)))
        if not self._queue:
            self._end_round()

    def _end_round(self) -> None:
        findings, self._findings = self._findings, []
        now = self._services.clock()
        took = now - self._began
        self._not_before = now + _SHARE * took
        self._regular_at = now + max(_REGULAR_US, _REGULAR_SHARE * took)
        self._steering.settle(findings, now)

    def _try_again(self, connection: Connection, now: int) -> None:
        """A withdrawn connection may go down again: without waiting for anybody."""
        if connection.owner is Owner.KERNEL:
            plan, why = _where(connection)
            if plan is not None and not plan.neighbor_mac:
                key = plan.device_index, plan.next_hop
                if key not in self._awaited:
                    self._awaited.add(key)
                    self._network.probe(key)
                why = "the next hop does not answer yet"
            if why:
                self._services.withdrawals.failed(connection, why, now)
                return
        self._services.hand_over_soon(connection, connection.come_back)

    def close(self) -> None:
        self._network.close()


def _where(connection: Connection) -> tuple[Plan | None, str]:
    """Where a connection's packets go, or why they go nowhere."""
    try:
        return connection.kernel.where(), ""
    except NotOffloadable as reason:
        return None, str(reason)
