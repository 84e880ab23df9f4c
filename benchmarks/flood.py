"""A peer that floods a connection both ways, in a process and namespace of its own, and says in the end what it saw."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
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


class Worker:
    """`run(stop)` in a process of its own: `stop` becomes readable when it is time to end; what `run` returns (JSON)
    is the report. Of this process it has what there was at the start.
    """

    def __init__(self, run: Callable[[int], dict[str, Any]]) -> None:
        stop_reader, self._stop = os.pipe()
        self._report, report_writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._stop)
            os.close(self._report)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code = 1
            try:
                with os.fdopen(report_writer, "w") as report:
                    json.dump(run(stop_reader), report)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(stop_reader)
        os.close(report_writer)

    def finish(self) -> None:
        """Let it come to its end; harmless when repeated."""
        if self._stop >= 0:
            # Not its end alone: workers that came later hold it open, too.
            os.write(self._stop, b"!")
            os.close(self._stop)
            self._stop = -1

    def has_ended(self) -> bool:
        """Whether it has said all that it will."""
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return status is not None

    def kill(self) -> None:
        """End it at once; there is no report."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._report)

    def report(self) -> dict[str, Any]:
        """What it has found out. Waits for its end."""
        with os.fdopen(self._report) as pipe:
            text = pipe.read()
        os.waitpid(self.pid, 0)
        report: dict[str, Any] = json.loads(text)
        return report


def is_over(stop: int) -> bool:
    """Whether a worker is to come to its end."""
    return bool(select.select([stop], [], [], 0)[0])


class Peer(Worker):
    """The flooding peer: `port` on `address` is connected to; `rate` (bytes a second) paces it. Its report: bytes and
    digests. Told to finish, it stops sending and ends its half.
    """

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
        def run(stop: int) -> dict[str, Any]:
            with namespace:
                sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
            if rate:
                sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
            sock.connect(address)
            return flood(sock, stop, sends, digest)

        super().__init__(run)


class Observer(Worker):
    """Watches the peer's interface from a process of its own, so that watching does not hold up what is watched. Its
    report: what the side with ``port`` and its peer have sent, and RSTs.
    """

    def __init__(self, namespace: Namespace, interface: str, port: int) -> None:
        tap = Tap(namespace, interface)

        def run(stop: int) -> dict[str, Any]:
            while not is_over(stop):
                select.select([tap, stop], [], [], 0.05)
                tap.drain()
            return _observed(tap, port)

        super().__init__(run)
        tap.close()

    def report(self) -> dict[str, Any]:
        """Stop watching; what was seen."""
        self.finish()
        return super().report()


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


def flood(sock: socket.socket, stop: int, sends: bool, digest: bool) -> dict[str, Any]:
    """Send as fast as it goes until `is_over(stop)`, and receive until the end: bytes and digests."""
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
    if sends:
        for block in blocks(2):
            if is_over(stop):
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
