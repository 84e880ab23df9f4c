"""The kernel's words into the documents' words, and back.

The target's clock counts milliseconds (TicksPerSecond 1000), as Linux' timestamps and TCP_USER_TIMEOUT do.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Protocol

from chimney.host.kernel import GivenState, TakenState
from chimney.host.linux import sockopts as so
from chimney.host.linux.dump import KernelState, TcpState, size_of
from chimney.ndis.state import TIMER_NOT_RUNNING, TcpCached, TcpConst, TcpDelegated, TimerRemainder
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState, TcpConstFlags

_MASK = 0xFFFFFFFF
_US_PER_TICK = 1000
_INFINITE_SSTHRESH = 0x7FFFFFFF

_TO_DOCUMENTS = {
    TcpState.ESTABLISHED: TcpConnectionState.ESTABLISHED,
    TcpState.FIN_WAIT1: TcpConnectionState.FIN_WAIT_1,
    TcpState.FIN_WAIT2: TcpConnectionState.FIN_WAIT_2,
    TcpState.CLOSE_WAIT: TcpConnectionState.CLOSE_WAIT,
    TcpState.CLOSING: TcpConnectionState.CLOSING,
    TcpState.LAST_ACK: TcpConnectionState.LAST_ACK,
    TcpState.TIME_WAIT: TcpConnectionState.TIME_WAIT,
    TcpState.CLOSE: TcpConnectionState.CLOSED,
}
_TO_KERNEL = {documents: kernel for kernel, documents in _TO_DOCUMENTS.items()}


class SocketOptions(Protocol):
    """Where the options of a connection are read: its socket."""

    def getsockopt(self, level: int, optname: int, /) -> int:
        """The value of an option. Raises OSError."""


def taken(state: KernelState, options: SocketOptions, receive_window: int, now: int) -> TakenState:
    """What a dump says, for an initiate at ``now`` (microseconds).

    ``receive_window``: bytes to offer the peer where the socket's own limits allow it.
    """
    return TakenState(
        const=_const(state),
        cached=cached(state, options, receive_window),
        delegated=_delegated(state, now),
        send_data=list(state.send_queue),
        unread=list(state.receive_queue),
        carried=(state.info.bytes_acked, state.info.bytes_received),
    )


def given(before: KernelState, state: GivenState, now: int) -> KernelState:
    """What a terminate handed up, for the kernel at ``now`` (microseconds); ``before``: what no engine changes."""
    delegated = state.delegated
    return dataclasses.replace(
        before,
        state=_TO_KERNEL[delegated.state],
        snd_una=delegated.snd_una,
        # The peer may have seen, and may acknowledge, anything up to SND.MAX: to the kernel all of it is sent.
        snd_nxt=delegated.snd_max,
        write_seq=delegated.snd_max,
        rcv_nxt=delegated.rcv_nxt,
        snd_wl1=delegated.send_wl1,
        snd_wnd=delegated.snd_wnd,
        max_window=delegated.max_snd_wnd,
        rcv_wnd=delegated.rcv_wnd,
        rcv_wup=delegated.rcv_nxt,
        timestamp=delegated.ts_time,
        read_at=now,
        send_queue=state.sent,
        receive_queue=state.unread,
        error=state.error,
        ts_recent=delegated.ts_recent or None,
        srtt_us=delegated.s_rtt * _US_PER_TICK // 8,
    )


def _const(state: KernelState) -> TcpConst:
    flags = TcpConstFlags(0)
    if state.timestamps:
        flags |= TcpConstFlags.TIMESTAMP_ENABLED
    if state.sack:
        flags |= TcpConstFlags.SACK_ENABLED
    if state.window_scaling:
        flags |= TcpConstFlags.WINDOW_SCALING_ENABLED
    if state.ecn:
        flags |= TcpConstFlags.ECN_ENABLED
    return TcpConst(
        flags=flags,
        remote_port=state.remote.port,
        local_port=state.local.port,
        snd_wind_scale=state.snd_wscale if state.window_scaling else 0,
        rcv_wind_scale=state.rcv_wscale if state.window_scaling else 0,
        remote_mss=state.mss_clamp,
    )


def cached(state: KernelState, options: SocketOptions, receive_window: int) -> TcpCached:
    """The cached variables that the application's ``options`` make; ``state`` is what the kernel had."""
    tcp = socket.IPPROTO_TCP
    flags = TcpCachedFlags(0)
    if not options.getsockopt(tcp, socket.TCP_NODELAY):
        flags |= TcpCachedFlags.NAGLING_ENABLED
    if options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        flags |= TcpCachedFlags.KEEP_ALIVE_ENABLED
    if len(state.local.address) == 4:
        hops = options.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        traffic_class = options.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
    else:
        hops = options.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        traffic_class = options.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    return TcpCached(
        flags=flags,
        initial_rcv_wnd=_initial_window(state, options, receive_window),
        ka_probe_count=_keepalive_probes(options),
        ka_timeout=options.getsockopt(tcp, socket.TCP_KEEPIDLE) * 1000,
        ka_interval=options.getsockopt(tcp, socket.TCP_KEEPINTVL) * 1000,
        max_rt=options.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
        ttl_or_hop_limit=hops if hops > 0 else 64,
        # The two low bits are ECN's, and the engine's to set.
        tos_or_traffic_class=traffic_class & 0xFC,
    )


