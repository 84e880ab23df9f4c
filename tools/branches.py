"""A table of the branches that a coverage run has taken, file by file; exit status 1 below the least share.

    tools/branches.py --data FILE [--least PERCENT] [--missing]

coverage's own total mixes lines and branches; what counts here are branches alone.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the file that `coverage run` has written")
    parser.add_argument("--least", type=float, default=0.0, help="the share of branches that must be taken, in percent")
    parser.add_argument("--missing", action="store_true", help="list the branches that were not taken, as line->line")
    options = parser.parse_args()
    files = report(options.data)
    taken = total = 0
    for name in sorted(files):
        summary = files[name]["summary"]
        taken += summary["covered_branches"]
        total += summary["num_branches"]
        print(line(name, summary["covered_branches"], summary["num_branches"]))
        if options.missing:
            left = ", ".join(f"{a}->{b if b > 0 else 'end'}" for a, b in files[name]["missing_branches"])
            print(f"{'':10}{left}" if left else "", end="\n" if left else "")
    print(line("all", taken, total))
    enough = share(taken, total) >= options.least
    if not enough:
        print(f"at least {options.least:g} % of the branches are wanted")
    return 0 if enough else 1


def report(data: str) -> dict[str, dict]:
    """What coverage says of each file."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "coverage", "json", "-q", f"--data-file={data}", "-o", str(out)]
        subprocess.run(command, check=True)
        return json.loads(out.read_text())["files"]


def share(taken: int, total: int) -> float:
    return 100.0 * taken / total if total else 100.0


def line(name: str, taken: int, total: int) -> str:
    return f"{share(taken, total):6.1f} %  {taken:5} of {total:5}  {name}"


if __name__ == "__main__":
    sys.exit(main())
