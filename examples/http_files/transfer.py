"""A file on its way: how far it has got, where the connection changes sides, and what is reported in the end."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import chimney

# What is reported of the connection's TCP, by the names of TCP_INFO.
_TCP_INFO = ("tcpi_rtt", "tcpi_snd_cwnd", "tcpi_snd_mss", "tcpi_pmtu", "tcpi_total_retrans")


class Schedule:
    """Positions in a transfer (bytes) at which the connection changes sides: every `every` bytes down into the target,
    there for most of the stretch, and up again; both places are jittered, the number of hand-overs is not."""

    def __init__(self, every: int, jitter: random.Random) -> None:
        self._points = self._all(every, jitter) if every else iter(())
        self.advance()

    @staticmethod
    def _all(every: int, jitter: random.Random) -> Iterator[tuple[int, bool]]:
        for start in count(0, every):
            yield start + int(every * jitter.uniform(0.02, 0.12)), True
            yield start + int(every * jitter.uniform(0.88, 0.98)), False

    def advance(self) -> None:
        """The next position, and whether the way goes down there."""
        self.position, self.down = next(self._points, (sys.maxsize, True))


class Transfer:
    """One request and its response's or its own body: how far it has got, and on which path."""

    def __init__(self, conn: chimney.Connection, schedule: Schedule, method: str, path: str, before: Any) -> None:
        self.conn, self.schedule = conn, schedule
        self.method, self.path = method, path
        self.length = self.posted = self.done = 0
        self.status = HTTPStatus.OK
        self.digest = hashlib.sha256()
        self.offloads = self.uploads = 0
        self.refusals: list[str] = []
        self.before = self.reported = before
        self.source = memoryview(b"")
        self.store: Path | None = None

    def due(self) -> bool:
        """Whether the next hand-over is to be made, in mid-transfer."""
        return self.schedule.position <= self.done < self.length

    def report(self, error: Exception | None) -> dict[str, Any]:
        """The line for --report. Bytes and retransmissions are the connection's since `before`, the line before: what
        the peer has not acknowledged yet counts in the next one."""
        now, was = self.conn.info(), self.before
        self.reported = now
        return {
            "event": "transfer",
            "method": self.method,
            "path": self.path,
            "status": int(self.status),
            "bytes": self.done,
            "digest": self.digest.hexdigest(),
            "offloads": self.offloads,
            "uploads": self.uploads,
            "refusals": self.refusals,
            "bytes_kernel": _carried(now, "kernel") - _carried(was, "kernel"),
            "bytes_target": _carried(now, "target") - _carried(was, "target"),
            "retransmits": now.retransmits - was.retransmits,
            "offload_seconds": now.offload_seconds[len(was.offload_seconds) :],
            "upload_seconds": now.upload_seconds[len(was.upload_seconds) :],
            "owner": now.owner,
            "tcp": {name: now.tcp[name] for name in _TCP_INFO if name in now.tcp},
            "error": None if error is None else f"{type(error).__name__}: {error}",
        }


def _carried(info: Any, path: str) -> int:
    return int(getattr(info, f"bytes_sent_{path}") + getattr(info, f"bytes_received_{path}"))
