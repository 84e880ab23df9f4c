"""What a target still owes the host of one connection's received bytes: the delivery algorithm (13.2), from outside.

What has reached the target is known from its link, as an upper bound: it may not have looked yet, or have had no
window. What it has acknowledged on the wire is certain.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from chimney.ndis.capabilities import TcpConnectionOffloadParameters
from chimney.ndis.crossing import Crossing, Kind
from chimney.verifier.books import Books, Completed, Request
from chimney.verifier.relations import view_bytes
from chimney.verifier.streams import Stream

NOTHING, COMPLETED, ACCEPTED, REFUSED = "nothing", "completed", "accepted", "refused"
_SAME_TIME_US = 5000


@dataclass(slots=True, eq=False)
class Owed:
    """Something that the target should have done by now: since when, and how often it has polled by then."""

    rules: tuple[str, ...]
    text: str
    since: int
    polls: int
    told: bool = False


@dataclass(slots=True, eq=False)
class Receiving:
    """One connection's receive requests and bytes at its target.

    ``requests`` are open, oldest first. ``upcall`` is the completion or indication that is running, ``posted_inside``
    and ``arrived_inside`` tell what has come meanwhile. ``last`` is the kind of upcall that ended last, at ``idle_at``;
    ``left_over`` whether a completion left bytes without requests, ``reenabled`` whether a zero-length request was
    completed last. ``blocked``: nothing may be indicated before a request is posted; ``fresh``: bytes have come since.
    The bytes from ``refused_from`` to ``refused_to`` have been refused and not delivered yet. ``posted_with``: how far
    the bytes reached when the last request was posted. ``arrivals`` has (position behind it, time) of what has
    arrived, ``pushes`` (position, time) of PSH. ``indicated_to`` and ``completed_to``: how far bytes have gone up
    by either way.
    """

    stream: Stream
    parameters: TcpConnectionOffloadParameters | None
    requests: deque[Request] = field(default_factory=deque)
    upcall: Crossing | None = None
    posted_inside: bool = False
    arrived_inside: bool = False
    last: str = NOTHING
    idle_at: int = 0
    left_over: bool = False
    reenabled: bool = False
    blocked: bool = False
    fresh: bool = False
    refused_from: int = 0
    refused_to: int = 0
    posted_with: int = 0
    indicated_to: int = 0
    completed_to: int = 0
    largest: int = 0
    seen: int = 0
    arrivals: deque[tuple[int, int]] = field(default_factory=deque)
    pushes: deque[tuple[int, int]] = field(default_factory=deque)
    pushed_again_at: int = -1
    reset_seen: bool = False
    owed: Owed | None = None
    unacknowledged: Owed | None = None

    @property
    def interval(self) -> int | None:
        """The push timer's length (us) when the connection was offloaded; None if nobody has set it."""
        if self.parameters is None or not self.parameters.ticks_per_second:
            return None
        return self.parameters.tcp_push_ticks * 1_000_000 // self.parameters.ticks_per_second

    @property
    def certain(self) -> int:
        """How far the target has the bytes without doubt: it has acknowledged them, or they were handed over."""
        return min(self.stream.receive.acknowledged, self.stream.receive.available)

    @property
    def head(self) -> Request | None:
        """The oldest open request."""
        while self.requests and self.requests[0].completed is not None:
            self.requests.popleft()
        return self.requests[0] if self.requests else None

    @property
    def ordinary(self) -> Request | None:
        """The oldest open request with room."""
        if self.head is None:
            return None
        return next((r for r in self.requests if r.completed is None and r.length > r.prefilled), None)

    @property
    def refused(self) -> bool:
        """Whether refused bytes wait."""
        return self.refused_to > self.stream.receive.delivered

    @property
    def excused(self) -> bool:
        """Whether the connection has ended or goes back, so that nothing need be delivered any more."""
        stream = self.stream
        ended = stream.failed or stream.leaving or self.reset_seen or stream.abort_event is not None
        return ended or stream.terminated is not None

    def arrived(self, at: int, position: int, length: int, push: bool) -> None:
        """A segment reached the target, ``length`` bytes from ``position``; the books have it already."""
        receive = self.stream.receive
        while self.arrivals and self.arrivals[0][0] <= receive.delivered:
            self.arrivals.popleft()
        while self.pushes and self.pushes[0][0] <= receive.delivered:
            self.pushes.popleft()
        self.largest = max(self.largest, length)
        if receive.available > self.seen:
            self.seen = receive.available
            if self.arrivals and at - self.arrivals[-1][1] < _SAME_TIME_US:
                self.arrivals[-1] = (self.seen, self.arrivals[-1][1])
            else:
                self.arrivals.append((self.seen, at))
            self.fresh = True
            if self.upcall is not None:
                self.arrived_inside = True
        if push and position + length > receive.delivered:
            self.pushes.append((position + length, at))
        elif push:
            self.pushed_again_at = at

    def arrival(self, position: int) -> int:
        """When the byte at ``position`` arrived; 0 if that is not known any more."""
        return next((at for end, at in self.arrivals if end > position), 0)

    def pushed(self, start: int, end: int) -> bool:
        """Whether a PSH stands within these bytes."""
        return any(start < position <= end for position, _ in self.pushes)


def receiving(stream: Stream) -> Receiving | None:
    """What is known of the connection's receiving, None before its first request, segment or indication."""
    found: Receiving | None = stream.facts.get("receiving: state")
    return found


def receiving_of(books: Books, stream: Stream) -> Receiving:
    """What is known of the connection's receiving, from now on."""
    found = receiving(stream)
    if found is None:
        item = stream.bottom
        parameters = None if item is None else books.of(item.boundary).parameters
        found = stream.facts["receiving: state"] = Receiving(stream, parameters)
        # What was handed over is not indicated before a request is posted (initiate.buffered.wait).
        found.blocked = stream.receive.handed_over > 0
        found.seen = found.posted_with = stream.receive.handed_over
    return found


def push_interval(books: Books, state: Receiving) -> int | None:
    """The push timer's length (us), None if it is not known for sure: never set, or changed meanwhile."""
    item = state.stream.bottom
    parameters = None if item is None else books.of(item.boundary).parameters
    return state.interval if parameters is state.parameters else None


def receives(entries: list[Completed]) -> list[tuple[Completed, Request, int]]:
    """The receives among the lists of a completion above a target: each with its request, and the position of its
    first byte.
    """
    starts: dict[int, int] = {}
    for entry in entries:
        if entry.request is not None and entry.request.kind is Kind.RECEIVE:
            stream = entry.request.stream
            starts[id(stream)] = starts.get(id(stream), stream.receive.delivered) - len(entry.delivered)
    found = []
    for entry in entries:
        if entry.request is not None and entry.request.kind is Kind.RECEIVE:
            key = id(entry.request.stream)
            found.append((entry, entry.request, starts[key]))
            starts[key] += len(entry.delivered)
    return found


def misplaced(entry: Completed, stream: Stream) -> str:
    """What is wrong with the bytes in the memory of a completed receive; empty if nothing is."""
    request, view = entry.request, entry.view
    if request is None or stream.receive.unsure:
        return ""
    before = request.prefilled
    count = view.bytes_transferred - before
    if count <= 0:
        return ""
    if view.bytes_transferred > request.length:
        return f"{view.bytes_transferred} bytes reported of a buffer of {request.length}"
    if len(entry.delivered) < count:
        return f"{count} bytes reported, but only {len(entry.delivered)} more have come from the peer"
    if view_bytes((request.view,), before + count)[before:] != entry.delivered:
        return "the buffer does not hold what the peer has sent next"
    return ""