def _keepalive_probes(options: SocketOptions) -> int:
    """How many probes may remain unanswered. A TCP_USER_TIMEOUT decides instead of TCP_KEEPCNT (tcp(7)): the last one
    is sent before that time without a word from the peer is over.
    """
    tcp = socket.IPPROTO_TCP
    left = options.getsockopt(tcp, socket.TCP_USER_TIMEOUT)
    if not left:
        return options.getsockopt(tcp, socket.TCP_KEEPCNT)
    left -= options.getsockopt(tcp, socket.TCP_KEEPIDLE) * 1000
    interval = options.getsockopt(tcp, socket.TCP_KEEPINTVL) * 1000
    return min(255, max(1, -(-left // interval))) if interval else 1


def _initial_window(state: KernelState, options: SocketOptions, receive_window: int) -> int:
    """The window to offer: what the kernel could take back, and never less than what it has offered already."""
    offered = _receive_window(state) + size_of(state.receive_queue)
    limit = 0xFFFF << (state.rcv_wscale if state.window_scaling else 0)
    if options.getsockopt(socket.SOL_SOCKET, so.SO_BUF_LOCK) & so.SOCK_RCVBUF_LOCK:
        receive_window = options.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    return max(offered, min(receive_window, limit))


def _receive_window(state: KernelState) -> int:
    """From RCV.NXT to the right edge that the peer knows, or comes to know: what the kernel's timers still acknowledge
    when this has been read tells the window anew, rounded up to what the scale can say.
    """
    window = (state.rcv_wup + state.rcv_wnd - state.rcv_nxt) & _MASK
    if window >= 1 << 31:
        return 0
    unit = 1 << (state.rcv_wscale if state.window_scaling else 0)
    return (window + unit - 1) & ~(unit - 1)


def _delegated(state: KernelState, now: int) -> TcpDelegated:
    info = state.info
    sent = (state.snd_nxt - state.snd_una) & _MASK
    # No round trip measured: the connection came back from a target not long ago, and the peer has acknowledged nothing
    # since. Which of the bytes that count as sent were ever on the wire is unknown; waiting for a time-out once more at
    # every hand-over would be waiting for ever. They are sent from the beginning.
    unknown = not info.rtt_us
    ssthresh = _INFINITE_SSTHRESH
    if info.snd_ssthresh < ssthresh // info.snd_mss:
        ssthresh = info.snd_ssthresh * info.snd_mss
    return TcpDelegated(
        state=_TO_DOCUMENTS[state.state],
        rcv_nxt=state.rcv_nxt,
        rcv_wnd=_receive_window(state),
        snd_una=state.snd_una,
        snd_nxt=state.snd_una if unknown else state.snd_nxt,
        # What the kernel says of SND.NXT is a guess: anything in its queue may have left.
        snd_max=state.write_seq,
        snd_wnd=state.snd_wnd,
        max_snd_wnd=state.max_window,
        send_wl1=state.snd_wl1,
        c_wnd=info.snd_cwnd * info.snd_mss,
        ss_thresh=ssthresh,
        s_rtt=_scaled(info.rtt_us, 8),
        rtt_var=_scaled(info.rttvar_us, 4),
        ts_recent=0,
        ts_recent_age=0,
        ts_time=_timestamp(state, now),
        total_rt=0,
        dup_ack_count=0,
        snd_wnd_probe_count=0,
        keep_alive=TimerRemainder(),
        retransmit=TimerRemainder(
            min(info.retransmits, 255),
            max(1, info.rto_us // _US_PER_TICK) if sent and not unknown else TIMER_NOT_RUNNING,
        ),
    )


def _timestamp(state: KernelState, now: int) -> int:
    """The kernel's timestamp clock at `now`: a timer of its may have sent something since the dump read it."""
    return (state.timestamp - (state.read_at - now) // _US_PER_TICK) & _MASK


def _scaled(microseconds: int, scale: int) -> int:
    """Ticks times ``scale``; a short time is not none at all."""
    return max(1, microseconds * scale // _US_PER_TICK) if microseconds else 0
