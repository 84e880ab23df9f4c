"""What a scenario is, and how it is played: a function over a `World`, in virtual time, always the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chimney.conformance.world import World


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named course of events. ``options`` are those of its `World`; ``run`` asserts what must come of it."""

    name: str
    description: str
    run: Callable[[World], None]
    options: dict[str, Any] = field(default_factory=dict)

    def play(self, **options: Any) -> World:
        """Run it in a new world, made with ``options`` besides the scenario's own, to the end: everything is taken
        back, and the bindings are closed. Raises what the scenario does, AssertionError most likely.
        """
        world = World(**(self.options | options))
        self.run(world)
        world.close()
        return world


SCENARIOS: dict[str, Scenario] = {}
"""All scenarios by name; `chimney.conformance.scenarios` fills it."""


def scenario(**options: Any) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a function as a scenario: its name with hyphens, its docstring's first line, its world's ``options``."""

    def register(function: Callable[[World], None]) -> Callable[[World], None]:
        name = function.__name__.replace("_", "-")
        assert name not in SCENARIOS, f"two scenarios are called {name}"
        description = (function.__doc__ or "").strip().split("\n")[0]
        SCENARIOS[name] = Scenario(name, description, function, options)
        return function

    return register
