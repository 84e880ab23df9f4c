"""Config and Tcb of the engine from what a handshake has agreed on: the record that a take-over yields."""

from dataclasses import dataclass, field

from chimney.packetdrill.errors import Unsupported
from chimney.packetdrill.settings import Settings
from chimney.tcp import Config, State, Tcb

_IPV4_AND_TCP = 40
_IPV6_AND_TCP = 60
LARGEST_UNSCALED = 65535
"""What a window field can tell without scaling."""
_MAX_SCALE = 14


@dataclass(slots=True)
class Agreed:
    """What the two SYN said, and what was measured on the way. Numbers are those on the wire."""

    iss: int
    irs: int = 0
    peer_mss: int = 536
    our_mss: int = 1460
    window_scaling: bool = False
    snd_wscale: int = 0
    rcv_wscale: int = 0
    sack: bool = False
    timestamps: bool = False
    ts_recent: int = 0
    ts_at: int = 0
    ecn: bool = False
    snd_wnd: int = 0
    rcv_wnd: int = 65535
    rtt_us: int = 0
    """0: not measured, for a SYN was sent twice."""
    was_retransmitted: bool = False


@dataclass(slots=True)
class SocketOptions:
    """The options of a socket that matter to a connection; sizes in bytes, times in microseconds."""

    nodelay: bool = False
    cork: bool = False
    maxseg: int = 0
    rcvbuf: int = 0
    """As asked for, before it is doubled; 0: the default."""
    sndbuf: int = 0
    keepalive: bool = False
    keepidle_us: int = 0
    keepintvl_us: int = 0
    keepcnt: int = 0
    user_timeout_us: int = 0
    window_clamp: int = 0
    congestion: str = ""
    notsent_lowat: int = 0
    linger: int = -1
    """Seconds; -1: off."""
    quickack: bool | None = None
    rcvlowat: int = 1
    tos: int = 0
    defer_accept: int = 0
    linger2_us: int = 0
    others: dict[tuple[int, int], int] = field(default_factory=dict)


def headers(ipv6: bool) -> int:
    """Bytes of the IP and the TCP header without options."""
    return _IPV6_AND_TCP if ipv6 else _IPV4_AND_TCP


def route_mtu(settings: Settings) -> int:
    """The MTU of the route, or of the interface."""
    return settings.route_mtu or settings.mtu


def path_mtu(settings: Settings) -> int:
    """The MTU of the route, or what ICMP has told of it; a route that was changed since has forgotten that."""
    of_route = route_mtu(settings)
    told_of, learned = settings.learned_mtu
    return min(learned, of_route) if told_of == of_route else of_route


def advertised_mss(settings: Settings, options: SocketOptions, ipv6: bool) -> int:
    """The MSS option of our SYN: what we can take, whatever is known of the path to the peer (RFC 9293, 3.7.1)."""
    mss = settings.route_advmss or route_mtu(settings) - headers(ipv6)
    return min(mss, options.maxseg) if options.maxseg else mss


def receive_buffer(settings: Settings, options: SocketOptions) -> int:
    """SO_RCVBUF as the kernel reports it, bytes."""
    return options.rcvbuf * 2 if options.rcvbuf else settings.rmem[1]


def receive_space(settings: Settings, buffer: int) -> int:
    """What of a buffer can be advertised: half of it is for the kernel's own overhead."""
    scale = settings.adv_win_scale
    return buffer >> -scale if scale <= 0 else buffer - (buffer >> scale)


def initial_window(settings: Settings, options: SocketOptions, mss: int) -> int:
    """The window that our SYN stands for: whole segments, if there is room for one."""
    if settings.receive_window:
        return settings.receive_window
    space = receive_space(settings, receive_buffer(settings, options))
    if options.window_clamp:
        space = min(space, options.window_clamp)
    if space > mss:
        space -= space % mss
    return min(space, LARGEST_UNSCALED)


def window_scale(settings: Settings, options: SocketOptions) -> int:
    """The shift of our window, for the largest buffer that there may ever be."""
    largest = receive_buffer(settings, options) if options.rcvbuf else max(settings.rmem[2], 212_992)
    if options.window_clamp:
        largest = min(largest, options.window_clamp)
    return min(max(largest.bit_length() - 16, 0), _MAX_SCALE)


def build(agreed: Agreed, settings: Settings, options: SocketOptions, ipv6: bool, now: int) -> tuple[Config, Tcb]:
    """What the engine is constructed from."""
    return _config(agreed, settings, options, ipv6), _state(agreed, settings, now)


