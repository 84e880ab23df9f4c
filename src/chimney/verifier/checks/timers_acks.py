"""The timers and counters of acknowledgements: when to send them, and how many duplicates tell of a loss (13.3, 13.4).

A live target may be kept from its work for long: lateness counts only after a second look, and by much.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import CachedState, TcpConst
from chimney.ndis.status import TcpConstFlags
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, segment, segment_in, segment_out
from chimney.verifier.overdue import Debt
from chimney.verifier.packets import ACK, FIN, URG, Packet
from chimney.verifier.relations import has, settled
from chimney.verifier.streams import Stream, distance
from chimney.verifier.timing import covers, is_at_work, is_plain, microseconds, parameters_of

_PATIENCE_US = 500_000
# Well below any retransmission timeout, which would hide that a fast retransmission is missing.
_FAST_US = 100_000
_AT_ONCE_US = 5_000
_PROBE_GAP_US = 1_000


@dataclass(slots=True, eq=False)
class _Owed:
    """What has arrived and is not acknowledged: ``segments`` of it, up to ``next``."""

    debt: Debt
    next: int
    segments: int = 0


class DelayedAcknowledgements(Checks):
    """TcpAckFrequency and TcpDelayedAckTicks."""

    RULES = ("timer.delack",)

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def offloaded(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                parameters_of(self.books, stream)

    @segment_in
    def arrived(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if not is_plain(packet):
            return
        receive = stream.receive
        owed: _Owed | None = stream.facts.get("timers_acks: delayed ack")
        if owed is None:
            debt = Debt(stream, self._overdue, _PATIENCE_US)
            start = min(receive.position(packet.seq), receive.next) if packet.payload_length else receive.next
            owed = stream.facts["timers_acks: delayed ack"] = _Owed(debt, max(start, receive.acknowledged))
        grown = receive.next > owed.next
        owed.next = receive.next
        parameters = parameters_of(self.books, stream)
        if not grown:
            return
        if parameters is None or not is_at_work(stream) or not receive.exact or packet.flags & URG:
            owed.segments = 0
            owed.debt.settle()
            return
        owed.segments += packet.segment_count
        delay = microseconds(parameters.tcp_delayed_ack_ticks, parameters)
        if owed.segments >= parameters.tcp_ack_frequency:
            owed.debt.what = f"{owed.segments} segments have arrived ({parameters.tcp_ack_frequency} may wait)"
            due = packet.at
        else:
            owed.debt.what = f"a segment has arrived long ago (the timer has {delay} us)"
            due = packet.at + delay
        if due < owed.debt.due:
            self.verifier.debts.owe(owed.debt, packet.link, due)

    @segment_out
    def acknowledged(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        owed: _Owed | None = stream.facts.get("timers_acks: delayed ack")
        if owed is None or not owed.segments or not packet.flags & ACK:
            return
        if stream.receive.position(packet.ack) >= owed.next:
            self.exercise("timer.delack")
        # It has spoken: what it has not acknowledged by now it may not have processed, or not taken.
        owed.segments = 0
        owed.debt.settle()

    def _overdue(self, debt: Debt) -> None:
        stream = debt.stream
        if is_at_work(stream) and stream.receive.acknowledged < stream.receive.next:
            text = f"{debt.what}, and no acknowledgement has been sent"
            self.check("timer.delack", False, text, stream.bottom, stream)


@dataclass(slots=True, eq=False)
class _Flight:
    """What is in flight from ``una`` to ``high``, and what the peer says about it.

    ``dups`` counts the duplicate acknowledgements that certainly are, ``hints`` all that may be taken for one;
    ``recover`` is how far all had been sent when something was sent again, ``told`` when enough duplicates had come for
    that; ``probed`` how far when a tail loss probe may have been sent, whose fate tells of losses, too (RFC 8985, 7.4).
    ``ends`` are the ends of the segments that are unacknowledged. ``una`` may have come in a segment that the target
    has dropped, beside the window; ``taken`` is what it had acknowledged without doubt when this segment came.
    """

    debt: Debt
    una: int
    high: int
    dups: int = 0
    hints: int = 0
    recover: int = 0
    told: int = 0
    recoveries: int = 0
    progress_at: int = 0
    heard_at: int = 0
    posted_at: int = 0
    probed: int = 0
    window: int = -1
    path: CachedState | None = None
    ts: int | None = None
    taken: int = 0
    blocks: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    ends: deque[int] = field(default_factory=deque)

    def doubt(self) -> None:
        """What is in flight now may be sent again for other reasons than duplicates."""
        self.probed = max(self.high, self.una + 1)


class FastRetransmissions(Checks):
    """TcpDuplicateAckThreshold."""

    RULES = ("timer.dupack",)

    @enter(Kind.SEND, stage=Stage.HANDLER)
    def posted(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.notes:
            flight = crossing.notes[0].stream.facts.get("timers_acks: flight")
            if flight is not None:
                flight.posted_at = crossing.at

    @segment
    def seen(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        flight: _Flight | None = stream.facts.get("timers_acks: flight")
        if flight is None:
            send = stream.send
            before = send.handed_over
            debt = Debt(stream, self._overdue, _FAST_US)
            # Until what was handed over is acknowledged, nothing can be said.
            flight = stream.facts["timers_acks: flight"] = _Flight(
                debt, min(send.acked, before), before, recover=before
            )
            flight.progress_at = flight.posted_at = packet.at
        if item.parent is not None and flight.path is not item.parent.cached:
            # What does not fit the path any more is sent again, too.
            flight.path = item.parent.cached
            flight.doubt()
        if packet.incoming:
            if is_plain(packet) and packet.flags & ACK:
                self._heard(packet, stream, flight)
            else:
                flight.doubt()
        elif packet.payload_length or packet.flags & FIN:
            self._sent(packet, stream, flight)

    def _heard(self, packet: Packet, stream: Stream, flight: _Flight) -> None:
        acked = stream.send.position(packet.ack)
        taken, flight.taken = flight.taken, stream.send.acked_surely
        if not packet.payload_length or stream.send.acked > flight.una:
            flight.heard_at = packet.at
        stamps = packet.timestamps
        old = stamps is not None and flight.ts is not None and distance(stamps[0], flight.ts) < 0
        if stamps is not None and not old:
            flight.ts = stamps[0]
        blocks = frozenset(packet.sack_blocks)
        if stream.send.acked > flight.una:
            flight.una = stream.send.acked
            while flight.ends and flight.ends[0] <= flight.una:
                flight.ends.popleft()
            flight.dups = flight.hints = 0
            flight.blocks = frozenset()
            flight.progress_at = packet.at
            if not packet.window:
                flight.doubt()
            flight.debt.settle()
            if flight.una >= flight.recover:
                flight.recover = 0
        elif acked == flight.una < flight.high:
            flight.hints += 1
            parameters = parameters_of(self.books, stream)
            if parameters is not None and flight.hints >= parameters.tcp_duplicate_ack_threshold:
                flight.told = flight.high
            same = packet.window == flight.window and not packet.payload_length and not packet.flags & FIN
            # A segment that is not acceptable counts for nothing (RFC 9293, 3.10.7.4).
            same = same and stream.receive.acknowledged <= stream.receive.position(packet.seq) <= stream.receive.limit
            # Nor does the first one that the target takes, where an earlier one was not acceptable.
            same = same and acked <= taken
            repeats = any(distance(end, packet.ack) <= 0 for _, end in blocks)
            if same and not old and not repeats and (_has_news(blocks, flight.blocks) or not _has_sack(stream)):
                flight.dups += 1
                self._counted(packet, stream, flight)
        flight.window = packet.window
        if blocks:
            # Segments with data need not repeat them.
            flight.blocks = blocks

    def _counted(self, packet: Packet, stream: Stream, flight: _Flight) -> None:
        parameters = parameters_of(self.books, stream)
        if parameters is None or flight.dups != parameters.tcp_duplicate_ack_threshold or packet.window == 0:
            return
        if flight.dups >= len(flight.ends):
            # Each is the answer to a segment beyond the lost one: some of these are duplicates made by the network.
            return
        # After a recovery, a target may have seen that the network reorders, and wait for more.
        if not flight.recover and not flight.recoveries and is_at_work(stream):
            flight.debt.what = f"{flight.dups} duplicate acknowledgements have come, and nothing has been sent again"
            self.verifier.debts.owe(flight.debt, packet.link, packet.at)

    def _sent(self, packet: Packet, stream: Stream, flight: _Flight) -> None:
        start = stream.send.position(packet.seq)
        end = start + packet.payload_length + bool(packet.flags & FIN)
        probes = packet.at - max(flight.heard_at, flight.posted_at, flight.progress_at) > _PROBE_GAP_US
        if probes:
            flight.doubt()
        if start < flight.high and covers(packet, stream, flight.una):
            self._again(packet, stream, flight)
            flight.debt.settle()
            flight.recover = flight.high
        elif start < flight.high:
            probes = True
            if covers(packet, stream, stream.send.acked_surely):
                # For the target this is the first unacknowledged segment.
                flight.debt.settle()
                flight.recover = flight.high
        if flight.una >= flight.high:
            flight.progress_at = packet.at
        if end > flight.high:
            if packet.gso_size:
                flight.ends.extend(range(max(start, flight.high) + packet.gso_size, end, packet.gso_size))
            flight.ends.append(end)
            flight.high = end
        if probes:
            flight.doubt()

    def _again(self, packet: Packet, stream: Stream, flight: _Flight) -> None:
        """The first unacknowledged segment is sent again."""
        parameters = parameters_of(self.books, stream)
        fast = packet.at - flight.heard_at < _AT_ONCE_US and packet.at - flight.progress_at < _FAST_US
        if flight.recover or not flight.hints or not fast:
            return
        flight.recoveries += 1
        # Later ones may repair what an earlier recovery, unseen as such, has left: only the first one is certain.
        if flight.recoveries > 1 or parameters is None or flight.probed > flight.una:
            return
        if not is_at_work(stream) or not self._is_steady(stream):
            return
        if stream.fin_received is not None and not packet.payload_length and packet.flags & FIN:
            # The FINs have crossed: what acknowledges the peer's may say ours once more.
            return
        # With SACK a target may know of losses by other means: covered bytes (RFC 6675), a tail loss probe that has
        # arrived (RFC 8985). What cannot be wrong is not counted as checked.
        if _has_sack(stream):
            return
        threshold = parameters.tcp_duplicate_ack_threshold
        if flight.hints < threshold and flight.una < flight.told:
            # A target that has read a batch may be in the middle of a recovery when it first sends.
            return
        self.check(
            "timer.dupack",
            flight.hints >= threshold,
            lambda: f"it is sent again after {flight.hints} duplicate acknowledgements; the threshold is {threshold}",
            packet,
            stream,
        )

    def _is_steady(self, stream: Stream) -> bool:
        item = stream.bottom
        path = None if item is None else item.parent
        return item is not None and path is not None and all(map(settled, (item, path, path.parent)))

    def _overdue(self, debt: Debt) -> None:
        if is_at_work(debt.stream) and self._is_steady(debt.stream):
            self.check("timer.dupack", False, debt.what, debt.stream.bottom, debt.stream)


def _has_news(blocks: frozenset[tuple[int, int]], known: frozenset[tuple[int, int]]) -> bool:
    """Whether SACK blocks tell of bytes that ``known`` ones do not have (RFC 6675, 2). What lies within another one of
    the same segment has come twice (RFC 2883).
    """
    return any(
        not any(
            other != (start, end) and distance(start, other[0]) >= 0 and distance(other[1], end) >= 0
            for other in blocks | known
        )
        for start, end in blocks - known
    )


def _has_sack(stream: Stream) -> bool:
    item = stream.bottom
    return item is not None and isinstance(item.const, TcpConst) and has(item.const.flags, TcpConstFlags.SACK_ENABLED)
