"""What the SACK blocks of a segment say (RFC 2018, RFC 2883), as positions."""

from chimney.tcp.flight import Flight
from chimney.tcp.seq import unwrap


def read_blocks(blocks: list[tuple[int, int]], una_seq: int, ack: int, flight: Flight, now: int) -> None:
    """Takes the blocks into the flight; `una_seq` is the sequence number of `flight.una`.

    ack: what the segment itself acknowledges. The first block, if it is below that or within the second one, is a
    duplicate that the peer reports (RFC 2883, 4): it is put down in `flight.told`. Blocks that do not lie between
    SND.UNA and what was sent are ignored.
    """
    una = flight.una
    for index, (left, right) in enumerate(blocks):
        start = unwrap(left, una_seq, una)
        end = unwrap(right, una_seq, una)
        if start >= end:
            continue
        if index == 0 and (end <= ack or (len(blocks) > 1 and _is_within(start, end, blocks[1], una_seq, una))):
            flight.told.duplicate_start = start
            flight.told.duplicate_end = end
        elif una < start and end <= flight.end:
            flight.cover(start, end, now)


def _is_within(start: int, end: int, block: tuple[int, int], una_seq: int, una: int) -> bool:
    """Whether [start, end) lies within `block` (RFC 2883, 4.2)."""
    left, right = block
    return unwrap(left, una_seq, una) <= start and end <= unwrap(right, una_seq, una)
