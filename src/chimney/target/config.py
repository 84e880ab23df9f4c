"""What a software target can do, and how it behaves: capacities, and the host's parameters (documents: chapter 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chimney.ndis.capabilities import Encapsulation, TcpConnectionOffload


@dataclass(slots=True, frozen=True)
class TargetConfig:
    """Capacities and parameters of a `SoftTarget`. Sizes in bytes, times in ticks of 1/``ticks_per_second`` unless
    named otherwise.
    """

    tcp_capacity: int = 65536
    """TcpConnectionOffloadCapacity: connections offloaded at a time, both IP versions together."""
    path_capacity: int = 65536
    neighbor_capacity: int = 4096
    ip_address_capacity: int = 4096
    """Distinct source addresses of offloaded paths."""
    hw_address_capacity: int = 16
    """Distinct source MAC addresses besides the interface's own; 0: they cannot be configured."""
    vlan_capacity: int = 4095
    """Distinct nonzero VLAN identifiers."""
    interface_vlans: frozenset[int] = frozenset()
    """The VLANs that the interface is a member of; empty: none are configured, and any is accepted."""
    multicast_addresses: frozenset[bytes] = frozenset()
    """Group MAC addresses that the interface has joined: frames to these are accepted besides those to its own."""
    encapsulation: Encapsulation = Encapsulation.IEEE_802_3
    support_ipv4: bool = True
    support_ipv6: bool = True
    support_sack: bool = True
    support_ecn: bool = True
    max_initial_rcv_wnd: int = 1 << 30
    max_rcv_wnd: int = 0
    """How far receive windows may grow beyond InitialRcvWnd by auto-tuning; 0: InitialRcvWnd is all that is offered, as
    the documents have it (A26)."""
    max_path_mtu: int = 0
    """Largest path MTU that is accepted; 0: the link's MTU."""

    ticks_per_second: int = 1000
    ack_frequency: int = 2
    delayed_ack_ticks: int = 40
    quick_acks: int = 16
    """How many acknowledgements at most are not delayed at the start, after a pause and after what came twice."""
    max_retransmissions: int = 15
    duplicate_ack_threshold: int = 3
    push_ticks: int = 500
    fin_wait_2_ticks: int = 120_000
    doubt_reachability_retransmissions: int = 3
    """Kept, and nothing else: the event that would tell of the doubt is reserved (A18)."""
    sws_prevention_ticks: int = 0
    """Silly window avoidance (16.6): after so long the sender sends what the window allows, and the receiver tells of a
    window that has grown by little. 0: the engine's own time for the sender (0.2 s), and no timer for the receiver."""
    nce_stale_ticks: int = 0
    """Silence after which the host is asked whether a neighbor is reachable (NceStaleTicks); 0: it is never asked."""

    min_rto_us: int = 200_000
    max_rto_us: int = 120_000_000
    max_cwnd: int = 0
    """Clamp of congestion windows; 0: none."""
    congestion: Literal["cubic", "reno"] = "cubic"
    hystart: Literal["hystart++", "hystart", "none"] = "hystart++"
    slow_start_after_idle: bool = True
    pacing: bool = True
    black_hole_detection: bool = True
    """These as in the engine's Config; docs/tcp.md explains them."""
    max_burst_segment: int = 65_000
    """Payload of one super-segment."""

    send_backlog: bool = False
    """Tell the host how many send bytes it should keep outstanding (SendBacklogSize, TcpIndicateSendBacklogChange)."""
    paused_initiate_ticks: int = 1000
    """How long an initiate waits that was under way when the target paused, if it does not resume."""

    advice_ticks: int = 0
    """How often the target looks which connections it had rather given back (9.9); 0: never. The thresholds below are
    per connection and look; 0: off."""
    low_activity_bytes: int = 0
    """LowActivity: fewer bytes than this were sent and received."""
    no_preposting_indications: int = 0
    """NoBufferPreposting: at least so many indications, for want of a receive request."""
    small_io_bytes: int = 0
    """SmallIO: there were requests, and they moved fewer bytes than this on average."""
    drop_permille: int = 0
    """HighDropRate: at least so many of a thousand segments sent were retransmissions."""
    out_of_order_permille: int = 0
    """HighOutOfOrderPackets: at least so many of a thousand segments received came too early."""
    fragments: int = 0
    """HighFragmentation: at least so many fragments came over the connection's path."""

    kept_frames: int = 256
    """Frames kept for the host, per connection, between an upload request and the terminate."""
    emissions_per_turn: int = 4
    """Segments (or super-segments) that one connection sends before the next one has its turn."""
    emissions_per_poll: int = 512
    """Segments (or super-segments) that one poll sends at most."""

    def microseconds(self, ticks: int) -> int:
        """Ticks in microseconds."""
        return ticks * 1_000_000 // self.ticks_per_second

    def ticks(self, microseconds: int) -> int:
        """Microseconds in ticks, rounded up: a timer that is not due yet must not read zero."""
        return -(-microseconds * self.ticks_per_second // 1_000_000)

    def capabilities(self) -> TcpConnectionOffload:
        """What the host is told (8.2)."""
        return TcpConnectionOffload(
            encapsulation=self.encapsulation,
            support_ipv4=self.support_ipv4,
            support_ipv6=self.support_ipv6,
            support_sack=self.support_sack,
            tcp_connection_offload_capacity=self.tcp_capacity,
        )

    def enables(self, ipv6: bool) -> bool:
        """Whether connections over this IP version can be offloaded (cap.enable)."""
        return self.capabilities().recognised and (self.support_ipv6 if ipv6 else self.support_ipv4)
