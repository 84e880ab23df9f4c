"""The kernel's firewall: its news, and what it does to the segments of a connection that is out of the kernel.

What the target receives comes from the wire, but the kernel has its own copy of every frame, which the firewall judges
on its way to the placeholder; what passes is dropped there, and counted. What the target sends meets no firewall: an
acknowledgement through a raw socket does, and is refused where the firewall drops it.

Sources: linux/netfilter/nfnetlink.h, nf_tables.h, linux/netfilter_ipv4/ip_tables.h, linux/sock_diag.h; raw(7),
netlink(7). Seen on Linux: the drops that a socket's filter makes count wire segments, merged or not.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import socket
import struct

from chimney.host.errors import NotOffloadable
from chimney.host.linux import conntrack, inject, netlink
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import Endpoint, KernelState, TcpState, endpoint_of

# The peer is there as long as not both sides have closed, and takes a segment that says nothing new for what it is.
_OPEN = (TcpState.ESTABLISHED, TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.CLOSE_WAIT)
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8
_NFTABLES_NEWS = 7
_NEW_GENERATION = 10 << 8 | 15
_LARGEST_NEWS = 4096
_LD_H_ABS, _JEQ_K, _RET_K = 0x28, 0x15, 0x06
# A netlink message's type stands in the machine's order; a filter loads in the network's.
_ONLY_GENERATIONS = so.assemble(
    (_LD_H_ABS, 0, 0, 4),
    (_JEQ_K, 0, 1, int.from_bytes(struct.pack("=H", _NEW_GENERATION), "big")),
    (_RET_K, 0, 0, 0xFFFFFFFF),
    (_RET_K, 0, 0, 0),
)
# Names of a table and of getsockopt's answers, of iptables and ip6tables (not their nft variants).
_LEGACY = (("ip_tables_names", socket.AF_INET, socket.IPPROTO_IP), ("ip6_tables_names", socket.AF_INET6, 41))
_GET_INFO, _GET_ENTRIES = 64, 65
_libc = ctypes.PyDLL(None, use_errno=True)
_TABLE_NAME = 32
_INFO = struct.Struct("=32s13I")
_ENTRIES_HEADER = 40
# Of struct ipt_entry and ip6t_entry: its size, and where the offset of the next one stands; behind that, only where the
# rule came from, and its counters.
_ENTRY: dict[int, tuple[int, int]] = {socket.AF_INET: (112, 90), socket.AF_INET6: (168, 142)}


class LinuxFirewall:
    """Implements `host.passage.KernelFirewall`: news of nftables, and of the legacy iptables, which has none to tell.

    Raises OSError.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._news = socket.socket(socket.AF_NETLINK, kind, netlink.NETLINK_NETFILTER)
        except OSError as error:
            if error.errno != errno.EPROTONOSUPPORT:
                raise
            # A kernel without nftables has no news of them: this socket is never readable.
            self._news = socket.socket(socket.AF_NETLINK, kind, netlink.NETLINK_ROUTE)
        else:
            self._subscribe()
        try:
            self._legacy = _legacy_rules()
        except BaseException:
            self._news.close()
            raise

    def _subscribe(self) -> None:
        try:
            self._news.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, _ONLY_GENERATIONS.program)
            self._news.bind((0, 1 << _NFTABLES_NEWS - 1))
        except BaseException:
            self._news.close()
            raise

    def fileno(self) -> int:
        return self._news.fileno()

    def read(self) -> bool:
        news = False
        while True:
            try:
                self._news.recv(_LARGEST_NEWS)
            except BlockingIOError:
                return news
            except OSError as error:
                # Some were lost: there was something, then.
                if error.errno != errno.ENOBUFS:
                    raise
            news = True

    def look(self) -> bool:
        before = self._legacy
        try:
            self._legacy = _legacy_rules()
        except OSError:
            # No descriptor is left: the next look tells.
            return False
        return self._legacy != before

    def tracked_for(self) -> int:
        return conntrack.forgets_after() * 1_000_000

    def close(self) -> None:
        self._news.close()


def _legacy_rules() -> dict[str, bytes]:
    """A digest of each table of the legacy iptables that there is, without its counters."""
    found = {}
    for names, family, level in _LEGACY:
        try:
            with open(f"/proc/thread-self/net/{names}") as listed:
                tables = listed.read().split()
        except OSError:
            # Not built in, or not ours to see.
            continue
        if tables:
            with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as asking:
                for table in tables:
                    found[f"{names}:{table}"] = _legacy_digest(asking, family, level, table)
    return found


