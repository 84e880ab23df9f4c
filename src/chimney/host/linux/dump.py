"""What the kernel tells about a connection in repair mode, and what it is told to restore one.

Sources: linux/tcp.h (struct tcp_info, struct tcp_repair_window), as observed; RFC 9293 (3.3.1).
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from chimney.host.errors import NotOffloadable
from chimney.host.linux import sockopts as so
from chimney.host.linux.timer import monotonic_us

V4_MAPPED = b"\0" * 10 + b"\xff\xff"


class TcpState(enum.IntEnum):
    """States with the kernel's numbers."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


# The FINs that a state implies, as (sent or queued by us, acknowledged by the peer, received).
FINS = {
    TcpState.ESTABLISHED: (False, False, False),
    TcpState.CLOSE_WAIT: (False, False, True),
    TcpState.FIN_WAIT1: (True, False, False),
    TcpState.FIN_WAIT2: (True, True, False),
    TcpState.CLOSING: (True, False, True),
    TcpState.LAST_ACK: (True, False, True),
    TcpState.TIME_WAIT: (True, True, True),
    TcpState.CLOSE: (True, True, True),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end on the wire: address (4 or 16 bytes), port, and the IPv6 scope (interface index, 0 for none)."""

    address: bytes
    port: int
    scope: int = 0

    def __str__(self) -> str:
        if len(self.address) == 4:
            return f"{socket.inet_ntop(socket.AF_INET, self.address)}:{self.port}"
        return f"[{socket.inet_ntop(socket.AF_INET6, self.address)}]:{self.port}"

    def sockaddr(self, family: int) -> bytes:
        """As a C sockaddr for a socket of `family`; an IPv4 end on an IPv6 socket becomes an IPv4-mapped address."""
        if family == socket.AF_INET:
            return struct.pack("=H", family) + struct.pack("!H4s8x", self.port, self.address)
        address = V4_MAPPED + self.address if len(self.address) == 4 else self.address
        return struct.pack("=H", family) + struct.pack("!HI16s", self.port, 0, address) + struct.pack("=I", self.scope)


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """Parts of TCP_INFO. Times in microseconds, windows and thresholds in segments, sizes in bytes.

    The two counters begin anew whenever the socket is recycled; bytes restored as unread count as received.
    """

    state: int
    ca_state: int
    retransmits: int
    probes: int
    backoff: int
    options: int
    snd_wscale: int
    rcv_wscale: int
    rto_us: int
    ato_us: int
    snd_mss: int
    rcv_mss: int
    unacked: int
    sacked: int
    lost: int
    retrans: int
    pmtu: int
    rcv_ssthresh: int
    rtt_us: int
    rttvar_us: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int
    reordering: int
    total_retrans: int
    bytes_acked: int
    bytes_received: int


_INFO = struct.Struct("=8B24I16x2Q")


def read_info(sock: socket.socket) -> TcpInfo:
    """TCP_INFO of a socket in any state."""
    values = _INFO.unpack(sock.getsockopt(so.IPPROTO_TCP, so.TCP_INFO, _INFO.size))
    state, ca_state, retransmits, probes, backoff, options, scales = values[:7]
    rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans = values[8:16]
    pmtu, rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering = values[21:29]
    return TcpInfo(
        state=state,
        ca_state=ca_state,
        retransmits=retransmits,
        probes=probes,
        backoff=backoff,
        options=options,
        snd_wscale=scales & 15,
        rcv_wscale=scales >> 4,
        rto_us=rto,
        ato_us=ato,
        snd_mss=snd_mss,
        rcv_mss=rcv_mss,
        unacked=unacked,
        sacked=sacked,
        lost=lost,
        retrans=retrans,
        pmtu=pmtu,
        rcv_ssthresh=rcv_ssthresh,
        rtt_us=rtt,
        rttvar_us=rttvar,
        snd_ssthresh=snd_ssthresh,
        snd_cwnd=snd_cwnd,
        advmss=advmss,
        reordering=reordering,
        total_retrans=values[31],
        bytes_acked=values[32],
        bytes_received=values[33],
    )


@dataclass(slots=True)
class KernelState:
    """A connection as the kernel holds it: what a dump yields, and what is given back. Sequence numbers are 32 bits.

    The send queue starts at `snd_una`; its first snd_nxt - snd_una bytes (less a FIN) have been sent. What a dump tells
    as `snd_nxt` is a guess: anything up to `write_seq` may have been sent. `write_seq` and `snd_nxt` count our FIN,
    `rcv_nxt` counts the peer's. The receive queue holds what the application has not read; it ends at `rcv_nxt`, before
    a FIN.
    """

    family: int
    local: Endpoint
    remote: Endpoint
    state: TcpState
    snd_una: int
    snd_nxt: int
    write_seq: int
    rcv_nxt: int
    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int
    window_scaling: bool
    snd_wscale: int
    rcv_wscale: int
    sack: bool
    timestamps: bool
    ecn: bool
    mss_clamp: int
    # Our timestamp clock, not earlier than any value already sent; 1,000 or 1,000,000 ticks a second.
    timestamp: int
    timestamp_hz: int
    # CLOCK_MONOTONIC at the dump, in microseconds: when `timestamp` was read.
    read_at: int
    info: TcpInfo
    send_queue: Sequence[memoryview] = field(default_factory=list)
    receive_queue: Sequence[memoryview] = field(default_factory=list)
    # Give back only. The error number by which the connection has ended in `state`, for the application; 0: none.
    error: int = 0
    # Give back only. The latest TSval of the peer, which a dump cannot tell; the kernel then echoes it from the start.
    ts_recent: int | None = None
    # Give back only. The round trip in microseconds, as far as it is known (0: not): the kernel then need not guess it.
    srtt_us: int = 0

    @property
    def fin_sent(self) -> bool:
        """Our FIN is sent, or queued behind the send queue."""
        return FINS[self.state][0]

    @property
    def fin_acked(self) -> bool:
        """The peer has acknowledged our FIN."""
        return FINS[self.state][1]

    @property
    def fin_received(self) -> bool:
        """The peer's FIN has arrived, and everything before it."""
        return FINS[self.state][2]


def size_of(queue: Sequence[memoryview]) -> int:
    """Bytes in a queue."""
    return sum(map(len, queue))


def endpoint_of(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """An end on the wire from what getsockname tells; an IPv4-mapped address is IPv4 on the wire."""
    host = name[0].partition("%")[0]
    if len(name) == 2:
        return Endpoint(socket.inet_pton(socket.AF_INET, host), name[1])
    address = socket.inet_pton(socket.AF_INET6, host)
    if address.startswith(V4_MAPPED):
        return Endpoint(address[12:], name[1])
    return Endpoint(address, name[1], name[3])


_WINDOW = struct.Struct("=5I")
# The kernel's send queue keeps a segment whole while part of it is unacknowledged: it may start before SND.UNA.
_ACKED_PART = 1 << 16
_ATTEMPTS = 8


def dump(sock: socket.socket, local: Endpoint, remote: Endpoint) -> KernelState:
    """Read a socket that is in repair mode. Its input must be cut, or bytes are lost that arrive later.

    Raises NotOffloadable when the kernel's answers do not fit together, OSError when it refuses.
    """
    descriptor = sock.fileno()
    tcp = so.IPPROTO_TCP
    info = read_info(sock)
    state = TcpState(info.state)
    if state not in FINS:
        raise NotOffloadable(f"the connection {local} -> {remote} is in state {state.name}, which has no hand-over")
    if state is TcpState.CLOSE:
        # The application shall hear how it ended from the socket, which a hand-over would make anew.
        raise NotOffloadable(f"the connection {local} -> {remote} has just ended")
    fin_sent, fin_acked, fin_received = FINS[state]
    mss_clamp = sock.getsockopt(tcp, so.TCP_MAXSEG)

    sock.setsockopt(tcp, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)
    unsent = so.queue_length(descriptor, so.SIOCOUTQNSD)
    sock.setsockopt(tcp, so.TCP_REPAIR_QUEUE, so.SEND_QUEUE)
    write_seq = sock.getsockopt(tcp, so.TCP_QUEUE_SEQ) & 0xFFFFFFFF
    outstanding = so.queue_length(descriptor, so.SIOCOUTQ)
    queued = outstanding - (fin_sent and not fin_acked)
    to_send = b""
    if queued > 0:
        to_send = so.peek(descriptor, queued + _ACKED_PART)
        if len(to_send) < queued:
            raise NotOffloadable(f"{local} -> {remote}: the kernel shows {len(to_send)} of {queued} bytes to send")
        to_send = to_send[len(to_send) - queued :]

    # Last of all: a segment that another CPU had already begun to deliver when the cut was made may still arrive.
    sock.setsockopt(tcp, so.TCP_REPAIR_QUEUE, so.RECEIVE_QUEUE)
    for _ in range(_ATTEMPTS):
        window = _WINDOW.unpack(sock.getsockopt(tcp, so.TCP_REPAIR_WINDOW, _WINDOW.size))
        ticks = sock.getsockopt(tcp, so.TCP_TIMESTAMP) & 0xFFFFFFFF
        read_at = monotonic_us()
        rcv_nxt = sock.getsockopt(tcp, so.TCP_QUEUE_SEQ) & 0xFFFFFFFF
        unread = so.queue_length(descriptor, so.SIOCINQ)
        received = so.peek(descriptor, unread + 1) if unread > 0 else b""
        if len(received) == unread and sock.getsockopt(tcp, so.TCP_QUEUE_SEQ) & 0xFFFFFFFF == rcv_nxt:
            break
    else:
        raise NotOffloadable(
            f"{local} -> {remote}: the kernel shows {len(received)} of {unread} unread bytes: urgent data is pending or"
            " its packets come in by another interface; try again later"
        )
    microseconds = bool(ticks & 1)
    return KernelState(
        family=socket.AF_INET if len(local.address) == 4 else socket.AF_INET6,
        local=local,
        remote=remote,
        state=state,
        snd_una=(write_seq - outstanding) & 0xFFFFFFFF,
        snd_nxt=(write_seq - unsent) & 0xFFFFFFFF,
        write_seq=write_seq,
        rcv_nxt=rcv_nxt,
        snd_wl1=window[0],
        snd_wnd=window[1],
        max_window=window[2],
        rcv_wnd=window[3],
        rcv_wup=window[4],
        # A restored socket without scaling shows the option, with shifts of 0; that is the same.
        window_scaling=bool(info.options & so.INFO_WINDOW_SCALE and (info.snd_wscale or info.rcv_wscale)),
        snd_wscale=info.snd_wscale,
        rcv_wscale=info.rcv_wscale,
        sack=bool(info.options & so.INFO_SACK),
        timestamps=bool(info.options & so.INFO_TIMESTAMPS),
        ecn=bool(info.options & so.INFO_ECN),
        mss_clamp=mss_clamp,
        # The kernel hides the lowest bit of its clock: the later of the two values it may stand for.
        timestamp=ticks | 1,
        timestamp_hz=1_000_000 if microseconds else 1_000,
        read_at=read_at,
        info=info,
        send_queue=[memoryview(to_send)] if to_send else [],
        receive_queue=[memoryview(received)] if received else [],
    )
