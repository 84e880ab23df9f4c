"""Bulk transfer, offloaded and not, in the same run.

    python benchmarks/throughput.py --seconds 3 --runs 3

One connection between two namespaces, our side and the peer on a core each; the kernel uses CUBIC on both sides. Each
run sends in one direction through the kernel path, then through the target, and prints the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import time

from flood import Peer

import chimney
from chimney import _build
from chimney.lab.namespace import Namespace, enter_user_namespace
from chimney.lab.wire import veth_pair

PORT = 5202
BLOCK = 1 << 20


class Stream:
    """Posts outstanding on a connection in one direction, counting what completes."""

    def __init__(self, connection: chimney.Connection, sending: bool) -> None:
        self.connection = connection
        self.bytes = 0
        self.stopped = False
        for _ in range(8):
            buffer = bytearray(BLOCK)
            if sending:
                connection.post_send(buffer, self._again_send)
            else:
                connection.post_receive(buffer, self._again_receive, push=False)

    def _again_send(self, request: object) -> None:
        self.bytes += request.length
        if not self.stopped and request.error is None:
            self.connection.post_send(request.view, self._again_send)

    def _again_receive(self, request: object) -> None:
        self.bytes += request.bytes_transferred
        if not self.stopped and request.error is None and request.bytes_transferred:
            self.connection.post_receive(request.view, self._again_receive, push=False)


def measure(offloaded: bool, sending: bool, seconds: float, mtu: int) -> float:
    """Gbit/s of one connection."""
    with Namespace() as here:
        there = Namespace()
        ours, _ = veth_pair(here, there, mtu=mtu)
        listener = socket.create_server((ours.address(socket.AF_INET), PORT))
        peer = Peer(there, listener.getsockname(), socket.AF_INET, sends=not sending, digest=False)
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        os.sched_setaffinity(peer.pid, {os.cpu_count() - 1})
        with chimney.Stack(intermediate_drivers=2) as stack:
            connection = stack.connection(sock)
            stream = Stream(connection, sending)
            if offloaded:
                connection.offload()
            _run(stack, 0.3)
            before, started = stream.bytes, time.perf_counter()
            _run(stack, seconds)
            rate = (stream.bytes - before) * 8 / (time.perf_counter() - started) / 1e9
            stream.stopped = True
            peer.kill()
            connection.close()
        listener.close()
        return rate


def _run(stack: chimney.Stack, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        stack.poll(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if os.geteuid():
        enter_user_namespace()
    os.sched_setaffinity(0, {0})
    result: dict[str, object] = {"build": _build.describe(), "mtu": options.mtu}
    for direction, sending in (("send", True), ("receive", False)):
        rates: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(options.runs):
            for offloaded in (False, True):
                rates[offloaded].append(measure(offloaded, sending, options.seconds, options.mtu))
        kernel, target = statistics.median(rates[False]), statistics.median(rates[True])
        result[direction] = {
            "kernel_gbit": round(kernel, 2),
            "target_gbit": round(target, 2),
            "ratio": round(target / kernel, 2),
        }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:10} {value}")


if __name__ == "__main__":
    main()
