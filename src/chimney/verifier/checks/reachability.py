"""Neighbor reachability: when the target asks, what it says, what the host answers (11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import NeighborCached, NeighborConst, NeighborDelegated
from chimney.ndis.status import IndicateOffloadEvent, OffloadStateType, Status, TcpOffloadEvent
from chimney.verifier.addressing import neighbor_of
from chimney.verifier.books import BoundaryBook, Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, leave, segment
from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_QUERY = IndicateOffloadEvent.NEIGHBOR_REACHABILITY_QUERY
_UNANSWERED = 0x5AFE0BAD
_DEFAULT_TICKS_PER_SECOND = 1000
# A target that reads many frames at a time may look at a segment a little later than we see it.
_SLACK_US = 100_000
# And a machine may be very busy between the two.
_BUSY_US = 1_000_000
# What came last may have been no progress for a target after all: repeated, or behind a hole.
_UNUSED_US = 1_000_000


@dataclass(slots=True)
class Clocks:
    """A neighbor's timestamps as the target must have them, in microseconds: the host's last confirmation, and the
    target's, which is not before ``surely`` and not after ``perhaps``. ``before``: what was sure before anything came
    that the target may not have looked at yet. ``asked``: when the host was asked last; its answer may be old news.
    """

    host: int
    surely: int
    perhaps: int
    before: int
    asked: int = -1 << 62


class Reachability(Checks):
    """NdisMOffloadEventIndicate with NeighborReachabilityQuery, and the times that it is about."""

    RULES = ("event.reach.when", "event.reach.block", "event.reach.answer", "event.reach.progress")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._asked = 0

    def _tick_us(self, book: BoundaryBook) -> float:
        parameters = book.parameters
        return 1_000_000 / (_DEFAULT_TICKS_PER_SECOND if parameters is None else parameters.ticks_per_second)

    def _stale_us(self, book: BoundaryBook) -> int:
        """NceStaleTicks in microseconds; 0: not known, or off."""
        parameters = book.parameters
        return 0 if parameters is None else int(parameters.nce_stale_ticks * self._tick_us(book))

    # What the target knows of a neighbor

    @enter(Kind.INITIATE_COMPLETE)
    def offloaded(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        tick = self._tick_us(self.books.of(crossing))
        for view, item, new in zip(operation.before, operation.objects, operation.new, strict=True):
            if item is None or not new or item.layer is not Layer.NEIGHBOR or not item.offloaded:
                continue
            hrd = view.cached.host_reachability_delta if isinstance(view.cached, NeighborCached) else 0
            nrd = view.delegated.nic_reachability_delta if isinstance(view.delegated, NeighborDelegated) else 0
            since = operation.call.at
            surely = since - int(nrd * tick)
            item.facts["reachability: clocks"] = Clocks(since - int(hrd * tick), surely, crossing.at, surely)

    @enter(Kind.UPDATE_COMPLETE)
    def updated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and isinstance(view.cached, NeighborCached) and view.status == Status.SUCCESS:
                self._host_said(item, view.cached.host_reachability_delta, crossing.at)

    def _host_said(self, item: ObjectBook, delta: int, now: int) -> None:
        clocks: Clocks | None = item.facts.get("reachability: clocks")
        if clocks is not None:
            clocks.host = now - int(delta * self._tick_us(self.books.of(item.boundary)))

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        neighbor = neighbor_of(item)
        if crossing.boundary.bottom and neighbor is not None:
            # It may be processed any time later.
            clocks: Clocks | None = neighbor.facts.get("reachability: clocks")
            if clocks is not None:
                clocks.perhaps = max(clocks.perhaps, crossing.at + _SLACK_US)
            if item is not None and item.stream is not None:
                # What it tells is no news when the next segment comes.
                self._is_progress(item.stream)

    @segment
    def seen(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        neighbor = neighbor_of(item)
        clocks: Clocks | None = None if neighbor is None else neighbor.facts.get("reachability: clocks")
        if neighbor is None or clocks is None:
            return
        if packet.incoming:
            clocks.perhaps = packet.at
            if self._is_progress(stream) and item.initiate_returned:
                if packet.at - clocks.surely > _SLACK_US:
                    clocks.before = clocks.surely
                clocks.surely = packet.at
        elif item.offloaded:
            self._sent(packet, item, neighbor, clocks)

    @enter(Kind.EVENT)
    def given_up(self, crossing: Crossing) -> None:
        """The target wants a connection uploaded: what has come last is not processed any more, for want of memory."""
        if crossing.boundary.bottom and crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE:
            neighbor = neighbor_of(self.books.object(crossing))
            clocks: Clocks | None = None if neighbor is None else neighbor.facts.get("reachability: clocks")
            if clocks is not None:
                clocks.surely = clocks.before

    def _is_progress(self, stream: Stream) -> bool:
        """Whether the target must have learnt, since this was asked last, that more has been received in sequence, or
        acknowledged. What lies beside the window may be dropped with its acknowledgement, or may not.
        """
        receive, send = stream.receive, stream.send
        received, acked = stream.facts.get("reachability: progress", (receive.handed_over, 0))
        stream.facts["reachability: progress"] = receive.available, send.acked
        usable = receive.exact and not stream.leaving and not stream.failed
        return usable and (receive.available > received or send.acked_surely > acked)

    # When it asks

    def _sent(self, packet: Packet, item: ObjectBook, neighbor: ObjectBook, clocks: Clocks) -> None:
        stale = self._stale_us(self.books.of(neighbor.boundary))
        if not stale:
            return
        slack = self._slack(neighbor, stale)
        silent = packet.at - max(clocks.perhaps, clocks.host, clocks.asked)
        if silent > stale - slack:
            self.check(
                "event.reach.when",
                silent <= stale + slack,
                lambda: f"a datagram after {silent} us without a confirmation, and the host is not asked",
                packet,
                item,
            )

    def _slack(self, neighbor: ObjectBook, stale: int) -> int:
        return min(_SLACK_US, stale // 4) + 2 * int(self._tick_us(self.books.of(neighbor.boundary)))

    @enter(Kind.OFFLOAD_EVENT)
    def asked(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        if crossing.value != _QUERY:
            self.check(
                "event.reach.block",
                crossing.root is None,
                lambda: f"an indication with code {crossing.value} brings a block",
                crossing,
            )
            return
        block = crossing.blocks[0] if len(crossing.blocks) == 1 else None
        whole = (
            block is not None
            and block.type is OffloadStateType.NEIGHBOR
            and isinstance(block.const, NeighborConst)
            and isinstance(block.cached, NeighborCached)
            and isinstance(block.delegated, NeighborDelegated)
            and block.status == Status.SUCCESS
        )
        self.check(
            "event.reach.block",
            whole,
            "it does not bring one neighbor block with status SUCCESS and all three state structures",
            crossing,
        )
        neighbor = self._neighbor(crossing)
        if neighbor is not None and block is not None:
            self._timely(crossing, neighbor)
            self._delta(crossing, neighbor, block)

    def _neighbor(self, crossing: Crossing) -> ObjectBook | None:
        if not crossing.blocks or crossing.blocks[0].handle is None:
            return None
        item = self.books.of(crossing).objects.get(id(crossing.blocks[0].handle))
        return item if item is not None and "reachability: clocks" in item.facts else None

    def _timely(self, crossing: Crossing, neighbor: ObjectBook) -> None:
        clocks: Clocks = neighbor.facts["reachability: clocks"]
        stale = self._stale_us(self.books.of(crossing))
        slack = self._slack(neighbor, stale)
        since_host = crossing.at - clocks.host
        since_progress = crossing.at - clocks.surely
        # Progress of this very moment may not have been looked at yet.
        early = since_host <= stale - slack or slack < since_progress <= stale - slack
        if stale:
            self.check(
                "event.reach.when",
                not early,
                lambda: (
                    f"the host is asked {since_host} us after its own confirmation and {since_progress} us after "
                    f"progress; stale is {stale}"
                ),
                crossing,
                neighbor,
            )

    @leave(Kind.OFFLOAD_EVENT)
    def answered(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom or crossing.value != _QUERY or crossing.root is None:
            return
        neighbor = self._neighbor(crossing)
        cached = crossing.root.cached
        if neighbor is not None:
            neighbor.facts["reachability: clocks"].asked = crossing.ended_at
        if neighbor is not None and isinstance(cached, NeighborCached) and crossing.raised is None:
            self._host_said(neighbor, cached.host_reachability_delta, crossing.ended_at)

    # What the host says

    @enter(Kind.OFFLOAD_EVENT, stage=Stage.HANDLER)
    def host_asked(self, crossing: Crossing) -> None:
        cached = crossing.root.cached if crossing.root is not None else None
        if crossing.boundary.top and crossing.value == _QUERY and isinstance(cached, NeighborCached):
            self._asked = cached.host_reachability_delta
            cached.host_reachability_delta = _UNANSWERED

    @leave(Kind.OFFLOAD_EVENT, stage=Stage.HANDLER)
    def host_answered(self, crossing: Crossing) -> None:
        cached = crossing.root.cached if crossing.root is not None else None
        if not crossing.boundary.top or crossing.value != _QUERY or not isinstance(cached, NeighborCached):
            return
        answer = cached.host_reachability_delta
        if answer == _UNANSWERED:
            cached.host_reachability_delta = self._asked
        self.check(
            "event.reach.answer",
            answer != _UNANSWERED and 0 <= answer < 1 << 32,
            lambda: "nothing was written" if answer == _UNANSWERED else f"{answer} is no number of ticks",
            crossing,
        )

    # What the target says of its own confirmation

    @enter(Kind.QUERY_COMPLETE, Kind.TERMINATE_COMPLETE)
    def told(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for view, item in zip(operation.after, operation.objects, strict=False):
            if item is not None and "reachability: clocks" in item.facts and view.status == Status.SUCCESS:
                self._delta(crossing, item, view)

    def _delta(self, crossing: Crossing, neighbor: ObjectBook, view: BlockView) -> None:
        if not isinstance(view.delegated, NeighborDelegated):
            return
        clocks: Clocks = neighbor.facts["reachability: clocks"]
        tick = self._tick_us(self.books.of(crossing))
        said = view.delegated.nic_reachability_delta * tick
        most, least = crossing.at - clocks.surely, crossing.at - clocks.perhaps
        self.check(
            "event.reach.progress",
            least - _BUSY_US - 2 * tick <= said <= most + _UNUSED_US + 2 * tick,
            lambda: f"confirmed {said:.0f} us ago, says the target; it was {least} to {most} us ago",
            crossing,
            neighbor,
        )
