"""Every mutant is found: the verifier reports the rule that it breaks."""

import importlib
from pathlib import Path

import pytest

from tests.verifier.mutation import MUTANTS, explain, run_mutant

for _file in sorted(Path(__file__).parent.glob("mutants_*.py")):
    importlib.import_module(f"tests.verifier.{_file.stem}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_mutant_is_found(mutant):
    if mutant.rule not in run_mutant(mutant):
        pytest.fail(explain(mutant))
