"""Campaigns: nothing is lost and nothing counted twice, whoever dies; what kills its process or hangs is named."""

import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import CancelledError, Future
from dataclasses import replace

import pytest

from chimney.sim import campaign as campaigns
from chimney.sim import minder
from chimney.sim.campaign import PARTS, CampaignError, Chunk, Figures, campaign
from chimney.sim.case import Case
from chimney.sim.minder import LocalCrew, Minder
from chimney.sim.outcome import Cell, Finding, Outcome
from chimney.sim.worker import Single
from tests.sim.campaign_fakes import BAD, PLAN


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """scripts(index, what): what the run of this number does."""
    monkeypatch.setenv("CAMPAIGN_FAKES", str(tmp_path))
    return lambda index, what: (tmp_path / str(index)).write_text(what)


@pytest.fixture
def minded():
    with Minder() as made:
        yield made


def all_of(plan, cases, jobs=2, **options):
    """The last figures of a campaign."""
    with LocalCrew(jobs) as crew:
        *_, figures = campaign(plan, cases, crew, **options)
    return figures


def found(figures):
    return [(failure.index, failure.variant, failure.kind) for failure in figures.failures]


def test_everything_is_added_up():
    figures = all_of(PLAN, range(10, 310))
    assert figures.parts == figures.runs == figures.events == 300
    assert (figures.segments, figures.simulated_us, figures.hand_overs) == (600, 900, 1200)
    assert figures.bytes_delivered == 1500
    assert figures.cells == {Cell("ESTABLISHED", "data", f"phase {phase}"): 100 for phase in range(3)}
    assert figures.rules == {"some.rule": 300}
    assert figures.failures == [] and figures.findings == Counter() and figures.seconds > 0


def test_figures_come_as_chunks_end():
    with LocalCrew(1) as crew:
        counts = [figures.runs for figures in campaign(PLAN, range(100), crew)]
    assert counts[0] < 100 == counts[-1] and counts == sorted(counts)


def test_a_seed_decides_the_cases():
    assert PLAN.case(7) == PLAN.case(7) != replace(PLAN, seed=1).case(7)


def test_given_cases_are_run_in_place_of_drawn_ones():
    plan = replace(PLAN, cases=(Case(), Case(why="broken")), names=("good", "bad"))
    figures = all_of(plan, range(2))
    assert found(figures) == [(1, 0, "broken")] and plan.name(1) == "bad"


def test_a_failure_has_its_case_and_its_first_findings(scripts):
    scripts(5, "broken")
    figures = all_of(replace(PLAN, seed=3), range(20))
    [failure] = figures.failures
    assert failure.index == 5 and failure.case.seed == 3005 and len(failure.findings) == 5
    assert figures.findings == {"broken": 1, "more": 1}
    assert replace(PLAN, seed=3).name(failure.index) == "seed3-run5"


def test_it_stops_at_the_first_failures(scripts):
    for index in (30, 3, 7, 50, 5000):
        scripts(index, "broken")
    figures = all_of(replace(PLAN, stop_at=2), range(1_000_000), stop_at=2)
    assert found(figures) == [(3, 0, "broken"), (7, 0, "broken")]
    assert figures.runs < 100_000


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("exit", "killed", "exit status 3"),
        ("hang", "hang", "no end after 0.5 s of CPU time, in run:"),
        ("hang-hard", "hang", "no end after 0.75 s of CPU time, but that of its process"),
        ("raise", "crash: ZeroDivisionError", "by nothing"),
        ("memory", "crash: MemoryError", ""),
    ],
)
def test_whatever_a_run_does_to_its_process_is_named_and_costs_no_result(scripts, what, kind, said):
    scripts(11, what)
    scripts(12, "broken")
    figures = all_of(PLAN, range(40))
    assert found(figures) == [(11, 0, kind), (12, 0, "broken")]
    assert said in figures.failures[0].findings[0].message
    assert figures.runs == figures.parts == 40


