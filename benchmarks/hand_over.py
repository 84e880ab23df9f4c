"""Hand-overs under a flood: how long one takes, and what the peer notices.

    python benchmarks/hand_over.py --cycles 3000

An unmodified kernel peer in a namespace of its own sends as fast as it can and receives what we send, while the
connection goes down the chimney and back up again and again. An observer on the peer's interface counts RSTs,
retransmissions and silences. Prints a table, or with --json one object; the exit status is 0 only if no byte and no
connection was lost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import statistics
import sys

from flood import Observer, Peer, blocks

import chimney
from chimney import _build
from chimney.lab.namespace import Namespace, enter_user_namespace
from chimney.lab.wire import veth_pair

PORT = 5201


class Traffic:
    """Keeps posts outstanding on a connection, both ways, and the digests of what went through."""

    def __init__(self, connection: chimney.Connection, outstanding: int) -> None:
        self.connection = connection
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.bytes_sent = self.bytes_received = 0
        self.stopped = self.ended = False
        self._blocks = blocks(1)
        for _ in range(outstanding):
            connection.post_receive(bytearray(1 << 18), self._on_received)
            self._post_send()

    def _post_send(self) -> None:
        if not self.stopped:
            self.connection.post_send(next(self._blocks), self._on_sent)

    def _on_sent(self, request: object) -> None:
        if request.error is None:
            self.sent.update(request.view)
            self.bytes_sent += request.length
            self._post_send()

    def _on_received(self, request: object) -> None:
        if self.ended:
            return
        if request.error is not None:
            raise request.error
        if not request.bytes_transferred:
            self.ended = True
            return
        view = request.view[: request.bytes_transferred]
        self.received.update(view)
        self.bytes_received += len(view)
        self.connection.post_receive(request.view, self._on_received)


def run(cycles: int, *, ipv6: bool, mtu: int, drivers: int, turns: int, rate: int, idle: bool) -> dict[str, object]:
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    with Namespace() as here:
        there = Namespace()
        ours, theirs = veth_pair(here, there, mtu=mtu)
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ours.address(family), PORT))
        listener.listen()
        observer = Observer(there, theirs.name, PORT)
        peer = Peer(there, listener.getsockname()[:2], family, sends=not idle, rate=rate)
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        with chimney.Stack(intermediate_drivers=drivers) as stack:
            connection = stack.connection(sock)
            traffic = Traffic(connection, 0 if idle else 4)
            for _ in range(cycles):
                if not idle:
                    _progress(stack, traffic, turns)
                connection.offload()
                if not idle:
                    _progress(stack, traffic, turns)
                connection.upload()
            traffic.stopped = True
            peer.finish()
            while connection.sends:
                stack.poll(1)
            connection.shutdown()
            while connection.recv_into(bytearray(1 << 18)) if idle else not traffic.ended:
                stack.poll(1)
            info = connection.info()
            connection.close()
        report = peer.report()
        wire = observer.report()
        return {
            "build": _build.describe(),
            "cycles": cycles,
            "offloads": info.offloads,
            "uploads": info.uploads,
            "digest_ok": report["received_digest"] == traffic.sent.hexdigest()
            and report["sent_digest"] == traffic.received.hexdigest(),
            "bytes_sent": traffic.bytes_sent,
            "bytes_received": traffic.bytes_received,
            "bytes_target": info.bytes_sent_target + info.bytes_received_target,
            "bytes_kernel": info.bytes_sent_kernel + info.bytes_received_kernel,
            "rst": wire["rst"],
            "retransmitted_by_us": wire["ours"]["retransmitted"],
            "retransmitted_by_peer": wire["peer"]["retransmitted"],
            "longest_silence_ms": wire["ours"]["longest_silence_ms"],
            "right_edge_retreat": wire["ours"]["right_edge_retreat"],
            "timestamp_retreat": wire["ours"]["timestamp_retreat"],
            "offload_us": _figures(info.offload_seconds),
            "upload_us": _figures(info.upload_seconds),
            "observer_lost": wire["lost"],
        }


def _progress(stack: chimney.Stack, traffic: Traffic, turns: int) -> None:
    """Turns of the event loop in which data flows."""
    goal = traffic.bytes_received + turns * 65536
    while traffic.bytes_received < goal and not traffic.ended:
        stack.poll(0.2)


def _figures(seconds: list[float]) -> dict[str, int]:
    ordered = sorted(seconds)
    return {
        "median": round(statistics.median(ordered) * 1e6),
        "p99": round(ordered[int(len(ordered) * 0.99)] * 1e6),
        "max": round(ordered[-1] * 1e6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--turns", type=int, default=2, help="64 KB of received data between hand-overs")
    parser.add_argument("--rate", type=int, default=0, help="the peer's Mbit/s (default: as fast as it can)")
    parser.add_argument("--idle", action="store_true", help="no traffic: what a hand-over costs by itself")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--drivers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if os.geteuid():
        enter_user_namespace()
    result = run(
        options.cycles,
        ipv6=options.ipv6,
        mtu=options.mtu,
        drivers=options.drivers,
        turns=options.turns,
        rate=options.rate * 125_000,
        idle=options.idle,
    )
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value}")
    return 0 if result["digest_ok"] and not result["rst"] else 1


if __name__ == "__main__":
    sys.exit(main())
