"""`chimney packetdrill`: scripts in the packetdrill language, against the engine, in virtual time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chimney.cli.rules import wide_console
from chimney.packetdrill.compare import Rules
from chimney.packetdrill.runner import Outcome, Result
from chimney.packetdrill.suite import Summary, find_scripts, read_list, run_scripts

_RELAXATIONS = ("push", "window")
_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.UNSUPPORTED: "yellow", Outcome.BROKEN: "red"}


def packetdrill(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", exists=True, help="Scripts, and directories of scripts.")
    ],
    names: Annotated[
        Path | None,
        typer.Option("--list", exists=True, dir_okay=False, help="A file of names, one a line: only these scripts."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every packet and call; of a mismatch, what was expected.")
    ] = False,
    relax: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(_RELAXATIONS), help="Do not compare this; may be given more than once."),
    ] = None,
    tolerance: Annotated[
        int, typer.Option(min=0, metavar="USECS", help="Where a script allows less, times may differ by this much.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The results as one JSON object.")] = False,
) -> None:
    """Run packetdrill scripts against the TCP engine: without a kernel, without privilege, in virtual time.

    Succeeds only if every script passes, or is about something that an established connection does not have.
    """
    rules = _rules(relax or [], tolerance)
    listed = read_list(names) if names is not None else None
    if listed == []:
        raise typer.BadParameter("the list names no script", param_hint="--list")
    scripts = find_scripts(paths, listed)
    if not scripts:
        raise typer.BadParameter("no script is there: their names end in .pkt")
    console = wide_console()
    console.quiet = as_json
    summary = Summary()
    results: list[Result] = []
    for result in run_scripts(scripts, rules):
        summary.add(result)
        results.append(result)
        _show(console, result, verbose, is_only=len(scripts) == 1)
    if as_json:
        typer.echo(json.dumps({"results": [_as_object(r, verbose) for r in results], "relaxed": rules.names()}))
    elif len(results) > 1:
        _show_summary(console, summary, rules.names())
    if summary.total[Outcome.FAILED] or summary.total[Outcome.BROKEN]:
        raise typer.Exit(1)


def _rules(relax: list[str], tolerance: int) -> Rules:
    if unknown := set(relax) - set(_RELAXATIONS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))} cannot be relaxed, only {', '.join(_RELAXATIONS)}")
    return Rules("push" in relax, "window" in relax, tolerance)


def _show(console: Console, result: Result, verbose: bool, *, is_only: bool) -> None:
    """One line for a script that did not pass, or for the only one; all lines if wanted."""
    if verbose:
        console.print(f"[bold]{escape(result.name)}[/bold]")
        for line in result.log:
            console.print(escape(line), highlight=False, soft_wrap=True)
        if result.printed:
            console.print(escape(result.printed.rstrip()))
        for setting in result.ignored:
            console.print(escape(f"makes no difference here: {setting}"), highlight=False, soft_wrap=True)
    if verbose or is_only or result.outcome is not Outcome.PASSED:
        style = _STYLES[result.outcome]
        where = f"{result.name}:{result.line}" if result.line else result.name
        console.print(
            f"[{style}]{result.outcome}[/{style}] {escape(where)}: {escape(result.reason or 'as expected')}",
            highlight=False,
            soft_wrap=True,
        )


def _show_summary(console: Console, summary: Summary, relaxed: tuple[str, ...]) -> None:
    table = Table("directory", *(str(outcome) for outcome in Outcome), box=None, header_style="bold")
    for directory, counts in summary.relative().items():
        table.add_row(escape(directory), *(str(counts[outcome] or "") for outcome in Outcome))
    table.add_row("[bold]all", *(f"[bold]{summary.total[outcome]}" for outcome in Outcome))
    console.print(table)
    if relaxed:
        console.print(f"relaxed: {', '.join(relaxed)}")


def _as_object(result: Result, verbose: bool) -> dict[str, object]:
    found = dataclasses.asdict(result)
    if not verbose:
        del found["log"]
    return found
