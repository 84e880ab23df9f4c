"""What a whole run finds, and what it makes of what happens to it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chimney.link.base import NEVER
from chimney.sim import world
from chimney.sim.case import Case, Network, Offload, Read, Send
from chimney.sim.run import run
from chimney.sim.world import EndlessRun, World

CASE = Case(
    steps=(
        Read(at=0, side="a"),
        Read(at=0, side="b"),
        Send(at=0, side="a", size=3000),
        Send(at=0, side="b", size=500),
        Offload(at=100),
    )
)


def kinds(case: Case) -> list[str]:
    return [finding.kind for finding in run(case).findings]


def test_a_run_as_it_should_be() -> None:
    outcome = run(CASE)
    assert outcome.findings == []
    assert (outcome.hand_overs, outcome.bytes_delivered) == (1, 3500)
    assert outcome.segments and outcome.events and outcome.cells and outcome.rules


def test_what_does_not_come_to_its_end_in_time() -> None:
    """All that has been sent takes longer than everybody is given."""
    slow = Case(network=Network(delay_us=50_000), steps=CASE.steps, grace_us=0, quiet_us=1)
    assert kinds(slow).count("drain") == 2


def test_a_run_that_goes_round_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is all there is to say of it: what it has left open would have been closed."""
    monkeypatch.setattr(world, "_MANY_EVENTS", 10)
    assert kinds(CASE) == ["endless"]


def test_a_wait_for_what_never_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    made = World(Case())
    monkeypatch.setattr(made.machines["a"].platform, "ready", lambda: False)
    with pytest.raises(EndlessRun, match="a waits"):
        made.busily("a", lambda: made.wait(made.machines["a"], NEVER))


def test_an_exception_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def offload(self: World, side: str) -> None:
        raise ZeroDivisionError("of nothing")

    monkeypatch.setattr(World, "offload", offload)
    (finding,) = run(CASE).findings
    assert finding.kind == "crash: ZeroDivisionError" and "of nothing (in offload, test_run.py)" in finding.message


def test_what_the_verifier_finds_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(self: World) -> None:
        assert self.verifier is not None
        rule = SimpleNamespace(id="send.complete")
        self.verifier.violations.append(SimpleNamespace(rule=rule, culprit="host", message="left it"))  # type: ignore[arg-type]
        self.verifier.failures["send.complete"] = "a check failed"

    monkeypatch.setattr(World, "play", play)
    found = {finding.kind: finding.message for finding in run(CASE).findings}
    assert found == {"rule: send.complete": "host: left it", "verifier": "a check failed"}
