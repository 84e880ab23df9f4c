"""Sequence numbers (RFC 9293, 3.4): 32-bit numbers that wrap, and the only place where two of them are compared.

Inside the engine a place in the stream is a *position*: a 64-bit offset that never wraps, 0 being SND.UNA or RCV.NXT
as handed over. Positions are compared like any number. `unwrap` turns a sequence number into a position when a
segment arrives, `add` turns a position into a sequence number when one leaves.
"""


def add(number: int, offset: int) -> int:
    """The sequence number `offset` (which may be negative) after `number`."""
    return (number + offset) & 0xFFFFFFFF


def diff(a: int, b: int) -> int:
    """How far `a` is after `b`: -2**31 .. 2**31 - 1."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def lt(a: int, b: int) -> bool:
    """Whether `a` is before `b`."""
    return diff(a, b) < 0


def leq(a: int, b: int) -> bool:
    """Whether `a` is before `b` or equal to it."""
    return diff(a, b) <= 0


def latest(a: int, b: int) -> int:
    """The later one of two sequence numbers."""
    return b if diff(a, b) < 0 else a


def unwrap(number: int, reference: int, position: int) -> int:
    """The position of `number`, given that the sequence number `reference` is at `position` and not 2**31 away."""
    return position + diff(number, reference)
