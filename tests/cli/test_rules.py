"""`chimney rules`: the catalogue, listed, filtered and explained."""

import json
import os
import subprocess
import sys

import pytest

from chimney.verifier import catalogue, checked_rules

CHIMNEY = [sys.executable, "-m", "chimney.cli"]


def rules(*arguments, **environment):
    environment = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run([*CHIMNEY, "rules", *arguments], env=environment, capture_output=True, text=True, timeout=60)


def ids(*arguments):
    done = rules(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [rule["id"] for rule in json.loads(done.stdout)["rules"]]


def test_every_rule_is_checked_or_has_a_reason():
    found = json.loads(rules("--json").stdout)
    assert len(found["rules"]) == found["count"] == len(catalogue()) == 375
    assert found["checked"] + found["unobservable"] == 375
    for rule in found["rules"]:
        assert rule["checked"] == bool(rule["checks"]) == (rule["id"] in checked_rules())
        assert rule["checked"] != bool(rule["unobservable"]), rule["id"]
        assert {"title", "binds", "level", "operation", "rule", "observable", "source", "seed"} <= rule.keys()


def test_other_programs_find_whole_ids_however_narrow_the_terminal():
    lines = rules(COLUMNS="30").stdout.splitlines()
    assert {line.split()[0] for line in lines[1:-1]} == set(catalogue())


def test_names_are_ids_or_beginnings_and_dots_mean_and_so_on():
    begin_so = [rule for rule in catalogue() if rule.startswith("send.complete")]
    assert ids("send.complete...") == ids("send.complete") == begin_so
    assert ids("send.complete.bytes") == ["send.complete.bytes"]
    assert set(ids("send.complete.bytes", "recv.complete")) == {
        "send.complete.bytes",
        *(rule for rule in catalogue() if rule.startswith("recv.complete")),
    }


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (["--binds", "ndis"], lambda rule: rule.binds == "ndis"),
        (["--level", "may"], lambda rule: rule.level == "may"),
        (["--operation", "forward"], lambda rule: rule.operation == "forward"),
        (["--seed"], lambda rule: rule.seed),
        (["--unobservable"], lambda rule: rule.unobservable),
        (["--seed", "--binds", "target"], lambda rule: rule.seed and rule.binds == "target"),
    ],
)
def test_filters(arguments, holds):
    assert ids(*arguments) == [rule.id for rule in catalogue().values() if holds(rule)] != []


def test_one_rule_is_explained():
    rule = catalogue()["send.complete.bytes"]
    words = " ".join(rules(rule.id).stdout.split())
    assert rule.title in words and rule.rule in words and rule.observable in words and rule.source in words
    assert "checks.send_completion.SendCompletion" in words


def test_why_a_rule_is_not_checked():
    rule = catalogue()["send.host.no-urgent"]
    assert rule.unobservable in " ".join(rules(rule.id).stdout.split())


@pytest.mark.parametrize("arguments", [["no.such.rule"], ["send.complete.bytes", "no.such.rule"]])
def test_a_name_that_means_nothing(arguments):
    done = rules(*arguments)
    assert done.returncode == 1 and not done.stdout
    assert "no.such.rule" in done.stderr and "`chimney rules`" in done.stderr


def test_filters_that_leave_nothing():
    done = rules("--operation", "knitting")
    assert done.returncode == 1 and not done.stdout and "`chimney rules`" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--json"], ["send.complete.bytes"]], ids=str)
def test_a_reader_that_goes_away(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [*CHIMNEY, "rules", *arguments], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
