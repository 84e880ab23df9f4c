"""Every mutant is found: the verifier reports the rule that it breaks."""

import importlib
from pathlib import Path

import pytest

from tests.verifier.mutation import MUTANTS, explain, verify

for _file in sorted(Path(__file__).parent.glob("mutants_*.py")):
    importlib.import_module(f"tests.verifier.{_file.stem}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_mutant_is_found(mutant):
    verifier, _ = verify(mutant.scenario, **mutant.world_options())
    if mutant.rule not in verifier.counts:
        pytest.fail(explain(mutant))
    assert not verifier.failures
