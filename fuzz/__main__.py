"""python -m fuzz [TARGET ...] [--seconds N] [--minimise]: looks for inputs that break something (see docs/fuzzing.md).

Needs atheris (`make fuzz` installs it) and the pure build. Exit status 1 if something was found.
"""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from chimney import _build
from fuzz import TARGETS, corpus

WORK = Path("build/fuzz")
FINDINGS = Path("findings/fuzz")
SHARES = {"options": 1, "frames": 3, "connection": 8}
"""How the time is divided."""
LONGEST = {"options": 40, "frames": 4096, "connection": 1024}
ROOM = {"options": 4_000, "frames": 30_000, "connection": 90_000}
"""Bytes that the corpus may take; twice as many characters."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Looks for inputs that break something.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--minimise", action="store_true", help="choose the corpus anew from all that was found so far")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if rest and not options.engine:
        parser.error(f"unknown: {' '.join(rest)}")
    if not _build.pure_requested():
        sys.exit("only Python can be watched: set CHIMNEY_PURE=1")
    if options.engine:
        return engine(options.engine, [*rest, *options.targets])
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    targets = options.targets or list(TARGETS)
    if options.minimise:
        for target in targets:
            minimise(target)
        return 0
    total = sum(SHARES[target] for target in targets)
    found = max([search(target, max(options.seconds * SHARES[target] // total, 1)) for target in targets])
    print("something was found, see above" if found else "nothing was found")
    return found


def search(target: str, seconds: int) -> int:
    """Looks for `seconds` seconds, beginning with the corpus and with what earlier searches found interesting."""
    found = WORK / target
    found.mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    for number, (data, _) in enumerate(corpus.read(target)):
        (found / f"corpus-{number}").write_bytes(data)
    before = set(FINDINGS.iterdir())
    command = [
        sys.executable, "-m", "fuzz", "--engine", target, f"-max_total_time={seconds}", f"-max_len={LONGEST[target]}",
        "-timeout=120", "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={FINDINGS}/{target}-",
        str(found),
    ]  # fmt: skip
    print(f"{target}: {seconds} seconds", flush=True)
    status = subprocess.run(command).returncode
    for file in sorted(set(FINDINGS.iterdir()) - before):
        print(f"{target}: found {file}; as a line of {corpus.path(target)}:\n{file.read_bytes().hex()}")
    return int(status != 0)


def engine(target: str, arguments: list[str]) -> int:
    """One process of atheris, which never returns."""
    import atheris

    with atheris.instrument_imports(include=["chimney"]):
        module = importlib.import_module(f"fuzz.{target}")
    atheris.Setup([f"fuzz.{target}", *arguments], module.run)
    atheris.Fuzz()
    return 0


def minimise(target: str) -> None:
    """Writes the corpus anew."""
    run = importlib.import_module(f"fuzz.{target}").run
    inputs = corpus.read(target)
    known = {data for data, _ in inputs}
    found = WORK / target
    pieces = [file.read_bytes() for file in sorted(found.iterdir())] if found.exists() else []
    inputs += [(data, "") for data in dict.fromkeys(pieces) if data not in known]
    kept = corpus.minimal(run, inputs, ROOM[target])
    corpus.write(target, kept)
    print(f"{target}: {len(kept)} of {len(inputs)} inputs, {corpus.path(target).stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
