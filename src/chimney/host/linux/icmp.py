"""ICMP as the kernel passes it up, after its firewall, and messages that the kernel shall process in their place.

A placeholder's sequence numbers are those of no segment on the wire, so that the kernel believes no message about an
offloaded connection. What the host has found to be true it says again, about the placeholder: then route and socket
learn what they would have learnt. Sources: raw(7), icmp(7), RFC 3542 (ICMP6_FILTER), linux/icmp.h, linux/icmpv6.h.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import ExitStack

from chimney.host.icmp import IPV4_TYPES, IPV6_TYPES, IcmpMessage, parse_ipv4, parse_ipv6
from chimney.host.linux import inject
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import read_info

_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_NOW = socket.MSG_DONTWAIT
# Messages quote 576 bytes at most (RFC 1812), or 1280 (RFC 4443).
_LARGEST = 2048
_TCP = socket.IPPROTO_TCP
_TTL = 64


class IcmpSockets:
    """Both versions' messages about segments that this network namespace has sent; implements `IcmpSource`.

    Made in the thread's network namespace. Raises OSError without CAP_NET_RAW.
    """

    def __init__(self) -> None:
        self._opened = ExitStack()
        try:
            self._epoll = select.epoll()
            self._opened.callback(self._epoll.close)
            self._sockets = {sock.fileno(): sock for sock in (self._open_ipv4(), self._open_ipv6()) if sock}
            self.listen(True)
            for fd in self._sockets:
                self._epoll.register(fd, select.EPOLLIN)
        except BaseException:
            self._opened.close()
            raise

    def _open_ipv4(self) -> socket.socket:
        sock = self._opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        passed = sum(1 << kind for kind in IPV4_TYPES)
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~passed & 0xFFFFFFFF))
        return sock

    def _open_ipv6(self) -> socket.socket | None:
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        except OSError:
            # A kernel without IPv6 has no such connections either.
            return None
        self._opened.enter_context(sock)
        passed = sum(1 << kind for kind in IPV6_TYPES)
        # A set bit blocks (linux/icmpv6.h); all types that are asked for are in the first word.
        blocked = struct.pack("=8I", ~passed & 0xFFFFFFFF, *[0xFFFFFFFF] * 7)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, blocked)
        return sock

    def fileno(self) -> int:
        return self._epoll.fileno()

    def listen(self, on: bool) -> None:
        """Without, the kernel drops what comes before it costs anything. Never heard is what this program injects."""
        heard = so.NOT_INJECTED if on else so.DROP_ALL
        for sock in self._sockets.values():
            sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, heard.program)

    def read(self, most: int) -> tuple[int, list[IcmpMessage]]:
        count, found = 0, []
        for fd, _ in self._epoll.poll(0):
            sock = self._sockets[fd]
            while count < most:
                try:
                    data, address = sock.recvfrom(_LARGEST, _NOW)
                except OSError:
                    # Nothing more, or an error of the socket's, which is told once.
                    break
                count += 1
                message = _parse(sock.family, memoryview(data), address[0])
                if message is not None:
                    found.append(message)
        return count, found

    def close(self) -> None:
        self._opened.close()


def _parse(family: int, data: memoryview, sender: str) -> IcmpMessage | None:
    if family == socket.AF_INET:
        # The kernel gives raw sockets IPv4's messages before it looks at their checksums.
        header = (data[0] & 15) * 4
        return None if inject.checksum(bytes(data[header:])) else parse_ipv4(data)
    return parse_ipv6(socket.inet_pton(socket.AF_INET6, sender.partition("%")[0]), data)


def tell(sock: socket.socket, message: IcmpMessage, placeholder: bool) -> None:
    """Let the kernel process a message about a connection.

    `placeholder`: about its placeholder `sock`, whatever segment it quotes. Raises OSError.
    """
    seq = message.seq
    if placeholder:
        seq = _position(sock)
        if len(message.flow.local_address) == 16:
            _believe_any_mtu(sock)
    inject.icmp(quoting(message, seq), message.sender, message.flow.local_address, sock)


def tells_errors(sock: socket.socket) -> bool:
    """Whether IP_RECVERR is set for the version that the socket's packets have, or for both."""
    if sock.getsockopt(socket.IPPROTO_IP, _IP_RECVERR):
        return True
    return sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR))


def _position(sock: socket.socket) -> int:
    """SND.UNA of a placeholder, which is its SND.NXT."""
    sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.SEND_QUEUE)
    try:
        return sock.getsockopt(_TCP, so.TCP_QUEUE_SEQ) & 0xFFFFFFFF
    finally:
        sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)


def _believe_any_mtu(sock: socket.socket) -> None:
    """The kernel ignores an ICMPv6 message that would not make the socket's segments smaller. A placeholder has smaller
    ones from the beginning; the peer's MSS, as it is said to be, makes what would come out smaller still.
    """
    smaller = struct.pack("=II", so.TCPOPT_MAXSEG, read_info(sock).snd_mss - 1)
    sock.setsockopt(_TCP, so.TCP_REPAIR_OPTIONS, smaller)


def quoting(message: IcmpMessage, seq: int) -> bytes:
    """The ICMP message, less its checksum, which quotes a segment with this sequence number."""
    flow = message.flow
    tcp = struct.pack("!HHIIHHHH", flow.local_port, flow.remote_port, seq, 0, 0x5010, 0, 0, 0)
    if len(flow.local_address) == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, _TTL, _TCP, 0)
        ip += flow.local_address + flow.remote_address
        ip = ip[:10] + struct.pack("!H", inject.checksum(ip)) + ip[12:]
    else:
        ip = struct.pack("!IHBB", 6 << 28, len(tcp), _TCP, _TTL) + flow.local_address + flow.remote_address
    return bytes((message.type, message.code, 0, 0)) + message.word + ip + tcp
