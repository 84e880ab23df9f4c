"""Every scenario, alone and with drivers between: its own assertions hold, and the verifier has no finding."""

import pytest

from chimney.conformance.scenarios import SCENARIOS
from chimney.link.memory import Clock
from chimney.verifier import Verifier


@pytest.mark.parametrize("drivers", [0, 2])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_nothing_is_wrong(name, drivers):
    scenario = SCENARIOS[name]
    if drivers and "drivers" in scenario.options:
        pytest.skip("has drivers of its own")
    clock = Clock(1_000_000)
    verifier = Verifier(clock)
    options = {"drivers": drivers} if drivers else {}
    scenario.play(clock=clock, observer=verifier, **options)
    verifier.finish()
    assert [str(violation) for violation in verifier.violations] == []
