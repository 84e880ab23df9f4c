"""`chimney verify`: the demonstration's traffic, and scenarios in memory, under the verifier."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from chimney.cli.demo_data import parse_size
from chimney.cli.demo_lab import DemoError
from chimney.cli.demo_report import Result
from chimney.cli.demo_run import Settings, run
from chimney.cli.interrupts import Interrupts
from chimney.cli.rules import id_column, wide_console
from chimney.lab.namespace import can_make_namespaces, enter_user_namespace
from chimney.verifier import catalogue
from chimney.verifier.report import Coverage

_INTERRUPTED = 130


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def verify(
    size: Annotated[int, typer.Option(parser=_size, metavar="SIZE", help="Bytes of every file of the demo.")] = "32M",  # type: ignore[assignment]
    cycles: Annotated[int, typer.Option(min=0, help="Hand-overs of the demo, at least.")] = 40,
    connections: Annotated[int, typer.Option(min=1, max=200, help="Of the demo.")] = 4,
    loss: Annotated[
        float, typer.Option("--loss", min=0, max=20, metavar="PERCENT", help="Of the demo's packets.")
    ] = 0.0,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 instead of IPv4.")] = False,
    drivers: Annotated[int, typer.Option(min=0, max=16, help="Intermediate drivers between host and target.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the demo's data.")] = 1,
    live: Annotated[bool, typer.Option(help="Run the demo.")] = True,
    memory: Annotated[bool, typer.Option(help="Run the scenarios in memory.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The coverage as one JSON object.")] = False,
) -> None:
    """Run real traffic and scripted scenarios under the verifier, and say which rules were exercised, and which broken.

    Succeeds only if no rule was broken, and the demo and every scenario went well.
    """
    settings = Settings(size, cycles, connections, loss, ipv6, 1500, drivers, seed)
    try:
        settings.hand_over_every()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not live and not memory:
        raise typer.BadParameter("with neither --live nor --memory there is nothing to verify")
    coverage = Coverage()
    result: dict[str, Any] = {}
    problems: list[str] = []
    console = Console(stderr=True, quiet=as_json)
    try:
        # Before the progress bar: it is a thread, and with threads the kernel refuses.
        live = live and _namespaces(problems)
        with Progress(console=console, transient=True) as progress:
            if memory:
                # Imported here: the other commands must run where the engine cannot.
                from chimney.conformance import run_scenarios

                task = progress.add_task("scenarios in memory", total=None)
                ran, failed = run_scenarios(
                    coverage, lambda done, total: progress.update(task, completed=done, total=total)
                )
                result["scenarios"] = ran
                problems += failed
            if live:
                progress.add_task("the demo's traffic", total=None)
                try:
                    demo = _live(settings, coverage)
                except (DemoError, OSError, ValueError) as error:
                    problems.append(f"the demo: {error}")
                else:
                    result["live"] = demo.as_json()
                    problems += demo.problems if not demo.ok else []
                    if not demo.ok and not demo.problems:
                        problems.append("the demo did not succeed: see `live`")
    except KeyboardInterrupt:
        typer.echo("chimney verify: interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    problems += coverage.failures
    ok = not coverage.violations and not problems
    if as_json:
        typer.echo(json.dumps(coverage.as_json() | result | {"problems": problems, "ok": ok}, indent=2))
    else:
        _print(coverage, problems)
    raise typer.Exit(0 if ok else 1)


def _namespaces(problems: list[str]) -> bool:
    """Whether the demo can have its network; ``problems`` says why not."""
    try:
        if not can_make_namespaces():
            enter_user_namespace()
    except OSError as error:
        problems.append(f"the demo: {error}")
        return False
    return True


def _live(settings: Settings, coverage: Coverage) -> Result:
    """The demo, its server's stack under a verifier that counts."""
    interrupts = Interrupts()
    with tempfile.TemporaryDirectory(prefix="chimney-verify-") as directory:
        report = Path(directory) / "coverage"
        with _environment(CHIMNEY_VERIFY="count", CHIMNEY_VERIFY_REPORT=str(report)):
            demo = run(settings, lambda sight: None, interrupts)
        if not coverage.add_file(report):
            demo.problems.append("the server has left no report of its verifier")
    return demo


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """The server is a process of its own: it hears of the verifier by its environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _print(coverage: Coverage, problems: list[str]) -> None:
    console = wide_console()
    rules = catalogue()
    table = Table(id_column(rules.values()), box=None)
    table.add_column("exercised", justify="right", no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis")
    for rule in rules.values():
        if not rule.unobservable:
            count = coverage.exercised[rule.id]
            table.add_row(rule.id, f"{count:,}" if count else "[yellow]never[/]", rule.title)
    console.print(table)
    observable = sum(not rule.unobservable for rule in rules.values())
    never = coverage.never()
    done = sum(1 for rule in rules.values() if coverage.exercised[rule.id])
    console.print(f"{done} of {observable} observable rules exercised, {len(never)} never, {len(rules)} in all")
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    for violation in coverage.violations[:10]:
        console.print(violation["text"], markup=False, highlight=False)
    if coverage.violations:
        console.print(f"[red]{len(coverage.violations)} findings[/]")
