"""What a script sets up with commands, or finds set: the sysctls and the route that matter to a connection."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Settings:
    """Values as Linux names them (net.ipv4.tcp_…), with Linux's defaults; sizes in bytes, times in microseconds."""

    congestion_control: str = "cubic"
    sack: bool = True
    timestamps: bool = True
    window_scaling: bool = True
    ecn: int = 2
    """0: off; 1: asked for and granted; 2: granted."""
    rmem: tuple[int, int, int] = (4096, 131072, 6291456)
    wmem: tuple[int, int, int] = (4096, 16384, 4194304)
    adv_win_scale: int = 1
    early_retrans: int = 3
    """0: no tail loss probes."""
    reordering: int = 3
    slow_start_after_idle: bool = True
    notsent_lowat: int = 0xFFFFFFFF
    min_tso_segs: int = 2
    retries2: int = 15
    fin_timeout_us: int = 60_000_000
    keepalive_time_us: int = 7_200_000_000
    keepalive_interval_us: int = 75_000_000
    keepalive_probes: int = 9
    mtu_probing: int = 0
    base_mss: int = 1024
    moderate_rcvbuf: bool = True
    min_rto_us: int = 200_000
    pacing_ss_ratio: int = 200
    pacing_ca_ratio: int = 120
    hystart: bool = True
    fair_queue: bool = False
    """Whether the queueing discipline is fq, which paces."""
    mtu: int = 1500
    route_mtu: int = 0
    learned_mtu: tuple[int, int] = (0, 0)
    """What ICMP has told of the path, and before it the MTU of the route at that time."""
    route_advmss: int = 0
    initcwnd: int = 10
    receive_window: int = 0
    """The window at the start of a connection, whatever the field of the SYN can tell; 0: from the buffer."""
    bsd_errors: bool = False
    """A reset in CLOSE-WAIT is told as ECONNRESET, as BSD does, and not as EPIPE, as Linux does."""
    engine: dict[str, object] = field(default_factory=dict)
    """Fields of chimney.tcp.Config, set by `sysctl chimney.<name>=<value>`."""
    ignored: list[str] = field(default_factory=list)
    """Commands and settings that are known to make no difference here."""
