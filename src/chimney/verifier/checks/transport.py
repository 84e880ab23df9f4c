"""What TCP demands of every segment that a target sends: acknowledgements, windows, Nagle, timestamps (16.6, 14.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import PathCached, TcpCached, TcpConst, TcpDelegated
from chimney.ndis.status import TcpCachedFlags, TcpConstFlags
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, segment_in, segment_out
from chimney.verifier.packets import ACK, FIN, IPV6, RST, SYN, Packet
from chimney.verifier.recent import Recent
from chimney.verifier.relations import has, settled
from chimney.verifier.segments import TcpSegment, parse_segment
from chimney.verifier.streams import Stream, distance

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

# TCP's options take 40 bytes at most: what is this much smaller than the MSS is small whatever it carries.
_LARGEST_OPTIONS = 40
# A probe is due some milliseconds after the last segment by the target's clock. A busy target reads that once a turn,
# and may send the segment long after, and the probe behind it in the next one: at the door there is hardly a silence.
# What leaves in one turn has none at all in virtual time.
_PROBE_US = 1
_FLOWS = 256


class Core(Checks):
    """Acknowledgement and window of each segment, and what it may carry."""

    RULES = ("tcp.rfc.core", "tcp.nagle")

    @segment_out
    def sent(self, packet: Packet, book: ObjectBook, stream: Stream) -> None:
        if not packet.flags & (RST | SYN):
            self._acknowledges(packet, book, stream)
            if packet.payload_length:
                self._fits_the_window(packet, book, stream)
                self._small(packet, book, stream)

    @segment_in
    def received(self, packet: Packet, book: ObjectBook, stream: Stream) -> None:
        """How far the peer lets us go."""
        if not packet.acts or not packet.flags & ACK or packet.flags & (RST | SYN):
            return
        self._lets_us_go(packet, book, stream)

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        """What is forwarded may be processed from now on."""
        if not crossing.boundary.bottom:
            return
        for request in crossing.notes:
            segment = parse_segment(request.data())
            if segment is not None and segment.flags & ACK and not segment.flags & (RST | SYN):
                self._lets_us_go(segment, request.book, request.stream)

    def _lets_us_go(self, segment: Packet | TcpSegment, book: ObjectBook, stream: Stream) -> None:
        const = book.const
        assert isinstance(const, TcpConst)
        scale = const.snd_wind_scale if has(const.flags, TcpConstFlags.WINDOW_SCALING_ENABLED) else 0
        edge = stream.send.position(segment.ack) + (segment.window << scale)
        stream.facts["transport: edge"] = max(self._edge(stream), edge)

    def _edge(self, stream: Stream) -> int:
        edge: int = stream.facts.get("transport: edge", stream.delegated.snd_wnd)
        return edge

    def _acknowledges(self, packet: Packet, book: ObjectBook, stream: Stream) -> None:
        receive = stream.receive
        acknowledged = receive.position(packet.ack)
        self.check(
            "tcp.rfc.core",
            bool(packet.flags & ACK) and acknowledged <= receive.next,
            lambda: f"it acknowledges {acknowledged} bytes, {receive.next} have arrived in sequence",
            packet,
        )
        const = book.const
        assert isinstance(const, TcpConst)
        scale = const.rcv_wind_scale if has(const.flags, TcpConstFlags.WINDOW_SCALING_ENABLED) else 0
        edge = acknowledged + (packet.window << scale)
        before: int = stream.facts.get("transport: right edge", edge)
        stream.facts["transport: right edge"] = max(edge, before)
        # Rounding to the scale may take up to one unit off.
        self.check(
            "tcp.rfc.core",
            edge + (1 << scale) >= before or acknowledged < receive.acknowledged,
            lambda: f"the right edge of the window moves back from {before} to {edge} (RFC 9293, 3.8.6)",
            packet,
        )

    def _fits_the_window(self, packet: Packet, book: ObjectBook, stream: Stream) -> None:
        start = stream.send.position(packet.seq)
        end = start + packet.payload_length
        edge = self._edge(stream)
        probe = packet.payload_length == 1
        again = end <= max(stream.facts.get("transport: sent before", 0), stream.send.handed_over)
        stream.facts["transport: sent before"] = max(stream.facts.get("transport: sent before", 0), end)
        self.check(
            "tcp.rfc.core",
            end <= edge or probe or again,
            lambda: f"bytes up to {end}, the peer's window ends at {edge}",
            packet,
        )

    def _small(self, packet: Packet, book: ObjectBook, stream: Stream) -> None:
        cached, const, path = book.cached, book.const, book.parent
        if not isinstance(cached, TcpCached) or not isinstance(const, TcpConst) or path is None or not settled(book):
            return
        if not has(cached.flags, TcpCachedFlags.NAGLING_ENABLED) or not isinstance(path.cached, PathCached):
            return
        start = stream.send.position(packet.seq)
        sent: int = stream.facts.get("transport: nagle", stream.send.handed_over)
        new = start >= sent
        stream.facts["transport: nagle"] = max(sent, start + packet.payload_length)
        headers = 60 if packet.ethertype == IPV6 else 40
        whole = min(const.remote_mss, path.cached.path_mtu - headers) - _LARGEST_OPTIONS
        # A target that has found a black hole sends smaller segments than path and peer allow (RFC 2923, 2.1).
        if packet.gso_size:
            stream.facts["transport: segment size"] = packet.gso_size
        elif not new and start + packet.payload_length < sent:
            # The first one that is sent again tells.
            stream.facts["transport: segment size"] = packet.payload_length
        whole = min(whole, stream.facts.get("transport: segment size", whole))
        closing = bool(packet.flags & FIN) or stream.graceful is not None
        remainder = packet.payload_length % packet.gso_size if packet.gso_size else packet.payload_length
        quiet = packet.at - stream.facts.get("transport: data at", book.initiated.at)
        stream.facts["transport: data at"] = packet.at
        if new and not closing and packet.payload_length > 1:
            in_flight = start + packet.payload_length - remainder - stream.send.acked
            small = 0 < remainder < whole and in_flight > 0
            # One segment after a silence asks for the fate of the others: a tail loss probe (RFC 8985, 7.3).
            probed: int = stream.facts.get("transport: probed", -1)
            if small and quiet >= _PROBE_US and probed != stream.send.acked:
                stream.facts["transport: probed"] = stream.send.acked
                return
            self.check(
                "tcp.nagle",
                not small,
                lambda: f"a new segment of {remainder} bytes while {in_flight} are in flight",
                packet,
            )


class Timestamps(Checks):
    """One timestamp clock for each connection, through every hand-over."""

    RULES = ("ts.delta", "ts.host-delta")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        # TsTime of the last upload.
        self._uploaded: Recent[tuple[bytes, int, bytes, int], int] = Recent(_FLOWS)

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        stamps = packet.timestamps
        if stamps is None:
            return
        last: int = stream.facts.get("transport: tsval", stream.delegated.ts_time)
        self.check(
            "ts.delta",
            distance(stamps[0], last) >= 0,
            lambda: f"the timestamp goes back from {last} to {stamps[0]}",
            packet,
        )
        stream.facts["transport: tsval"] = stamps[0]

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.after, operation.objects, strict=True):
            if item is None or item.stream is None or not isinstance(block.delegated, TcpDelegated):
                continue
            last = item.stream.facts.get("transport: tsval")
            if last is not None and block.status == 0:
                back = distance(block.delegated.ts_time, last)
                text = f"TsTime {block.delegated.ts_time}, {-back} ticks before the last timestamp on the wire"
                self.check("ts.delta", back >= 0, text, crossing, item)
                self._uploaded[item.stream.flow] = block.delegated.ts_time

    @enter(Kind.INITIATE, stage=Stage.CALL)
    def again(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item in zip(operation.before, operation.objects, strict=True):
            if item is None or item.stream is None or not isinstance(block.delegated, TcpDelegated):
                continue
            const = item.const
            last = self._uploaded.get(item.stream.flow)
            if last is None or not isinstance(const, TcpConst):
                continue
            if has(const.flags, TcpConstFlags.TIMESTAMP_ENABLED) and item.stream.period:
                back = distance(block.delegated.ts_time, last)
                text = f"TsTime {block.delegated.ts_time}, {-back} ticks before what the last upload brought"
                self.check("ts.host-delta", back >= 0, text, crossing, item)
