"""Segments that are not what they seem: RST, SYN and URG where they must not do harm (16.4, 16.5; RFC 5961)."""

from __future__ import annotations

from chimney.ndis.crossing import Crossing, Kind, Stage
from chimney.ndis.status import TcpOffloadEvent, UploadReason
from chimney.verifier.books import ObjectBook
from chimney.verifier.check import Checks, enter, finish, packet, segment_in, segment_out
from chimney.verifier.packets import ACK, RST, SYN, URG, Packet
from chimney.verifier.streams import Stream

_CHALLENGE_INTERVAL_US = 3_000_000
# A challenge is sent at once; what comes later answers something else.
_AT_ONCE_US = 1_000
_KEEPALIVE_US = 300_000_000
_SLACK_US = 5_000_000
# Where urgent data may have come from, in the facts' names.
_URGENT = ("", " forwarded", " at the edge", " at the end")
_TCP_HEADER, _SEQ, _FLAGS = 20, 4, 13


class Attacks(Checks):
    """What a target does about a segment that would end the connection, or cannot be its business."""

    RULES = ("tcp.rst.validation", "tcp.syn", "tcp.urgent")

    @segment_in
    def received(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if not packet.acts or not item.offloaded or stream.failed:
            return
        receive = stream.receive
        position = receive.position(packet.seq)
        within = packet.expected <= position < max(receive.limit, packet.expected + 1)
        exact = position == packet.expected
        if stream.mandatory is not None:
            # One that waits in TIME_WAIT for the host still looks at what comes, and may tell of this, too.
            if packet.flags & URG and within:
                stream.facts["attacks: urgent at the end"] = True
            return
        if packet.flags & RST:
            # Behind forwarded segments that the target has not processed yet, less is expected than the books say.
            if receive.acknowledged <= position <= packet.expected:
                stream.facts["attacks: plausible"] = True
            if not exact:
                self._challenge(stream, packet, "tcp.rst.validation", within)
            self.exercise("tcp.rst.validation")
        elif packet.flags & SYN:
            if exact and not _ended(stream):
                stream.facts["attacks: syn"] = packet
            elif not _ended(stream):
                self._challenge(stream, packet, "tcp.syn", within)
            self.exercise("tcp.syn")
        else:
            if packet.flags & URG and packet.flags & ACK and within and _acknowledges(packet, stream):
                stream.facts.setdefault("attacks: urgent", (position, packet))
            elif packet.flags & URG:
                self.exercise("tcp.urgent")
                if position == receive.limit and not packet.payload_length:
                    # Without data it may stand at the right edge: the window is full of what is still under way.
                    stream.facts["attacks: urgent at the edge"] = True
            if packet.flags & ACK and within:
                # Also one that comes before the challenge has left.
                stream.facts.pop("attacks: challenged", None)
                stream.facts["attacks: good"] = True

    def _challenge(self, stream: Stream, packet: Packet, rule: str, within: bool) -> None:
        """The segment may cause a challenge ACK: when it came, and what for."""
        if within:
            stream.facts["attacks: questionable"] = (rule, packet)
            stream.facts.pop("attacks: good", None)

    @segment_out
    def sent(self, packet: Packet, item: ObjectBook, stream: Stream) -> None:
        if not item.offloaded:
            return
        urgent = stream.facts.get("attacks: urgent")
        if urgent is not None:
            position, _ = urgent
            self.check(
                "tcp.urgent",
                stream.receive.position(packet.ack) <= position or bool(packet.flags & RST),
                lambda: f"byte {position} is urgent, and up to {stream.receive.position(packet.ack)} is acknowledged",
                packet,
            )
        rule, cause = stream.facts.get("attacks: questionable", ("", None))
        if cause is None:
            return
        if packet.flags & RST and stream.abort is None:
            self.check(rule, False, lambda: f"{cause} was answered with a reset", packet)
        elif not packet.payload_length and packet.at - cause.at <= _AT_ONCE_US:
            del stream.facts["attacks: questionable"]
            self._challenged(packet, stream, rule)

    def _challenged(self, packet: Packet, stream: Stream, rule: str) -> None:
        """A challenge ACK: for RSTs one until a good segment has come, for SYNs one in three seconds."""
        last: tuple[str, int] | None = stream.facts.pop("attacks: challenged", None)
        if "attacks: good" not in stream.facts:
            stream.facts["attacks: challenged"] = (rule, packet.at)
        stream.facts["attacks: probes from"] = packet.at
        if last is None or last[0] != rule:
            return
        since = packet.at - last[1]
        if rule == "tcp.syn":
            self.check(rule, since >= _CHALLENGE_INTERVAL_US, f"challenged again after {since} us", packet)
        else:
            self.check(rule, False, f"challenged again after {since} us, without a good segment in between", packet)

    @enter(Kind.FORWARD, stage=Stage.HANDLER)
    def forwarded(self, crossing: Crossing) -> None:
        if crossing.boundary.bottom:
            for request in crossing.notes:
                if request.length < _TCP_HEADER:
                    continue
                flags = request.data(_FLAGS, 1)[0]
                if flags & URG:
                    request.stream.facts["attacks: urgent forwarded"] = True
                if flags & RST:
                    # What came before it may have been beside the window, and nobody's.
                    receive = request.stream.receive
                    position = receive.position(int.from_bytes(request.data(_SEQ, 4), "big"))
                    if receive.acknowledged <= position <= receive.next:
                        request.stream.facts["attacks: plausible"] = True

    @enter(Kind.EVENT)
    def event(self, crossing: Crossing) -> None:
        item = self.books.object(crossing)
        if not crossing.boundary.bottom or item is None or item.stream is None:
            return
        stream = item.stream
        if crossing.value == TcpOffloadEvent.INDICATE_ABORT:
            cause = (stream.reset or stream.hardware_failure) is not None or "attacks: plausible" in stream.facts
            self.check("tcp.rst.validation", cause, "aborted without an RST with the next sequence number", crossing)
        elif crossing.value == TcpOffloadEvent.INDICATE_RETRIEVE:
            if crossing.information == UploadReason.RECEIVED_URGENT_DATA:
                valid = any(f"attacks: urgent{how}" in stream.facts for how in _URGENT)
                self.check("tcp.urgent", valid, "no valid segment had URG", crossing)
                stream.facts["attacks: urgent told"] = True
            elif crossing.information == UploadReason.UPLOAD_REQUESTED and "attacks: syn" in stream.facts:
                stream.facts["attacks: syn told"] = True

    @enter(Kind.TERMINATE_COMPLETE)
    def terminated(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.bottom and operation is not None:
            for item in operation.objects:
                if item is not None and item.stream is not None:
                    self._ended(item, item.stream, crossing)

    @finish
    def over(self) -> None:
        for stream in self.books.streams.values():
            if stream.bottom is not None and stream.terminate is None:
                self._ended(stream.bottom, stream, None)

    def _ended(self, item: ObjectBook, stream: Stream, crossing: Crossing | None) -> None:
        """Nothing of it may have been overlooked, unless the host was faster."""
        syn: Packet | None = stream.facts.get("attacks: syn")
        if syn is not None and self._had_time(syn, stream):
            told = "attacks: syn told" in stream.facts or stream.failed
            self.check(
                "tcp.syn", told, "a SYN with the next sequence number did not end the offload", crossing or item, item
            )
        if "attacks: urgent" in stream.facts and self._had_time(stream.facts["attacks: urgent"][1], stream):
            told = "attacks: urgent told" in stream.facts or stream.failed or stream.mandatory is not None
            self.check("tcp.urgent", told, "urgent data came, and no upload was asked for", crossing or item, item)
        if isinstance(stream.reset, Packet) and stream.abort is None and self._had_time(stream.reset, stream):
            told = stream.abort_event is not None or stream.leaving and stream.mandatory is not None
            self.check(
                "tcp.rst.validation", told, "an acceptable RST did not abort the connection", crossing or item, item
            )

    def _had_time(self, packet: Packet, stream: Stream) -> bool:
        """Whether the target was done with the packet when the terminate was called."""
        until = self.verifier.clock() if stream.terminate is None else stream.terminate.at
        return until - packet.at > _AT_ONCE_US


class Probes(Checks):
    """After a challenge the peer is asked, within five minutes, whether it is still there."""

    RULES = ("tcp.rst.keepalive",)

    @packet
    def passed(self, packet: Packet) -> None:
        stream = packet.stream
        if stream is None or not packet.tcp or stream.facts.get("attacks: probes from") is None:
            return
        since: int = stream.facts["attacks: probes from"]
        if packet.incoming:
            good = packet.acts and packet.flags & ACK and not packet.flags & (RST | SYN)
            if good and stream.receive.position(packet.seq) >= stream.receive.acknowledged - 1:
                del stream.facts["attacks: probes from"]
                text = f"no probe for {packet.at - since} us after a challenge"
                self.check(
                    "tcp.rst.keepalive", packet.at - since <= _KEEPALIVE_US + _SLACK_US, text, stream.bottom, stream
                )
        elif packet.sent and packet.at > since and stream.send.position(packet.seq) < stream.send.sent:
            stream.facts["attacks: probes from"] = None
            text = f"the first probe came {packet.at - since} us after the challenge"
            self.check("tcp.rst.keepalive", packet.at - since <= _KEEPALIVE_US + _SLACK_US, text, packet)
        elif packet.sent and _probe(packet, stream):
            stream.facts["attacks: probes from"] = None
            text = f"the first probe came {packet.at - since} us after the challenge"
            self.check("tcp.rst.keepalive", packet.at - since <= _KEEPALIVE_US + _SLACK_US, text, packet)

    @finish
    def over(self) -> None:
        self._late(list(self.books.streams.values()))

    @enter(Kind.TERMINATE)
    def terminate(self, crossing: Crossing) -> None:
        operation = crossing.notes
        if crossing.boundary.top and operation is not None:
            self._late(list(operation.streams()))

    def _late(self, streams: list[Stream]) -> None:
        for stream in streams:
            since = stream.facts.pop("attacks: probes from", None)
            if since is None:
                continue
            until = self.verifier.clock() if stream.mandatory is None else stream.mandatory.at
            if until - since > _KEEPALIVE_US + _SLACK_US:
                silent = not stream.failed
                text = "no probe within five minutes after a challenge, and nothing good came"
                self.check("tcp.rst.keepalive", not silent, text, stream.bottom, stream)


def _probe(packet: Packet, stream: Stream) -> bool:
    """A keepalive probe: the byte before what is expected next (RFC 9293, 3.8.4)."""
    return packet.payload_length <= 1 and stream.send.position(packet.seq) == stream.send.acked - 1


def _acknowledges(packet: Packet, stream: Stream) -> bool:
    return stream.send.position(packet.ack) <= stream.send.sent + stream.send.fin_posted


def _ended(stream: Stream) -> bool:
    """Both directions are over: TIME_WAIT, or CLOSED."""
    return stream.fin_received is not None and stream.send.fin_posted and stream.send.acked > stream.send.posted
