"""`chimney demo`: live connections of a file server go down the chimney and come back up, under real curl's eyes."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from chimney.cli.demo_data import format_size, parse_size
from chimney.cli.demo_lab import DemoError
from chimney.cli.demo_processes import plan
from chimney.cli.demo_report import render
from chimney.cli.demo_run import Settings, Sight, run
from chimney.cli.interrupts import Interrupts
from chimney.lab.namespace import can_make_namespaces, enter_user_namespace

_INTERRUPTED = 130


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def demo(
    size: Annotated[
        int, typer.Option(parser=_size, metavar="SIZE", help="Bytes of every file; K, M, G are powers of 1024.")
    ] = "256M",  # type: ignore[assignment]
    cycles: Annotated[
        int,
        typer.Option(
            min=0, help="Hand-overs down and up again in mid-transfer, of all connections together, at least."
        ),
    ] = 100,
    connections: Annotated[
        int, typer.Option(min=1, max=200, help="Downloads and uploads in turn; with 1, both on the same connection.")
    ] = 4,
    loss: Annotated[
        float, typer.Option("--loss", min=0, max=20, metavar="PERCENT", help="Lose packets at random, both ways.")
    ] = 0.0,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 instead of IPv4.")] = False,
    mtu: Annotated[int, typer.Option(min=1280, max=9000, help="Of the wire, in bytes.")] = 1500,
    drivers: Annotated[int, typer.Option(min=0, max=16, help="Intermediate drivers between host and target.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the data, and of where the hand-overs happen.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON object, and no progress.")] = False,
) -> None:
    """Offload and upload the connections of a real HTTP server, again and again, while files are being transferred.

    Two network namespaces, a wire, a firewall, curl on the other side. Succeeds only if every digest matches, no RST
    was seen on the wire, and all cycles happened in mid-transfer.
    """
    settings = Settings(size, cycles, connections, loss, ipv6, mtu, drivers, seed)
    try:
        settings.hand_over_every()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    interrupts = Interrupts()
    try:
        if not can_make_namespaces():
            enter_user_namespace()
        if as_json:
            result = run(settings, lambda sight: None, interrupts)
            typer.echo(json.dumps(result.as_json(), indent=2))
        else:
            with _Display(settings) as display:
                result = run(settings, display.show, interrupts)
            Console().print(render(result))
    except (DemoError, OSError) as error:
        typer.echo(f"chimney demo: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("chimney demo: interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(0 if result.ok else 1)


class _Display:
    """Progress on stderr, a line per connection."""

    def __init__(self, settings: Settings) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        figures = TextColumn("{task.fields[figures]}")
        self._progress = Progress(*columns, figures, console=Console(stderr=True), auto_refresh=False)
        self._lines = {}
        for transfers in plan(settings.connections):
            words = " and ".join("upload" if transfer.upload else "download" for transfer in transfers)
            number = transfers[0].connection
            total = settings.size * len(transfers)
            self._lines[number] = self._progress.add_task(f"{number} {words}", total=total, figures=""), total
        self._hand_overs = self._progress.add_task("hand-overs", total=settings.cycles * 2 or None, figures="")

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._progress.stop()

    def show(self, sight: Sight) -> None:
        """Bring the lines up to date."""
        for number, (line, total) in self._lines.items():
            # What a lost packet's repetition brought looks like a repetition: the sum falls short of the whole.
            moved = total if number in sight.finished else sight.moved.get(number, 0)
            self._progress.update(line, completed=moved, figures=format_size(moved))
        words = f"{sight.offloads} down, {sight.uploads} up"
        self._progress.update(self._hand_overs, completed=sight.offloads + sight.uploads, figures=words)
        self._progress.refresh()
