"""Between the documents' state variables (ticks, scaled round-trip times) and the engine's (microseconds)."""

from __future__ import annotations

from chimney.ndis.state import (
    NO_RETRANSMISSION_LIMIT,
    TIMER_NOT_RUNNING,
    TcpCached,
    TcpConst,
    TcpDelegated,
    TimerRemainder,
)
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState, TcpConstFlags
from chimney.target.config import TargetConfig
from chimney.tcp.config import UNLIMITED, Config, Tcb

# A42: the smoothed round-trip time travels as eight times, its variation as four times the value in ticks.
_SRTT_SCALE = 8
_RTTVAR_SCALE = 4
_MICROSECONDS = 1_000_000
_BYTE = 0xFF


def engine_config(const: TcpConst, cached: TcpCached, path_mtu: int, ipv6: bool, config: TargetConfig) -> Config:
    """What the engine is built with: constants, cached variables, and the parameters of the target."""
    us = config.microseconds
    keepalive_us, keepalive_interval_us, keepalive_probes = keepalive_of(cached, config)
    return Config(
        remote_mss=const.remote_mss,
        path_mtu=path_mtu,
        ipv6=ipv6,
        timestamps=bool(const.flags & TcpConstFlags.TIMESTAMP_ENABLED),
        sack=config.support_sack and bool(const.flags & TcpConstFlags.SACK_ENABLED),
        ecn=config.support_ecn and bool(const.flags & TcpConstFlags.ECN_ENABLED),
        window_scaling=bool(const.flags & TcpConstFlags.WINDOW_SCALING_ENABLED),
        snd_wscale=const.snd_wind_scale,
        rcv_wscale=const.rcv_wind_scale,
        initial_rcv_wnd=cached.initial_rcv_wnd,
        max_rcv_wnd=config.max_rcv_wnd,
        nagle=bool(cached.flags & TcpCachedFlags.NAGLING_ENABLED),
        ticks_per_second=config.ticks_per_second,
        ack_frequency=config.ack_frequency,
        delayed_ack_us=us(config.delayed_ack_ticks),
        quick_acks=config.quick_acks,
        sws_prevention_us=us(config.sws_prevention_ticks),
        max_retransmissions=config.max_retransmissions,
        max_rt_us=max_rt_us(cached.max_rt, config),
        dupack_threshold=config.duplicate_ack_threshold,
        min_rto_us=config.min_rto_us,
        max_rto_us=config.max_rto_us,
        keepalive_us=keepalive_us,
        keepalive_interval_us=keepalive_interval_us,
        keepalive_probes=keepalive_probes,
        fin_wait_2_us=us(config.fin_wait_2_ticks),
        max_cwnd=config.max_cwnd,
        congestion=config.congestion,
        hystart=config.hystart,
        slow_start_after_idle=config.slow_start_after_idle,
        pacing=config.pacing,
        black_hole_detection=config.black_hole_detection,
        max_burst_segment=config.max_burst_segment,
    )


def keepalive_of(cached: TcpCached, config: TargetConfig) -> tuple[int, int, int]:
    """Idle time (0 if keepalive is off) and interval in microseconds, and the number of probes."""
    us = config.microseconds
    enabled = cached.flags & TcpCachedFlags.KEEP_ALIVE_ENABLED
    return us(cached.ka_timeout) if enabled else 0, us(cached.ka_interval), cached.ka_probe_count


def max_rt_us(max_rt: int, config: TargetConfig) -> int:
    """MaxRT for the engine: 0 stays (the count of retransmissions applies), and 0xFFFFFFFF is no limit."""
    return UNLIMITED if max_rt == NO_RETRANSMISSION_LIMIT else config.microseconds(max_rt)


def engine_tcb(delegated: TcpDelegated, undelivered: int, config: TargetConfig) -> Tcb:
    """Delegated state for the engine; ``undelivered`` counts the bytes of BufferedData."""
    us = config.microseconds
    return Tcb(
        state=int(delegated.state),
        rcv_nxt=delegated.rcv_nxt,
        rcv_wnd=delegated.rcv_wnd,
        snd_una=delegated.snd_una,
        snd_nxt=delegated.snd_nxt,
        snd_max=delegated.snd_max,
        snd_wnd=delegated.snd_wnd,
        max_snd_wnd=delegated.max_snd_wnd,
        snd_wl1=delegated.send_wl1,
        cwnd=delegated.c_wnd,
        ssthresh=delegated.ss_thresh,
        srtt_us=us(delegated.s_rtt) // _SRTT_SCALE,
        rttvar_us=us(delegated.rtt_var) // _RTTVAR_SCALE,
        ts_recent=delegated.ts_recent,
        ts_recent_age_us=us(delegated.ts_recent_age),
        ts_time=delegated.ts_time,
        total_rt_us=us(delegated.total_rt),
        dup_ack_count=delegated.dup_ack_count,
        snd_wnd_probe_count=delegated.snd_wnd_probe_count,
        keepalive_probe_count=delegated.keep_alive.count,
        keepalive_left_us=_left_us(delegated.keep_alive, config),
        retransmit_count=delegated.retransmit.count,
        retransmit_left_us=_left_us(delegated.retransmit, config),
        undelivered=undelivered,
    )


def write_delegated(delegated: TcpDelegated, tcb: Tcb, config: TargetConfig) -> None:
    """Fill the delegated variables of ``delegated`` (not the data and backlog fields) from the engine's state."""
    ticks = config.ticks
    delegated.state = TcpConnectionState(tcb.state)
    delegated.rcv_nxt = tcb.rcv_nxt
    delegated.rcv_wnd = tcb.rcv_wnd
    delegated.snd_una = tcb.snd_una
    delegated.snd_nxt = tcb.snd_nxt
    delegated.snd_max = tcb.snd_max
    delegated.snd_wnd = tcb.snd_wnd
    delegated.max_snd_wnd = tcb.max_snd_wnd
    delegated.send_wl1 = tcb.snd_wl1
    delegated.c_wnd = tcb.cwnd
    delegated.ss_thresh = tcb.ssthresh
    # Rounding up keeps a known round-trip time from reading as "no sample yet".
    delegated.s_rtt = ticks(tcb.srtt_us * _SRTT_SCALE)
    delegated.rtt_var = ticks(tcb.rttvar_us * _RTTVAR_SCALE)
    delegated.ts_recent = tcb.ts_recent
    delegated.ts_recent_age = tcb.ts_recent_age_us * config.ticks_per_second // _MICROSECONDS
    delegated.ts_time = tcb.ts_time
    delegated.total_rt = ticks(tcb.total_rt_us)
    delegated.dup_ack_count = min(tcb.dup_ack_count, _BYTE)
    delegated.snd_wnd_probe_count = min(tcb.snd_wnd_probe_count, _BYTE)
    delegated.keep_alive = _remainder(tcb.keepalive_probe_count, tcb.keepalive_left_us, config)
    delegated.retransmit = _remainder(tcb.retransmit_count, tcb.retransmit_left_us, config)


def _left_us(timer: TimerRemainder, config: TargetConfig) -> int:
    return -1 if timer.timeout_delta == TIMER_NOT_RUNNING else config.microseconds(timer.timeout_delta)


def _remainder(count: int, left_us: int, config: TargetConfig) -> TimerRemainder:
    delta = TIMER_NOT_RUNNING if left_us < 0 else config.ticks(left_us)
    return TimerRemainder(min(count, _BYTE), delta)
