"""How much the engine does and keeps, in lines of Python executed and elements of lists (on the pure build)."""

import sys
from collections import deque
from types import FrameType

from chimney import _build

PACKAGE = "chimney.tcp"
PURE = _build.pure_requested()


class Work:
    """Counts the lines that are executed in the engine while it is entered (a context manager).

    Nothing is counted on the compiled build, which has no lines.
    """

    def __init__(self) -> None:
        self.lines = 0
        self._before = None

    def __enter__(self) -> "Work":
        self._before = sys.gettrace()
        if PURE:
            sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        if PURE:
            sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, argument: object):
        return self._line if frame.f_globals.get("__name__", "").startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: object):
        self.lines += 1
        return self._line


def kept(thing: object, apart: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Objects of the engine and elements of all lists that belong to one, and bytes in the memory they view.

    apart: attributes that are left out. (0, 0) on the compiled build, whose objects cannot be walked through.
    """
    elements = size = 0
    waiting: list[object] = [thing]
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, memoryview):
            size += thing.nbytes
        elif isinstance(thing, list | tuple | deque | set | dict):
            elements += len(thing)
            waiting += thing.values() if isinstance(thing, dict) else thing
        elif type(thing).__module__.startswith(PACKAGE):
            elements += 1
            named = getattr(thing, "__dict__", {})
            waiting += [value for name, value in named.items() if name not in apart]
    return elements, size
