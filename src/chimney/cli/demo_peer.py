"""The peer's side where curl leaves off: a program of its own, run by its path, which imports nothing of Chimney.

demo_peer.py digest                                     how many bytes stdin brings, and their SHA-256
demo_peer.py client LOCAL_PORT [get URL | put URL FILE]...  what curl would do: bodies of GET go to stdout
"""

from __future__ import annotations

import hashlib
import http.client
import sys
from urllib.parse import urlsplit

_PIECE = 1 << 20


def digest() -> None:
    """Read stdin to its end."""
    state, total = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_PIECE))
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        while size := pipe.readinto(buffer):
            state.update(buffer[:size])
            total += size
    print(total, state.hexdigest())


def client(local_port: int, requests: list[str]) -> None:
    """Send the requests over one connection, one after the other. Ends with status 22 when one is refused, as curl."""
    url = urlsplit(requests[1])
    connection = http.client.HTTPConnection(url.hostname or "", url.port, source_address=("", local_port))
    while requests:
        method, address = requests[0], urlsplit(requests[1])
        target = address.path + (f"?{address.query}" if address.query else "")
        if method == "put":
            with open(requests[2], "rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                connection.request("PUT", target, file, {"Content-Length": str(size)})
        else:
            connection.request("GET", target)
        response = connection.getresponse()
        while piece := response.read(_PIECE):
            if method == "get":
                sys.stdout.buffer.write(piece)
        if response.status >= 400:
            raise SystemExit(22)
        requests = requests[3:] if method == "put" else requests[2:]
    sys.stdout.buffer.flush()
    connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "digest":
        digest()
    else:
        client(int(sys.argv[2]), sys.argv[3:])
