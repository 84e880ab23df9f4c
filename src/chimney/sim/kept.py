"""Cases in files: those that have failed, and those that are kept so that they never fail again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from chimney.sim.case import Case, dump, load

_LONGEST_WHY = 300


def read(paths: Iterable[Path]) -> dict[str, Case]:
    """The cases in files, of a folder all that end in .yaml, by name: that of the file, numbered if it has several.

    Raises ValueError, which says what is wrong where.
    """
    found = {}
    for given in paths:
        for path in sorted(given.glob("*.yaml")) if given.is_dir() else [given]:
            try:
                cases = load(path)
            except OSError as error:
                raise ValueError(f"{path}: {error.strerror}") from error
            except msgspec.MsgspecError as error:
                raise ValueError(f"{path}: {error}") from error
            for number, case in enumerate(cases, 1):
                found[path.stem if len(cases) == 1 else f"{path.stem}-{number}"] = case
    return found


def write(folder: Path, name: str, kind: str, case: Case, why: str) -> Path:
    """Write a case to a file, called after its ``name`` and the ``kind`` of what was found. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{re.sub('[^a-z0-9]+', '-', kind.lower()).strip('-')}.yaml"
    path.write_text(dump(msgspec.structs.replace(case, why=why[:_LONGEST_WHY])), encoding="utf-8")
    return path
