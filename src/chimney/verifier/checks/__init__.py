"""The rules, made executable: one module for each part of the interface."""

from __future__ import annotations

import importlib
import pkgutil

from chimney.verifier.check import Checks


def all_checks() -> list[type[Checks]]:
    """Every class of checks in this package."""
    found = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        members = vars(importlib.import_module(f"{__name__}.{module}")).values()
        found += [
            item for item in members if isinstance(item, type) and issubclass(item, Checks) and item is not Checks
        ]
    return found


def checked_rules() -> set[str]:
    """The ids of all rules that some check names."""
    return {rule for kind in all_checks() for rule in kind.RULES}
