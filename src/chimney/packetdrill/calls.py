"""The socket calls that open, close and look: a table by name. Reading and writing is in transfers.py.

A call is a function of the host, its arguments and the result that the script expects. It returns a number, or raises
Failure with an errno, or Blocked: then it is tried again whenever something has happened.
"""

from collections.abc import Callable

from chimney.packetdrill.endpoint import Endpoint, Phase
from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.expressions import ERRNO, SYMBOLS, number
from chimney.packetdrill.host import Host, Socket
from chimney.packetdrill.mapping import LOCAL_ISN
from chimney.packetdrill.nodes import Anything, Expression, Number, Sequence, SocketCall
from chimney.tcp import NEVER

_O_NONBLOCK = SYMBOLS["O_NONBLOCK"]
_MILLISECOND = 1000
_O_RDWR = SYMBOLS["O_RDWR"]


class Failure(Exception):
    """A call fails with this errno."""

    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.number = ERRNO[errno]


class Blocked(Exception):
    """A call cannot go on now."""


class Invocation:
    """A call under way: what it was called with, and what it keeps from one try to the next."""

    def __init__(self, host: Host, call: SocketCall) -> None:
        self.host = host
        self.call = call
        self.done = 0
        self.started = host.now
        self.timeout = 0
        self._has_timeout = False

    def wait_for(self, milliseconds: int) -> Blocked:
        """What to raise where a call waits; it is tried again at its time-out, too. Negative: it has none."""
        self._has_timeout = milliseconds >= 0
        self.timeout = max(milliseconds, 0) * _MILLISECOND
        return Blocked()

    def has_waited(self, milliseconds: int) -> bool:
        """Whether a call that may wait for that long has done so."""
        return 0 <= milliseconds * _MILLISECOND <= self.host.now - self.started

    def deadline(self) -> int:
        """When it gives up by itself."""
        return self.started + self.timeout if self._has_timeout else NEVER

    def argument(self, index: int) -> Expression:
        """One argument. Raises ScriptError if there are fewer."""
        if index >= len(self.call.arguments):
            raise ScriptError(f"{self.call.name}() has too few arguments")
        return self.call.arguments[index]

    def integer(self, index: int) -> int:
        """One argument that is a number."""
        return number(self.argument(index))

    def is_given(self, index: int) -> bool:
        """Whether there is such an argument, and the script says what it is."""
        return index < len(self.call.arguments) and not isinstance(self.call.arguments[index], Anything)

    def thing(self, index: int = 0) -> object:
        """What the descriptor in that argument stands for. Raises Failure(EBADF)."""
        found = self.host.descriptors.get(self.integer(index))
        if found is None:
            raise Failure("EBADF")
        return found

    def socket(self, index: int = 0) -> Socket:
        """The same, which has to be a socket."""
        found = self.thing(index)
        if not isinstance(found, Socket):
            raise Failure("ENOTSOCK")
        return found

    def block(self, socket: Socket, errno: str = "EAGAIN") -> Exception:
        """What to raise where a call cannot go on."""
        return Failure(errno) if socket.nonblocking else Blocked()

    def wanted_descriptor(self) -> int | None:
        """The descriptor that the script expects as the result."""
        return self.call.result.value if isinstance(self.call.result, Number) else None


Function = Callable[[Invocation], int]


def _socket(call: Invocation) -> int:
    family = call.argument(0)
    ipv6 = call.host.ipv6 if isinstance(family, Anything) else number(family) == SYMBOLS["AF_INET6"]
    kind = call.integer(1)
    if kind & 0xF != SYMBOLS["SOCK_STREAM"]:
        raise Unsupported("sockets that are not SOCK_STREAM")
    if call.is_given(2) and call.integer(2) not in (0, 6):
        raise Unsupported("a protocol that is not TCP")
    socket = Socket(ipv6)
    socket.nonblocking = kind & SYMBOLS["SOCK_NONBLOCK"] != 0
    return call.host.descriptor(socket, call.wanted_descriptor())


def _bind(call: Invocation) -> int:
    call.socket().bound = True
    return 0


def _listen(call: Invocation) -> int:
    socket = call.socket()
    if socket.endpoint is not None and socket.endpoint.phase is not Phase.CLOSED:
        raise Failure("EINVAL")
    socket.listening = True
    call.host.under_test = socket
    return 0


def _accept(call: Invocation) -> int:
    listener = call.socket()
    if not listener.listening:
        raise Failure("EINVAL")
    ready = next((e for e in listener.backlog if e.connection is not None), None)
    if ready is None:
        raise call.block(listener)
    listener.backlog.remove(ready)
    socket = Socket(listener.ipv6)
    socket.options = ready.options
    socket.endpoint = ready
    socket.connect_reported = True
    if len(call.call.arguments) > 3 and call.integer(3) & SYMBOLS["SOCK_NONBLOCK"]:
        socket.nonblocking = True
    return call.host.descriptor(socket, call.wanted_descriptor())


