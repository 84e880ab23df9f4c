"""What the host has heard on another interface may be forwarded, even if the target has heard the same."""

from chimney.conformance.end import End
from tests.verifier.mutants_forward import HasATap
from tests.verifier.mutation import Mutant, verify


def forwarded_twice():
    """How often the rule was broken by a host that forwards what the target has received."""
    verifier, _ = verify("transfer", **Mutant("forward.when", HasATap, "transfer").world_options())
    assert not verifier.failures
    return verifier.counts["forward.when"]


def test_what_came_by_both_ways(monkeypatch):
    assert forwarded_twice()
    forward = End.forward

    def hear_and_forward(self, *segments):
        for segment in segments:
            self.side.world.observer.heard_elsewhere(tuple(self.flow), memoryview(segment))
        return forward(self, *segments)

    monkeypatch.setattr(End, "forward", hear_and_forward)
    assert not forwarded_twice()
