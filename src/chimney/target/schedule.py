"""When each connection wants to be served next: a heap, so that idle connections cost nothing per poll."""

from __future__ import annotations

from heapq import heappop, heappush

from chimney.target.objects import TcpObject
from chimney.tcp.config import NEVER

_SLACK = 16


class Schedule:
    """Deadlines in microseconds, at most one that counts per connection: its ``scheduled_at``.

    A deadline that has moved to a later time is left where it is: the connection is served once in vain, and
    scheduled anew. Entries that no longer count are dropped when they come up, or all together when they outnumber
    the others: a keepalive's would stay for hours, and their connections with them.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TcpObject]] = []
        self._order = 0
        self._scheduled = 0

    def __len__(self) -> int:
        """Entries, those included that no longer count."""
        return len(self._heap)

    def add(self, tcp: TcpObject, deadline: int) -> None:
        """Serve ``tcp`` at ``deadline`` or earlier."""
        if deadline < tcp.scheduled_at:
            if tcp.scheduled_at == NEVER:
                self._scheduled += 1
            tcp.scheduled_at = deadline
            self._push(tcp)
            self._tidy()

    def forget(self, tcp: TcpObject) -> None:
        """The connection is gone."""
        if tcp.scheduled_at != NEVER:
            tcp.scheduled_at = NEVER
            self._scheduled -= 1
        self._tidy()

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
        self._scheduled -= 1
        return tcp

    def _push(self, tcp: TcpObject) -> None:
        self._order += 1
        heappush(self._heap, (tcp.scheduled_at, self._order, tcp))

    def _tidy(self) -> None:
        if len(self._heap) <= 2 * self._scheduled + _SLACK:
            return
        # Sorted, and a dict: equal deadlines stay in the order in which they were added.
        scheduled = dict.fromkeys([tcp for _, _, tcp in sorted(self._heap) if tcp.scheduled_at != NEVER])
        self._heap = []
        for tcp in scheduled:
            self._push(tcp)
