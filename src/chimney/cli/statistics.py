"""`chimney statistics`: what a running program's stack has counted, from the file that it keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from chimney.cli.demo_data import format_size

_COUNTERS = (("tcp", "TCP_OFFLOAD_STATS"), ("ip", "IP_OFFLOAD_STATS"))
_FRAMES = ("frames_in", "frames_dropped", "frames_out", "frames_refused")
_PAUSE = 0.5


def statistics(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What CHIMNEY_STATISTICS names in the program.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The file as it is.")] = False,
) -> None:
    """Show the counters of every interface and the figures of every connection.

    For a program that runs with CHIMNEY_STATISTICS=FILE in its environment: it brings the file up to date about once a
    second, and when its stack is closed.
    """
    try:
        if watch:
            _watch(file)
        elif as_json:
            typer.echo(json.dumps(_read(file), indent=2))
        else:
            Console().print(render(_read(file)))
    except KeyboardInterrupt:
        raise typer.Exit from None


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
        if isinstance(found, dict) and {"interfaces", "icmp", "connections", "pid", "time"} <= found.keys():
            return found
        why = f"{file} holds no statistics"
    except OSError as error:
        why = f"{error}; start the program with CHIMNEY_STATISTICS={file} in its environment"
    except ValueError as error:
        why = f"{file} holds no statistics: {error}"
    typer.echo(f"chimney statistics: {why}", err=True)
    raise typer.Exit(1)


def _watch(file: Path) -> None:
    with Live(render(_read(file)), screen=True) as live:
        while True:
            time.sleep(_PAUSE)
            live.update(render(_read(file)))


def render(found: Mapping[str, Any]) -> Group:
    """Everything, for the terminal."""
    age = max(time.time() - found["time"], 0.0)
    head = f"process {found['pid']}, {age:.0f} s ago"
    icmp = "ICMP: " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in found["icmp"].items())
    return Group(head, *map(_interface, found["interfaces"]), icmp, _connections(found["connections"]))


def _interface(told: Mapping[str, Any]) -> Table:
    frames = ", ".join(f"{name.replace('_', ' ')} {told[name]:,}" for name in _FRAMES)
    table = Table("counter", title=f"{told['device']}: {told['offloaded']} offloaded", caption=frames)
    for version in ("IPv4", "IPv6"):
        table.add_column(version, justify="right")
    for layer, name in _COUNTERS:
        table.add_section()
        table.add_row(f"[bold]{name}")
        v4, v6 = told[f"{layer}4"], told[f"{layer}6"]
        for counter, count in v4.items():
            table.add_row(counter, f"{count:,}", f"{v6[counter]:,}")
    return table


def _connections(told: list[Mapping[str, Any]]) -> Table:
    table = Table("local", "remote", "owner", title=f"{len(told)} connections")
    for name in ("down/up", "µs", "by target", "by kernel", "repeated", "rtt ms", "cwnd", "mss", "pmtu"):
        table.add_column(name, justify="right")
    for one in told:
        tcp = one["tcp"]
        table.add_row(
            escape(one["local"]),
            escape(one["remote"]),
            escape(one["owner"] + (f" ({one['withdrawn']})" if one["withdrawn"] else "")),
            f"{one['offloads']}/{one['uploads']}",
            f"{one['offload_us']}/{one['upload_us']}",
            *(
                format_size(one[f"bytes_sent_{owner}"] + one[f"bytes_received_{owner}"])
                for owner in ("target", "kernel")
            ),
            str(one["retransmits"]),
            f"{tcp['tcpi_rtt'] / 1000:.3f}" if "tcpi_rtt" in tcp else "",
            *(str(tcp.get(f"tcpi_{name}", "")) for name in ("snd_cwnd", "snd_mss", "pmtu")),
        )
    return table
