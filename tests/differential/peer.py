"""The peer: raw TCP segments on a wire to the kernel, and what comes back.

The host's namespace has the address, the peer's only a packet socket. Frames and the echo requests between them are
processed in order, on one CPU: when the echo is back, everything that the kernel had to say at once has been said.
"""

import contextlib
import os
import select
import socket
import struct
from dataclasses import dataclass

from chimney.conformance.wire import ETHER_IPV4, ICMP, checked, ethernet, ip_packet
from chimney.lab.namespace import Namespace
from chimney.lab.wire import veth_pair
from chimney.link.checksum import checksum

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
MASK = 0xFFFFFFFF

HOST, PEER = socket.inet_aton("10.9.0.1"), socket.inet_aton("10.9.0.2")
HOST_PORT, LISTENING_PORT = 4000, 4001
# Nobody's address: the peer's own IP stack does not look at what is sent there.
PEER_MAC = bytes.fromhex("020000000099")

SETTINGS = {
    # Nothing depends on time: no tail loss probe, no limit on answers to what is out of the window, no memory of peers.
    "net.ipv4.tcp_early_retrans": 0,
    "net.ipv4.tcp_invalid_ratelimit": 0,
    "net.ipv4.tcp_challenge_ack_limit": 0x7FFFFFFF,
    "net.ipv4.tcp_no_metrics_save": 1,
    # Whoever asks for it gets it.
    "net.ipv4.tcp_ecn": 2,
}
# The least retransmission time-out, in milliseconds, for the same reason; and the route says that no acknowledgement is
# delayed.
MIN_RTO_MS = 30_000
_PATIENCE = 10.0
_ETHERNET = 14
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_FRAME = 1 << 16


@dataclass(frozen=True)
class Packet:
    """A segment as it is on the wire; sequence numbers as they are there, `sack` as pairs of them.

    ecn: the codepoint of the IP header. wscale: of the option that a SYN has.
    """

    seq: int
    ack: int
    flags: int
    window: int
    data: bytes
    ts: tuple[int, int] | None
    sack: tuple[tuple[int, int], ...]
    ecn: int = 0
    wscale: int | None = None


def read_packet(tcp, ecn=0):
    """A Packet from the bytes of a segment that a stack has sent: its options are expected to be well-formed."""
    seq, ack, offset, flags, window = struct.unpack_from("!4xIIBBH", tcp)
    header = (offset >> 4) * 4
    ts, sack, wscale, at = None, (), None, 20
    while at < header and tcp[at] != 0:
        if tcp[at] == 1:
            at += 1
            continue
        kind, length = tcp[at], tcp[at + 1]
        assert length >= 2 and at + length <= header, f"malformed options: {bytes(tcp[20:header]).hex()}"
        if kind == 8:
            assert length == 10 and ts is None
            ts = struct.unpack_from("!II", tcp, at + 2)
        elif kind == 5:
            assert not sack and length in (10, 18, 26, 34)
            sack = tuple(struct.unpack_from("!II", tcp, at + 2 + 8 * i) for i in range((length - 2) // 8))
        else:
            assert flags & SYN and kind in (2, 3, 4), f"an option of kind {kind} was sent"
            wscale = tcp[at + 2] if kind == 3 else wscale
        at += length
    return Packet(seq, ack, flags, window, bytes(tcp[header:]), ts, sack, ecn, wscale)


class Wire:
    """The namespaces, the packet socket, and the order of things. One thread uses it, and stays on one CPU."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self.host, peer = Namespace(), Namespace()
        self._stack.callback(self.host.close)
        self._stack.callback(peer.close)
        for name, value in SETTINGS.items():
            self.host.sysctl(name, value)
        host_end, peer_end = veth_pair(self.host, peer, addresses_a=("10.9.0.1/24",), addresses_b=(), offloads=False)
        device, mac = host_end.name, PEER_MAC.hex(":")
        self.host.run(["ip", "neighbour", "replace", "10.9.0.2", "lladdr", mac, "nud", "permanent", "dev", device])
        route = ["10.9.0.0/24", "dev", device, "proto", "kernel", "scope", "link", "src", "10.9.0.1"]
        self.host.run(["ip", "route", "replace", *route, "rto_min", f"{MIN_RTO_MS}ms", "quickack", "1"])
        self._host_mac = host_end.mac
        self._socket = peer.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_IPV4))
        self._stack.callback(self._socket.close)
        self._socket.bind((peer_end.name, ETHER_IPV4))
        self._socket.settimeout(_PATIENCE)
        self.listener = self.host.socket()
        self._stack.callback(self.listener.close)
        self.listener.bind((socket.inet_ntoa(HOST), LISTENING_PORT))
        self.listener.listen()
        self._fences = 0
        self._affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._affinity)})

    def close(self):
        """Gives back what was taken."""
        os.sched_setaffinity(0, self._affinity)
        self._stack.close()

    def send(self, segment, ecn=0):
        """A TCP segment (header and payload) goes to the host; its checksum is filled in."""
        packet = bytearray(ip_packet(PEER, HOST, checked(PEER, HOST, segment)))
        if ecn:
            packet[1] = ecn
            packet[10:12] = b"\0\0"
            packet[10:12] = checksum(packet[:20]).to_bytes(2, "big")
        self._socket.send(ethernet(self._host_mac, PEER_MAC, ETHER_IPV4, bytes(packet)))

    def wait(self, timeout):
        """Until the host sends something, which is not taken yet, but not longer than `timeout` seconds."""
        select.select([self._socket], [], [], timeout)

    def answers(self, port):
        """What the host has sent to a port of the peer's until now."""
        self._fences = (self._fences + 1) & MASK
        mark = struct.pack("!I", self._fences)
        echo = struct.pack("!BBH", _ECHO_REQUEST, 0, 0) + mark
        echo = echo[:2] + checksum(echo).to_bytes(2, "big") + echo[4:]
        self._socket.send(ethernet(self._host_mac, PEER_MAC, ETHER_IPV4, ip_packet(PEER, HOST, echo, protocol=ICMP)))
        found = []
        while True:
            frame = self._socket.recv(_FRAME)
            packet = frame[_ETHERNET : _ETHERNET + int.from_bytes(frame[16:18], "big")]
            if packet[9] == ICMP and packet[20] == _ECHO_REPLY and packet[24:28] == mark:
                return found
            if packet[9] == socket.IPPROTO_TCP and int.from_bytes(packet[22:24], "big") == port:
                found.append(read_packet(packet[20:], packet[1] & 3))


def build(seq, ack, flags, window, data=b"", ts=None, sack=(), options=b"", urgent=0):
    """A segment of the peer's, without ports and checksum."""
    if ts is not None:
        options += struct.pack("!BBBBII", 1, 1, 8, 10, ts[0] & MASK, ts[1] & MASK)
    if sack:
        options += struct.pack("!BBBB", 1, 1, 5, 2 + 8 * len(sack))
        options += b"".join(struct.pack("!II", *block) for block in sack)
    words = 5 + len(options) // 4
    return (
        struct.pack("!HHIIBBHHH", 0, 0, seq & MASK, ack & MASK, words << 4, flags, window, 0, urgent) + options + data
    )
