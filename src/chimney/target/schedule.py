"""When each connection wants to be served next: a heap, so that idle connections cost nothing per poll."""

from __future__ import annotations

from heapq import heappop, heappush

from chimney.target.objects import TcpObject
from chimney.tcp.config import NEVER


class Schedule:
    """Deadlines in microseconds, at most one that counts per connection: its ``scheduled_at``.

    A deadline that has moved to a later time is left where it is: the connection is served once in vain, and
    scheduled anew. Entries that no longer count are dropped when they come up.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TcpObject]] = []
        self._order = 0

    def add(self, tcp: TcpObject, deadline: int) -> None:
        """Serve ``tcp`` at ``deadline`` or earlier."""
        if deadline < tcp.scheduled_at:
            tcp.scheduled_at = deadline
            self._order += 1
            heappush(self._heap, (deadline, self._order, tcp))

    def forget(self, tcp: TcpObject) -> None:
        """The connection is gone."""
        tcp.scheduled_at = NEVER

    def next_at(self) -> int:
        """The earliest deadline, NEVER if there is none."""
        heap = self._heap
        while heap:
            deadline, _, tcp = heap[0]
            if deadline == tcp.scheduled_at:
                return deadline
            heappop(heap)
        return NEVER

    def pop_due(self, now: int) -> TcpObject | None:
        """The connection with the earliest deadline, if that is not after ``now``; it has no deadline any more."""
        if self.next_at() > now:
            return None
        tcp = heappop(self._heap)[2]
        tcp.scheduled_at = NEVER
        return tcp
