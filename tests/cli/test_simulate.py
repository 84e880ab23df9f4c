"""`chimney simulate`: what it prints, what it keeps, how it ends. The simulator is a fake that does as it is told."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from distributed import LocalCluster
from typer.testing import CliRunner

import chimney.sim.campaign
import chimney.sim.cluster
from chimney import _build
from chimney.cli import simulate as command
from chimney.cli import simulate_failures
from chimney.cli.app import app
from chimney.sim.campaign import Plan
from chimney.sim.case import Case, dump, load
from tests.sim.campaign_fakes import PLAN, digest

CHIMNEY = [sys.executable, "-m", "chimney.cli"]


@pytest.fixture(autouse=True)
def fake(tmp_path, monkeypatch):
    """fake(index, what): what the run of this number does. Files are written to another folder."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("CAMPAIGN_FAKES", str(tmp_path / "scripts"))
    # A plan is what it is by default, but for these.
    fakes = {name: getattr(PLAN, name) for name in ("run", "draw", "sweeper", "limit_s")}
    monkeypatch.setattr(Plan.__init__, "__kwdefaults__", Plan.__init__.__kwdefaults__ | fakes)
    # Workers look for the fakes on the path of this process, wherever they run.
    monkeypatch.syspath_prepend(os.getcwd())
    monkeypatch.chdir(tmp_path / "here")
    return lambda index, what: (tmp_path / "scripts" / str(index)).write_text(what)


def run(*arguments, **options):
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)], **options)


