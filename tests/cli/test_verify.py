"""`chimney verify`: what it prints and how it ends. The demo's traffic itself is tested in tests/live."""

import json
import os
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

import chimney.conformance
from chimney.cli import verify
from chimney.cli.app import app
from chimney.cli.demo_lab import DemoError
from chimney.verifier import catalogue
from tests.cli.test_doctor import FORBIDDEN, UNPRIVILEGED

CHIMNEY = [sys.executable, "-m", "chimney.cli"]
FINDING = {"rule": "send.complete.bytes", "text": "send.complete.bytes: Send completion reports the byte count"}


@pytest.fixture
def played(monkeypatch):
    """Scenarios that exercise one rule, and what else a test adds to ``found`` and ``problems``."""

    class Played:
        problems = []
        violations = []
        failures = []

        def run(self, coverage, progress):
            progress(1, 1)
            coverage.exercised["send.complete.bytes"] += 3
            coverage.violations += self.violations
            coverage.failures += self.failures
            return 7, self.problems

    made = Played()
    monkeypatch.setattr(chimney.conformance, "run_scenarios", made.run)
    return made


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *arguments])


def test_the_coverage_as_json(played):
    done = run("--no-live", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["ok"] and found["scenarios"] == 7
    assert found["rules"] == 375 == found["checked"] + found["unobservable"]
    assert found["exercised"] == {"send.complete.bytes": 3}
    assert found["violations"] == found["problems"] == found["failures"] == []
    assert len(found["never"]) == found["checked"] - 1


def test_the_coverage_for_people(played):
    done = run("--no-live")
    assert done.exit_code == 0
    [line] = [line for line in done.stdout.splitlines() if line.split()[:1] == ["send.complete.bytes"]]
    assert line.split()[1] == "3"
    assert all(rule.id in done.stdout for rule in catalogue().values() if not rule.unobservable)
    assert "1 of 363 observable rules exercised, 362 never, 375 in all" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["people", "json"])
@pytest.mark.parametrize(
    ("what", "value", "shown"),
    [
        ("violations", FINDING, "Send completion reports the byte count"),
        ("problems", "scenario [x] failed", "scenario [x] failed"),
        ("failures", "Sends.posted: KeyError()", "Sends.posted: KeyError()"),
    ],
)
def test_it_succeeds_only_if_all_went_well(played, monkeypatch, what, value, shown, arguments):
    monkeypatch.setattr(played, what, [value])
    done = run("--no-live", *arguments)
    assert done.exit_code == 1 and shown in done.stdout
    assert not arguments or not json.loads(done.stdout)["ok"]


@pytest.mark.parametrize("error", [DemoError("no curl"), OSError("no veth"), ValueError("half a line")], ids=repr)
def test_a_demo_that_fails_costs_nothing_of_what_was_seen_before(played, monkeypatch, error):
    def fails(settings, coverage):
        raise error

    monkeypatch.setattr(verify, "_namespaces", lambda problems: True)
    monkeypatch.setattr(verify, "_live", fails)
    done = run("--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1 and found["exercised"] and found["problems"] == [f"the demo: {error}"]


def test_ctrl_c_ends_with_the_status_that_shells_expect(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(chimney.conformance, "run_scenarios", interrupted)
    done = run("--no-live")
    assert done.exit_code == 130 and "interrupted" in done.output


@pytest.mark.parametrize(
    "arguments",
    [("--no-live", "--no-memory"), ("--size", "1K", "--cycles", "1000"), ("--size", "many"), ("--drivers", "17")],
    ids=" ".join,
)
def test_what_cannot_be_is_a_usage_error_before_anything_runs(played, arguments):
    done = run(*arguments)
    assert done.exit_code == 2 and "Invalid value" in done.output


def test_the_server_hears_of_the_verifier_and_nobody_else_does(monkeypatch):
    monkeypatch.setenv("CHIMNEY_VERIFY", "abort")
    monkeypatch.delenv("CHIMNEY_VERIFY_REPORT", raising=False)
    with pytest.raises(OSError, match="within"), verify._environment(CHIMNEY_VERIFY="count", CHIMNEY_VERIFY_REPORT="x"):
        assert (os.environ["CHIMNEY_VERIFY"], os.environ["CHIMNEY_VERIFY_REPORT"]) == ("count", "x")
        raise OSError("within")
    assert os.environ["CHIMNEY_VERIFY"] == "abort" and "CHIMNEY_VERIFY_REPORT" not in os.environ


def test_without_namespaces_the_scenarios_run_and_the_rest_is_said():
    command = [*UNPRIVILEGED, sys.executable, "-c", FORBIDDEN, *CHIMNEY]
    done = subprocess.run(
        [*command, "verify", "--size", "1M", "--cycles", "2", "--json"], capture_output=True, text=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert done.returncode == 1 and not found["ok"] and found["scenarios"] and found["exercised"]
    [problem] = found["problems"]
    assert problem.startswith("the demo: ") and "namespace" in problem


def test_a_user_namespace_is_entered_before_there_are_threads(played, monkeypatch):
    """The kernel refuses a process with threads, and the progress bar is one."""
    seen = []
    monkeypatch.setattr(verify, "can_make_namespaces", lambda: False)
    monkeypatch.setattr(verify, "enter_user_namespace", lambda: seen.append(threading.active_count()))
    monkeypatch.setattr(verify, "_live", lambda settings, coverage: seen.append("demo") or _stop())
    before = threading.active_count()
    assert run().exit_code == 1
    assert seen == [before, "demo"]


def _stop():
    raise DemoError("far enough")
