"""An independent observer of TCP on one interface.

It reads a memory-mapped AF_PACKET ring (TPACKET_V2, headers only: nothing is lost while nobody reads) and keeps, for
every direction of every connection, what a judge needs: bytes, retransmissions, resets, the longest silence, and
whether the timestamp clock and the right edge of the window ever went back.

Sources: Documentation/networking/packet_mmap.rst; linux/if_packet.h; RFC 9293 (3.1), RFC 7323 (2, 3).
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from chimney.lab.namespace import Namespace

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
TPACKET_V2 = 1
TP_STATUS_USER = 1
SLL_AT = 32
SO_ATTACH_FILTER = 26

_PAGE = 4096
_BLOCK = 1 << 16

Endpoint = tuple[bytes, int]


@dataclass
class Packet:
    """One observed frame (a super-segment counts as one). `data`: its first bytes, from the Ethernet header on."""

    time: float
    outgoing: bool
    source: Endpoint
    destination: Endpoint
    seq: int
    ack: int
    flags: int
    window: int
    length: int
    ts_val: int | None
    ts_ecr: int | None
    window_scale: int | None
    data: bytes


@dataclass
class Direction:
    """What one side of a connection has sent so far. Sequence numbers are as on the wire; times are in seconds."""

    segments: int = 0
    bytes: int = 0
    retransmitted_segments: int = 0
    retransmitted_bytes: int = 0
    resets: int = 0
    syns: int = 0
    fins: int = 0
    longest_silence: float = 0.0
    last_time: float = 0.0
    last_seq: int = 0
    last_ack: int = 0
    last_window: int = 0
    last_ts: int | None = None
    window_scale: int | None = None
    right_edge: int | None = None
    right_edge_retreat: int = 0
    ts_retreat: int = 0
    seq_end: int | None = None

    def note(self, packet: Packet) -> None:
        """Take one packet of this direction into account."""
        if self.segments:
            self.longest_silence = max(self.longest_silence, packet.time - self.last_time)
        self.segments += 1
        self.last_time = packet.time
        self.last_seq, self.last_window = packet.seq, packet.window
        self.resets += bool(packet.flags & RST)
        self.fins += bool(packet.flags & FIN)
        if packet.flags & SYN:
            self.syns += 1
            self.window_scale = packet.window_scale or 0
        if packet.flags & RST:
            return
        self._note_data(packet)
        if packet.ts_val is not None:
            if self.last_ts is not None:
                self.ts_retreat = max(self.ts_retreat, -signed(packet.ts_val - self.last_ts))
            self.last_ts = packet.ts_val
        if packet.flags & ACK:
            self._note_window(packet)

    def _note_data(self, packet: Packet) -> None:
        self.bytes += packet.length
        size = packet.length + bool(packet.flags & SYN) + bool(packet.flags & FIN)
        end = (packet.seq + size) & 0xFFFFFFFF
        if self.seq_end is None:
            self.seq_end = end
            return
        behind = -signed(packet.seq - self.seq_end)
        if size and behind > 0:
            self.retransmitted_segments += 1
            self.retransmitted_bytes += min(behind, packet.length)
        if signed(end - self.seq_end) > 0:
            self.seq_end = end

    def _note_window(self, packet: Packet) -> None:
        self.last_ack = packet.ack
        if self.window_scale is None:
            return
        window = packet.window if packet.flags & SYN else packet.window << self.window_scale
        edge = (packet.ack + window) & 0xFFFFFFFF
        if self.right_edge is None or signed(edge - self.right_edge) > 0:
            self.right_edge = edge
        else:
            self.right_edge_retreat = max(self.right_edge_retreat, -signed(edge - self.right_edge))


@dataclass
class Tap:
    """Observe TCP on `interface` inside `namespace`, from now on; `drain()` takes what has arrived into account.

    `keep`: bytes of every frame that are kept in `Packet.data`. `slots`: frames that fit before `drain` must be called
    (`lost()` says how many did not). `on_packet` is called with every packet, in order. Endpoints are (address bytes,
    port): `direction(source, destination)`.
    """

    namespace: Namespace
    interface: str
    keep: int = 160
    slots: int = 32768
    on_packet: Callable[[Packet], None] | None = None
    directions: dict[tuple[Endpoint, Endpoint], Direction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slot = 128
        while self._slot < self.keep + 96:
            self._slot *= 2
        block = max(_BLOCK, self._slot)
        self.slots = max(1, self.slots * self._slot // block) * (block // self._slot)
        self._next = 0
        self._lost = 0
        self._socket = self.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._open(block)
        except BaseException:
            self._socket.close()
            raise

    def _open(self, block: int) -> None:
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, struct.pack("i", TPACKET_V2))
        truncate = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, self.keep), 8)
        program = struct.pack("HxxxxxxP", 1, ctypes.addressof(truncate))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        size = self.slots * self._slot
        ring = struct.pack("IIII", block, size // block, self._slot, self.slots)
        self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, ring)
        self._ring = mmap.mmap(self._socket.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        with self.namespace:
            self._socket.bind((self.interface, ETH_P_ALL))
        self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """End the observation; what was counted stays readable. Harmless when repeated."""
        if not self._ring.closed:
            self._ring.close()
        self._socket.close()

    def fileno(self) -> int:
        """Readable when something waits to be drained."""
        return self._socket.fileno()

    def lost(self) -> int:
        """Frames that found no free slot since the start: other than 0, the counts are not to be trusted."""
        self._lost += struct.unpack_from("I", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12), 4)[0]
        return self._lost

    def direction(self, source: Endpoint, destination: Endpoint) -> Direction:
        """What `source` has sent to `destination`; made empty if nothing was seen yet."""
        return self.directions.setdefault((source, destination), Direction())

    def resets(self) -> int:
        """RST segments seen on all connections."""
        return sum(direction.resets for direction in self.directions.values())

    def drain(self) -> list[Packet]:
        """The TCP packets that arrived since the last call, in order."""
        packets = []
        ring = self._ring
        for _ in range(self.slots):
            at = self._next * self._slot
            status, length, kept, mac_at, _, seconds, nanoseconds = struct.unpack_from("IIIHHII", ring, at)
            if not status & TP_STATUS_USER:
                break
            kind = ring[at + SLL_AT + 10]
            frame = ring[at + mac_at : at + mac_at + kept]
            struct.pack_into("I", ring, at, 0)
            self._next = (self._next + 1) % self.slots
            packet = parse(frame, length, seconds + nanoseconds * 1e-9, kind == socket.PACKET_OUTGOING)
            if packet is None or (packet.outgoing and self.interface == "lo"):
                continue
            packets.append(packet)
            self.direction(packet.source, packet.destination).note(packet)
            if self.on_packet is not None:
                self.on_packet(packet)
        return packets


def signed(difference: int) -> int:
    """A difference of two 32-bit sequence numbers or clocks as a signed number."""
    difference &= 0xFFFFFFFF
    return difference - (1 << 32) if difference >> 31 else difference


def parse(frame: bytes, length: int, time: float, outgoing: bool) -> Packet | None:
    """A frame's TCP header; None when it is not TCP over plain IPv4 or IPv6. `length`: of the whole frame, in bytes."""
    ethertype = frame[12:14]
    if ethertype == b"\x08\x00" and frame[23] == 6:
        tcp_at = 14 + (frame[14] & 15) * 4
        total = struct.unpack_from("!H", frame, 16)[0]
        end = 14 + total if total else length
        source, destination = frame[26:30], frame[30:34]
    elif ethertype == b"\x86\xdd" and frame[20] == 6:
        tcp_at = 54
        total = struct.unpack_from("!H", frame, 18)[0]
        end = 54 + total if total else length
        source, destination = frame[22:38], frame[38:54]
    else:
        return None
    source_port, destination_port, seq, ack, offset_flags, window = struct.unpack_from("!HHIIHH", frame, tcp_at)
    header = (offset_flags >> 12) * 4
    ts_val, ts_ecr, scale = _options(frame[tcp_at + 20 : tcp_at + header])
    return Packet(
        time=time,
        outgoing=outgoing,
        source=(source, source_port),
        destination=(destination, destination_port),
        seq=seq,
        ack=ack,
        flags=offset_flags & 0xFF,
        window=window,
        length=end - tcp_at - header,
        ts_val=ts_val,
        ts_ecr=ts_ecr,
        window_scale=scale,
        data=frame,
    )


def _options(options: bytes) -> tuple[int | None, int | None, int | None]:
    ts_val = ts_ecr = scale = None
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            break
        if options[at] == 8 and size == 10:
            ts_val, ts_ecr = struct.unpack_from("!II", options, at + 2)
        elif options[at] == 3 and size == 3:
            scale = options[at + 2]
        at += size
    return ts_val, ts_ecr, scale
