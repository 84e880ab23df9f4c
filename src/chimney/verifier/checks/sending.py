"""Send requests on their way to the wire: how they are taken, in which order their bytes go out, how they are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.errors import Misuse
from chimney.ndis.state import TcpConst
from chimney.ndis.status import Status
from chimney.verifier.books import BoundaryBook, ObjectBook, Operation, Request
from chimney.verifier.check import Checks, enter, finish, leave, segment_in, segment_out
from chimney.verifier.packets import ACK, FIN, PSH, RST, SYN, Packet
from chimney.verifier.streams import Stream
from chimney.verifier.violation import VerificationError, name

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

# How much later than its timer a held segment may go out: a poll may be late, and the window may have closed.
_SWS_SLACK_US = 500_000


class SendCalls(Checks):
    """NdisOffloadTcpSend itself."""

    RULES = ("send.pending-only", "send.accept-all", "send.host.serialized", "send.host.pipelined")

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._from_above: BaseException | None = None

    @leave(Kind.SEND_COMPLETE, stage=Stage.HANDLER)
    def handled(self, crossing: Crossing) -> None:
        """What a handler raises that a target calls within the send call is not the target's refusal."""
        self._from_above = crossing.raised

    @enter(Kind.SEND)
    def called(self, crossing: Crossing) -> None:
        if not crossing.boundary.top:
            return
        outer = crossing.parent
        while outer is not None:
            inside = outer.kind is Kind.SEND and outer.stage is Stage.CALL and outer.handle is crossing.handle
            if inside and outer.boundary is crossing.boundary:
                break
            outer = outer.parent
        self.check("send.host.serialized", outer is None, "a send call within a send call of this connection", crossing)

    @leave(Kind.SEND, stage=Stage.HANDLER)
    def returned(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        requests: list[Request] = crossing.notes
        if crossing.raised is None:
            self.check(
                "send.pending-only",
                crossing.result == Status.PENDING,
                lambda: f"MiniportTcpOffloadSend returned {crossing.result!r}",
                crossing,
            )
        if not requests:
            return
        stream = requests[0].stream
        raised = crossing.raised
        accepted = raised is None or raised is self._from_above or _hosts_own_fault(raised, stream)
        self.check("send.accept-all", accepted, lambda: f"the send was refused: {crossing.raised!r}", crossing)
        if len(stream.send.requests) > len(requests):
            self.check(
                "send.host.pipelined",
                accepted,
                lambda: f"a send behind {len(stream.send.requests) - len(requests)} others: {crossing.raised!r}",
                crossing,
            )

    @enter(Kind.SEND_COMPLETE)
    def completed(self, crossing: Crossing) -> None:
        if not crossing.boundary.bottom:
            return
        book = self.books.of(crossing)
        for entry in crossing.notes:
            if entry.request is not None and entry.request.kind is Kind.SEND:
                self._ended(crossing, book, entry.request, entry.view.status)

    def _ended(self, crossing: Crossing, book: BoundaryBook, request: Request, status: int) -> None:
        """A send that ends without a reason has been refused. An RST may be told of afterwards (A4)."""
        stream = request.stream
        if status == Status.SUCCESS:
            return
        if stream.failed or stream.leaving or stream.abort_event is not None or book.uploading_all is not None:
            self.exercise("send.accept-all")
        elif status == Status.REQUEST_ABORTED:
            stream.facts.setdefault("sending: aborted send", crossing)
        else:
            self._refused(crossing, stream, status)

    def _refused(self, crossing: Crossing, stream: Stream, status: int) -> None:
        message = f"the send ends with {name(status)}, and nothing has happened to its connection"
        self.check("send.accept-all", False, message, crossing, stream)

    @enter(Kind.TERMINATE, stage=Stage.HANDLER)
    def terminated(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and isinstance(crossing.notes, Operation):
            for stream in crossing.notes.streams():
                self._unexplained(stream)

    def _unexplained(self, stream: Stream) -> None:
        crossing = stream.facts.pop("sending: aborted send", None)
        if crossing is not None and not stream.failed and stream.abort_event is None:
            self._refused(crossing, stream, Status.REQUEST_ABORTED)

    @finish
    def finished(self) -> None:
        for stream in self.books.streams.values():
            self._unexplained(stream)


def _hosts_own_fault(raised: BaseException, stream: Stream) -> bool:
    """Whether the call had to be refused: misuse, data behind a FIN, or a verifier that stops."""
    return stream.send.fin_posted or isinstance(raised, (Misuse, VerificationError))


class Transmission(Checks):
    """The bytes of sends on the wire."""

    RULES = ("send.fifo", "send.fifo.across-calls", "send.multi-nb", "send.psh", "send.sws")

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if packet.payload_length and not packet.flags & (SYN | RST):
            start = stream.send.position(packet.seq)
            self._bytes(packet, stream, start)
            self._push(packet, stream, start + packet.payload_length)

    def _bytes(self, packet: Packet, stream: Stream, start: int) -> None:
        """What is acknowledged may be anything: a keep-alive probe's byte is nobody's."""
        send = stream.send
        end = start + packet.payload_length
        at = max(start, send.acked)
        if at >= end:
            return
        payload = packet.payload()
        for request in send.requests_at(at, end - at):
            first, last = max(at, request.start), min(end, request.end)
            same = payload[first - start : last - start] == request.data(first - request.start, last - first)
            self._request(packet, stream, request, same)
        if end > send.posted:
            self.check(
                "send.fifo",
                False,
                f"the segment ends {end - send.posted} bytes behind everything that was posted",
                packet,
            )

    def _request(self, packet: Packet, stream: Stream, request: Request, same: bool) -> None:
        message = "the bytes on the wire are not those posted for this place in the stream"
        lists, view = request.posted.nbls, request.view
        if len(lists) > 1 or any(len(mdls) > 1 for _, _, mdls in view.buffers):
            self.check("send.fifo", same, message, packet)
        if len(view.buffers) > 1:
            self.check("send.multi-nb", same, message, packet)
        first = stream.facts.setdefault("sending: first call", request.posted.number)
        if request.posted.number != first:
            self.check("send.fifo.across-calls", same, message, packet)

    def _push(self, packet: Packet, stream: Stream, end: int) -> None:
        """The alternative of the rule that every target has to keep: the last segment before the queue runs empty."""
        send = stream.send
        if end <= stream.facts.get("sending: pushed", send.handed_over):
            return
        stream.facts["sending: pushed"] = end
        self._released(packet, stream)
        if end == send.posted and send.requests and send.requests[-1].kind is Kind.SEND:
            self.check(
                "send.psh",
                bool(packet.flags & (PSH | FIN)),
                "the last byte of the send queue went out without PSH",
                packet,
            )

    # Silly-window avoidance: what is held back goes out when the timer expires

    @segment_in
    def received(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if packet.acts and packet.flags & ACK and not packet.flags & SYN and stream.terminate is None:
            scale = _send_scale(packet)
            stream.facts["sending: window"] = stream.send.position(packet.ack) + (packet.window << scale)
            self._consider(packet.at, stream, packet.book)

    @leave(Kind.INITIATE_COMPLETE)
    def offloaded(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.notes is not None:
            for item in crossing.notes.objects:
                if item is not None and item.stream is not None and item.offloaded:
                    item.stream.facts.setdefault("sending: window", item.stream.delegated.snd_wnd)
                    self._consider(crossing.at, item.stream, item)

    @leave(Kind.SEND)
    def posted(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.notes:
            self._consider(crossing.at, crossing.notes[0].stream, crossing.notes[0].book)

    def _consider(self, at: int, stream: Stream, item: ObjectBook | None) -> None:
        """Note since when there has been something that nothing but the timer holds back."""
        send = stream.send
        held = (
            send.posted > send.sent
            and send.sent <= send.acked
            and stream.facts.get("sending: window", 0) > send.sent
            and not stream.failed
            and not stream.leaving
        )
        if held:
            stream.facts.setdefault("sending: held since", (at, item))
        else:
            stream.facts.pop("sending: held since", None)

    def _released(self, packet: Packet, stream: Stream) -> None:
        since = stream.facts.pop("sending: held since", None)
        if since is not None:
            self._in_time(stream, since, packet.at, packet)

    def _in_time(self, stream: Stream, since: tuple[int, ObjectBook], now: int, packet: Packet | None) -> None:
        at, item = since
        timer = self._timer(item)
        if timer and now - at >= min(timer, 10_000):
            self.check(
                "send.sws",
                now - at <= timer + _SWS_SLACK_US,
                lambda: f"a segment was held back for {now - at} us, the timer is set to {timer} us",
                packet,
                stream,
                "" if packet is not None else "target",
            )

    def _timer(self, item: ObjectBook) -> int:
        parameters = self.books.of(item.boundary).parameters
        if parameters is None or parameters.tcp_sws_prevention_ticks <= 0:
            return 0
        return int(parameters.tcp_sws_prevention_ticks * 1_000_000 // max(parameters.ticks_per_second, 1))

    @finish
    def finished(self) -> None:
        now = self.verifier.clock()
        for stream in self.books.streams.values():
            since = stream.facts.get("sending: held since")
            if since is not None and stream.terminated is None and not stream.leaving and not stream.failed:
                self._in_time(stream, since, now, None)


def _send_scale(packet: Packet) -> int:
    const = packet.book.const if packet.book is not None else None
    return const.snd_wind_scale if isinstance(const, TcpConst) else 0
