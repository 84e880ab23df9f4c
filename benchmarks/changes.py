"""What a change of the network costs a transfer: the longest silence that the peer notices, offloaded and not.

    python benchmarks/changes.py                  some 5 minutes
    python benchmarks/changes.py --ipv6 --times 5 --only gateway cable

Two connections at a time between a host and a peer with routers between them (chimney.lab.routed): one is offloaded,
the other is the kernel's own. Both carry data both ways, at a modest rate, while the next hop's MAC address changes,
the route moves to the other gateway, the path MTU shrinks from 1500 to 1280 and grows again, and the interface is away
for a second. A tap on the peer's interface and the peer's applications tell how long nothing came. In the end the
digests of all streams are compared; the exit status is 0 only if no byte was lost, nothing was reset, and every
transfer went on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flood import Worker, is_over
from rich.console import Console
from rich.table import Table
from transfers import LEAST_GAP, Gaps, Progress, kernel_end, offloaded_end

from chimney import _build
from chimney.lab.namespace import can_make_namespaces, enter_user_namespace
from chimney.lab.routed import RoutedNetwork
from chimney.lab.tap import Packet, Tap

PORT = 5203
FLOWS = ("kernel", "offloaded")
WIDE, NARROW = 1500, 1280
# Seconds: that each change is given at least, and at most; that the interface is away.
_SETTLE, _PATIENCE, _AWAY = 0.4, 30.0, 1.0
# Bytes after which a transfer has gone on.
_GOES_ON = 100_000
_POLL_SECONDS = 0.005

Report = dict[str, Any]


@dataclass
class Result:
    """What one kind of change cost, by flow, in seconds: the longest silence on the wire, and of the application's."""

    change: str
    silences: dict[str, list[float]] = field(default_factory=lambda: {flow: [] for flow in FLOWS})
    stalls: dict[str, list[float]] = field(default_factory=lambda: {flow: [] for flow in FLOWS})
    # When it was, and which flows did not go on.
    windows: list[tuple[float, float]] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def as_dict(self) -> Report:
        return {
            "change": self.change,
            "times": len(self.windows),
            "silence_ms": _in_ms(self.silences),
            "stall_ms": _in_ms(self.stalls),
            "stuck": self.stuck,
        }


def _in_ms(found: dict[str, list[float]]) -> Report:
    return {flow: [round(each * 1000, 1) for each in times] for flow, times in found.items()}


def changes(network: RoutedNetwork, progress: Progress) -> dict[str, Callable[[], None]]:
    """What is done to the network, by name. Each leaves it so that it can be done again."""
    ways = [network.b, network.a]

    def move() -> None:
        network.route_by(ways[0])
        network.return_by(ways[0])
        ways.reverse()

    def mac(announce: bool) -> None:
        # The one in use.
        network.change_mac(ways[1], announce)

    def narrow() -> None:
        network.set_mtu(NARROW)
        _wait(lambda: set(progress.mtus()) == {NARROW})

    def wide() -> None:
        network.set_mtu(WIDE)
        network.forget_mtu()
        # Of what is forgotten the kernel says nothing; of a route it does, even if nothing is new about it.
        network.route_by(ways[1])
        _wait(lambda: set(progress.mtus()) == {WIDE})

    def away(leave: Callable[[], None], come_back: Callable[[], None]) -> None:
        leave()
        time.sleep(_AWAY)
        come_back()

    return {
        "nothing": lambda: None,
        "MAC": lambda: mac(True),
        "MAC, unannounced": lambda: mac(False),
        "gateway": move,
        f"path MTU {WIDE} to {NARROW}": narrow,
        f"path MTU {NARROW} to {WIDE}": wide,
        "cable out for a second": lambda: away(network.unplug, network.plug),
        "interface down for a second": lambda: away(network.take_down, network.bring_up),
    }


