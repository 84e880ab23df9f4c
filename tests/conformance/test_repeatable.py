"""A run in virtual time is the same in every process, whatever its hashes and addresses are, and in either build."""

import hashlib
import os
import subprocess
import sys

from chimney.conformance import world
from chimney.conformance.end import End
from chimney.conformance.run import DRIVERS
from chimney.conformance.scenarios import SCENARIOS
from chimney.link.memory import Clock
from chimney.verifier import Verifier

ENVIRONMENTS = ({"CHIMNEY_PURE": "0", "PYTHONHASHSEED": "1"}, {"CHIMNEY_PURE": "1", "PYTHONHASHSEED": "2"})


def test_every_process_plays_the_same():
    started = [
        subprocess.Popen([sys.executable, __file__], env=os.environ | environment, stdout=subprocess.PIPE)
        for environment in ENVIRONMENTS
    ]
    one, other = (process.communicate(timeout=120)[0].decode().splitlines() for process in started)
    assert not any(process.returncode for process in started) and len(one) > len(SCENARIOS)
    assert [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]] == []


def play():
    """Play every scenario, and print a digest of what happens in each."""
    worlds = []
    original = world.World.__init__

    def noting(self, *arguments, **options):
        worlds.append(self)
        original(self, *arguments, **options)

    world.World.__init__ = noting
    for scenario in SCENARIOS.values():
        for drivers in [None] if "drivers" in scenario.options else DRIVERS:
            worlds.clear()
            clock = Clock(1_000_000)
            verifier = Verifier(clock)
            scenario.play(clock=clock, observer=verifier, **({} if drivers is None else {"drivers": drivers}))
            verifier.finish()
            digest = hashlib.sha256()
            for event in told(worlds, verifier):
                digest.update(repr(event).encode())
            print(scenario.name, drivers, digest.hexdigest())


def told(worlds, verifier):
    """All frames with their times, what the hosts were told, of which connection and in which order, and the rules that
    were checked.
    """
    for one in worlds:
        yield from one.wire
        for side in one.sides:
            for what, subject, *details in side.host.log:
                about = getattr(subject, "protocol_context", None)
                yield what, about.flow if isinstance(about, End) else "", *(int(one) for one in details)
    yield list(verifier.exercised.items())
    yield list(map(str, verifier.violations))


if __name__ == "__main__":
    play()
