"""The rules, made executable: one module for each part of the interface."""

from __future__ import annotations

import importlib
import pkgutil

from chimney.verifier.check import Checks


def all_checks() -> list[type[Checks]]:
    """Every class of checks in this package."""
    found = []
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        # A module may use another one's class, too.
        found += [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, Checks) and item.__module__ == module.__name__
        ]
    return found


def checked_rules() -> set[str]:
    """The ids of all rules that some check names."""
    return {rule for kind in all_checks() for rule in kind.RULES}
