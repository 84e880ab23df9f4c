"""What the symbols and expressions of a script stand for. The numbers are those of Linux."""

import errno as _errno

from chimney.packetdrill import foreign
from chimney.packetdrill.errors import ScriptError, Unsupported
from chimney.packetdrill.nodes import Either, Expression, Name, Number, Sequence, Structure, Text

_SOL = {"SOL_SOCKET": 1, "SOL_IP": 0, "IPPROTO_IP": 0, "SOL_TCP": 6, "IPPROTO_TCP": 6, "SOL_IPV6": 41,
        "IPPROTO_IPV6": 41, "IPPROTO_UDP": 17, "IPPROTO_ICMP": 1, "IPPROTO_ICMPV6": 58}  # fmt: skip
_SOCKET = {"AF_INET": 2, "AF_INET6": 10, "PF_INET": 2, "PF_INET6": 10, "AF_UNSPEC": 0, "SOCK_STREAM": 1,
           "SOCK_DGRAM": 2, "SOCK_NONBLOCK": 0o4000, "SOCK_CLOEXEC": 0o2000000,
           "SO_REUSEADDR": 2, "SO_TYPE": 3, "SO_ERROR": 4, "SO_SNDBUF": 7, "SO_RCVBUF": 8, "SO_KEEPALIVE": 9,
           "SO_OOBINLINE": 10, "SO_PRIORITY": 12, "SO_LINGER": 13, "SO_REUSEPORT": 15, "SO_RCVLOWAT": 18,
           "SO_SNDLOWAT": 19, "SO_RCVTIMEO": 20, "SO_SNDTIMEO": 21, "SO_TIMESTAMP": 29, "SO_ACCEPTCONN": 30,
           "SO_SNDBUFFORCE": 32, "SO_RCVBUFFORCE": 33, "SO_MARK": 36, "SO_TIMESTAMPING": 37,
           "SO_BUSY_POLL": 46, "SO_MAX_PACING_RATE": 47, "SO_INCOMING_NAPI_ID": 56,
           "SO_ZEROCOPY": 60, "SHUT_RD": 0, "SHUT_WR": 1, "SHUT_RDWR": 2}  # fmt: skip
_TCP = {"TCP_NODELAY": 1, "TCP_MAXSEG": 2, "TCP_CORK": 3, "TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6,
        "TCP_SYNCNT": 7, "TCP_LINGER2": 8, "TCP_DEFER_ACCEPT": 9, "TCP_WINDOW_CLAMP": 10, "TCP_INFO": 11,
        "TCP_QUICKACK": 12, "TCP_CONGESTION": 13, "TCP_MD5SIG": 14, "TCP_THIN_LINEAR_TIMEOUTS": 16,
        "TCP_USER_TIMEOUT": 18, "TCP_REPAIR": 19, "TCP_FASTOPEN": 23, "TCP_TIMESTAMP": 24,
        "TCP_NOTSENT_LOWAT": 25, "TCP_CC_INFO": 26, "TCP_SAVE_SYN": 27, "TCP_FASTOPEN_CONNECT": 30,
        "TCP_FASTOPEN_KEY": 33, "TCP_ZEROCOPY_RECEIVE": 35, "TCP_INQ": 36, "TCP_CM_INQ": 36,
        "TCP_TX_DELAY": 37}  # fmt: skip
_IP = {"IP_TOS": 1, "IP_TTL": 2, "IP_MTU_DISCOVER": 10, "IP_RECVERR": 11, "IP_MTU": 14, "IP_FREEBIND": 15,
       "IP_PMTUDISC_DONT": 0, "IP_PMTUDISC_WANT": 1, "IP_PMTUDISC_DO": 2, "IP_PMTUDISC_PROBE": 3,
       "IPV6_UNICAST_HOPS": 16, "IPV6_MTU_DISCOVER": 23, "IPV6_MTU": 24, "IPV6_V6ONLY": 26,
       "IPV6_TCLASS": 67}  # fmt: skip
