"""The verifier: an observer that knows the rules."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from chimney.link.base import Link
from chimney.ndis.crossing import Boundary, Crossing, Observer
from chimney.verifier.books import Books, ObjectBook
from chimney.verifier.catalogue import Rule, catalogue
from chimney.verifier.checks import all_checks
from chimney.verifier.door import WatchedLink
from chimney.verifier.limits import Limits
from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream
from chimney.verifier.violation import RuleViolation, VerificationError, Violation, line

_HISTORY = 40
_KEPT_VIOLATIONS = 1000


class Mode(Enum):
    """What to do about a broken rule: raise VerificationError where it happens, issue a RuleViolation warning, or only
    count it.
    """

    ABORT = "abort"
    WARN = "warn"
    COUNT = "count"


class Verifier(Observer):
    """Watches bindings (``bind(..., observer=verifier)``) and links (`watch`) for broken rules.

    exercised   rule id -> how often there was something to check.
    violations  what was found, the first thousand; ``counts`` has all by rule.
    """

    def __init__(self, clock: Callable[[], int], mode: Mode = Mode.COUNT) -> None:
        super().__init__(clock)
        self.mode = mode
        self.books = Books()
        self.exercised: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.links: list[WatchedLink] = []
        self.limits: dict[str, Limits] = {}
        self._history: deque[Crossing | Packet] = deque(maxlen=_HISTORY)
        self._hooks: dict[Any, list[Callable[..., None]]] = {}
        self._finished = False
        for kind in all_checks():
            self._install(kind(self))

    def _install(self, checks: Any) -> None:
        for name in dir(type(checks)):
            for key in getattr(getattr(type(checks), name, None), "hooks", ()):
                self._hooks.setdefault(key, []).append(getattr(checks, name))

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
        self.books.enter(crossing)
        for check in self._hooks.get(("enter", crossing.kind, crossing.stage), ()):
            check(crossing)

    def leave(self, crossing: Crossing) -> None:
        self.books.leave(crossing)
        for check in self._hooks.get(("leave", crossing.kind, crossing.stage), ()):
            check(crossing)

    def packet(self, packet: Packet) -> None:
        """A frame passes a link's door."""
        self._history.append(packet)
        self.books.packet(packet)
        for check in self._hooks.get("packet", ()):
            check(packet)

    def polled(self, link: str) -> None:
        """A target asks its link for frames."""
        for check in self._hooks.get("polled", ()):
            check(link)

    def finish(self) -> None:
        """The run is over, everything has been taken back: what is left open is a finding. Calling it again does
        nothing.
        """
        if not self._finished:
            self._finished = True
            for check in self._hooks.get("finish", ()):
                check()
            # What they remember keeps sockets and memory of the run alive.
            self._history.clear()
            self.books = Books()

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
        stream = connection.stream if isinstance(connection, ObjectBook) else connection
        if stream is None and isinstance(where, Packet) and where.book is not None:
            stream = where.book.stream
        if stream is None and isinstance(where, Crossing):
            item = self.books.object(where)
            stream = None if item is None else item.stream
        label = stream.label if stream is not None else connection.label if connection is not None else ""
        violation = Violation(
            rule,
            culprit or _culprit(rule, where),
            label,
            message,
            self.clock(),
            tuple(line(event) for event in self._history),
        )
        if len(self.violations) < _KEPT_VIOLATIONS:
            self.violations.append(violation)
        if self.mode is Mode.ABORT:
            raise VerificationError(violation)
        if self.mode is Mode.WARN:
            warnings.warn(str(violation), RuleViolation, stacklevel=2)


def _culprit(rule: Rule, where: Crossing | Packet | ObjectBook | None) -> str:
    if rule.binds == "ndis" or where is None:
        return rule.binds
    if isinstance(where, Packet):
        return where.link
    boundary: Boundary = where.boundary
    if rule.binds == "host_stack":
        return boundary.protocol.name
    if rule.binds == "target":
        return boundary.miniport.name
    return boundary.protocol.name if boundary.protocol.driver is not None else boundary.miniport.name
