"""A campaign: many runs, their results added up as they come, until all are done or enough have failed.

Cases are numbered: number i of a plan is always the same one, whoever runs it. A campaign deals them out in chunks of
about a second each to a crew: processes of this machine (`chimney.sim.minder`) or a cluster (`chimney.sim.cluster`).
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Protocol, Self, cast

from chimney.sim.case import Case
from chimney.sim.outcome import Cell, Finding, Outcome

Run = Callable[..., Outcome]
"""`chimney.sim.run.run`, or what stands in for it."""

FINDINGS_KEPT = 5
"""So many findings of a run are kept: the first ones tell, what follows is mostly their consequence."""

FAILURES_KEPT = 1000
"""So many failing runs of a campaign, those of the lowest numbers, are kept with their cases; all are counted."""

PARTS = 16
"""A sweep of one case is hundreds of runs: it is dealt out in so many parts."""

_CHUNK_S = 1.0
_FIRST_CHUNK = 8
_TIMES_LOST = 3


class CampaignError(Exception):
    """The campaign cannot go on; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run, as data that can be sent anywhere.

    seed      decides the cases, unless they are given.
    cases     the cases themselves, number 0 first, and their ``names`` for people.
    sweep     run each case with hand-overs between any two of its events (`chimney.sim.sweep`).
    stop_at   a chunk ends early after so many failures; 0: it does not.
    limit_s   a run that takes more CPU time hangs.
    run       the names, as `pkgutil.resolve_name` takes them, of what runs a case, draws one, and sweeps one.
    patience_s  a run that takes longer, by the clock on the wall, hangs, too: it waits for something. Far more than
                ``limit_s``, for the machine may have other things to do.
    """

    seed: int = 0
    cases: tuple[Case, ...] = ()
    names: tuple[str, ...] = ()
    sweep: bool = False
    stop_at: int = 0
    limit_s: float = 20.0
    run: str = "chimney.sim.run:run"
    draw: str = "chimney.sim.corners:drawn"
    sweeper: str = "chimney.sim.sweep:sweep"
    patience_s: float = 600.0

    @property
    def parts(self) -> int:
        """In so many parts each case is dealt out."""
        return PARTS if self.sweep else 1

    def case(self, index: int) -> Case:
        """Case number ``index``."""
        if self.cases:
            return self.cases[index]
        return cast(Case, pkgutil.resolve_name(self.draw)(self.seed, index))

    def runner(self) -> Run:
        """What runs a case."""
        return cast(Run, pkgutil.resolve_name(self.run))

    def swept(self, index: int, run: Run) -> Iterator[Case]:
        """The variants of case number ``index``; ``run`` is used to learn what there is to vary."""
        return cast(Iterator[Case], pkgutil.resolve_name(self.sweeper)(self.case(index), run))

    def name(self, index: int, variant: int = 0) -> str:
        """What people call a run: ``seed7-run42``; of a sweep ``seed7-run42-3``, its fourth run."""
        base = self.names[index] if self.names else f"seed{self.seed}-run{index}"
        return f"{base}-{variant}" if self.sweep else base


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of a plan's cases: parts number ``first`` to ``first + count - 1``, counted over all cases in turn, without
    the runs to ``skip``: pairs of the case's number and the variant's.
    """

    plan: Plan
    first: int
    count: int
    skip: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Failure:
    """A run with findings, the first few of them; ``variant`` counts the runs of a sweep from 0."""

    index: int
    variant: int
    case: Case
    findings: tuple[Finding, ...]

    def number(self) -> tuple[int, int]:
        """What failures are in the order of."""
        return self.index, self.variant

    @property
    def kind(self) -> str:
        """That of the first finding."""
        return self.findings[0].kind


