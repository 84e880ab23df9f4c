"""No expectation of our scripts is empty: each fails when it is changed; and what is changed breaks no runner."""

import random
import re
from pathlib import Path

import pytest

from chimney.packetdrill import Outcome, run_text

SCRIPTS = Path(__file__).parent / "scripts"
FOUND = sorted(SCRIPTS.rglob("*.pkt"))
EXPECTED = re.compile(r"> (?:\[\w+\] )?\S+ \d+:\d+\(\d+\) ack (?P<ack>\d+)")
RESULT = re.compile(r"\) = (?P<result>\d+)$")
NUMBER = re.compile(r"\d+")


def changed(lines, index, match, group):
    """The script with a number of one line made larger by one."""
    line = lines[index]
    start, end = match.span(group)
    lines = [*lines]
    lines[index] = line[:start] + str(int(match[group]) + 1) + line[end:]
    return "\n".join(lines)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(SCRIPTS).with_suffix("")))
def test_each_expectation_bites(path):
    lines = path.read_text().splitlines()
    for index, line in enumerate(lines):
        if match := EXPECTED.search(line):
            result = run_text(changed(lines, index, match, "ack"))
            assert result.outcome is Outcome.FAILED and result.line == index + 1, line
        if (match := RESULT.search(line)) and "socket(" not in line and "accept(" not in line and "create" not in line:
            assert run_text(changed(lines, index, match, "result")).outcome is Outcome.FAILED, line


@pytest.mark.parametrize("seed", range(20))
def test_scripts_that_make_no_sense_have_an_outcome_too(seed):
    """Lines and numbers are changed, left out, doubled and mixed up: no exception, and an end."""
    source = random.Random(seed)
    for _ in range(20):
        lines = source.choice(FOUND).read_text().splitlines()
        for _ in range(source.randint(1, 3)):
            spoil(lines, source)
        assert run_text("\n".join(lines)).outcome in Outcome


def spoil(lines, source):
    index, other = source.randrange(len(lines)), source.randrange(len(lines))
    kind = source.randrange(4)
    if kind == 0 and len(lines) > 1:
        del lines[index]
    elif kind == 1:
        lines.insert(other, lines[index])
    elif kind == 2:
        lines[index], lines[other] = lines[other], lines[index]
    elif numbers := list(NUMBER.finditer(lines[index])):
        match = source.choice(numbers)
        value = source.choice((0, 1, 2, 7, 100, 1000, 65535, 70000, 1 << 32))
        lines[index] = f"{lines[index][: match.start()]}{value}{lines[index][match.end() :]}"
