"""Many scripts: which there are, running them, and the table of what came of them."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chimney.packetdrill.compare import Rules
from chimney.packetdrill.runner import Outcome, Result, crash_text, run_file

_SUFFIX = ".pkt"


def find_scripts(paths: Iterable[Path], names: list[str] | None = None) -> list[Path]:
    """The scripts in these files and directories, sorted.

    names: only these, each as a path below one of the directories, as the file of LIST names them; one that is not
    there raises FileNotFoundError when it is run.
    """
    roots = list(paths)
    if names is not None:
        return [_below(roots, name) for name in names]
    found: list[Path] = []
    for root in roots:
        found += sorted(root.rglob(f"*{_SUFFIX}")) if root.is_dir() else [root]
    return found


def _below(roots: list[Path], name: str) -> Path:
    """The script of that name; the directory given may be anywhere above it."""
    for root in roots:
        if (root / name).exists():
            return root / name
        parts = Path(name).parts
        for index in range(1, len(parts)):
            if (candidate := root.joinpath(*parts[index:])).exists():
                return candidate
    return roots[0] / name


def read_list(path: Path) -> list[str]:
    """The names in a file, one a line; `#` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def run_scripts(paths: Iterable[Path], rules: Rules | None = None) -> Iterator[Result]:
    """Runs them one after the other. An error of the interpreter or the engine is a failure of the script."""
    for path in paths:
        try:
            yield run_file(path, rules=rules)
        except FileNotFoundError:
            yield Result(str(path), Outcome.BROKEN, "no such file")
        except Exception as error:
            yield Result(str(path), Outcome.FAILED, crash_text(error))


@dataclass(slots=True)
class Summary:
    """What came of the scripts, per directory."""

    per_directory: dict[str, Counter[Outcome]] = field(default_factory=dict)
    total: Counter[Outcome] = field(default_factory=Counter)

    def relative(self) -> dict[str, Counter[Outcome]]:
        """The same with names relative to the directory that holds them all."""
        if not self.per_directory:
            return {}
        common = os.path.commonpath(list(self.per_directory))
        return {os.path.relpath(name, common): counts for name, counts in sorted(self.per_directory.items())}

    def add(self, result: Result) -> None:
        """One script more."""
        directory = str(Path(result.name).parent)
        self.per_directory.setdefault(directory, Counter())[result.outcome] += 1
        self.total[result.outcome] += 1