def _config(agreed: Agreed, settings: Settings, options: SocketOptions, ipv6: bool) -> Config:
    """What Linux does, where the engine's default is another one; and what scripts set by name."""
    algorithm = options.congestion or settings.congestion_control
    if algorithm not in ("cubic", "reno"):
        raise Unsupported(f"congestion control by {algorithm}")
    may_grow = settings.moderate_rcvbuf and not options.rcvbuf and not settings.receive_window
    largest = min(receive_space(settings, settings.rmem[2]), LARGEST_UNSCALED << agreed.rcv_wscale)
    idle, interval, probes = keepalive(settings, options)
    config = Config(
        remote_mss=min(agreed.peer_mss, options.maxseg or agreed.peer_mss),
        path_mtu=path_mtu(settings),
        ipv6=ipv6,
        timestamps=agreed.timestamps,
        sack=agreed.sack,
        window_scaling=agreed.window_scaling,
        snd_wscale=agreed.snd_wscale,
        rcv_wscale=agreed.rcv_wscale,
        initial_rcv_wnd=_window_limit(agreed, settings, options),
        max_rcv_wnd=largest if may_grow else 0,
        ecn=agreed.ecn,
        challenge_every_syn=True,
        nagle=not options.nodelay,
        minshall=True,
        ticks_per_second=1000,
        max_retransmissions=settings.retries2,
        max_rt_us=options.user_timeout_us,
        linux_window_probes=True,
        dupack_threshold=settings.reordering,
        tail_loss_probes=settings.early_retrans > 0,
        pushed_tail_probes=False,
        min_rto_us=settings.min_rto_us,
        keepalive_us=idle,
        keepalive_interval_us=interval,
        keepalive_probes=probes,
        fin_wait_2_us=0,
        congestion="reno" if algorithm == "reno" else "cubic",
        hystart="hystart" if settings.hystart else "none",
        slow_start_after_idle=settings.slow_start_after_idle,
        pacing=settings.fair_queue,
        min_train_segments=settings.min_tso_segs,
        mtu_probe_floor=settings.base_mss if settings.mtu_probing == 2 else 0,
        black_hole_detection=settings.mtu_probing > 0,
    )
    for name, value in settings.engine.items():
        setattr(config, name, value)
    return config


def keepalive(settings: Settings, options: SocketOptions) -> tuple[int, int, int]:
    """Idle time, interval and number of probes; the first is 0 if keepalive is off."""
    return (
        (options.keepidle_us or settings.keepalive_time_us) if options.keepalive else 0,
        options.keepintvl_us or settings.keepalive_interval_us,
        options.keepcnt or settings.keepalive_probes,
    )


def _window_limit(agreed: Agreed, settings: Settings, options: SocketOptions) -> int:
    """The size of the receive window: what the buffer has room for, as far as the field can tell it."""
    if settings.receive_window:
        return settings.receive_window
    space = receive_space(settings, receive_buffer(settings, options))
    if options.window_clamp:
        space = min(space, options.window_clamp)
    return min(space, LARGEST_UNSCALED << agreed.rcv_wscale)


def _state(agreed: Agreed, settings: Settings, now: int) -> Tcb:
    first = agreed.iss + 1 & 0xFFFFFFFF
    rcv_nxt = agreed.irs + 1 & 0xFFFFFFFF
    mss = min(agreed.peer_mss, path_mtu(settings) - 40) - (12 if agreed.timestamps else 0)
    return Tcb(
        state=int(State.ESTABLISHED),
        rcv_nxt=rcv_nxt,
        rcv_wnd=agreed.rcv_wnd,
        snd_una=first,
        snd_nxt=first,
        snd_max=first,
        snd_wnd=agreed.snd_wnd,
        max_snd_wnd=agreed.snd_wnd,
        snd_wl1=agreed.irs,
        cwnd=(1 if agreed.was_retransmitted else settings.initcwnd) * mss,
        srtt_us=agreed.rtt_us,
        rttvar_us=agreed.rtt_us // 2,
        ts_recent=agreed.ts_recent,
        ts_recent_age_us=now - agreed.ts_at,
        ts_time=timestamp(now),
    )


def timestamp(now: int) -> int:
    """Our timestamp clock: milliseconds, soon to wrap around."""
    return 0xFFFFFF00 + now // 1000 & 0xFFFFFFFF
