"""Segments that the host keeps for somebody."""

from __future__ import annotations

from struct import pack

from chimney.host.kernel import Flow
from chimney.host.segments import KeptSegment, data_beyond, without_repeats

FLOW = Flow(b"\x0a\0\0\1", 1, b"\x0a\0\0\2", 2)
ACK, RST, SYN, FIN = 16, 4, 2, 1


def kept(seq, size, *, flags=ACK, options=b"", ack=1):
    tcp = pack("!HHIIBBHHH", 1, 2, seq, ack, (20 + len(options)) // 4 << 4, flags, 100, 0, 0)
    return KeptSegment(FLOW, bytes(20) + tcp + options + bytes(size), 20)


def test_what_says_the_same_is_kept_once():
    data, fin = kept(1, 100), kept(101, 0, flags=ACK | FIN)
    assert without_repeats([data, fin, data, fin]) == [data, fin]


def test_acknowledgements_are_all_kept():
    assert len(without_repeats([kept(1, 0), kept(1, 0)])) == 2


def test_more_data_in_as_many_bytes_is_no_repeat():
    """A retransmission without SACK option has room for more."""
    short, longer = kept(1, 88, options=bytes((1, 1, 5, 10)) + bytes(8)), kept(1, 100)
    assert len(short.packet) == len(longer.packet)
    assert without_repeats([short, longer]) == [short, longer]


def test_the_same_data_with_other_options_is_a_repeat():
    first = kept(1, 100)
    assert without_repeats([first, kept(1, 100, options=bytes((1, 1, 1, 1)))]) == [first]


def test_what_the_kernel_has_processed_is_not_the_targets():
    """But for what it holds out of order."""
    beyond = [kept(2, 1), kept(2, 0, flags=ACK | FIN), kept(1, 2), kept(0xFFFFFFFF, 4)]
    known = [kept(1, 1), kept(1, 0, flags=ACK | FIN), kept(2, 0), kept(5, 0), kept(0xFFFFFFFF, 3)]
    assert data_beyond([*known, *beyond], 2) == beyond


def test_an_rst_that_the_kernel_has_judged_is_not_judged_again():
    assert data_beyond([kept(2, 0, flags=RST), kept(3, 0, flags=RST), kept(2, 1, flags=ACK | SYN)], 2) == []
