"""`chimney simulate`: the whole stack in virtual time, run after run, until something is found."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    # Only when it is needed: the other commands shall start fast, and where the engine cannot.
    from chimney.cli.simulate_report import Report
    from chimney.sim.campaign import Crew, Plan

_RUNS = 1000
_INTERRUPTED, _CANNOT = 130, 2
# Where no bar can be shown, a line says so often how far it has come.
_TOLD_EVERY_S = 30.0
_PICTURES = (".svg", ".html")


def simulate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Cases to --replay; of a folder all *.yaml.")
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Run the cases in FILEs instead of drawn ones.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides which cases are drawn.")] = 1,
    runs: Annotated[
        int | None, typer.Option(min=1, help="How many cases to draw.", show_default=str(_RUNS))
    ] = None,
    first: Annotated[int, typer.Option(min=0, metavar="I", help="The number of the first one.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes at once.", show_default="one per core")
    ] = None,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Have a Dask cluster do the work: tcp://HOST:8786")
    ] = "",
    stop_at: Annotated[int, typer.Option(min=0, metavar="N", help="End at so many failing runs; 0: never.")] = 10,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Run each case with hand-overs between any two of its events.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="Print the log of every run, a line per event.")] = False,
    step: Annotated[bool, typer.Option("--step", help="The same, and wait for Enter after each line.")] = False,
    pcapng: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the packets of one run, for Wireshark.")
    ] = None,
    save: Annotated[Path, typer.Option(metavar="DIR", help="Where failing cases are written.")] = Path("findings"),
    shrink: Annotated[bool, typer.Option(help="Make failing cases as small as possible.")] = True,
    coverage: Annotated[
        bool | None, typer.Option(help="Print which cells of state x event x phase were visited.", show_default=False)
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write that as a picture, too: .svg or .html")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """Run the whole stack in virtual time, over a network and drivers that misbehave, and check that nothing breaks.

    Succeeds if no run has a finding. A failing run is made small, printed, and written to a file for --replay.
    With --log, --step or --pcapng it looks at single runs; at one, if neither FILEs nor --runs say otherwise.
    """
    from chimney.cli.simulate_report import Report
    from chimney.sim.campaign import CampaignError

    looking = log or step or pcapng is not None
    if replay != bool(files):
        raise typer.BadParameter("--replay and FILEs go together")
    if looking and (sweep or scheduler):
        raise typer.BadParameter("--log, --step and --pcapng look at single runs, not at --sweep or --scheduler")
    if heatmap is not None and heatmap.suffix not in _PICTURES:
        raise typer.BadParameter(f"a heat map's FILE ends in {' or '.join(_PICTURES)}")
    plan = _plan(files or [], seed, sweep, stop_at)
    count = len(plan.cases) or runs or (1 if looking else _RUNS)
    cases = range(count) if replay else range(first, first + count)
    if pcapng is not None and count != 1:
        raise typer.BadParameter(f"--pcapng takes the packets of one run; these are {count}")

    report, started, code = Report(plan, cases), monotonic(), 0
    try:
        if looking:
            try:
                _look(report, log or step, step, pcapng, as_json)
            finally:
                report.seconds = monotonic() - started
        else:
            console = Console(stderr=True)
            _campaign(report, jobs or len(os.sched_getaffinity(0)), scheduler, stop_at, console)
            _examine(report, save, shrink, console)
    except KeyboardInterrupt:
        report.problems.append("interrupted")
        code = _INTERRUPTED
    except (CampaignError, OSError) as error:
        report.problems.append(str(error))
        code = _CANNOT
    if heatmap is not None and not _paint(report, heatmap):
        code = code or _CANNOT
    if as_json:
        report.print_json()
    else:
        report.print(with_coverage=not looking if coverage is None else coverage)
    raise typer.Exit(code or (1 if report.figures.failed else 0))


def _plan(files: list[Path], seed: int, sweep: bool, stop_at: int) -> Plan:
    from chimney.sim import kept
    from chimney.sim.campaign import Plan

    try:
        cases = kept.read(files)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if files and not cases:
        raise typer.BadParameter(f"no cases in {', '.join(map(str, files))}")
    return Plan(seed=seed, cases=tuple(cases.values()), names=tuple(cases), sweep=sweep, stop_at=stop_at)


def _look(report: Report, log: bool, step: bool, pcapng: Path | None, as_json: bool) -> None:
    """Single runs, in this process."""
    from chimney.cli.simulate_failures import look

    def write(line: str) -> None:
        typer.echo(line, err=as_json)

    def write_and_wait(line: str) -> None:
        write(line)
        # The legend is read at one go.
        if not line.startswith("#"):
            try:
                input()
            except EOFError:
                raise KeyboardInterrupt from None

    for index in report.cases:
        line = (write_and_wait if step else write) if log else None
        outcome = look(report.plan, index, line, pcapng)
        report.figures.add(index, 0, outcome)
        if log:
            write(f"{report.plan.name(index)}: {len(outcome.findings) or 'no'} findings")


def _campaign(report: Report, jobs: int, scheduler: str, stop_at: int, console: Console) -> None:
    """Many runs, by many processes."""
    from chimney.sim.campaign import campaign

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    )
    with _crew(jobs, scheduler) as crew, bar:
        total = len(report.cases) * report.plan.parts
        task = bar.add_task("simulating", total=total, figures="")
        started = told = monotonic()
        for figures in campaign(report.plan, report.cases, crew, stop_at):
            report.figures = figures
            now = monotonic()
            words = report.progress(now - started)
            bar.update(task, completed=figures.parts, figures=words)
            if bar.disable and now - told >= _TOLD_EVERY_S:
                told = now
                _tell(f"{now - started:,.0f} s, {figures.parts / total:.1%}: {words}")


def _tell(words: str) -> None:
    typer.echo(words, err=True)


def _crew(jobs: int, scheduler: str) -> Crew:
    from chimney.sim.campaign import CampaignError
    from chimney.sim.minder import LocalCrew

    if not scheduler:
        return LocalCrew(jobs)
    try:
        from chimney.sim.cluster import Cluster
    except ModuleNotFoundError as error:
        if error.name != "distributed":
            raise
        raise CampaignError("--scheduler needs the package distributed: pip install tcp-chimney[cluster]") from None
    return Cluster(scheduler)


def _examine(report: Report, folder: Path, shrink: bool, console: Console) -> None:
    """The failing runs, one of each kind, made small and written to files."""
    from chimney.cli.simulate_failures import examine

    with Progress(console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task("making failing cases small", total=None)
        for example in examine(report.plan, report.figures.failures, folder, shrink):
            report.examples.append(example)
            progress.advance(task)
            if progress.disable:
                _tell(f"{example.kind}: {example.path}")


def _paint(report: Report, path: Path) -> bool:
    """Whether the heat map could be written."""
    from chimney.sim import heatmap

    try:
        heatmap.write(path, report.figures.cells, report.title(), report.in_words())
    except OSError as error:
        report.problems.append(f"{path}: {error}")
        return False
    return True
