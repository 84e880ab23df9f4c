"""Cases in files: short, and to be read by people."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chimney.sim.case import Case, Host, Layer, Network, Offload, Send, dump, load

CASE = Case(
    why="a hand-over in the middle of it",
    a=Host(chimney=True, layers=(Layer(), Layer(seed=3, out_of_memory=(4, 5)))),
    network=Network(loss=float("0.1"), delay_us=int("200"), jitter_us=0),
    iss=(1, 0x7FFFF000),
    steps=(Send(at=0, side="a", size=100), Offload(event=7)),
    grace_us=int("20000"),
)
TEXT = """\
why: a hand-over in the middle of it
a:
  chimney: true
  layers:
  - {}
  - seed: 3
    out_of_memory: [4, 5]
network: {loss: 0.1}
iss: [1, 2147479552]
steps:
- {at: 0, do: send, side: a, size: 100}
- {event: 7, do: offload}
"""


def test_defaults_are_left_out_and_a_step_is_a_line() -> None:
    assert dump(CASE) == TEXT


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(dump(CASE))
    assert load(path) == [CASE]
    path.write_text(dump(Case()))
    assert load(path) == [Case()]


@pytest.mark.parametrize("moment", ["", "at: 5, event: 5, ", "at: -1, ", "event: 0, "])
def test_a_step_has_one_moment(moment: str, tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(f"steps: [{{{moment}do: offload}}]")
    with pytest.raises(msgspec.ValidationError, match="give either at"):
        load(path)
