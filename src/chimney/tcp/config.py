"""What a connection is built from: its constants and parameters (Config) and its state as handed over (Tcb)."""

from dataclasses import dataclass
from typing import Literal

from chimney.tcp.state import State

NEVER = 2**62
"""The deadline that does not come, in microseconds."""

UNSET_SSTHRESH = 0x7FFFFFFF
"""A slow start threshold that no congestion window reaches, in bytes."""

UNLIMITED = -1
"""For Config.max_rt_us: retransmit for ever."""


@dataclass(slots=True)
class Config:
    """The constants of a connection and the parameters of the engine. Sizes in bytes, times in microseconds.

    remote_mss is the number the peer announced (RFC 6691: options come out of it); path_mtu counts the IP header.
    """

    remote_mss: int = 1460
    path_mtu: int = 1500
    ipv6: bool = False
    timestamps: bool = True
    sack: bool = True
    window_scaling: bool = True
    snd_wscale: int = 0
    rcv_wscale: int = 0
    initial_rcv_wnd: int = 65535
    max_rcv_wnd: int = 0
    """How far the receive window may grow by auto-tuning; not above initial_rcv_wnd: it does not."""
    ecn: bool = False
    """Whether explicit congestion notification was negotiated (RFC 3168)."""
    challenge_every_syn: bool = False
    """Whether a SYN at RCV.NXT is challenged, too, as RFC 5961 has it; the interface documents end the connection."""
    nagle: bool = False
    minshall: bool = False
    """Whether Nagle's algorithm counts small segments alone, as Linux does: the end of a long write does not wait."""
    ticks_per_second: int = 1000
    ack_frequency: int = 2
    delayed_ack_us: int = 40_000
    quick_acks: int = 16
    """How many acknowledgements at most are not delayed at the start, after a pause and after what came twice."""
    sws_prevention_us: int = 0
    """How long the sender holds back what is small, and the receiver the news of a little more window; 0: 0.2 s and
    for ever."""
    max_retransmissions: int = 15
    max_rt_us: int = 0
    """0: max_retransmissions counts instead; UNLIMITED: no limit."""
    dupack_threshold: int = 3
    min_rto_us: int = 200_000
    max_rto_us: int = 120_000_000
    keepalive_us: int = 0
    """Idle time before the first probe; 0: no keepalive."""
    keepalive_interval_us: int = 0
    keepalive_probes: int = 0
    fin_wait_2_us: int = 120_000_000
    """0: FIN_WAIT_2 lasts until the peer closes."""
    max_cwnd: int = 0
    """Clamp of the congestion window; 0: none."""
    congestion: Literal["cubic", "reno"] = "cubic"
    hystart: Literal["hystart++", "hystart", "none"] = "hystart++"
    """How CUBIC leaves its slow start: by RFC 9406, as Linux does, or on loss only."""
    slow_start_after_idle: bool = True
    """Whether a congestion window that is not used shrinks (RFC 2861)."""
    pacing: bool = False
    tail_loss_probes: bool = True
    pushed_tail_probes: bool = True
    """Whether a probe of new data has PSH, which makes Linux acknowledge it alone."""
    linux_window_probes: bool = False
    """Whether a closed window is probed as Linux does it: without data, each interval twice as long as the one before,
    whatever the peer answers; and not by a byte, in rounds, as the interface documents have it."""
    black_hole_detection: bool = True
    """Whether segments become smaller after time-outs in a row (RFC 4821, 7.7)."""
    mtu_probe_floor: int = 0
    """A larger path MTU is not believed, but looked for from this size (of payload and options) on; 0: believed."""
    max_burst_segment: int = 65_000
    """Payload of one super-segment."""
    min_train_segments: int = 2
    """Wire segments in a super-segment, at least, where the rate of the path makes it shorter than that."""
    max_reassembly_blocks: int = 0
    """Islands of out-of-order data, that is holes, that are kept; 0: as many as the window has room for."""
    max_reassembly_parts: int = 0
    """Pieces of out-of-order data that are kept; 0: as many as the window has room for."""
    max_sack_blocks: int = 8192
    """Ranges that the scoreboard keeps."""


@dataclass(slots=True)
class Tcb:
    """The delegated state of a connection as it changes hands. Sizes in bytes, times in microseconds.

    snd_max may exceed snd_nxt: acknowledgements up to snd_max are acceptable, and the bytes between the two are
    possibly sent; they go first. A FIN that was queued counts in snd_nxt and snd_max.
    """

    state: int = State.ESTABLISHED
    rcv_nxt: int = 0
    rcv_wnd: int = 65535
    snd_una: int = 0
    snd_nxt: int = 0
    snd_max: int = 0
    snd_wnd: int = 65535
    max_snd_wnd: int = 65535
    snd_wl1: int = 0
    cwnd: int = 14600
    ssthresh: int = UNSET_SSTHRESH
    srtt_us: int = 0
    """0: no sample yet."""
    rttvar_us: int = 0
    ts_recent: int = 0
    """0: not known."""
    ts_recent_age_us: int = 0
    ts_time: int = 0
    """Our timestamp clock at the hand-over."""
    total_rt_us: int = 0
    dup_ack_count: int = 0
    snd_wnd_probe_count: int = 0
    keepalive_probe_count: int = 0
    keepalive_left_us: int = -1
    """-1: not running; 0: due now."""
    retransmit_count: int = 0
    retransmit_left_us: int = -1
    """-1: not running; 0: due now."""
    undelivered: int = 0
    """Received and acknowledged bytes that the application has not consumed (BufferedData)."""
