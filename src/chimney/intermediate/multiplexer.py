"""A team driver: several upper edges (virtual miniports) over several adapters, one of which may stand in for another.

A neighbor belongs to one adapter, and with it all paths and connections over it. Which one, is the team's choice: the
active adapter alone (fail-over), all that are usable in turn, or each virtual miniport's own. To leave an adapter the
team does what a target does to change its capabilities: pause, upload all, and when everything is back, resume on
another one (11.3, 12.6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.edges import LowerEdge, UpperEdge
from chimney.intermediate.trees import ascend, descend, refuse
from chimney.ndis.capabilities import Encapsulation, Oid, OidRequest, TcpConnectionOffload
from chimney.ndis.state import MiniportOffloadBlockList, ProtocolOffloadBlockList
from chimney.ndis.status import Status, StatusIndication

Choice = Callable[["Multiplexer", UpperEdge, MiniportOffloadBlockList], LowerEdge]

_STATISTICS = (Oid.TCP4_OFFLOAD_STATS, Oid.TCP6_OFFLOAD_STATS, Oid.IP4_OFFLOAD_STATS, Oid.IP6_OFFLOAD_STATS)
_NO_CHIMNEY = TcpConnectionOffload(encapsulation=Encapsulation.NOT_SUPPORTED)


def active_adapter(team: Multiplexer, upper: UpperEdge, block: MiniportOffloadBlockList) -> LowerEdge:
    """Everything goes to the active adapter; the others stand by."""
    return team.active


def least_loaded(team: Multiplexer, upper: UpperEdge, block: MiniportOffloadBlockList) -> LowerEdge:
    """A new object goes to the usable adapter with the fewest objects."""
    load = dict.fromkeys(team.usable or team.lowers, 0)
    for entry in team.entries:
        if entry.lower in load:
            load[entry.lower] += 1
    return min(load, key=lambda lower: (load[lower], lower.index))


def own_adapter(team: Multiplexer, upper: UpperEdge, block: MiniportOffloadBlockList) -> LowerEdge:
    """Every virtual miniport has its own adapter, the one of the same number: there must be as many of either."""
    return team.lowers[upper.index]


class Multiplexer(IntermediateDriver):
    """``uppers`` virtual miniports over ``lowers`` adapters; ``choice`` says where new objects go.

    ``active`` is the adapter in use with `active_adapter`; ``usable`` are those that have not asked to be left alone.
    While ``paused``, the drivers above have been asked to offload nothing; initiates that were under way are kept.
    """

    def __init__(self, name: str, uppers: int = 1, lowers: int = 2, choice: Choice = active_adapter) -> None:
        super().__init__(name, uppers, lowers)
        self.choice = choice
        self.active = self.lowers[0]
        self.paused = False
        self.reported: TcpConnectionOffload | None = None
        self._out: set[LowerEdge] = set()
        self._leaving: set[LowerEdge] = set()
        self._next: LowerEdge | None = None
        self._under_way: deque[tuple[UpperEdge, MiniportOffloadBlockList]] = deque()

    @property
    def usable(self) -> list[LowerEdge]:
        """The adapters that take offloads."""
        return [lower for lower in self.lowers if lower not in self._out and lower.binding.hardware_capabilities]

    @property
    def in_use(self) -> list[LowerEdge]:
        """The adapters that new objects may go to, whether they take them at present or not."""
        return [self.active] if self.choice is active_adapter else self.lowers

    def oid_lowers(self, upper: UpperEdge, request: OidRequest) -> list[LowerEdge]:
        """All, but for the statistics of a virtual miniport that has its own adapter: they are that one's."""
        if self.choice is own_adapter and request.oid in _STATISTICS:
            return [self.lowers[upper.index]]
        return self.lowers

    # Capabilities: what holds whichever adapter a connection meets

    def hardware_capabilities(self, upper: UpperEdge) -> TcpConnectionOffload | None:
        self.reported = _common([lower.binding.hardware_capabilities for lower in self.in_use])
        return self.reported

    def current_config(self, upper: UpperEdge) -> TcpConnectionOffload | None:
        return _common([lower.binding.current_config for lower in self.in_use])

    def choose_lower(self, upper: UpperEdge, block: MiniportOffloadBlockList) -> LowerEdge:
        return self.choice(self, upper, block)

    # Leaving an adapter

    def fail_over(self, to: LowerEdge) -> None:
        """Make ``to`` the active adapter: pause, have everything uploaded, switch, and resume when the last object is
        back. Raises ValueError if it is not one of the lower edges.
        """
        if to not in self.lowers:
            raise ValueError(f"{to.name} is not an edge of {self.name}")
        if to is not self.active:
            self._leave({lower for lower in self.lowers if lower is not to}, to)

    def _leave(self, adapters: set[LowerEdge], to: LowerEdge | None) -> None:
        self._leaving |= adapters
        self._next = to
        self._pause()
        if any(entry.lower in self._leaving for entry in self.entries):
            self.upload_all()
        self._consider_resuming()

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self.pause()

    def _consider_resuming(self) -> None:
        """If nothing is left on the adapters that are to be left, go on without them."""
        if not self._leaving or any(entry.lower in self._leaving for entry in self.entries):
            return
        self._leaving = set()
        if self._next is not None:
            self.active = self._next
            self._next = None
        self._resume()

    def _resume(self) -> None:
        """Offloads are welcome again, if there is an adapter for them, and none asked to wait has objects."""
        usable = self.usable
        waiting = [lower for lower in self.in_use if lower not in usable]
        if self._leaving or len(waiting) == len(self.in_use) or any(e.lower in waiting for e in self.entries):
            return
        self._tell_capabilities()
        if not self.paused:
            return
        self.paused = False
        self.resume()
        while self._under_way and not self.paused:
            upper, tree = self._under_way.popleft()
            descend(self, upper, "initiate", tree)

    def _tell_capabilities(self) -> None:
        """Report the hardware's capabilities if they are not what was reported last (im.cap.hw-change)."""
        before = self.reported
        now = self.hardware_capabilities(self.upper)
        if now != before:
            self.indicate_status(
                StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES, now or _NO_CHIMNEY
            )

    # What comes from above and below

    def on_state_request(self, upper: UpperEdge, operation: str, tree: MiniportOffloadBlockList) -> None:
        if operation != "initiate" or not self.paused:
            descend(self, upper, operation, tree)
        elif self._leaving:
            # It may name objects that have to go first, so it cannot wait for them.
            refuse(self, upper, operation, tree, Status.FAILURE)
        else:
            self._under_way.append((upper, tree))

    def on_state_completion(self, lower: LowerEdge, operation: str, tree: ProtocolOffloadBlockList) -> None:
        ascend(self, lower, operation, tree)
        self._consider_resuming()

    def on_status(self, lower: LowerEdge, code: int, buffer: object) -> None:
        if code == StatusIndication.OFFLOAD_PAUSE:
            self._out.add(lower)
            if lower in self.in_use:
                self._pause()
        elif code == StatusIndication.UPLOAD_ALL:
            self._out.add(lower)
            self._empty(lower)
        elif code == StatusIndication.OFFLOAD_RESUME:
            self._out.discard(lower)
            if lower in self.in_use:
                self._resume()
        elif code == StatusIndication.TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES:
            if lower in self.in_use:
                self._tell_capabilities()
        elif lower in self.in_use:
            self.indicate_status(code, buffer)

    def _empty(self, lower: LowerEdge) -> None:
        """An adapter wants everything back: another one takes over, if there is one."""
        others = self.usable
        if lower not in self.in_use and not any(entry.lower is lower for entry in self.entries):
            return
        stands_in = others[0] if self.choice is active_adapter and others and lower is self.active else None
        self._leave({lower}, stands_in)


def _common(records: list[TcpConnectionOffload | None]) -> TcpConnectionOffload | None:
    """What all the adapters with a chimney can do, and how many connections they take together."""
    known = [record for record in records if record is not None]
    return reduce(_both, known) if known else None


def _both(one: TcpConnectionOffload, other: TcpConnectionOffload) -> TcpConnectionOffload:
    return replace(
        one,
        encapsulation=one.encapsulation & other.encapsulation,
        support_ipv4=one.support_ipv4 and other.support_ipv4,
        support_ipv6=one.support_ipv6 and other.support_ipv6,
        support_ipv6_extension_headers=one.support_ipv6_extension_headers and other.support_ipv6_extension_headers,
        support_sack=one.support_sack and other.support_sack,
        tcp_connection_offload_capacity=one.tcp_connection_offload_capacity + other.tcp_connection_offload_capacity,
    )
