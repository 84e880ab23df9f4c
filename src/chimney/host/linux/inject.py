"""Segments that a local kernel socket shall process although they do not come from the wire.

A raw socket with a mark of our own sends them through the loopback device; the receiving socket's filter can tell them
by the mark. Where the firewall's output rules drop such a packet, a packet socket puts it onto the loopback device: the
rules are not for what the peer has sent. Sources: raw(7), packet(7), RFC 791, RFC 8200, RFC 9293 (3.1), RFC 1071; seen
to work with any source address.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import Endpoint

FIN, RST, PSH, ACK = 1, 4, 8, 16

_TCP = socket.IPPROTO_TCP
_TTL = 64
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
# As far as any router can be away: a socket may want to know how near the sender of a message is (IP_MINTTL).
_FARTHEST = 255


def checksum(data: bytes) -> int:
    """The internet checksum: the complement of the one's complement sum of 16-bit words."""
    if len(data) & 1:
        data += b"\0"
    total = int.from_bytes(data, "big")
    # 2**16 is 1 modulo 0xFFFF, so the whole number is congruent to the sum of its words; 0 stands for 0xFFFF there.
    return 0xFFFF - (total % 0xFFFF or 0xFFFF) if total else 0xFFFF


def segment(
    source: Endpoint,
    destination: Endpoint,
    seq: int,
    ack: int,
    flags: int,
    window: int = 0,
    timestamp: tuple[int, int] | None = None,
    payload: bytes = b"",
) -> bytes:
    """A TCP segment without its checksum; `window` is the raw field, `timestamp` (TSval, TSecr)."""
    options = b"\x01\x01\x08\x0a" + struct.pack("!II", *timestamp) if timestamp else b""
    header = struct.pack(
        "!HHIIBBHHH",
        source.port,
        destination.port,
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        (20 + len(options)) // 4 << 4,
        flags,
        window,
        0,
        0,
    )
    return header + options + payload


def deliver(segments: Iterable[bytes], source: bytes, destination: bytes, sock: socket.socket | None = None) -> None:
    """Let the kernel process TCP segments (header and payload; the checksum is filled in) between two addresses.

    `sock`: the receiving socket, if it may be bound to a device, which would keep it from hearing the loopback device.
    Raises OSError; without a socket that takes a segment, the kernel answers `source` with an RST.
    """
    with _heard(sock), _raw(destination) as raw:
        for part in segments:
            _inject(raw, part, source, destination)


def packets(received: Sequence[bytes | memoryview], sock: socket.socket | None = None) -> None:
    """Let the kernel process whole IP packets of TCP, as a tap saw them (checksums incomplete, merged by GRO)."""
    with _heard(sock):
        for destination, same in groupby(map(bytes, received), _destination):
            with _raw(destination) as raw:
                for data in same:
                    _send_packet(raw, data[0] >> 4, data)


def icmp(message: bytes, source: bytes, destination: bytes, sock: socket.socket | None = None) -> None:
    """Let the kernel process an ICMP message of its version (the checksum is filled in); `sock` as for `deliver`."""
    ipv6 = len(source) == 16
    bare = message[:2] + b"\0\0" + message[4:]
    pseudo = source + destination + struct.pack("!II", len(bare), socket.IPPROTO_ICMPV6) if ipv6 else b""
    whole = bare[:2] + struct.pack("!H", checksum(pseudo + bare)) + bare[4:]
    protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
    with _heard(sock), _raw(destination) as raw:
        _send_ip(raw, protocol, _FARTHEST, whole, source, destination)


def _destination(packet: bytes) -> bytes:
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


def _send_packet(raw: socket.socket | None, version: int, data: bytes) -> None:
    if version == 4:
        header, total = (data[0] & 15) * 4, struct.unpack_from("!H", data, 2)[0]
        _inject(raw, data[header : total or len(data)], data[12:16], data[16:20])
    else:
        total = struct.unpack_from("!H", data, 4)[0]
        _inject(raw, data[40 : 40 + total if total else len(data)], data[8:24], data[24:40])


def _inject(raw: socket.socket | None, tcp: bytes, source: bytes, destination: bytes) -> None:
    try:
        send_segment(raw, tcp, source, destination)
    except PermissionError:
        _put_on_loopback(_with_checksum(tcp, source, destination), source, destination)


def _put_on_loopback(tcp: bytes, source: bytes, destination: bytes) -> None:
    header = _ip_header(_TCP, _TTL, len(tcp)) if len(source) == 4 else _ipv6_header(_TCP, _TTL, len(tcp))
    header += source + destination
    kind = _ETH_P_IPV6
    if len(source) == 4:
        kind = _ETH_P_IP
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as wire:
        wire.setsockopt(so.SOL_SOCKET, so.SO_MARK, so.INJECT_MARK)
        wire.sendto(bytes(12) + struct.pack("!H", kind) + header + tcp, ("lo", kind))


def send_segment(raw: socket.socket | None, tcp: bytes, source: bytes, destination: bytes) -> None:
    """Send a TCP segment, whose checksum is filled in, by a raw socket that takes whole packets. Raises OSError."""
    _send_ip(raw, _TCP, _TTL, _with_checksum(tcp, source, destination), source, destination)


def _with_checksum(tcp: bytes, source: bytes, destination: bytes) -> bytes:
    size = len(tcp)
    bare = tcp[:16] + b"\0\0" + tcp[18:]
    ending = struct.pack("!HH", _TCP, size) if len(source) == 4 else struct.pack("!II", size, _TCP)
    value = checksum(source + destination + ending + bare)
    return tcp[:16] + struct.pack("!H", value) + tcp[18:]


def _send_ip(
    raw: socket.socket | None, protocol: int, ttl: int, payload: bytes, source: bytes, destination: bytes
) -> None:
    if len(source) == 4:
        # The kernel fills in the identification and the header's checksum.
        header = _ip_header(protocol, ttl, len(payload))
        to: tuple[str, int] | tuple[str, int, int, int] = (socket.inet_ntop(socket.AF_INET, destination), 0)
    else:
        header = _ipv6_header(protocol, ttl, len(payload))
        to = (socket.inet_ntop(socket.AF_INET6, destination), 0, 0, 0)
    if raw is not None:
        raw.sendto(header + source + destination + payload, to)


def _ip_header(protocol: int, ttl: int, size: int) -> bytes:
    """An IPv4 header up to its addresses, without its checksum."""
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, ttl, protocol, 0)


def _ipv6_header(protocol: int, hops: int, size: int) -> bytes:
    """An IPv6 header up to its addresses."""
    return struct.pack("!IHBB", 6 << 28, size, protocol, hops)


@contextmanager
def _raw(destination: bytes) -> Iterator[socket.socket | None]:
    """A raw socket for one injection: made in some microseconds, it keeps no network namespace alive.

    None if the destination is no address of ours any more: what is sent to it would leave, where it meant us.
    """
    family = socket.AF_INET if len(destination) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as raw:
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, so.IPV6_HDRINCL, 1)
        raw.setsockopt(so.SOL_SOCKET, so.SO_MARK, so.INJECT_MARK)
        try:
            raw.bind((socket.inet_ntop(family, destination), 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            yield None
            return
        yield raw


@contextmanager
def _heard(sock: socket.socket | None) -> Iterator[None]:
    device = sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX) if sock is not None else 0
    if sock is None or not device:
        yield
        return
    sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, 0)
    try:
        yield
    finally:
        sock.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, device)