def _legacy_digest(asking: socket.socket, family: int, level: int, table: str) -> bytes:
    name = table.encode().ljust(_TABLE_NAME, b"\0")
    try:
        size = _INFO.unpack(_ask(asking, level, _GET_INFO, name.ljust(_INFO.size, b"\0")))[-1]
        request = (name + struct.pack("=I", size)).ljust(_ENTRIES_HEADER + size, b"\0")
        rules = _ask(asking, level, _GET_ENTRIES, request)[_ENTRIES_HEADER:]
    except OSError:
        # It has just been exchanged, or is not ours to see: the next look tells.
        return b""
    digest = hashlib.sha1(usedforsecurity=False)
    head, next_at = _ENTRY[family]
    at = 0
    while at + head <= len(rules):
        digest.update(rules[at : at + next_at + 2])
        length = struct.unpack_from("=H", rules, at + next_at)[0]
        if length < head:
            break
        digest.update(rules[at + head : at + length])
        at += length
    return digest.digest()


def _ask(sock: socket.socket, level: int, option: int, request: bytes) -> bytes:
    """getsockopt with a question in the buffer, which Python's has no room for."""
    buffer = ctypes.create_string_buffer(request, len(request))
    if _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(ctypes.c_uint32(len(request)))):
        error = ctypes.get_errno()
        raise OSError(error, f"getsockopt: {os.strerror(error)}")
    return buffer.raw


class LinuxPassage:
    """Implements `host.passage.Passage` for the placeholder ``sock``; ``device`` is the index of the device to which
    the application has bound it (0: none). ``acknowledged``: a segment has left.
    """

    def __init__(self, sock: socket.socket, local: Endpoint, remote: Endpoint, device: int) -> None:
        self._socket = sock
        self._local = local
        self._remote = remote
        self._device = device
        self.acknowledged = False

    def let_in(self) -> int:
        told = self._socket.getsockopt(so.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        dropped: int = _MEMINFO.unpack(told)[_MEMINFO_DROPS]
        return dropped

    def lets_out(self, seq: int, ack: int, window: int) -> bool:
        self.acknowledged = True
        try:
            examiner = Examiner(self._socket, self._local, self._remote, self._device)
        except OSError:
            # No descriptor is left, or the right to have such a socket has gone: nobody knows.
            return True
        with examiner:
            return examiner.lets_out(seq, ack, window)

    def keep_tracked(self) -> bool:
        try:
            return conntrack.keep(self._local, self._remote)
        except OSError:
            return True


class Examiner:
    """A raw socket whose packets the firewall judges as those of ``sock``; made before it is needed in a hurry."""

    def __init__(self, sock: socket.socket, local: Endpoint, remote: Endpoint, device: int) -> None:
        self._local = local
        self._remote = remote
        ipv6 = len(local.address) == 16
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
        try:
            self._raw.setblocking(False)
            if ipv6:
                self._raw.setsockopt(socket.IPPROTO_IPV6, so.IPV6_HDRINCL, 1)
            for option in (so.SO_MARK, socket.SO_PRIORITY):
                value = sock.getsockopt(so.SOL_SOCKET, option)
                if value:
                    self._raw.setsockopt(so.SOL_SOCKET, option, value)
            if device:
                self._raw.setsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX, device)
        except BaseException:
            self._raw.close()
            raise

    @classmethod
    def of(cls, sock: socket.socket) -> Examiner:
        """For a connected socket that is the kernel's still. Raises NotOffloadable."""
        try:
            local, remote = endpoint_of(sock.getsockname()), endpoint_of(sock.getpeername())
            return cls(sock, local, remote, sock.getsockopt(so.SOL_SOCKET, so.SO_BINDTOIFINDEX))
        except OSError as error:
            raise NotOffloadable(f"{sock!r} cannot be offloaded: {error}") from error

    def __enter__(self) -> Examiner:
        return self

    def __exit__(self, *problem: object) -> None:
        self._raw.close()

    def check(self, state: KernelState) -> None:
        """Whether the firewall lets out what a connection sends that is being taken. Raises NotOffloadable."""
        edge = (state.rcv_wup + state.rcv_wnd - state.rcv_nxt) & 0xFFFFFFFF
        # Rounded up, as Linux does: the right edge must not move back.
        window = min((edge + (1 << state.rcv_wscale) - 1) >> state.rcv_wscale, 0xFFFF)
        if state.state in _OPEN and not self.lets_out(state.snd_nxt, state.rcv_nxt, window):
            raise NotOffloadable(
                f"{self._local} -> {self._remote} cannot be offloaded: the firewall drops what is to be sent (its"
                " output or postrouting rules); let it out first"
            )

    def lets_out(self, seq: int, ack: int, window: int) -> bool:
        """As `Passage.lets_out`. Without a timestamp: a peer that misses it ignores the segment (RFC 7323, 3.2), and
        others hear nothing new.
        """
        segment = inject.segment(self._local, self._remote, seq, ack, inject.ACK, window)
        try:
            inject.send_segment(self._raw, segment, self._local.address, self._remote.address)
        except PermissionError:
            return False
        except OSError:
            # No route, no room: not the firewall's doing.
            pass
        return True
