#!/usr/bin/env python3
"""An HTTP/1.1 file server on Chimney's plain API: one process, one loop, no threads.

    http_file_server.py --root DIRECTORY [--bind ADDRESS] [--port PORT]

GET and HEAD send files out of mapped memory, without a copy; PUT stores them. With --hand-over-every, every connection
moves down into the offload target and back up into the kernel again and again while files are being transferred; the
peer notices nothing. With --report, a line of JSON is written about every transfer.

The loop is here; http_files/session.py is one connection, http_files/transfer.py decides where it changes sides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from http_files.session import Session

import chimney

SLICE_LIMIT = 512 << 10
IDLE_SECONDS = 60.0
PROGRESS_SECONDS = 0.2


class Server:
    """The loop: one selector waits for new connections, for the stack, and for signals."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.root = Path(options.root).resolve()
        self.jitter = random.Random(options.seed)
        # A slice is what one request carries: small enough that the schedule's positions are met.
        self.slice = min(SLICE_LIMIT, max(4096, options.hand_over_every // 16 or SLICE_LIMIT))
        self.stack = chimney.Stack(intermediate_drivers=options.drivers)
        if options.interface:
            self.stack.adapter(options.interface)
        self.sessions: set[Session] = set()
        self.later: deque[Callable[[], None]] = deque()
        self.counts = {"connections": 0, "transfers": 0, "errors": 0, "offloads": 0, "uploads": 0}
        self.told = (0.0, dict(self.counts))
        self.stopping = False
        self.output = int(options.report) if options.report.isdigit() else -1
        if options.report and self.output < 0:
            self.output = os.open(options.report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def soon(self, action: Callable[[], None]) -> None:
        """Run `action` after the stack's round: where hand-overs raise at once, and connections may be closed."""
        if action not in self.later:
            self.later.append(action)

    def report(self, line: dict[str, Any]) -> None:
        """Write a line for --report."""
        self.counts["transfers"] += line["event"] == "transfer"
        self.counts["errors"] += bool(line.get("error"))
        if self.output >= 0:
            data = json.dumps(line).encode() + b"\n"
            while data:
                data = data[os.write(self.output, data) :]

    def report_progress(self) -> None:
        """Now and then, a line with the counts so far."""
        if time.monotonic() - self.told[0] > PROGRESS_SECONDS and self.told[1] != self.counts:
            self.told = (time.monotonic(), dict(self.counts))
            self.report({"event": "progress", **self.counts})

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        family = socket.AF_INET6 if ":" in self.options.bind else socket.AF_INET
        listener = socket.create_server((self.options.bind, self.options.port), family=family, backlog=512)
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        listener.setblocking(False)
        wakeup, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        address, port = listener.getsockname()[:2]
        self.report({"event": "listening", "address": address, "port": port, "drivers": self.options.drivers})
        with selectors.DefaultSelector() as selector, listener, wakeup, writer, self.stack:
            for descriptor in (listener, self.stack, wakeup):
                selector.register(descriptor, selectors.EVENT_READ)
            while not self.stopping:
                ready = [key.fileobj for key, _ in selector.select(0 if self.later else 1.0)]
                if listener in ready:
                    self.accept(listener)
                self.stack.poll()
                if self.later:
                    # One at a time: hand-overs take milliseconds when much is in flight, and the others wait meanwhile.
                    self.later.popleft()()
                self.end_idle()
                self.report_progress()
        self.report({"event": "summary", **self.counts})

    def stop(self, *signal_and_frame: object) -> None:
        """The signal handler."""
        self.stopping = True

    def accept(self, listener: socket.socket) -> None:
        """Begin a session with everybody who waits."""
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.counts["connections"] += 1
            try:
                self.sessions.add(Session(self, sock))
            except (OSError, chimney.ChimneyError) as error:
                sock.close()
                self.report({"event": "error", "error": f"{type(error).__name__}: {error}"})

    def end_idle(self) -> None:
        """Connections on which nothing has moved for a long time are not kept."""
        now = time.monotonic()
        for session in [s for s in self.sessions if now - s.active > IDLE_SECONDS]:
            session.close(TimeoutError(f"nothing moved for {IDLE_SECONDS:.0f} s"))


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="An HTTP/1.1 file server whose connections go down the chimney.")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on (IPv4 or IPv6)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0 chooses one")
    parser.add_argument("--root", default=".", help="directory with the files")
    parser.add_argument(
        "--offload",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="offload every connection from its first byte on (with --hand-over-every: only while transferring)",
    )
    parser.add_argument("--hand-over-every", type=int, default=0, metavar="BYTES", help="change sides per BYTES")
    parser.add_argument("--interface", default="", help="get this interface ready now, not when it is first needed")
    parser.add_argument("--drivers", type=int, default=2, help="pass-through drivers between host and target")
    parser.add_argument("--discard", action="store_true", help="hash what PUT brings, and store nothing")
    parser.add_argument("--max-upload", type=int, default=1 << 40, metavar="BYTES", help="largest PUT that is taken")
    parser.add_argument("--digest", action=argparse.BooleanOptionalAction, default=True, help="hash bodies")
    parser.add_argument("--report", default="", metavar="FILE", help="file or descriptor number for lines of JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the hand-overs' positions")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    Server(options()).run()
