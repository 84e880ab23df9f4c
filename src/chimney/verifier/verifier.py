"""The verifier: an observer that knows the rules."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

from chimney.link.base import Link
from chimney.ndis.crossing import Crossing, Observer, Stage
from chimney.ndis.driver import Miniport, Protocol
from chimney.verifier.bookkeeping import Bookkeeping
from chimney.verifier.books import ObjectBook
from chimney.verifier.catalogue import Rule, catalogue
from chimney.verifier.check import (
    ELSEWHERE,
    EVENTS,
    FINISH,
    PACKET,
    POLLED,
    SEGMENT_IN,
    SEGMENT_KEPT,
    SEGMENT_OUT,
    hooks_of,
)
from chimney.verifier.checks import all_checks
from chimney.verifier.door import WatchedLink
from chimney.verifier.limits import Limits
from chimney.verifier.overdue import Debts
from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream
from chimney.verifier.violation import RuleViolation, VerificationError, VerifierFailure, Violation, line

_HISTORY = 40
_KEPT_VIOLATIONS = 1000
# A batch may be about more connections than fit into a line.
_NAMED = 4


class Mode(Enum):
    """What to do about a broken rule: raise VerificationError where it happens, issue a RuleViolation warning, or only
    count it. The last two leave the traffic alone, even if the verifier itself has a bug (`Verifier.failures`).
    """

    ABORT = "abort"
    WARN = "warn"
    COUNT = "count"


class Verifier(Observer):
    """Watches bindings (``bind(..., observer=verifier)``) and links (`watch`) for broken rules.

    clock  tells the time in microseconds.

    exercised   rule id -> how often there was something to check.
    violations  what was found, the first thousand (warnings are issued of these alone); ``counts`` has how many there
                were of each rule.
    failures    where the verifier itself has failed, and how: from there on it may say what is wrong.
    """

    def __init__(self, clock: Callable[[], int], mode: Mode = Mode.COUNT) -> None:
        super().__init__(clock)
        self.mode = mode
        self.books = Bookkeeping()
        self.debts = Debts()
        self.exercised: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.failures: dict[str, str] = {}
        self.links: list[WatchedLink] = []
        self.limits: dict[str, Limits] = {}
        self._history: deque[Crossing | Packet] = deque(maxlen=_HISTORY)
        # The books come first: checks find in them what has just come.
        self._listeners: list[Any] = [self.books, *(checks(self) for checks in all_checks())]
        # By event; most of them never happen in one run.
        self._hooks: list[list[Callable[..., None]] | None] = [None] * EVENTS

    def hooks(self, event: int) -> list[Callable[..., None]]:
        """Who is told of an event (`check.entering`, `check.leaving`, `check.PACKET`, ...), in order."""
        found = self._hooks[event]
        if found is None:
            listeners = self._listeners
            found = self._hooks[event] = [getattr(listeners[which], name) for which, name in _plan()[event]]
        return found

    def watch(self, link: Link) -> Link:
        """The link to give to a target instead of ``link``: the verifier sees its frames."""
        watched = WatchedLink(link, self.next_number, self.clock)
        watched.report = self.packet
        watched.polled = self.polled
        self.links.append(watched)
        return watched

    def know(self, target: str, limits: Limits) -> None:
        """Announce what the target of this name has room for: with it, the codes of refused objects are checked."""
        self.limits[target] = limits

    def enter(self, crossing: Crossing) -> None:
        self._history.append(crossing)
        self._tell(4 * crossing.kind.index + crossing.stage.index, crossing)

    def leave(self, crossing: Crossing) -> None:
        event = 4 * crossing.kind.index + crossing.stage.index + 2
        if isinstance(crossing.raised, VerificationError):
            # What this call has not done any more is nobody's fault.
            for hook in self.hooks(event):
                if hook.__self__ is self.books:  # type: ignore[attr-defined]
                    hook(crossing)
            return
        self._tell(event, crossing)

    def packet(self, packet: Packet) -> None:
        """A frame passes a link's door."""
        self._history.append(packet)
        self.debts.passed(packet)
        try:
            self._tell(PACKET, packet)
            item = packet.book
            if item is not None and item.stream is not None:
                way = SEGMENT_IN if packet.incoming else SEGMENT_OUT if packet.sent else SEGMENT_KEPT
                self._tell_segment(way, packet, item, item.stream)
        finally:
            # Whoever keeps the packet must not keep the application's memory, or the link's.
            packet.parts.clear()

    def polled(self, link: str) -> None:
        """A target asks its link for frames."""
        for debt in self.debts.polled(link, self.clock(), len(self.books.streams)):
            self._call(debt.told, debt)
        self._tell(POLLED, link)

    def heard_elsewhere(self, flow: tuple[bytes, int, bytes, int], segment: memoryview) -> None:
        """The host has heard a segment of a flow (our side first) on an interface without a target of its own."""
        for hook in self.hooks(ELSEWHERE):
            self._call(hook, flow, segment)

    def finish(self) -> None:
        """The run is over, everything has been taken back: what is left open is a finding. What comes after this is not
        looked at any more, and calling it again does nothing.
        """
        try:
            for hook in self.hooks(FINISH):
                self._call(hook)
        finally:
            # What checks and books remember keeps sockets and memory of the run alive.
            self.books = Bookkeeping()
            for listener in self._listeners[1:]:
                listener.books = self.books
            self._hooks = [[]] * EVENTS
            self._listeners.clear()
            self._history.clear()
            self.debts = Debts()

    def _tell(self, event: int, subject: Crossing | Packet | str) -> None:
        # Written out, as in `_tell_segment`: a call of unknown arguments costs twice as much, and there are thousands.
        for hook in self._hooks[event] or self.hooks(event):
            try:
                hook(subject)
            except Exception as error:
                self._raised(hook, error)

    def _tell_segment(self, event: int, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        for hook in self._hooks[event] or self.hooks(event):
            try:
                hook(packet, item, stream)
            except Exception as error:
                self._raised(hook, error)

    def _call(self, hook: Callable[..., None], *arguments: Any) -> None:
        try:
            hook(*arguments)
        except Exception as error:
            self._raised(hook, error)

    def _raised(self, hook: Callable[..., None], error: Exception) -> None:
        if self.mode is Mode.ABORT or isinstance(error, (VerificationError, RuleViolation)):
            raise error
        self._failed(hook, error)

    def _failed(self, hook: Callable[..., None], error: Exception) -> None:
        """A bug of the verifier's own must not stop a server; it is told once for each place."""
        place = hook.__qualname__
        if place not in self.failures:
            at = traceback.extract_tb(error.__traceback__)[-1]
            self.failures[place] = f"{place}: {error!r} at {at.filename}:{at.lineno}"
            warnings.warn(f"the verifier has failed: {self.failures[place]}", VerifierFailure, stacklevel=4)

    def report(
        self,
        rule_id: str,
        message: str,
        where: Crossing | Packet | ObjectBook | None,
        connection: Stream | ObjectBook | None,
        culprit: str,
    ) -> None:
        """A rule was broken. Raises VerificationError in mode ABORT."""
        rule = catalogue()[rule_id]
        self.counts[rule_id] += 1
        kept = len(self.violations) < _KEPT_VIOLATIONS
        if not kept and self.mode is not Mode.ABORT:
            return
        violation = Violation(
            rule,
            culprit or _culprit(rule, where),
            connection.label if connection is not None else self._about(where),
            message,
            self.clock(),
            tuple(line(event, self._about(event) if isinstance(event, Crossing) else "") for event in self._history),
        )
        if kept:
            self.violations.append(violation)
        if self.mode is Mode.ABORT:
            raise VerificationError(violation)
        if self.mode is Mode.WARN:
            warnings.warn(str(violation), RuleViolation, stacklevel=2)

    def _about(self, where: Crossing | Packet | ObjectBook | None) -> str:
        """The connections that something is about, by their labels."""
        if isinstance(where, ObjectBook):
            return where.label
        if isinstance(where, Packet):
            return "" if where.stream is None else where.stream.label
        labels = [] if where is None else self.books.labels(where)
        return ", ".join(labels) if len(labels) < _NAMED else f"{len(labels)} connections"


@cache
def _plan() -> list[tuple[tuple[int, str], ...]]:
    """Who listens to what: the books and all checks, in the order of `Verifier._listeners`."""
    return hooks_of([Bookkeeping, *all_checks()])


def _culprit(rule: Rule, where: Crossing | Packet | ObjectBook | None) -> str:
    """Who has broken a rule, by name where that is known."""
    if rule.binds == "ndis" or where is None:
        return rule.binds
    if isinstance(where, Packet):
        item = where.book
        if item is None:
            return f"{rule.binds} at {where.link}"
        while rule.binds == "host_stack" and item.above is not None:
            item = item.above
        return item.boundary.protocol.name if rule.binds == "host_stack" else item.boundary.miniport.name
    boundary = where.boundary
    if rule.binds == "host_stack":
        return boundary.protocol.name
    if rule.binds == "target":
        return boundary.miniport.name
    edges: list[Protocol | Miniport] = [boundary.protocol, boundary.miniport]
    if isinstance(where, Crossing) and where.kind.down == (where.stage is Stage.HANDLER):
        edges.reverse()
    # Of two drivers, the one that calls, or whose handler is called.
    return next((edge.name for edge in edges if edge.driver is not None), rule.binds)
