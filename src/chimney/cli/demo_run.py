"""The demonstration itself: laboratory, server and clients, watched until the last byte, or until nothing moves."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimney import _build
from chimney.cli import demo_lab
from chimney.cli.demo_data import format_size, write_data
from chimney.cli.demo_lab import PORT, DemoError, Laboratory
from chimney.cli.demo_processes import FIRST_LOCAL_PORT, Client, Server, Transfer, client_name, plan
from chimney.cli.demo_report import HandOverTimes, Moved, Result
from chimney.cli.interrupts import Interrupts
from chimney.lab.tap import Direction, Tap

SMALLEST_STRETCH = 32 << 10
_INTERVAL = 0.02
_START_SECONDS = 20.0
# Of patience while nothing moves; where packets are lost, two kernels have been seen to back off for 16 s.
_STALL_SECONDS = 30.0
_STALL_FACTOR_WITH_LOSS = 3
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Settings:
    """What is to be shown. `size` in bytes, of every file; `loss_percent` of the packets, both ways."""

    size: int
    cycles: int
    connections: int
    loss_percent: float
    ipv6: bool
    mtu: int
    drivers: int
    seed: int

    def hand_over_every(self) -> int:
        """Bytes of a transfer per hand-over cycle: two more than needed fit in. Raises ValueError if too short."""
        if not self.cycles:
            return 0
        transfers = sum(map(len, plan(self.connections)))
        cycles = -(-self.cycles // transfers) + 2
        if self.size < cycles * SMALLEST_STRETCH:
            least = format_size(cycles * SMALLEST_STRETCH)
            raise ValueError(f"{self.cycles} cycles over {transfers} transfers need a --size of {least} at least")
        return self.size // cycles

    def patience(self) -> float:
        """Seconds without a byte after which it is given up."""
        return _STALL_SECONDS * (_STALL_FACTOR_WITH_LOSS if self.loss_percent else 1)


@dataclass
class Sight:
    """What is known while it goes on: bytes on the wire by connection number, and hand-overs so far."""

    moved: Mapping[int, int]
    finished: Collection[int]
    offloads: int
    uploads: int


def run(settings: Settings, show: Callable[[Sight], None], interrupts: Interrupts) -> Result:
    """Run it; `show` is called again and again meanwhile. Raises DemoError if it cannot even begin."""
    stack = ExitStack()
    try:
        return _run(settings, show, interrupts, stack)
    finally:
        with interrupts.held():
            stack.close()


def _run(settings: Settings, show: Callable[[Sight], None], interrupts: Interrupts, stack: ExitStack) -> Result:
    every = settings.hand_over_every()
    with interrupts.held():
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chimney-demo-")))
    if shutil.disk_usage(directory).free < settings.size * 1.1:
        raise DemoError(f"{directory.parent} has no room for {format_size(settings.size)}; set TMPDIR elsewhere")
    digest = write_data(directory / "data", settings.size, settings.seed)
    with interrupts.held():
        laboratory = demo_lab.build(stack, ipv6=settings.ipv6, mtu=settings.mtu, loss_percent=settings.loss_percent)
        server = Server(laboratory, directory, every, settings.drivers, settings.seed)
        stack.callback(server.close)
    _await_listening(server)
    result = _new_result(settings)
    started = time.monotonic()
    clients = []
    with interrupts.held():
        for transfers in plan(settings.connections):
            clients.append(Client(laboratory, transfers, directory / "data"))
            stack.callback(clients[-1].close)
    stalled = _watch(laboratory.tap, server, clients, show, settings.patience())
    result.seconds = time.monotonic() - started
    if stalled:
        result.problems.append(stalled)
    else:
        _settle(laboratory.tap, server, sum(len(client.transfers) for client in clients))
        server.stop()
    _collect(result, laboratory, server, clients, (settings.size, digest))
    return result


def _await_listening(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not any(server.said("listening")):
        if not server.alive() or time.monotonic() > deadline:
            raise DemoError(f"the file server does not start: {server.last_words() or 'it says nothing'}")
        time.sleep(_INTERVAL)
        server.read()


def _new_result(settings: Settings) -> Result:
    return Result(
        connections=settings.connections,
        size=settings.size,
        cycles=settings.cycles,
        build=_build.describe(),
        drivers=settings.drivers,
        mtu=settings.mtu,
        ipv6=settings.ipv6,
        loss_percent=settings.loss_percent,
        client=client_name(),
        firewall=None,
    )


def _watch(tap: Tap, server: Server, clients: list[Client], show: Callable[[Sight], None], patience: float) -> str:
    """Until every client has ended. Returns what is wrong if that cannot be awaited, else ''."""
    seen, since = -1, time.monotonic()
    while any(client.running() for client in clients):
        tap.drain()
        server.read()
        sight = _sight(tap, server, clients)
        show(sight)
        now, bytes_seen = time.monotonic(), sum(sight.moved.values())
        if bytes_seen != seen:
            seen, since = bytes_seen, now
        if not server.alive():
            return f"the file server has ended: {server.last_words() or 'it says nothing'}"
        if now - since > patience:
            where = ", ".join(_stuck(client, sight) for client in clients if client.running())
            return f"nothing has moved for {patience:.0f} s: {where} {server.last_words()}".rstrip()
        time.sleep(_INTERVAL)
    show(_sight(tap, server, clients))
    return ""


def _stuck(client: Client, sight: Sight) -> str:
    number = client.transfers[0].connection
    return f"connection {number} (port {client.local_port}) after {sight.moved.get(number, 0):,} bytes"


def _sight(tap: Tap, server: Server, clients: list[Client]) -> Sight:
    moved: dict[int, int] = {}
    for (source, destination), direction in tap.directions.items():
        port = destination[1] if source[1] == PORT else source[1]
        number = port - FIRST_LOCAL_PORT
        moved[number] = moved.get(number, 0) + direction.bytes - direction.retransmitted_bytes
    progress = next(reversed(list(server.said("progress"))), {"offloads": 0, "uploads": 0})
    finished = [client.transfers[0].connection for client in clients if not client.running()]
    return Sight(moved, finished, progress["offloads"], progress["uploads"])


def _settle(tap: Tap, server: Server, transfers: int) -> None:
    """The clients have ended: wait, not for ever, for the server's words and for the end of every connection."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        tap.drain()
        server.read()
        closed = all(direction.fins or direction.resets for direction in tap.directions.values())
        if closed and len(list(server.said("transfer"))) >= transfers:
            return
        time.sleep(_INTERVAL)


