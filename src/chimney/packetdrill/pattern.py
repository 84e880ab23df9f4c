"""The bytes that both streams consist of: each tells its place, so that a byte in the wrong place is noticed."""

_PERIOD = 251
_BYTES = bytes(range(_PERIOD)) * 600


def pattern(position: int, length: int) -> bytes:
    """The `length` bytes of a stream from `position` on."""
    start = position % _PERIOD
    found = _BYTES[start : start + length]
    while len(found) < length:
        found += pattern(position + len(found), length - len(found))
    return found
