"""What a target should have done by now: complete, indicate, acknowledge (13.2, 13.3).

A target may be slow, so nothing is said before it has polled several times more and much time has passed; and only what
it certainly has counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import TcpCached
from chimney.verifier.books import ObjectBook, Request
from chimney.verifier.check import Checks, enter, finish, leave, polled, segment
from chimney.verifier.packets import ACK, RST, Packet
from chimney.verifier.receiving import (
    ACCEPTED,
    COMPLETED,
    REFUSED,
    Owed,
    Receiving,
    push_interval,
    receiving,
    receiving_of,
)
from chimney.verifier.relations import below
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_LOOK_US = 100_000
_PATIENCE_US = 1_000_000
_POLLS = 5
_ACK_US = 500_000


@dataclass(slots=True)
class _Door:
    """A link: how often its target has polled it, when to look next, and the connections to look at."""

    polls: int = 0
    look_at: int = 0
    open: dict[int, Receiving] = field(default_factory=dict)


class Overdue(Checks):
    """Looks at the connections with something to deliver whenever their target polls, ten times a second."""

    RULES = (
        "recv.modes",
        "recv.complete.filled",
        "recv.complete.success",
        "recv.push.complete-partial",
        "recv.push.timer-start",
        "recv.zero-length",
        "delivery.seg.place",
        "delivery.seg.partial",
        "delivery.seg.indicate",
        "delivery.leftover.indicate",
        "delivery.indicated.accepted",
        "delivery.indicated.refused",
        "delivery.post",
        "delivery.timer",
        "delivery.run-to-end",
        "indicate.keep-refused",
        "indicate.ack",
        "timer.push",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._doors: dict[str, _Door] = {}

    @segment
    def passed(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if stream.terminate is not None:
            return
        if packet.incoming:
            if packet.payload_length:
                self._watch(packet.link, receiving_of(self.books, stream))
        elif not packet.sent:
            stream.facts["delivery_overdue: link full"] = packet.at
        elif packet.flags & ACK and not packet.flags & RST:
            self._acknowledged(packet, stream)

    def _watch(self, link: str, state: Receiving) -> None:
        state.stream.facts["delivery_overdue: door"] = link
        door = self._doors.get(link)
        if door is None:
            door = self._doors[link] = _Door()
        door.open[id(state)] = state

    @enter(Kind.RECEIVE, stage=Stage.HANDLER)
    def posted(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.notes:
            stream = crossing.notes[0].stream
            link, state = stream.facts.get("delivery_overdue: door"), receiving(stream)
            if link is not None and state is not None:
                self._watch(link, state)

    def _acknowledged(self, packet: Packet, stream: Stream) -> None:
        """An acknowledgement never precedes what it is for."""
        receive = stream.receive
        position = receive.position(packet.ack)
        if position > receive.handed_over:
            self.check(
                "indicate.ack",
                position <= receive.next,
                lambda: f"{position} is acknowledged, and {receive.next} has arrived",
                packet,
                stream,
            )

    @polled
    def look(self, link: str) -> None:
        door = self._doors.get(link)
        if door is None:
            return
        door.polls += 1
        now = self.verifier.clock()
        if now < door.look_at:
            return
        door.look_at = now + _LOOK_US
        for key, state in list(door.open.items()):
            if self._is_idle(state):
                del door.open[key]
                continue
            state.owed = self._overdue(state, self._undelivered(state, now), state.owed, now, door.polls)
            state.unacknowledged = self._overdue(
                state, self._unacknowledged(state), state.unacknowledged, now, door.polls
            )

    def _is_idle(self, state: Receiving) -> bool:
        receive = state.stream.receive
        if state.stream.terminated is not None or state.stream.bottom is None:
            return True
        return receive.available == receive.delivered and receive.acknowledged >= receive.available

    def _overdue(
        self, state: Receiving, found: tuple[tuple[str, ...], str] | None, owed: Owed | None, now: int, polls: int
    ) -> Owed | None:
        """Say so once if the same has been owed for long enough."""
        if found is None:
            return None
        rules, text = found
        if owed is None or (owed.rules, owed.text) != found:
            return Owed(rules, text, now, polls)
        if not owed.told and now - owed.since > _PATIENCE_US and polls - owed.polls >= _POLLS:
            owed.told = True
            for rule in rules:
                self.check(rule, False, f"{text}, for {(now - owed.since) / 1e6:.1f} s", state.stream.bottom)
        return owed

    def _undelivered(self, state: Receiving, now: int) -> tuple[tuple[str, ...], str] | None:
        """What the target has not delivered although it could: the rules, and what is to be seen."""
        stream, item = state.stream, state.stream.bottom
        if item is None or not item.initiate_returned or state.upcall is not None or state.excused:
            return None
        if self.books.of(item.boundary).uploading_all is not None:
            return None
        count = state.certain - stream.receive.delivered
        if count <= 0:
            return None
        head = state.head
        if head is not None:
            return self._waits(state, head, count, now)
        if state.blocked:
            return None
        hinted = isinstance(item.cached, TcpCached) and item.cached.rcv_indication_size
        if hinted and state.indicated_to:
            # The rest may wait for a request (indicate.size).
            return None
        text = f"{count} bytes from {stream.receive.delivered} on wait, and nothing stands against indicating them"
        by_last = {
            ACCEPTED: ("delivery.indicated.accepted",),
            REFUSED: ("delivery.indicated.refused",),
            COMPLETED: ("delivery.leftover.indicate",) if state.left_over else (),
        }
        rules = ("delivery.run-to-end", "delivery.seg.indicate", *by_last.get(state.last, ()))
        return (*rules, "recv.zero-length") if state.reenabled else rules, text

    def _waits(self, state: Receiving, head: Request, count: int, now: int) -> tuple[tuple[str, ...], str] | None:
        receive = state.stream.receive
        room = head.length - head.prefilled
        text = f"{count} bytes from {receive.delivered} on wait, and a request of {room} bytes is not completed"
        if not head.length:
            return ("recv.zero-length", "delivery.run-to-end"), text
        if count >= room:
            by_last = {
                ACCEPTED: ("delivery.indicated.accepted",),
                REFUSED: ("delivery.indicated.refused", "indicate.keep-refused"),
            }
            came = "delivery.post" if state.posted_with > receive.delivered else "delivery.seg.place"
            rules = ("recv.complete.filled", "delivery.run-to-end", came, *by_last.get(state.last, ()))
            return rules, text
        if head.view.no_push:
            return None
        since = max(head.posted.at, state.idle_at)
        if any(receive.delivered < position <= state.certain and at >= since for position, at in state.pushes):
            return ("recv.push.complete-partial", "recv.modes", "delivery.seg.partial"), text + ", in spite of PSH"
        interval = push_interval(self.books, state)
        arrived = state.arrivals[-1][1] if state.arrivals else 0
        if interval is not None and now > max(since, arrived) + interval:
            rules = ("recv.push.timer-start", "recv.modes", "delivery.timer", "delivery.run-to-end", "timer.push")
            return rules, text + f", after a push interval of {interval} us"
        return None

    def _unacknowledged(self, state: Receiving) -> tuple[tuple[str, ...], str] | None:
        """What the target has delivered or indicated, and not acknowledged."""
        stream, item = state.stream, state.stream.bottom
        acknowledged = stream.receive.acknowledged
        if item is None or state.excused or "delivery_overdue: link full" in stream.facts or _is_silent(item):
            return None
        rules = []
        if state.completed_to > acknowledged:
            rules.append("recv.complete.success")
        if state.indicated_to > acknowledged:
            rules.append("indicate.ack")
        text = f"bytes from {acknowledged} on have gone up, and are not acknowledged"
        return (tuple(rules), text) if rules else None

    @leave(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            item = self.books.object(crossing)
            state = None if item is None or item.stream is None else receiving(item.stream)
            if state is not None and "delivery_overdue: door" in state.stream.facts:
                self._watch(state.stream.facts["delivery_overdue: door"], state)

    @finish
    def ended(self) -> None:
        """Requests keep their owners alive."""
        self._doors.clear()


def _is_silent(item: ObjectBook) -> bool:
    """Whether it must not send: it, its path or its neighbor is invalid."""
    return any(at.invalid is not None for at in below(item))
