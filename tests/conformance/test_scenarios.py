"""Every scenario, alone and with drivers between: its own assertions hold, and the verifier has no finding."""

import pytest

from chimney.conformance.run import DRIVERS
from chimney.conformance.scenarios import SCENARIOS
from chimney.link.memory import Clock
from chimney.verifier import Verifier


def plays():
    """Each scenario without and with drivers, unless it has its own."""
    for name, scenario in sorted(SCENARIOS.items()):
        yield from ((name, None) if "drivers" in scenario.options else (name, number) for number in DRIVERS)


@pytest.mark.parametrize(("name", "drivers"), dict.fromkeys(plays()))
def test_nothing_is_wrong(name, drivers):
    clock = Clock(1_000_000)
    verifier = Verifier(clock)
    options = {} if drivers is None else {"drivers": drivers}
    SCENARIOS[name].play(clock=clock, observer=verifier, **options)
    verifier.finish()
    assert [str(violation) for violation in verifier.violations] == []
    assert not verifier.failures