def _wait(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def carry_out(change: Callable[[], None], result: Result, progress: Progress) -> None:
    """Make a change, and wait until all transfers have gone on for a while."""
    begin = time.time()
    change()
    after = progress.received()
    time.sleep(_SETTLE)

    def stuck() -> list[str]:
        now = progress.received()
        return [flow for flow, was, has in zip(FLOWS, after, now, strict=True) if has - was < _GOES_ON]

    _wait(lambda: not stuck())
    result.stuck += stuck()
    result.windows.append((begin, time.time()))


def observe(tap: Tap, stop: int) -> Report:
    """When the peer's interface heard nothing from the host, by flow; and RSTs."""
    gaps = {PORT + flow: Gaps() for flow in range(len(FLOWS))}

    def note(packet: Packet) -> None:
        found = gaps.get(packet.source[1])
        if found is not None:
            found.note(packet.time)

    tap.on_packet = note
    while not is_over(stop):
        select.select([tap, stop], [], [], 0.02)
        tap.drain()
    return {"gaps": [each.found for each in gaps.values()], "rst": tap.resets(), "lost": tap.lost()}


def _longest(gaps: list[list[float]], window: tuple[float, float]) -> float:
    """Of those that ended in a window: what the next change makes silent may have begun before it."""
    begin, end = window
    return max((until - since for since, until in gaps if begin < until <= end), default=0.0)


def measure(family: int, times: int, only: list[str], rate: int, console: Console) -> tuple[list[Result], Report]:
    """Every kind of change `times` times, in turns; and what became of the streams."""
    workers: list[Worker] = []
    with RoutedNetwork() as network:
        network.quick_neighbors()
        progress = Progress(len(FLOWS))
        try:
            hosts, peers = _transfers(network, family, rate, progress, workers)
            tap = Tap(network.peer, network.peer_end.name)
            observer = Worker(lambda stop: observe(tap, stop))
            workers.append(observer)
            tap.close()
            wanted = {
                name: change
                for name, change in changes(network, progress).items()
                if not only or any(part in name for part in only)
            }
            results = {name: Result(name) for name in wanted}
            _wait(lambda: min(progress.received()) > _GOES_ON and min(progress.mtus()) > 0)
            with console.status("") as status:
                for turn in range(times):
                    for name, change in wanted.items():
                        if any(worker.has_ended() for worker in workers):
                            raise SystemExit(f"a transfer has ended before its time; the next would be: {name}")
                        status.update(f"{turn + 1} of {times}: {name}")
                        carry_out(change, results[name], progress)
            for worker in workers:
                worker.finish()
            ends = [worker.report() for worker in hosts], [worker.report() for worker in peers]
            seen = observer.report()
            workers.clear()
        finally:
            for worker in workers:
                with contextlib.suppress(OSError):
                    worker.kill()
    for result in results.values():
        for flow, name in enumerate(FLOWS):
            for window in result.windows:
                result.silences[name].append(_longest(seen["gaps"][flow], window))
                result.stalls[name].append(_longest(ends[1][flow]["gaps"], window))
    return list(results.values()), _verdict(ends, seen)


def _transfers(
    network: RoutedNetwork, family: int, rate: int, progress: Progress, workers: list[Worker]
) -> tuple[list[Worker], list[Worker]]:
    """The processes of the host's ends, and of the peer's, by flow; ``workers`` gets all of them."""
    hosts, peers = [], []
    for flow, name in enumerate(FLOWS):
        with network.host:
            listener = socket.create_server((network.eth0.address(family), PORT + flow), family=family)
        with network.peer:
            theirs = socket.create_connection(listener.getsockname()[:2])
        ours, _ = listener.accept()
        for sock in (ours, theirs):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")

        def host(stop: int, flow: int = flow, sock: socket.socket = ours, name: str = name) -> Report:
            if name == "kernel":
                return kernel_end(sock, stop, flow, rate, progress, flow, at_host=True)
            with network.host:
                return offloaded_end(sock, stop, flow, rate, progress, flow)

        def peer(stop: int, flow: int = flow, sock: socket.socket = theirs) -> Report:
            return kernel_end(sock, stop, 10 + flow, rate, progress, flow, at_host=False)

        # Whoever holds a descriptor keeps the connection open: each of the two has its own end alone.
        peers.append(Worker(lambda stop, run=peer, other=ours: (other.close(), run(stop))[1]))
        theirs.close()
        hosts.append(Worker(host))
        workers += (peers[-1], hosts[-1])
        ours.close()
        listener.close()
    return hosts, peers


def _verdict(ends: tuple[list[Report], list[Report]], seen: Report) -> Report:
    verdict: Report = {"rst": seen["rst"], "tap_lost": seen["lost"], "flows": {}}
    for name, host, peer in zip(FLOWS, *ends, strict=True):
        verdict["flows"][name] = {
            "bytes_out": host["sent"],
            "bytes_in": host["received"],
            "digests_equal": host["sent_digest"] == peer["received_digest"]
            and peer["sent_digest"] == host["received_digest"],
            "errors": host["errors"] + peer["errors"],
            **{key: host[key] for key in ("offloads", "uploads", "by_target") if key in host},
        }
    return verdict


def table(results: list[Result], title: str) -> Table:
    shown = Table(title=title, caption="milliseconds: median (longest)")
    for name in ("change", "times", *(f"{what}, {flow}" for what in ("silence", "stall") for flow in FLOWS), "stuck"):
        shown.add_column(name, justify="left" if name == "change" else "right")
    for result in results:
        cells = [
            f"{_short(statistics.median(times))} ({_short(max(times))})"
            for found in (result.silences, result.stalls)
            for times in found.values()
        ]
        shown.add_row(result.change, str(len(result.windows)), *cells, " ".join(result.stuck) or "no")
    return shown


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds > LEAST_GAP else f"<{LEAST_GAP * 1000:.0f}"


def is_fine(results: list[Result], verdict: Report) -> bool:
    equal = all(flow["digests_equal"] for flow in verdict["flows"].values())
    return equal and not verdict["rst"] and not any(result.stuck for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="of each kind of change")
    parser.add_argument("--only", nargs="*", default=[], help="kinds of change whose name contains one of these")
    parser.add_argument("--rate", type=float, default=40, help="Mbit/s, each way, of each connection")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--json", help="write the results into this file, too")
    parser.add_argument("--real-time", action="store_true", help="take precedence over all else on this machine (root)")
    options = parser.parse_args()
    if options.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if not can_make_namespaces():
        enter_user_namespace()
    console = Console(width=140)
    family = socket.AF_INET6 if options.ipv6 else socket.AF_INET
    results, verdict = measure(family, options.times, options.only, round(options.rate * 125_000), console)
    title = f"Changes in mid-transfer, {'IPv6' if options.ipv6 else 'IPv4'} ({_build.describe()})"
    console.print(table(results, title))
    for name, flow in verdict["flows"].items():
        console.print(name, flow)
    console.print({name: value for name, value in verdict.items() if name != "flows"})
    if options.json:
        points = [result.as_dict() for result in results]
        with open(options.json, "w") as file:
            json.dump({"build": _build.describe(), "ipv6": options.ipv6, "changes": points, **verdict}, file, indent=1)
    return 0 if is_fine(results, verdict) else 1


if __name__ == "__main__":
    sys.exit(main())
