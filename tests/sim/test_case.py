"""Cases in files: short, and to be read by people."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chimney.sim.case import Case, Host, Layer, Network, Offload, Send, dump, load
from chimney.sim.corners import drawn

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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network: {loss: 7}", r"<= 1.0 - at `\$\.network\.loss`"),
        ("network: {delay_us: -1}", "delay_us"),
        ("a: {chimney: true, gap_us: -4}", r"\$\.a\.gap_us"),
        ("a: {chimney: true, layers: [{out_of_memory: [0]}]}", "out_of_memory"),
        ("a: {gap_us: 4}", "always has a chimney"),
        ("b: {receive_buffer: 100}", "scale"),
        ("mss: 4", "mss"),
        ("iss: [-1, 0]", "iss"),
        ("quiet_us: 0", "quiet_us"),
        ("steps: [{at: 0, do: send, side: a, size: -4}]", r"\$\.steps\[0\]\.size"),
        ("steps: [{at: 0, do: send, side: a, size: 400000}]", "size"),
        ("steps: [{at: 0, do: read, side: a, size: 0}]", "size"),
        ("steps: [{at: 0, do: mtu, mtu: 10}]", "mtu"),
        ("a: {chimney: true, layers: [{}]}\nsteps: [{at: 0, do: driver, reason: WHIM}]", "WHIM: the reasons are LOW_"),
        ("steps: [{at: 0, do: target, what: upload, reason: WHIM}]", "the reasons are"),
        ("steps: [{at: 0, do: target, what: short, of: patience}]", "of is one of neighbor, path"),
        ("steps: [{at: 0, do: driver, what: hold}]", "a has no layer 0"),
        ("steps: [{at: 0, do: offload, side: b}]", r"b has no chimney - at `\$\.steps\[0\]`"),
    ],
)
def test_values_that_make_no_sense(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(text)
    with pytest.raises(msgspec.ValidationError, match=said):
        load(path)


def test_whatever_is_drawn_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    for index in range(300):
        case = drawn(5, index)
        path.write_text(dump(case))
        assert load(path) == [case]
