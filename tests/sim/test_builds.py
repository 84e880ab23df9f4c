"""A seed decides everything: not the build, and not the order of sets and dictionaries."""

import json
import os
import subprocess
import sys

SEED, CASES = 1, 60

# Prints a digest of each case's log and outcome; of a single case, these themselves.
PROGRAM = """
import hashlib, json, sys
from chimney import _build
from chimney.sim.corners import drawn
from chimney.sim.run import run

seed, first, count, whole = map(int, sys.argv[1:])

def told(index):
    lines = []
    outcome = run(drawn(seed, index), log=lines.append)
    for counts in (outcome.cells, outcome.rules):
        lines += [f"{key} {count}" for key, count in sorted(counts.items())]
    lines += [str(finding) for finding in outcome.findings]
    return [*lines, str([getattr(outcome, name) for name in ("events", "segments", "simulated_us", "hand_overs")])]

logs = [told(index) for index in range(first, first + count)]
print(json.dumps(logs[0] if whole else [hashlib.sha256("\\n".join(lines).encode()).hexdigest() for lines in logs]))
print(_build.describe(), file=sys.stderr)
"""


class Build:
    """Processes of one build, in which strings and bytes are hashed with ``hash_seed``."""

    def __init__(self, pure: bool, hash_seed: int) -> None:
        self.environment = {name: value for name, value in os.environ.items() if name != "CHIMNEY_PURE"}
        self.environment["PYTHONHASHSEED"] = str(hash_seed)
        if pure:
            self.environment["CHIMNEY_PURE"] = "1"

    def start(self, first: int, count: int, whole: bool = False) -> subprocess.Popen:
        arguments = map(str, (SEED, first, count, int(whole)))
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finished(process: subprocess.Popen) -> tuple[list[str], str]:
    """What a process of `PROGRAM` has printed, and which build it was."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output), errors.strip()


def test_the_same_seed_gives_the_same_log_on_both_builds():
    """Without a compiled build, two pure ones are compared."""
    builds = [Build(False, 1), Build(True, 2)]
    (one, compiled), (other, pure) = [finished(process) for process in [build.start(0, CASES) for build in builds]]
    assert pure == "pure Python"
    assert compiled == pure or compiled == "compiled", "a build that is not whole compares nothing"
    assert len(one) == len(other) == CASES
    differing = [index for index in range(CASES) if one[index] != other[index]]
    assert not differing, f"cases {differing} of seed {SEED}: {first_difference(builds, differing[0])}"


def first_difference(builds: list[Build], index: int) -> str:
    """The first line that is not the same in both logs of a case."""
    logs = [finished(build.start(index, 1, whole=True))[0] for build in builds]
    for number, lines in enumerate(zip(*logs, strict=False), 1):
        if lines[0] != lines[1]:
            return f"in line {number} of the log of {index}\n  {lines[0]!r}\n  {lines[1]!r}"
    return f"the log of {index} has {len(logs[0])} and {len(logs[1])} lines"
