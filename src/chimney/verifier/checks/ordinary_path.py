"""What is not for a target goes up the ordinary path, and what is for it does not (16.3, 16.4)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chimney.ndis.crossing import Crossing, Kind, NblView
from chimney.ndis.state import NeighborConst
from chimney.ndis.status import TcpConnectionState
from chimney.verifier.addressing import foreign_address, foreign_vlan, neighbor_of
from chimney.verifier.books import ObjectBook
from chimney.verifier.check import Checks, enter, finish, packet, segment_in, segment_out
from chimney.verifier.packets import ACK, IPV4, IPV6, NO_VLAN, RST, SYN, URG, Packet, checksums_hold
from chimney.verifier.streams import PEER_CLOSED, Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

# Frames that somebody waits for; a target may keep some, and lose some if they are too many.
_LIMIT = 256

Signature = tuple[Any, ...]


@dataclass(slots=True)
class _Expected:
    """A received frame that has to go up, by which rule and why."""

    rule: str
    packet: Packet
    why: str


class OrdinaryPath(Checks):
    """Received frames at the link's door, and those that are indicated on the ordinary path."""

    RULES = ("tcp.no-reassembly", "tcp.rx-mac", "tcp.closed-data")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self.expected: dict[Signature, deque[_Expected]] = {}
        self.waiting = 0

    @packet
    def received(self, packet: Packet) -> None:
        if not packet.incoming or packet.ethertype not in (0, IPV4, IPV6):
            if packet.incoming:
                self._expect("tcp.no-reassembly", packet, "it is no IP packet")
            return
        if packet.fragment or packet.ip_options or not packet.tcp:
            why = "a fragment" if packet.fragment else "IP options" if packet.ip_options else "no TCP segment"
            self._expect("tcp.no-reassembly", packet, why)
            return
        book = packet.book
        stream = None if book is None else book.stream
        if book is None or stream is None or not packet.checksum_ok:
            return
        stream.facts["ordinary_path: mac"] = packet.interface
        if foreign_address(packet, neighbor_of(book)):
            self._expect("tcp.rx-mac", packet, "it is addressed to somebody else")
        elif self._closed(stream) and packet.payload_length and not packet.flags & (RST | SYN | URG):
            if not foreign_vlan(packet, neighbor_of(book)):
                self._expect("tcp.closed-data", packet, "the connection is closed")

    def _closed(self, stream: Stream) -> bool:
        """Whether it was closed before: reset, or ended both ways with everything acknowledged."""
        if stream.terminate is not None:
            return False
        if stream.abort_event is not None and stream.reset is not None:
            return True
        ended = stream.send.fin_posted and stream.send.acked > stream.send.posted
        return ended and stream.disconnect_event is not None and bool(stream.retrieves) and _closed_second(stream)

    def _expect(self, rule: str, packet: Packet, why: str) -> None:
        if self.waiting < _LIMIT:
            self.waiting += 1
            self.expected.setdefault(signature(packet), deque()).append(_Expected(rule, packet, why))

    @enter(Kind.ORDINARY_RECEIVE)
    def indicated(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for frame, view in zip(crossing.notes, crossing.nbls, strict=True):
            waiting = self.expected.get(signature(frame))
            if waiting:
                self.waiting -= 1
                self.exercise(waiting.popleft().rule)
                if not waiting:
                    del self.expected[signature(frame)]
            elif frame.tcp and not frame.ip_options:
                self._own(crossing, frame, view)

    def _own(self, crossing: Crossing, frame: Packet, view: NblView) -> None:
        """A whole TCP segment goes up: it must not be one that the target has to take."""
        flow = (frame.destination, frame.destination_port, frame.source, frame.source_port)
        stream = self.books.streams.get(flow)
        book = None if stream is None else stream.bottom
        if stream is None or book is None or not book.offloaded or not book.initiate_returned:
            return
        const = None if (neighbor := neighbor_of(book)) is None else neighbor.const
        plain = frame.flags & ACK and not frame.flags & (SYN | RST | URG)
        if not plain or stream.leaving or stream.failed or not isinstance(const, NeighborConst) or const.vlan_id:
            return
        if stream.send.fin_posted and stream.send.acked > stream.send.posted:
            return
        own = const.dl_source_address if any(const.dl_source_address) else stream.facts.get("ordinary_path: mac", b"")
        end = stream.receive.position(frame.seq) + frame.payload_length
        window = stream.receive.acknowledged < end <= stream.receive.limit
        if not own or frame.destination_mac != own or not frame.payload_length or not window:
            return
        # What is damaged is not the target's to take.
        if checksums_hold(memoryview(b"".join(view.nbl.first_net_buffer.views()))):
            self.check("tcp.rx-mac", False, "a segment to the connection's own address was not taken", crossing, book)

    @finish
    def over(self) -> None:
        for waiting in self.expected.values():
            for item in waiting:
                text = f"{item.packet} never went up the ordinary path: {item.why}"
                self.check(item.rule, False, text, item.packet)


def signature(packet: Packet) -> Signature:
    """What tells one frame from another, on its way through a target."""
    return (
        packet.destination_mac,
        packet.ethertype,
        packet.source,
        packet.destination,
        packet.identification,
        packet.ip_length,
        packet.protocol,
        packet.seq,
        packet.ack,
        packet.flags,
    )


class Vlan(Checks):
    """Frames of another VLAN than the neighbor's have no effect; without a VLAN, tags do not matter."""

    RULES = ("vlan.receive",)

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        strange: list[tuple[int, int]] = stream.facts.get("ordinary_path: strange", [])
        if strange:
            acknowledged = stream.receive.position(packet.ack)
            taken = any(start < acknowledged <= end and acknowledged > stream.receive.next for start, end in strange)
            self.check("vlan.receive", not taken, "bytes of a frame of another VLAN are acknowledged", packet)

    @segment_in
    def received(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if not packet.checksum_ok:
            return
        neighbor = neighbor_of(item)
        start = stream.receive.position(packet.seq)
        if foreign_vlan(packet, neighbor):
            if packet.payload_length:
                stream.facts.setdefault("ordinary_path: strange", []).append((start, start + packet.payload_length))
            self.exercise("vlan.receive")
        elif packet.vlan != NO_VLAN and packet.payload_length and neighbor is not None:
            if packet.flags & ACK and not packet.flags & (SYN | RST | URG) and stream.receive.next >= start:
                stream.facts["ordinary_path: tagged"] = start + packet.payload_length

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if crossing.boundary.bottom and item is not None and item.stream is not None:
            stream = item.stream
            if "ordinary_path: strange" in stream.facts:
                known = crossing.nbls[0].length <= len(stream.receive.content)
                self.check("vlan.receive", known, "bytes of a frame of another VLAN are indicated", crossing)

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or operation is None:
            return
        for stream in operation.streams():
            tagged = stream.facts.get("ordinary_path: tagged")
            if tagged is not None and not stream.failed and stream.mandatory is None and stream.receive.exact:
                text = (
                    f"tagged frames up to byte {tagged} were not taken, {stream.receive.acknowledged} are acknowledged"
                )
                self.check("vlan.receive", stream.receive.acknowledged >= tagged, text, crossing, stream)


def _closed_second(stream: Stream) -> bool:
    """Whether our FIN came behind the peer's: else the connection is in TIME-WAIT when both are acknowledged."""
    if stream.delegated.state in PEER_CLOSED:
        return stream.delegated.state is not TcpConnectionState.CLOSING
    sent, fin = stream.fin_sent, stream.receive.fin
    return isinstance(sent, Packet) and fin is not None and stream.receive.position(sent.ack) > fin
