"""A peer that floods a connection both ways, in a process and namespace of its own, and says in the end what it saw."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from chimney.lab.namespace import Namespace
from chimney.lab.tap import Tap

BLOCK = 1 << 18
SO_MAX_PACING_RATE = 47


def pattern(seed: int) -> memoryview:
    """Bytes to send, again and again; its length is odd, so that no block is where another one was."""
    generator = hashlib.shake_256(str(seed).encode())
    return memoryview(generator.digest((4 << 20) + 13))


def blocks(seed: int) -> Iterator[memoryview]:
    """The endless stream made of the pattern."""
    data = pattern(seed)
    at = 0
    while True:
        yield data[at : at + BLOCK]
        at = at + BLOCK if at + BLOCK < len(data) else 0


class Peer:
    """The flooding peer: `port` on `address` is connected to; `rate` (bytes a second) paces it."""

    def __init__(
        self,
        namespace: Namespace,
        address: tuple[str, int],
        family: int,
        *,
        sends: bool,
        digest: bool = True,
        rate: int = 0,
    ) -> None:
        stop_reader, self._stop = os.pipe()
        self._report, report_writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._stop)
            os.close(self._report)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code = 1
            try:
                with namespace:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
                if rate:
                    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
                sock.connect(address)
                os.write(report_writer, json.dumps(_flood(sock, stop_reader, sends, digest)).encode())
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(stop_reader)
        os.close(report_writer)

    def finish(self) -> None:
        """Let the peer stop sending, and end its half."""
        with contextlib.suppress(OSError):
            os.close(self._stop)

    def kill(self) -> None:
        """End the peer at once; there is no report."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._report)

    def report(self) -> dict[str, Any]:
        """What the peer sent and received: bytes and digests. Waits for its end."""
        text = b""
        while part := os.read(self._report, 1 << 16):
            text += part
        os.waitpid(self.pid, 0)
        report: dict[str, Any] = json.loads(text)
        return report


class Observer:
    """Watches the peer's interface from a process of its own, so that watching does not hold up what is watched."""

    def __init__(self, namespace: Namespace, interface: str, port: int) -> None:
        stop_reader, self._stop = os.pipe()
        self._report, report_writer = os.pipe()
        tap = Tap(namespace, interface)
        self._pid = os.fork()
        if not self._pid:
            os.close(self._stop)
            os.close(self._report)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                os.set_blocking(stop_reader, False)
                while not _stopped(stop_reader):
                    select.select([tap, stop_reader], [], [], 0.05)
                    tap.drain()
                os.write(report_writer, json.dumps(_observed(tap, port)).encode())
            finally:
                os._exit(0)
        os.close(stop_reader)
        os.close(report_writer)
        tap.close()

    def report(self) -> dict[str, Any]:
        """Stop watching; what the side with ``port`` and its peer have sent, and RSTs."""
        os.close(self._stop)
        text = b""
        while part := os.read(self._report, 1 << 16):
            text += part
        os.waitpid(self._pid, 0)
        report: dict[str, Any] = json.loads(text)
        return report


def _observed(tap: Tap, port: int) -> dict[str, Any]:
    seen: dict[str, Any] = {"rst": tap.resets(), "lost": tap.lost()}
    for (source, _), direction in tap.directions.items():
        seen["ours" if source[1] == port else "peer"] = {
            "segments": direction.segments,
            "retransmitted": direction.retransmitted_segments,
            "longest_silence_ms": round(direction.longest_silence * 1000, 2),
            "right_edge_retreat": direction.right_edge_retreat,
            "timestamp_retreat": direction.ts_retreat,
        }
    return seen


def _flood(sock: socket.socket, stop: int, sends: bool, digest: bool) -> dict[str, Any]:
    received = hashlib.sha256()
    counts = {"received": 0}

    def receive() -> None:
        buffer = memoryview(bytearray(1 << 20))
        while count := sock.recv_into(buffer):
            if digest:
                received.update(buffer[:count])
            counts["received"] += count

    receiver = threading.Thread(target=receive)
    receiver.start()
    sent, total = hashlib.sha256(), 0
    os.set_blocking(stop, False)
    if sends:
        for block in blocks(2):
            if _stopped(stop):
                break
            sock.sendall(block)
            if digest:
                sent.update(block)
            total += len(block)
    sock.shutdown(socket.SHUT_WR)
    receiver.join()
    return {
        "sent": total,
        "sent_digest": sent.hexdigest(),
        "received": counts["received"],
        "received_digest": received.hexdigest(),
    }


def _stopped(stop: int) -> bool:
    try:
        return os.read(stop, 1) == b""
    except BlockingIOError:
        return False