def _connect(call: Invocation) -> int:
    socket = call.socket()
    endpoint = socket.endpoint
    if socket.listening:
        raise Failure("EISCONN")
    if endpoint is None:
        endpoint = Endpoint(call.host.settings, socket.options, socket.ipv6, LOCAL_ISN)
        socket.endpoint = endpoint
        call.host.add(endpoint)
        endpoint.connect(call.host.now)
        call.done = 1
        if socket.nonblocking:
            raise Failure("EINPROGRESS")
        raise Blocked
    if endpoint.connection is not None:
        if socket.connect_reported:
            raise Failure("EISCONN")
        socket.connect_reported = True
        return 0
    if endpoint.phase is Phase.CLOSED:
        error = _take_error(socket) or ERRNO["ECONNABORTED"]
        socket.endpoint = None
        raise Failure(_name(error))
    if call.done == 0 and socket.nonblocking:
        raise Failure("EALREADY")
    raise Blocked


def _close(call: Invocation) -> int:
    descriptor = call.integer(0)
    thing = call.thing()
    del call.host.descriptors[descriptor]
    if isinstance(thing, Socket) and thing not in call.host.descriptors.values():
        close_socket(call.host, thing)
    return 0


def close_socket(host: Host, socket: Socket) -> None:
    """The last descriptor of a socket is gone."""
    socket.listening = False
    for waiting in socket.backlog:
        if waiting.connection is not None:
            waiting.abort(host.now)
        else:
            waiting.phase = Phase.CLOSED
    if socket.endpoint is not None:
        socket.endpoint.close(host.now)
    host.collect()


def _shutdown(call: Invocation) -> int:
    socket = call.socket()
    how = call.integer(1)
    endpoint = socket.endpoint
    if not 0 <= how <= 2:
        raise Failure("EINVAL")
    if endpoint is None or endpoint.phase is Phase.CLOSED:
        raise Failure("ENOTCONN")
    if how in (SYMBOLS["SHUT_RD"], SYMBOLS["SHUT_RDWR"]):
        endpoint.read_shut = True
        endpoint.activity += 1
    if how in (SYMBOLS["SHUT_WR"], SYMBOLS["SHUT_RDWR"]):
        endpoint.shut_down_writing(call.host.now)
        call.host.collect()
    return 0


def _fcntl(call: Invocation) -> int:
    socket = call.socket()
    command = call.integer(1)
    if command == SYMBOLS["F_GETFL"]:
        return _O_RDWR | (_O_NONBLOCK if socket.nonblocking else 0)
    if command == SYMBOLS["F_SETFL"]:
        socket.nonblocking = call.integer(2) & _O_NONBLOCK != 0
        return 0
    raise Unsupported(f"fcntl {command}")


def _ioctl(call: Invocation) -> int:
    socket = call.socket()
    command = call.integer(1)
    endpoint = socket.endpoint
    if socket.listening:
        raise Failure("EINVAL")
    if command == SYMBOLS["SIOCINQ"]:
        value = len(endpoint.unread) if endpoint is not None else 0
    elif command == SYMBOLS["SIOCOUTQ"]:
        value = endpoint.unacked() if endpoint is not None else 0
    elif command == SYMBOLS["SIOCOUTQNSD"]:
        value = endpoint.unsent() if endpoint is not None else 0
    else:
        raise Unsupported(f"ioctl {command:#x}")
    check_value(call.argument(2), value, "the value")
    return 0


def check_value(expected: Expression, value: int, what: str) -> None:
    """A value that a call hands out, `[value]` in the script."""
    if isinstance(expected, Anything):
        return
    item = expected.items[0] if isinstance(expected, Sequence) and expected.items else expected
    if not isinstance(item, Anything) and number(item) != value:
        raise WrongValue(f"{what} is {value} instead of {number(item)}")


class WrongValue(Exception):
    """A call hands out another value than the script expects."""


def take_error(socket: Socket) -> int:
    """SO_ERROR: the error is told once."""
    return _take_error(socket)


def _take_error(socket: Socket) -> int:
    if socket.endpoint is None:
        return 0
    error = socket.endpoint.error
    socket.endpoint.error = 0
    return error


def _name(error: int) -> str:
    return next(name for name, value in ERRNO.items() if value == error)


def raise_pending(socket: Socket) -> None:
    """Raises Failure with the error that the connection died of, if nobody was told yet."""
    if error := _take_error(socket):
        raise Failure(_name(error))


def is_over(endpoint: Endpoint) -> bool:
    """Whether nothing more will come from the peer."""
    return endpoint.fin_received or endpoint.read_shut or endpoint.phase is Phase.CLOSED


OPENING: dict[str, Function] = {
    "socket": _socket,
    "bind": _bind,
    "listen": _listen,
    "accept": _accept,
    "accept4": _accept,
    "connect": _connect,
    "close": _close,
    "shutdown": _shutdown,
    "fcntl": _fcntl,
    "ioctl": _ioctl,
}
