"""The target's records of offloaded state objects: each connection points at its path, each path at its neighbor (5.5).

`refresh` follows these pointers once, after a change, and leaves a `HeaderTemplate` that sending takes as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.link.base import Flow
from chimney.ndis.buffers import NetBufferList
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.state import NeighborConst, PathConst, TcpCached, TcpConst
from chimney.ndis.status import TcpConnectionState
from chimney.target.counters import Counters
from chimney.target.delivery import Delivery
from chimney.target.frames import HeaderTemplate
from chimney.target.sending import Sending
from chimney.tcp.config import NEVER
from chimney.tcp.connection import Connection
from chimney.tcp.info import TcpInfo, info
from chimney.tcp.segment import Segment

if TYPE_CHECKING:
    from chimney.target.advice import Usage


class NeighborObject:
    """A next hop. ``paths`` (keys, in their order) depend on it; ``invalid`` silences them. Times in microseconds."""

    def __init__(
        self, handle: OffloadHandle, const: NeighborConst, source_mac: bytes, destination_mac: bytes, now: int
    ) -> None:
        self.handle = handle
        self.const = const
        self.vlan_id = const.vlan_id
        self.source_mac = source_mac
        self.destination_mac = destination_mac
        self.paths: dict[PathObject, None] = {}
        self.invalid = False
        # When we, and when the host, last had proof that the neighbor is reachable (NRT and HRT of 11.2).
        self.nic_reachable_at = now
        self.host_reachable_at = now


class PathObject:
    """A pair of addresses over a neighbor. ``connections`` (keys, in their order) depend on it; ``invalid`` silences
    them. ``fragments`` have been received over it, if they are counted.
    """

    def __init__(self, handle: OffloadHandle, const: PathConst, path_mtu: int, neighbor: NeighborObject) -> None:
        self.handle = handle
        self.const = const
        self.ipv6 = len(const.source_address) == 16
        self.path_mtu = path_mtu
        self.neighbor = neighbor
        self.connections: dict[TcpObject, None] = {}
        self.invalid = False
        self.fragments = 0


class TcpObject:
    """An offloaded connection: its engine, its two queues, and where it stands with the host.

    ``key`` finds it from a received frame (`frames.flow_key`); ``counters`` are those of its IP version.

    engine_done  nothing that arrives is processed any more (mandatory upload request, abort).
    silent       nothing is sent (invalidated).
    broken       its hardware has lost its state, which nobody knows yet; ``failed``: the host has been told.
    terminating  a terminate has been called.
    withdrawn    a segment that counts as sent and was not: the link had no room, until it was not to be sent any more.
    gone         the terminate has completed.
    heard        what it sent last in TIME_WAIT answers the frames up to this one (the target's `frames_in`).
    careful      so many frames more are acknowledged as they come, for some have been missing (`datapath`).
    frames       keeps what arrives after a mandatory upload request, for the host.
    backlog      the preferred send backlog that the host knows, and may be told anew at ``backlog_at``.
    usage        what it had done when the target looked at it last (`advice`).
    """

    def __init__(
        self,
        handle: OffloadHandle,
        path: PathObject,
        flow: Flow,
        key: bytes,
        const: TcpConst,
        cached: TcpCached,
        engine: Connection,
        delivery: Delivery,
        sending: Sending,
        template: HeaderTemplate,
        counters: Counters,
    ) -> None:
        self.handle = handle
        self.path = path
        self.counters = counters
        self.flow = flow
        self.key = key
        self.const = const
        self.cached = cached
        self.engine = engine
        self.delivery = delivery
        self.sending = sending
        self.template = template
        self.local_port = const.local_port
        self.remote_port = const.remote_port
        self.invalid = False
        self.silent = False
        self.engine_done = False
        self.terminating = False
        self.upload_reason = 0
        self.broken = False
        self.failed = False
        self.abort_request: NetBufferList | None = None
        self.withdrawn: Segment | None = None
        self.forwards: list[NetBufferList] = []
        self.frames: list[bytes] = []
        self.active = False
        self.waiting = False
        self.scheduled_at = NEVER
        self.acked_before = 0
        self.retransmitted_before = 0
        self.backlog = 0
        self.backlog_at = 0
        self.usage: Usage | None = None
        self.gone = False
        self.heard = 0
        self.careful = 0

    @property
    def bytes_acked(self) -> int:
        """Stream bytes that the peer has acknowledged since the offload."""
        return self.engine.acked

    @property
    def bytes_delivered(self) -> int:
        """Stream bytes placed into requests or accepted as indications since the offload."""
        return self.delivery.delivered

    @property
    def state(self) -> TcpConnectionState:
        """Its state now."""
        return TcpConnectionState(self.engine.state)

    @property
    def retransmitted_segments(self) -> int:
        """Wire segments sent again since the offload."""
        return self.engine.stats.retransmitted_segments

    def info(self, now: int) -> TcpInfo:
        """The engine's figures, as TCP_INFO tells them of a kernel socket."""
        return info(self.engine, now)

    def refresh(self) -> None:
        """Make the header template anew, after a change of neighbor, path or cached variables."""
        path = self.path
        neighbor = path.neighbor
        cached = self.cached
        self.template = HeaderTemplate(
            neighbor.source_mac,
            neighbor.destination_mac,
            path.const.source_address,
            path.const.destination_address,
            cached.ttl_or_hop_limit,
            cached.tos_or_traffic_class,
            cached.flow_label,
            neighbor.const.vlan_id,
            cached.user_priority,
        )
        self.silent = self.invalid or path.invalid or neighbor.invalid