def figures(*arguments, code=0):
    done = run(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_figures_for_machines():
    found = figures("--seed", 7, "--runs", 30, "--first", 100, "--jobs", 2)
    assert found["ok"] and (found["seed"], found["first"], found["cases"], found["runs"]) == (7, 100, 30, 30)
    assert (found["events"], found["segments"], found["hand_overs"]) == (30, 60, 120)
    assert found["runs_per_second"] > 0 and found["simulated_seconds"] == pytest.approx(90e-6)
    assert sum(cell["visits"] for cell in found["cells"]) == 30 and found["rules"] == {"some.rule": 30}
    assert found["failures"] == found["problems"] == [] and found["findings"] == found["kept"] == {}


def test_figures_for_people():
    done = run("--runs", 30)
    assert done.exit_code == 0
    assert f"seed 1, cases 0 to 29 ({_build.describe()}): 30 runs, 0 with findings, " in done.stdout
    assert " segments/s" in done.stdout
    assert "Coverage: event x state x phase" in done.stdout and "1 rules exercised" in done.stdout
    assert "Coverage: event" not in run("--runs", 1, "--no-coverage").stdout


def test_a_thousand_runs_if_nothing_else_is_said():
    assert figures()["runs"] == 1000


def test_a_failing_run_is_made_small_printed_and_kept(fake, tmp_path):
    fake(12, "broken")
    done = run("--runs", 40, "--seed", 3)
    assert done.exit_code == 1
    kept = tmp_path / "here" / "findings" / "seed3-run12-broken.yaml"
    [case] = load(kept)
    assert case.why == "broken: seed 0 (seed3-run12)" and case.seed == 0
    assert "a line\nanother\n" in done.stdout
    assert "seed3-run12: broken (event 1, 0.001 ms): seed 3012" in done.stdout
    assert "kept: chimney simulate --replay findings/seed3-run12-broken.yaml --log" in done.stdout
    assert "made small in " in done.stdout
    assert "1 runs with findings: 1 x broken, 1 x more" in done.stdout


def test_a_failing_run_can_be_kept_as_it_was(fake, tmp_path):
    fake(12, "broken")
    found = figures("--runs", 40, "--no-shrink", "--save", tmp_path / "kept", code=1)
    path = tmp_path / "kept" / "seed1-run12-broken.yaml"
    assert load(path)[0].seed == 1012 and found["kept"] == {"seed1-run12": str(path)}
    assert not found["ok"] and found["findings"] == {"broken": 1, "more": 1}
    [failure] = found["failures"]
    assert (failure["index"], failure["name"], len(failure["findings"])) == (12, "seed1-run12", 5)
    assert failure["findings"][0] == {"kind": "broken", "message": "seed 1012", "event": 1, "at_us": 1}


@pytest.mark.parametrize("what", ["exit", "hang"])
def test_a_run_that_kills_its_process_or_hangs_is_made_small_all_the_same(fake, what, monkeypatch):
    monkeypatch.setattr(simulate_failures, "_PATIENCE_S", 1.0)
    fake(12, what)
    done = run("--runs", 40)
    assert done.exit_code == 1
    assert "a line\nanother\n" in done.stdout and "1 runs with findings" in done.stdout


def test_of_each_kind_one_failing_run_is_kept(fake, tmp_path):
    for index, what in enumerate(["broken", "raise", "broken", "raise"]):
        fake(index, what)
    done = run("--runs", 40, "--no-shrink")
    kept = sorted(path.name for path in (tmp_path / "here" / "findings").iterdir())
    assert kept == ["seed1-run0-broken.yaml", "seed1-run1-crash-zerodivisionerror.yaml"]
    assert all(f"seed1-run{number}: " in done.stdout for number in range(4))


def test_what_is_not_found_again_is_said(fake):
    fake(3, "broken-once")
    done = run("--runs", 10)
    assert done.exit_code == 1 and "seed1-run3: broken" in done.stdout
    assert "It was not found again: something else than the case decides it." in done.stdout


def test_it_ends_at_the_first_failures(fake):
    for index in range(100, 200):
        fake(index, "broken")
    found = figures("--runs", 10**6, "--stop-at", 2, "--no-shrink", code=1)
    assert [failure["index"] for failure in found["failures"]] == [100, 101] and found["runs"] < 10**5


def test_cases_are_replayed(tmp_path):
    (tmp_path / "good.yaml").write_text(dump(Case()))
    (tmp_path / "two.yaml").write_text("- why: broken\n- {seed: 5}\n")
    done = run("--replay", tmp_path / "good.yaml", tmp_path / "two.yaml", "--no-shrink")
    assert done.exit_code == 1
    assert f"3 kept cases ({_build.describe()}): 3 runs, 1 with findings" in done.stdout
    assert "two-1: broken" in done.stdout
    assert figures("--replay", tmp_path, "--no-shrink", code=1)["runs"] == 3


def test_a_sweep(tmp_path):
    (tmp_path / "good.yaml").write_text(dump(Case()))
    found = figures("--replay", tmp_path / "good.yaml", "--sweep", "--no-shrink", code=1)
    assert found["runs"] == 41 and [failure["name"] for failure in found["failures"]] == ["good-40"]


def test_the_log_of_one_run(fake):
    fake(5, "broken")
    done = run("--first", 5, "--log")
    assert done.exit_code == 1
    assert done.stdout.startswith("a line\nanother\nseed1-run5: 8 findings\n")
    assert "broken (event 1, 0.001 ms): seed 1005" in done.stdout
    assert "seed 1, case 5 (" in done.stdout
    assert run("--runs", 3, "--log").stdout.count("a line\n") == 3
    assert run("--log", "--json").stderr.startswith("a line\n")


def test_step_by_step():
    done = run("--step", input="\n\n")
    assert done.exit_code == 0 and "1 runs, 0 with findings" in done.stdout
    done = run("--step", input="\n")
    assert done.exit_code == 130 and "interrupted" in done.stdout


def test_how_long_it_took_until_it_was_interrupted(monkeypatch):
    monkeypatch.setattr(command, "monotonic", iter([1.0, 3.0]).__next__)
    assert figures("--step", code=130)["seconds"] == 2


def test_packets_of_one_run(tmp_path):
    assert run("--pcapng", tmp_path / "x.pcapng").exit_code == 0
    assert (tmp_path / "x.pcapng").read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"


@pytest.mark.parametrize(("name", "begins"), [("x.svg", "<svg"), ("x.html", "<!doctype html>")])
def test_a_heat_map(tmp_path, name, begins):
    assert run("--runs", 5, "--heatmap", tmp_path / name).exit_code == 0
    assert (tmp_path / name).read_text().lower().startswith(begins)


def test_a_heat_map_that_cannot_be_written(fake):
    fake(3, "broken")
    for options in ([], ["--no-shrink", "--runs", 5]):
        found = figures("--runs", 3, "--heatmap", "missing/x.svg", *options, code=2)
        assert "missing/x.svg" in found["problems"][0] and not found["ok"]


@pytest.mark.parametrize(("options", "still_json"), [([], False), (["--json"], True)])
def test_how_far_it_is_stands_on_standard_error_if_that_is_no_terminal(fake, monkeypatch, options, still_json):
    monkeypatch.setattr(command, "_TOLD_EVERY_S", 0)
    fake(3, "broken")
    done = run("--runs", 40, "--no-shrink", *options)
    first, *_, last, kept = done.stderr.splitlines()
    assert re.fullmatch(r"\d s, [\d.]+%: \d+ runs, [01] with findings, .*", first)
    assert ", 100.0%: 40 runs, 1 with findings, " in last
    assert kept == "broken: findings/seed1-run3-broken.yaml"
    assert not still_json or json.loads(done.stdout)["runs"] == 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--replay"], "go together"),
        (["some.yaml"], "go together"),
        (["--replay", "missing.yaml"], "missing.yaml"),
        (["--replay", "."], "no cases in"),
        (["--log", "--sweep"], "single runs"),
        (["--runs", "2", "--pcapng", "x"], "these are 2"),
        (["--heatmap", "x.png"], ".svg or .html"),
        (["--runs", "0"], "--runs"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2 and said in " ".join(done.stderr.replace("│", " ").split())


def test_a_case_that_makes_no_sense_says_where(tmp_path):
    (tmp_path / "x.yaml").write_text("steps:\n- {do: send, side: c, at: 1, size: 1}\n")
    done = run("--replay", tmp_path / "x.yaml")
    assert done.exit_code == 2 and "steps[0]" in done.stderr


def test_without_distributed_there_is_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "chimney.sim.cluster", raising=False)
    done = run("--scheduler", "tcp://127.0.0.1:1", "--no-coverage")
    assert done.exit_code == 2 and "pip install tcp-chimney[cluster]" in done.stdout


@pytest.mark.timeout(600)
def test_a_cluster_does_the_work(fake, monkeypatch):
    fake(7, "broken")
    monkeypatch.setattr(chimney.sim.cluster, "digest", digest)
    options = {"processes": True, "dashboard_address": ":0", "preload": ["tests.sim.campaign_fakes"]}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        found = figures("--scheduler", cluster.scheduler_address, "--runs", 50, "--no-shrink", code=1)
    assert found["runs"] == 50 and [failure["index"] for failure in found["failures"]] == [7]


def test_ctrl_c_prints_what_there_is(fake, monkeypatch):
    fake(1, "broken")
    real = chimney.sim.campaign.campaign

    def interrupted(*arguments):
        results = real(*arguments)
        yield next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(chimney.sim.campaign, "campaign", interrupted)
    done = run("--runs", 10**6, "--jobs", 1, "--no-coverage")
    assert done.exit_code == 130
    assert "1 with findings" in done.stdout and "seed1-run1: broken" in done.stdout and "interrupted" in done.stdout


def test_ctrl_c_ends_every_process():
    """The real signal, to the real command, whatever the runs are."""
    command = [*CHIMNEY, "simulate", "--runs", str(10**9), "--stop-at", "0", "--jobs", "2", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore the signal, and whatever they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not children(process.pid):
            assert process.poll() is None, process.communicate()
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 130 and json.loads(output)["problems"] == ["interrupted"]
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        mine = [int(child) for child in file.read().split()]
    # Threads start them, too.
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            mine += [int(child) for child in file.read().split()]
    return sorted(set(mine))


def test_help_loads_no_simulator():
    code = "import sys, chimney.cli.app; print([name for name in sys.modules if name.startswith('chimney.sim')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
