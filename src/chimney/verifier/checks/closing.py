"""FIN and RST on the wire: when a target sends them, and what it does afterwards (10.5, 10.6, 13.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.state import TcpConst
from chimney.ndis.status import DisconnectFlags
from chimney.verifier.books import ObjectBook, Operation
from chimney.verifier.check import Checks, enter, finish, packet
from chimney.verifier.packets import ACK, FIN, RST, Packet
from chimney.verifier.streams import FIN_SENT, Stream

if TYPE_CHECKING:
    from chimney.verifier.verifier import Verifier

_UPCALLS = (Kind.RECEIVE_INDICATE, Kind.EVENT, Kind.RECEIVE_COMPLETE)
# How long a target may be kept from its work without having waited for something that it must not wait for.
_PROMPT_US = 5_000_000
_LINGER_US = 200_000


class Resets(Checks):
    """The RST of an abortive disconnect, and no other."""

    RULES = ("disconnect.rst.only-then", "disconnect.abort.no-wait", "disconnect.abort.stop-rx")

    @enter(Kind.DISCONNECT, stage=Stage.HANDLER)
    def asked(self, crossing: Crossing) -> None:
        for request in crossing.notes or ():
            stream = request.stream
            if stream.abort is crossing and not stream.leaving:
                boundary = crossing.boundary
                upcalls = [c for c in self.verifier.running if c.boundary is boundary and c.kind in _UPCALLS]
                stream.facts["closing: abort in upcall"] = bool(upcalls)
                acknowledged = max(stream.receive.acknowledged, stream.facts.get("closing: acknowledged in vain", 0))
                stream.facts["closing: acknowledged at abort"] = acknowledged

    @packet
    def seen(self, packet: Packet) -> None:
        stream = packet.stream
        if packet.incoming or stream is None:
            return
        if stream.abort is not None:
            self._after_abort(packet, stream)
        elif packet.lost and packet.flags & ACK:
            # The target has said it, and need not know whether a segment was lost at the link or behind it.
            stream.facts["closing: acknowledged in vain"] = stream.receive.position(packet.ack)
        if packet.flags & RST and packet.sent:
            self.check(
                "disconnect.rst.only-then",
                stream.abort is not None,
                "an RST, and nobody has asked for an abort",
                packet,
                stream,
            )

    def _after_abort(self, packet: Packet, stream: Stream) -> None:
        assert stream.abort is not None
        if not packet.sent:
            stream.facts["closing: refused"] = True
            if packet.flags & RST:
                stream.facts["closing: rst lost"] = True
        before = stream.facts.get("closing: acknowledged at abort")
        if before is None:
            return
        if packet.flags & ACK:
            now = stream.receive.position(packet.ack)
            self.check(
                "disconnect.abort.stop-rx",
                now <= before,
                lambda: f"{now - before} bytes more are acknowledged after the abort",
                packet,
                stream,
            )
        if packet.flags & RST and stream.facts["closing: abort in upcall"] and "closing: refused" not in stream.facts:
            waited = packet.at - stream.abort.at
            self.check(
                "disconnect.abort.no-wait",
                waited <= _PROMPT_US,
                lambda: f"the RST comes {waited} us after the abort",
                packet,
                stream,
            )

    @enter(Kind.RECEIVE_INDICATE)
    def indicated(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.bottom or item is None or item.stream is None:
            return
        if "closing: acknowledged at abort" in item.stream.facts:
            self.check("disconnect.abort.stop-rx", False, "data is indicated after the abort", crossing, item)


class Fins(Checks):
    """The FIN of a graceful disconnect: its place, its time, and that receiving goes on."""

    RULES = (
        "disconnect.graceful.order",
        "disconnect.graceful.no-ack-wait",
        "disconnect.graceful.half-close",
    )

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier)
        self._owing: dict[int, Stream] = {}

    @enter(Kind.DISCONNECT, stage=Stage.HANDLER)
    def asked(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom and crossing.value == DisconnectFlags.GRACEFUL_CLOSE:
            for request in crossing.notes or ():
                self._note_all_sent(request.stream, crossing.at)

    @packet
    def seen(self, packet: Packet) -> None:
        stream = packet.stream
        if stream is None or stream.terminated is not None:
            return
        if packet.incoming:
            self._arrived(packet, stream)
        else:
            stream.facts["closing: blocked"] = not packet.sent
            self._left(packet, stream)

    # Data that comes after our FIN

    def _arrived(self, packet: Packet, stream: Stream) -> None:
        item = stream.bottom
        if item is not None and isinstance(item.const, TcpConst) and not packet.flags & RST:
            stream.facts["closing: peer window"] = packet.window << item.const.snd_wind_scale
        self._overdue(stream, packet)
        half_closed = stream.fin_sent is not None or stream.delegated.state in FIN_SENT
        receive = stream.receive
        if (
            half_closed
            and packet.payload_length
            and not self._excused(stream)
            and "closing: half-close" not in stream.facts
        ):
            end = receive.position(packet.seq) + packet.payload_length
            # What does not follow without a hole is not owed an acknowledgement of its own.
            if receive.acknowledged < end <= receive.available and receive.exact:
                stream.facts["closing: half-close"] = (end, packet.at)
                self._owing[id(stream)] = stream

    def _excused(self, stream: Stream) -> bool:
        gone = stream.failed or stream.leaving or stream.terminated is not None or stream.invalidated is not None
        return gone or (stream.bottom is not None and stream.bottom.invalid is not None)

    def _settled(self, stream: Stream) -> None:
        stream.facts.pop("closing: half-close", None)
        self._owing.pop(id(stream), None)

    def _overdue(self, stream: Stream, where: Packet | Crossing | ObjectBook | None) -> None:
        owed = stream.facts.get("closing: half-close")
        if owed is None:
            return
        if stream.receive.acknowledged >= owed[0]:
            self.exercise("disconnect.graceful.half-close")
            self._settled(stream)
        elif self._excused(stream) or "closing: refused" in stream.facts:
            self._settled(stream)
        elif self.verifier.clock() - owed[1] > _PROMPT_US:
            self._settled(stream)
            message = "data that came after our FIN is not acknowledged"
            self.check("disconnect.graceful.half-close", False, message, where, stream)

    @enter(Kind.TERMINATE)
    def taken_back(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.bottom and isinstance(operation, Operation):
            for stream in operation.streams():
                self._overdue(stream, crossing)

    @finish
    def ended(self) -> None:
        for stream in list(self._owing.values()):
            self._overdue(stream, stream.bottom)

    # Our FIN

    def _left(self, packet: Packet, stream: Stream) -> None:
        if not packet.sent:
            stream.facts["closing: refused"] = True
        if packet.flags & FIN and packet.sent:
            self._fin(packet, stream)
        if packet.payload_length:
            self._note_all_sent(stream, packet.at)
        self._overdue(stream, packet)

    def _fin(self, packet: Packet, stream: Stream) -> None:
        send = stream.send
        place = send.position(packet.seq) + packet.payload_length
        asked = send.fin_posted or stream.delegated.state in FIN_SENT
        self.check(
            "disconnect.graceful.order",
            asked and place == send.posted,
            lambda: f"a FIN at {place}, posted were {send.posted} bytes{'' if asked else ', and no close'}",
            packet,
            stream,
        )
        ready = stream.facts.get("closing: all sent")
        if stream.fin_sent is packet and ready is not None and not packet.payload_length:
            since, acked = ready
            if acked < send.posted:
                # What an owner before has sent already comes again when its timer says so.
                again = stream.delegated.state in FIN_SENT
                waited = send.acked >= send.posted and packet.at - since > _LINGER_US and not again
                self.check(
                    "disconnect.graceful.no-ack-wait",
                    not waited or "closing: refused" in stream.facts or self._excused(stream),
                    lambda: f"the FIN comes {packet.at - since} us after the last byte, which is acknowledged by now",
                    packet,
                    stream,
                )

    def _note_all_sent(self, stream: Stream, now: int) -> None:
        """From now on nothing stands in the way of the FIN: all is sent, and neither window is full for certain."""
        send = stream.send
        if not send.fin_posted or stream.fin_sent is not None or "closing: all sent" in stream.facts:
            return
        if send.sent < send.posted or stream.bottom is None or not isinstance(stream.bottom.const, TcpConst):
            return
        flight = send.posted - send.acked
        window = stream.facts.get("closing: peer window", stream.delegated.snd_wnd)
        if flight < min(stream.bottom.const.remote_mss, window):
            stream.facts["closing: all sent"] = (now, send.acked)
