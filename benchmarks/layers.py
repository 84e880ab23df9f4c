"""What a layer costs: nanoseconds for a send and its completion, through any number of intermediate drivers.

    python benchmarks/layers.py

Between a host that counts and a target that completes at once stand 0, 1, 2, 4 or 8 drivers; sends come alone or in
lists of 32. In the same run: pass-through drivers that attach a record to every request, drivers written in plain
Python (a hook overridden in this file), a chain of plain Python calls as long as the stack, and an asyncio future per
request. The figures are medians of several runs, each of which measures everything once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from chimney import _build
from chimney.intermediate import IntermediateDriver, PassThrough
from chimney.ndis import Miniport, OffloadHandle, OffloadStateType, ProtocolOffloadBlockList, bind, net_buffer_list
from chimney.ndis.buffers import NetBufferList, link

LAYERS = (0, 1, 2, 4, 8)
BATCHES = (1, 32)
HERE = Path(__file__).resolve().parent


class PlainPython(IntermediateDriver):
    """A driver as a user writes it: both data hooks, in Python."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.requests = 0

    def on_request(self, entry, operation, net_buffer_list, flags):
        self.requests += 1
        return self.pass_down(entry, operation, net_buffer_list, flags)

    def on_completion(self, lower, operation, net_buffer_list):
        self.complete(operation, net_buffer_list)


DRIVERS: dict[str, Callable[[str], IntermediateDriver]] = {
    "pass-through": PassThrough,
    "with records": lambda name: PassThrough(name, records=True),
    "plain Python": PlainPython,
}


