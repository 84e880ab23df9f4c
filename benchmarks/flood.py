"""A peer that floods a connection both ways, in a process and namespace of its own, and says in the end what it saw."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from chimney.lab.namespace import Namespace

BLOCK = 1 << 18


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
    """The flooding peer: `port` on `address` is connected to; `finish` ends the flood and returns its report."""

    def __init__(
        self, namespace: Namespace, address: tuple[str, int], family: int, *, sends: bool, digest: bool = True
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

    def report(self) -> dict[str, object]:
        """What the peer sent and received: bytes and digests. Waits for its end."""
        text = b""
        while part := os.read(self._report, 1 << 16):
            text += part
        os.waitpid(self.pid, 0)
        report: dict[str, object] = json.loads(text)
        return report


def _flood(sock: socket.socket, stop: int, sends: bool, digest: bool) -> dict[str, object]:
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
