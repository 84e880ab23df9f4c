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
# Rounds that follow each other sooner have longer and longer pauses between them, up to that.
_CALM_US = 1_000_000


class NetworkWatch:
    """Compares what the targets have with what the kernel says, when there is news; a `chimney.host.listener.Listener`.

    A *round* looks at every offloaded connection, some in each turn; then `Steering` acts on what was found. It acts on
    the same findings again when what it has started has completed, until the targets have what the kernel says. The
    connections that were withdrawn (`Connection.withdraw`) are tried again here, too.
    """

    def __init__(self, services: Services, network: KernelNetwork) -> None:
        self._services = services
        self._network = network
        self._steering = Steering(services, network)
        self._reachability = Reachability(services, network)
        self._queue: deque[Connection] = deque()
        self._found: dict[Connection, Finding] = {}
        # An adapter's first connection was looked at before there was somebody to hear news.
        self._dirty = True
        self._unsettled = False
        self._whole = False
        self._took = 0
        self._pauses = 0
        self._not_before = 0
        self._regular_at = 0
        self._awaited: set[NeighborKey] = set()
        services.on_adapter.append(self._meet)

    def _meet(self, adapter: Adapter) -> None:
        """There is another adapter, maybe in place of one whose interface has gone, and whose binding is closed."""
        open_ones = [edge for edge in self._steering.edges if edge.binding is not None]
        self._steering.edges = [*open_ones, adapter.edge]
        adapter.edge.upkeep.changed = self._act_again
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

    def _act_again(self) -> None:
        """Something that was started has completed."""
        self._unsettled = True

    def may_have_shrunk(self, connection: Connection) -> None:
        """A connection's path may take smaller packets only, now: what was lost for that shall not wait for a round."""
        # It may have left since somebody doubted it, and its socket may be closed.
        plan = _where(connection)[0] if connection.owner is Owner.TARGET else None
        if plan is not None:
            self._steering.shrink(connection, plan)
        self.recheck_soon()

    def poll_at(self) -> int:
        if self._queue or self._unsettled:
            return 0
        services, steering = self._services, self._steering
        at = services.withdrawals.poll_at()
        if services.offloaded:
            at = min(at, steering.act_at, self._reachability.poll_at())
        if self._dirty:
            # Whatever else is a reason for a round, it has to wait as long.
            return min(at, self._not_before)
        return min(at, steering.look_at, self._regular_at) if services.offloaded else at

    def run(self, now: int) -> None:
        if self._services.offloaded:
            self._reachability.run(now)
        if now >= min(self._regular_at, self._steering.look_at):
            self._dirty = True
        if now >= self._steering.act_at:
            self._unsettled = True
        if self._queue:
            self._look()
        elif self._dirty and now >= self._not_before:
            self._dirty = False
            self._begin(list(self._services.offloaded.values()), now, whole=True)
        elif self._unsettled:
            self._begin([c for c in self._services.offloaded.values() if not self._is_known(c)], now, whole=False)
        for connection in self._services.withdrawals.due(now, _RETURNS_PER_TURN):
            self._try_again(connection, now)

    def _is_known(self, connection: Connection) -> bool:
        """Whether it was looked at since it has been down."""
        found = self._found.get(connection)
        return found is not None and found.chimney is connection.chimney

    def _begin(self, connections: list[Connection], now: int, whole: bool) -> None:
        """A round, over everybody or over those who have come since the last one."""
        if whole and now >= self._not_before + _CALM_US:
            self._pauses = 0
        self._took, self._whole = 0, whole
        self._unsettled = False
        self._queue.extend(connections)
        self._look()

    def _look(self) -> None:
        """Look at some of the round's connections, and act when it was the last one."""
        began = self._services.clock()
        for _ in range(min(_LOOKS_PER_TURN, len(self._queue))):
            connection = self._queue.popleft()
            if connection.owner is Owner.TARGET:
                self._found[connection] = Finding(connection, connection.chimney, *_where(connection))
        self._took += self._services.clock() - began
        if not self._queue:
            self._end_round()

    def _end_round(self) -> None:
        here = [connection for connection in self._services.offloaded.values() if self._is_known(connection)]
        self._found = {connection: self._found[connection] for connection in here}
        now = self._services.clock()
        if self._whole:
            self._not_before = now + self._pauses * self._took
            self._pauses = min(2 * self._pauses + 1, _SHARE)
            self._regular_at = now + max(_REGULAR_US, _REGULAR_SHARE * self._took)
        self._steering.settle(list(self._found.values()), now)

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
