"""setsockopt and getsockopt: what the options mean to the engine."""

from chimney.packetdrill import engine_config
from chimney.packetdrill.calls import Failure, Function, Invocation, WrongValue, check_value, take_error
from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.expressions import SYMBOLS, describe, number
from chimney.packetdrill.host import Host, Socket
from chimney.packetdrill.nodes import Anything, Expression, Sequence, Structure, Text
from chimney.packetdrill.transfers import buffer_of

_SECOND = 1_000_000
_MILLISECOND = 1000
_MIN_RCVBUF = 2304
_MIN_SNDBUF = 4608
_SOCKET = SYMBOLS["SOL_SOCKET"]
_TCP = SYMBOLS["SOL_TCP"]
_IGNORED = {
    (_SOCKET, SYMBOLS[name])
    for name in ("SO_REUSEADDR", "SO_REUSEPORT", "SO_MARK", "SO_PRIORITY", "SO_OOBINLINE", "SO_BUSY_POLL",
                 "SO_ZEROCOPY", "SO_TIMESTAMP")
} | {(_TCP, SYMBOLS["TCP_SAVE_SYN"])} | {
    (level, SYMBOLS[name])
    for level in (SYMBOLS["SOL_IP"], SYMBOLS["SOL_IPV6"])
    for name in ("IP_TOS", "IP_TTL", "IP_FREEBIND", "IP_RECVERR", "IPV6_UNICAST_HOPS", "IPV6_TCLASS", "IPV6_V6ONLY",
                 "IP_MTU_DISCOVER", "IPV6_MTU_DISCOVER")
}  # fmt: skip
_UNLIMITED = (-1, 0xFFFFFFFF, (1 << 64) - 1)
_DEFAULT_ONLY = {
    (_SOCKET, SYMBOLS["SO_RCVTIMEO"]): (0,),
    (_SOCKET, SYMBOLS["SO_SNDTIMEO"]): (0,),
    (_SOCKET, SYMBOLS["SO_MAX_PACING_RATE"]): _UNLIMITED,
    (_TCP, SYMBOLS["TCP_THIN_LINEAR_TIMEOUTS"]): (0,),
    (_TCP, SYMBOLS["TCP_TX_DELAY"]): (0,),
    (_TCP, SYMBOLS["TCP_SYNCNT"]): (),
}
"""Options that would make a difference, with the values that make none."""
_ALGORITHMS = ("cubic", "reno")
_OTHER_ALGORITHMS = (
    "bbr", "bic", "cdg", "dctcp", "highspeed", "htcp", "hybla", "illinois", "lp", "nv", "scalable", "vegas", "veno",
    "westwood", "yeah",
)  # fmt: skip
"""Linux has them, the engine has not (net/ipv4/Kconfig)."""
_LONGEST_NAME = 16
_INTEGER = 4
_READABLE = {
    _SOCKET: ("SO_ERROR", "SO_SNDBUF", "SO_RCVBUF", "SO_KEEPALIVE", "SO_RCVLOWAT", "SO_TYPE", "SO_ACCEPTCONN"),
    _TCP: ("TCP_NODELAY", "TCP_CORK", "TCP_MAXSEG", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT",
           "TCP_WINDOW_CLAMP", "TCP_NOTSENT_LOWAT", "TCP_QUICKACK", "TCP_DEFER_ACCEPT"),
}  # fmt: skip
_NOT_HERE = {
    "TCP_MD5SIG": "MD5 signatures (RFC 2385)", "TCP_FASTOPEN": "fast open: opening a connection is the kernel's",
    "TCP_FASTOPEN_CONNECT": "fast open: opening a connection is the kernel's",
    "TCP_FASTOPEN_KEY": "fast open: opening a connection is the kernel's",
    "TCP_REPAIR": "TCP_REPAIR", "TCP_ZEROCOPY_RECEIVE": "zero-copy reception", "TCP_INQ": "control messages",
    "SO_TIMESTAMPING": "timestamps of packets in control messages",
}  # fmt: skip


