"""What a target can do, what the host makes it do, and the requests that carry both (documents: chapters 8 and 17).

Support fields of a parameter record are switches: the record says what changes, and only the most recent one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class Encapsulation(IntFlag):
    """NDIS_ENCAPSULATION_..."""

    NOT_SUPPORTED = 0x00
    NULL = 0x01
    IEEE_802_3 = 0x02
    IEEE_802_3_P_AND_Q = 0x04
    IEEE_802_3_P_AND_Q_IN_OOB = 0x08
    IEEE_LLC_SNAP_ROUTED = 0x10


class Switch(IntEnum):
    """A support field of a parameter record (A23)."""

    NO_CHANGE = 0
    ON = 1
    OFF = 2


class Oid(IntEnum):
    """Object identifiers of the requests that concern connection offload."""

    OFFLOAD_ENCAPSULATION = 0x0101010A
    TCP4_OFFLOAD_STATS = 0xFC010207
    TCP6_OFFLOAD_STATS = 0xFC010208
    IP4_OFFLOAD_STATS = 0xFC010209
    IP6_OFFLOAD_STATS = 0xFC01020A
    TCP_CONNECTION_OFFLOAD_CURRENT_CONFIG = 0xFC01020E
    TCP_CONNECTION_OFFLOAD_HARDWARE_CAPABILITIES = 0xFC01020F
    TCP_CONNECTION_OFFLOAD_PARAMETERS = 0xFC030201
    PNP_SET_POWER = 0xFD010101


class DevicePowerState(IntEnum):
    """NDIS_DEVICE_POWER_STATE: what a set of PNP_SET_POWER carries; D0 is full power."""

    D0 = 1
    D1 = 2
    D2 = 3
    D3 = 4


@dataclass(frozen=True, slots=True)
class TcpConnectionOffload:
    """NDIS_TCP_CONNECTION_OFFLOAD: what a target can do (hardware capabilities) or is set to do (current
    configuration). ``tcp_connection_offload_capacity`` counts connections of both IP versions together.
    """

    encapsulation: Encapsulation = Encapsulation.IEEE_802_3
    support_ipv4: bool = True
    support_ipv6: bool = True
    support_ipv6_extension_headers: bool = False
    support_sack: bool = True
    tcp_connection_offload_capacity: int = 65536
    congestion_algorithm: int = 0
    flags: int = 0

    @property
    def recognised(self) -> bool:
        """Whether this describes a chimney at all: 802.3 or LLC/SNAP, and an IP version (cap.report)."""
        known = Encapsulation.IEEE_802_3 | Encapsulation.IEEE_LLC_SNAP_ROUTED
        return bool(self.encapsulation & known) and (self.support_ipv4 or self.support_ipv6)


@dataclass(frozen=True, slots=True)
class TcpConnectionOffloadParameters:
    """NDIS_TCP_CONNECTION_OFFLOAD_PARAMETERS: what the host sets. Times in ticks of 1/``ticks_per_second`` (10, 100 or
    1000).
    """

    encapsulation: Encapsulation = Encapsulation.IEEE_802_3
    support_ipv4: Switch = Switch.ON
    support_ipv6: Switch = Switch.ON
    support_ipv6_extension_headers: Switch = Switch.NO_CHANGE
    support_sack: Switch = Switch.ON
    ticks_per_second: int = 1000
    tcp_ack_frequency: int = 2
    tcp_delayed_ack_ticks: int = 40
    tcp_maximum_retransmissions: int = 15
    tcp_doubt_reachability_retransmissions: int = 3
    tcp_sws_prevention_ticks: int = 0
    tcp_duplicate_ack_threshold: int = 3
    tcp_push_ticks: int = 500
    nce_stale_ticks: int = 0
    congestion_algorithm: int = 0


@dataclass(slots=True)
class TcpOffloadStats:
    """TCP_OFFLOAD_STATS: counters of offloaded TCP traffic over one IP version; the first two are 64 bits wide, the
    others 32, and all wrap.
    """

    in_segments: int = 0
    out_segments: int = 0
    retransmitted_segments: int = 0
    out_resets: int = 0
    in_errors: int = 0
    currently_established: int = 0
    reset_established: int = 0


@dataclass(slots=True)
class IpOffloadStats:
    """IP_OFFLOAD_STATS: counters of offloaded IP traffic of one version; the first five are 64 bits wide, the others
    32, and all wrap.
    """

    in_receives: int = 0
    in_octets: int = 0
    in_delivers: int = 0
    out_requests: int = 0
    out_octets: int = 0
    in_header_errors: int = 0
    in_truncated_packets: int = 0
    in_discards: int = 0
    out_discards: int = 0
    out_no_routes: int = 0


class OidRequest:
    """NDIS_OID_REQUEST: a set carries ``information`` down, a query brings it back."""

    def __init__(self, oid: Oid, information: object = None, *, set: bool = False) -> None:
        self.oid = oid
        self.information = information
        self.set = set

    def __repr__(self) -> str:
        return f"{'set' if self.set else 'query'} of {self.oid.name}"
