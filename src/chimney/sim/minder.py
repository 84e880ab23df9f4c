"""Those who mind workers: a run that kills its process, or hangs in it, is a finding like any other."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Self

import msgspec

from chimney.sim.campaign import CampaignError, Chunk, Figures
from chimney.sim.case import Case
from chimney.sim.outcome import Finding, Outcome
from chimney.sim.worker import PROCESS_ENDS_AFTER, Begun, NoAnswer, Single

# A process that is to begin its first run, on a machine that has other things to do, may take so long.
_START_S = 600.0
# A process that dies may be another's victim; the run at which two have died is to blame.
_DEATHS = 2

Line = Callable[[str], None]


class _Died(Exception):
    """The worker's process has ended, or was ended because it hung, at ``run``."""

    def __init__(self, run: Begun, finding: Finding) -> None:
        super().__init__(finding.message)
        self.run, self.finding = run, finding


class _DiedIdle(Exception):
    """The worker's process has ended before it began a run."""


def _ignore(line: str) -> None:
    pass


class Minder:
    """Minds one worker: has a process made when one is needed, and another one when it has died.

    One thread at a time may use it; any may call `end` and `close`.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the worker's process, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    def end(self) -> None:
        """End the process, now or soon; who waits for its result gets a CampaignError."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        self.end()
        if self._process is not None:
            self._process.wait()

    def chunk(self, chunk: Chunk) -> Figures:
        """Run a chunk. If the process dies, another one starts over; if that dies at the same run, the run is to blame.

        Raises CampaignError if no process can do it.
        """
        blamed = Figures()
        deaths: Counter[tuple[int, int]] = Counter()
        while True:
            try:
                figures = self._ask(chunk)
            except _Died as death:
                index, variant, counted, case = death.run
                deaths[index, variant] += 1
                if deaths[index, variant] == _DEATHS:
                    chunk = replace(chunk, skip=chunk.skip | {(index, variant)})
                    if counted:
                        outcome = Outcome(msgspec.msgpack.decode(case, type=Case), [death.finding])
                        blamed.add(index, variant, outcome)
            else:
                assert isinstance(figures, Figures)
                figures.merge(blamed)
                return figures

    def single(self, single: Single, line: Line = _ignore) -> Outcome:
        """Run one case; ``line`` is called with every line of its log, up to the death of the process, if it dies.

        Raises CampaignError if no process can do it.
        """
        try:
            outcome = self._ask(single, line)
        except _Died as death:
            return Outcome(single.case, [death.finding])
        assert isinstance(outcome, Outcome)
        return outcome

    def _ask(self, what: Chunk | Single, line: Line = _ignore) -> object:
        try:
            return self._attempt(what, line)
        except _DiedIdle:
            # It may have gone for want of work, just when it was asked.
            try:
                return self._attempt(what, line)
            except _DiedIdle as death:
                raise CampaignError(f"a worker cannot work here: {death}") from death

    def _attempt(self, what: Chunk | Single, line: Line) -> object:
        run: Begun | None = None
        patience = _START_S
        connection = self._started()
        try:
            connection.send(what)
            while connection.poll(patience):
                match connection.recv():
                    case tuple() as begun:
                        run, patience = begun, what.plan.patience_s
                    case str() as text:
                        line(text)
                    case NoAnswer(reason):
                        raise CampaignError(reason)
                    case result:
                        return result
        except (EOFError, OSError, pickle.UnpicklingError):
            ended = self._ended()
            if ended == signal.SIGVTALRM.name:
                cpu = PROCESS_ENDS_AFTER * what.plan.limit_s
                finding = Finding("hang", f"no end after {cpu:g} s of CPU time, but that of its process", 0, 0)
            else:
                finding = Finding("killed", f"the process that ran it died ({ended})", 0, 0)
        else:
            assert self._process is not None
            self._process.kill()
            self._ended()
            finding = Finding("hang", f"nothing happens in it: {patience:g} s, but no end", 0, 0)
        if self._closed:
            raise CampaignError("the campaign is over")
        if run is None:
            raise _DiedIdle(finding.message)
        raise _Died(run, finding)

    def _started(self) -> Connection[Any, Any]:
        if self._connection is not None:
            # It may have ended by itself, for having nothing to do.
            if not self._connection.poll(0):
                return self._connection
            self._ended()
        self._connection, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from chimney.sim.worker import main; main({descriptor})"],
                # It finds what this process finds; Ctrl-C is for this process alone.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
                process_group=0,
            )
        if self._closed:
            self._process.kill()
        return self._connection

    def _ended(self) -> str:
        """How the process has ended; it ends now if it has not."""
        assert self._process is not None and self._connection is not None
        self._connection.close()
        self._connection = None
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


class LocalCrew:
    """Workers of this machine, ``jobs`` of them, each minded by a thread."""

    lost: tuple[type[Exception], ...] = ()

    def __init__(self, jobs: int) -> None:
        self._minders = [Minder() for _ in range(jobs)]
        self._idle: SimpleQueue[Minder] = SimpleQueue()
        for minder in self._minders:
            self._idle.put(minder)
        self._threads = ThreadPoolExecutor(jobs, "minder")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # All are told before any is waited for: whoever has no patience with this (Ctrl-C once more) has done enough.
        for minder in self._minders:
            minder.end()
        self._threads.shutdown(cancel_futures=True)
        for minder in self._minders:
            minder.close()

    def slots(self) -> int:
        """How many chunks run at once."""
        return len(self._minders)

    def submit(self, chunk: Chunk) -> Future[Figures]:
        """Have a chunk run by somebody."""
        return self._threads.submit(self._run, chunk)

    def _run(self, chunk: Chunk) -> Figures:
        minder = self._idle.get()
        try:
            return minder.chunk(chunk)
        finally:
            self._idle.put(minder)
