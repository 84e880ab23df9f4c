"""Initiate: outstanding send data that is handed over in NetBufferListChain (9.2)."""

from __future__ import annotations

from typing import Any

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.crossing import BlockView, Crossing, Kind, Stage
from chimney.ndis.state import PathCached, TcpDelegated
from chimney.verifier.books import OFFLOADED, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish, leave, segment_in, segment_out
from chimney.verifier.packets import RST, SYN, Packet
from chimney.verifier.recent import Recent
from chimney.verifier.relations import connections_of, nodes, view_bytes
from chimney.verifier.streams import FIN_SENT, Stream, distance
from chimney.verifier.violation import name

_REMEMBERED = 256
_COMPARED = 4096
_STALE_US = 1_000_000
"""After so long at the host a connection's sequence numbers may have come round."""


class HandedOverSends(Checks):
    """The chain on its way down: what the host puts into it."""

    RULES = ("initiate.senddata.chain", "initiate.senddata.una-first")

    def __init__(self, verifier: Any) -> None:
        super().__init__(verifier)
        # What came back from the stay before: when, SndUna, and the bytes from there on.
        self._returned: Recent[tuple[bytes, int, bytes, int], tuple[int, int, bytes]] = Recent(_REMEMBERED)

    @enter(Kind.INITIATE)
    def initiate(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, new in zip(operation.before, operation.objects, operation.new, strict=True):
            if new and item is not None and isinstance(block.delegated, TcpDelegated):
                self._chain(crossing, block, block.delegated, item)
                self._first_byte(crossing, block, block.delegated, item)

    def _chain(self, crossing: Crossing, block: BlockView, delegated: TcpDelegated, item: ObjectBook) -> None:
        chain = block.chain
        total = sum(view.length for view in chain)
        sent = distance(delegated.snd_max, delegated.snd_una) - (delegated.state in FIN_SENT)
        rule = "initiate.senddata.chain"
        if sent > 0 or chain:
            self.check(
                rule,
                total >= sent,
                lambda: f"{sent} bytes are sent and not acknowledged, the chain has {total}",
                crossing,
                item,
            )
        self.check(
            rule,
            all(len(view.buffers) == 1 for view in chain),
            "a list of the chain has several NetBuffers",
            crossing,
            item,
        )
        head, tail = delegated.send_data_head, delegated.send_data_tail
        ends = (_holding(chain), _holding(chain[::-1])) if chain else (None, None)
        # A list without data at an end may be counted to the chain or not.
        right = (head is ends[0] or (chain and head is chain[0].nbl)) and (
            tail is ends[1] or (chain and tail is chain[-1].nbl)
        )
        self.check(
            rule,
            bool(right) or (not total and head is tail is None),
            "SendDataHead and SendDataTail are not the first and last list with data",
            crossing,
            item,
        )

    def _first_byte(self, crossing: Crossing, block: BlockView, delegated: TcpDelegated, item: ObjectBook) -> None:
        known = None if item.stream is None else self._returned.pop(item.stream.flow, None)
        if known is None:
            return
        at, una, before = known
        skip = distance(delegated.snd_una, una)
        if not 0 <= skip < len(before) or crossing.at > at + _STALE_US:
            return
        now = view_bytes(block.chain, _COMPARED)
        length = min(len(now), len(before) - skip)
        self.check(
            "initiate.senddata.una-first",
            now[:length] == before[skip : skip + length],
            lambda: f"the chain does not begin with the byte at SndUna {delegated.snd_una}",
            crossing,
            item,
        )

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.top or not isinstance(operation, Operation):
            return
        for block, item, _ in nodes(operation):
            if item is None or item.stream is None or not item.ended or not block.chain:
                continue
            if isinstance(block.delegated, TcpDelegated):
                first = view_bytes(block.chain, _COMPARED)
                self._returned[item.stream.flow] = crossing.at, block.delegated.snd_una, first


def _holding(chain: Any) -> NetBufferList | None:
    for view in chain:
        if view.length:
            nbl: NetBufferList = view.nbl
            return nbl
    return None


class ChainOutcome(Checks):
    """What becomes of the lists of a chain at the target."""

    RULES = (
        "initiate.fail.leave-nbls",
        "initiate.fail.no-send-complete",
        "initiate.senddata.complete",
        "initiate.sws.after",
    )

    def __init__(self, verifier: Any) -> None:
        super().__init__(verifier)
        self._failed: Recent[int, NetBufferList] = Recent(_REMEMBERED)
        self._seen: BaseException | None = None

    @enter(Kind.INITIATE_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for index, (block, item, new) in enumerate(nodes(operation)):
            chain = operation.before[index].chain
            if item is None or not new or not chain:
                continue
            if block.status in OFFLOADED:
                book = self.books.of(crossing)
                requests = [book.requests.get(id(view.nbl)) for view in chain]
                item.facts["initiate_send_data: chained"] = {
                    id(r.nbl): r for r in requests if r is not None and r.book is item
                }
            else:
                self._refused(crossing, item, chain)

    def _refused(self, crossing: Crossing, item: ObjectBook, chain: Any) -> None:
        changed = [view for view in chain if view.nbl.status != view.status]
        self.check(
            "initiate.fail.leave-nbls",
            not changed,
            lambda: f"{len(changed)} lists of its chain have another status, {name(changed[0].nbl.status)}",
            crossing,
            item,
        )
        gone = item.facts.get("initiate_send_data: chain completed", 0)
        self.check(
            "initiate.fail.no-send-complete",
            not gone,
            lambda: f"{gone} lists of its chain have been completed",
            crossing,
            item,
        )
        for view in chain:
            self._failed[id(view.nbl)] = view.nbl

    @enter(Kind.SEND)
    def posted(self, crossing: Crossing) -> None:
        if self._failed:
            for view in crossing.nbls:
                self._failed.pop(id(view.nbl), None)

    @enter(Kind.INITIATE)
    def initiated(self, crossing: Crossing) -> None:
        if self._failed:
            for block in crossing.blocks:
                for view in block.chain:
                    self._failed.pop(id(view.nbl), None)

    @enter(Kind.SEND_COMPLETE)
    def sent(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        for entry in crossing.notes:
            request = entry.request
            if request is None:
                if self._failed.get(id(entry.view.nbl)) is entry.view.nbl:
                    self.check(
                        "initiate.fail.no-send-complete",
                        False,
                        "a list of a connection that could not be offloaded is completed",
                        crossing,
                    )
            elif request.chained:
                facts = request.book.facts
                facts["initiate_send_data: chain completed"] = facts.get("initiate_send_data: chain completed", 0) + 1
                if facts.get("initiate_send_data: chained", {}).pop(id(request.nbl), None) is not None:
                    self.exercise("initiate.senddata.complete")

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for item in operation.objects:
            if item is not None and item.ended and "initiate_send_data: chained" in item.facts:
                self._left(crossing, item, item.facts.pop("initiate_send_data: chained"))

    def _left(self, where: Crossing | ObjectBook, item: ObjectBook, requests: dict[int, Request]) -> None:
        left = [request for request in requests.values() if request.completed is None]
        self.check(
            "initiate.senddata.complete",
            not left,
            lambda: f"{len(left)} lists of its chain were neither completed nor handed back",
            where,
            item,
        )

    @finish
    def finished(self) -> None:
        for book in self.books.boundaries.values():
            for item in book.objects.values() if book.boundary.bottom else ():
                if item.facts.get("initiate_send_data: chained"):
                    self._left(item, item, item.facts["initiate_send_data: chained"])

    @leave(Kind.SEND_COMPLETE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        """Sent at once or held back for a while: whoever takes the completion has to live with either."""
        if any(entry.request is not None and entry.request.chained for entry in crossing.notes or ()):
            raised = crossing.raised
            self.check(
                "initiate.sws.after",
                raised is None or raised is self._seen,
                lambda: f"handed-over data is completed, and the handler raised {raised!r}",
                crossing,
                culprit=crossing.boundary.protocol.name,
            )
            self._seen = raised


def _path_mtu(item: ObjectBook) -> int:
    """The path MTU that the target of a connection knows; 0 if that is not known."""
    path = item.parent
    return path.cached.path_mtu if path is not None and isinstance(path.cached, PathCached) else 0


class HandedOverOnTheWire(Checks):
    """In which order a target sends what has been handed over: three regions, from SndUna, SndNxt and SndMax on."""

    RULES = ("initiate.senddata.inflight", "initiate.senddata.resend-first", "initiate.senddata.unsent-next")

    @enter(Kind.INITIATE, stage=Stage.HANDLER)
    def arrives(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for block, item, new in zip(operation.before, operation.objects, operation.new, strict=True):
            if new and item is not None and item.stream is not None and block.chain:
                item.stream.facts["initiate_send_data: chain ends"] = sum(view.length for view in block.chain)
                item.stream.facts["initiate_send_data: path mtu"] = _path_mtu(item)
                if isinstance(block.delegated, TcpDelegated):
                    item.stream.facts["initiate_send_data: patience"] = self._patience(crossing, block.delegated)

    def _patience(self, crossing: Crossing, delegated: TcpDelegated) -> int:
        """Until when (us) nothing in flight can be due again: no timer, no tail loss probe."""
        parameters = self.books.of(crossing).parameters
        tick = 1_000_000 // (parameters.ticks_per_second if parameters is not None else 1000)
        patience = delegated.s_rtt * tick // 8 if delegated.s_rtt else 1000
        left = delegated.retransmit.timeout_delta
        return crossing.at + min(patience, left * tick)

    @segment_in
    def arrived(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        """From now on there may be a reason to send again, or not to."""
        facts, send = stream.facts, stream.send
        if "initiate_send_data: chain ends" not in facts:
            return
        facts["initiate_send_data: patience"] = 0
        if send.next < send.handed_over and any(
            send.position(left) <= max(send.next, send.acked) < send.position(right)
            for left, right in packet.sack_blocks
        ):
            facts["initiate_send_data: resent"] = True

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        """So there may be with what came before the connection did."""
        if crossing.boundary.bottom:
            for request in crossing.notes:
                if "initiate_send_data: chain ends" in request.stream.facts:
                    request.stream.facts["initiate_send_data: patience"] = 0
                    request.stream.facts["initiate_send_data: resent"] = True

    @enter(Kind.UPDATE, stage=Stage.HANDLER)
    def updated(self, crossing: Crossing) -> None:
        """What went another way, or was too large for it, has hardly arrived."""
        operation = crossing.notes
        if not crossing.boundary.bottom or not isinstance(operation, Operation):
            return
        for item in operation.objects:
            for connection in () if item is None else connections_of(item):
                if connection.stream is not None:
                    connection.stream.facts["initiate_send_data: patience"] = 0
                    connection.stream.facts["initiate_send_data: resent"] = True

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if (
            "initiate_send_data: chain ends" not in stream.facts
            or not packet.payload_length
            or packet.flags & (SYN | RST)
        ):
            return
        start = stream.send.position(packet.seq)
        end = start + packet.payload_length
        if _path_mtu(item) < stream.facts["initiate_send_data: path mtu"]:
            # What was too big has not arrived, and is sent again at once (RFC 1191, 6.4).
            stream.facts["initiate_send_data: patience"] = 0
        self._in_flight(packet, stream, start)
        self._resent(packet, stream, start, end)
        self._unsent(packet, stream, start, end)

    def _in_flight(self, packet: Packet, stream: Stream, start: int) -> None:
        send = stream.send
        if send.next > 0 and "initiate_send_data: in flight" not in stream.facts:
            patient = stream.facts.get("initiate_send_data: patience", 0)
            if packet.at < patient:
                self.check(
                    "initiate.senddata.inflight",
                    start >= send.next,
                    lambda: f"byte {start} goes out again at once, SndNxt is {send.next} bytes behind SndUna",
                    packet,
                )
            elif start < send.next and start >= send.acked:
                self.exercise("initiate.senddata.inflight")
            stream.facts["initiate_send_data: in flight"] = True

    def _resent(self, packet: Packet, stream: Stream, start: int, end: int) -> None:
        send = stream.send
        if send.next >= send.handed_over or "initiate_send_data: resent" in stream.facts or end <= send.next:
            return
        stream.facts["initiate_send_data: resent"] = True
        first = max(send.next, send.acked)
        self.check(
            "initiate.senddata.resend-first",
            start <= first,
            lambda: f"the first data segment starts {start} bytes behind SndUna, SndNxt is at {first}",
            packet,
        )

    def _unsent(self, packet: Packet, stream: Stream, start: int, end: int) -> None:
        """What is sent at the chain's positions is what the chain holds."""
        first, last = (
            max(start, stream.send.handed_over, stream.send.acked),
            min(end, stream.facts["initiate_send_data: chain ends"]),
        )
        if first >= last:
            if stream.send.acked >= stream.facts["initiate_send_data: chain ends"]:
                del stream.facts["initiate_send_data: chain ends"]
            return
        length = min(last - first, _COMPARED)
        expected = stream.send.bytes_at(first, length)
        if len(expected) == length:
            self.check(
                "initiate.senddata.unsent-next",
                _part(packet, first - start, length) == expected,
                lambda: f"{length} bytes at {first} are not the chain's next ones",
                packet,
            )


def _part(packet: Packet, start: int, length: int) -> bytes:
    parts = []
    for view in packet.parts:
        if start >= view.nbytes:
            start -= view.nbytes
            continue
        taken = bytes(view[start : start + length])
        parts.append(taken)
        length -= len(taken)
        start = 0
        if not length:
            break
    return b"".join(parts)
