"""What stands in for the simulator where campaigns are tested: workers find it by its name."""

import os
import signal
from collections import Counter
from pathlib import Path

from chimney.sim.campaign import Plan
from chimney.sim.case import Case, Shutdown
from chimney.sim.outcome import Cell, Finding, Outcome

BAD = 10**12
"""The number of a case that cannot be drawn."""

PLAN = Plan(
    run="tests.sim.campaign_fakes:run",
    draw="tests.sim.campaign_fakes:draw",
    sweeper="tests.sim.campaign_fakes:sweep",
    limit_s=0.5,
)


def draw(seed, index):
    """Case number ``index``: `run` goes by its ``why``, which the directory CAMPAIGN_FAKES may have a file for."""
    if index == BAD:
        raise ValueError("no such case")
    folder = os.environ.get("CAMPAIGN_FAKES")
    script = Path(folder, str(index)) if folder else None
    why = f"{script.read_text()} {script}" if script and script.exists() else ""
    return Case(seed=1000 * seed + index, why=why)


def run(case, *, log=None, tap=None, verify=True):
    """One event, and whatever ``case.why`` says."""
    for line in ("a line", "another"):
        if log:
            log(line)
    what, *where = case.why.split()[:2] or ["nothing"]
    findings = []
    if what == "exit":
        os._exit(3)
    elif what == "exit-once" and _first_time(where[0]):
        os._exit(3)
    elif what in ("hang", "hang-hard"):
        if what == "hang-hard":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
        while True:
            pass
    elif what == "wait":
        signal.pause()
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "raise":
        raise ZeroDivisionError("by nothing")
    elif what == "memory":
        findings = [Finding("memory", str(len(bytearray(8 << 30))), 1, 1)]
    elif what == "broken" or what == "broken-once" and _first_time(where[0]):
        findings = [Finding("broken", f"seed {case.seed}", 1, 1)] * 7 + [Finding("more", "", 2, 2)]
    elif what == "work":
        sum(range(2_000_000))
    return Outcome(
        case,
        findings,
        events=1 + len(case.steps),
        segments=2,
        simulated_us=3,
        hand_overs=4,
        bytes_delivered=5,
        cells=Counter({Cell("ESTABLISHED", "data", f"phase {case.seed % 3}"): 1}),
        rules=Counter({"some.rule": 1}),
    )


def _first_time(where):
    marker = Path(where + "-done")
    if marker.exists():
        return False
    marker.touch()
    return True


def sweep(case, run):
    """The case itself, and 40 variants, the last of which is broken."""
    assert run(case).events in (0, 1)
    for number in range(1, 41):
        why = "broken" if number == 40 else ""
        yield Case(seed=case.seed, why=why, steps=(Shutdown(event=number, side="a"),))


def draw_work(seed, index):
    """Runs that take a while; number 59 kills its process."""
    return Case(seed=index, why="exit" if index == 59 else "work")


def digest():
    """In place of `chimney.sim.cluster.digest`: sources may be edited while their tests run."""
    return "tests"


def dask_setup(worker):
    """Called by each worker of a Dask cluster that preloads this module."""
    from chimney.sim import cluster

    cluster.digest = digest
