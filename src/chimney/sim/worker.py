"""A worker: a process that runs cases, and does not survive everything (`chimney.sim.minder` minds it).

It sits on the other end of a socket pair. Sent a `Chunk` or a `Single`, it says of every run that it begins which one
it is, a `Begun`, and at last sends one result: `Figures` or an `Outcome`. Whoever minds it knows at any time what it is
at.
"""

from __future__ import annotations

import gc
import resource
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import msgspec

from chimney.sim.campaign import Chunk, Figures, Plan, Run
from chimney.sim.case import Case
from chimney.sim.outcome import Finding, Outcome

# A worker that nobody needs any more ends by itself.
_IDLE_S = 60.0
# A run that grows without end must fail, not its neighbours.
_MEMORY = 4 << 30
_FRAMES_SHOWN = 4

PROCESS_ENDS_AFTER = 1.5
"""What a worker's own alarm cannot end (a loop in compiled code) ends with its process, at so many times the limit."""

Begun = tuple[int, int, bool, bytes]
"""Number and variant of a run, whether this chunk counts it (`_Runs._base`), and the case, encoded."""

Begin = Callable[[int, int, bool, Case], None]
"""Called before each run with what makes a `Begun`."""


@dataclass(frozen=True, slots=True)
class Single:
    """One case to run, its log wanted or not."""

    plan: Plan
    case: Case
    log: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """What a worker sends if it cannot do what it was asked for. This is no finding: cases cannot even be made."""

    reason: str


class _Hang(BaseException):
    """Not an Exception: nothing on the way may take it for a failure of its own."""


class Alarm:
    """Ends a run that takes too long, by the CPU time of this process: how long a machine that has other things to do
    takes for a run says nothing about it. For a process's main thread.
    """

    def __init__(self) -> None:
        self._armed = False
        signal.signal(signal.SIGPROF, self._ring)
        # This one ends the process.
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            raise _Hang

    def run(self, run: Run, case: Case, seconds: float, **options: Any) -> Outcome:
        """Run ``case`` with ``options``; never raises for what happens in it."""
        try:
            self._armed = True
            # Again every second: the first may come within a callback whose exceptions are ignored.
            signal.setitimer(signal.ITIMER_PROF, seconds, 1)
            signal.setitimer(signal.ITIMER_VIRTUAL, PROCESS_ENDS_AFTER * seconds)
            try:
                return run(case, **options)
            finally:
                self._armed = False
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                signal.setitimer(signal.ITIMER_PROF, 0)
        except _Hang as hang:
            frames = traceback.extract_tb(hang.__traceback__)[-_FRAMES_SHOWN - 1 : -1]
            where = ", called in ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
            return Outcome(case, [Finding("hang", f"no end after {seconds:g} s of CPU time, in {where}", 0, 0)])
        except Exception as error:
            return Outcome(case, [Finding(f"crash: {type(error).__name__}", str(error), 0, 0)])


class _Runs:
    """The runs of one part of a case."""

    def __init__(self, chunk: Chunk, part: int, figures: Figures, begin: Begin, alarm: Alarm) -> None:
        self._chunk, self._figures, self._begin, self._alarm = chunk, figures, begin, alarm
        self._index, self._part = divmod(part, chunk.plan.parts)
        self._run = chunk.plan.runner()
        self._variants = 0

    def all(self) -> None:
        """Run them."""
        plan = self._chunk.plan
        if not plan.sweep:
            self._next(plan.case(self._index))
            return
        for number, case in enumerate(plan.swept(self._index, self._base)):
            self._next(case, wanted=number % plan.parts == self._part)

    def _base(self, case: Case) -> Outcome:
        """A run that tells what there is to vary. Every part needs it, one counts it."""
        return self._next(case, counted=self._part == 0)

    def _next(self, case: Case, wanted: bool = True, counted: bool = True) -> Outcome:
        number = self._index, self._variants
        self._variants += 1
        if not wanted or number in self._chunk.skip:
            return Outcome(case)
        self._begin(*number, counted, case)
        outcome = self._alarm.run(self._run, case, self._chunk.plan.limit_s)
        if counted:
            self._figures.add(*number, outcome)
        return outcome


def run_chunk(chunk: Chunk, begin: Begin, alarm: Alarm) -> Figures:
    """Run the cases of a chunk, fewer if there are failures enough for its plan."""
    figures, started = Figures(), time.monotonic()
    for part in range(chunk.first, chunk.first + chunk.count):
        _Runs(chunk, part, figures, begin, alarm).all()
        figures.parts += 1
        if 0 < chunk.plan.stop_at <= len(figures.failures):
            break
    figures.seconds = time.monotonic() - started
    return figures


def main(descriptor: int) -> None:
    """A worker's life: it does what is asked for on the socket ``descriptor``, until that is closed."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard), hard))
    alarm = Alarm()
    connection: Connection[Any, Any] = Connection(descriptor)
    # What is there now stays: the collector need not look at it again and again.
    gc.freeze()
    # A run makes much that is gone when it is over: looking for it less often is a tenth of the time.
    gc.set_threshold(50_000, 20, 50)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while connection.poll(_IDLE_S):
            connection.send(_do(connection.recv(), connection, alarm))


def _do(what: Chunk | Single, connection: Connection[Any, Any], alarm: Alarm) -> Figures | Outcome | NoAnswer:
    def begin(index: int, variant: int, counted: bool, case: Case) -> None:
        connection.send((index, variant, counted, msgspec.msgpack.encode(case)))

    try:
        if isinstance(what, Chunk):
            return run_chunk(what, begin, alarm)
        begin(0, 0, True, what.case)
        options = {"log": connection.send} if what.log else {}
        return alarm.run(what.plan.runner(), what.case, what.plan.limit_s, **options)
    except Exception:
        return NoAnswer(traceback.format_exc())
