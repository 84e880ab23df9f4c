"""TCP packets as the kernel passes them up, on chosen network interfaces: raw sockets.

They come reassembled and without extension headers, from any kind of interface, and only what the kernel's firewall and
its check of the way back (rp_filter) have let pass. A raw socket that is bound to an interface costs nothing on all
others.

Sources: raw(7), ip(7), ipv6(7), RFC 3542 (6.1); linux/filter.h.
"""

import errno
import select
import socket
import struct
from collections.abc import Iterable, Mapping

from chimney.link import bpf
from chimney.link.base import Flow

# asm-generic/socket.h, linux/in6.h
_SO_RCVBUFFORCE = 33
_SO_BINDTOIFINDEX = 62
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_IN6_PKTINFO = 20

_LARGEST_PACKET = 1 << 16
_CHUNK = 2 << 20
_MOST_CHUNKS = 4
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_IPV6 = struct.Struct("!IHBB")
_TCP = 6
_HOPS = 64
# With more flows than that on an interface, the filter goes by local ports, which change less often.
_EXACT = 64


class RawSockets:
    """Raw sockets for TCP of the calling thread's network namespace, as many as `listen` asks for.

    receive_buffer  bytes for each of them; less where the system's limit is lower (an ordinary user's).

    Needs CAP_NET_RAW over the network namespace.
    """

    def __init__(self, receive_buffer: int = 8 << 20) -> None:
        self._receive_buffer = receive_buffer
        self._ready = select.epoll()
        self._sockets: dict[tuple[int, int], _Ear] = {}
        self._by_descriptor: dict[int, _Ear] = {}
        self._memory = _Memory()

    def fileno(self) -> int:
        """A descriptor that is readable while packets wait."""
        return self._ready.fileno()

    def listen(self, wanted: Mapping[int, Iterable[tuple[bytes, int, bytes, int]]]) -> None:
        """From now on, hear these flows on these interfaces (by their indices), and nothing else. What has been heard
        already stays. With very many flows, others may be heard as well.

        An interface that is gone is passed over. Raises OSError (EPERM).
        """
        by_socket: dict[tuple[int, int], list[Flow]] = {}
        for index, flows in wanted.items():
            for flow in map(Flow._make, flows):
                family = socket.AF_INET if len(flow.local_address) == 4 else socket.AF_INET6
                by_socket.setdefault((index, family), []).append(flow)
        for place in [place for place in self._sockets if place not in by_socket]:
            self._drop(place)
        for place, some in by_socket.items():
            ear = self._sockets.get(place) or self._open(*place)
            if ear is not None:
                ear.hear(some)

    def receive(self, limit: int) -> list[tuple[memoryview, int]]:
        """What has arrived, about `limit` packets at most: each with its IP header, and where TCP begins in it.

        The header of IPv4 may have options; that of IPv6 has been made anew, and says nothing but addresses and length.
        Checksums are whatever they are, and may have been left for a device to complete.
        """
        packets: list[tuple[memoryview, int]] = []
        while len(packets) < limit:
            ready = self._ready.poll(0)
            if not ready:
                break
            share = max(1, (limit - len(packets)) // len(ready))
            for descriptor, _ in ready:
                ear = self._by_descriptor[descriptor]
                if not ear.take(packets, share, self._memory):
                    # Nobody may have read anything: an interface that goes down is no reason to look again at once.
                    limit = 0
        return packets

    def close(self) -> None:
        """Let go of everything; harmless when repeated."""
        for place in list(self._sockets):
            self._drop(place)
        self._ready.close()

    def _open(self, index: int, family: int) -> "_Ear | None":
        try:
            ear = _Ear(index, family, self._receive_buffer)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EAFNOSUPPORT):
                return None
            raise
        self._sockets[index, family] = ear
        self._by_descriptor[ear.fileno()] = ear
        self._ready.register(ear.fileno(), select.EPOLLIN)
        return ear

    def _drop(self, place: tuple[int, int]) -> None:
        ear = self._sockets.pop(place)
        del self._by_descriptor[ear.fileno()]
        self._ready.unregister(ear.fileno())
        ear.close()


class _Ear:
    """One raw socket."""

    def __init__(self, index: int, family: int, receive_buffer: int) -> None:
        self._known: frozenset[Flow] | frozenset[int] = frozenset()
        self._ipv6 = family == socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
        try:
            bpf.attach(self._socket, bpf.reject_all())
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, index)
            if self._ipv6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._forget_the_first()
        except BaseException:
            self._socket.close()
            raise

    def _forget_the_first(self) -> None:
        """Before it had a filter, the socket has heard everything."""
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def hear(self, flows: list[Flow]) -> None:
        exact = len(flows) <= _EXACT
        wanted = frozenset(flows) if exact else frozenset([flow.local_port for flow in flows])
        if wanted == self._known:
            return
        finest = bpf.Precision.FLOWS if exact else bpf.Precision.LOCAL_PORTS
        bpf.attach_as_fits(
            self._socket, lambda at_most: bpf.compile_raw_filter(flows, at_most=min(at_most, finest))
        )
        self._known = wanted

    def take(self, packets: list[tuple[memoryview, int]], limit: int, memory: "_Memory") -> bool:
        """Append at most ``limit`` packets; whether there may be more."""
        read = self._read_ipv6 if self._ipv6 else self._read_ipv4
        for _ in range(limit):
            try:
                packets.append(read(memory))
            except BlockingIOError:
                return True
            except OSError:
                return False
        return True

    def _read_ipv4(self, memory: "_Memory") -> tuple[memoryview, int]:
        room = memory.room()
        packet = memory.take(self._socket.recv_into(room))
        return packet, (packet[0] & 15) * 4

    def _read_ipv6(self, memory: "_Memory") -> tuple[memoryview, int]:
        room = memory.room()
        size, told, _, source = self._socket.recvmsg_into([room[_IPV6_HEADER:]], socket.CMSG_SPACE(_IN6_PKTINFO))
        _IPV6.pack_into(room, 0, 6 << 28, size & 0xFFFF, _TCP, _HOPS)
        room[8:24] = socket.inet_pton(socket.AF_INET6, source[0].partition("%")[0])
        for level, kind, value in told:
            if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
                room[24:40] = value[:16]
        return memory.take(_IPV6_HEADER + size), _IPV6_HEADER


class _Memory:
    """Where packets are received into: chunks in turn. One is used again when nobody has a view of it any more. Memory
    that is new for each packet would cost twenty times as much, most of it in page faults.
    """

    def __init__(self) -> None:
        self._chunks: list[bytearray] = []
        self._view = memoryview(b"")
        self._at = 0

    def room(self) -> memoryview:
        """Room for the largest packet."""
        if self._at + _LARGEST_PACKET > self._view.nbytes:
            self._view = memoryview(b"")
            self._view = memoryview(self._free_chunk())
            self._at = 0
        return self._view[self._at : self._at + _LARGEST_PACKET]

    def take(self, size: int) -> memoryview:
        """So much of the room is used now."""
        begin = self._at
        self._at += size
        return self._view[begin : self._at]

    def _free_chunk(self) -> bytearray:
        for chunk in self._chunks:
            try:
                # An array cannot change its size as long as there are views of it.
                chunk.append(chunk.pop())
            except BufferError:
                continue
            return chunk
        chunk = bytearray(_CHUNK)
        if len(self._chunks) < _MOST_CHUNKS:
            self._chunks.append(chunk)
        return chunk
