"""What a script consists of, once it is parsed. Times are microseconds, numbers as they stand in the script."""

from dataclasses import dataclass, field
from enum import Enum, auto


class When(Enum):
    """How the time of an event is meant."""

    ABSOLUTE = auto()
    """From the start of the script."""
    RELATIVE = auto()
    """From the moment at which the event before was over."""
    ABSOLUTE_RANGE = auto()
    RELATIVE_RANGE = auto()
    ANY = auto()
    """`*`: whenever it comes."""


# Expressions, as arguments of socket calls.


@dataclass(slots=True, frozen=True)
class Number:
    """An integer."""

    value: int


@dataclass(slots=True, frozen=True)
class Text:
    """A string."""

    value: str
    open_ended: bool = False
    """`"text"...`: the beginning of a longer buffer."""


@dataclass(slots=True, frozen=True)
class Name:
    """A symbol, such as SOL_TCP."""

    value: str


@dataclass(slots=True, frozen=True)
class Anything:
    """`...`: a value that the interpreter chooses."""


@dataclass(slots=True, frozen=True)
class Either:
    """`a | b`."""

    parts: tuple["Expression", ...]


@dataclass(slots=True, frozen=True)
class Sequence:
    """`[a, b]`."""

    items: tuple["Expression", ...]


@dataclass(slots=True, frozen=True)
class Structure:
    """`{name=value, value}`; the name is empty where there is none."""

    fields: tuple[tuple[str, "Expression"], ...]

    def get(self, name: str) -> "Expression | None":
        """The value of the field `name`."""
        return next((value for key, value in self.fields if key == name), None)


@dataclass(slots=True, frozen=True)
class Call:
    """`htons(8080)`."""

    name: str
    arguments: tuple["Expression", ...]


Expression = Number | Text | Name | Anything | Either | Sequence | Structure | Call


# Packets.


@dataclass(slots=True, frozen=True)
class Option:
    """A TCP option. kind: mss, wscale, sackOK, sack, TS, nop, eol, and others by name.

    values: the numbers that belong to it; the edges of SACK blocks in a row.
    """

    kind: str
    values: tuple[int, ...] = ()
    text: str = ""
    """Of options whose value is hexadecimal."""


FOREIGN_OPTIONS = ("FO", "FOEXP", "md5", "ECN")
"""Options that the engine neither sends nor reads."""


@dataclass(slots=True)
class TcpPacket:
    """A TCP packet, in the numbers of the script."""

    outbound: bool
    flags: str
    seq: int
    length: int
    ack: int = 0
    has_ack: bool = False
    window: int | None = None
    urgent: int = 0
    options: tuple[Option, ...] | None = ()
    """None: `<...>`, any."""
    ecn: str | None = None
    """noecn, ect0, ect1, ce, ect01; None: not looked at."""
    tos: int | None = None
    ttl: int | None = None
    flow_label: int | None = None
    ports: tuple[int, int] | None = None


@dataclass(slots=True)
class IcmpPacket:
    """An ICMP message about a TCP segment that begins at `seq`."""

    outbound: bool
    kind: str
    code: str
    mtu: int | None = None
    seq: int | None = None
    length: int = 0


@dataclass(slots=True)
class ForeignPacket:
    """A packet that is neither TCP nor ICMP, or is wrapped in something: `protocol` says in what."""

    outbound: bool
    protocol: str


@dataclass(slots=True)
class SocketCall:
    """A socket call, what it must return, and when it may return at the latest."""

    name: str
    arguments: tuple[Expression, ...]
    result: Expression
    errno: str = ""
    end: int | None = None
    """A blocking call: the time at which it must return, relative as the event's own."""


@dataclass(slots=True)
class Command:
    """A command of the shell."""

    text: str


@dataclass(slots=True)
class Code:
    """Python, to be executed with the numbers of TCP_INFO as names."""

    text: str


Action = TcpPacket | IcmpPacket | ForeignPacket | SocketCall | Command | Code


@dataclass(slots=True)
class Event:
    """Something that happens, or must happen, at a time."""

    line: int
    when: When
    start: int
    end: int
    action: Action
    source: str = ""
    """Its text, for messages."""


@dataclass(slots=True)
class Script:
    """A whole script."""

    options: dict[str, str] = field(default_factory=dict)
    init: Command | None = None
    events: list[Event] = field(default_factory=list)
    cleanup: Command | None = None
