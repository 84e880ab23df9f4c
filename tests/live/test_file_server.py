"""The example file server as an HTTP client sees it, over loopback on the kernel's path: no privilege is needed."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "examples" / "http_file_server.py"
CONTENT = bytes(range(256)) * 5000


class Served:
    """A running server, its directory, and the lines that it reports."""

    def __init__(self, root):
        self.root = root / "root"
        self.root.mkdir()
        (self.root / "file").write_bytes(CONTENT)
        (self.root / "empty").write_bytes(b"")
        (root / "secret").write_bytes(b"secret")
        self.reader, writer = os.pipe()
        command = [sys.executable, str(SERVER), "--port", "0", "--root", str(self.root), "--no-offload"]
        command += ["--max-upload", "2000000", "--report", str(writer)]
        self.process = subprocess.Popen(command, pass_fds=[writer])
        os.close(writer)
        self.lines = os.fdopen(self.reader, "rb", buffering=0)
        self.port = self.line()["port"]

    def line(self):
        assert select.select([self.lines], [], [], 20)[0], "the server reports nothing"
        return json.loads(self.lines.readline())

    def next(self, event):
        while (line := self.line())["event"] != event:
            pass
        return line

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        summary = self.next("summary")
        assert self.process.wait(20) == 0
        return summary

    def close(self):
        self.process.kill()
        self.process.wait()
        self.lines.close()

    def client(self):
        return HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method, path, **arguments):
        connection = self.client()
        try:
            connection.request(method, path, **arguments)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def raw(self, data):
        """Everything that the server answers to raw bytes, until it closes; the sending half stays open."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall(data)
            sock.settimeout(20)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("server"))
    yield served
    served.close()


def test_files_are_served_and_stored(server):
    assert server.ask("GET", "/file?query") == (200, CONTENT)
    assert server.ask("GET", "/empty") == (200, b"")
    assert server.ask("HEAD", "/file") == (200, b"")
    status, digest = server.ask("PUT", "/stored", body=CONTENT)
    assert (status, len(digest)) == (201, 65)
    assert (server.root / "stored").read_bytes() == CONTENT
    assert server.ask("PUT", "/nothing", body=b"")[0] == 201
    assert (server.root / "nothing").read_bytes() == b""
    assert not list(server.root.glob("*.part"))


def test_connections_are_kept_and_pipelined_requests_answered_in_order(server):
    connection = server.client()
    for path, size in (("/file", len(CONTENT)), ("/empty", 0), ("/file", len(CONTENT))):
        connection.request("GET", path)
        assert len(connection.getresponse().read()) == size
    connection.close()
    answer = server.raw(
        b"PUT /piped HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /piped HTTP/1.1\r\n\r\nGET /empty HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert answer.count(b"HTTP/1.1 2") == 3
    assert answer.index(b" 201 ") < answer.index(b"\r\n\r\nabc") < answer.index(b"Connection: close")


def test_a_client_that_asks_first_is_told_to_continue(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(b"PUT /asked HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert sock.recv(65536).startswith(b"HTTP/1.1 201 ")
        assert sock.recv(65536) == b""
    assert (server.root / "asked").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /missing HTTP/1.1\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /../secret HTTP/1.1\r\n\r\n", 404),
        (b"GET /%2e%2e/secret HTTP/1.1\r\n\r\n", 404),
        (b"GET /file%00 HTTP/1.1\r\n\r\n", 404),
        (b"PUT /no/such/folder HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 404),
        (b"DELETE /file HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /file HTTP/2.0\r\n\r\n", 400),
        (b"GET /file HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"PUT /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"PUT /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /x HTTP/1.1\r\n\r\n", 411),
        (b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"PUT /x HTTP/1.1\r\nContent-Length: 2000001\r\n\r\nabc", 413),
        (b"PUT /x HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /file HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_cannot_be_served_is_answered_and_the_server_goes_on(server, request_, status):
    answer = server.raw(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer and b"secret" not in answer
    assert server.ask("GET", "/file") == (200, CONTENT)


def test_an_upload_that_ends_early_stores_nothing(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(b"PUT /early HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nabc")
    while (line := server.next("transfer"))["path"] != "/early":
        pass
    assert "ended within an upload" in line["error"]
    assert server.ask("GET", "/early")[0] == 404
    assert not list(server.root.glob("early*"))


def test_what_the_peer_acknowledges_late_counts_in_the_next_line(tmp_path):
    served = Served(tmp_path)
    size = 30_000
    (served.root / "slow").write_bytes(CONTENT[:size])
    try:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.connect(("127.0.0.1", served.port))
            sock.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
            # The kernel has taken it all, and the peer has room for a part.
            first = served.next("transfer")
            assert first["bytes"] == size > first["bytes_kernel"]
            answer = b""
            while len(answer.partition(b"\r\n\r\n")[2]) < size:
                answer += sock.recv(65536)
            sock.sendall(b"GET /empty HTTP/1.1\r\n\r\n")
            second = served.next("transfer")
        assert first["bytes_kernel"] + second["bytes_kernel"] > len(answer)
    finally:
        served.close()


def test_the_report_tells_bytes_and_digest_and_the_summary_ends_it(tmp_path):
    served = Served(tmp_path)
    try:
        served.ask("GET", "/file")
        line = served.next("transfer")
        assert (line["path"], line["bytes"], line["status"], line["offloads"]) == ("/file", len(CONTENT), 200, 0)
        assert line["bytes_kernel"] and line["bytes_target"] == 0
        assert served.ask("PUT", "/again", body=CONTENT)[1].decode().strip() == line["digest"]
        summary = served.stop()
        assert (summary["connections"], summary["transfers"], summary["errors"]) == (2, 2, 0)
    finally:
        served.close()
