"""What a stack has counted: the documents' statistics of each interface, and the figures of each connection (17.1).

A program with CHIMNEY_STATISTICS=FILE in its environment keeps them in that file, about once a second, for `chimney
statistics FILE` to show.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from chimney.ndis.capabilities import IpOffloadStats, TcpOffloadStats

if TYPE_CHECKING:
    from chimney.host.connection import Connection

_INTERVAL_US = 1_000_000


@dataclass(slots=True)
class InterfaceStatistics:
    """One interface. ``tcp4`` to ``ip6`` are what its target counts of offloaded traffic, wire segments and datagrams,
    since it was made or reset; ``offloaded`` says how many connections it has at present.

    Frames are the link's, super-segments as one, whoever they were for: ``frames_dropped`` found no room here because
    nobody read them in time, ``frames_refused`` found none on the way out and were sent later.
    """

    device: str
    offloaded: int = 0
    tcp4: TcpOffloadStats = field(default_factory=TcpOffloadStats)
    tcp6: TcpOffloadStats = field(default_factory=TcpOffloadStats)
    ip4: IpOffloadStats = field(default_factory=IpOffloadStats)
    ip6: IpOffloadStats = field(default_factory=IpOffloadStats)
    frames_in: int = 0
    frames_dropped: int = 0
    frames_out: int = 0
    frames_refused: int = 0


class StatisticsFile:
    """Keeps what ``take()`` says in a file, whole at every instant, at most once a second of ``clock`` (microseconds).

    Raises OSError if it cannot be written.
    """

    def __init__(self, path: Path, clock: Callable[[], int], take: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._clock = clock
        self._take = take
        self._due = 0
        self.write()

    def turn(self) -> None:
        """Write if it is time to."""
        if self._clock() >= self._due:
            self.write()

    def write(self) -> None:
        """Write now."""
        self._due = self._clock() + _INTERVAL_US
        text = json.dumps({"pid": os.getpid(), "time": time.time(), **self._take()})
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        beside.write_text(text)
        beside.replace(self._path)



def connection_data(connection: Connection) -> dict[str, Any]:
    """What the file holds of a connection: its ends, and the members of `ConnectionInfo`; instead of each hand-over's
    duration the median in microseconds (``offload_us``, ``upload_us``), 0 if there was none.
    """
    data = asdict(connection.info())
    for name in ("offload", "upload"):
        seconds = data.pop(f"{name}_seconds")
        data[f"{name}_us"] = round(median(seconds) * 1e6) if seconds else 0
    return {"local": _end(connection.socket.getsockname), "remote": _end(connection.socket.getpeername), **data}


def _end(name: Callable[[], Any]) -> str:
    try:
        address, port = name()[:2]
    except OSError:
        # The connection has ended.
        return ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
