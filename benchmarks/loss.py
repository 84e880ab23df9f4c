"""Goodput on paths that lose, delay, reorder and duplicate: offloaded, beside the kernel with CUBIC, in the same run.

    python benchmarks/loss.py                     everything, some 20 minutes
    python benchmarks/loss.py --only routed --runs 5
    python benchmarks/loss.py --only "reordered" --directions send

Each point is measured several times, offloaded and not in turn, on a path made anew; medians count, and their ratio.
The two ends have a core each. The peer is the kernel's with CUBIC in both cases.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from goodput import measure
from rich.console import Console
from rich.table import Table

from chimney import _build
from chimney.lab.namespace import can_make_namespaces, enter_user_namespace
from chimney.lab.path import Path, RelayedPath, RoutedPath
from chimney.lab.relay import Behaviour

LOSSES = (0.0, 0.1, 1.0, 3.0, 10.0)
ROUTED = {
    "routed, segments": {},
    "routed, merged on arrival": {"merging": True},
    "routed, super-segments": {"super_segments": True},
}
AIM = 0.9
_RATE = 100_000_000
_DELAY = 0.010


@dataclass(frozen=True)
class Point:
    """A path and how to measure on it. `flows` that lose much are slow and uneven: several at a time tell more."""

    name: str
    path: Callable[[int], Path]
    seconds: float
    flows: int = 1


@dataclass
class Result:
    """Bits a second of each run."""

    point: str
    direction: str
    kernel: list[float]
    offloaded: list[float]

    def ratio(self) -> float:
        return statistics.median(self.offloaded) / max(statistics.median(self.kernel), 1.0)

    def as_dict(self) -> dict[str, object]:
        return {
            "path": self.point,
            "direction": self.direction,
            "kernel_mbit": [round(rate / 1e6, 3) for rate in self.kernel],
            "offloaded_mbit": [round(rate / 1e6, 3) for rate in self.offloaded],
            "ratio": round(self.ratio(), 3),
        }


def points(peer_cpu: int, seconds: float, steer: bool = False) -> Iterator[Point]:
    """All of them. Where nothing is in the way of the processor, a second or two tell as much as ten.

    steer: what the host sends is the peer's core's work from the router on (`RoutedPath`).
    """
    for kind, settings in ROUTED.items():
        for loss in LOSSES:
            yield Point(
                f"{kind}, loss {loss:g} %",
                lambda run, loss=loss, settings=settings: RoutedPath(
                    loss, **settings, steer_to=peer_cpu if steer else None
                ),
                seconds / 2 if loss < 1 else seconds,
                1 if loss < 1 else 4 if loss < 5 else 8,
            )
    for name, flows, behaviour in _relayed():
        yield Point(
            f"relay, {name}",
            lambda run, behaviour=behaviour: RelayedPath(behaviour(run), peer_cpu),
            seconds * 2,
            flows,
        )


def _relayed() -> Iterator[tuple[str, int, Callable[[int], Behaviour]]]:
    """Through the relay: a path of 100 Mbit/s and 20 ms there and back, unless it says otherwise. The seed is the run's
    number: the kernel and the target get the same.
    """

    def relay(**what: float) -> Callable[[int], Behaviour]:
        return lambda seed: Behaviour(seed=seed, **{"rate": _RATE, "delay": _DELAY, **what})  # type: ignore[arg-type]

    for loss in LOSSES:
        yield f"20 ms, loss {loss:g} %", 1 if loss < 1 else 4 if loss < 5 else 8, relay(loss=loss / 100)
    yield "reordered: 5 % late by 5 ms", 1, relay(late=0.05, late_by=0.005)
    # Whether the kernel's sender learns of the reordering before it believes in loss is luck: more flows, less luck.
    yield "reordered: 1 % late by 30 ms", 4, relay(late=0.01, late_by=0.030)
    yield "reordered: each 10 to 15 ms", 1, relay(jitter=0.005)
    yield "reordered: each 0 to 50 ms", 1, relay(delay=0.0, jitter=0.050)
    yield "duplicated: 5 %", 1, relay(duplicate=0.05)
    yield "everything: 0 to 50 ms, 5 % twice, loss 1 %", 4, relay(delay=0.0, jitter=0.050, duplicate=0.05, loss=0.01)


def run(point: Point, direction: str, runs: int, most: int, cpus: tuple[int, int], busy_poll_us: int) -> Result:
    result = Result(point.name, direction, [], [])
    for number in range(runs):
        # The one that is first in one run is second in the next.
        for offloaded in (False, True) if number % 2 else (True, False):
            with point.path(number) as path:
                rate = measure(
                    path,
                    offloaded,
                    direction == "send",
                    seconds=point.seconds,
                    most=most,
                    flows=point.flows,
                    cpus=cpus,
                    busy_poll_us=busy_poll_us,
                )
            (result.offloaded if offloaded else result.kernel).append(rate)
    return result


def table(results: list[Result]) -> Table:
    shown = Table(title=f"Goodput in Mbit/s, medians ({_build.describe()})")
    shown.add_column("path")
    shown.add_column("direction")
    for name in ("kernel", "offloaded", "ratio"):
        shown.add_column(name, justify="right")
    for result in results:
        ratio = result.ratio()
        shown.add_row(
            result.point,
            result.direction,
            f"{statistics.median(result.kernel) / 1e6:.2f}",
            f"{statistics.median(result.offloaded) / 1e6:.2f}",
            f"[{'red' if ratio < AIM else 'green'}]{ratio:.2f}[/]",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a run; less or more where it makes sense")
    parser.add_argument("--most", type=int, default=4 << 30, help="bytes of a run")
    parser.add_argument("--only", action="append", default=[], help="points whose name has this in it")
    parser.add_argument("--directions", nargs="+", choices=("send", "receive"), default=("send", "receive"))
    parser.add_argument("--json", help="write the results into this file, too")
    parser.add_argument(
        "--busy-poll", type=int, default=100, metavar="US", help="StackConfig.busy_poll_us; 0: the stack sleeps at once"
    )
    parser.add_argument("--steer", action="store_true", help="router and peer work on the peer's core alone (root)")
    parser.add_argument("--real-time", action="store_true", help="take precedence over all else on this machine (root)")
    options = parser.parse_args()
    if options.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if not can_make_namespaces():
        enter_user_namespace()
    cores = sorted(os.sched_getaffinity(0))
    cpus = (cores[0], cores[-1])
    console = Console(width=110)
    results: list[Result] = []
    for point in points(cpus[1], options.seconds, options.steer):
        if options.only and not any(part in point.name for part in options.only):
            continue
        for direction in options.directions:
            results.append(run(point, direction, options.runs, options.most, cpus, options.busy_poll))
            latest = results[-1].as_dict()
            console.print(f"[dim]{latest}", soft_wrap=True, highlight=False)
            if options.json:
                with open(options.json, "w") as file:
                    json.dump({"build": _build.describe(), "points": [r.as_dict() for r in results]}, file, indent=1)
    console.print(table(results))


if __name__ == "__main__":
    main()
