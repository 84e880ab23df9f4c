"""The demonstration's processes: the file server in its namespace, and the clients in the peer's."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chimney.cli.demo_lab import PORT, DemoError, Laboratory, find_program

SERVER = Path(__file__).parents[3] / "examples" / "http_file_server.py"
FIRST_LOCAL_PORT = 20000
_PEER = Path(__file__).with_name("demo_peer.py")
_PIPE_BYTES = 1 << 20
_PATIENCE = 3.0


@dataclass(frozen=True)
class Transfer:
    """One file on its way over one of the connections (numbered from 1)."""

    connection: int
    upload: bool

    @property
    def target(self) -> str:
        """The HTTP request target; no two transfers have the same."""
        return f"/upload-{self.connection}" if self.upload else f"/data?{self.connection}"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.connection} {'upload' if self.upload else 'download'}"


def plan(connections: int) -> list[list[Transfer]]:
    """The transfers of every connection: downloads and uploads in turn; both, if there is but one connection."""
    if connections == 1:
        return [[Transfer(1, False), Transfer(1, True)]]
    return [[Transfer(number, number % 2 == 0)] for number in range(1, connections + 1)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, asking first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """The example HTTP file server, and what it reports. Raises DemoError where the example is missing."""

    def __init__(self, laboratory: Laboratory, root: Path, hand_over_every: int, drivers: int, seed: int) -> None:
        if not SERVER.exists():
            raise DemoError(f"{SERVER} is missing: the demonstration runs from a source checkout")
        command: list[str] = [sys.executable, str(SERVER), "--bind", laboratory.address, "--port", str(PORT)]
        command += ["--root", str(root), "--discard", "--drivers", str(drivers), "--seed", str(seed)]
        command += ["--interface", laboratory.interface]
        command += ["--hand-over-every", str(hand_over_every)]
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._words: IO[bytes] = tempfile.TemporaryFile()
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        try:
            self._process = laboratory.server.popen(
                [*command, "--report", str(writer)],
                pass_fds=[writer],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                start_new_session=True,
            )
        finally:
            os.close(writer)

    def fileno(self) -> int:
        """Readable when there is something to `read`."""
        return self._reader

    def read(self) -> None:
        """Take what the server has reported into `events`."""
        while True:
            try:
                piece = os.read(self._reader, 1 << 16)
            except BlockingIOError:
                return
            if not piece:
                return
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self.events += map(json.loads, lines)

    def said(self, event: str) -> Iterator[dict[str, Any]]:
        """What it has reported of one kind."""
        return (line for line in self.events if line["event"] == event)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of what it wrote for people: where its errors are."""
        self._words.seek(0)
        return self._words.read().decode(errors="replace").strip()[-2000:]

    def stop(self) -> None:
        """Ask for its summary, and end it."""
        _end(self._process)
        self.read()

    def close(self) -> None:
        """End it, and give its descriptors back."""
        self.stop()
        os.close(self._reader)
        self._words.close()


class Client:
    """curl, or Python's own client, on one connection; and a process that hashes what it downloads."""

    def __init__(self, laboratory: Laboratory, transfers: Sequence[Transfer], file: Path) -> None:
        self.transfers = transfers
        self.local_port = FIRST_LOCAL_PORT + transfers[0].connection
        host = f"[{laboratory.address}]" if ":" in laboratory.address else laboratory.address
        base = f"http://{host}:{PORT}"
        build = _curl if find_program("curl") else _python
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        self._process = laboratory.peer.popen(
            build(base, transfers, file, self.local_port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._hashing = subprocess.Popen(
            [sys.executable, "-I", str(_PEER), "digest"],
            stdin=self._process.stdout,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._process.stdout.close()
        self._received: tuple[int, str] | None = None

    def running(self) -> bool:
        """Whether it has not finished yet."""
        return self._process.poll() is None or self._hashing.poll() is None

    def received(self) -> tuple[int, str]:
        """How many bytes were downloaded, and their SHA-256; for when it has finished."""
        if self._received is None:
            assert self._hashing.stdout is not None
            size, digest = (self._hashing.stdout.read().decode() or "0 -").split()
            self._received = int(size), digest
        return self._received

    def problem(self) -> str:
        """What went wrong, in the client's words; '' if nothing did."""
        status = self._process.poll()
        if status == 0:
            return ""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()[-500:]
        return f"client of connection {self.transfers[0].connection} ended with status {status}: {said}"

    def close(self) -> None:
        """End it, whatever it does."""
        for process in (self._process, self._hashing):
            _end(process)
        if self._hashing.stdout is not None:
            self._hashing.stdout.close()
        self._errors.close()


def client_name() -> str:
    """What the peer's side runs, for the table."""
    curl = find_program("curl")
    if curl is None:
        return "Python's http.client (curl is missing; Debian: apt-get install curl)"
    said = subprocess.run([curl, "-q", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return " ".join(said[:2])


def _curl(base: str, transfers: Sequence[Transfer], file: Path, local_port: int) -> list[str]:
    command = [find_program("curl") or "curl", "-q"]
    for number, transfer in enumerate(transfers):
        command += ["--next"] if number else []
        command += ["--silent", "--show-error", "--fail", "--globoff", "--http1.1", "--noproxy", "*"]
        command += ["--connect-timeout", "10", "--local-port", str(local_port)]
        command += ["--upload-file", str(file), "--output", os.devnull] if transfer.upload else ["--output", "-"]
        command += [base + transfer.target]
    return command


def _python(base: str, transfers: Sequence[Transfer], file: Path, local_port: int) -> list[str]:
    command = [sys.executable, "-I", str(_PEER), "client", str(local_port)]
    for transfer in transfers:
        command += ["put", base + transfer.target, str(file)] if transfer.upload else ["get", base + transfer.target]
    return command
