"""Whether next hops are still there: what the kernel believes, and what the targets see (11.2, RFC 4861 section 7.3).

The kernel no longer sees the traffic, and the targets do not see ARP and neighbor discovery: each asks the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from chimney.host.edge import HostEdge
from chimney.host.hand_over import Owner
from chimney.host.kernel_network import KernelNetwork, NeighborKey, NeighborState
from chimney.host.listener import NEVER
from chimney.host.objects import NeighborRecord
from chimney.host.services import Services
from chimney.host.upkeep import may_query

if TYPE_CHECKING:
    from chimney.host.connection import Connection

TICK_US = 1000
"""The documents' tick, as long as the host sets no other."""
# RFC 4861, 10: DELAY_FIRST_PROBE_TIME.
_DELAY_US = 5_000_000
# Retransmissions are looked at so often; a neighbor that has made no progress for so long meanwhile is doubted, and not
# again for a while. One that has made some is told to the kernel now and then.
_LOOK_US = 1_000_000
_NO_PROGRESS_US = 1_000_000
_DOUBT_PAUSE_US = 10_000_000
_CONFIRM_US = 10_000_000
_LOOKS = 1000


@dataclass(slots=True)
class _Question:
    """A target has asked about a neighbor that the kernel has no fresh proof of: what it said, and when it is asked."""

    edge: HostEdge
    nrd: int
    at: int


class Reachability:
    """Answers the targets' NeighborReachabilityQuery, and tells the kernel of progress and of doubt."""

    def __init__(self, services: Services, network: KernelNetwork) -> None:
        self._services = services
        self._network = network
        self._questions: dict[NeighborRecord, _Question] = {}
        self._look_at = 0
        self._confirm_at = 0
        self._first = 0
        self._retransmitted: dict[Connection, int] = {}
        self._doubted: dict[NeighborKey, int] = {}

    def answer(self, edge: HostEdge, neighbor: NeighborRecord, nrd: int) -> int:
        """HRD for a target whose last proof is ``nrd`` ticks old: ticks since the kernel's own; 0 if that is stale, and
        the target is asked again a little later (11.2).
        """
        view = self._network.neighbor(_key(neighbor))
        if view.state is NeighborState.REACHABLE:
            return max(1, view.confirmed_us // TICK_US)
        self._questions.setdefault(neighbor, _Question(edge, nrd, self._services.clock() + _DELAY_US))
        return 0

    def poll_at(self) -> int:
        """When `run` is due while something is offloaded, in microseconds of the stack's clock."""
        # Asked in every turn.
        if not self._questions:
            return self._look_at
        return min([self._look_at, *(question.at for question in self._questions.values())], default=NEVER)

    def run(self, now: int) -> None:
        """Do what is due."""
        for neighbor, question in list(self._questions.items()):
            if question.at <= now:
                del self._questions[neighbor]
                self._ask_target(question, neighbor)
        if self._look_at <= now:
            self._look_at = now + _LOOK_US
            self._look(now)

    def _ask_target(self, question: _Question, neighbor: NeighborRecord) -> None:
        """Has there been progress since the target asked? Otherwise the kernel probes (11.2)."""

        def told(nrd: int) -> None:
            if nrd < question.nrd:
                self._network.confirm(_key(neighbor))
            else:
                self._network.probe(_key(neighbor))

        if _may_query(neighbor):
            question.edge.upkeep.query_reachability(neighbor, told)

    def _look(self, now: int) -> None:
        """Which neighbors have connections that retransmit? Some thousand connections are looked at each time."""
        offloaded = self._services.offloaded
        count = len(offloaded)
        confirming = now >= self._confirm_at
        if confirming:
            self._confirm_at = now + _CONFIRM_US
        if self._first >= count:
            self._first = 0
            self._retransmitted = {c: n for c, n in self._retransmitted.items() if c.owner is Owner.TARGET}
        neighbors: dict[NeighborRecord, tuple[HostEdge, bool]] = {}
        for connection in islice(offloaded.values(), self._first, self._first + _LOOKS):
            chimney = connection.chimney
            if connection.owner is not Owner.TARGET or chimney is None:
                continue
            total = connection.hand_over.retransmitted
            before = self._retransmitted.get(connection, total)
            self._retransmitted[connection] = total
            neighbor = chimney.record.path.neighbor
            doubtful = total > before or neighbors.get(neighbor, (None, False))[1]
            if doubtful or confirming:
                neighbors[neighbor] = chimney.edge, doubtful
        self._first += _LOOKS
        for neighbor, (edge, doubtful) in neighbors.items():
            self._judge(edge, neighbor, doubtful, now)

    def _judge(self, edge: HostEdge, neighbor: NeighborRecord, doubtful: bool, now: int) -> None:
        """Progress is told to the kernel; retransmissions without any are a reason to probe at once."""
        key = _key(neighbor)

        def told(nrd: int) -> None:
            since = nrd * TICK_US
            if since < _NO_PROGRESS_US or (not doubtful and since < _CONFIRM_US):
                self._network.confirm(key)
            elif doubtful and now >= self._doubted.get(key, 0):
                self._doubted = {k: at for k, at in self._doubted.items() if at > now}
                self._doubted[key] = now + _DOUBT_PAUSE_US
                self._network.probe(key)

        if _may_query(neighbor):
            edge.upkeep.query_reachability(neighbor, told)


def _may_query(neighbor: NeighborRecord) -> bool:
    """Whether the target has the neighbor, and keeps it for now."""
    return neighbor.offloaded and may_query(neighbor) and any(neighbor.cached.dl_destination_address)


def _key(neighbor: NeighborRecord) -> NeighborKey:
    return neighbor.device_index, neighbor.next_hop
