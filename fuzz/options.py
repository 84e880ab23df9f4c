"""Option lists: the engine's reader against a slow and simple one, and back through the engine's writer.

The input is the option bytes of a header, up to 40 of them, as they are.
"""

from chimney.tcp.options import build_options, parse_options
from chimney.tcp.segment import Segment, parse_segment

_END = 0
_PADDING = 1
_SACK = 5
_TIMESTAMP = 8
_MOST = 40


def run(data: bytes) -> None:
    """Raises AssertionError where the readers differ, whatever the engine's reader raises otherwise."""
    data = data[:_MOST]
    timestamp, blocks = expected(data)
    found = parse_options(data)
    assert (found.has_timestamp, found.ts_val, found.ts_ecr) == (timestamp is not None, *(timestamp or (0, 0)))
    assert found.sack_blocks == blocks
    in_a_header(data)
    there_and_back(found)


def split(data: bytes) -> list[tuple[int, bytes]]:
    """(kind, body) of each option, up to the first that cannot be (RFC 9293, 3.1)."""
    found = []
    while data and data[0] != _END:
        if data[0] == _PADDING:
            data = data[1:]
        elif len(data) < 2 or not 2 <= data[1] <= len(data):
            break
        else:
            found.append((data[0], data[2 : data[1]]))
            data = data[data[1] :]
    return found


def expected(data: bytes) -> tuple[tuple[int, int] | None, list[tuple[int, int]]]:
    """Timestamp and SACK blocks: the first option of each kind that has a possible length."""
    pieces = split(data)
    stamps = [words(body) for kind, body in pieces if kind == _TIMESTAMP and len(body) == 8]
    sacks = [words(body) for kind, body in pieces if kind == _SACK and body and len(body) % 8 == 0]
    numbers = sacks[0] if sacks else []
    blocks = list(zip(numbers[::2], numbers[1::2], strict=True))
    return (stamps[0][0], stamps[0][1]) if stamps else None, blocks


def words(body: bytes) -> list[int]:
    """The 32-bit numbers of `body`."""
    return [int.from_bytes(body[at : at + 4], "big") for at in range(0, len(body), 4)]


def in_a_header(data: bytes) -> None:
    """The same list in a header, padded: the short cut for the usual layout reads what the list says."""
    data = data.ljust(-(-len(data) // 4) * 4, b"\0")
    header = bytes(12) + bytes([(20 + len(data)) << 2, 16]) + bytes(6)
    segment = parse_segment(memoryview(header + data + b"payload"))
    assert segment is not None and bytes(segment.payload) == b"payload" and segment.payload_length == 7
    timestamp, blocks = expected(data)
    assert segment.has_timestamp == (timestamp is not None)
    assert (segment.ts_val, segment.ts_ecr) == (timestamp or (0, 0)) and segment.sack_blocks == blocks


def there_and_back(found) -> None:
    """What the writer makes of it, the reader reads as the same; and the length is the one that is announced."""
    blocks = found.sack_blocks[: 3 if found.has_timestamp else 4]
    built = build_options(found.has_timestamp, found.ts_val, found.ts_ecr, blocks)
    assert len(built) % 4 == 0 and len(built) <= _MOST
    again = parse_options(built)
    assert (again.has_timestamp, again.ts_val, again.ts_ecr) == (found.has_timestamp, found.ts_val, found.ts_ecr)
    assert again.sack_blocks == blocks
    segment = Segment()
    segment.has_timestamp, segment.ts_val, segment.ts_ecr = found.has_timestamp, found.ts_val, found.ts_ecr
    segment.sack_blocks = blocks
    assert segment.header_length() == len(segment.header_bytes()) == 20 + len(built)
