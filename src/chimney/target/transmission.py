"""Frames out: headers and link, what to do when the link has no room, and whether the next hop is still there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from chimney.link.base import Link
from chimney.ndis.driver import Miniport
from chimney.ndis.state import MiniportOffloadBlockList, NeighborCached, NeighborConst, NeighborDelegated
from chimney.ndis.status import IndicateOffloadEvent, OffloadStateType, Status
from chimney.target.config import TargetConfig
from chimney.target.objects import NeighborObject, TcpObject
from chimney.tcp.config import NEVER
from chimney.tcp.segment import FIN, RST, Segment

_SUCCESS = int(Status.SUCCESS)
_REQUEST_ABORTED = int(Status.REQUEST_ABORTED)
_FIN = int(FIN)
_RST = int(RST)
_CHECKSUM_OFFSET = 16
_ETHERNET_HEADER = 14
_RETRY_US = 500
_PATIENCE_US = 1_000_000
_TICKS = 0xFFFFFFFF


class Refused:
    """A segment that the link had no room for."""

    def __init__(self, tcp: TcpObject, segment: Segment) -> None:
        self.tcp = tcp
        self.segment = segment


class Transmission(Miniport):
    """The sending half of a `SoftTarget`.

    config      what holds now: capacities and defaults, and what the host has set.
    operations  state operations, and other things that are to be done by the poll.
    full        something waits for the link, and everything else behind it.
    """

    def __init__(self, name: str, link: Link, clock: Callable[[], int], config: TargetConfig) -> None:
        super().__init__(name)
        self.link = link
        self.clock = clock
        self.now = clock()
        self.operations: deque[Callable[[], None]] = deque()
        self.frames_out = 0
        self.link_errors = 0
        self.full = False
        self._refused: deque[Refused] = deque()
        self._retry_at = NEVER
        self._waiting: list[TcpObject] = []
        self._deferred: list[Callable[[], None]] = []
        self._deferred_until = NEVER
        self.configure(config)

    def configure(self, config: TargetConfig) -> None:
        """From now on ``config`` holds."""
        self.config = config
        self._stale_us = config.microseconds(config.nce_stale_ticks)

    def touch(self, tcp: TcpObject) -> None:
        """The connection has something to do."""
        raise NotImplementedError

    @property
    def wants_write(self) -> bool:
        """Whether the link had no room, and will tell when it has: poll again when it is writable."""
        return self.full and self._retry_at == NEVER

    def emit(self, tcp: TcpObject, segment: Segment) -> bool:
        """Give a segment to the link, past whatever waits for it. False: the link has no room."""
        if self._stale_us:
            self._ask_whether_reachable(tcp.path.neighbor)
        template = tcp.template
        length = segment.payload_length
        gso_size = segment.mss if length > segment.mss else 0
        count = -(-length // gso_size) if gso_size else 1
        tcp_header = segment.header_bytes(tcp.local_port, tcp.remote_port)
        headers = template.headers(tcp_header, length, count, segment.ecn)
        reset_status = _SUCCESS
        try:
            if not self.link.send(
                headers,
                segment.payload_parts,
                template.tcp_start,
                _CHECKSUM_OFFSET,
                gso_size,
                template.ipv6,
                template.vlan,
            ):
                return False
        except OSError:
            # As lost as on the wire: it is sent again, or the host hears of a timeout.
            self.link_errors += 1
            tcp.counters.out_discards += count
            tcp.retransmitted_before = tcp.engine.stats.retransmitted_segments
            reset_status = _REQUEST_ABORTED
        else:
            self.frames_out += 1
            self._count(tcp, count, (len(headers) - _ETHERNET_HEADER) * count + length)
        if segment.flags & _RST:
            tcp.counters.out_resets += 1
            self.complete_abort(tcp, reset_status)
        return True

    def _count(self, tcp: TcpObject, datagrams: int, octets: int) -> None:
        """A segment, or a train of them, has left; what the engine sends again counts as that alone (17.1)."""
        counters = tcp.counters
        counters.left(datagrams, octets)
        again = min(tcp.engine.stats.retransmitted_segments - tcp.retransmitted_before, datagrams)
        tcp.retransmitted_before += again
        counters.retransmitted_segments += again
        counters.out_segments += datagrams - again

    def complete_abort(self, tcp: TcpObject, status: int) -> None:
        """The RST is out, or will not go out: complete the abortive disconnect."""
        request = tcp.abort_request
        if request is not None:
            tcp.abort_request = None
            request.status = status
            request.tcp_offload_bytes_transferred = 0
            self.handle.tcp_offload_disconnect_complete(request)

    # A link without room

    def refused(self) -> list[Refused]:
        """What waits for the link, in order."""
        return list(self._refused)

    def refuse(self, tcp: TcpObject, segment: Segment) -> None:
        """The link had no room for this segment: it goes before anything that is not made yet."""
        self.full = True
        self._refused.append(Refused(tcp, segment))
        self._plan_retry()

    def wait_for_link(self, tcp: TcpObject) -> None:
        """The connection has its next turn when the link has room."""
        if not tcp.waiting:
            tcp.waiting = True
            self._waiting.append(tcp)

    def defer(self, operation: Callable[[], None]) -> None:
        """Carry ``operation`` out when the link has taken what waits for it; after a second in any case.

        Something does wait (`full`).
        """
        self._deferred.append(operation)
        if self._deferred_until == NEVER:
            self._deferred_until = self.now + _PATIENCE_US

    def withdraw(self, tcp: TcpObject) -> Segment | None:
        """Forget the segments of this connection that wait for the link; returns the first, None if there is none.

        If it carries data or a FIN, the connection remembers it: the engine counts it as sent, and it never was.
        """
        mine = [refused.segment for refused in self._refused if refused.tcp is tcp]
        if not mine:
            return None
        self._refused = deque([refused for refused in self._refused if refused.tcp is not tcp])
        tcp.retransmitted_before = tcp.engine.stats.retransmitted_segments
        # What they acknowledged is still to be said.
        tcp.engine.ack_policy.at_once()
        if mine[0].payload_length or mine[0].flags & _FIN:
            tcp.withdrawn = mine[0]
        if not self._refused:
            self._go_on()
        return mine[0]

    def send_refused(self) -> None:
        """Try the link again, if it is time."""
        if self.now >= self._deferred_until:
            self._run_deferred()
        if not self.full or (self._retry_at != NEVER and self.now < self._retry_at):
            return
        while self._refused:
            waiting = self._refused[0]
            if not self.emit(waiting.tcp, waiting.segment):
                # An upcall may have withdrawn all that waited.
                if self.full:
                    self._plan_retry()
                return
            # Or this one.
            if self._refused and self._refused[0] is waiting:
                self._refused.popleft()
        self._go_on()

    def retry_at(self) -> int:
        """When `send_refused` has something to do, as far as the link does not tell; NEVER if nothing is known."""
        return min(self._retry_at, self._deferred_until)

    def _plan_retry(self) -> None:
        # A device's queue, unlike the link's own, does not tell when it has room again.
        self._retry_at = self.now + _RETRY_US if self.link.writable() else NEVER

    def _go_on(self) -> None:
        """The link is free: those that waited for it have their turns."""
        self.full = False
        self._retry_at = NEVER
        waiting = self._waiting
        self._waiting = []
        for tcp in waiting:
            tcp.waiting = False
            self.touch(tcp)
        self._run_deferred()

    def _run_deferred(self) -> None:
        self.operations.extend(self._deferred)
        self._deferred = []
        self._deferred_until = NEVER

    # Reachability (11.2)

    def _ask_whether_reachable(self, neighbor: NeighborObject) -> None:
        """Before sending: if neither side has had proof for too long, the host is asked (11.2, A18)."""
        now = self.now
        if now - neighbor.nic_reachable_at <= self._stale_us or now - neighbor.host_reachable_at <= self._stale_us:
            return
        ticks = self.config.ticks
        cached = NeighborCached(neighbor.destination_mac, ticks(now - neighbor.host_reachable_at) & _TICKS)
        block = MiniportOffloadBlockList(
            type=OffloadStateType.NEIGHBOR,
            const=NeighborConst(neighbor.const.dl_source_address, neighbor.const.vlan_id),
            cached=cached,
            delegated=NeighborDelegated(ticks(now - neighbor.nic_reachable_at) & _TICKS),
            status=Status.SUCCESS,
            ndis_offload_handle=neighbor.handle,
        )
        self.handle.offload_event_indicate(block, int(IndicateOffloadEvent.NEIGHBOR_REACHABILITY_QUERY))
        neighbor.host_reachable_at = now - self.config.microseconds(cached.host_reachability_delta)
