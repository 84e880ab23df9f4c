"""The corpus: a text file for each target, an input on each line, in hexadecimal.

What stands behind a # says which bug the input once found; such lines are kept for ever. The others are there for what
they reach, and are chosen anew by `python -m fuzz --minimise`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
PACKAGE = "chimney."


def path(target: str) -> Path:
    """Where the inputs of a target stand."""
    return HERE / "corpus" / f"{target}.txt"


def read(target: str) -> list[tuple[bytes, str]]:
    """Input and remark of each line."""
    if not path(target).exists():
        return []
    lines = [line.partition("#") for line in path(target).read_text().splitlines()]
    return [(bytes.fromhex(data), remark.strip()) for data, _, remark in lines]


def write(target: str, inputs: Iterable[tuple[bytes, str]]) -> None:
    """Findings first, then the others, shortest first."""
    ordered = sorted(inputs, key=lambda each: (not each[1], len(each[0]), each[0]))
    lines = [data.hex() + (f"  # {remark}" if remark else "") for data, remark in ordered]
    path(target).parent.mkdir(exist_ok=True)
    path(target).write_text("".join(line + "\n" for line in lines))


def minimal(run: Callable[[bytes], None], inputs: list[tuple[bytes, str]], room: int) -> list[tuple[bytes, str]]:
    """Those that reach what no shorter one does, and all with a remark; at most `room` bytes of the others."""
    kept, reached = [], set()
    for data, remark in sorted(set(inputs), key=lambda each: (not each[1], len(each[0]), each[0])):
        new = features(run, data) - reached
        if remark or (new and len(data) <= room):
            kept.append((data, remark))
            reached |= new
            room -= 0 if remark else len(data)
    return kept


def features(run: Callable[[bytes], None], data: bytes) -> set[tuple[object, int, int, int]]:
    """What an input reaches: pairs of lines executed one after the other, and roughly how often."""
    counts: Counter[tuple[object, int, int]] = Counter()

    def enter(frame: FrameType, event: str, argument: object):
        if not frame.f_globals.get("__name__", "").startswith(PACKAGE):
            return None
        last = 0

        def line(frame: FrameType, event: str, argument: object):
            nonlocal last
            counts[frame.f_code, last, frame.f_lineno] += 1
            last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run(data)
    finally:
        sys.settrace(before)
    return {(*arc, min(count.bit_length(), 6) // 2) for arc, count in counts.items()}
