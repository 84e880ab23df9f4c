"""The kernel's side of a hand-over, as far as it is arithmetic; the kernel itself is met in tests/live."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimney.host.errors import UploadFailed
from chimney.host.linux import inject, monitor, netlink, restore
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import FINS, Endpoint, KernelState, TcpInfo, TcpState, endpoint_of

LOCAL, REMOTE = Endpoint(b"\x0a\x09\x00\x01", 40000), Endpoint(b"\x0a\x09\x00\x02", 443)


def state(**changes):
    values = {
        "family": socket.AF_INET,
        "local": LOCAL,
        "remote": REMOTE,
        "state": TcpState.ESTABLISHED,
        "snd_una": 1000,
        "snd_nxt": 1000,
        "write_seq": 1000,
        "rcv_nxt": 5000,
        "snd_wl1": 5000,
        "snd_wnd": 60_000,
        "max_window": 60_000,
        "rcv_wnd": 30_000,
        "rcv_wup": 5000,
        "window_scaling": True,
        "snd_wscale": 7,
        "rcv_wscale": 7,
        "sack": True,
        "timestamps": True,
        "ecn": False,
        "mss_clamp": 1460,
        "timestamp": 99,
        "timestamp_hz": 1000,
        "read_at": 0,
        "info": TcpInfo(*[0] * len(TcpInfo.__dataclass_fields__)),
    }
    return KernelState(**{**values, **changes})


def words_added_with_end_around_carry(data):
    """RFC 1071, section 1, by the letter."""
    total = 0
    for high, low in zip(data[::2], data[1::2] + b"\0" * (len(data) & 1), strict=True):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=200))
def test_checksum(data):
    assert inject.checksum(data) == words_added_with_end_around_carry(data)


@pytest.mark.parametrize("data", [b"", bytes(20), b"\xff" * 20, b"\xff\xfe\x00\x01", b"\xff", b"\x00\x00\xff\xff"])
def test_checksum_of_sums_that_are_no_numbers_or_all_ones(data):
    assert inject.checksum(data) == words_added_with_end_around_carry(data)


def test_a_crafted_segment():
    said = inject.segment(REMOTE, LOCAL, 0x1_0000_0005, -1, inject.FIN | inject.ACK, 77, (3, 4), b"data")
    ports_to_window = struct.unpack_from("!HHIIBBHHH", said)
    assert ports_to_window == (443, 40000, 5, 0xFFFFFFFF, 8 << 4, 17, 77, 0, 0)
    assert said[20:32] == b"\x01\x01\x08\x0a\0\0\0\3\0\0\0\4" and said[32:] == b"data"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("10.9.0.1", 80), "10.9.0.1:80"),
        (("::ffff:10.9.0.1", 80, 0, 0), "10.9.0.1:80"),
        (("fd09::1", 80, 0, 0), "[fd09::1]:80"),
        (("fe80::1%eth7", 80, 0, 7), "[fe80::1]:80"),
    ],
)
def test_endpoints_are_those_on_the_wire(name, text):
    assert str(endpoint_of(name)) == text


def test_an_endpoint_keeps_its_scope():
    assert endpoint_of(("fe80::1", 80, 0, 7)).scope == 7
    assert endpoint_of(("fe80::1", 80, 0, 7)).sockaddr(socket.AF_INET6)[-4:] == struct.pack("=I", 7)


def test_an_ipv4_end_on_an_ipv6_socket():
    assert LOCAL.sockaddr(socket.AF_INET6)[8:24] == b"\0" * 10 + b"\xff\xff" + LOCAL.address
    assert LOCAL.sockaddr(socket.AF_INET) == struct.pack("=H", 2) + b"\x9c\x40" + LOCAL.address + bytes(8)


@pytest.mark.parametrize(
    ("found", "sent", "acked", "received"),
    [
        (TcpState.ESTABLISHED, False, False, False),
        (TcpState.FIN_WAIT1, True, False, False),
        (TcpState.FIN_WAIT2, True, True, False),
        (TcpState.CLOSING, True, False, True),
        (TcpState.TIME_WAIT, True, True, True),
        (TcpState.CLOSE_WAIT, False, False, True),
        (TcpState.LAST_ACK, True, False, True),
    ],
)
def test_what_a_state_says_of_fins(found, sent, acked, received):
    """RFC 9293, figure 5."""
    known = state(state=found)
    assert (known.fin_sent, known.fin_acked, known.fin_received) == (sent, acked, received)
    assert TcpState.SYN_SENT not in FINS and TcpState.LISTEN not in FINS


def split(**changes):
    sent, unsent = restore._split(state(**changes))
    return b"".join(sent), b"".join(unsent)


def views(*parts):
    return [memoryview(part) for part in parts]


def test_sent_and_unsent_bytes():
    queue = views(b"abc", b"def", b"ghi")
    assert split(send_queue=queue, write_seq=1009, snd_nxt=1000) == (b"", b"abcdefghi")
    assert split(send_queue=queue, write_seq=1009, snd_nxt=1004) == (b"abcd", b"efghi")
    assert split(send_queue=queue, write_seq=1009, snd_nxt=1009) == (b"abcdefghi", b"")


def test_a_fin_is_no_byte_of_the_queue():
    changes = {"state": TcpState.FIN_WAIT1, "send_queue": views(b"abc"), "write_seq": 1004}
    assert split(**changes, snd_nxt=1004) == (b"abc", b"")
    assert split(**changes, snd_nxt=1003) == (b"abc", b"")
    assert split(**changes, snd_nxt=1002) == (b"ab", b"c")


def test_a_queue_across_the_end_of_the_sequence_space():
    changes = {"snd_una": 0xFFFFFFFE, "write_seq": 4, "send_queue": views(b"abcdef")}
    assert split(**changes, snd_nxt=1) == (b"abc", b"def")


def test_numbers_that_do_not_fit_the_queue():
    with pytest.raises(UploadFailed, match="3 bytes to send, its sequence numbers say 5"):
        split(send_queue=views(b"abc"), write_seq=1005)


def test_netlink_attributes():
    data = netlink.attribute(1, b"abc") + netlink.nested(2, netlink.attribute(7, b"x"), netlink.attribute(8, b""))
    found = netlink.attributes(data)
    assert len(data) % 4 == 0 and found[1] == b"abc"
    assert netlink.attributes(found[2]) == {7: b"x", 8: b""}


@pytest.mark.parametrize("data", [b"\0\0\1\0", b"\3\0\1\0", b"\1"])
def test_netlink_attributes_cut_short(data):
    assert netlink.attributes(data) == {}


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (0x7FFFFFFF, 0x7FFFFFFF), (0x80000000, -(2**31)), (-1, -1)])
def test_values_for_setsockopt(value, expected):
    assert so.signed32(value) == expected


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENODEV, None], ids=str)
def test_a_neighbor_that_the_kernel_lets_nobody_ask_about(number):
    class Refusing:
        def request(self, *arguments, **settings):
            raise OSError(number, "no") if number else TimeoutError("no answer")

        def close(self):
            channel.close()

    network = monitor.LinuxNetwork()
    try:
        channel, network._channel = network._channel, Refusing()
        network.probe((1, LOCAL.address))
        network.confirm((1, LOCAL.address))
    finally:
        network.close()