def _collect(
    result: Result, laboratory: Laboratory, server: Server, clients: list[Client], expected: tuple[int, str]
) -> None:
    tap = laboratory.tap
    tap.drain()
    _hear(result, tap)
    reports = {line["path"]: line for line in server.said("transfer")}
    for client in clients:
        problem = client.problem()
        if problem:
            result.problems.append(problem)
        for transfer in client.transfers:
            result.transfers.append(_moved(transfer, client, reports.get(transfer.target, {}), expected, not problem))
    for line in server.events:
        if line.get("error"):
            result.problems.append(f"the server, {line.get('path') or line.get('peer') or ''}: {line['error']}")
        result.refusals += line.get("refusals", [])
    result.retransmits_target = sum(line["retransmits"] for line in reports.values())
    result.down = HandOverTimes.of([one for line in reports.values() for one in line["offload_seconds"]])
    result.up = HandOverTimes.of([one for line in reports.values() for one in line["upload_seconds"]])
    if laboratory.firewall is not None:
        counters = laboratory.firewall.counters()
        result.firewall = {name: counters[name].packets for name in ("invalid", "rest", "invalid_out")}
    if laboratory.loss is not None:
        result.packets_lost = laboratory.loss.lost()


def _hear(result: Result, tap: Tap) -> None:
    def all_of(from_server: bool) -> list[Direction]:
        return [direction for (source, _), direction in tap.directions.items() if (source[1] == PORT) == from_server]

    result.rst = tap.resets()
    result.tap_missed = tap.lost()
    result.retransmits_server = sum(direction.retransmitted_segments for direction in all_of(True))
    result.retransmits_peer = sum(direction.retransmitted_segments for direction in all_of(False))
    result.longest_silence_ms = round(max((d.longest_silence for d in all_of(True)), default=0.0) * 1e3, 2)


def _moved(
    transfer: Transfer, client: Client, report: Mapping[str, Any], expected: tuple[int, str], ended_well: bool
) -> Moved:
    moved = Moved(transfer.name, *expected)
    server_says = int(str(report.get("bytes", 0))), str(report.get("digest", ""))
    if transfer.upload:
        moved.sent_bytes, moved.sent_digest = expected if ended_well else (0, "")
        moved.received_bytes, moved.received_digest = server_says
    else:
        moved.sent_bytes, moved.sent_digest = server_says
        moved.received_bytes, moved.received_digest = client.received() if not client.running() else (0, "")
    for figure in ("offloads", "uploads", "bytes_kernel", "bytes_target"):
        setattr(moved, figure, report.get(figure, 0))
    moved.owner, moved.tcp = str(report.get("owner", "")), dict(report.get("tcp", {}))
    return moved
