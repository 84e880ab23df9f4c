"""The statistics OIDs against what passes the link's door (17.1)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from chimney.ndis.capabilities import IpOffloadStats, Oid, OidRequest, TcpOffloadStats
from chimney.ndis.crossing import Boundary, Crossing, Kind, Stage
from chimney.ndis.state import PathConst
from chimney.ndis.status import Status
from chimney.verifier.books import Layer, ObjectBook
from chimney.verifier.check import Checks, enter, leave, packet, segment_in, segment_out
from chimney.verifier.packets import RST, Packet, checksums_hold
from chimney.verifier.streams import Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_FAMILIES = {
    Oid.TCP4_OFFLOAD_STATS: (False, True),
    Oid.TCP6_OFFLOAD_STATS: (True, True),
    Oid.IP4_OFFLOAD_STATS: (False, False),
    Oid.IP6_OFFLOAD_STATS: (True, False),
}
_ERRORS = ("in_errors", "in_header_errors")


@dataclass(slots=True)
class _Traffic:
    """Of offloaded connections at one boundary over one IP version: wire segments, and RSTs sent. ``base_tcp`` and
    ``base_ip`` are the counts when a counter family was reset last, None if it never was.
    """

    came: int = 0
    left: int = 0
    resets: int = 0
    base: dict[bool, tuple[int, int, int, int]] = field(default_factory=dict)


class StatisticsChecks(Checks):
    """Counters count what there was, of offloaded connections alone: never more than passed the link's door."""

    RULES = ("stats.scope", "stats.reset", "stats.corrupt")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._traffic: dict[tuple[int, bool], _Traffic] = {}
        self._corrupt = 0
        self._corrupt_passed_up = 0

    def _of(self, boundary: Boundary, ipv6: bool) -> _Traffic:
        return self._traffic.setdefault((boundary.number, ipv6), _Traffic())

    @packet
    def passed(self, packet: Packet) -> None:
        if packet.incoming and not packet.checksum_ok:
            self._corrupt += 1

    @segment_in
    def came(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        self._of(item.boundary, len(packet.source) == 16).came += packet.segment_count

    @segment_out
    def left(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        traffic = self._of(item.boundary, len(packet.source) == 16)
        traffic.left += packet.segment_count
        traffic.resets += bool(packet.flags & RST)

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        """What the host has received for a connection counts as the connection's."""
        item = self.books.object(crossing)
        path = None if item is None or item.parent is None else item.parent.const
        if crossing.boundary.bottom and isinstance(path, PathConst):
            self._of(crossing.boundary, len(path.source_address) == 16).came += len(crossing.nbls)

    @enter(Kind.ORDINARY_RECEIVE)
    def passed_up(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom or self._corrupt <= self._corrupt_passed_up:
            return
        for view in crossing.nbls:
            frame = b"".join(view.nbl.first_net_buffer.views())
            if len(frame) >= 34 and not checksums_hold(memoryview(frame)):
                self._corrupt_passed_up += 1

    @leave(Kind.OID)
    def answered(self, crossing: Crossing) -> None:
        request = crossing.information
        if crossing.raised is None and crossing.result == Status.SUCCESS and isinstance(request, OidRequest):
            self._told(crossing, request)

    @enter(Kind.OID_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        request = crossing.information
        if crossing.value == Status.SUCCESS and isinstance(request, OidRequest):
            self._told(crossing, request)

    def _told(self, crossing: Crossing, request: OidRequest) -> None:
        family = _FAMILIES.get(request.oid)
        if family is None or not crossing.boundary.bottom:
            return
        ipv6, tcp = family
        traffic = self._of(crossing.boundary, ipv6)
        now = traffic.came, traffic.left, traffic.resets, self._corrupt - self._corrupt_passed_up
        if request.set:
            traffic.base[tcp] = now
            return
        base = traffic.base.get(tcp)
        counts = request.information
        if not isinstance(counts, (TcpOffloadStats, IpOffloadStats)):
            return
        bounds = self._bounds(counts, now, base or (0, 0, 0, 0))
        wrong = [
            f"{name} {getattr(counts, name)} of {bound}"
            for name, bound in bounds.items()
            if name not in _ERRORS and getattr(counts, name) > bound
        ]
        self.check("stats.scope", not wrong, lambda: f"more is counted than there was: {', '.join(wrong)}", crossing)
        if base is not None:
            self.check(
                "stats.reset",
                not wrong,
                lambda: f"more is counted than there was since the set: {', '.join(wrong)}",
                crossing,
            )
        if isinstance(counts, TcpOffloadStats):
            count = self._established(crossing.boundary, ipv6)
            self.check(
                "stats.scope",
                counts.currently_established <= count,
                f"{counts.currently_established} connections are counted, {count} are offloaded",
                crossing,
            )
        for error in _ERRORS:
            if error in bounds:
                self.check(
                    "stats.corrupt",
                    getattr(counts, error) <= max(0, now[3]),
                    f"{getattr(counts, error)} errors are counted, {now[3]} corrupt frames have been dropped",
                    crossing,
                )

    def _bounds(self, counts: Any, now: tuple[int, int, int, int], base: tuple[int, int, int, int]) -> dict[str, int]:
        came, left, resets, dropped = (after - before for after, before in zip(now, base, strict=True))
        known = {
            "in_segments": came,
            "out_segments": left,
            "retransmitted_segments": left,
            "out_resets": resets,
            "in_receives": came,
            "in_delivers": came,
            "out_requests": left,
            "in_errors": dropped,
            "in_header_errors": dropped,
        }
        return {item.name: known[item.name] for item in fields(counts) if item.name in known}

    def _established(self, boundary: Boundary, ipv6: bool) -> int:
        paths = [item.parent.const for item in self.books.of(boundary).offloaded(Layer.TCP) if item.parent is not None]
        return sum(isinstance(path, PathConst) and (len(path.source_address) == 16) == ipv6 for path in paths)
