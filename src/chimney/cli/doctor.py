"""`chimney doctor`: what works on this machine, and what to do about what does not."""

import dataclasses
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from chimney import _build
from chimney.cli import attempts
from chimney.cli.sandbox import Refused, attempt

State = Literal["ok", "warning", "failed"]
COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. 'failed' means that the demo cannot run, 'warning' that it runs with less."""

    check: str
    state: State
    detail: str
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Say what works on this machine, and what to do about what does not. Exit status 0: the demo can run."""
    findings = examine()
    can_run = all(finding.state != "failed" for finding in findings)
    if as_json:
        report = {"can_run": can_run, "checks": [dataclasses.asdict(finding) for finding in findings]}
        typer.echo(json.dumps(report, indent=2))
    else:
        console = Console()
        console.print(table(findings))
        console.print("The demo can run here." if can_run else "[red]The demo cannot run here.[/red]")
    raise typer.Exit(0 if can_run else 1)


def examine() -> list[Finding]:
    """All findings, in the order of the report. What needs a namespace is left out where there is none to be had."""
    findings = [python(), build(), namespaces()]
    if findings[-1].state == "ok":
        findings += [
            tried("veth", attempts.veth, "load the kernel module veth"),
            tried("AF_PACKET", attempts.packet_socket, "use a kernel with CONFIG_PACKET"),
            tried("TCP_REPAIR", attempts.tcp_repair, "use a kernel with CONFIG_CHECKPOINT_RESTORE"),
            tried("ctnetlink", attempts.conntrack, "load the kernel module nf_conntrack_netlink"),
            tried("nftables", attempts.nftables, "apt-get install nftables; until then no firewall", "warning"),
        ]
    return [*findings, curl()]


def python() -> Finding:
    """The interpreter; an older one would not have come this far."""
    return Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def build() -> Finding:
    """Compiled and current is fine; pure Python works and is slower; an extension of other sources must not be used."""
    stale = _build.stale()
    if stale and not _build.pure_requested():
        return Finding("build", "warning", "extensions older than their sources: " + ", ".join(stale), "make build")
    if _build.is_compiled():
        return Finding("build", "ok", _build.describe())
    remedy = "unset CHIMNEY_PURE" if _build.pure_requested() else "make build (needs gcc and python3-dev)"
    return Finding("build", "warning", _build.describe(), remedy + ", for speed")


def namespaces() -> Finding:
    """A network namespace of one's own, on which all else rests."""
    try:
        return Finding("namespaces", "ok", attempt(attempts.namespace))
    except Refused as error:
        return Finding("namespaces", "failed", str(error), namespace_remedy())


def namespace_remedy() -> str:
    """The setting of this machine that forbids user namespaces, if it is one of those known."""
    for setting, forbidding, allowing in (
        ("user/max_user_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        try:
            with open("/proc/sys/" + setting) as file:
                if file.read().strip() == forbidding:
                    return f"run as root, or as root: sysctl -w {setting.replace('/', '.')}={allowing}"
        except OSError:
            continue
    return "run as root; in a container, with CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN"


def tried(check: str, function: Callable[[], str], remedy: str, otherwise: State = "failed") -> Finding:
    """The finding of an attempt in a sandbox."""
    try:
        return Finding(check, "ok", attempt(function))
    except Refused as error:
        return Finding(check, otherwise, str(error), remedy)


def curl() -> Finding:
    """The demo's client."""
    program = shutil.which("curl")
    remedy = "apt-get install curl; until then Python's own client"
    if program is None:
        return Finding("curl", "warning", "the program curl is not installed", remedy)
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("curl", "warning", str(error), remedy)
    return Finding("curl", "ok", " ".join(said.split()[:2]))


def table(findings: list[Finding]) -> Table:
    """The report for a person."""
    report = Table("check", "state")
    report.add_column("detail", overflow="fold")
    report.add_column("what to do", overflow="fold")
    for finding in findings:
        colour = COLOURS[finding.state]
        report.add_row(finding.check, f"[{colour}]{finding.state}[/{colour}]", finding.detail, finding.remedy)
    return report
