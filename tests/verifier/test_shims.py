"""The shims let everything through: no scenario shows a finding with any of them in its place."""

import pytest

from chimney.conformance.scenarios import SCENARIOS
from tests.verifier.mutation import Mutant, verify
from tests.verifier.shims import HostShim, LinkShim, TargetShim


@pytest.mark.parametrize("kind", [TargetShim, HostShim, LinkShim])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_shim_changes_nothing(name, kind):
    verifier, raised = verify(name, **Mutant("", kind, name, side=None).world_options())
    assert [str(violation) for violation in verifier.violations] == []
    if raised is not None:
        raise raised
