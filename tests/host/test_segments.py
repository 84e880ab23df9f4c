"""Segments that the host keeps for somebody."""

from __future__ import annotations

from struct import pack

import pytest

from chimney.host.kernel import Flow
from chimney.host.segments import KeptSegment, without_judged_resets, without_repeats

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


def test_a_reset_before_data_that_the_kernel_has_was_judged_by_it():
    reset, data, news = kept(2, 0, flags=RST), kept(1, 1), kept(2, 1)
    assert without_judged_resets([reset, data, news], 2) == [data, news]


def test_a_reset_before_a_fin_that_the_kernel_has_was_judged_by_it():
    reset, fin = kept(2, 0, flags=RST), kept(1, 0, flags=ACK | FIN)
    assert without_judged_resets([reset, fin], 2) == [fin]


@pytest.mark.parametrize("behind", [kept(2, 1), kept(1, 0), kept(1, 1, flags=ACK | SYN)], ids=["new", "bare", "SYN"])
def test_a_reset_that_the_kernel_may_not_have_seen_is_the_targets(behind):
    segments = [kept(1, 1), kept(2, 0, flags=RST), behind]
    assert without_judged_resets(segments, 2) == segments


def test_a_judged_reset_where_sequence_numbers_wrap():
    reset, data = kept(1, 0, flags=RST), kept(0xFFFFFFFF, 2)
    assert without_judged_resets([reset, data], 1) == [data]