def test_a_run_that_waits_for_ever_is_named(minded):
    outcome = minded.single(Single(replace(PLAN, patience_s=0.1), Case(why="wait")))
    assert [str(finding) for finding in outcome.findings] == [
        "hang (event 0, 0.000 ms): nothing happens in it: 0.1 s, but no end"
    ]


def test_a_run_on_a_machine_that_has_other_things_to_do_does_not_hang(minded):
    """Its process stands still for longer than it may run."""

    def go_on_later(line):
        if line == "another":
            os.waitpid(minded.pid, os.WUNTRACED)
            with pytest.raises(subprocess.TimeoutExpired):
                minded._process.wait(0.2)
            os.kill(minded.pid, signal.SIGCONT)

    outcome = minded.single(Single(replace(PLAN, limit_s=0.1), Case(why="stop"), log=True), go_on_later)
    assert outcome.findings == []


def test_the_number_of_jobs_changes_nothing(scripts):
    for index, what in ((2, "exit"), (30, "broken"), (31, "raise"), (55, "broken")):
        scripts(index, what)
    one, several = (replace(all_of(PLAN, range(1, 60), jobs), seconds=0) for jobs in (1, 3))
    assert one == several and one.runs == 59 and one.failed == 4


def test_several_runs_that_kill_are_all_named(scripts):
    for index in (3, 4, 6):
        scripts(index, "exit")
    figures = all_of(PLAN, range(10))
    assert found(figures) == [(index, 0, "killed") for index in (3, 4, 6)] and figures.runs == 10


def test_a_death_that_does_not_come_again_is_nobodys_fault(scripts):
    scripts(11, "exit-once")
    figures = all_of(PLAN, range(40))
    assert figures.failures == [] and figures.runs == 40


def test_a_worker_that_is_killed_costs_no_result(scripts, minded):
    for index in range(40):
        scripts(index, "work")
    # It is at its first chunk, or has just done it: both must do.
    minded.chunk(Chunk(PLAN, 0, 1))
    os.kill(minded.pid, signal.SIGKILL)
    figures = minded.chunk(Chunk(PLAN, 0, 40))
    assert figures.runs == 40 and figures.failures == []


def test_a_sweep_runs_every_variant_once():
    figures = all_of(replace(PLAN, sweep=True), range(2))
    assert figures.runs == 2 * 41 and figures.parts == 2 * PARTS
    assert found(figures) == [(0, 40, "broken"), (1, 40, "broken")]
    assert figures.failures[0].case.steps[0].event == 40
    assert replace(PLAN, sweep=True).name(0, 40) == "seed0-run0-40"


def test_a_sweep_of_a_case_that_fails_without_hand_overs(scripts):
    scripts(0, "exit")
    figures = all_of(replace(PLAN, sweep=True), range(1))
    assert found(figures) == [(0, 0, "killed"), (0, 40, "broken")]
    assert figures.runs == 41 and figures.findings["killed"] == 1


def test_a_case_that_cannot_be_made_ends_the_campaign():
    with pytest.raises(CampaignError, match="no such case"):
        all_of(PLAN, range(BAD - 5, BAD + 5))


def test_workers_that_cannot_work_end_the_campaign(monkeypatch):
    monkeypatch.setattr(minder.sys, "executable", "/bin/false")
    with pytest.raises(CampaignError, match="cannot work here"):
        all_of(PLAN, range(10))


