"""What `chimney simulate` does with single runs: looks at one, and makes a failing one small and readable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from chimney.sim import kept
from chimney.sim.campaign import FINDINGS_KEPT, Failure, Plan
from chimney.sim.case import Case
from chimney.sim.minder import Minder
from chimney.sim.outcome import Finding, Outcome
from chimney.sim.shrink import shrink as shrunk
from chimney.sim.worker import Single
from chimney.trace import Capture

_KINDS = 10
# Shrinking ends after so long, small enough or not; and does not wait for every hang as long as a campaign does.
_PATIENCE_S = 120.0
_HANGS_AFTER_S, _WAITS_AFTER_S = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class Example:
    """A failing run, made small: what it is called, what was found, its log, and the file that has the case.

    ``runs`` is how many it took to make it small; 0: it is as it was found. ``again`` says whether it was found again
    when the log was made; ``findings`` are those of the campaign if not.
    """

    name: str
    kind: str
    case: Case
    findings: tuple[Finding, ...]
    log: tuple[str, ...]
    path: Path
    runs: int
    again: bool


def look(plan: Plan, index: int, line: Callable[[str], None] | None, pcapng: Path | None) -> Outcome:
    """Run one case in this process. ``line`` is called with every line of its log; ``pcapng`` is to have its packets,
    with the log as comments. Raises OSError.
    """
    options: dict[str, Any] = {}
    with ExitStack() as stack:
        if pcapng is not None:
            capture = Capture(stack.enter_context(pcapng.open("wb")))
            options["tap"] = capture.tap

            def remarked(text: str, then: Callable[[str], None] | None = line) -> None:
                # Not the legend.
                if not text.startswith("#"):
                    capture.remark(text)
                if then is not None:
                    then(text)

            line = remarked
        return plan.runner()(plan.case(index), log=line, **options)


def examine(plan: Plan, failures: Iterable[Failure], folder: Path, shrink: bool) -> Iterator[Example]:
    """The first failure of each kind, made small if ``shrink``, and written to ``folder``.

    Raises CampaignError and OSError.
    """
    kinds: dict[str, Failure] = {}
    for failure in failures:
        kinds.setdefault(failure.kind, failure)
    with Minder() as minder:
        for kind, failure in list(kinds.items())[:_KINDS]:
            case, runs = _small(minder, plan, failure) if shrink else (failure.case, 0)
            log: list[str] = []
            outcome = minder.single(Single(plan, case, log=True), log.append)
            again = [finding for finding in outcome.findings if finding.kind == kind]
            findings = tuple(outcome.findings[:FINDINGS_KEPT]) if again else failure.findings
            name = plan.name(failure.index, failure.variant)
            why = f"{kind}: {(again or findings)[0].message} ({name})"
            path = kept.write(folder, name, kind, case, why)
            yield Example(name, kind, case, findings, tuple(log), path, runs, bool(again))


def _small(minder: Minder, plan: Plan, failure: Failure) -> tuple[Case, int]:
    impatient = replace(
        plan, limit_s=min(plan.limit_s, _HANGS_AFTER_S), patience_s=min(plan.patience_s, _WAITS_AFTER_S)
    )
    until = monotonic() + _PATIENCE_S
    runs = 0

    def fails(case: Case) -> bool:
        nonlocal runs
        if monotonic() > until:
            return False
        runs += 1
        return any(finding.kind == failure.kind for finding in minder.single(Single(impatient, case)).findings)

    return shrunk(failure.case, fails), runs
