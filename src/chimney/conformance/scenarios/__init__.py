"""The scenarios, one module for each part of the interface; importing this package registers them all."""

import importlib
import pkgutil

from chimney.conformance.scenario import SCENARIOS, Scenario

for _module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["SCENARIOS", "Scenario"]
