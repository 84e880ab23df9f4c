"""Every rule is checked by code that names it, or stands in the list of those that nobody can see; every check is
proven by a mutant, and exercised by the scenarios in memory.
"""

import ast
from pathlib import Path

import pytest

from chimney.conformance import run_scenarios
from chimney.verifier import catalogue, checked_rules, checks
from chimney.verifier.catalogue import UNOBSERVABLE
from chimney.verifier.checks import all_checks
from chimney.verifier.report import Coverage
from tests.verifier.test_mutants import MUTANTS

RULES = catalogue()
MARKED = {rule.id for rule in RULES.values() if rule.observable.startswith("no:")}


def test_the_catalogue_is_whole():
    assert len(RULES) == 375
    assert sum(rule.seed for rule in RULES.values()) == 58
    assert {rule.binds for rule in RULES.values()} == {"host_stack", "ndis", "intermediate", "target"}
    assert {rule.level for rule in RULES.values()} == {"must", "should", "may"}


def test_every_rule_is_checked_or_cannot_be():
    unobservable = {rule.id for rule in RULES.values() if rule.unobservable}
    assert checked_rules() | unobservable == set(RULES)
    assert checked_rules() & unobservable == set()


def test_few_rules_cannot_be_checked():
    assert len(MARKED) == 11
    assert set(UNOBSERVABLE) <= set(RULES) - MARKED and len(UNOBSERVABLE) <= 12
    assert all(len(reason) > 20 for reason in UNOBSERVABLE.values())


def test_what_a_check_names_it_checks():
    """A rule in RULES stands in the class's code as well, or in a table of the module that the code reads."""
    folder = Path(checks.__file__).parent
    for kind in all_checks():
        file = folder / f"{kind.__module__.rpartition('.')[2]}.py"
        mentions = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        for rule in kind.RULES:
            assert rule in RULES, f"{kind.__name__} names {rule}, which is no rule"
            assert mentions.count(rule) > 1 or _made_of_parts(rule, mentions), f"{kind.__name__} never checks {rule}"


def _made_of_parts(rule, mentions):
    """Whether the code puts the id together, such as f"{kind}.pending-only"."""
    return any(isinstance(part, str) and part and rule.endswith(f".{part.removeprefix('.')}") for part in mentions)


def test_every_check_has_a_mutant():
    proven = {mutant.rule for mutant in MUTANTS}
    assert proven - checked_rules() == set()
    assert checked_rules() - proven == set()


def test_a_mutant_is_for_one_rule():
    seen = {}
    for mutant in MUTANTS:
        first = seen.setdefault((mutant.kind, mutant.scenario), mutant.rule)
        assert first == mutant.rule, f"{mutant.kind.__name__} is to break {first} and {mutant.rule} in the same way"


@pytest.fixture(scope="module")
def coverage():
    found = Coverage()
    plays, problems = run_scenarios(found)
    assert plays and not problems
    return found


def test_the_scenarios_break_no_rule(coverage):
    assert [violation["text"] for violation in coverage.violations] == []


def test_the_scenarios_exercise_the_rules(coverage):
    seeds = {rule.id for rule in RULES.values() if rule.seed and not rule.unobservable}
    assert {rule for rule in seeds if not coverage.exercised[rule]} == set()
    assert [rule.id for rule in coverage.never()] == []
