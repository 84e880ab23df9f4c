"""What stands in the headers of the segments that a target sends (16.1 to 16.3, 16.6)."""

from __future__ import annotations

from chimney.ndis.crossing import Crossing, Kind
from chimney.ndis.state import NeighborCached, NeighborConst, TcpCached, TcpConst
from chimney.ndis.status import Status, TcpConstFlags
from chimney.verifier.books import Layer, ObjectBook, Operation
from chimney.verifier.check import Checks, enter, packet
from chimney.verifier.packets import IPV4, IPV6, NO_VLAN, RST, Packet
from chimney.verifier.relations import has, settled

_VLAN_ID, _CFI = 0x0FFF, 0x1000
_FIRST_TARGET_ID = 0x8000
_ECN_FIELD = 3


class Headers(Checks):
    """MAC, IP and TCP headers, against the neighbor, the path and the connection they are made from."""

    RULES = ("tcp.headers", "tcp.cached-ip-fields", "tcp.no-fragments", "tcp.ip-id", "tcp.options.flags", "vlan.send")

    @packet
    def sent(self, packet: Packet) -> None:
        if packet.incoming or not packet.sent or packet.ethertype not in (IPV4, IPV6):
            return
        book = packet.book
        if book is None or not packet.tcp:
            # The host's frames go the same way; it has the lower half of the identifications.
            if packet.tcp and packet.ethertype == IPV4 and packet.identification >= _FIRST_TARGET_ID:
                flow = (packet.source, packet.source_port, packet.destination, packet.destination_port)
                known = flow in self.books.streams
                self.check("tcp.headers", known, "no offloaded connection has these addresses", packet)
            return
        if packet.ethertype == IPV4:
            self._ipv4(packet)
        path = book.parent
        neighbor = None if path is None else path.parent
        if neighbor is not None and settled(neighbor) and settled(path):
            self._frame(packet, book, neighbor)
        if isinstance(book.const, TcpConst) and isinstance(book.cached, TcpCached):
            if settled(book):
                self._ip(packet, book.const, book.cached)
            self._options(packet, book, book.const, book.cached)

    def _ipv4(self, packet: Packet) -> None:
        self.check(
            "tcp.no-fragments",
            packet.dont_fragment and not packet.fragment,
            "the datagram is a fragment" if packet.fragment else "Don't Fragment is not set",
            packet,
        )
        last = packet.identification + packet.segment_count - 1
        self.check(
            "tcp.ip-id",
            packet.identification >= _FIRST_TARGET_ID and last <= 0xFFFF,
            lambda: f"identification {packet.identification:#06x} to {last:#06x}: the lower half is the host's",
            packet,
        )

    def _frame(self, packet: Packet, book: ObjectBook, neighbor: ObjectBook) -> None:
        const, cached = neighbor.const, neighbor.cached
        if not isinstance(const, NeighborConst) or not isinstance(cached, NeighborCached):
            return
        own = const.dl_source_address if any(const.dl_source_address) else packet.interface
        right = packet.destination_mac == cached.dl_destination_address and own in (packet.source_mac, b"")
        self.check(
            "tcp.headers",
            right,
            lambda: (
                f"from {packet.source_mac.hex(':')} to {packet.destination_mac.hex(':')}, the neighbor's state says "
                f"from {own.hex(':') or 'any'} to {cached.dl_destination_address.hex(':')}"
            ),
            packet,
        )
        priority = book.cached.user_priority if isinstance(book.cached, TcpCached) else 0
        tag = (priority << 13) | const.vlan_id
        # A target without 802.1p ignores the priority.
        wanted = {tag or NO_VLAN, const.vlan_id or NO_VLAN}
        self.check(
            "vlan.send",
            packet.vlan in wanted and (packet.vlan == NO_VLAN or not packet.vlan & _CFI),
            lambda: f"tag {packet.vlan:#06x}; VLAN {const.vlan_id} and priority {priority} make {tag:#06x}",
            packet,
        )

    def _ip(self, packet: Packet, const: TcpConst, cached: TcpCached) -> None:
        # The ECN field (RFC 3168, 5) is each segment's own where ECN was negotiated, and zero where not.
        own = _ECN_FIELD if const.flags & TcpConstFlags.ECN_ENABLED else 0
        right = packet.hops == cached.ttl_or_hop_limit
        right = right and packet.traffic_class & ~own == cached.tos_or_traffic_class & ~_ECN_FIELD
        if packet.ethertype == IPV6:
            right = right and packet.flow_label == cached.flow_label
        self.check(
            "tcp.cached-ip-fields",
            right,
            lambda: (
                f"hop limit {packet.hops}, traffic class {packet.traffic_class:#x}, flow label "
                f"{packet.flow_label:#x}; the host has set {cached.ttl_or_hop_limit}, "
                f"{cached.tos_or_traffic_class:#x}, {cached.flow_label:#x}"
            ),
            packet,
        )

    def _options(self, packet: Packet, book: ObjectBook, const: TcpConst, cached: TcpCached) -> None:
        flags = const.flags
        if not packet.flags & RST:
            stamped = packet.timestamps is not None
            self.check(
                "tcp.options.flags",
                stamped == has(flags, TcpConstFlags.TIMESTAMP_ENABLED),
                "a segment with a timestamp on a connection without" if stamped else "a segment without a timestamp",
                packet,
            )
        if not has(flags, TcpConstFlags.SACK_ENABLED):
            self.check("tcp.options.flags", not packet.sack_blocks, "SACK blocks on a connection without", packet)
        stream = book.stream
        if stream is None:
            return
        scale = const.rcv_wind_scale if has(flags, TcpConstFlags.WINDOW_SCALING_ENABLED) else 0
        largest = max(cached.initial_rcv_wnd, stream.delegated.rcv_wnd, *book.facts.setdefault("headers: windows", [0]))
        if settled(book) and not packet.flags & RST:
            book.facts["headers: windows"] = [max(largest, cached.initial_rcv_wnd)]
            self.check(
                "tcp.options.flags",
                packet.window << scale <= largest + (1 << scale),
                lambda: f"window field {packet.window} means {packet.window << scale} bytes, {largest} are the most",
                packet,
            )


class Vlans(Checks):
    """What a target may not refuse because of a VLAN."""

    RULES = ("vlan.support",)

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        tagged = {
            item.const.vlan_id
            for item in self.books.of(crossing).offloaded(Layer.NEIGHBOR)
            if isinstance(item.const, NeighborConst) and item not in operation.objects
        } - {0}
        for block, item, fresh in zip(operation.after, operation.objects, operation.new, strict=True):
            if not fresh or item is None or not isinstance(item.const, NeighborConst):
                continue
            vlan_id = item.const.vlan_id
            if vlan_id == 0 or not tagged:
                refused = (Status.OFFLOAD_VLAN_ENTRIES,) if vlan_id else _VLAN_STATUSES
                right = block.status not in refused
                text = "" if right else f"a neighbor with VLAN {vlan_id} was refused with {Status(block.status).name}"
                self.check("vlan.support", right, text, crossing)


_VLAN_STATUSES = (Status.OFFLOAD_VLAN_ENTRIES, Status.OFFLOAD_VLAN_MISMATCH)
