"""A relay in user space between two interfaces: it delays, reorders, duplicates and loses frames, by a seed.

This kernel need not have netem. Both directions are treated alike, each with random numbers of its own: the same seed
does the same to the n-th TCP frame of a direction, whoever sent it.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import signal
import socket
import time
from dataclasses import dataclass

from chimney.lab.namespace import Namespace

_ETH_P_ALL = 3
_BATCH = 64
_FRAME = 2048
_BUFFER = 8 << 20
_TCP = 6
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True)
class Behaviour:
    """What is done to every TCP frame; everything else passes at once.

    delay      seconds, for each frame, and `jitter` more at most (uniformly): frames overtake each other.
    late       share of the frames (0 to 1) that take `late_by` seconds longer.
    duplicate  share of the frames that arrive twice, the second time with a delay of its own.
    loss       share of the frames that do not arrive.
    rate       bits a second; 0: no limit. What would wait longer than `queue` seconds for its turn is lost.
    """

    delay: float = 0.0
    jitter: float = 0.0
    late: float = 0.0
    late_by: float = 0.0
    duplicate: float = 0.0
    loss: float = 0.0
    rate: int = 0
    queue: float = 0.05
    seed: int = 1


class _Direction:
    """What happens to the frames of one direction."""

    def __init__(self, behaviour: Behaviour, name: str) -> None:
        self._behaviour = behaviour
        self._random = random.Random(f"{behaviour.seed} {name}")
        self._free_at = 0.0

    def arrivals(self, size: int, now: float) -> list[float]:
        """When a frame that came now leaves: no time if it is lost, two if it is duplicated."""
        behaviour, draw = self._behaviour, self._random.random
        # As many draws for each frame, so that what happens to the next one does not depend on this one's luck.
        lost, twice = draw() < behaviour.loss, draw() < behaviour.duplicate
        delays = [self._delay() for _ in range(2)]
        if lost:
            return []
        if behaviour.rate:
            begin = max(now, self._free_at)
            if begin - now > behaviour.queue:
                return []
            now = self._free_at = begin + size * 8 / behaviour.rate
        return [now + delay for delay in (delays if twice else delays[:1])]

    def _delay(self) -> float:
        behaviour, draw = self._behaviour, self._random.random
        jitter, late = draw() * behaviour.jitter, draw() < behaviour.late
        return behaviour.delay + jitter + (behaviour.late_by if late else 0.0)


class Relay:
    """Runs in a process of its own, on the core `cpu` if one is given, until `stop`. The interfaces `a` and `b` are in
    `namespace`.
    """

    def __init__(self, namespace: Namespace, a: str, b: str, behaviour: Behaviour, cpu: int | None = None) -> None:
        sockets = [_open(namespace, name) for name in (a, b)]
        self._pid = os.fork()
        if not self._pid:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                if cpu is not None:
                    os.sched_setaffinity(0, {cpu})
                _run(sockets, [_Direction(behaviour, name) for name in ("a to b", "b to a")])
            finally:
                os._exit(1)
        for sock in sockets:
            sock.close()

    def stop(self) -> None:
        """Let nothing pass any more."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _open(namespace: Namespace, interface: str) -> socket.socket:
    with namespace:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sock.bind((interface, _ETH_P_ALL))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sock.setblocking(False)
    return sock


def _run(sockets: list[socket.socket], directions: list[_Direction]) -> None:
    waiting: list[tuple[float, int, bytes, socket.socket]] = []
    number = 0
    while True:
        timeout = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None
        ready, _, _ = select.select(sockets, [], [], timeout)
        now = time.monotonic()
        for sock in ready:
            at = sockets.index(sock)
            for frame in _frames(sock):
                for due in directions[at].arrivals(len(frame), now) if _is_tcp(frame) else [now]:
                    number += 1
                    heapq.heappush(waiting, (due, number, frame, sockets[1 - at]))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, frame, out = heapq.heappop(waiting)
            try:
                out.send(frame)
            except OSError:
                # A full queue, or an interface that is going away: lost, as on any wire.
                pass


def _frames(sock: socket.socket) -> list[bytes]:
    """What has arrived; not what the relay itself has sent."""
    frames = []
    for _ in range(_BATCH):
        try:
            frame, (_, _, kind, *_) = sock.recvfrom(_FRAME)
        except OSError:
            break
        if kind != socket.PACKET_OUTGOING:
            frames.append(frame)
    return frames


def _is_tcp(frame: bytes) -> bool:
    kind = frame[12:14]
    return (kind == b"\x08\x00" and frame[23] == _TCP) or (kind == b"\x86\xdd" and frame[20] == _TCP)
