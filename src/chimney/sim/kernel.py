"""The model of a kernel: its sockets by flow, and what it answers to segments that no socket wants."""

from __future__ import annotations

import socket
from struct import Struct
from typing import TYPE_CHECKING

from chimney.host.kernel import Flow
from chimney.host.linux.dump import TcpState
from chimney.link.base import NEVER
from chimney.link.base import Flow as LinkFlow
from chimney.link.checksum import is_valid, ones_sum, pseudo_header_sum
from chimney.sim.model import ModelTcp, Segment, build, parse, reset_for
from chimney.sim.tap import flow_key, key_of

if TYPE_CHECKING:
    from chimney.sim.machine import Machine

_HOPS = 64
_TCP = 6
# Version and sizes, type of service, length, identification, "don't fragment", hops, protocol, checksum; addresses.
_IPV4 = Struct("!BBHHHBBH")
# The words among these that are always the same.
_CONSTANT_WORDS = 0x4500 + 0x4000 + (_HOPS << 8 | _TCP)
_IPV6 = Struct("!IHBB")


class ProcessDied(BaseException):
    """The process has died in the middle of a hand-over: nothing of what it was about to do is done any more."""


class SimSocket:
    """A socket of a simulated machine: what a `Connection` and its kernel's side want of a socket.

    tcp         the connection; None while the socket is the placeholder of one that is somewhere else.
    hears       whether segments reach it: not while a cover takes them, or a filter drops them.
    repair      whether it is in repair mode: closed then, it goes without a word.
    last_state  of the connection when it left.
    descriptors of it that are open: the application's, and that of a kernel's side.
    """

    def __init__(self, kernel: Kernel, descriptor: int, flow: Flow, tcp: ModelTcp) -> None:
        self.kernel = kernel
        self.flow = flow
        self.key = key_of(LinkFlow(flow.local_address, flow.local_port, flow.remote_address, flow.remote_port))
        self.tcp: ModelTcp | None = tcp
        self.hears = True
        self.repair = False
        self.last_state = TcpState.ESTABLISHED
        self._descriptor = descriptor
        self.descriptors = 1
        self._options = {
            (socket.IPPROTO_TCP, socket.TCP_NODELAY): int(tcp.settings.nodelay),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 7200,
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 75,
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 9,
            (socket.IPPROTO_IP, socket.IP_TTL): _HOPS,
            (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS): _HOPS,
            (socket.SOL_SOCKET, socket.SO_RCVBUF): tcp.settings.receive_buffer * 2,
            (socket.SOL_SOCKET, socket.SO_SNDBUF): tcp.settings.send_buffer * 2,
        }

    def __repr__(self) -> str:
        return f"<SimSocket of {self.kernel.machine.name}>"

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._descriptor

    def getsockopt(self, level: int, option: int) -> int:
        """The value of an option, 0 for one that nobody has set."""
        return self._options.get((level, option), 0)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Set an option; only TCP_NODELAY has consequences."""
        self._options[level, option] = value
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_NODELAY) and self.tcp is not None:
            self.tcp.settings.nodelay = bool(value)

    def set_nodelay(self, on: bool) -> None:
        """Set TCP_NODELAY."""
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(on))

    def duplicate(self) -> None:
        """One more descriptor of the same socket."""
        self.descriptors += 1

    def close(self) -> None:
        """The application's descriptor is closed."""
        if self._descriptor >= 0:
            self._descriptor = -1
            self.release()

    def release(self) -> None:
        """A descriptor is closed; with the last one, the socket is."""
        self.descriptors -= 1
        if not self.descriptors:
            self._closed()

    def close_all(self) -> None:
        """The process has gone: so are all descriptors."""
        self._descriptor = -1
        if self.descriptors > 0:
            self.descriptors = 0
            self._closed()

    def _closed(self) -> None:
        kernel = self.kernel
        if self.tcp is None or self.repair:
            # The next segment meets nobody.
            self.tcp = None
            kernel.remove(self)
            return
        # No cover and no filter outlives the process.
        self.hears = True
        self.tcp.close(kernel.clock())
        kernel.output(self)


