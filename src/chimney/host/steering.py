"""What is to be done when a target's objects and the kernel's routes differ: update, relink, invalidate, or take back.

One step at a time: whatever is started here is asynchronous, and when it has completed everything is looked at again.

- The next hop has another hardware address: update the neighbor. The path MTU is another one: update the path (9.5).
- The next hop is another one, or our own hardware address: offload the new neighbor, relink the paths, take the old
  one back (9.5, *Next-hop change*).
- There is no route any more, or the next hop does not answer: invalidate the neighbor (9.7). If the way is back within
  a while, its paths are relinked to a new neighbor; if it is not, the kernel gets the connections.
- Another device: the kernel gets the connection, and it goes down again over the other adapter.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chimney.host.edge import HostEdge
from chimney.host.errors import NotOffloadable
from chimney.host.hand_over import Owner
from chimney.host.kernel import Plan
from chimney.host.kernel_network import KernelNetwork, NeighborKey, NeighborState
from chimney.host.listener import NEVER
from chimney.host.objects import NeighborRecord, PathRecord, Record
from chimney.host.services import Services
from chimney.host.upkeep import is_busy
from chimney.ndis.state import NeighborCached

if TYPE_CHECKING:
    from chimney.host.chimney_path import ChimneyPath
    from chimney.host.connection import Connection

GRACE_US = 5_000_000
"""How long connections wait below for a way that is gone, silently, before the kernel gets them."""
# After three broadcasts, a second apart, the kernel says that a neighbor does not answer.
_ANSWER_US = 5_000_000
_ASK_AGAIN_US = 1_000_000
# A hand-over is over by then.
_BUSY_US = 10_000


@dataclass(slots=True)
class Finding:
    """Where the packets of a connection go, as the kernel says: ``plan``, or None and ``why``. ``chimney`` is the
    connection's stay below for which it was asked.
    """

    connection: Connection
    chimney: ChimneyPath | None
    plan: Plan | None
    why: str


class Steering:
    """Acts on findings.

    edges      the host's, on all adapters.
    neighbors  those that somebody goes by or is to go by.
    look_at    when another look is due without any news, ``act_at``: when to act on the same findings again, because
               something was busy; in microseconds of the stack's clock.
    """

    def __init__(self, services: Services, network: KernelNetwork) -> None:
        self._services = services
        self._network = network
        self.edges: list[HostEdge] = []
        self.neighbors: set[NeighborKey] = set()
        self.look_at = self.act_at = NEVER
        # When a neighbor whose hardware address is not known was asked for it; when one was invalidated.
        self._asked: dict[NeighborKey, int] = {}
        self._invalid_since: dict[NeighborRecord, int] = {}
        # Neighbors that paths are to be moved to.
        self._wanted: set[NeighborRecord] = set()
        self._now = 0

    def settle(self, findings: list[Finding], now: int) -> None:
        """Start whatever brings the targets nearer to what the kernel says."""
        self._now = now
        self.look_at = self.act_at = NEVER
        self.neighbors = set()
        self._wanted = set()
        below: dict[HostEdge, dict[PathRecord, list[Finding]]] = defaultdict(lambda: defaultdict(list))
        for finding in findings:
            connection, chimney = finding.connection, finding.chimney
            # It may have left since it was looked at.
            if chimney is not None and connection.owner is Owner.TARGET and connection.chimney is chimney:
                below[chimney.edge][chimney.record.path].append(finding)
        for edge, paths in below.items():
            self._adapter(edge, paths)
        for edge in self.edges:
            edge.upkeep.take_back_unused(self._wanted)
        used = {path.neighbor for paths in below.values() for path in paths}
        self._invalid_since = {n: at for n, at in self._invalid_since.items() if n in used}
        self._asked = {key: at for key, at in self._asked.items() if key in self.neighbors}

    def shrink(self, connection: Connection, plan: Plan) -> None:
        """Tell the target of a smaller path MTU, if nothing else has changed on the connection's way."""
        assert connection.chimney is not None
        edge, path = connection.chimney.edge, connection.chimney.record.path
        same_way = edge.objects.key_of(plan) == path.neighbor.key and not path.refused
        if same_way and plan.path_mtu < path.cached.path_mtu and not is_busy(path):
            edge.upkeep.update_path(path, plan.path_mtu, lambda taken: self._refuse([path], taken))

    def _adapter(self, edge: HostEdge, paths: dict[PathRecord, list[Finding]]) -> None:
        lost: list[PathRecord] = []
        moves: dict[object, list[tuple[PathRecord, Plan]]] = defaultdict(list)
        for path, findings in paths.items():
            self.neighbors.add((path.neighbor.device_index, path.neighbor.next_hop))
            staying = self._staying(edge, findings)
            if path.refused:
                self._withdraw(findings, "the target does not take a change of its path")
            elif all(finding.plan is None for finding in findings):
                lost.append(path)
            elif not staying:
                # They are on their way to another adapter.
                continue
            elif path.neighbor.invalid or edge.objects.key_of(staying[0]) != path.neighbor.key:
                moves[edge.objects.key_of(staying[0])].append((path, staying[0]))
            else:
                self._update(edge, path, staying)
        for move in moves.values():
            self._move(edge, move, paths)
        self._silence(edge, lost, paths)
        for path, findings in paths.items():
            self._give_up(path, findings)

    def _staying(self, edge: HostEdge, findings: list[Finding]) -> list[Plan]:
        """The plans of the connections of one path that can go on below, together; the others are withdrawn.

        Routes may differ between connections with the same addresses (marks, ports), but a path has one neighbor.
        """
        staying: list[Plan] = []
        for finding in findings:
            connection, plan = finding.connection, finding.plan
            before = connection.hand_over.plan
            if plan is None or before is None:
                continue
            if (plan.device, plan.device_index) != (before.device, before.device_index):
                connection.withdraw(f"its packets leave through {plan.device} now, not {before.device}", soon=True)
            elif staying and edge.objects.key_of(plan) != edge.objects.key_of(staying[0]):
                connection.withdraw("its packets take another way than those of its neighbors now", soon=True)
            else:
                staying.append(plan)
        if staying:
            for finding in findings:
                if finding.plan is None:
                    finding.connection.withdraw(finding.why)
        return staying

    # A neighbor that stays

    def _update(self, edge: HostEdge, path: PathRecord, plans: list[Plan]) -> None:
        neighbor, mac = path.neighbor, plans[0].neighbor_mac
        for plan in plans:
            self.look_at = min(self.look_at, plan.path_mtu_until)
        if not mac:
            if not self._answers(neighbor):
                self._invalidate(edge, neighbor)
            return
        key = neighbor.device_index, neighbor.next_hop
        # One that has been away is told of even if it is the same: what waits for a time-out need not.
        news = key in self._asked or mac != neighbor.cached.dl_destination_address
        if news and self._is_free(neighbor):
            self._asked.pop(key, None)
            edge.upkeep.update_neighbor(neighbor, mac, lambda taken: self._refuse(list(neighbor.paths), taken))
        mtu = min(plan.path_mtu for plan in plans)
        if mtu != path.cached.path_mtu and self._is_free(path):
            edge.upkeep.update_path(path, mtu, lambda taken: self._refuse([path], taken))

    def _refuse(self, paths: list[PathRecord], taken: bool) -> None:
        """What could not be changed is taken back (update.failure.host)."""
        for path in paths:
            path.refused = path.refused or not taken

    def _answers(self, neighbor: NeighborRecord) -> bool:
        """Whether a neighbor whose hardware address the kernel has lost may still answer; it is asked, once."""
        key = neighbor.device_index, neighbor.next_hop
        asked = self._asked.get(key)
        if asked is None:
            self._ask(key)
            return True
        self.look_at = min(self.look_at, asked + _ANSWER_US)
        return self._now < asked + _ANSWER_US and not self._has_failed(key)

    def _ask(self, key: NeighborKey) -> None:
        self._asked[key] = self._now
        self._network.probe(key)
        self.look_at = min(self.look_at, self._now + _ANSWER_US)

    def _has_failed(self, key: NeighborKey) -> bool:
        return self._network.neighbor(key).state is NeighborState.FAILED

    # Another neighbor

    def _move(
        self, edge: HostEdge, moves: list[tuple[PathRecord, Plan]], findings: dict[PathRecord, list[Finding]]
    ) -> None:
        """Relink paths to the neighbor that their plans go by."""
        plan = moves[0][1]
        key = plan.device_index, plan.next_hop
        self.neighbors.add(key)
        if not plan.neighbor_mac:
            self._ask_again(key)
            return
        self._asked.pop(key, None)
        neighbor = edge.objects.neighbor(plan)
        self._wanted.add(neighbor)
        if not self._is_free(neighbor):
            return
        if not neighbor.offloaded:
            neighbor.cached = NeighborCached(plan.neighbor_mac)
            paths = [path for path, _ in moves]
            why = self._why_not(plan)
            if why:
                # A target that pauses gets no new neighbors, either (status.pause.host).
                edge.objects.forget_unused(None, neighbor)
                for path in paths:
                    self._withdraw(findings[path], why)
                return
            edge.upkeep.offload_neighbor(neighbor, lambda taken: self._refuse(paths, taken))
            return
        ready = [path for path, _ in moves if self._is_free(path, path.neighbor)]
        if ready:
            edge.upkeep.relink(ready, neighbor, lambda taken: self._relinked(ready, neighbor))

    def _why_not(self, plan: Plan) -> str:
        """Why nothing can be offloaded on the way of a plan; empty if it can."""
        try:
            self._services.adapter(plan.device)
        except NotOffloadable as reason:
            return str(reason)
        return ""

    def _ask_again(self, key: NeighborKey) -> None:
        """Nobody sends to this neighbor at present, so that the kernel would not ask for it either."""
        asked = self._asked.get(key)
        if asked is None or self._now >= asked + _ASK_AGAIN_US:
            self._ask(key)
        self.look_at = min(self.look_at, self._asked[key] + _ASK_AGAIN_US)

    def _relinked(self, paths: list[PathRecord], neighbor: NeighborRecord) -> None:
        self._refuse([path for path in paths if path.neighbor is not neighbor], False)
        users = [user for path in paths if path.neighbor is neighbor for user in path.users]

        def resume() -> bool:
            for user in users:
                # It may have left meanwhile.
                if user.owner.held and user.owner is user.owner.connection.chimney:
                    user.owner.connection.resume()
            return False

        # Not from within the completion.
        self._services.wake(resume)

    # No neighbor

    def _silence(self, edge: HostEdge, lost: list[PathRecord], paths: dict[PathRecord, list[Finding]]) -> None:
        """There is no way for these paths: their neighbors are invalidated, unless others go on using them."""
        for path in lost:
            others = [p for p in path.neighbor.paths if p not in lost]
            if others:
                for finding in paths[path]:
                    finding.connection.withdraw(finding.why)
            else:
                self._invalidate(edge, path.neighbor)

    def _invalidate(self, edge: HostEdge, neighbor: NeighborRecord) -> None:
        if neighbor.offloaded and not neighbor.invalid and self._is_free(neighbor):
            self._invalid_since[neighbor] = self._now
            edge.upkeep.invalidate(neighbor)

    def _give_up(self, path: PathRecord, findings: list[Finding]) -> None:
        """The way of this path has been gone for too long: the kernel gets the connections."""
        since = self._invalid_since.get(path.neighbor)
        if since is None:
            return
        if self._now < since + GRACE_US:
            self.look_at = min(self.look_at, since + GRACE_US)
            return
        self._withdraw(findings, "the next hop does not answer")

    def _is_free(self, *records: Record) -> bool:
        """Whether these objects can be changed now; otherwise there is another look, soon."""
        busy = is_busy(*records)
        if busy:
            self.act_at = self._now + _BUSY_US
        return not busy

    def _withdraw(self, findings: list[Finding], why: str) -> None:
        for finding in findings:
            finding.connection.withdraw(finding.why or why)
