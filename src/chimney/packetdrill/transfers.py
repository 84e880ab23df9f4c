"""The socket calls that read and write: read, readv, recv, recvfrom, recvmsg, write, writev, send, sendto, sendmsg."""

from chimney.packetdrill.calls import Failure, Function, Invocation, is_over, raise_pending
from chimney.packetdrill.endpoint import Endpoint, Phase
from chimney.packetdrill.engine_config import receive_buffer
from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.expressions import SYMBOLS, number
from chimney.packetdrill.host import Host, Socket
from chimney.packetdrill.nodes import Expression, Name, Sequence, Structure

_DONTWAIT = SYMBOLS["MSG_DONTWAIT"]
_PEEK = SYMBOLS["MSG_PEEK"]
_MORE = SYMBOLS["MSG_MORE"]
_EOR = SYMBOLS["MSG_EOR"]
_WAITALL = SYMBOLS["MSG_WAITALL"]
_READ_FLAGS = _DONTWAIT | _PEEK | _WAITALL | SYMBOLS["MSG_NOSIGNAL"] | SYMBOLS["MSG_TRUNC"]
_WRITE_FLAGS = _DONTWAIT | _MORE | _EOR | SYMBOLS["MSG_NOSIGNAL"]


# Reading.


def _read_into(call: Invocation, length: int, flags: int) -> int:
    if flags & ~_READ_FLAGS:
        raise Unsupported(f"reading with flags {flags & ~_READ_FLAGS:#x}")
    socket = call.socket()
    endpoint = socket.endpoint
    if endpoint is None:
        raise Failure("ENOTCONN")
    wanted = length if flags & _WAITALL else 1
    if endpoint.unread and (len(endpoint.unread) >= min(wanted, length) or is_over(endpoint)):
        count = endpoint.read(length, call.host.now, peek=flags & _PEEK != 0)
        call.host.collect()
        return count
    if endpoint.error and not endpoint.fin_received:
        raise_pending(socket)
    if is_over(endpoint) or length == 0:
        return 0
    if flags & _DONTWAIT:
        raise Failure("EAGAIN")
    if endpoint.connection is None and endpoint.phase is not Phase.OPENING:
        raise Failure("ENOTCONN")
    raise call.block(socket)


def _length(call: Invocation, index: int) -> int:
    if isinstance(buffer := call.argument(index - 1), Name) and buffer.value == "NULL":
        raise Failure("EFAULT")
    return call.integer(index)


def _read(call: Invocation) -> int:
    return _read_into(call, _length(call, 2), 0)


def _recv(call: Invocation) -> int:
    return _read_into(call, _length(call, 2), call.integer(3))


def _readv(call: Invocation) -> int:
    return _read_into(call, _vector_length(call.argument(1)), 0)


def _recvmsg(call: Invocation) -> int:
    return _read_into(call, _message_length(call), call.integer(2))


def _vector_length(vector: Expression) -> int:
    """The bytes of `[{..., 100}, {..., 50}]`."""
    if not isinstance(vector, Sequence):
        raise ScriptError("a list of buffers is expected")
    total = 0
    for item in vector.items:
        if not isinstance(item, Structure) or len(item.fields) != 2:
            raise ScriptError("a buffer is {address, length}")
        total += number(item.fields[1][1])
    return total


def _message_length(call: Invocation) -> int:
    message = call.argument(1)
    if not isinstance(message, Structure):
        raise ScriptError("a message is {msg_name(...)=…, msg_iov(1)=…, msg_flags=…}")
    control = message.get("msg_control")
    if isinstance(control, Sequence) and control.items:
        raise Unsupported("control messages")
    vector = message.get("msg_iov")
    return _vector_length(vector) if vector is not None else 0


# Writing.


def _write_from(call: Invocation, length: int, flags: int) -> int:
    if flags & ~_WRITE_FLAGS:
        raise Unsupported(f"writing with {_flag_names(flags & ~_WRITE_FLAGS)}")
    socket = call.socket()
    endpoint = _writable(socket)
    host = call.host
    while call.done < length:
        if endpoint.phase is Phase.CLOSED or endpoint.write_shut:
            if call.done:
                return call.done
            _writable(socket)
        room = endpoint.room()
        if room <= 0:
            endpoint.starve()
            if call.done and (socket.nonblocking or flags & _DONTWAIT):
                return call.done
            if flags & _DONTWAIT:
                raise Failure("EAGAIN")
            raise call.block(socket)
        count = min(length - call.done, room)
        call.done += count
        last = call.done == length
        endpoint.write(count, host.now, last=last, more=flags & _MORE != 0, record=flags & _EOR != 0)
        host.collect()
    return call.done


def _flag_names(flags: int) -> str:
    names = [name for name, value in SYMBOLS.items() if name.startswith("MSG_") and value & flags]
    return "|".join(names) or hex(flags)


def _writable(socket: Socket) -> Endpoint:
    endpoint = socket.endpoint
    if endpoint is None:
        raise Failure("EPIPE")
    raise_pending(socket)
    if endpoint.phase is Phase.CLOSED or endpoint.write_shut:
        raise Failure("EPIPE")
    return endpoint


def _write(call: Invocation) -> int:
    return _write_from(call, _length(call, 2), 0)


def _writev(call: Invocation) -> int:
    return _write_from(call, _vector_length(call.argument(1)), 0)


def _send(call: Invocation) -> int:
    return _write_from(call, _length(call, 2), call.integer(3))


def _sendmsg(call: Invocation) -> int:
    return _write_from(call, _message_length(call), call.integer(2))


def buffer_of(host: Host, socket: Socket) -> int:
    """SO_RCVBUF."""
    return receive_buffer(host.settings, socket.options)


TRANSFERS: dict[str, Function] = {
    "read": _read,
    "readv": _readv,
    "recv": _recv,
    "recvfrom": _recv,
    "recvmsg": _recvmsg,
    "write": _write,
    "writev": _writev,
    "send": _send,
    "sendto": _send,
    "sendmsg": _sendmsg,
}
