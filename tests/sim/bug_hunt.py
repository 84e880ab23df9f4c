"""Deliberate bugs, and how many runs of the simulator it takes to find each of them.

A bug is a function that patches the real code, or the model's use, with

    @bug("host")
    def forgets_kept_segments(patch):
        "What is mistaken, and where it was seen."

        @patch(ChimneyPath, "forward")
        def forward(original, self, segments): ...

in front of it. It is found by the first run that has a kind of finding which the same case does not have without it.

``python -m tests.sim.bug_hunt`` prints the table of all bugs; see ``--help``. Compiled classes cannot be patched: it
wants CHIMNEY_PURE=1 in the environment.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import pytest

from chimney import _build
from chimney.sim.campaign import Plan
from chimney.sim.case import Case
from chimney.sim.outcome import Outcome
from chimney.sim.run import run
from chimney.sim.worker import Alarm

ENOUGH = 20_000
"""So many runs must be enough to find a bug."""

# A run takes some milliseconds, a bug may well make it endless.
_LIMIT_S = 5.0

BUGS: dict[str, Bug] = {}


class Patch:
    """Takes the place of functions and methods; `Bug.in_place` undoes it.

    ``@patch(owner, name)`` in front of a function ``replacement(original, *arguments)``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set = monkeypatch.setattr

    def __call__(self, owner: object, name: str) -> Callable[[Callable], Callable]:
        original = getattr(owner, name)

        def decorate(replacement: Callable) -> Callable:
            def patched(*arguments, **keywords):
                return replacement(original, *arguments, **keywords)

            self.set(owner, name, patched)
            return replacement

        return decorate


@dataclass(frozen=True)
class Bug:
    """``layer`` is where the mistake is; ``near`` is the number of a case (of seed 0) that finds it, or did once: where
    the test begins to look, to be done soon.
    """

    name: str
    layer: str
    near: int
    put: Callable[[Patch], None]

    @property
    def mistake(self) -> str:
        """What is mistaken, in words."""
        return " ".join((self.put.__doc__ or "").split())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this, the bug is there."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            self.put(Patch(monkeypatch))
            yield


def bug(layer: str, near: int = 0) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a bug."""

    def register(put: Callable[[Patch], None]) -> Callable[[Patch], None]:
        name = put.__name__
        assert name not in BUGS, f"there are two bugs of the name {name}"
        BUGS[name] = Bug(name, layer, near, put)
        return put

    return register


@dataclass(frozen=True)
class Hunt:
    """How the search for a bug has ended: after so many ``runs``, in case number ``index``, by the findings ``kinds``
    (the first one's ``message`` is kept). ``runs`` is 0 if it was not found.
    """

    bug: str
    seed: int
    runs: int = 0
    index: int = -1
    kinds: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0


def hunt(bug: Bug, seed: int, first: int = 0, limit: int = ENOUGH) -> Hunt:
    """Run cases from number ``first`` on with the bug in place until it is found, ``limit`` of them at most."""
    plan, alarm, started = Plan(seed=seed), Alarm(), time.monotonic()
    for runs, index in enumerate(range(first, first + limit), start=1):
        case = plan.case(index)
        with bug.in_place():
            outcome = _outcome(alarm, case)
        if not outcome.findings:
            continue
        known = {finding.kind for finding in _outcome(alarm, case).findings}
        new = [finding for finding in outcome.findings if finding.kind not in known]
        if new:
            kinds = tuple(dict.fromkeys(finding.kind for finding in new))
            return Hunt(bug.name, seed, runs, index, kinds, new[0].message, time.monotonic() - started)
    return Hunt(bug.name, seed, seconds=time.monotonic() - started)


def _outcome(alarm: Alarm, case: Case) -> Outcome:
    return alarm.run(run, case, _LIMIT_S)


def _hunt(name: str, seed: int, first: int, limit: int) -> Hunt:
    """`hunt` for a worker's process."""
    return hunt(BUGS[name], seed, first, limit)


def prepare() -> None:
    """Once in each worker's process."""
    import tests.sim.deliberate_bugs  # noqa: F401

    assert _build.describe() == "pure Python", "compiled classes cannot be patched: set CHIMNEY_PURE=1"
    gc.freeze()


def workers(jobs: int) -> ProcessPoolExecutor:
    """Processes for `submit`."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), prepare)


def submit(pool: ProcessPoolExecutor, bug: Bug, seed: int, first: int = 0, limit: int = ENOUGH):
    """Have a bug hunted by one of `workers`; returns the future of the `Hunt`."""
    return pool.submit(_hunt, bug.name, seed, first, limit)


def main() -> int:
    """Print the table: bug, layer, runs for each seed, their median, and the findings."""
    parser = argparse.ArgumentParser(description="How many runs of the simulator find each deliberate bug.")
    parser.add_argument("names", nargs="*", help="of bugs; all of them if there are none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=int, default=ENOUGH, help="at most, for each bug and seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    prepare()
    bugs = [BUGS[name] for name in options.names] or list(BUGS.values())
    missed = 0
    with workers(options.jobs) as pool:
        futures = {bug.name: [submit(pool, bug, seed, 0, options.runs) for seed in options.seeds] for bug in bugs}
        for bug in bugs:
            hunts = [future.result() for future in futures[bug.name]]
            missed += not all(found.runs for found in hunts)
            print(_line(bug, hunts), flush=True)
    return 1 if missed else 0


def _line(bug: Bug, hunts: list[Hunt]) -> str:
    median = statistics.median(found.runs or ENOUGH * 10 for found in hunts)
    after = ", ".join(f"{found.runs or 'not found'}" for found in hunts)
    kinds = dict.fromkeys(kind for found in hunts for kind in found.kinds[:2])
    said = f"| {bug.name} | {bug.layer} | {median:.0f} ({after}) | {'; '.join(kinds) or '-'} |"
    return said


if __name__ == "__main__":
    # As the module that the bugs register with.
    from tests.sim import bug_hunt

    sys.exit(bug_hunt.main())
