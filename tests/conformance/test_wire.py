"""What packets say, as a test sees it."""

from __future__ import annotations

import pytest

from chimney.conformance.wire import read_packet

ETHERNET = bytes(12)
IPV4 = ETHERNET + b"\x08\x00" + b"\x45\0\0\x28" + bytes(4) + b"\x40\x06\0\0" + bytes(8) + bytes(20)
IPV6 = ETHERNET + b"\x86\xdd" + b"\x60\0\0\0\0\x14\x06\x40" + bytes(32) + bytes(20)


@pytest.mark.parametrize("frame", [IPV4, IPV6])
def test_a_packet_that_claims_more_than_there_is_makes_no_sense(frame):
    assert len(read_packet(frame).payload) == 20
    assert read_packet(frame[:-1]) is None
