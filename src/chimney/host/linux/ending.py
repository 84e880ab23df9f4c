"""A connection that ended while the kernel did not have it: the socket is made to show what the kernel's would show.

An RST of the peer's (ECONNRESET; EPIPE if its FIN came before) is injected. A time-out is the kernel's own: it takes
the connection with one byte in flight that the peer has acknowledged long ago, and is told to wait for some
milliseconds only. What was lost on the way (ECONNABORTED) is destroyed, by which the peer gets an RST. Whatever is
unread can be read before.

Sources: tcp(7), sock_diag(7), linux/tcp.h; RFC 9293 (3.10.7.4, 3.8.3); the rest was observed.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from dataclasses import replace

from chimney.host.linux import diagnosis, inject, nowhere
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import KernelState
from chimney.host.linux.restore import Connect, connect, fill_queues, peer_says, set_filter, set_options, set_window

_TCP = so.IPPROTO_TCP
_USER_TIMEOUT_MS = 1
# Two ticks of a kernel with 250 of them a second, the least that it takes.
_RTO_MIN_US = 8_000
# Without TCP_RTO_MIN_US (Linux 6.15) it takes two time-outs of 200 ms.
_PATIENCE_MS = 5_000
# By which ICMP type and code the kernel comes to an error (RFC 792, RFC 4443).
_ICMP = {errno.ENETUNREACH: (3, 0), errno.ENOPROTOOPT: (3, 2), errno.ECONNREFUSED: (3, 3), errno.EPROTO: (12, 0)}
_ICMPV6 = {errno.ENETUNREACH: (1, 0), errno.EACCES: (1, 1), errno.ECONNREFUSED: (1, 4), errno.EPROTO: (4, 0)}


class Dying:
    """A socket whose connection times out in some milliseconds; it hears nothing any more."""

    def __init__(self, sock: socket.socket, own_filter: so.Filter | None) -> None:
        self._filter = own_filter
        self._user_timeout = sock.getsockopt(_TCP, so.TCP_USER_TIMEOUT)
        self._rto_min = _rto_min(sock)
        sock.setsockopt(_TCP, so.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        if self._rto_min:
            sock.setsockopt(_TCP, so.TCP_RTO_MIN_US, _RTO_MIN_US)

    def wait(self, sock: socket.socket) -> None:
        """Wait until it has ended, and put the application's options back on ``sock``, any descriptor of it."""
        ended = select.poll()
        ended.register(sock.fileno(), 0)
        ended.poll(_PATIENCE_MS)
        sock.setsockopt(_TCP, so.TCP_USER_TIMEOUT, self._user_timeout)
        if self._rto_min:
            sock.setsockopt(_TCP, so.TCP_RTO_MIN_US, self._rto_min)
        set_filter(sock, self._filter)


def end(
    sock: socket.socket, state: KernelState, own_filter: so.Filter | None, joined: Connect = nowhere.connect
) -> Dying | None:
    """Make a recycled socket in repair mode show how its connection ended (``state.error``), and what is unread.

    ``joined``: see `restore.restore`. Returns what is to be waited for before the socket shows it. Raises OSError and
    UploadFailed.
    """
    timed_out = state.error not in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
    rcv_nxt = (state.rcv_nxt - state.fin_received) & 0xFFFFFFFF
    # Two bytes: the acknowledgement of the first one teaches a round trip, without which a time-out takes seconds.
    snd_una = (state.snd_una - 2 * timed_out) & 0xFFFFFFFF
    connect(sock, state, snd_una, (rcv_nxt - sum(map(len, state.receive_queue))) & 0xFFFFFFFF, joined)
    set_options(sock, replace(state, timestamps=True) if timed_out else state)
    fill_queues(sock, state, [])
    set_window(sock, state, rcv_nxt)
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.ONLY_INJECTED.program)
    sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.SEND_QUEUE)
    if state.fin_received:
        # Its acknowledgement would be news to nobody.
        with so.muted(sock, ipv6=len(state.local.address) == 16):
            peer_says(state, rcv_nxt, snd_una, inject.FIN | inject.ACK)
        if state.error == errno.ECONNRESET:
            # In CLOSE-WAIT the kernel would tell EPIPE; it stays silent about our FIN.
            sock.shutdown(socket.SHUT_WR)
    if timed_out:
        return _let_die(sock, state, own_filter, snd_una)
    if state.error == errno.ECONNABORTED:
        destroy(sock, state)
    else:
        peer_says(state, state.rcv_nxt, snd_una, inject.RST)
    sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)
    sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_OFF)
    set_filter(sock, own_filter)
    return None


def _let_die(sock: socket.socket, state: KernelState, own_filter: so.Filter | None, snd_una: int) -> Dying:
    for _ in range(2):
        sock.send(b"\0", socket.MSG_EOR)
    # The kernel measures what it has not sent itself by timestamps alone.
    echo = state.ts_recent or 1, sock.getsockopt(_TCP, so.TCP_TIMESTAMP) & 0xFFFFFFFE
    dying = Dying(sock, own_filter)
    peer_says(state, state.rcv_nxt, (snd_una + 1) & 0xFFFFFFFF, inject.ACK, echo)
    if state.error != errno.ETIMEDOUT:
        _network_says(state, (snd_una + 1) & 0xFFFFFFFF)
    sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)
    sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_OFF)
    return dying


def _network_says(state: KernelState, seq: int) -> None:
    """The cause of the time-out, once more: an ICMP error about the byte in flight."""
    ipv6 = len(state.local.address) == 16
    kind, code = (_ICMPV6 if ipv6 else _ICMP).get(state.error, (1, 3) if ipv6 else (3, 1))
    tcp = struct.pack("!HHI", state.local.port, state.remote.port, seq)
    if ipv6:
        ip = struct.pack("!IHBB", 6 << 28, 20, _TCP, 64)
    else:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, _TCP, 0)
    said = struct.pack("!BBHI", kind, code, 0, 0) + ip + state.local.address + state.remote.address + tcp
    inject.icmp(said, state.remote.address, state.local.address)


def destroy(sock: socket.socket, state: KernelState) -> None:
    """End a socket's connection with ECONNABORTED, and an RST; without an error where the kernel cannot do that."""
    try:
        diagnosis.destroy(state.local, state.remote, sock.getsockopt(so.SOL_SOCKET, so.SO_COOKIE, 8))
    except OSError:
        so.disconnect(sock.fileno())


def _rto_min(sock: socket.socket) -> int:
    try:
        return sock.getsockopt(_TCP, so.TCP_RTO_MIN_US)
    except OSError:
        return 0
