"""An application that makes any call in any order, and knows what each of them must do: the docstrings of
`chimney.stack` and `chimney.host.connection`, as a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from chimney.host.connection import Connection, Owner
from chimney.host.errors import ChimneyError, NotOffloadable
from chimney.host.linux.dump import FINS, TcpState
from chimney.host.requests import Request
from chimney.link.base import NEVER
from chimney.sim.application import ChimneyApplication, pattern
from chimney.sim.case import Case
from chimney.sim.invariants import Invariants
from chimney.sim.world import World

CALLBACK_CALLS = (
    "offload",
    "upload",
    "detach",
    "close",
    "abort",
    "shutdown",
    "send",
    "receive",
    "info",
    "poll",
    "recv",
    "sendall",
    "connection",
    "close the stack",
    "raise",
)
"""What a callback can do."""

_HAND_OVERS = ("offload", "upload", "detach", "close")
_BEFORE_THE_END = ("ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-2")


class CallbackFailure(BaseException):
    """What callbacks raise."""


class Posted:
    """A request. ``calls`` are made when it completes, one after the other."""

    def __init__(self, kind: str, buffer: bytes | bytearray, calls: tuple[str, ...]) -> None:
        self.kind = kind
        self.buffer = buffer
        self.calls = calls
        self.done = False
        # Those that complete before.
        self.behind: list[Posted] = []


class Attachment:
    """One `Connection`: from `Stack.connection` until it is detached.

    posted      all its requests.
    shut        whether `shutdown` has been called, ``aborted``: `abort`, ``let_go``: what gives it back.
    in_callbacks  hand-overs that callbacks have asked for, not yet carried out.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.posted: list[Posted] = []
        self.shut = False
        self.aborted = False
        self.let_go = False
        self.in_callbacks: list[str] = []

    @property
    def gone(self) -> bool:
        """Whether it has been given back."""
        return self.connection.owner is Owner.APPLICATION

    @property
    def pending(self) -> list[Posted]:
        """The requests that have not completed."""
        return [posted for posted in self.posted if not posted.done]


