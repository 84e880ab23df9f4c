"""TCP options: timestamps (RFC 7323, 3.2) and selective acknowledgements (RFC 2018, 3). All others are skipped."""

import struct

_TIMESTAMP = struct.Struct("!II")
_BLOCK = struct.Struct("!II")
_TIMESTAMP_OPTION = struct.Struct("!BBBBII")

TIMESTAMP_SPACE = 12
"""Bytes that the timestamp option takes in a header, padding included."""

MAX_SACK_BLOCKS = 4


class Options:
    """What the options of a segment say."""

    def __init__(self) -> None:
        self.has_timestamp = False
        self.ts_val = 0
        self.ts_ecr = 0
        self.sack_blocks: list[tuple[int, int]] = []


def parse_options(data: bytes) -> Options:
    """Reads the option bytes of a header.

    An option of an impossible length ends the list (RFC 9293, MUST-7: no crash), a known option of a wrong length
    is ignored, and so is a second one of its kind.
    """
    found = Options()
    at = 0
    end = len(data)
    while at < end:
        kind = data[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 2 > end:
            break
        length = data[at + 1]
        if length < 2 or at + length > end:
            break
        if kind == 8 and length == 10 and not found.has_timestamp:
            found.has_timestamp = True
            found.ts_val, found.ts_ecr = _TIMESTAMP.unpack_from(data, at + 2)
        elif kind == 5 and length >= 10 and (length - 2) % 8 == 0 and not found.sack_blocks:
            found.sack_blocks = [_BLOCK.unpack_from(data, start) for start in range(at + 2, at + length, 8)]
        at += length
    return found


def build_options(has_timestamp: bool, ts_val: int, ts_ecr: int, sack_blocks: list[tuple[int, int]]) -> bytes:
    """The option bytes of a header, padded to a multiple of four in front of each option (RFC 7323, appendix A)."""
    built = _TIMESTAMP_OPTION.pack(1, 1, 8, 10, ts_val, ts_ecr) if has_timestamp else b""
    if sack_blocks:
        built += bytes((1, 1, 5, 2 + 8 * len(sack_blocks)))
        built += b"".join([_BLOCK.pack(left, right) for left, right in sack_blocks])
    return built
