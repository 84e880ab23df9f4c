"""What the receiving application gets of bulk transfers over a path: by the kernel's sockets, or offloaded."""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

import chimney
from chimney.lab.path import Path

PORT = 5202
BLOCK = 1 << 18
OUTSTANDING = 8
_POLL_SECONDS = 0.02
_PATIENCE = 20.0


class Counters:
    """How many bytes each flow has received so far; two processes see them."""

    def __init__(self, flows: int) -> None:
        self._memory = mmap.mmap(-1, 8 * flows)
        self._counts = memoryview(self._memory).cast("Q")

    def add(self, flow: int, count: int) -> None:
        self._counts[flow] += count

    def total(self) -> int:
        return sum(self._counts)

    def each(self) -> list[int]:
        return list(self._counts)


def pump(sockets: list[socket.socket], sends: bool, counters: Counters, is_over: Callable[[], bool]) -> None:
    """Send, or receive, as much as goes on all sockets until `is_over()` is true."""
    poll = select.epoll()
    flows = {}
    for flow, sock in enumerate(sockets):
        sock.setblocking(False)
        flows[sock.fileno()] = flow
        poll.register(sock, select.EPOLLOUT if sends else select.EPOLLIN)
    buffer = bytearray(BLOCK)
    while not is_over():
        for descriptor, _ in poll.poll(_POLL_SECONDS):
            flow = flows[descriptor]
            try:
                if sends:
                    sockets[flow].send(buffer)
                else:
                    count = sockets[flow].recv_into(buffer)
                    counters.add(flow, count)
                    if not count:
                        poll.unregister(descriptor)
            except BlockingIOError:
                pass
    poll.close()


class Peer:
    """The other end of all flows, in a process and on a core of its own: connects, and sends or receives for ever."""

    def __init__(self, path: Path, flows: int, sends: bool, counters: Counters, cpu: int) -> None:
        self._pid = os.fork()
        if not self._pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                os.sched_setaffinity(0, {cpu})
                pump([_connect(path) for _ in range(flows)], sends, counters, lambda: False)
            finally:
                os._exit(1)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def listen(path: Path, flows: int) -> socket.socket:
    """Where the peer connects to."""
    listener = socket.create_server((path.address, PORT), backlog=flows)
    use_cubic(listener)
    listener.settimeout(_PATIENCE)
    return listener


def _connect(path: Path) -> socket.socket:
    sock = path.peer.socket()
    use_cubic(sock)
    # A SYN that is lost is sent again after a second.
    sock.settimeout(_PATIENCE)
    sock.connect((path.address, PORT))
    return sock


class Stream:
    """Posts outstanding on an offloaded connection, in one direction."""

    def __init__(self, connection: chimney.Connection, sends: bool, counters: Counters, flow: int) -> None:
        self._connection = connection
        self._counters = counters
        self._flow = flow
        self.stopped = False
        for _ in range(OUTSTANDING):
            if sends:
                connection.post_send(bytearray(BLOCK), self._sent)
            else:
                connection.post_receive(bytearray(BLOCK), self._received)

    def _sent(self, request: chimney.SendRequest) -> None:
        if not self.stopped and request.error is None:
            self._connection.post_send(request.view, self._sent)

    def _received(self, request: chimney.ReceiveRequest) -> None:
        self._counters.add(self._flow, request.bytes_transferred)
        if not self.stopped and request.error is None and request.bytes_transferred:
            self._connection.post_receive(request.view, self._received)


class Clock:
    """When a measurement is over: after some seconds, or some bytes; and what it found."""

    def __init__(self, counters: Counters, seconds: float, most: int) -> None:
        self._counters = counters
        self._seconds, self._most = seconds, most
        self._started = time.perf_counter()
        self._before = counters.total()

    def is_over(self) -> bool:
        return (
            time.perf_counter() - self._started >= self._seconds or self._counters.total() - self._before >= self._most
        )

    def rate(self) -> float:
        """Bits a second."""
        return (self._counters.total() - self._before) * 8 / (time.perf_counter() - self._started)


def measure(
    path: Path,
    offloaded: bool,
    sends: bool,
    *,
    seconds: float,
    most: int,
    flows: int,
    cpus: tuple[int, int],
    busy_poll_us: int,
) -> float:
    """Bits a second that arrive at the receiving applications of `flows` connections, from their first byte on.

    `most`: bytes after which the measurement ends early. `cpus`: of this process, and of the peer.
    """
    os.sched_setaffinity(0, {cpus[0]})
    counters = Counters(flows)
    with path.host:
        with listen(path, flows) as listener:
            peer = Peer(path, flows, not sends, counters, cpus[1])
            sockets = [listener.accept()[0] for _ in range(flows)]
        try:
            if not offloaded:
                clock = Clock(counters, seconds, most)
                pump(sockets, sends, counters, clock.is_over)
                return clock.rate()
            return _measure_offloaded(sockets, sends, counters, seconds, most, busy_poll_us)
        finally:
            peer.kill()
            for sock in sockets:
                sock.close()


def _measure_offloaded(
    sockets: list[socket.socket], sends: bool, counters: Counters, seconds: float, most: int, busy_poll_us: int
) -> float:
    with chimney.Stack(config=chimney.StackConfig(busy_poll_us=busy_poll_us)) as stack:
        connections = [stack.connection(sock) for sock in sockets]
        for connection in connections:
            connection.offload()
        clock = Clock(counters, seconds, most)
        streams = [Stream(connection, sends, counters, flow) for flow, connection in enumerate(connections)]
        while not clock.is_over():
            stack.poll(_POLL_SECONDS)
        rate = clock.rate()
        for connection, stream in zip(connections, streams, strict=True):
            stream.stopped = True
            connection.abort()
        return rate


def use_cubic(sock: socket.socket) -> None:
    """Let a socket of the kernel use CUBIC, whatever the machine's default is; and leave no TIME-WAIT, nor FINs that
    are sent again for minutes.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
