"""What plays the scenarios, and what a run comes to."""

import pytest

from chimney.conformance import run
from chimney.conformance.scenario import SCENARIOS, Scenario, scenario
from chimney.conformance.world import World
from chimney.link.memory import Clock
from chimney.ndis import DisconnectFlags, Status
from chimney.verifier import Verifier
from chimney.verifier.report import Coverage


def fails(world):
    raise AssertionError("nothing has come of it")


def test_a_run_plays_each_scenario_alone_and_with_drivers(monkeypatch):
    chosen = {name: SCENARIOS[name] for name in ("transfer", "fail-over")}
    monkeypatch.setattr(run, "SCENARIOS", chosen)
    told, coverage = [], Coverage()
    assert run.run_scenarios(coverage, lambda done, total: told.append((done, total))) == (3, [])
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert coverage.exercised["send.complete.bytes"] and not coverage.violations


def test_a_scenario_that_fails_is_told_and_the_others_go_on(monkeypatch):
    chosen = {"broken": Scenario("broken", "", fails), "transfer": SCENARIOS["transfer"]}
    monkeypatch.setattr(run, "SCENARIOS", chosen)
    plays, problems = run.run_scenarios(Coverage())
    assert plays == 4 and len(problems) == 2
    assert "broken" in problems[0] and "nothing has come of it" in problems[0]


def test_a_name_belongs_to_one_scenario():
    with pytest.raises(AssertionError, match="transfer"):
        scenario()(_named("transfer"))


def _named(name):
    def function(world):
        """Another one."""

    function.__name__ = name
    return function


def test_every_scenario_says_what_it_is():
    assert all(s.description.endswith(".") and s.name == name for name, s in SCENARIOS.items())


# A host that obeys


def test_a_host_terminates_what_was_reset_and_returns_what_it_was_lent():
    world = World(observer=Verifier(Clock()))
    a, b = world.connect()
    b.host.answer = len
    a.send(b"data")
    world.poll()
    assert b.received == b"data" and not b.host.held
    a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    world.run(until=lambda: not b.offloaded)
    assert b.aborted and not a.offloaded


def test_a_host_that_only_records_does_nothing():
    world = World(obedient=False)
    a, b = world.connect()
    a.disconnect(flags=DisconnectFlags.ABORTIVE_CLOSE)
    world.run(duration=1_000_000)
    assert b.aborted and b.offloaded


def test_what_is_sent_while_a_connection_is_not_offloaded_goes_with_the_next_initiate():
    world = World()
    a, b = world.connect()
    b.reading = 100
    a.terminate()
    a.send(b"kept", b" by the host")
    world.run(duration=1000)
    assert not b.received
    assert a.initiate() == [Status.SUCCESS] * 3
    world.run(until=lambda: b.received == a.application == b"kept by the host")