class Kernel:
    """Sockets by flow, and the way of segments between them and the machine's NIC."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.clock = machine.clock
        self._sockets: dict[bytes, SimSocket] = {}
        self._ether_type = b"\x86\xdd" if machine.world.case.ipv6 else b"\x08\x00"
        self._identification = 0
        # Both addresses of a packet -> the sum of their words.
        self._sums: dict[bytes, int] = {}

    def add(self, sock: SimSocket) -> None:
        """A socket takes its flow."""
        self._sockets[sock.key] = sock

    def remove(self, sock: SimSocket) -> None:
        """A socket lets go of its flow; from now on the kernel answers for it."""
        sock.last_state = TcpState.CLOSE
        self._sockets.pop(sock.key, None)
        if sock.tcp is None:
            self.machine.owner = "kernel"

    # Timers

    def next_at(self) -> int:
        """When the next timer expires."""
        at = NEVER
        for sock in self._sockets.values():
            if sock.tcp is not None:
                at = min(at, sock.tcp.poll_at())
        return at

    def expire(self) -> None:
        """Let the timers of one socket expire that are due."""
        now = self.clock()
        for sock in self._sockets.values():
            if sock.tcp is not None and sock.tcp.poll_at() <= now:
                self.output(sock)
                return

    # Segments

    def receive(self, packet: bytes, at: int, key: bytes | None, checksum_ok: bool) -> None:
        """Process an IP packet, which begins at ``at``, of the flow ``key``.

        ``checksum_ok``: somebody has verified the checksums.
        """
        if key is None:
            return
        size = len(key) // 2 - 2
        if packet[at] >> 4 == 4:
            header = (packet[at] & 15) * 4
            total = packet[at + 2] << 8 | packet[at + 3]
        else:
            header = 40
            total = (packet[at + 4] << 8 | packet[at + 5]) + 40
        if total > len(packet) - at or total < header + 20:
            return
        tcp = packet[at + header : at + total]
        if not checksum_ok:
            if size == 4 and not is_valid(packet[at : at + header]):
                return
            if not is_valid(tcp, pseudo_header_sum(key[:size], key[size : 2 * size], len(tcp))):
                return
        segment = parse(tcp)
        if segment is None:
            return
        sock = self._sockets.get(key)
        if sock is not None:
            if not sock.hears:
                return
            if sock.tcp is not None and sock.tcp.state is not TcpState.CLOSE:
                sock.tcp.arrives(segment, self.clock())
                self.output(sock)
                return
        if key[size : 2 * size] == self.machine.flow.local_address:
            self._refuse(segment, key)

    def inject(self, packets: list[bytes]) -> None:
        """Process IP packets that did not come from the NIC now; they have to be for an address of ours."""
        if not self.machine.surroundings.addressed:
            return
        for packet in packets:
            self.receive(packet, 0, flow_key(packet), True)

    def _refuse(self, segment: Segment, key: bytes) -> None:
        """Answer a segment that belongs to no connection."""
        answer = reset_for(segment)
        if answer is not None:
            size = len(key) // 2 - 2
            remote_port, local_port = int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big")
            self._send(answer, key[size : 2 * size], local_port, key[:size], remote_port)

    def output(self, sock: SimSocket) -> None:
        """Send what a socket has to send now."""
        tcp = sock.tcp
        if tcp is None:
            return
        flow = sock.flow
        for segment in tcp.output(self.clock()):
            self._send(segment, flow.local_address, flow.local_port, flow.remote_address, flow.remote_port)
        if tcp.orphaned and tcp.state is TcpState.CLOSE:
            self.remove(sock)

    def _send(self, segment: Segment, source: bytes, source_port: int, destination: bytes, port: int) -> None:
        macs = self.machine.surroundings.macs()
        if macs is None:
            return
        tcp = build(segment, source_port, port)
        size = len(tcp)
        addresses = source + destination
        known = self._sums.get(addresses)
        if known is None:
            known = self._sums[addresses] = ones_sum(addresses)
        total = 0xFFFF ^ ones_sum(tcp, known + _TCP + size)
        if len(source) == 4:
            self._identification = (self._identification + 1) & 0xFFFF
            length = 20 + size
            check = (known + _CONSTANT_WORDS + length + self._identification) % 0xFFFF
            ip = _IPV4.pack(0x45, 0, length, self._identification, 0x4000, _HOPS, _TCP, 0xFFFF - (check or 0xFFFF))
        else:
            ip = _IPV6.pack(6 << 28, size, _TCP, _HOPS)
        frame = bytearray().join((macs, self._ether_type, ip, addresses, tcp))
        at = len(frame) - size + 16
        frame[at] = total >> 8
        frame[at + 1] = total & 0xFF
        self.machine.transmit("kernel", frame)

    def mtu_changed(self, mtu: int) -> None:
        """The path takes other packets from now on, of at most so many bytes."""
        for sock in self._sockets.values():
            if sock.tcp is not None:
                sock.tcp.settings.mtu = mtu
