"""One run of one case, from its beginning to its end."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from chimney.link.memory import Tap
from chimney.sim.case import Case
from chimney.sim.log import Log
from chimney.sim.outcome import Finding, Outcome
from chimney.sim.world import EndlessRun, World


def run(
    case: Case,
    *,
    log: Callable[[str], None] | None = None,
    tap: Tap | None = None,
    verify: bool = True,
) -> Outcome:
    """Let ``case`` happen; never raises for what happens in it: that is a finding.

    log     called with every line of the run's log (`chimney.sim.log` has the legend).
    tap     called with every wire segment, as `chimney.link.memory.Tap` says.
    verify  whether the verifier runs along.
    """
    world = World(case, None if log is None else Log(log).note, tap, verify)
    came_to_its_end = False
    try:
        world.play()
        came_to_its_end = True
    except EndlessRun as reason:
        world.broken("endless", str(reason))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        world.broken(f"crash: {type(error).__name__}", f"{error} (in {at.name}, {at.filename.rpartition('/')[2]})")
    findings = world.findings
    if world.verifier is not None:
        broken = world.verifier.violations[:]
        world.verifier.finish()
        if came_to_its_end and not any(machine.dead for machine in world.machines.values()):
            # What is left open by a process that has died, or by a run that was given up, is nobody's fault.
            broken = world.verifier.violations
        findings += [
            Finding(f"rule: {violation.rule.id}", f"{violation.culprit}: {violation.message}", world.number, world.now)
            for violation in broken
        ]
        failures = world.verifier.failures.values()
        findings += [Finding("verifier", failure, world.number, world.now) for failure in failures]
    return Outcome(
        case=case,
        findings=findings,
        events=world.number,
        segments=world.network.segments,
        simulated_us=world.now,
        hand_overs=world.hand_overs,
        bytes_delivered=sum(application.received for application in world.applications.values()),
        cells=world.cells,
        rules=world.verifier.exercised if world.verifier is not None else Outcome(case).rules,
    )
