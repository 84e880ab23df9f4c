"""The Typer application: one line per command, each command in a module of its own."""

from typing import Annotated

import typer

from chimney import __version__, _build
from chimney.cli import demo, doctor, packetdrill, rules, simulate, statistics, verify

app = typer.Typer(help="TCP chimney offload for Linux.", no_args_is_help=True, add_completion=False)

app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("verify")(verify.verify)
app.command("rules")(rules.rules)
app.command("simulate")(simulate.simulate)
app.command("statistics")(statistics.statistics)
app.command("packetdrill")(packetdrill.packetdrill)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chimney {__version__} ({_build.describe()})")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version and build, and exit.")
    ] = False,
) -> None:
    """TCP chimney offload for Linux: live connections leave the kernel's TCP, and come back."""
