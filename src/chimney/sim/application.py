"""What applications do: they send a stream that everybody can predict, and check every byte that they receive."""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

from chimney.host.connection import Connection
from chimney.host.errors import ChimneyError
from chimney.host.requests import Request
from chimney.sim.case import LONGEST, OTHER, Side

if TYPE_CHECKING:
    from chimney.sim.model import ModelTcp
    from chimney.sim.world import World

# Prime, so that data which is moved by any likely number of bytes does not look right.
_PERIOD = 65_521
_READ = 4096


def _table(side: Side) -> bytes:
    state, made = (0x9E3779B9 if side == "a" else 0x7F4A7C15), bytearray()
    for _ in range(_PERIOD):
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFFFFFF
        made.append(state >> 24)
    return bytes(made) * (LONGEST // _PERIOD + 2)


_STREAMS: dict[Side, bytes] = {"a": _table("a"), "b": _table("b")}


def pattern(side: Side, start: int, size: int) -> bytes:
    """The bytes from ``start`` on of the stream that ``side`` sends; ``size`` of them, at most `LONGEST`."""
    assert size <= LONGEST
    start %= _PERIOD
    return _STREAMS[side][start : start + size]


class Application:
    """One side's application. What it can rely on is the invariant *completion*: requests end once and in order, and
    with an error only when the connection has really ended (`World.broken_off`).

    resets            it has reset the connection, of which it had not closed its half.
    posted, received  stream bytes that it has given away, and that it has got and found right.
    """

    def __init__(self, world: World, side: Side) -> None:
        self.world = world
        self.side: Side = side
        self.posted = 0
        self.received = 0
        self.shut = False
        self.closed = False
        self.resets = False
        self.end_of_stream = False
        self.error: OSError | None = None
        self.size = _READ
        self.depth = 0
        self.push = True

    # For the script

    def send(self, size: int) -> None:
        """Give away the next bytes of the stream."""
        if self.shut or self.closed or self.error is not None:
            return
        self.world.visit(self.side, "send")
        data = pattern(self.side, self.posted, size)
        self.posted += size
        self._send(data)

    def read(self, size: int, depth: int, push: bool) -> None:
        """From now on, have ``depth`` receives of ``size`` bytes posted."""
        if not self.closed and not self.end_of_stream and self.error is None:
            self.world.visit(self.side, "receive")
        self.size, self.depth, self.push = size, depth, push
        self.read_on()

    def shutdown(self) -> None:
        """Close the sending half."""
        if self.shut or self.closed:
            return
        self.world.visit(self.side, "shutdown")
        self.shut = True
        self._shutdown()

    def abort(self) -> None:
        """Reset the connection."""
        if self.closed:
            return
        self.world.visit(self.side, "abort")
        self.resets = not self.shut
        self.shut = self.closed = True
        self.world.breaks_off(self.side, "aborts")
        self._abort()

    def heal(self) -> None:
        """Behave from now on, so that everything can come to its end."""
        self.read(max(self.size, _READ), max(self.depth, 2), True)
        self.shutdown()

    @property
    def finished(self) -> bool:
        """Whether nothing is to be expected any more."""
        raise NotImplementedError

    # What has come

    def got(self, data: memoryview) -> None:
        """Received bytes: they must be those that follow."""
        expected = pattern(OTHER[self.side], self.received, data.nbytes)
        if data != expected:
            wrong = next(n for n, (one, other) in enumerate(zip(data, expected, strict=True)) if one != other)
            self.world.broken(
                "streams",
                f"{self.side} received a wrong byte at {self.received + wrong} of its stream"
                f" (in {data.nbytes} bytes that begin at {self.received})",
            )
        if self.received + data.nbytes > self.world.applications[OTHER[self.side]].posted:
            self.world.broken("streams", f"{self.side} received bytes that nobody has sent")
        self.received += data.nbytes
        self.world.visit(self.side, "received")

    def ended(self) -> None:
        """The end of the stream: the other side must have closed its half, and everything must have come."""
        if self.end_of_stream:
            return
        self.end_of_stream = True
        peer = self.world.applications[OTHER[self.side]]
        if not peer.shut and not self.world.broken_off:
            self.world.broken("streams", f"{self.side} sees the end of a stream that {peer.side} has not ended")
        elif self.received != peer.posted and not self.world.broken_off:
            self.world.broken(
                "streams", f"{self.side} sees the end of its stream after {self.received} of {peer.posted} bytes"
            )

    def failed(self, error: OSError) -> None:
        """The connection has ended by an error."""
        if self.error is None:
            self.error = error
            self.world.note(self.side, "app", f"the connection failed: {error}")
        if not self.world.broken_off:
            self.world.broken("completion", f"a request of {self.side} failed, but nobody broke off: {error!r}")

    # As the host's way of doing it has it

    def _send(self, data: bytes) -> None:
        raise NotImplementedError

    def _shutdown(self) -> None:
        raise NotImplementedError

    def _abort(self) -> None:
        raise NotImplementedError

    def read_on(self) -> None:
        """Post the receives that are missing."""
        raise NotImplementedError

    def detach(self) -> None:
        """Close the socket."""
        raise NotImplementedError


class _Posted:
    """A request as the application knows it: it may complete before the call that posts it has returned."""

    def __init__(self, buffer: bytes | bytearray) -> None:
        self.buffer = buffer


class ChimneyApplication(Application):
    """An application on a `Connection`, whose requests go through the kernel or through the chimney."""

    def __init__(self, world: World, side: Side, connection: Connection) -> None:
        super().__init__(world, side)
        self.connection = connection
        self.sends: deque[_Posted] = deque()
        self.receives: deque[_Posted] = deque()
        self.shutdown_done = False
        self._posting = False

    def _send(self, data: bytes) -> None:
        posted = _Posted(data)
        self.sends.append(posted)
        self.connection.post_send(data, lambda request: self._sent(posted, request))

    def _sent(self, posted: _Posted, request: Request) -> None:
        self._in_order(posted, self.sends, "send")
        if request.error is not None:
            self.failed(request.error)
        elif request.bytes_transferred != request.length:
            self.world.broken(
                "completion", f"a send of {request.length} bytes ended well with {request.bytes_transferred}"
            )

    def _in_order(self, posted: _Posted, waiting: deque[_Posted], what: str) -> None:
        if waiting and waiting[0] is posted:
            waiting.popleft()
            return
        self.world.broken("completion", f"a {what} of {self.side} completed out of order, or twice")
        if posted in waiting:
            waiting.remove(posted)

    def read_on(self) -> None:
        if self._posting or self.closed:
            return
        self._posting = True
        try:
            while len(self.receives) < self.depth and not self.end_of_stream and self.error is None:
                posted = _Posted(bytearray(self.size))
                self.receives.append(posted)
                self._post(posted)
        finally:
            self._posting = False

    def _post(self, posted: _Posted) -> None:
        assert isinstance(posted.buffer, bytearray)
        self.connection.post_receive(posted.buffer, lambda request: self._got(posted, request), push=self.push)

    def _got(self, posted: _Posted, request: Request) -> None:
        self._in_order(posted, self.receives, "receive")
        count = request.bytes_transferred
        if count:
            self.got(memoryview(posted.buffer)[:count])
        if request.error is not None:
            self.failed(request.error)
        elif not count:
            self.ended()
        self.read_on()

    def _shutdown(self) -> None:
        self.connection.shutdown(self._shut_done)

    def _shut_done(self, request: Request) -> None:
        if self.shutdown_done:
            self.world.broken("completion", f"the shutdown of {self.side} completed twice")
        self.shutdown_done = True
        if request.error is not None:
            self.failed(request.error)

    def _abort(self) -> None:
        self.connection.abort()

    def detach(self) -> None:
        if self.closed or self.sends:
            return
        self.world.visit(self.side, "close")
        self.shut = self.closed = True
        self.world.breaks_off(self.side, "closes its socket")
        try:
            self.connection.close()
        except ChimneyError as error:
            self.world.note(self.side, "app", f"close: {error}")

    @property
    def finished(self) -> bool:
        if self.closed or self.error is not None:
            return not self.sends and not self.receives
        return not self.sends and self.shutdown_done and self.end_of_stream


class KernelApplication(Application):
    """An application on a socket of the model kernel: it reads and writes whenever the socket is ready."""

    def __init__(self, world: World, side: Side, tcp: ModelTcp) -> None:
        super().__init__(world, side)
        self.tcp = tcp
        self._pending: deque[memoryview] = deque()
        self._shut_now = False

    @property
    def wants(self) -> bool:
        """Whether there is something to do now."""
        if self.closed or self.error is not None:
            return False
        if self.tcp.error is not None:
            return True
        can_read = self.depth > 0 and not self.end_of_stream and self.tcp.readable
        return can_read or (bool(self._pending) and self.tcp.writable)

    def run(self) -> None:
        """Do what can be done now, one turn of it."""
        now = self.world.clock.now
        try:
            if self.tcp.error is not None and (not self.depth or self.end_of_stream):
                raise self.tcp.error
            if self._pending and self.tcp.writable:
                taken = self.tcp.send(self._pending[0], now)
                self._pending[0] = self._pending[0][taken:]
                if not self._pending[0].nbytes:
                    self._pending.popleft()
            if self.depth and not self.end_of_stream and self.tcp.readable:
                buffer = memoryview(bytearray(self.size))
                count = self.tcp.receive_into(buffer, now)
                if count > 0:
                    self.got(buffer[:count])
                elif count == 0:
                    self.ended()
            if self._shut_now and not self._pending:
                self._shut_now = False
                self.tcp.shutdown(now)
        except OSError as error:
            self._pending.clear()
            self.failed(error)

    def _send(self, data: bytes) -> None:
        self._pending.append(memoryview(data))

    def read_on(self) -> None:
        """It reads in its turns."""

    def _shutdown(self) -> None:
        self._shut_now = True
        if not self._pending:
            self.run()

    def _abort(self) -> None:
        self._pending.clear()
        self.tcp.abort(self.world.clock.now)
        self.error = ConnectionAbortedError(errno.ECONNABORTED, "the application aborted the connection")

    def detach(self) -> None:
        if self.closed:
            return
        self._pending.clear()
        self.world.visit(self.side, "close")
        self.shut = self.closed = True
        self.world.breaks_off(self.side, "closes its socket")
        self.tcp.close(self.world.clock.now)

    @property
    def finished(self) -> bool:
        if self.closed or self.error is not None:
            return True
        return not self._pending and not self._shut_now and self.end_of_stream
