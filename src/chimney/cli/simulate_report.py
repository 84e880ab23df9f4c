"""What `chimney simulate` says in the end, to people and to machines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

import typer

from chimney import _build
from chimney.cli.rules import wide_console
from chimney.cli.simulate_failures import Example
from chimney.sim.campaign import Failure, Figures, Plan
from chimney.sim.case import dump
from chimney.sim.coverage import missed, table, totals
from chimney.verifier.report import Coverage

_FAILURES_SHOWN = 20


@dataclass(slots=True)
class Report:
    """What a campaign has come to. ``cases`` are those that were wanted, ``seconds`` is how long it took, ``problems``
    why it did not come to its end.
    """

    plan: Plan
    cases: range
    figures: Figures = field(default_factory=Figures)
    seconds: float = 0.0
    examples: list[Example] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    # For people

    def title(self) -> str:
        """What was run."""
        cases = self.cases
        several = len(cases) > 1
        numbers = f"cases {cases[0]:,} to {cases[-1]:,}" if several else f"case {cases[0]:,}"
        kept = f"{len(cases):,} kept case{'s' if several else ''}"
        what = kept if self.plan.cases else f"seed {self.plan.seed}, {numbers}"
        return f"{what}{', swept' if self.plan.sweep else ''} ({_build.describe()})"

    def progress(self, seconds: float) -> str:
        """How far it has come after so long, in a few words."""
        self.seconds = seconds
        shown = self.in_words()
        names = ("runs", "with findings", "runs/s", "simulated s/s", "segments/s")
        return ", ".join(f"{shown[name]} {name}" for name in names)

    def in_words(self) -> dict[str, str]:
        """The figures by their names."""
        figures, per = self.figures, self._per_second()
        return {
            "runs": f"{figures.runs:,}",
            "with findings": f"{figures.failed:,}",
            "runs/s": f"{figures.runs * per:,.0f}",
            "simulated s": f"{figures.simulated_us / 1e6:,.0f}",
            "simulated s/s": f"{figures.simulated_us / 1e6 * per:,.0f}",
            "segments": f"{figures.segments:,}",
            "segments/s": f"{figures.segments * per:,.0f}",
            "events": f"{figures.events:,}",
            "hand-overs": f"{figures.hand_overs:,}",
            "bytes delivered": f"{figures.bytes_delivered:,}",
            "s": f"{self.seconds:,.1f}",
        }

    def print(self, with_coverage: bool) -> None:
        """Coverage, if it is wanted, then figures, then what was found: what matters most stands last."""
        console = wide_console()
        figures = self.figures
        if with_coverage:
            console.print(table(figures.cells))
        words = ", ".join(f"{value} {name}" for name, value in self.in_words().items())
        console.print(f"{self.title()}: {words}", markup=False, highlight=False, soft_wrap=True)
        if with_coverage:
            never = [rule.id for rule in Coverage(figures.rules).never()]
            exercised = sum(1 for count in figures.rules.values() if count)
            names = f": {', '.join(never)}" if never else ""
            console.print(f"{exercised} rules exercised, {len(never)} never{names}", highlight=False, soft_wrap=True)
        self._print_failures(console.print)
        for problem in self.problems:
            console.print(problem, style="red", markup=False, highlight=False)

    def _print_failures(self, to: Any) -> None:
        def say(text: str) -> None:
            to(text, markup=False, highlight=False, soft_wrap=True)

        for number, example in enumerate(self.examples):
            say(f"\n{example.name}\n")
            say(dump(example.case))
            for line in example.log:
                # The legend once.
                if not (number and line.startswith("#")):
                    say(line)
            say("")
            for finding in example.findings:
                say(f"{example.name}: {finding}")
            if not example.again:
                say("It was not found again: something else than the case decides it.")
            small = f"made small in {example.runs} runs, and " if example.runs else ""
            say(f"{small}kept: chimney simulate --replay {quote(str(example.path))} --log")
        if self.figures.failures:
            say("")
        for failure in self.figures.failures[:_FAILURES_SHOWN]:
            say(f"{self.plan.name(failure.index, failure.variant)}: {failure.findings[0]}")
        if self.figures.failed:
            kinds = ", ".join(f"{count:,} x {kind}" for kind, count in sorted(self.figures.findings.items()))
            say(f"{self.figures.failed:,} runs with findings: {kinds}")

    def _per_second(self) -> float:
        return 1 / max(self.seconds, 1e-3)

    # For machines

    def print_json(self) -> None:
        """Everything, as one JSON object."""
        typer.echo(json.dumps(self._as_json(), indent=2))

    def _as_json(self) -> dict[str, Any]:
        figures, per = self.figures, self._per_second()
        cells = totals(figures.cells)
        return {
            "build": _build.describe(),
            "seed": None if self.plan.cases else self.plan.seed,
            "first": self.cases.start,
            "cases": len(self.cases),
            "sweep": self.plan.sweep,
            "runs": figures.runs,
            "seconds": round(self.seconds, 3),
            "simulated_seconds": figures.simulated_us / 1e6,
            "events": figures.events,
            "segments": figures.segments,
            "hand_overs": figures.hand_overs,
            "bytes_delivered": figures.bytes_delivered,
            "runs_per_second": round(figures.runs * per, 3),
            "simulated_seconds_per_second": round(figures.simulated_us / 1e6 * per, 3),
            "segments_per_second": round(figures.segments * per, 3),
            "cells": [{**cell._asdict(), "visits": figures.cells[cell]} for cell in sorted(figures.cells)],
            "cells_reachable": cells.reachable,
            "cells_visited": cells.visited,
            "cells_missed": [cell._asdict() for cell in missed(figures.cells)],
            "rules": dict(sorted(figures.rules.items())),
            "rules_never": [rule.id for rule in Coverage(figures.rules).never()],
            "failed": figures.failed,
            "findings": dict(sorted(figures.findings.items())),
            "failures": [self._failure(failure) for failure in figures.failures],
            "kept": {example.name: str(example.path) for example in self.examples},
            "not_found_again": [example.name for example in self.examples if not example.again],
            "problems": self.problems,
            "ok": not figures.failed and not self.problems,
        }

    def _failure(self, failure: Failure) -> dict[str, Any]:
        return {
            "name": self.plan.name(failure.index, failure.variant),
            "index": failure.index,
            "variant": failure.variant,
            "findings": [
                {"kind": finding.kind, "message": finding.message, "event": finding.event, "at_us": finding.at}
                for finding in failure.findings
            ],
        }
