"""Frames made and read without the code under test."""

import struct
from collections.abc import Callable
from ipaddress import ip_address
from types import SimpleNamespace

import pytest


def slow_checksum(data: bytes) -> int:
    """The Internet checksum, word by word as RFC 1071 writes it."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, 6, length)
    return source + destination + struct.pack("!I3xB", length, 6)


def build(
    payload: bytes = b"",
    *,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
    ports: tuple[int, int] = (1000, 2000),
    seq: int = 1,
    ack: int = 7,
    flags: int = 0x10,
    window: int = 500,
    tcp_options: bytes = b"\x01\x01\x08\x0a" + bytes(8),
    ip_options: bytes = b"",
    identification: int = 0x8000,
    fragment: int = 0x4000,
    protocol: int = 6,
    macs: tuple[bytes, bytes] = (b"\x02\0\0\0\0\x02", b"\x02\0\0\0\0\x01"),
    offload: bool = False,
) -> SimpleNamespace:
    """An Ethernet frame: `header`, `payload`, `frame` (both), `csum_start`, `ipv6`.

    offload: the checksum field holds the sum of the pseudo-header only. `macs`: destination, source.
    """
    a, b = ip_address(source).packed, ip_address(destination).packed
    ipv6 = len(a) == 16
    offset = 5 + len(tcp_options) // 4

    def tcp(check: int) -> bytes:
        return struct.pack("!HHIIBBHHH", *ports, seq, ack, offset << 4, flags, window, check, 0) + tcp_options

    length = 20 + len(tcp_options) + len(payload)
    pseudo = pseudo_header(a, b, length)
    check = ~slow_checksum(pseudo) & 0xFFFF if offload else slow_checksum(pseudo + tcp(0) + payload)
    if ipv6:
        ip = struct.pack("!IHBB", 6 << 28, length, protocol, 64) + a + b
    else:
        words = 5 + len(ip_options) // 4
        total = words * 4 + length

        def header(check: int) -> bytes:
            fields = (0x40 | words, 0, total, identification, fragment, 64, protocol, check, a, b)
            return struct.pack("!BBHHHBBH4s4s", *fields) + ip_options

        ip = header(slow_checksum(header(0)))
    ethernet = b"".join(macs) + (b"\x86\xdd" if ipv6 else b"\x08\x00")
    return SimpleNamespace(
        header=ethernet + ip + tcp(check),
        payload=payload,
        frame=ethernet + ip + tcp(check) + payload,
        csum_start=14 + len(ip),
        ipv6=ipv6,
    )


def parse(frame: bytes) -> SimpleNamespace:
    """What a frame says; asserts that its lengths and all of its checksums are right."""
    frame = bytes(frame)
    ipv6 = frame[12:14] == b"\x86\xdd"
    if ipv6:
        assert frame[14] >> 4 == 6
        assert struct.unpack_from("!H", frame, 18)[0] == len(frame) - 54
        source, destination, tcp, identification = frame[22:38], frame[38:54], 54, 0
    else:
        assert frame[12:14] == b"\x08\x00"
        tcp = 14 + (frame[14] & 15) * 4
        total, identification = struct.unpack_from("!HH", frame, 16)
        assert total == len(frame) - 14
        assert slow_checksum(frame[14:tcp]) == 0
        source, destination = frame[26:30], frame[30:34]
    assert slow_checksum(pseudo_header(source, destination, len(frame) - tcp) + frame[tcp:]) == 0
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", frame, tcp)
    start = tcp + (offset >> 4) * 4
    return SimpleNamespace(
        ports=(sport, dport),
        seq=seq,
        ack=ack,
        flags=flags,
        window=window,
        options=frame[tcp + 20 : start],
        identification=identification,
        payload=frame[start:],
        source=source,
        destination=destination,
    )


@pytest.fixture(scope="session")
def frames() -> SimpleNamespace:
    tools: dict[str, Callable[..., object]] = {"build": build, "parse": parse, "slow_checksum": slow_checksum}
    return SimpleNamespace(**tools)