def test_a_campaign_can_be_left_at_any_time(scripts):
    for index in range(1000):
        scripts(index, "hang")
    with LocalCrew(2) as crew:
        for _ in range(6):
            crew.submit(Chunk(replace(PLAN, limit_s=100), 0, 10))
        while not all(minder.pid for minder in crew._minders):
            pass
        pids = [minder.pid for minder in crew._minders]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_who_leaves_without_patience_leaves_no_process_behind(scripts, monkeypatch):
    """Ctrl-C, and once more while it waits for those whom it has ended."""
    for index in range(1000):
        scripts(index, "hang")
    crew = LocalCrew(2)
    for _ in range(6):
        crew.submit(Chunk(replace(PLAN, limit_s=100), 0, 10))
    while not all(minder.pid for minder in crew._minders):
        pass
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(minder.subprocess.Popen, "wait", interrupted)
        patched.setattr(crew._threads, "shutdown", interrupted)
        crew.__exit__()
    # They end, or this does not.
    for made in crew._minders:
        made._process.wait()
    crew._threads.shutdown()


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_a_single_case_with_its_log(minded):
    lines = []
    outcome = minded.single(Single(PLAN, Case(), log=True), lines.append)
    assert lines == ["a line", "another"] and outcome.events == 1
    assert minded.single(Single(PLAN, Case()), lines.append).events == 1 and len(lines) == 2


def test_the_log_of_a_run_that_kills_its_process_is_there_up_to_its_death(minded):
    lines = []
    outcome = minded.single(Single(PLAN, Case(why="exit"), log=True), lines.append)
    assert lines == ["a line", "another"] and [finding.kind for finding in outcome.findings] == ["killed"]


def test_a_worker_ends_when_nobody_minds_it():
    """As it does when whoever minds it is killed."""
    code = (
        "from tests.sim.test_campaign import *; made = Minder(); made.single(Single(PLAN, Case()));"
        "print(made.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGKILL
    # The worker has inherited the pipes to this process: they have ended because the worker has.
    assert int(done.stdout)


class Lossy:
    """A crew that loses a chunk ``times`` times, by ``error``."""

    lost = (KeyError,)

    def __init__(self, times, error):
        self.times, self.error = times, error

    def slots(self):
        return 1

    def submit(self, chunk):
        future = Future()
        if self.times:
            self.times -= 1
            future.set_exception(self.error)
        else:
            future.set_result(Figures(parts=chunk.count, runs=chunk.count))
        return future


class Bad:
    """A crew whose runs all fail."""

    lost = ()

    def slots(self):
        return 1

    def submit(self, chunk):
        figures, future = Figures(), Future()
        for index in range(chunk.first, chunk.first + chunk.count):
            figures.add(index, 0, Outcome(Case(), [Finding("bad", "", 0, 0)]))
        future.set_result(figures)
        return future


def test_of_many_failures_those_of_the_lowest_numbers_are_kept_whoever_is_done_first(monkeypatch):
    monkeypatch.setattr(campaigns, "FAILURES_KEPT", 20)
    total = Figures()
    for first in (32, 8, 24, 0, 16):
        total.merge(Bad().submit(Chunk(PLAN, first, 8)).result())
    assert total.failed == 40 and [failure.index for failure in total.failures] == list(range(20))


def test_it_stops_at_more_failures_than_are_kept(monkeypatch):
    monkeypatch.setattr(campaigns, "FAILURES_KEPT", 20)
    *_, figures = campaign(PLAN, range(10**9), Bad(), stop_at=100)
    assert 100 <= figures.failed < 200 and len(figures.failures) == 20


def test_a_chunk_that_is_lost_is_run_again_but_not_for_ever():
    *_, figures = campaign(PLAN, range(1), Lossy(3, KeyError("gone")))
    assert figures.runs == 1
    with pytest.raises(CampaignError, match="whoever runs .* is lost"):
        list(campaign(PLAN, range(1), Lossy(4, KeyError("gone"))))


def test_a_campaign_without_workers_ends():
    with pytest.raises(CampaignError, match="the workers are gone"):
        list(campaign(PLAN, range(1), Lossy(1, CancelledError())))


def test_figures_of_nothing_change_nothing():
    figures = Figures(runs=3)
    figures.merge(Figures())
    assert figures == Figures(runs=3)
