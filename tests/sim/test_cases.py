"""Every kept case, each of which once broke something (its ``why`` says what), runs without a finding."""

from pathlib import Path

import pytest

from chimney.sim.case import load
from chimney.sim.run import run

KEPT = [
    pytest.param(case, id=f"{path.stem}-{number}")
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml"))
    for number, case in enumerate(load(path), 1)
]


@pytest.mark.parametrize("case", KEPT)
def test_nothing_is_found(case):
    assert case.why
    assert list(map(str, run(case).findings)) == []
