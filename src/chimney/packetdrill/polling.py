"""poll and epoll: what a socket is ready for."""

from dataclasses import dataclass, field

from chimney.packetdrill.calls import Failure, Function, Invocation, WrongValue
from chimney.packetdrill.endpoint import Phase
from chimney.packetdrill.errors import ScriptError
from chimney.packetdrill.expressions import SYMBOLS, describe, number
from chimney.packetdrill.host import Host, Socket
from chimney.packetdrill.nodes import Expression, Sequence, Structure

_IN, _OUT, _ERR, _HUP, _RDHUP = (SYMBOLS[f"POLL{name}"] for name in ("IN", "OUT", "ERR", "HUP", "RDHUP"))
_NVAL = SYMBOLS["POLLNVAL"]
_ALWAYS = _ERR | _HUP
_EDGE = SYMBOLS["EPOLLET"]
_ONE_SHOT = SYMBOLS["EPOLLONESHOT"]
_NORMAL = {_IN: SYMBOLS["POLLRDNORM"], _OUT: SYMBOLS["POLLWRNORM"]}


def readiness(host: Host, socket: Socket) -> int:
    """The poll bits of a socket, as Linux sets them for TCP."""
    endpoint = socket.endpoint
    if socket.listening:
        return _in(any(e.connection is not None for e in socket.backlog))
    if endpoint is None:
        return _out() | _HUP
    if endpoint.phase is Phase.OPENING:
        return 0
    closed = endpoint.phase is Phase.CLOSED
    read_over = endpoint.read_shut or endpoint.fin_received
    bits = 0
    if closed or (read_over and endpoint.write_shut):
        bits |= _HUP
    if closed or read_over:
        bits |= _in(True) | _RDHUP
    if len(endpoint.unread) >= endpoint.options.rcvlowat:
        bits |= _in(True)
    if endpoint.write_shut or closed or endpoint.is_writable():
        bits |= _out()
    if endpoint.error:
        bits |= _ERR
    return bits


def _in(ready: bool) -> int:
    return _IN | _NORMAL[_IN] if ready else 0


def _out() -> int:
    return _OUT | _NORMAL[_OUT]


def _poll(call: Invocation) -> int:
    wanted = call.argument(0)
    if not isinstance(wanted, Sequence):
        raise ScriptError("poll() wants [{fd=…, events=…, revents=…}]")
    found = [_poll_one(call.host, item) for item in wanted.items]
    count = sum(1 for seen, _ in found if seen)
    timeout = call.integer(2)
    if count == 0 and not call.has_waited(timeout):
        raise call.wait_for(timeout)
    for seen, expected in found:
        if seen != expected:
            raise WrongValue(f"revents is {seen:#x} instead of {expected:#x}")
    return count


def _poll_one(host: Host, item: Expression) -> tuple[int, int]:
    """What poll reports for one descriptor, and what the script expects."""
    if not isinstance(item, Structure):
        raise ScriptError("poll() wants {fd=…, events=…, revents=…}")
    expected = item.get("revents")
    events = _number_in(item, "events")
    thing = host.descriptors.get(_number_in(item, "fd"))
    bits = readiness(host, thing) & (events | _ALWAYS) if isinstance(thing, Socket) else _NVAL
    return bits, number(expected) if expected is not None else 0


def _number_in(item: Structure, name: str) -> int:
    """A field that has to be there."""
    value = item.get(name)
    if value is None:
        raise ScriptError(f"{describe(item)} has no {name}")
    return number(value)


@dataclass
class Interest:
    """One descriptor in an epoll set. seen: the activity of the connection when it was reported last."""

    socket: Socket
    events: int
    data: int
    seen: int = -1
    reported: int = 0
    disabled: bool = False


@dataclass
class Epoll:
    """An epoll descriptor."""

    interests: dict[int, Interest] = field(default_factory=dict)


def _epoll_create(call: Invocation) -> int:
    return call.host.descriptor(Epoll(), call.wanted_descriptor())


def _epoll(call: Invocation) -> Epoll:
    found = call.thing()
    if not isinstance(found, Epoll):
        raise Failure("EINVAL")
    return found


def _epoll_ctl(call: Invocation) -> int:
    epoll = _epoll(call)
    operation = call.integer(1)
    descriptor = call.integer(2)
    socket = call.socket(2)
    if operation == SYMBOLS["EPOLL_CTL_DEL"]:
        if epoll.interests.pop(descriptor, None) is None:
            raise Failure("ENOENT")
        return 0
    known = descriptor in epoll.interests
    if known == (operation == SYMBOLS["EPOLL_CTL_ADD"]):
        raise Failure("EEXIST" if known else "ENOENT")
    events, data = _event(call.argument(3))
    epoll.interests[descriptor] = Interest(socket, events, data)
    return 0


def _event(value: Expression) -> tuple[int, int]:
    if not isinstance(value, Structure):
        raise ScriptError("an epoll event is {events=…, fd=…}")
    data = next((v for k, v in value.fields if k in ("fd", "ptr", "u32", "u64")), None)
    return _number_in(value, "events"), number(data) if data is not None else 0


def _epoll_wait(call: Invocation) -> int:
    epoll = _epoll(call)
    ready = [(i, bits) for i in epoll.interests.values() if (bits := _ready(call.host, i))]
    timeout = call.integer(3)
    if not ready and not call.has_waited(timeout):
        raise call.wait_for(timeout)
    expected = call.argument(1)
    items = expected.items if isinstance(expected, Sequence) else (expected,)
    for (interest, bits), item in zip(ready, items, strict=False):
        _report(interest, bits)
        if isinstance(item, Structure) and _event(item) != (bits, interest.data):
            events, data = _event(item)
            raise WrongValue(f"reports {bits:#x} for {interest.data} instead of {events:#x} for {data}")
    return min(len(ready), call.integer(2))


def _ready(host: Host, interest: Interest) -> int:
    if interest.disabled:
        return 0
    bits = readiness(host, interest.socket) & (interest.events & 0xFFFFFF | _ALWAYS)
    activity = interest.socket.endpoint.activity if interest.socket.endpoint is not None else 0
    if interest.events & _EDGE and interest.seen == activity and not bits & ~interest.reported:
        return 0
    return bits


def _report(interest: Interest, bits: int) -> None:
    interest.seen = interest.socket.endpoint.activity if interest.socket.endpoint is not None else 0
    interest.reported = bits
    interest.disabled = interest.events & _ONE_SHOT != 0


POLLING: dict[str, Function] = {
    "poll": _poll,
    "epoll_create": _epoll_create,
    "epoll_create1": _epoll_create,
    "epoll_ctl": _epoll_ctl,
    "epoll_wait": _epoll_wait,
}
