"""What a check is made of: methods that are called for crossings and packets, and say what they found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.verifier.books import Books, ObjectBook
from chimney.verifier.packets import Packet
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

Method = TypeVar("Method", bound=Callable[..., None])


_CROSSINGS = 4 * len(Kind)
PACKET, SEGMENT_IN, SEGMENT_OUT, SEGMENT_KEPT, POLLED, ELSEWHERE, FINISH = range(_CROSSINGS, _CROSSINGS + 7)
"""Events beside the crossings', by number."""
EVENTS = _CROSSINGS + 7


def entering(kind: Kind, stage: Stage) -> int:
    """The number of the event that a crossing begins."""
    return 4 * kind.index + stage.index


def leaving(kind: Kind, stage: Stage) -> int:
    """The number of the event that a crossing has ended."""
    return 4 * kind.index + stage.index + 2


def enter(*kinds: Kind, stage: Stage = Stage.CALL) -> Callable[[Method], Method]:
    """Call the method with every crossing of these kinds when it begins (its arguments are those of that moment)."""
    return _hook(*(entering(kind, stage) for kind in kinds))


def leave(*kinds: Kind, stage: Stage = Stage.CALL) -> Callable[[Method], Method]:
    """Call the method with every crossing of these kinds when it has ended (``result``, ``raised`` are there)."""
    return _hook(*(leaving(kind, stage) for kind in kinds))


def packet(method: Method) -> Method:
    """Call the method with every frame at a link's door: before the target sees it, or after the link has taken it."""
    return _hook(PACKET)(method)


def segment(method: Method) -> Method:
    """Call the method with every segment of an offloaded connection at a link's door (``sent`` False: the link had no
    room), with the connection's object above its target, and its stream.
    """
    return _hook(SEGMENT_IN, SEGMENT_OUT, SEGMENT_KEPT)(method)


def segment_in(method: Method) -> Method:
    """Call the method, like `segment`, with those that a target receives."""
    return _hook(SEGMENT_IN)(method)


def segment_out(method: Method) -> Method:
    """Call the method, like `segment`, with those that a link has taken."""
    return _hook(SEGMENT_OUT)(method)


def polled(method: Method) -> Method:
    """Call the method, with the link's name, whenever a target asks its link for frames."""
    return _hook(POLLED)(method)


def elsewhere(method: Method) -> Method:
    """Call the method with every segment that the host has heard on another interface: its flow (our side first), and
    the segment from the TCP header on.
    """
    return _hook(ELSEWHERE)(method)


def finish(method: Method) -> Method:
    """Call the method, without arguments, when the run is over."""
    return _hook(FINISH)(method)


def _hook(*events: int) -> Callable[[Method], Method]:
    def mark(method: Method) -> Method:
        method.__dict__.setdefault("hooks", []).extend(events)
        return method

    return mark


def hooks_of(listeners: Sequence[type]) -> list[tuple[tuple[int, str], ...]]:
    """For each event: who is told of it, as (which listener, name of the method), in order. Of one listener, methods
    are told in the order of their names.
    """
    found: list[list[tuple[int, str]]] = [[] for _ in range(EVENTS)]
    for which, listener in enumerate(listeners):
        for name in dir(listener):
            for event in getattr(getattr(listener, name, None), "hooks", ()):
                found[event].append((which, name))
    return [tuple(entries) for entries in found]


class Checks:
    """Checks of some rules; a subclass names them in ``RULES`` and has methods with the decorators of this module.

    The books have been brought up to date before a method is called on enter, and on leave.
    """

    RULES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.books: Books = verifier.books
        self._exercised = verifier.exercised

    def connection(self, crossing: Crossing) -> tuple[ObjectBook, Stream] | None:
        """The connection of a crossing at a target's boundary."""
        item = self.books.object(crossing) if crossing.boundary.bottom else None
        return None if item is None or item.stream is None else (item, item.stream)

    def check(
        self,
        rule: str,
        ok: bool,
        message: str | Callable[[], str],
        where: Crossing | Packet | ObjectBook | None = None,
        connection: Stream | ObjectBook | None = None,
        culprit: str = "",
    ) -> None:
        """Say that ``rule`` had something to check, and whether it was obeyed.

        ``where`` tells who was at it and when, unless ``culprit`` is given by name. ``message`` says what was seen.
        """
        assert rule in self.RULES, f"{type(self).__name__} does not name {rule} in RULES"
        self._exercised[rule] = self._exercised.get(rule, 0) + 1
        if not ok:
            text = message if isinstance(message, str) else message()
            self.verifier.report(rule, text, where, connection, culprit)

    def exercise(self, rule: str) -> None:
        """Say that ``rule`` had something to check, and was obeyed."""
        assert rule in self.RULES, f"{type(self).__name__} does not name {rule} in RULES"
        self._exercised[rule] = self._exercised.get(rule, 0) + 1
