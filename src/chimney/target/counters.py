"""What the statistics OIDs count, for one IP version (17.1): the traffic of offloaded connections, and nothing else."""

from __future__ import annotations

from chimney.ndis.capabilities import IpOffloadStats, TcpOffloadStats

_LOW_64 = 0xFFFFFFFFFFFFFFFF
_LOW_32 = 0xFFFFFFFF


class Counters:
    """Counters of one IP version on one adapter, named as in `TcpOffloadStats` and `IpOffloadStats`.

    Wire segments and datagrams count, not super-segments. Corrupt frames, and those that a target does not process,
    go to the host uncounted (stats.corrupt), so there are no errors here.
    """

    def __init__(self) -> None:
        self.reset_tcp()
        self.reset_ip()

    def reset_tcp(self) -> None:
        """The set of the TCP OID (stats.reset)."""
        self.in_segments = 0
        self.out_segments = 0
        self.retransmitted_segments = 0
        self.out_resets = 0
        self.reset_established = 0

    def reset_ip(self) -> None:
        """The set of the IP OID (stats.reset)."""
        self.in_receives = 0
        self.in_octets = 0
        self.out_requests = 0
        self.out_octets = 0
        self.out_discards = 0

    def arrived(self, datagrams: int, octets: int) -> None:
        """So many datagrams were received and are processed."""
        self.in_receives += datagrams
        self.in_octets += octets

    def left(self, datagrams: int, octets: int) -> None:
        """So many datagrams were given to the link."""
        self.out_requests += datagrams
        self.out_octets += octets

    def tcp(self, established: int) -> TcpOffloadStats:
        """TCP_OFFLOAD_STATS; ``established`` is counted when asked for: it is no counter, and a set leaves it alone."""
        return TcpOffloadStats(
            in_segments=self.in_segments & _LOW_64,
            out_segments=self.out_segments & _LOW_64,
            retransmitted_segments=self.retransmitted_segments & _LOW_32,
            out_resets=self.out_resets & _LOW_32,
            currently_established=established & _LOW_32,
            reset_established=self.reset_established & _LOW_32,
        )

    def ip(self) -> IpOffloadStats:
        """IP_OFFLOAD_STATS."""
        return IpOffloadStats(
            in_receives=self.in_receives & _LOW_64,
            in_octets=self.in_octets & _LOW_64,
            in_delivers=self.in_receives & _LOW_64,
            out_requests=self.out_requests & _LOW_64,
            out_octets=self.out_octets & _LOW_64,
            out_discards=self.out_discards & _LOW_32,
        )