_FILE = {"F_GETFL": 3, "F_SETFL": 4, "O_RDONLY": 0, "O_WRONLY": 1, "O_RDWR": 2, "O_NONBLOCK": 0o4000,
         "SIOCINQ": 0x541B, "FIONREAD": 0x541B, "SIOCOUTQ": 0x5411, "SIOCOUTQNSD": 0x894B}  # fmt: skip
_MESSAGE = {"MSG_OOB": 1, "MSG_PEEK": 2, "MSG_DONTROUTE": 4, "MSG_TRUNC": 0x20, "MSG_DONTWAIT": 0x40,
            "MSG_EOR": 0x80, "MSG_WAITALL": 0x100, "MSG_ERRQUEUE": 0x2000, "MSG_NOSIGNAL": 0x4000,
            "MSG_MORE": 0x8000, "MSG_ZEROCOPY": 0x4000000, "MSG_FASTOPEN": 0x20000000}  # fmt: skip
_POLL = {"POLLIN": 1, "POLLPRI": 2, "POLLOUT": 4, "POLLERR": 8, "POLLHUP": 16, "POLLNVAL": 32, "POLLRDNORM": 64,
         "POLLRDBAND": 128, "POLLWRNORM": 256, "POLLWRBAND": 512, "POLLRDHUP": 0x2000,
         "EPOLLIN": 1, "EPOLLPRI": 2, "EPOLLOUT": 4, "EPOLLERR": 8, "EPOLLHUP": 16, "EPOLLRDNORM": 64,
         "EPOLLRDBAND": 128, "EPOLLWRNORM": 256, "EPOLLWRBAND": 512, "EPOLLMSG": 0x400, "EPOLLRDHUP": 0x2000,
         "EPOLLEXCLUSIVE": 1 << 28, "EPOLLONESHOT": 1 << 30, "EPOLLET": 1 << 31,
         "EPOLL_CTL_ADD": 1, "EPOLL_CTL_DEL": 2, "EPOLL_CTL_MOD": 3}  # fmt: skip

SYMBOLS: dict[str, int] = {**_SOL, **_SOCKET, **_TCP, **_IP, **_FILE, **_MESSAGE, **_POLL, "NULL": 0}
"""Every symbol that has a number, the errno names excepted."""

ERRNO: dict[str, int] = {name: getattr(_errno, name) for name in dir(_errno) if name.startswith("E")}


def number(expression: Expression) -> int:
    """The integer that an expression is. Raises ScriptError for none, Unsupported for a symbol that is foreign."""
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Name):
        if expression.value in SYMBOLS:
            return SYMBOLS[expression.value]
        if expression.value in ERRNO:
            return ERRNO[expression.value]
        if expression.value in foreign.SYMBOLS:
            raise Unsupported(f"{expression.value} is not known")
        raise ScriptError(f"there is no symbol {expression.value}")
    if isinstance(expression, Either):
        return _either(expression)
    if isinstance(expression, Sequence) and len(expression.items) == 1:
        return number(expression.items[0])
    raise ScriptError(f"a number is expected, not {describe(expression)}")


def _either(expression: Either) -> int:
    value = 0
    for part in expression.parts:
        value |= number(part)
    return value


def describe(expression: Expression) -> str:
    """An expression as it stands in a script, more or less."""
    if isinstance(expression, Number):
        return str(expression.value)
    if isinstance(expression, Name):
        return expression.value
    if isinstance(expression, Text):
        return f'"{expression.value}"' + ("..." if expression.open_ended else "")
    if isinstance(expression, Either):
        return "|".join(describe(part) for part in expression.parts)
    if isinstance(expression, Sequence):
        return "[" + ", ".join(describe(item) for item in expression.items) + "]"
    if isinstance(expression, Structure):
        return "{" + ", ".join(f"{name}={describe(value)}" if name else describe(value)
                               for name, value in expression.fields) + "}"  # fmt: skip
    return "..."


def name_of_errno(value: int) -> str:
    """EAGAIN for 11."""
    return _errno.errorcode.get(value, str(value))
