"""Cases in files: written, read, named; and what is wrong with one is said with its place."""

import pytest

from chimney.sim import kept
from chimney.sim.case import Case, Host, Send, dump

CASE = Case(seed=7, a=Host(chimney=True, gap_us=50), steps=(Send(at=3, side="b", size=10),))


def test_what_is_written_is_read(tmp_path):
    path = kept.write(tmp_path / "new", "seed1-run3", "rule: send.complete", CASE, "x" * 1000)
    assert path == tmp_path / "new" / "seed1-run3-rule-send-complete.yaml"
    [(name, case)] = kept.read([path]).items()
    assert name == path.stem and case.why == "x" * 300
    assert case.steps == CASE.steps and case.a == CASE.a and case.seed == 7


def test_folders_and_files_with_several_cases(tmp_path):
    (tmp_path / "two.yaml").write_text("- {seed: 1}\n- {seed: 2}\n")
    (tmp_path / "one.yaml").write_text(dump(CASE))
    (tmp_path / "none.txt").write_text("nothing")
    assert {name: case.seed for name, case in kept.read([tmp_path]).items()} == {"one": 7, "two-1": 1, "two-2": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps:\n- {do: send, side: c, at: 1, size: 1}", "steps[0]"),
        ("seeds: 1", "seeds"),
        ("steps:\n- {do: offload}", "either at"),
        ("a: [", "x.yaml"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match="x.yaml") as wrong:
        kept.read([tmp_path])
    assert said in str(wrong.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        kept.read([tmp_path / "x.yaml"])
