"""Whether the TCP options of a packet that arrives can be written at all: fields have a size, and so has the header."""

from chimney.packetdrill.errors import ScriptError
from chimney.packetdrill.nodes import Option

_BITS = {"mss": 16, "wscale": 8, "TS": 32, "sack": 32}
_ROOM = 40
"""Bytes of options that a TCP header has room for (RFC 9293, 3.1)."""


def check_options(options: tuple[Option, ...]) -> None:
    """Raises ScriptError, with the value that is too large."""
    for option in options:
        bits = _BITS.get(option.kind, 0)
        if wrong := [value for value in option.values if not 0 <= value < 1 << bits]:
            raise ScriptError(f"the option {option.kind} has {bits} bits for a number: {wrong[0]} is none of them")
    if (size := sum(map(_size, options))) > _ROOM:
        raise ScriptError(f"options of {size} bytes: a header has room for {_ROOM}")


def _size(option: Option) -> int:
    if option.kind in ("nop", "eol"):
        return 1
    bits = _BITS.get(option.kind, 0)
    return 2 + (len(option.values) * bits + len(option.text) * 4) // 8
