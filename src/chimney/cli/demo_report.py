"""What the demonstration found out: figures, verdict, table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from chimney.cli.demo_data import format_size


@dataclass
class Moved:
    """One transfer: what each side says about it. Digests are SHA-256 in hexadecimal, '' where nothing was said.

    `tcp`: what the connection's `owner` at the end of the transfer tells of it, by the names of TCP_INFO.
    """

    name: str
    expected_bytes: int
    expected_digest: str
    sent_bytes: int = 0
    sent_digest: str = ""
    received_bytes: int = 0
    received_digest: str = ""
    offloads: int = 0
    uploads: int = 0
    bytes_kernel: int = 0
    bytes_target: int = 0
    owner: str = ""
    tcp: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether both sides had the file, the whole file, and nothing but the file."""
        return (
            self.expected_digest == self.sent_digest == self.received_digest
            and self.expected_bytes == self.sent_bytes == self.received_bytes
        )


@dataclass
class HandOverTimes:
    """How long hand-overs took, in microseconds."""

    count: int
    median_us: float
    p99_us: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> HandOverTimes:
        """From single durations in seconds."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(0, 0.0, 0.0)
        pick = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e6 for part in (0.5, 0.99)]
        return cls(len(ordered), round(pick[0], 1), round(pick[1], 1))

    def __str__(self) -> str:
        return f"median {self.median_us:.0f} µs, 99 % within {self.p99_us:.0f} µs" if self.count else "none"


@dataclass
class Result:
    """Everything that is shown. `rst`, `retransmits_*` and the silence are the tap's, which hears the peer's side."""

    connections: int
    size: int
    cycles: int
    build: str
    drivers: int
    mtu: int
    ipv6: bool
    loss_percent: float
    client: str
    firewall: dict[str, int] | None
    transfers: list[Moved] = field(default_factory=list)
    rst: int = 0
    retransmits_server: int = 0
    retransmits_peer: int = 0
    retransmits_target: int = 0
    packets_lost: int = 0
    longest_silence_ms: float = 0.0
    tap_missed: int = 0
    seconds: float = 0.0
    down: HandOverTimes = field(default_factory=lambda: HandOverTimes.of([]))
    up: HandOverTimes = field(default_factory=lambda: HandOverTimes.of([]))
    refusals: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def digest_ok(self) -> bool:
        """Whether every transfer arrived as it was sent."""
        return bool(self.transfers) and all(moved.ok for moved in self.transfers)

    def total(self, figure: str) -> int:
        """The sum of one figure over all transfers."""
        return sum(getattr(moved, figure) for moved in self.transfers)

    def objections(self) -> list[str]:
        """Why the demonstration has failed, in words; nothing if it has not."""
        found = list(self.problems)
        found += [f"transfer {moved.name}: what was sent and what was received differ" for moved in self.wrong()]
        if self.rst:
            found.append(f"{self.rst} RST on the wire")
        if self.tap_missed:
            found.append(f"the tap has missed {self.tap_missed} packets: nobody can say that there was no RST")
        short = False
        for figure, words in (("offloads", "down"), ("uploads", "up")):
            if self.total(figure) < self.cycles:
                found.append(f"{self.total(figure)} hand-overs {words} in mid-transfer instead of {self.cycles}")
                short = True
        if self.transfers and not self.total("bytes_target"):
            found.append("the target has carried nothing")
            short = True
        if short:
            found += [f"a hand-over was refused: {reason}" for reason in sorted(set(self.refusals))]
        return found

    def wrong(self) -> list[Moved]:
        """The transfers that did not arrive as they should."""
        return [moved for moved in self.transfers if not moved.ok]

    @property
    def ok(self) -> bool:
        """The verdict."""
        return self.digest_ok and not self.objections()

    def as_json(self) -> dict[str, Any]:
        """The table as one object."""
        found = asdict(self)
        found["retransmits"] = self.retransmits_server + self.retransmits_peer
        found["throughput_mbit"] = round(self.throughput_mbit(), 1)
        for figure in ("offloads", "uploads", "bytes_kernel", "bytes_target"):
            found[figure] = self.total(figure)
        for moved, shown in zip(self.transfers, found["transfers"], strict=True):
            shown["ok"] = moved.ok
        found |= {"digest_ok": self.digest_ok, "ok": self.ok, "objections": self.objections()}
        return found

    def throughput_mbit(self) -> float:
        """Payload of all transfers, in Mbit/s."""
        return self.total("received_bytes") * 8e-6 / self.seconds if self.seconds else 0.0


def figures(result: Result) -> Table:
    """The figures, one a line."""
    table = Table("figure", "value", title="Chimney: live connections down the chimney and back up", show_header=False)
    total = (result.total("bytes_kernel") + result.total("bytes_target")) or 1
    table.add_row("build", f"{result.build}; {result.drivers} intermediate drivers")
    protocol = "IPv6" if result.ipv6 else "IPv4"
    table.add_row("connections", f"{result.connections} ({protocol}, MTU {result.mtu}); client: {result.client}")
    table.add_row("firewall", _firewall(result.firewall))
    if result.loss_percent:
        table.add_row("loss", f"{result.loss_percent:g} %, both ways: {result.packets_lost} packets lost")
    moved = f"{format_size(result.total('received_bytes'))} in {result.seconds:.1f} s"
    table.add_row("carried", f"{moved}: {result.throughput_mbit():.0f} Mbit/s, hashed on both sides")
    for path in ("target", "kernel"):
        carried = result.total(f"bytes_{path}")
        table.add_row(f"  by the {path}", f"{format_size(carried)} ({100 * carried / total:.1f} %)")
    for figure, words, times in (("offloads", "down", result.down), ("uploads", "up", result.up)):
        table.add_row(f"hand-overs {words}", f"{result.total(figure)} in mid-transfer; {times}")
    again = f"{result.retransmits_server} by the server's side, {result.retransmits_peer} by the peer"
    table.add_row("retransmissions", f"{again} (on the wire); {result.retransmits_target} by the target")
    table.add_row("RST on the wire", str(result.rst))
    table.add_row("longest silence", f"{result.longest_silence_ms:.1f} ms, as seen by the peer")
    return table


def digests(transfers: Sequence[Moved]) -> Table:
    """What each side sent and received."""
    table = Table("transfer", "bytes", "sent (SHA-256)", "received (SHA-256)", "down", "up", "")
    for moved in transfers:
        verdict = "[green]equal[/]" if moved.ok else "[red]DIFFERENT[/]"
        columns = (f"{moved.received_bytes:,}", moved.sent_digest[:12] or "-", moved.received_digest[:12] or "-")
        table.add_row(moved.name, *columns, str(moved.offloads), str(moved.uploads), verdict)
    return table


def tcp_info(transfers: Sequence[Moved]) -> Table:
    """What the server's end of each connection was like when the transfer was over."""
    table = Table("transfer", "owner", title="TCP_INFO at the end")
    for name in ("rtt (ms)", "cwnd", "mss", "pmtu", "repeated"):
        table.add_column(name, justify="right")
    for moved in transfers:
        if moved.tcp:
            # A connection that came up late has measured nothing in the kernel.
            rtt = f"{moved.tcp['tcpi_rtt'] / 1000:.3f}" if moved.tcp["tcpi_rtt"] else "-"
            names = ("snd_cwnd", "snd_mss", "pmtu", "total_retrans")
            table.add_row(moved.name, moved.owner, rtt, *(str(moved.tcp[f"tcpi_{name}"]) for name in names))
    return table


def render(result: Result) -> Group:
    """Everything, for the terminal."""
    if result.ok:
        words = ["[bold green]Every byte arrived as it was sent, and the peer noticed nothing.[/]"]
    else:
        words = [
            f"[bold red]failed:[/] {escape(objection)}" for objection in result.objections() or ["nothing was carried"]
        ]
    tables = figures(result), digests(result.transfers), tcp_info(result.transfers)
    return Group(*tables, *words)


def _firewall(counters: Mapping[str, int] | None) -> str:
    if counters is None:
        return "none (nft is missing; Debian: apt-get install nftables)"
    return f"nftables, stateful: dropped {counters['invalid']} as invalid, {counters['rest']} as not allowed"
