"""One connection of the file server: requests are posted, callbacks say when they are done."""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import chimney
from http_files.message import Refusal, body_length, parse_head
from http_files.transfer import Schedule, Transfer

if TYPE_CHECKING:
    from http_file_server import Server

HEAD_LIMIT = 16 << 10
OUTSTANDING = 8


class Session:
    """One connection. Requests are answered one after the other; errors end this connection and no other."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.peer = "{}:{}".format(*sock.getpeername()[:2])
        self.conn = server.stack.connection(sock)
        self.head = memoryview(bytearray(HEAD_LIMIT))
        self.filled = 0
        self.outstanding = 0
        self.posting = False
        self.buffers: list[memoryview] = []
        self.transfer: Transfer | None = None
        # What came before we looked is the first request's.
        self.reported = replace(self.conn.info(), bytes_received_kernel=0)
        self.file: Any = None
        self.keep_alive = True
        self.closed = False
        self.active = time.monotonic()
        if server.options.offload and not server.options.hand_over_every:
            self.hand_over(down=True)
        self.next_request()

    def guarded(self, done: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that ends this session, instead of the server, when something goes wrong."""

        def callback(request: Any) -> None:
            if self.closed:
                return
            self.active = time.monotonic()
            try:
                if request.error is not None:
                    raise request.error
                done(request)
            except Exception as error:
                self.close(error)

        return callback

    def close(self, error: Exception | None = None) -> None:
        """End the connection once the stack has finished its round: orderly, or with an RST after an error."""
        if self.closed:
            return
        self.closed = True
        if self.transfer is not None:
            self.server.report(self.transfer.report(error or ConnectionError("the connection ended early")))
            self.discard_upload()
        elif error is not None:
            self.server.report({"event": "error", "peer": self.peer, "error": f"{type(error).__name__}: {error}"})
        self.server.soon(lambda: self.end(error is not None))

    def end(self, abort: bool) -> None:
        """Close the connection, whatever state it is in."""
        self.server.sessions.discard(self)
        try:
            if abort:
                self.conn.abort()
            self.conn.close()
        except Exception as error:
            self.server.report({"event": "error", "peer": self.peer, "error": f"{type(error).__name__}: {error}"})

    # Requests

    def next_request(self) -> None:
        """Read on until the head of a request is complete, and answer it."""
        end = bytes(self.head[: self.filled]).find(b"\r\n\r\n")
        if end >= 0:
            head, rest = bytes(self.head[:end]), bytes(self.head[end + 4 : self.filled])
            self.head[: len(rest)], self.filled = rest, len(rest)
            try:
                self.answer(*parse_head(head))
            except Refusal as refusal:
                self.refuse(refusal)
        elif self.filled == HEAD_LIMIT:
            self.refuse(Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head exceeds {HEAD_LIMIT} bytes"))
        else:
            self.conn.post_receive(self.head[self.filled :], self.guarded(self.head_received))

    def head_received(self, request: Any) -> None:
        self.filled += request.bytes_transferred
        if request.bytes_transferred:
            self.next_request()
        else:
            self.close()

    def answer(self, method: str, target: str, version: str, headers: dict[str, str]) -> None:
        self.keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        self.transfer = self.begin(method, target)
        path = self.find(target)
        if method == "PUT":
            self.start_upload(path, headers)
        elif method in ("GET", "HEAD"):
            self.start_download(path)
        else:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD and PUT are served")

    def find(self, target: str) -> Path:
        """The file that a request target names, inside the served directory. Raises Refusal."""
        root = self.server.root
        try:
            path = (root / unquote(target.partition("?")[0]).lstrip("/")).resolve()
            if path.is_relative_to(root):
                return path
        except (OSError, ValueError, RuntimeError):
            pass
        raise Refusal(HTTPStatus.NOT_FOUND, "no such file")

    def begin(self, method: str, path: str) -> Transfer:
        schedule = Schedule(self.server.options.hand_over_every, self.server.jitter)
        return Transfer(self.conn, schedule, method, path, self.reported)

    def refuse(self, refusal: Refusal) -> None:
        if self.transfer is None:
            self.transfer = self.begin("", "")
        self.keep_alive = False
        self.respond(refusal.status, f"{refusal}\n".encode())

    def respond(self, status: HTTPStatus, body: bytes = b"", length: int | None = None) -> None:
        """Send head and body; `length` if the body comes separately, or not at all."""
        assert self.transfer is not None
        self.transfer.status = status
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Length: {len(body) if length is None else length}\r\n"
            f"Content-Type: {'text/plain' if length is None else 'application/octet-stream'}\r\n"
            f"Connection: {'keep-alive' if self.keep_alive else 'close'}\r\n\r\n"
        )
        self.conn.post_send(head.encode() + body, self.guarded(self.responded))

    def responded(self, request: Any) -> None:
        transfer = self.transfer
        if transfer is None or self.outstanding or transfer.done < transfer.length:
            return
        self.server.report(transfer.report(None))
        self.reported = transfer.reported
        self.transfer = None
        if self.keep_alive:
            self.next_request()
        else:
            self.conn.shutdown()
            self.drain(None)

    def drain(self, request: Any) -> None:
        """Read what the peer still sends until it closes too: closing on unread data would reset the connection."""
        if request is not None and not request.bytes_transferred:
            self.close()
        else:
            self.conn.post_receive(self.head, self.guarded(self.drain))

    # Downloads

    def start_download(self, path: Path) -> None:
        assert self.transfer is not None
        try:
            with path.open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length and self.transfer.method == "GET":
                    self.transfer.source = memoryview(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ))
        except OSError:
            raise Refusal(HTTPStatus.NOT_FOUND, "no such file") from None
        self.transfer.length = len(self.transfer.source)
        self.respond(HTTPStatus.OK, length=length)
        self.post_more()

    def slice_sent(self, request: Any) -> None:
        self.outstanding -= 1
        self.progress(request.view)
        self.responded(request)

    # Uploads

    def start_upload(self, path: Path, headers: dict[str, str]) -> None:
        assert self.transfer is not None
        length = body_length(headers, self.server.options.max_upload)
        if not self.server.options.discard:
            self.transfer.store = path
            try:
                self.file = path.with_name(path.name + ".part").open("wb")
            except OSError as error:
                raise Refusal(HTTPStatus.NOT_FOUND, f"cannot be stored: {error.strerror}") from None
        self.transfer.length = length
        have = min(self.filled, length)
        if headers.get("expect", "").lower() == "100-continue" and not have:
            self.conn.post_send(b"HTTP/1.1 100 Continue\r\n\r\n", self.guarded(lambda request: None))
        self.buffers = [memoryview(bytearray(self.server.slice)) for _ in range(OUTSTANDING if length > have else 0)]
        self.transfer.posted = have
        self.take(self.head[:have])
        rest = bytes(self.head[have : self.filled])
        self.head[: len(rest)], self.filled = rest, len(rest)
        self.finish_upload()

    def slice_received(self, request: Any, buffer: memoryview) -> None:
        assert self.transfer is not None
        self.outstanding -= 1
        if not request.bytes_transferred:
            raise ConnectionError("the connection ended within an upload")
        self.transfer.posted -= request.length - request.bytes_transferred
        self.buffers.append(buffer)
        self.take(request.view[: request.bytes_transferred])
        self.finish_upload()

    def take(self, piece: memoryview) -> None:
        if self.file is not None:
            self.file.write(piece)
        self.progress(piece)

    def finish_upload(self) -> None:
        transfer = self.transfer
        if transfer is not None and transfer.done == transfer.length and not self.outstanding:
            if self.file is not None:
                assert transfer.store is not None
                self.file.close()
                self.file = None
                transfer.store.with_name(transfer.store.name + ".part").replace(transfer.store)
            self.respond(HTTPStatus.CREATED, f"{transfer.digest.hexdigest()}\n".encode())

    def discard_upload(self) -> None:
        if self.file is not None and self.transfer is not None and self.transfer.store is not None:
            self.file.close()
            self.transfer.store.with_name(self.transfer.store.name + ".part").unlink(missing_ok=True)

    # Bodies, and hand-overs in the middle of them

    def post_more(self) -> None:
        """Keep requests posted: slices of the file to send, or memory for what is to be received.

        None is posted while a hand-over is due: a single round of the stack could carry many slices past the place.
        """
        transfer = self.transfer
        assert transfer is not None
        if self.posting:
            # Called from the callback of a request that was done as soon as it was posted.
            return
        self.posting = True
        while transfer.posted < transfer.length and self.outstanding < OUTSTANDING:
            if self.closed or transfer.due():
                break
            size = min(self.server.slice, transfer.length - transfer.posted)
            start = transfer.posted
            transfer.posted += size
            self.outstanding += 1
            if transfer.method == "PUT":
                self.post_buffer(self.buffers.pop(), size)
            else:
                self.conn.post_send(transfer.source[start : start + size], self.guarded(self.slice_sent))
        self.posting = False

    def post_buffer(self, buffer: memoryview, size: int) -> None:
        received = self.guarded(lambda request: self.slice_received(request, buffer))
        self.conn.post_receive(buffer[:size], received, push=False)

    def progress(self, piece: memoryview) -> None:
        """Bytes of a body have been sent or received: note them, and change sides where the schedule says so."""
        transfer = self.transfer
        assert transfer is not None
        if self.server.options.digest:
            transfer.digest.update(piece)
        transfer.done += len(piece)
        if transfer.due():
            self.server.soon(self.change_sides)
        self.post_more()

    def change_sides(self) -> None:
        transfer = self.transfer
        if self.closed or transfer is None or not transfer.due():
            return
        down = transfer.schedule.down
        transfer.schedule.advance()
        # The connection moves with requests posted, as it would at any other moment.
        self.post_more()
        self.hand_over(down)
        if transfer.due():
            self.server.soon(self.change_sides)

    def hand_over(self, down: bool) -> None:
        """Move the connection down into the target, or up into the kernel, with whatever is posted and in flight."""
        transfer, before = self.transfer, self.conn.offloaded
        try:
            if down:
                self.conn.offload()
            else:
                self.conn.upload()
        except chimney.NotOffloadable as error:
            if transfer is not None:
                transfer.refusals.append(str(error))
            else:
                self.server.report({"event": "refused", "peer": self.peer, "refusals": [str(error)]})
        except Exception as error:
            self.close(error)
        else:
            # Requests complete during a hand-over too: a transfer that has just ended so was not in the middle.
            if transfer is not None and transfer is self.transfer and before != down:
                transfer.offloads += down
                transfer.uploads += not down
                self.server.counts["offloads" if down else "uploads"] += 1
