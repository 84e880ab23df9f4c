"""The Internet checksum (RFC 1071; updating: RFC 1624).

The ones' complement sum of 16-bit words is the big-endian number they form, modulo 0xFFFF, because 0x10000 is 1 modulo
0xFFFF. Of the two ways to write zero in ones' complement, a sum is 0 only if every word is; everything else that is 0
modulo 0xFFFF sums to 0xFFFF.
"""

from collections.abc import Iterable, Sequence

Buffer = bytes | bytearray | memoryview

TCP = 6


def ones_sum(data: Buffer, initial: int = 0) -> int:
    """The folded 16-bit ones' complement sum of `data` and of `initial`, which is any sum so far, not negative.

    An odd last byte counts as the high byte of a word.
    """
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    total += initial
    return total % 0xFFFF or (0xFFFF if total else 0)


def ones_sum_parts(parts: Iterable[Buffer], initial: int = 0) -> int:
    """ones_sum of all parts joined, of whatever lengths, without joining them."""
    total = initial
    odd = False
    for part in parts:
        partial = ones_sum(part)
        # What starts at an odd place has its bytes exchanged, and so has its sum (RFC 1071 section 2 B).
        total += (partial & 0xFF) << 8 | partial >> 8 if odd else partial
        odd ^= bool(len(part) & 1)
    return total % 0xFFFF or (0xFFFF if total else 0)


def checksum(data: Buffer, initial: int = 0) -> int:
    """What belongs into a checksum field that was 0 in `data`: the complement of ones_sum."""
    return 0xFFFF ^ ones_sum(data, initial)


def is_valid(data: Buffer, initial: int = 0) -> bool:
    """Whether `data`, its checksum field included, has the right checksum."""
    return ones_sum(data, initial) == 0xFFFF


def pseudo_header_sum(source: Buffer, destination: Buffer, length: int, protocol: int = TCP) -> int:
    """The folded sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).

    Addresses have 4 or 16 bytes; `length` is that of the TCP header and the payload.
    """
    # Both pseudo-headers hold the same words apart from zeros.
    return ones_sum(source, ones_sum(destination, length + protocol))


def tcp_checksum(source: Buffer, destination: Buffer, parts: Sequence[Buffer]) -> int:
    """The TCP checksum of a segment given as header (its checksum field 0) and payload pieces."""
    length = sum(map(len, parts))
    return 0xFFFF ^ ones_sum_parts(parts, pseudo_header_sum(source, destination, length))


def tcp_is_valid(source: Buffer, destination: Buffer, segment: Buffer) -> bool:
    """Whether a received TCP segment (header and payload, in one piece) has the right checksum."""
    return is_valid(segment, pseudo_header_sum(source, destination, len(segment)))