def _setsockopt(call: Invocation) -> int:
    socket = call.socket()
    level, option = call.integer(1), call.integer(2)
    name = describe(call.argument(2))
    if name in _NOT_HERE:
        raise Unsupported(_NOT_HERE[name])
    if (level, option) == (_TCP, SYMBOLS["TCP_CONGESTION"]):
        _set_congestion(call, socket)
        return 0
    if (level, option) == (_SOCKET, SYMBOLS["SO_LINGER"]):
        socket.options.linger = _linger(call)
        return 0
    if isinstance(call.argument(3), Anything):
        raise Unsupported(f"setsockopt {name} without a value")
    value = _integer(call.argument(3))
    _check_size(call, level)
    if value not in _DEFAULT_ONLY.get((level, option), (value,)):
        raise Unsupported(f"setsockopt {name}")
    if level == _TCP:
        _set_tcp(call.host, socket, option, value, name)
    elif level == _SOCKET:
        _set_socket(call.host, socket, option, value, name)
    elif (level, option) not in _IGNORED:
        raise Unsupported(f"setsockopt {name}")
    socket.options.others[level, option] = value
    call.host.collect()
    return 0


def _integer(expression: Expression) -> int:
    """The value of an option; of a `struct timeval` its microseconds."""
    if not isinstance(expression, Structure):
        return number(expression)
    parts = {field: number(part) for field, part in expression.fields}
    if set(parts) != {"tv_sec", "tv_usec"}:
        raise ScriptError(f"a number or {{tv_sec=…, tv_usec=…}} is expected, not {describe(expression)}")
    return parts["tv_sec"] * _SECOND + parts["tv_usec"]


def _check_size(call: Invocation, level: int) -> None:
    """Raises Failure where the kernel has too few bytes for an int; options of IP may be one byte."""
    if level in (_TCP, _SOCKET) and call.is_given(4) and call.integer(4) < _INTEGER:
        raise Failure("EINVAL")


def _set_congestion(call: Invocation, socket: Socket) -> None:
    text = call.argument(3)
    if not isinstance(text, Text):
        raise ScriptError(f"TCP_CONGESTION is a name, not {describe(text)}")
    size = call.integer(4) if call.is_given(4) else len(text.value)
    name = text.value[: min(size, _LONGEST_NAME - 1)].rstrip("\0")
    if name in _OTHER_ALGORITHMS:
        raise Unsupported(f"congestion control by {name}")
    if name not in _ALGORITHMS:
        raise Failure("ENOENT")
    if socket.endpoint is not None and name != _congestion(call.host, socket):
        raise Unsupported("another congestion control for a connection that is there already")
    socket.options.congestion = name


def _congestion(host: Host, socket: Socket) -> str:
    """The algorithm that a socket has."""
    return socket.options.congestion or host.settings.congestion_control


def _linger(call: Invocation) -> int:
    value = call.argument(3)
    item = value.items[0] if isinstance(value, Sequence) and value.items else value
    if not isinstance(item, Structure):
        raise Unsupported("SO_LINGER without {onoff=…, linger=…}")
    on, seconds = item.get("onoff"), item.get("linger")
    return number(seconds) if on is not None and seconds is not None and number(on) else -1


