"""Initiate: what a host may hand over, and what it leaves alone meanwhile (9.1, 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chimney.ndis.crossing import BlockView, Crossing, Kind
from chimney.ndis.state import TIMER_NOT_RUNNING, NeighborCached, NeighborDelegated, TcpCached, TcpDelegated
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, packet
from chimney.verifier.packets import ACK, RST, SYN, Packet
from chimney.verifier.recent import Recent
from chimney.verifier.relations import open_initiate

_IDLE_TIMER_STATES = frozenset({TcpConnectionState.ESTABLISHED, TcpConnectionState.CLOSE_WAIT})
_FLOWS = 256


class InitiateHost(Checks):
    """What a host offloads, and when."""

    RULES = (
        "initiate.host.no-duplicate",
        "initiate.host.quiet",
        "initiate.states",
        "initiate.timers.not-running",
        "initiate.reach.equal",
    )

    @enter(Kind.INITIATE)
    def initiate(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        self._duplicates(crossing, operation)
        for block, item, new in zip(operation.before, operation.objects, operation.new, strict=True):
            if item is None or not new:
                continue
            if isinstance(block.delegated, TcpDelegated):
                self._connection(crossing, block, block.delegated, item)
            elif isinstance(block.cached, NeighborCached) and isinstance(block.delegated, NeighborDelegated):
                host, nic = block.cached.host_reachability_delta, block.delegated.nic_reachability_delta
                self.check("initiate.reach.equal", host == nic, f"HRD is {host}, NRD is {nic}", crossing, item)

    def _duplicates(self, crossing: Crossing, operation: Operation) -> None:
        def subjects(of: Operation) -> set[object]:
            found: set[object] = set()
            for block, item, new in zip(of.before, of.objects, of.new, strict=True):
                if new and item is not None:
                    found.add(id(block.handle))
                    if item.stream is not None:
                        found.add(item.stream.flow)
            return found

        twice: set[object] = set()
        for other in self.books.of(crossing).operations:
            if other.kind is Kind.INITIATE and other is not operation:
                twice |= subjects(operation) & subjects(other)
        self.check(
            "initiate.host.no-duplicate",
            not twice,
            lambda: f"{len(twice)} objects of the tree are being offloaded already",
            crossing,
        )

    def _connection(self, crossing: Crossing, block: BlockView, delegated: TcpDelegated, item: ObjectBook) -> None:
        state = delegated.state
        self.check(
            "initiate.states",
            state in TcpConnectionState._value2member_map_ and TcpConnectionState(state).offloadable,
            lambda: f"the connection is in state {TcpConnectionState(state).name}",
            crossing,
            item,
        )
        left = delegated.retransmit.timeout_delta
        nothing_sent = delegated.snd_una == delegated.snd_nxt == delegated.snd_max
        if state in _IDLE_TIMER_STATES and nothing_sent and delegated.snd_wnd:
            self.check(
                "initiate.timers.not-running",
                left == TIMER_NOT_RUNNING,
                lambda: f"nothing is in flight, and the retransmit timer has {left} ticks left",
                crossing,
                item,
            )
        if isinstance(block.cached, TcpCached) and not block.cached.flags & TcpCachedFlags.KEEP_ALIVE_ENABLED:
            alive = delegated.keep_alive
            self.check(
                "initiate.timers.not-running",
                alive.timeout_delta != 0 or alive.count > 0,
                "keepalive is off, and its timer is said to be due now",
                crossing,
                item,
            )

    @enter(Kind.SEND, Kind.RECEIVE, Kind.DISCONNECT, Kind.FORWARD)
    def request(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            item = self.books.object(crossing)
            if item is not None and "initiate_host: initiate quiet" not in item.facts:
                item.facts["initiate_host: initiate quiet"] = True
                self._quiet(crossing, item)

    @enter(Kind.TERMINATE, Kind.UPDATE, Kind.QUERY, Kind.INVALIDATE)
    def operation(self, crossing: Crossing) -> None:
        if crossing.boundary.top and isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None:
                    self._quiet(crossing, item)

    def _quiet(self, crossing: Crossing, item: ObjectBook) -> None:
        self.check(
            "initiate.host.quiet",
            open_initiate(item) is None,
            lambda: f"{crossing.function} while it is being offloaded",
            crossing,
            item,
        )


@dataclass(slots=True)
class _Before:
    """What the link's door has seen of a connection that is not offloaded: whether its handshake carried IP options
    (None: not seen), and up to where the host has acknowledged (None: its segments pass another way).
    """

    ip_options: bool | None = None
    acknowledged: int | None = None


class BeforeTheOffload(Checks):
    """What the wire says of a connection that is going to be offloaded."""

    RULES = ("initiate.no-ip-options", "initiate.host.flush-ack")

    def __init__(self, verifier: Any) -> None:
        super().__init__(verifier)
        self._flows: Recent[tuple[bytes, int, bytes, int], _Before] = Recent(_FLOWS)

    @packet
    def seen(self, packet: Packet) -> None:
        if not packet.tcp or packet.book is not None or not (packet.flags & SYN or not packet.incoming):
            return
        if packet.incoming:
            flow = (packet.destination, packet.destination_port, packet.source, packet.source_port)
        else:
            flow = (packet.source, packet.source_port, packet.destination, packet.destination_port)
        known = self._flows[flow] = self._flows.get(flow) or _Before()
        if packet.flags & SYN:
            known.ip_options = packet.ip_options
        if not packet.incoming and packet.sent and packet.flags & (ACK | RST) == ACK:
            known.acknowledged = packet.ack

    @enter(Kind.INITIATE)
    def initiate(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, new in zip(operation.before, operation.objects, operation.new, strict=True):
            if new and item is not None and item.stream is not None:
                known = self._flows.pop(item.stream.flow, None)
                if known is not None and isinstance(block.delegated, TcpDelegated):
                    self._known(crossing, known, block.delegated, item)

    def _known(self, crossing: Crossing, known: _Before, delegated: TcpDelegated, item: ObjectBook) -> None:
        if known.ip_options is not None:
            self.check(
                "initiate.no-ip-options",
                not known.ip_options,
                "its handshake carried IP options",
                crossing,
                item,
            )
        if known.acknowledged is not None:
            self.check(
                "initiate.host.flush-ack",
                known.acknowledged == delegated.rcv_nxt,
                lambda: f"RcvNxt is {delegated.rcv_nxt}, the host has acknowledged {known.acknowledged}",
                crossing,
                item,
            )
