"""What a target has to do by some time: told of only if that has passed by far, and the target has had its turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream

NEVER = 1 << 62
_LOOK_US = 20_000
# Connections take turns: a target with many has to poll more often until each has had one.
_TURNS_PER_POLL = 32
# Settled debts are cleared out of this many, or of twice those that were open the last time.
_CROWDED = 256


@dataclass(slots=True, eq=False)
class Debt:
    """Something that the target of ``stream`` has to do by ``due`` (us; NEVER: nothing is owed), or ``patience`` later.

    ``told`` is called with it when it has not been done. Change ``due`` with `Debts.owe` alone, except to NEVER or to a
    later time.
    """

    stream: Stream
    told: Callable[[Debt], None]
    patience: int
    what: str = ""
    due: int = NEVER
    link: str = ""
    queued_at: int = NEVER
    polls: int = -1

    def settle(self) -> None:
        """Nothing is owed any more."""
        self.due = NEVER


@dataclass(slots=True)
class _Door:
    """A link: how often its target has polled it, when it had no room last, what is awaited and what is late."""

    polls: int = 0
    full_at: int = -1
    look_at: int = 0
    awaited: list[tuple[int, int, Debt]] = field(default_factory=list)
    late: list[Debt] = field(default_factory=list)
    crowded: int = _CROWDED


class Debts:
    """The open debts of all targets, by their links. A debt costs next to nothing before it is due."""

    def __init__(self) -> None:
        self._doors: dict[str, _Door] = {}
        self._count = 0

    def owe(self, debt: Debt, link: str, due: int) -> None:
        """From now on ``debt`` is due at ``due``."""
        debt.due, debt.link = due, link
        debt.polls = -1
        if due < debt.queued_at:
            self._queue(self._door(link), debt)

    def passed(self, packet: Packet) -> None:
        """A packet has left, or has not: a target whose link is full can do nothing."""
        if not packet.incoming and not packet.sent:
            self._door(packet.link).full_at = packet.at

    def polled(self, link: str, now: int, connections: int) -> list[Debt]:
        """A target asks its link for frames: the debts that are overdue, each once; they are settled then."""
        door = self._doors.get(link)
        if door is None:
            return []
        door.polls += 1
        overdue: list[Debt] = []
        while door.awaited and door.awaited[0][0] <= now:
            at, _, debt = heappop(door.awaited)
            if at != debt.queued_at:
                continue
            debt.queued_at = NEVER
            if debt.due > now:
                self._queue(door, debt)
            else:
                debt.polls = door.polls
                door.late.append(debt)
        if door.late and now >= door.look_at:
            door.look_at = now + _LOOK_US
            late, door.late = door.late, []
            for debt in late:
                if debt.polls < 0 or debt.due > now:
                    # It has been settled, or put off.
                    self._queue(door, debt)
                elif door.full_at >= debt.due:
                    debt.due = now
                    self._queue(door, debt)
                elif now - debt.due > debt.patience and door.polls - debt.polls > connections // _TURNS_PER_POLL:
                    debt.settle()
                    overdue.append(debt)
                else:
                    door.late.append(debt)
        return overdue

    def _door(self, link: str) -> _Door:
        door = self._doors.get(link)
        if door is None:
            door = self._doors[link] = _Door()
        return door

    def _queue(self, door: _Door, debt: Debt) -> None:
        if debt.due < debt.queued_at and debt.due < NEVER:
            self._count += 1
            debt.queued_at = debt.due
            heappush(door.awaited, (debt.due, self._count, debt))
            if len(door.awaited) > door.crowded:
                self._clear_out(door)

    def _clear_out(self, door: _Door) -> None:
        """Let go of what is settled: it may be hours before it would be due, and it keeps a connection's books."""
        kept = []
        for entry in door.awaited:
            at, _, debt = entry
            if at != debt.queued_at:
                continue
            if debt.due < NEVER and debt.stream.terminated is None:
                kept.append(entry)
            else:
                debt.queued_at = NEVER
        heapify(kept)
        door.awaited = kept
        door.crowded = max(_CROWDED, 2 * len(kept))