def compiled_ends() -> ModuleType:
    """ends.py, compiled into build/benchmarks where the package is compiled; as it is otherwise."""
    import ends

    if not _build.is_compiled():
        return ends
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    out = HERE.parent / "build" / "benchmarks"
    directives = {"language_level": 3, "annotation_typing": False, "nonecheck": True}
    extension = Extension("ends", [str(HERE / "ends.py")], extra_compile_args=["-O2", "-g0"])
    (extension,) = cythonize(
        [extension],
        include_path=[str(HERE.parent / "src"), str(HERE)],
        build_dir=str(out),
        compiler_directives=directives,
        quiet=True,
    )
    command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(out)
    command.ensure_finalized()
    command.run()
    spec = importlib.util.spec_from_file_location("ends", command.get_ext_fullpath("ends"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stack:
    """One connection through ``drivers``."""

    def __init__(self, ends: ModuleType, drivers: list[IntermediateDriver]) -> None:
        self.ends = ends
        self.drivers = drivers
        self.host = ends.Host("host")
        below: Miniport = ends.Target("target")
        for driver in drivers:
            bind(driver.lower, below)
            below = driver.upper
        self.binding = bind(self.host, below)
        self.handle = OffloadHandle(None)
        self.binding.initiate_offload(ProtocolOffloadBlockList(type=OffloadStateType.TCP, offload_handle=self.handle))

    def nanoseconds(self, batch: int, requests: int) -> float:
        """For one request and its completion, in lists of ``batch``."""
        head = _lists(batch)
        calls = requests // batch
        self.ends.drive(self.binding, self.handle, head, calls // 10)
        started = time.perf_counter_ns()
        self.ends.drive(self.binding, self.handle, head, calls)
        taken = time.perf_counter_ns() - started
        assert head.status == 0 and all(driver.call_entries == 0 for driver in self.drivers)
        return taken / (calls * batch)


def _lists(count: int) -> NetBufferList:
    head = link([net_buffer_list(b"x") for _ in range(count)])
    assert head is not None
    return head


def call_chain(depth: int, requests: int) -> float:
    """A chain of plain Python calls: ``depth`` of them down, with the completion up as ``depth`` more."""

    def down(below):
        return lambda request: below(request)

    def up(above):
        return lambda request: above(request)

    def taken(request):
        return None

    complete = taken
    for _ in range(depth):
        complete = up(complete)

    def target(request):
        complete(request)

    send = target
    for _ in range(depth):
        send = down(send)
    started = time.perf_counter_ns()
    for _ in range(requests):
        send(None)
    return (time.perf_counter_ns() - started) / requests


async def futures(batch: int, requests: int) -> float:
    """An asyncio future for each request, ``batch`` of them outstanding: made, resolved, awaited."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter_ns()
    for _ in range(requests // batch):
        waiting = [loop.create_future() for _ in range(batch)]
        for future in waiting:
            future.set_result(None)
        for future in waiting:
            await future
    # A future that is done is awaited without a turn of the loop; one turn is what a completion from elsewhere costs.
    return (time.perf_counter_ns() - started) / (requests // batch * batch)


async def futures_across_a_turn(batch: int, requests: int) -> float:
    """The same, resolved by a callback of the loop while the sender waits."""
    loop = asyncio.get_running_loop()

    def resolve(waiting):
        for future in waiting:
            future.set_result(None)

    started = time.perf_counter_ns()
    for _ in range(requests // batch):
        waiting = [loop.create_future() for _ in range(batch)]
        loop.call_soon(resolve, waiting)
        for future in waiting:
            await future
    return (time.perf_counter_ns() - started) / (requests // batch * batch)


def measure(ends: ModuleType, requests: int) -> dict[str, float]:
    """Everything once: name and nanoseconds."""
    found: dict[str, float] = {}
    for name, make in DRIVERS.items():
        few = requests if name != "plain Python" and _build.is_compiled() else requests // 10
        for layers in LAYERS:
            stack = Stack(ends, [make(f"{name} {n + 1}") for n in range(layers)])
            for batch in BATCHES:
                found[f"{name}/{batch}/{layers}"] = stack.nanoseconds(batch, few)
    for layers in LAYERS:
        found[f"Python calls/1/{layers}"] = call_chain(layers, requests // 20)
    for batch in BATCHES:
        found[f"asyncio future, done/{batch}/0"] = asyncio.run(futures(batch, requests // 20))
        found[f"asyncio future, one turn/{batch}/0"] = asyncio.run(futures_across_a_turn(batch, requests // 20))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--requests", type=int, default=2_000_000, help="requests per figure and run")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    ends = compiled_ends()
    gc.disable()
    runs = []
    for number in range(options.runs):
        runs.append(measure(ends, options.requests))
        gc.collect()
        print(f"run {number + 1} of {options.runs}", file=sys.stderr)
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    least = {name: min(run[name] for run in runs) for name in runs[0]}
    further = {
        f"{name}/{batch}": (median[f"{name}/{batch}/8"] - median[f"{name}/{batch}/2"]) / 6
        for name in DRIVERS
        for batch in BATCHES
    }
    result = {
        "build": _build.describe(),
        "runs": options.runs,
        "requests": options.requests,
        "nanoseconds": {name: round(value, 1) for name, value in median.items()},
        "least": {name: round(value, 1) for name, value in least.items()},
        "each_further_layer": {name: round(value, 1) for name, value in further.items()},
    }
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


def show(result: dict) -> None:
    print(f"build: {result['build']}; nanoseconds per request and completion, medians of {result['runs']} runs")
    print(f"{'':26} {'batch':>5}" + "".join(f"{layers:>9}" for layers in LAYERS) + "   a further layer")
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in result["nanoseconds"].items():
        name, batch, layers = key.split("/")
        rows.setdefault((name, batch), {})[layers] = value
    for (name, batch), values in rows.items():
        figures = "".join(f"{values[str(layers)]:>9.1f}" if str(layers) in values else " " * 9 for layers in LAYERS)
        further = result["each_further_layer"].get(f"{name}/{batch}")
        print(f"{name:26} {batch:>5}{figures}" + (f"{further:>10.1f}" if further is not None else ""))


if __name__ == "__main__":
    sys.exit(main())