@dataclass(slots=True)
class Figures:
    """What runs have come to. ``parts`` counts those of the plan that are done, ``seconds`` is the time that workers
    took, ``simulated_us`` virtual time; ``failed`` counts runs with findings, ``findings`` those by kind, a kind once
    per run.
    """

    parts: int = 0
    runs: int = 0
    events: int = 0
    segments: int = 0
    simulated_us: int = 0
    hand_overs: int = 0
    bytes_delivered: int = 0
    failed: int = 0
    seconds: float = 0.0
    cells: Counter[Cell] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, index: int, variant: int, outcome: Outcome) -> None:
        """Count one run."""
        self.runs += 1
        self.events += outcome.events
        self.segments += outcome.segments
        self.simulated_us += outcome.simulated_us
        self.hand_overs += outcome.hand_overs
        self.bytes_delivered += outcome.bytes_delivered
        self.cells.update(outcome.cells)
        self.rules.update(outcome.rules)
        if outcome.findings:
            self.failed += 1
            self.findings.update(dict.fromkeys((finding.kind for finding in outcome.findings), 1))
            self.failures.append(Failure(index, variant, outcome.case, tuple(outcome.findings[:FINDINGS_KEPT])))

    def merge(self, other: Figures) -> None:
        """Add what other runs have come to."""
        for name in _ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        # Updating in place: a sum of counters copies both, for every chunk.
        self.cells.update(other.cells)
        self.rules.update(other.rules)
        self.findings.update(other.findings)
        if other.failures:
            # Those of the lowest numbers, whoever is done first.
            self.failures = sorted(self.failures + other.failures, key=Failure.number)[:FAILURES_KEPT]


_ADDED = ("parts", "runs", "events", "segments", "simulated_us", "hand_overs", "bytes_delivered", "failed", "seconds")


class Crew(Protocol):
    """Those who run chunks, until they are left."""

    lost: tuple[type[Exception], ...]
    """What a chunk's future raises if nobody can say what became of it; it is run again."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def slots(self) -> int:
        """How many chunks run at once, now."""

    def submit(self, chunk: Chunk) -> Future[Figures]:
        """Have a chunk run by somebody."""


def campaign(plan: Plan, cases: range, crew: Crew, stop_at: int = 0) -> Iterator[Figures]:
    """Run the ``cases`` (a range of numbers) of ``plan``; the figures so far after each chunk, always the same object.

    After ``stop_at`` failures no new chunk is begun. Those that are under way still come to their end, so that the
    failures of the lowest numbers are always the same ones; the last figures have ``stop_at`` failures at most, in
    the order of their numbers.

    Raises CampaignError.
    """
    total = Figures()
    pending: dict[Future[Figures], tuple[Chunk, int]] = {}
    following, end = cases.start * plan.parts, cases.stop * plan.parts
    while True:
        slots = max(crew.slots(), 1)
        enough = 0 < stop_at <= total.failed
        # Twice as many as run at once: nobody waits for its next chunk.
        while not enough and following < end and len(pending) < 2 * slots:
            count = _size(total, end - following, slots)
            chunk = Chunk(plan, following, count)
            pending[crew.submit(chunk)] = chunk, 0
            following += count
        if not pending:
            break
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            chunk, times = pending.pop(future)
            try:
                total.merge(future.result())
            except crew.lost as error:
                if times == _TIMES_LOST:
                    raise CampaignError(f"whoever runs {_said(chunk)} is lost: {error}") from error
                pending[crew.submit(chunk)] = chunk, times + 1
            except CancelledError as error:
                raise CampaignError(f"{_said(chunk)} were cancelled: the workers are gone") from error
        yield total
    total.failures = total.failures[: stop_at or None]
    yield total


def _size(total: Figures, left: int, slots: int) -> int:
    """How many parts take about a second; towards the end fewer, so that all are done at about the same time."""
    wanted = round(_CHUNK_S * total.parts / total.seconds) if total.seconds else _FIRST_CHUNK
    return max(1, min(wanted, -(-left // (2 * slots))))


def _said(chunk: Chunk) -> str:
    return f"{chunk.count} parts from number {chunk.first} on"
