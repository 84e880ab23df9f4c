"""Constant, cached and delegated variables: who changes them, and how they are told (chapter 7)."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import BACKLOG_UNSUPPORTED, NeighborCached, TcpCached, TcpDelegated
from chimney.ndis.status import (
    IndicateOffloadEvent,
    OffloadStateType,
    Status,
    TcpCachedFlags,
    TcpOffloadEvent,
)
from chimney.verifier.books import Completed, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, segment_in, segment_out
from chimney.verifier.packets import ACK, FIN, Packet
from chimney.verifier.streams import Stream

_EVENTS = frozenset(map(int, TcpOffloadEvent))
_CODES = frozenset(map(int, IndicateOffloadEvent))
_ORDERS = TcpCachedFlags.KEEP_ALIVE_RESTART | TcpCachedFlags.MAX_RT_RESTART | TcpCachedFlags.UPDATE_RCV_WND
_DELEGATED_TYPES = (
    OffloadStateType.NEIGHBOR_DELEGATED,
    OffloadStateType.IP4_DELEGATED,
    OffloadStateType.IP6_DELEGATED,
    OffloadStateType.TCP_DELEGATED,
)


class OwnerChecks(Checks):
    """Who changes a variable while its object is offloaded."""

    RULES = (
        "state.const.immutable",
        "state.cached.host-owned",
        "state.delegated.target-owned",
        "state.delegated.no-notify",
        "state.terminate.delegated-only",
    )

    @enter(Kind.UPDATE)
    def updating(self, crossing: Crossing) -> None:
        if crossing.boundary.top:
            self.check(
                "state.delegated.target-owned",
                all(block.delegated is None and block.type not in _DELEGATED_TYPES for block in crossing.blocks),
                "an update carries delegated state",
                crossing,
            )

    @enter(Kind.UPDATE_COMPLETE)
    def updated(self, crossing: Crossing) -> None:
        if isinstance(crossing.notes, Operation):
            for item in crossing.notes.objects:
                if item is not None:
                    item.facts["state: updated"] = crossing.number

    @enter(Kind.QUERY_COMPLETE)
    def queried(self, crossing: Crossing) -> None:
        for old, new, item in _completed(crossing):
            if new.status == Status.SUCCESS:
                self._queried(crossing, old, new, item)

    def _queried(self, crossing: Crossing, old: BlockView, new: BlockView, item: ObjectBook) -> None:
        if old.const is not None and item.const is not None:
            self.check(
                "state.const.immutable",
                new.const == item.const,
                lambda: f"{new.const} is reported, and {item.const} was handed over",
                crossing,
                item,
            )
        if old.cached is not None and item.cached is not None and not self._in_change(crossing, item):
            self.check(
                "state.cached.host-owned",
                _settled(new.cached) == _settled(item.cached),
                lambda: f"{new.cached} is reported, and {item.cached} was set last",
                crossing,
                item,
            )

    def _in_change(self, crossing: Crossing, item: ObjectBook) -> bool:
        """Whether an update was under way at any time during the query: either value is right, then."""
        if any(operation.kind is Kind.UPDATE for operation in item.operations):
            return True
        return bool(item.facts.get("state: updated", -1) > crossing.notes.call.number)

    @enter(Kind.EVENT, Kind.OFFLOAD_EVENT)
    def announced(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            known = _EVENTS if crossing.kind is Kind.EVENT else _CODES
            self.check(
                "state.delegated.no-notify",
                crossing.value in known,
                f"{crossing.function} with {crossing.value}, which the documents do not know",
                crossing,
            )

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        for old, new, item in _completed(crossing):
            kept = new.const == old.const and new.cached == old.cached
            filled = item.stream is None or new.status != Status.SUCCESS or new.delegated is not None
            self.check(
                "state.terminate.delegated-only",
                kept and filled,
                "constant or cached variables are handed back, or delegated ones are not",
                crossing,
                item,
            )


class BacklogChecks(Checks):
    """Backlog sizes, which are there in a query's result alone."""

    RULES = (
        "state.sendbacklog.unsupported",
        "state.rcvbacklog.unsupported",
        "state.backlog.query-only",
        "state.host-posts-to-backlog",
    )

    @enter(Kind.QUERY_COMPLETE)
    def queried(self, crossing: Crossing) -> None:
        for old, new, item in _completed(crossing):
            stream = item.stream
            before, delegated = old.delegated, new.delegated
            if (
                new.status == Status.SUCCESS
                and stream is not None
                and isinstance(before, TcpDelegated)
                and isinstance(delegated, TcpDelegated)
            ):
                self.check(
                    "state.backlog.query-only",
                    _pointers(before) == _pointers(delegated),
                    "a query brings send data or buffered data",
                    crossing,
                    stream,
                )
                self._sizes(crossing, stream, delegated)

    def _sizes(self, crossing: Crossing, stream: Stream, delegated: TcpDelegated) -> None:
        facts = self.books.of(crossing).facts
        size = delegated.send_backlog_size
        supported = size != BACKLOG_UNSUPPORTED
        known = facts.setdefault("state: send backlog", supported)
        self.check(
            "state.sendbacklog.unsupported",
            size > 0 and supported == known,
            f"a send backlog of {size} is reported by a target that has {'one' if known else 'none'}",
            crossing,
            stream,
        )
        size = delegated.receive_backlog_size
        held = stream.receive.held
        self.check(
            "state.rcvbacklog.unsupported",
            size == BACKLOG_UNSUPPORTED or size <= held,
            f"a receive backlog of {size} is reported, and {held} bytes have arrived and not been delivered",
            crossing,
            stream,
        )
        stream.facts["state: asked for backlog"] = size != BACKLOG_UNSUPPORTED and size > 0

    @enter(Kind.EVENT)
    def changed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.value == TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE:
            known = self.books.of(crossing).facts.setdefault("state: send backlog", True)
            self.check(
                "state.sendbacklog.unsupported",
                known,
                "a change of the send backlog is indicated by a target that reports none",
                crossing,
            )

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        for old, new, item in _completed(crossing):
            if isinstance(old.delegated, TcpDelegated) and isinstance(new.delegated, TcpDelegated):
                self.check(
                    "state.backlog.query-only",
                    _backlogs(old.delegated) == _backlogs(new.delegated),
                    "a terminate brings backlog sizes",
                    crossing,
                    item,
                )

    @enter(Kind.RECEIVE, stage=Stage.HANDLER)
    def posted(self, crossing: Crossing) -> None:
        """The first request after a query that has found a backlog takes what is there."""
        requests = crossing.notes
        if not crossing.boundary.bottom or not requests:
            return
        first: Request = requests[0]
        stream = first.stream
        if stream.facts.pop("state: asked for backlog", False):
            receive = stream.receive
            waiting = [r for r in self.books.of(crossing).open_requests(first.book, Kind.RECEIVE) if r not in requests]
            if not waiting and not first.view.no_push:
                stream.facts["state: to be filled"] = first, min(first.length, receive.available - receive.delivered)

    @enter(Kind.RECEIVE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for entry in crossing.notes:
                self._completed(crossing, entry)

    def _completed(self, crossing: Crossing, entry: Completed) -> None:
        request = entry.request
        if request is None:
            return
        stream = request.stream
        expected = stream.facts.get("state: to be filled")
        if expected is None or expected[0] is not request:
            return
        del stream.facts["state: to be filled"]
        if not stream.failed and not stream.leaving:
            self.check(
                "state.host-posts-to-backlog",
                entry.view.bytes_transferred >= expected[1],
                f"{expected[1]} bytes were there, and the request for them brings {entry.view.bytes_transferred}",
                crossing,
                stream,
                culprit=crossing.boundary.miniport.name,
            )


class _RoundTrips:
    """What an observer at the link's door can say about a connection's round-trip times, in microseconds."""

    __slots__ = ("certain", "inflight", "least", "most", "resent_at", "sent")

    def __init__(self) -> None:
        # (end position, when sent) of what is not acknowledged, in the order of sending.
        self.inflight: deque[tuple[int, int]] = deque()
        self.sent = 0
        self.resent_at = -1
        self.least = -1
        self.most = -1
        self.certain = True

    def left(self, end: int, now: int) -> None:
        if end <= self.sent:
            self.resent_at = now
        else:
            self.sent = end
            self.inflight.append((end, now))

    def acknowledged(self, position: int, now: int) -> None:
        first = last = -1
        while self.inflight and self.inflight[0][0] <= position:
            last = self.inflight.popleft()[1]
            if first < 0:
                first = last
        if first < 0:
            # Of what the host had sent before the hand-over, nobody knows here when that was.
            self.certain = False
            return
        shortest = now - max(last, self.resent_at)
        self.least = shortest if self.least < 0 else min(self.least, shortest)
        self.most = max(self.most, now - first)


class RoundTripChecks(Checks):
    """SRtt and RttVar, which travel as eight and four times their values."""

    RULES = ("state.rtt.scaled",)
    # A target counts by the time at which it began to work on a batch of frames, not by that at the link's door.
    _SLACK_US = 50_000
    # The timestamp that a peer echoes may be older than what it acknowledges. A wrong scale is wrong by eight.
    _LATITUDE = 3
    # What is wrong by far more is another matter: an echo from long ago, on a machine that is too busy.
    _OTHER = 16

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        length = packet.payload_length + bool(packet.flags & FIN)
        if length:
            end = stream.send.position(packet.seq) + length
            self._trips(stream).left(end, packet.at)
            # The host may have sent it before, and what is acknowledged may be that.
            if end <= stream.send.handed_over:
                self._trips(stream).certain = False

    @segment_in
    def received(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        acked = stream.send.acked
        if packet.sack_blocks:
            stream.facts["state: covered"] = True
        # A target takes no acknowledgement from a segment that is not acceptable (RFC 9293, 3.10.7.4).
        acceptable = stream.receive.position(packet.seq) <= stream.receive.limit
        if packet.flags & ACK and packet.acts and acceptable and acked > stream.facts.get("state: acknowledged", 0):
            stream.facts["state: acknowledged"] = acked
            self._trips(stream).acknowledged(acked, packet.at)

    def _trips(self, stream: Stream) -> _RoundTrips:
        trips: _RoundTrips | None = stream.facts.get("state: round trips")
        if trips is None:
            trips = stream.facts["state: round trips"] = _RoundTrips()
        return trips

    @enter(Kind.QUERY_COMPLETE, Kind.TERMINATE_COMPLETE)
    def told(self, crossing: Crossing) -> None:
        for _, new, item in _completed(crossing):
            stream = item.stream
            if stream is not None and new.status == Status.SUCCESS and isinstance(new.delegated, TcpDelegated):
                self._told(crossing, stream, new.delegated)

    def _told(self, crossing: Crossing, stream: Stream, now: TcpDelegated) -> None:
        before = stream.delegated
        trips: _RoundTrips | None = stream.facts.get("state: round trips")
        if stream.facts.get("state: covered") and (trips is None or trips.least < 0):
            # What is acknowledged selectively tells a round trip, too.
            return
        if stream.send.acked == 0 and (trips is None or trips.least < 0):
            self.check(
                "state.rtt.scaled",
                (now.s_rtt, now.rtt_var) == (before.s_rtt, before.rtt_var),
                lambda: (
                    f"{now.s_rtt} and {now.rtt_var} come back, {before.s_rtt} and {before.rtt_var} were handed over"
                ),
                crossing,
                stream,
            )
            return
        if trips is None or not trips.certain or trips.least < 0 or not now.s_rtt:
            return
        parameters = self.books.of(crossing).parameters
        tick = 1_000_000 // (1000 if parameters is None else parameters.ticks_per_second)
        least, most = trips.least, trips.most
        if before.s_rtt:
            handed_over = before.s_rtt * tick // 8
            least, most = min(least, handed_over), max(most, handed_over)
        slack = tick + self._SLACK_US
        mean = now.s_rtt * tick // 8
        plausible = least // self._LATITUDE - slack <= mean <= most * self._LATITUDE + slack
        self.check(
            "state.rtt.scaled",
            plausible or mean > most * self._OTHER + slack,
            lambda: f"SRtt {now.s_rtt} means {mean} us; round trips took {least} to {most} us",
            crossing,
            stream,
        )


def _completed(crossing: Crossing) -> list[tuple[BlockView, BlockView, ObjectBook]]:
    """Of a target's completion: each object with its block as the handler got it, and as it comes back."""
    operation = crossing.notes
    if not crossing.boundary.bottom or not isinstance(operation, Operation):
        return []
    if not len(operation.lower) == len(operation.after) == len(operation.objects):
        return []
    triples = zip(operation.lower, operation.after, operation.objects, strict=True)
    return [(old, new, item) for old, new, item in triples if item is not None]


def _settled(cached: Any) -> Any:
    """Cached variables without what ages, and without orders."""
    if isinstance(cached, NeighborCached):
        return replace(cached, host_reachability_delta=0)
    if isinstance(cached, TcpCached):
        return replace(cached, flags=cached.flags & ~_ORDERS)
    return cached


def _pointers(delegated: TcpDelegated) -> tuple[object, object, object]:
    return delegated.send_data_head, delegated.send_data_tail, delegated.buffered_data


def _backlogs(delegated: TcpDelegated) -> tuple[int, int]:
    return delegated.send_backlog_size, delegated.receive_backlog_size
