"""What TCP_INFO tells of a kernel socket, told of a connection of the engine: same names, same units (linux/tcp.h)."""

from __future__ import annotations

from dataclasses import dataclass

from chimney.tcp.config import UNSET_SSTHRESH
from chimney.tcp.parts import Parts
from chimney.tcp.state import State

OPTION_TIMESTAMPS = 1
OPTION_SACK = 2
OPTION_WINDOW_SCALING = 4
OPTION_ECN = 8
OPTION_ECN_SEEN = 16

_MS = 1000
_BYTE = 255
_DEFAULT_MSS = 536  # RFC 9293, 3.7.1
_UNLIMITED = 2**64 - 1
KERNEL_STATE = {
    State.ESTABLISHED: 1,
    State.SYN_SENT: 2,
    State.SYN_RECEIVED: 3,
    State.FIN_WAIT_1: 4,
    State.FIN_WAIT_2: 5,
    State.TIME_WAIT: 6,
    State.CLOSED: 7,
    State.CLOSE_WAIT: 8,
    State.LAST_ACK: 9,
    State.LISTEN: 10,
    State.CLOSING: 11,
}
"""How the kernel numbers the states (linux/tcp_states.h)."""


@dataclass(slots=True)
class TcpInfo:
    """struct tcp_info. Times in microseconds, but for the tcpi_last_ ones, which are milliseconds ago; windows and
    thresholds of the sender in segments, sizes in bytes; rates in bytes per second.

    tcpi_state: as the kernel numbers them. tcpi_ca_state: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss.
    tcpi_options: the OPTION_ bits. What the owner does not know is 0.
    """

    tcpi_state: int = 0
    tcpi_ca_state: int = 0
    tcpi_retransmits: int = 0
    tcpi_probes: int = 0
    tcpi_backoff: int = 0
    tcpi_options: int = 0
    tcpi_snd_wscale: int = 0
    tcpi_rcv_wscale: int = 0
    tcpi_rto: int = 0
    tcpi_ato: int = 0
    tcpi_snd_mss: int = 0
    tcpi_rcv_mss: int = 0
    tcpi_unacked: int = 0
    tcpi_sacked: int = 0
    tcpi_lost: int = 0
    tcpi_retrans: int = 0
    tcpi_fackets: int = 0
    tcpi_last_data_sent: int = 0
    tcpi_last_ack_sent: int = 0
    tcpi_last_data_recv: int = 0
    tcpi_last_ack_recv: int = 0
    tcpi_pmtu: int = 0
    tcpi_rcv_ssthresh: int = 0
    tcpi_rtt: int = 0
    tcpi_rttvar: int = 0
    tcpi_snd_ssthresh: int = 0
    tcpi_snd_cwnd: int = 0
    tcpi_advmss: int = 0
    tcpi_reordering: int = 0
    tcpi_rcv_rtt: int = 0
    tcpi_rcv_space: int = 0
    tcpi_total_retrans: int = 0
    tcpi_pacing_rate: int = 0
    tcpi_max_pacing_rate: int = _UNLIMITED
    tcpi_bytes_acked: int = 0
    tcpi_bytes_received: int = 0
    tcpi_segs_out: int = 0
    tcpi_segs_in: int = 0
    tcpi_notsent_bytes: int = 0
    tcpi_min_rtt: int = 0
    tcpi_data_segs_in: int = 0
    tcpi_data_segs_out: int = 0
    tcpi_delivery_rate: int = 0
    tcpi_busy_time: int = 0
    tcpi_rwnd_limited: int = 0
    tcpi_sndbuf_limited: int = 0
    tcpi_delivered: int = 0
    tcpi_delivered_ce: int = 0
    tcpi_bytes_sent: int = 0
    tcpi_bytes_retrans: int = 0
    tcpi_dsack_dups: int = 0
    tcpi_reord_seen: int = 0
    tcpi_rcv_ooopack: int = 0
    tcpi_snd_wnd: int = 0


