"""Transfers both ways at a modest rate, by the kernel's sockets or offloaded, that tell when nothing came."""

from __future__ import annotations

import hashlib
import mmap
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from flood import SO_MAX_PACING_RATE, is_over, pattern

import chimney
from chimney.host.linux.tcp_info import tcp_info

BLOCK = 8192
# Seconds; what is shorter is the rhythm of the transfer itself.
LEAST_GAP = 0.003
_TELL_SECONDS = 0.02
_OUTSTANDING = 256
_PATIENCE = 40.0


class Progress:
    """What all processes see: bytes that the peer's application has received, by flow, and the path MTU (bytes) that
    the host's end of each flow reckons with.
    """

    def __init__(self, flows: int) -> None:
        self._flows = flows
        self._cells = memoryview(mmap.mmap(-1, 8 * 2 * flows)).cast("Q")

    def add(self, flow: int, count: int) -> None:
        self._cells[flow] += count

    def received(self) -> list[int]:
        return list(self._cells[: self._flows])

    def tell_mtu(self, flow: int, mtu: int) -> None:
        self._cells[self._flows + flow] = mtu

    def mtus(self) -> list[int]:
        return list(self._cells[self._flows :])


class Gaps:
    """When nothing came, as (begin, end) in seconds since the epoch."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []
        self._last = 0.0

    def note(self, now: float) -> None:
        """Something came."""
        if self._last and now - self._last > LEAST_GAP:
            self.found.append((self._last, now))
        self._last = now


class Half:
    """What one end sends: `rate` bytes a second, in blocks. What could not be sent in time is not made up for."""

    def __init__(self, seed: int, rate: int) -> None:
        self._pause = BLOCK / rate
        self._next = time.monotonic()
        self._data, self._at = pattern(seed), 0
        self._digest, self._count = hashlib.sha256(), 0

    def wait(self) -> float:
        """Seconds until the next block is due."""
        return max(self._next - time.monotonic(), 0.0)

    def take(self) -> memoryview:
        """The block that is due."""
        self._next = max(self._next, time.monotonic() - 4 * self._pause) + self._pause
        block = self._data[self._at : self._at + BLOCK]
        self._at = self._at + BLOCK if self._at + BLOCK < len(self._data) else 0
        self._digest.update(block)
        self._count += len(block)
        return block

    def report(self) -> dict[str, Any]:
        return {"sent": self._count, "sent_digest": self._digest.hexdigest()}


class Received:
    """What one end receives."""

    def __init__(self) -> None:
        self._digest, self._count = hashlib.sha256(), 0
        self._gaps = Gaps()

    def add(self, data: memoryview) -> None:
        self._gaps.note(time.time())
        self._digest.update(data)
        self._count += len(data)

    def report(self) -> dict[str, Any]:
        return {"received": self._count, "received_digest": self._digest.hexdigest(), "gaps": self._gaps.found}


def kernel_end(
    sock: socket.socket, stop: int, seed: int, rate: int, progress: Progress, flow: int, at_host: bool
) -> dict[str, Any]:
    """One end of a connection by the kernel's socket, until `is_over(stop)`; its report."""
    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 4 * rate)
    got, half = Received(), Half(seed, rate)

    def receive() -> None:
        buffer = memoryview(bytearray(1 << 18))
        while count := sock.recv_into(buffer):
            got.add(buffer[:count])
            if not at_host:
                progress.add(flow, count)

    def send() -> None:
        tell_at = 0.0
        while not is_over(stop):
            if wait := half.wait():
                select.select([stop], [], [], wait)
                continue
            sock.sendall(half.take())
            if at_host and time.monotonic() >= tell_at:
                progress.tell_mtu(flow, tcp_info(sock)["tcpi_pmtu"])
                tell_at = time.monotonic() + _TELL_SECONDS
        sock.shutdown(socket.SHUT_WR)

    # A transfer that is stuck has its end, too.
    sock.settimeout(_PATIENCE)
    errors: list[str] = []
    receiver = threading.Thread(target=_noting(errors, receive))
    receiver.start()
    _noting(errors, send)()
    receiver.join()
    return half.report() | got.report() | {"errors": errors}


def _noting(errors: list[str], run: Callable[[], None]) -> Callable[[], None]:
    def noting() -> None:
        try:
            run()
        except OSError as error:
            errors.append(str(error))

    return noting


def offloaded_end(
    sock: socket.socket, stop: int, seed: int, rate: int, progress: Progress, flow: int
) -> dict[str, Any]:
    """The host's end of a connection that is offloaded, until `is_over(stop)`; its report."""
    got, half, ended = Received(), Half(seed, rate), False
    errors: list[str] = []

    def received(request: chimney.ReceiveRequest) -> None:
        nonlocal ended
        if request.error is not None:
            errors.append(str(request.error))
            return
        data = request.view[: request.bytes_transferred]
        got.add(data)
        ended = ended or not len(data)
        if not ended:
            connection.post_receive(request.view, received)

    def sent(request: chimney.SendRequest) -> None:
        if request.error is not None:
            errors.append(str(request.error))

    with chimney.Stack() as stack:
        connection = stack.connection(sock)
        connection.offload()
        for _ in range(4):
            connection.post_receive(bytearray(1 << 16), received)
        tell_at = 0.0
        while not errors and not is_over(stop):
            wait = half.wait()
            if not wait and len(connection.sends) < _OUTSTANDING:
                connection.post_send(half.take(), sent)
                wait = 0.0
            stack.poll(min(wait, 0.005))
            if time.monotonic() >= tell_at:
                progress.tell_mtu(flow, connection.info().tcp.get("tcpi_pmtu", 0))
                tell_at = time.monotonic() + _TELL_SECONDS
        connection.shutdown()
        last = time.monotonic() + _PATIENCE
        while (connection.sends or not ended) and not errors:
            stack.poll(0.1)
            if time.monotonic() > last:
                errors.append("stuck")
        info = connection.info()
        connection.close()
    by_target = info.bytes_sent_target / max(info.bytes_sent_target + info.bytes_sent_kernel, 1)
    return half.report() | got.report() | {
        "offloads": info.offloads,
        "uploads": info.uploads,
        "by_target": round(by_target, 4),
        "errors": errors[:3],
    }
