"""All scenarios under the verifier, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from chimney.conformance.scenarios import SCENARIOS
from chimney.link.memory import Clock
from chimney.verifier import Verifier
from chimney.verifier.report import Coverage

DRIVERS = (0, 2)
"""How many pass-through drivers stand between host and target: every scenario is played with each of these numbers,
unless it has drivers of its own.
"""


def run_scenarios(
    coverage: Coverage, progress: Callable[[int, int], object] = lambda done, total: None
) -> tuple[int, list[str]]:
    """Play every scenario and add what its verifier has seen to ``coverage``; returns how many plays there were, and in
    words what went wrong besides the findings. ``progress`` is told how many are done, of how many.
    """
    plays = [
        (scenario, number)
        for scenario in SCENARIOS.values()
        for number in ([None] if "drivers" in scenario.options else DRIVERS)
    ]
    problems = []
    for done, (scenario, drivers) in enumerate(plays):
        progress(done, len(plays))
        clock = Clock(1_000_000)
        verifier = Verifier(clock)
        options = {} if drivers is None else {"drivers": drivers}
        try:
            scenario.play(clock=clock, observer=verifier, **options)
        except Exception as error:  # a scenario that fails is reported, and the others go on
            problems.append(f"scenario {scenario.name} with {drivers or 'its own'} drivers: {error!r}")
        verifier.finish()
        coverage.add(verifier)
    progress(len(plays), len(plays))
    return len(plays), problems
