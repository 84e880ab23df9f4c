"""The rules, made executable: one module for each part of the interface."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from chimney.verifier.check import Checks


@cache
def all_checks() -> tuple[type[Checks], ...]:
    """Every class of checks in this package."""
    found: list[type[Checks]] = []
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        # A module may use another one's class, too.
        found += [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, Checks) and item.__module__ == module.__name__
        ]
    return tuple(found)


@cache
def checked_rules() -> frozenset[str]:
    """The ids of all rules that some check names."""
    return frozenset(rule for kind in all_checks() for rule in kind.RULES)