def info(connection: Parts, now: int) -> TcpInfo:
    """The figures of a connection at `now` (microseconds); counters since the engine has had it."""
    config = connection.config
    sender = connection.sender
    timer = sender.timer
    rtt = sender.rtt
    congestion = sender.congestion
    stats = connection.stats
    mss = sender.mss
    probing = sender.persist.is_on
    return TcpInfo(
        tcpi_state=KERNEL_STATE[State(connection.state)],
        tcpi_ca_state=sender.recovery.state,
        tcpi_retransmits=0 if probing else min(timer.count, _BYTE),
        tcpi_probes=min(timer.count, _BYTE) if probing else min(connection.keepalive.count, _BYTE),
        tcpi_backoff=min(timer.count if probing else timer.backoff, _BYTE),
        tcpi_options=_options(connection),
        tcpi_snd_wscale=sender.scale,
        tcpi_rcv_wscale=connection.receiver.window.scale,
        tcpi_rto=rtt.backed_off(timer.backoff),
        tcpi_ato=connection.ack_policy.delay,
        tcpi_snd_mss=mss,
        tcpi_rcv_mss=connection.tuning.longest or min(mss, _DEFAULT_MSS),
        tcpi_unacked=sender.flight.packets,
        tcpi_sacked=sender.flight.sacked_packets if config.sack else sender.recovery.dup_acks,
        tcpi_lost=min(-(-sender.flight.lost // mss), sender.flight.packets),
        tcpi_retrans=min(-(-sender.flight.repeated // mss), sender.flight.packets),
        tcpi_last_data_sent=(now - sender.last_sent) // _MS,
        tcpi_last_data_recv=(now - connection.data_received_at) // _MS,
        tcpi_last_ack_recv=(now - connection.ack_received_at) // _MS,
        tcpi_pmtu=sender.path_mtu,
        tcpi_rcv_ssthresh=connection.receiver.window.size,
        tcpi_rtt=rtt.srtt,
        tcpi_rttvar=rtt.rttvar,
        tcpi_snd_ssthresh=_segments(congestion.ssthresh, mss),
        tcpi_snd_cwnd=max(congestion.cwnd // mss, 1),
        tcpi_advmss=max(sender.path_mtu - sender.ip_header - 20 - sender.black_hole.options, 0),
        tcpi_reordering=sender.recovery.reordering,
        tcpi_rcv_rtt=connection.tuning.rtt,
        tcpi_rcv_space=connection.tuning.space,
        tcpi_total_retrans=stats.retransmitted_segments,
        tcpi_pacing_rate=sender.pacer.rate,
        tcpi_bytes_acked=connection.acked,
        tcpi_bytes_received=stats.bytes_in,
        tcpi_segs_out=stats.segments_out,
        tcpi_segs_in=stats.segments_in,
        tcpi_notsent_bytes=max(sender.queue.end - sender.max, 0),
        tcpi_min_rtt=rtt.min_rtt(),
        tcpi_data_segs_in=stats.data_segments_in,
        tcpi_data_segs_out=stats.data_segments_out,
        tcpi_busy_time=connection.chrono.busy(now),
        tcpi_rwnd_limited=connection.chrono.rwnd_limited(now),
        tcpi_sndbuf_limited=connection.chrono.sndbuf_limited(now),
        tcpi_delivered=sender.delivered,
        tcpi_delivered_ce=connection.ecn.delivered_ce,
        tcpi_bytes_sent=stats.bytes_out + stats.retransmitted_bytes,
        tcpi_bytes_retrans=stats.retransmitted_bytes,
        tcpi_dsack_dups=stats.duplicates_reported,
        tcpi_reord_seen=sender.rack.reorderings,
        tcpi_rcv_ooopack=stats.out_of_order,
        tcpi_snd_wnd=connection.snd_wnd,
    )


def _segments(ssthresh: int, mss: int) -> int:
    return UNSET_SSTHRESH if ssthresh >= UNSET_SSTHRESH else max(ssthresh // mss, 1)


def _options(connection: Parts) -> int:
    config = connection.config
    options = OPTION_TIMESTAMPS if config.timestamps else 0
    options |= OPTION_SACK if config.sack else 0
    options |= OPTION_WINDOW_SCALING if config.window_scaling else 0
    if config.ecn:
        options |= OPTION_ECN | (OPTION_ECN_SEEN if connection.ecn.seen else 0)
    return options
