"""Campaigns on a Dask cluster. Needs the package `distributed`: the extra `cluster`, here and on the workers.

The cluster deals out chunks, and deals a chunk out again when it loses the worker that had it. On its workers a chunk
runs as it does at home: in a process of its own, minded by the thread that Dask gave the chunk to.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Executor, Future
from functools import cache
from pathlib import Path
from typing import Self

from distributed import Client, KilledWorker

from chimney.sim.campaign import CampaignError, Chunk, Figures
from chimney.sim.minder import Minder

_PATIENCE_S = 30.0
_PACKAGE = Path(__file__).resolve().parent.parent
_thread = threading.local()


@cache
def digest() -> str:
    """Of all sources of this package: runs can only be compared if it is the same everywhere."""
    sources = hashlib.sha256()
    for path in sorted(path for suffix in ("py", "pxd", "yaml") for path in _PACKAGE.rglob(f"*.{suffix}")):
        sources.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes())
    return sources.hexdigest()


def run(chunk: Chunk, wanted: str) -> Figures:
    """What a worker of the cluster does with a chunk. Raises CampaignError, also if its sources have not the digest
    that is ``wanted``.
    """
    if digest() != wanted:
        raise CampaignError("a worker of the cluster has other sources of Chimney than this machine")
    minder = getattr(_thread, "minder", None)
    if minder is None:
        minder = _thread.minder = Minder()
    figures: Figures = minder.chunk(chunk)
    return figures


class Cluster:
    """The workers of the cluster whose scheduler is at ``address``; as many chunks at once as they have threads.

    Raises CampaignError if there is no scheduler, or no worker.
    """

    lost: tuple[type[Exception], ...] = (KilledWorker,)

    def __init__(self, address: str, patience_s: float = _PATIENCE_S) -> None:
        try:
            self._client = Client(address, timeout=patience_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise CampaignError(f"no scheduler at {address}: {error}") from error
        try:
            self._client.wait_for_workers(1, timeout=patience_s)
        except TimeoutError as error:
            self._client.close()
            raise CampaignError(f"the scheduler at {address} has no workers") from error
        # Not pure: a chunk that is dealt out a second time is run a second time.
        self._executor: Executor = self._client.get_executor(pure=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()

    def slots(self) -> int:
        """How many chunks run at once, now: workers come and go."""
        return sum(self._client.nthreads().values())

    def submit(self, chunk: Chunk) -> Future[Figures]:
        """Have a chunk run by somebody."""
        return self._executor.submit(run, chunk, digest())