class AnyApplication(ChimneyApplication):
    """Side a's application.

    now       the connection that it has, or has had last; ``former`` are those before.
    raised    what callbacks have raised, and what has not come out yet.
    in_callback  whether one is running.
    well      whether nobody below has reasons to refuse an offload.
    promised  bytes of sends that are done; ``ended_half``: a shutdown is, without an error.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world, "a", world.connections["a"])
        self.stack = world.stacks["a"]
        self.sock = world.machines["a"].sock
        self.now = Attachment(self.connection)
        self.former: list[Attachment] = []
        self.raised: list[CallbackFailure] = []
        self.in_callback = False
        self.stack_closed = False
        self.well = True
        self.promised = 0
        self.ended_half = False

    # Calls, and what they must raise

    def call(
        self, act: Callable[[], object], *allowed: type[BaseException], polls: bool = False
    ) -> BaseException | None:
        """Make a call that is no callback's. Returns what it has raised, which must be ``allowed``, or None.

        ``polls``: it is a poll or a hand-over, which tells what callbacks have raised, and carries out what they have
        asked for.
        """
        if self.now.connection.hand_over_error is not None:
            # It tells why something that a callback has asked for was not carried out, in a turn before this call.
            self.now.in_callbacks = [asked for asked in self.now.in_callbacks if asked == "close"]
            self.now.connection.hand_over_error = None
        error: BaseException | None = None
        try:
            self.world.busily("a", act)  # type: ignore[arg-type]
        except BaseException as raised:
            error = raised
        self.world.machines["a"].flush()
        if error is not None and self._take_raised(error):
            error = None
        if error is not None and not isinstance(error, allowed):
            raise error
        if polls:
            # What has its own reason tells that, and the others come out the next time.
            assert error is not None or not self.raised, f"{self.raised} have not come out"
            self.check_carried_out()
        self.check_done()
        return error

    def tolerate(self, act: Callable[[], object]) -> None:
        """Let something happen that may be a turn of the process."""
        try:
            act()
        except BaseException as error:
            if not self._take_raised(error):
                raise
        self.check_done()

    def must_raise(self, act: Callable[[], object], kind: type[BaseException]) -> None:
        """A wrong call, at any time."""
        try:
            act()
        except kind:
            return
        raise AssertionError(f"{kind.__name__} was not raised")

    def _take_raised(self, error: BaseException) -> bool:
        """Whether ``error`` is what callbacks have raised; then it has come out."""
        parts = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
        if not all(part in self.raised for part in parts):
            return False
        for part in parts:
            self.raised.remove(cast(CallbackFailure, part))
        return True

    def check_carried_out(self) -> None:
        """What callbacks have asked for has been done, or why it was not is in ``hand_over_error``."""
        asked, self.now.in_callbacks = self.now.in_callbacks, []
        if "close" in asked:
            assert self.now.gone, "close in a callback was not carried out"
            assert self.sock.fileno() == -1, "close in a callback has left the socket open"
        elif "detach" in asked:
            assert self.now.gone or self.now.connection.hand_over_error is not None, "detach was not carried out"

    def check_done(self) -> None:
        """A connection that was given back has no request left."""
        if self.now.gone:
            assert self.now.let_go, "the connection was given back, and nobody has asked for it"
            left = [posted.kind for posted in self.now.pending]
            assert not left, f"{left} have not completed with the connection given back"

    # Requests

    def post(self, kind: str, size: int, calls: tuple[str, ...] = (), push: bool = True, form: Any = bytes) -> None:
        """Post one, or be refused as the docstrings say."""
        now, connection = self.now, self.now.connection
        if now.gone:
            refusal: type[BaseException] | None = ChimneyError
        elif kind == "send" and now.shut:
            refusal = BrokenPipeError
        elif kind == "shutdown" and now.shut:
            refusal = ChimneyError
        else:
            refusal = None
        data = self.next_bytes(size) if kind == "send" and refusal is None else b"x" * size
        posted = Posted(kind, bytearray(size) if kind == "receive" else data, calls)

        def act() -> Request:
            if kind == "send":
                return connection.post_send(form(data), lambda request: self._completed(now, posted, request))
            if kind == "receive":
                buffer = memoryview(cast(bytearray, posted.buffer)) if form is memoryview else posted.buffer
                return connection.post_receive(
                    cast(Any, buffer), lambda request: self._completed(now, posted, request), push=push
                )
            return connection.shutdown(lambda request: self._completed(now, posted, request))

        if refusal is not None:
            self.must_raise(act, refusal)
            return
        posted.behind = [one for one in now.pending if one.kind == kind or (kind == "shutdown" and one.kind == "send")]
        now.posted.append(posted)
        if kind == "send":
            self.sends.append(cast(Any, posted))
        elif kind == "receive":
            self.receives.append(cast(Any, posted))
        else:
            now.shut = self.shut = True
        if self.in_callback:
            act()
        else:
            self.call(act)

    def _completed(self, attachment: Attachment, posted: Posted, request: Request) -> None:
        world = self.world
        if self.in_callback:
            # It has completed while another one's callback posted something, or ended the connection.
            world.note("a", "app", f"a {posted.kind} completes inside a callback")
        if posted.done:
            world.broken("completion", f"a {posted.kind} has completed twice")
        posted.done = True
        if any(not one.done for one in posted.behind):
            world.broken("completion", f"a {posted.kind} has completed before what was posted before it")
        if not request.done:
            world.broken("completion", "a callback runs, and its request is not done")
        if posted.kind == "send":
            self.sends.remove(cast(Any, posted))
        elif posted.kind == "receive":
            self.receives.remove(cast(Any, posted))
        else:
            self.shutdown_done = True
            self.ended_half |= request.error is None
        self._check_result(attachment, posted, request)
        inside, self.in_callback = self.in_callback, True
        try:
            for call in posted.calls:
                self._call_in_callback(attachment, call)
        finally:
            self.in_callback = inside

    def _check_result(self, attachment: Attachment, posted: Posted, request: Request) -> None:
        count, error = request.bytes_transferred, request.error
        if posted.kind == "receive":
            if count:
                if self.end_of_stream:
                    self.world.broken("streams", "bytes behind the end of the stream")
                self.got(memoryview(cast(bytearray, posted.buffer))[:count])
                if error is not None:
                    self.world.broken("completion", f"a receive has {count} bytes and an error: {error!r}")
            elif error is None:
                self.ended()
        elif posted.kind == "send" and error is None and count != len(posted.buffer):
            self.world.broken("completion", f"a send of {len(posted.buffer)} bytes ended well with {count}")
        if error is not None:
            self._check_error(attachment, posted, error)
        elif posted.kind == "send":
            self.promised += count

    def _check_error(self, attachment: Attachment, posted: Posted, error: OSError) -> None:
        self.world.note("a", "app", f"a {posted.kind} has failed: {error!r}")
        allowed: tuple[type[OSError], ...] = ()
        if (attachment.aborted or attachment.let_go) and self.peer_is_there:
            allowed = (ConnectionAbortedError,)
        elif self.world.broken_off:
            allowed = (OSError,)
        if not isinstance(error, allowed):
            self.world.broken("completion", f"a {posted.kind} has failed, and should not, or not so: {error!r}")
        if posted.kind == "send" and attachment.let_go:
            self.world.breaks_off("a", "has given back its connection with a send that is not done")

    @property
    def aborted(self) -> bool:
        """Whether `abort` has been called."""
        return any(attachment.aborted for attachment in (*self.former, self.now))

    @property
    def peer_is_there(self) -> bool:
        """Whether side b has done nothing that ends the connection."""
        return not any(why.startswith("b ") for why in self.world.broken_off)

    # In callbacks

    def _call_in_callback(self, attachment: Attachment, name: str) -> None:
        connection = attachment.connection
        match name:
            case "raise":
                failure = CallbackFailure(f"number {len(self.raised)}")
                self.raised.append(failure)
                raise failure
            case "send" | "receive" | "shutdown":
                if attachment is self.now:
                    self.post(name, 700)
            case "info":
                connection.info()
            case "poll":
                self.must_raise(lambda: self.stack.poll(0.0), ChimneyError)
            case "recv":
                self.must_raise(lambda: connection.recv(100), ChimneyError)
            case "sendall":
                self.must_raise(lambda: connection.sendall(b"never sent"), ChimneyError)
            case "connection":
                if not attachment.gone:
                    self.must_raise(lambda: self.stack.connection(cast(Any, self.sock)), ChimneyError)
            case "close the stack":
                self.must_raise(self.stack.close, ChimneyError)
            case "abort":
                self.abort_now(attachment)
            case _:
                self._hand_over_in_callback(attachment, name)

    def _hand_over_in_callback(self, attachment: Attachment, name: str) -> None:
        """They are carried out later, whatever they are."""
        connection = attachment.connection
        act: Callable[[], None] = getattr(connection, name)
        if attachment.gone and name != "close":
            self.must_raise(act, ChimneyError)
            return
        if name in ("detach", "close"):
            attachment.let_go = True
        if name == "close":
            self.closing()
        before = connection.owner
        act()
        if not attachment.gone:
            attachment.in_callbacks.append(name)
            if connection.owner is not before:
                self.world.broken("callback", f"{name} was carried out inside a callback")

    # Calls that are no requests

    def closing(self) -> None:
        """The socket is going to be closed."""
        if not self.closed:
            self.closed = self.shut = True
            self.world.breaks_off("a", "closes its socket")

    def abort_now(self, attachment: Attachment) -> None:
        """Abort, from wherever."""
        if attachment.gone:
            self.must_raise(attachment.connection.abort, ChimneyError)
            return
        attachment.aborted = True
        self.world.breaks_off("a", "aborts")
        if self.in_callback:
            attachment.connection.abort()
            attachment.in_callbacks.append("abort")
        else:
            before = attachment.pending
            self.call(attachment.connection.abort, polls=True)
            assert all(posted.done for posted in before), "abort has left requests"

    def offload_now(self) -> None:
        """Offload: it must work, if nothing speaks against it."""
        connection = self.now.connection
        if self.now.gone:
            self.must_raise(connection.offload, ChimneyError)
            return
        machine, fine = self.world.machines["a"], not self.world.broken_off
        state = machine.state
        before, offloads = connection.owner, connection.info().offloads
        error = self.call(connection.offload, NotOffloadable, polls=True)
        if error is None:
            done = connection.info().offloads - offloads
            assert done == (before is Owner.KERNEL) or self.now.gone, "offload has not raised, and has done nothing"
        else:
            assert connection.owner in (Owner.KERNEL, Owner.APPLICATION)
            # It may come to its end while the hand-over is under way.
            lasts = state in _BEFORE_THE_END and machine.state in _BEFORE_THE_END
            assert not (fine and lasts and self.well), f"offload in {state}: {error}"

    def upload_now(self) -> None:
        """Upload: it must always work."""
        connection = self.now.connection
        if self.now.gone:
            self.must_raise(connection.upload, ChimneyError)
            return
        self.call(connection.upload, polls=True)
        assert not connection.offloaded or connection.info().offloads

    def detach_now(self) -> None:
        """Detach: it must work if no sends are pending, and be refused if there are."""
        connection = self.now.connection
        if self.now.gone:
            self.must_raise(connection.detach, ChimneyError)
            return
        pending = any(posted.kind == "send" for posted in self.now.pending)
        self.now.let_go = True
        error = self.call(connection.detach, ChimneyError, polls=True)
        assert (error is None) == self.now.gone or self.now.gone
        if error is not None:
            assert pending, f"{error}, and there are none"

    def close_now(self) -> None:
        """Close: it always works, and as often as one likes."""
        self.now.let_go = True
        self.closing()
        self.call(self.now.connection.close, polls=True)
        assert self.now.gone
        assert self.sock.fileno() == -1

    def attach_again(self) -> None:
        """Make a connection of the socket; refused while there is one, and when the socket or the stack is closed."""
        tcp = self.sock.tcp
        no_socket = self.sock.fileno() == -1 or tcp is None or tcp.state is TcpState.CLOSE
        if not self.now.gone or self.stack_closed or no_socket:
            self.must_raise(lambda: self.stack.connection(cast(Any, self.sock)), ChimneyError)
            return
        self.former.append(self.now)
        self.connection = self.stack.connection(cast(Any, self.sock))
        self.world.connections["a"] = self.connection
        self.now = Attachment(self.connection)
        # What a former one has ended stays ended; of a shutdown that has failed only the kernel knows.
        self.now.shut = FINS[tcp.state][0]
        assert self.now.shut or not self.ended_half, f"the sending half was closed, and is open in {tcp.state.name}"

    def close_stack(self) -> None:
        """Close the stack: everything comes back, the socket stays."""
        if not self.stack_closed:
            self.now.let_go = True
        self.stack_closed = True
        self.call(self.stack.close, polls=True)
        assert self.now.gone

    def next_bytes(self, size: int) -> bytes:
        """The next bytes of the stream, which now count as given away."""
        data = pattern("a", self.posted, size)
        self.posted += size
        return data

    # On the bare socket

    def read_socket(self, size: int) -> int:
        """Read what a detached socket has; returns how much."""
        tcp = self.sock.tcp
        assert tcp is not None
        buffer = memoryview(bytearray(size))
        try:
            count = tcp.receive_into(buffer, self.world.clock.now)
        except OSError as error:
            self.failed(error)
            return 0
        if count > 0:
            self.got(buffer[:count])
        elif count == 0:
            self.ended()
        self.world.machines["a"].flush()
        return max(count, 0)

    # For the world

    def heal(self) -> None:
        """Nothing: it does what it is told."""

    @property
    def finished(self) -> bool:
        return not self.now.pending


def any_world(case: Case, note_to: Any = None) -> tuple[World, AnyApplication]:
    """A world whose side a makes any call in any order; nothing happens in it by itself but `World.step`."""
    world = World(case, note_to)
    application = AnyApplication(world)
    world.applications["a"] = application
    world.invariants = Invariants(world)
    assert case.grace_us >= NEVER >> 1, "everybody behaves when the machine says so"
    return world, application
