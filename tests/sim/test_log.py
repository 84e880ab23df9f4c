"""The log: fixed columns, a legend that leaves nothing out, and the same lines on every build."""

import ast
import hashlib
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import chimney.sim
from chimney.conformance.wire import ACK, FIN
from chimney.sim.log import FLAGS, HEADER, KINDS, Log, describe, legend, unwrapped

SOURCE = Path(chimney.sim.__file__).parent
LINE = re.compile(r"^ *\d+ +\d+\.\d{3} [ab-] \S+ {1,4}\S")


def kinds_used():
    """The kinds that the simulator's modules give to ``note``: its second argument, wherever that is written down."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "note" and len(node.args) == 3:
                kind = node.args[1]
                if isinstance(kind, ast.Constant):
                    yield kind.value


def test_every_kind_is_in_the_legend_and_is_used():
    assert set(kinds_used()) == KINDS.keys()
    text = "\n".join(legend())
    assert all(f"  {kind:<4} {meaning}" in text for kind, meaning in KINDS.items())


def test_lines_stand_in_columns():
    lines = []
    log = Log(lines.append)
    log.note(0, 0, "-", "net", "begins")
    log.note(12345, 123_456_789, "a", "kern", "the cover stands")
    assert lines[:-3] == legend() and all(line.startswith("#") for line in legend())
    assert lines[-3:] == [
        " event           ms s kind what",
        "     0        0.000 - net  begins",
        " 12345   123456.789 a kern the cover stands",
    ]
    assert lines[-3] == HEADER
    for name in HEADER.split():
        assert any(line.startswith(f"# {name} ") for line in legend())


def test_without_a_legend():
    lines = []
    Log(lines.append, with_legend=False)
    assert lines == [HEADER]


@pytest.mark.parametrize(
    ("number", "first", "near", "position"),
    [
        (5, 0xFFFFFFFF, 0, 6),
        (0xFFFFFFFE, 0xFFFFFFFF, 0, -1),
        (3, 3, 1 << 32, 1 << 32),
        (4, 3, (1 << 33) - 5, (1 << 33) + 1),
    ],
)
def test_sequence_numbers_become_positions(number, first, near, position):
    assert unwrapped(number, first, near) == position


def segment(sequence, acknowledged, flags, window, options=b"", payload=b""):
    size = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", 1, 2, sequence, acknowledged, size, flags, window, 0, 0) + options + payload


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (segment(1000, 0, 0, 1), "at 0 win 8 []"),
        (segment(1005, 2010, ACK, 2, payload=b"abc"), "data 5..8 ack 10 win 16 [A]"),
        (segment(1005, 2010, ACK | FIN, 0, payload=b"abc"), "data 5..9 ack 10 win 0 [FA]"),
        (segment(1005, 0, 0x3F, 0)[:19], "19 bytes that are no TCP segment"),
        (segment(0, 0, 0, 0, b"\1" * 12)[:28], "a TCP header of 32 bytes in a segment of 28"),
        (
            segment(
                1000,
                2000,
                ACK,
                0,
                b"\1\1\x08\x0a" + struct.pack("!II", 7, 8) + b"\1\1\5\x12" + struct.pack("!4I", 2003, 2005, 2008, 2009),
            ),
            "at 0 ack 0 win 0 [A] ts 7/8 sack 3..5 sack 8..9",
        ),
        (segment(1000, 2000, ACK, 0, b"\x02\x04\0\0\0\0\0\0"), "at 0 ack 0 win 0 [A] option 2"),
        (segment(1000, 2000, ACK, 0, b"\x08\x01\0\0"), "at 0 ack 0 win 0 [A] broken options"),
    ],
)
def test_what_a_segment_says(frame, says):
    assert describe(frame, 0, (1000, 0), (2000, 0), 3) == says
    assert describe(b"x" * 34 + frame, 34, (1000, 0), (2000, 0), 3) == says


def test_every_flag_has_a_letter():
    assert describe(segment(0, 0, 0x3F, 0), 0, (0, 0), (0, 0), 0).endswith(f"[{''.join(FLAGS)}]")


SCRIPT = """
import sys
from chimney import _build
from chimney.sim.draw import case_of
from chimney.sim.run import run
from chimney.sim.outcome import Outcome
for index in range(int(sys.argv[1])):
    outcome = run(case_of(7, index), log=print)
    print(outcome.events, outcome.segments, outcome.simulated_us, sorted(outcome.cells.items()))
"""


def test_the_same_seed_gives_the_same_log_on_every_build():
    """And whatever Python's hashes are: nothing may depend on the order of a set, or on where an object lies."""
    digests = {}
    for pure, hash_seed in (("", "1"), ("", "2"), ("1", "3")):
        made = subprocess.run(
            [sys.executable, "-c", SCRIPT, "40"],
            env=os.environ | {"CHIMNEY_PURE": pure, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        lines = [line for line in made.splitlines() if line[0] == " " and line != HEADER]
        assert len(lines) > 1000 and all(LINE.match(line) for line in lines)
        assert not re.search(r"0x[0-9a-f]{6,}", made), "an address in memory"
        digests[pure, hash_seed] = hashlib.sha256(made.encode()).hexdigest()
    assert len(set(digests.values())) == 1, digests
