"""How an offloaded connection and one of the kernel with CUBIC share a bottleneck.

    python benchmarks/fairness.py                 some 13 minutes
    python benchmarks/fairness.py --rate 20 --queue 100 --runs 5

Two flows from the same host to the same peer, through a shaper (tbf, or the relay's where there is a delay) with a
queue that overflows. What the peer's application gets of each counts, after the first seconds. Beside it the same with
two flows of the kernel, for what luck alone does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from goodput import Counters, Peer, Stream, listen, pump
from rich.console import Console
from rich.table import Table

import chimney
from chimney import _build
from chimney.lab.namespace import can_make_namespaces, enter_user_namespace
from chimney.lab.path import Path, RelayedPath, RoutedPath
from chimney.lab.relay import Behaviour

LEAST, MOST = 0.4, 0.6
_POLL_SECONDS = 0.02


@dataclass
class Result:
    """The first flow's part of what arrived, in each run; and how much arrived, bits a second."""

    path: str
    first: str
    shares: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def share(self) -> float:
        return statistics.median(self.shares)

    def as_dict(self) -> dict[str, object]:
        return {
            "path": self.path,
            "first": self.first,
            "shares": [round(share, 3) for share in self.shares],
            "median": round(self.share(), 3),
            "mbit": [round(rate / 1e6, 1) for rate in self.rates],
        }


class KernelFlow:
    """Sends on a socket of the kernel's, in a process of its own."""

    def __init__(self, sock: socket.socket, cpu: int) -> None:
        self._pid = os.fork()
        if not self._pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                os.sched_setaffinity(0, {cpu})
                pump([sock], True, Counters(1), lambda: False)
            finally:
                os._exit(1)
        sock.close()

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def measure(
    path: Path, offloaded: bool, second_begins: bool, settle: float, seconds: float, cpus: tuple[int, int]
) -> tuple[float, float]:
    """The first flow's share and the sum in bits a second, measured for `seconds` after `settle` seconds."""
    os.sched_setaffinity(0, {cpus[0]})
    counters = Counters(2)
    with path.host, listen(path, 2) as listener:
        peer = Peer(path, 2, False, counters, cpus[1])
        first, second = listener.accept()[0], listener.accept()[0]
    flows: list[KernelFlow] = []
    try:
        if second_begins:
            flows.append(KernelFlow(second, cpus[0]))
        with path.host, chimney.Stack() as stack:
            if offloaded:
                connection = stack.connection(first)
                connection.offload()
                stream = Stream(connection, True, counters, 0)
            else:
                flows.append(KernelFlow(first, cpus[0]))
            if not second_begins:
                flows.append(KernelFlow(second, cpus[0]))
            _poll(stack, settle)
            before, started = counters.each(), time.perf_counter()
            _poll(stack, seconds)
            after, took = counters.each(), time.perf_counter() - started
            if offloaded:
                stream.stopped = True
                connection.abort()
    finally:
        for flow in flows:
            flow.kill()
        peer.kill()
        first.close()
    got = [now - then for now, then in zip(after, before, strict=True)]
    return got[0] / max(sum(got), 1), sum(got) * 8 / took


def _poll(stack: chimney.Stack, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        stack.poll(min(_POLL_SECONDS, left))


def paths(rate: int, queue: float, cpu: int) -> list[tuple[str, Callable[[int], Path]]]:
    """Rate in bits a second, queue in seconds."""
    size = round(rate / 8 * queue)
    return [
        (
            f"tbf, {rate / 1e6:g} Mbit/s, queue {queue * 1000:g} ms",
            lambda run: RoutedPath(rate=rate, queue=size),
        ),
        (
            f"relay, {rate / 1e6:g} Mbit/s, 20 ms there and back, queue {queue * 1000:g} ms",
            lambda run: RelayedPath(Behaviour(delay=0.010, rate=rate, queue=queue, seed=run), cpu),
        ),
    ]


def table(results: list[Result]) -> Table:
    shown = Table(title=f"Shares of a bottleneck ({_build.describe()})")
    for name in ("path", "first flow, beside the kernel's", "its share, median", "runs", "Mbit/s"):
        shown.add_column(name, justify="left" if name.startswith(("path", "first")) else "right")
    for result in results:
        fair = LEAST <= result.share() <= MOST
        shown.add_row(
            result.path,
            result.first,
            f"[{'green' if fair else 'red'}]{result.share():.2f}[/]",
            " ".join(f"{share:.2f}" for share in result.shares),
            f"{statistics.median(result.rates) / 1e6:.1f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=50, help="Mbit/s")
    parser.add_argument("--queue", type=float, default=50, help="milliseconds")
    parser.add_argument("--settle", type=float, default=15.0, help="seconds before it counts")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", help="write the results into this file, too")
    parser.add_argument("--real-time", action="store_true", help="take precedence over all else on this machine (root)")
    options = parser.parse_args()
    if options.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if not can_make_namespaces():
        enter_user_namespace()
    cores = sorted(os.sched_getaffinity(0))
    cpus = (cores[0], cores[-1])
    console = Console(width=130)
    results: list[Result] = []
    for name, path in paths(round(options.rate * 1e6), options.queue / 1000, cpus[1]):
        offloaded, kernel = Result(name, "offloaded"), Result(name, "kernel")
        for run in range(options.runs):
            for result in (offloaded, kernel):
                with path(run) as made:
                    # Who comes second finds the queue full.
                    share, rate = measure(
                        made, result is offloaded, run % 2 == 1, options.settle, options.seconds, cpus
                    )
                result.shares.append(share)
                result.rates.append(rate)
        results += [offloaded, kernel]
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"build": _build.describe(), "points": [result.as_dict() for result in results]}, file, indent=1)
    console.print(table(results))


if __name__ == "__main__":
    main()
