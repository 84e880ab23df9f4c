"""Connections that the host has taken up for a reason of its own, and that go down again when the reason is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chimney.host.listener import NEVER

if TYPE_CHECKING:
    from chimney.host.connection import Connection

FIRST_PAUSE_US = 1_000_000
"""How long a withdrawn connection stays in the kernel at least, if there is no news from the network."""
LONGEST_PAUSE_US = 60_000_000
"""How long it waits at most between two attempts to go down again."""
LEAST_PAUSE_US = 100_000
"""How long it waits after a hand-over in vain, whatever the news: each one interrupts it."""


@dataclass(slots=True)
class Withdrawal:
    """Why a connection was taken up, how long it waits between attempts to go down again, and when the next one is due.
    Before ``not_before`` there is none, whatever the news.

    Times are microseconds of the stack's clock.
    """

    reason: str
    pause: int
    at: int
    not_before: int = 0


class Withdrawals:
    """The withdrawn connections of one stack, each with its next attempt. Times are microseconds of its clock."""

    def __init__(self) -> None:
        self._waiting: dict[Connection, Withdrawal] = {}
        # How long those that are down again had waited between attempts, and since when they are.
        self._before: dict[Connection, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: Connection, reason: str, now: int, soon: bool = False) -> None:
        """``connection`` is taken up because of ``reason``; it is tried again after a pause, or at once if ``soon``.

        The pause is longer for one that has just come down, or it would go up and down all the time.
        """
        pause, down_at = self._before.get(connection, (0, 0))
        restless = pause and now < down_at + 2 * pause
        pause = min(2 * pause, LONGEST_PAUSE_US) if restless else FIRST_PAUSE_US
        self._waiting[connection] = Withdrawal(reason, pause, now if soon and not restless else now + pause)

    def find(self, connection: Connection) -> Withdrawal | None:
        """Why, and since when, the connection is withdrawn; None if it is not."""
        return self._waiting.get(connection)

    def forget(self, connection: Connection) -> None:
        """The application has decided otherwise."""
        self._waiting.pop(connection, None)
        self._before.pop(connection, None)

    def down_again(self, connection: Connection, withdrawal: Withdrawal | None, now: int) -> None:
        """It is down, and ``withdrawal`` was known when it went; a newer one stands."""
        if withdrawal is None:
            return
        self._before[connection] = withdrawal.pause, now
        if self._waiting.get(connection) is withdrawal:
            del self._waiting[connection]

    def failed(self, connection: Connection, why: str, now: int, interrupted: bool = False) -> None:
        """An attempt was in vain: the next one waits longer; after one that has ``interrupted`` it even if there is
        news.
        """
        waiting = self._waiting.get(connection)
        if waiting is not None:
            waiting.reason = why
            waiting.pause = min(2 * waiting.pause, LONGEST_PAUSE_US)
            waiting.at = now + waiting.pause
            if interrupted:
                waiting.not_before = now + LEAST_PAUSE_US

    def try_all(self, now: int) -> None:
        """There is news: every connection is tried in the next turns, unless it has just been."""
        for waiting in self._waiting.values():
            waiting.at = min(waiting.at, max(now, waiting.not_before))

    def poll_at(self) -> int:
        """When the next attempt is due; NEVER if none is."""
        # Asked in every turn.
        if not self._waiting:
            return NEVER
        return min((waiting.at for waiting in self._waiting.values()), default=NEVER)

    def due(self, now: int, most: int) -> list[Connection]:
        """At most ``most`` connections whose attempt is due; each has its next one after a pause."""
        found = []
        for connection, waiting in self._waiting.items():
            if waiting.at <= now:
                waiting.at = now + waiting.pause
                found.append(connection)
                if len(found) == most:
                    break
        return found