def _set_socket(host: Host, socket: Socket, option: int, value: int, name: str) -> None:
    options = socket.options
    if option == SYMBOLS["SO_RCVBUF"]:
        options.rcvbuf = max(value, _MIN_RCVBUF // 2)
        _resize_window(host, socket)
    elif option == SYMBOLS["SO_SNDBUF"]:
        options.sndbuf = max(value, _MIN_SNDBUF // 2)
    elif option == SYMBOLS["SO_KEEPALIVE"]:
        options.keepalive = value != 0
        _apply_keepalive(host, socket)
    elif option == SYMBOLS["SO_RCVLOWAT"]:
        options.rcvlowat = max(value, 1)
    elif (_SOCKET, option) not in _IGNORED and (_SOCKET, option) not in _DEFAULT_ONLY:
        raise Unsupported(f"setsockopt {name}")


def _resize_window(host: Host, socket: Socket) -> None:
    connection = socket.endpoint.connection if socket.endpoint is not None else None
    if connection is not None and socket.endpoint is not None:
        connection.set_initial_rcv_wnd(engine_config.receive_space(host.settings, buffer_of(host, socket)))
        socket.endpoint.flush(host.now)


def _apply_keepalive(host: Host, socket: Socket) -> None:
    connection = socket.endpoint.connection if socket.endpoint is not None else None
    if connection is not None:
        idle, interval, probes = engine_config.keepalive(host.settings, socket.options)
        connection.set_keepalive(idle, interval, probes, host.now)


def _set_tcp(host: Host, socket: Socket, option: int, value: int, name: str) -> None:
    options = socket.options
    endpoint = socket.endpoint
    if option == SYMBOLS["TCP_NODELAY"]:
        options.nodelay = value != 0
        if endpoint is not None and endpoint.connection is not None:
            endpoint.connection.set_nagle(not options.nodelay)
            if options.nodelay:
                endpoint.uncork(host.now)
            endpoint.flush(host.now)
    elif option == SYMBOLS["TCP_CORK"]:
        options.cork = value != 0
        if endpoint is not None and endpoint.connection is not None and not options.cork:
            endpoint.uncork(host.now)
    elif option == SYMBOLS["TCP_MAXSEG"]:
        if not 88 <= value <= 32767:
            raise Failure("EINVAL")
        options.maxseg = value
    elif option == SYMBOLS["TCP_KEEPIDLE"]:
        options.keepidle_us = _positive(value) * _SECOND
        _apply_keepalive(host, socket)
    elif option == SYMBOLS["TCP_KEEPINTVL"]:
        options.keepintvl_us = _positive(value) * _SECOND
        _apply_keepalive(host, socket)
    elif option == SYMBOLS["TCP_KEEPCNT"]:
        options.keepcnt = _positive(value)
        _apply_keepalive(host, socket)
    elif option == SYMBOLS["TCP_USER_TIMEOUT"]:
        _set_user_timeout(socket, value * _MILLISECOND)
    elif option == SYMBOLS["TCP_WINDOW_CLAMP"]:
        options.window_clamp = value
    elif option == SYMBOLS["TCP_NOTSENT_LOWAT"]:
        options.notsent_lowat = value
    elif option == SYMBOLS["TCP_QUICKACK"]:
        options.quickack = value != 0
        if endpoint is not None and endpoint.connection is not None:
            endpoint.connection.set_quick_ack(options.quickack)
            endpoint.flush(host.now)
    elif option == SYMBOLS["TCP_DEFER_ACCEPT"]:
        if value > 0 and endpoint is None:
            raise Unsupported("TCP_DEFER_ACCEPT: opening a connection is the kernel's")
        options.defer_accept = value
    elif option == SYMBOLS["TCP_LINGER2"]:
        options.linger2_us = max(value, 0) * _SECOND
    elif (_TCP, option) not in _IGNORED and (_TCP, option) not in _DEFAULT_ONLY:
        raise Unsupported(f"setsockopt {name}")


def _positive(value: int) -> int:
    if not 1 <= value <= 32767:
        raise Failure("EINVAL")
    return value


def _set_user_timeout(socket: Socket, timeout: int) -> None:
    socket.options.user_timeout_us = timeout
    connection = socket.endpoint.connection if socket.endpoint is not None else None
    if connection is not None:
        connection.sender.timer.max_total = timeout


def _getsockopt(call: Invocation) -> int:
    socket = call.socket()
    level, option = call.integer(1), call.integer(2)
    name = describe(call.argument(2))
    if name in _NOT_HERE:
        raise Unsupported(_NOT_HERE[name])
    if (level, option) == (_TCP, SYMBOLS["TCP_CONGESTION"]):
        _check_congestion(call, socket)
        return 0
    _check_length(call, level)
    check_value(call.argument(3), _value(call.host, socket, level, option, name), name)
    return 0


def _check_congestion(call: Invocation, socket: Socket) -> None:
    """The name that is read, cut off where the script has no room for more."""
    expected = call.argument(3)
    if isinstance(expected, Anything):
        return
    if not isinstance(expected, Text):
        raise ScriptError(f"TCP_CONGESTION is a name, not {describe(expected)}")
    room = number(call.argument(4)) if call.is_given(4) else _LONGEST_NAME
    name = _congestion(call.host, socket)
    if expected.value[:room].rstrip("\0") != name[:room]:
        raise WrongValue(f"TCP_CONGESTION is {name} instead of {expected.value}")


def _check_length(call: Invocation, level: int) -> None:
    """Whether the script expects no more bytes than an int has, which is all that those options are."""
    if level in (_TCP, _SOCKET) and call.is_given(4) and (size := call.integer(4)) > _INTEGER:
        raise WrongValue(f"the length is {_INTEGER} instead of {size}")


def _value(host: Host, socket: Socket, level: int, option: int, name: str) -> int:
    """What getsockopt hands out."""
    names = {SYMBOLS[n]: n for n in _READABLE[level]} if level in _READABLE else {}
    if option in names:
        known = names[option]
        return _socket_value(host, socket, known) if level == _SOCKET else _tcp_value(host, socket, known)
    if (level, option) in socket.options.others:
        return socket.options.others[level, option]
    raise Unsupported(f"getsockopt {name}")


def _socket_value(host: Host, socket: Socket, name: str) -> int:
    options = socket.options
    if name == "SO_ERROR":
        return take_error(socket)
    if name == "SO_SNDBUF":
        if socket.endpoint is not None:
            return socket.endpoint.buffer.limit()
        return options.sndbuf * 2 or host.settings.wmem[1]
    values = {
        "SO_RCVBUF": buffer_of(host, socket),
        "SO_KEEPALIVE": int(options.keepalive),
        "SO_RCVLOWAT": options.rcvlowat,
        "SO_TYPE": SYMBOLS["SOCK_STREAM"],
        "SO_ACCEPTCONN": int(socket.listening),
    }
    return values[name]


def _tcp_value(host: Host, socket: Socket, name: str) -> int:
    options = socket.options
    settings = host.settings
    connection = socket.endpoint.connection if socket.endpoint is not None else None
    unconnected_mss = options.maxseg or 576 - engine_config.headers(socket.ipv6)
    values = {
        "TCP_NODELAY": int(options.nodelay),
        "TCP_CORK": int(options.cork),
        "TCP_MAXSEG": connection.mss if connection is not None else unconnected_mss,
        "TCP_KEEPIDLE": (options.keepidle_us or settings.keepalive_time_us) // _SECOND,
        "TCP_KEEPINTVL": (options.keepintvl_us or settings.keepalive_interval_us) // _SECOND,
        "TCP_KEEPCNT": options.keepcnt or settings.keepalive_probes,
        "TCP_USER_TIMEOUT": options.user_timeout_us // _MILLISECOND,
        "TCP_WINDOW_CLAMP": options.window_clamp or _largest_window(socket),
        "TCP_NOTSENT_LOWAT": options.notsent_lowat,
        "TCP_QUICKACK": int(options.quickack is not False),
        "TCP_DEFER_ACCEPT": options.defer_accept,
    }
    return values[name]


def _largest_window(socket: Socket) -> int:
    """What the window field can tell."""
    return engine_config.LARGEST_UNSCALED << socket.endpoint.agreed.rcv_wscale if socket.endpoint is not None else 0


OPTIONS: dict[str, Function] = {"setsockopt": _setsockopt, "getsockopt": _getsockopt}
