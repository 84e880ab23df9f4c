"""Every kept case, each of which once broke something (its ``why`` says what), runs without a finding."""

import re
from pathlib import Path

import pytest

from chimney.sim.case import load
from chimney.sim.run import run

GUIDE = Path(__file__).parents[2] / "docs" / "simulator.md"
KEPT = [
    pytest.param(case, id=f"{path.stem}-{number}")
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml"))
    for number, case in enumerate(load(path), 1)
]


@pytest.mark.parametrize("case", KEPT)
def test_nothing_is_found(case):
    assert case.why
    assert list(map(str, run(case).findings)) == []


def test_the_example_in_the_guide_is_a_case(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL).group(1))
    [case] = load(path)
    assert list(map(str, run(case).findings)) == []
