"""What a verifier has found, as data: for files, for `chimney verify`, and added up over several runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chimney.verifier.catalogue import Rule, catalogue
from chimney.verifier.checks import checked_rules
from chimney.verifier.violation import Violation

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier


@dataclass
class Coverage:
    """Rules exercised (id -> how often there was something to check), rules broken, and verifiers that have failed."""

    exercised: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, verifier: Verifier) -> None:
        """What one verifier has seen."""
        self.exercised.update(verifier.exercised)
        self.violations += map(violation_as_json, verifier.violations)
        self.failures += verifier.failures.values()

    def add_file(self, path: Path) -> int:
        """What verifiers in other processes have appended to a file; returns how many they were.

        Raises ValueError if a process has died over its line.
        """
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            found = json.loads(line)
            self.exercised.update(found["exercised"])
            self.violations += found["violations"]
            self.failures += found["failures"]
        return len(lines)

    def never(self) -> list[Rule]:
        """The rules that are checked and had nothing to check."""
        checked = checked_rules()
        return [rule for rule in catalogue().values() if rule.id in checked and not self.exercised[rule.id]]

    def as_json(self) -> dict[str, Any]:
        """Rules, checked and unobservable ones (numbers), ``exercised`` by id, ``never``, ``violations`` and
        ``failures``.
        """
        rules = catalogue()
        return {
            "rules": len(rules),
            "checked": len(checked_rules()),
            "unobservable": sum(1 for rule in rules.values() if rule.unobservable),
            "exercised": {rule: self.exercised[rule] for rule in rules if self.exercised[rule]},
            "never": [rule.id for rule in self.never()],
            "violations": self.violations,
            "failures": self.failures,
        }


def append(verifiers: Iterable[Verifier], path: Path) -> None:
    """Add a line of JSON for each verifier to a file, which other processes may be adding to."""
    for verifier in verifiers:
        coverage = Coverage()
        coverage.add(verifier)
        # One write each: lines of several processes must not mix.
        with path.open("ab", buffering=0) as file:
            file.write(json.dumps(vars(coverage)).encode() + b"\n")


def violation_as_json(violation: Violation) -> dict[str, Any]:
    """A violation as JSON, and as ``text`` for people."""
    return {
        "rule": violation.rule.id,
        "title": violation.rule.title,
        "source": violation.rule.source,
        "culprit": violation.culprit,
        "connection": violation.connection,
        "message": violation.message,
        "at_us": violation.at,
        "history": list(violation.history),
        "text": str(violation),
    }
