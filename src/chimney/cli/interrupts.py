"""Ctrl-C and SIGTERM as an exception that does not come where something would be left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """From now on both signals raise KeyboardInterrupt in the main thread; within `held` they wait until its end."""

    def __init__(self) -> None:
        self._holding = 0
        self._waiting = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *signal_and_frame: object) -> None:
        if self._holding:
            self._waiting = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """For steps that must not be torn apart, and end soon."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if self._waiting and not self._holding:
            self._waiting = False
            raise KeyboardInterrupt
