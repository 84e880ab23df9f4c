"""What a software target can do, and how it behaves: capacities, and the host's parameters (documents: chapter 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    max_initial_rcv_wnd: int = 1 << 30
    max_path_mtu: int = 0
    """Largest path MTU that is accepted; 0: the link's MTU."""

    ticks_per_second: int = 1000
    ack_frequency: int = 2
    delayed_ack_ticks: int = 40
    max_retransmissions: int = 15
    duplicate_ack_threshold: int = 3
    push_ticks: int = 500
    fin_wait_2_ticks: int = 120_000
    nce_stale_ticks: int = 0
    """Silence after which the host is asked whether a neighbor is reachable (NceStaleTicks); 0: it is never asked."""

    min_rto_us: int = 200_000
    max_rto_us: int = 120_000_000
    max_cwnd: int = 0
    """Clamp of congestion windows; 0: none."""
    congestion: Literal["cubic", "reno"] = "cubic"
    max_burst_segment: int = 65_000
    """Payload of one super-segment."""

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
