"""What a connection's timers count in, and whether they have to run."""

from __future__ import annotations

from chimney.ndis.capabilities import TcpConnectionOffloadParameters
from chimney.ndis.status import TcpConnectionState
from chimney.verifier.books import Books, ObjectBook
from chimney.verifier.packets import FIN, RST, SYN, Packet
from chimney.verifier.streams import Stream, distance

_SECOND = 1_000_000
_FIN_ACKED = (TcpConnectionState.FIN_WAIT_2, TcpConnectionState.TIME_WAIT)
_FIN_SENT = (TcpConnectionState.FIN_WAIT_1, TcpConnectionState.CLOSING, TcpConnectionState.LAST_ACK)


def parameters_of(books: Books, stream: Stream) -> TcpConnectionOffloadParameters | None:
    """The adapter's parameters as they have been since the connection was offloaded; None if nobody has set them, or
    somebody has set others meanwhile.
    """
    item = stream.bottom
    now = None if item is None else books.of(item.boundary).parameters
    first: TcpConnectionOffloadParameters | None = stream.facts.setdefault("timing: parameters", now)
    return first if first is not None and first is now and first.ticks_per_second > 0 else None


def microseconds(ticks: int, parameters: TcpConnectionOffloadParameters) -> int:
    """Ticks of the host's, in microseconds."""
    return ticks * _SECOND // parameters.ticks_per_second


def is_at_work(stream: Stream) -> bool:
    """Whether the target has to process what arrives, and may send."""
    item = stream.bottom
    if item is None or not item.offloaded or stream.leaving or stream.failed or stream.abort_event is not None:
        return False
    at: ObjectBook | None = item
    while at is not None:
        if at.invalid is not None:
            return False
        at = at.parent
    return True


def is_plain(packet: Packet) -> bool:
    """Whether it is a received segment that a target processes, and that neither resets nor synchronises."""
    return packet.tcp and packet.incoming and packet.acts and not packet.flags & (RST | SYN)


def is_fresh(packet: Packet, stream: Stream, after: int) -> bool:
    """Whether a plain segment is acceptable without doubt: it begins at the position ``after``, where the next byte was
    expected, and its timestamp is not old.
    """
    stamps = packet.timestamps
    if stamps is not None:
        last = stream.facts.get("timing: ts", stamps[0])
        if distance(stamps[0], last) < 0:
            return False
        stream.facts["timing: ts"] = stamps[0]
    acked = stream.send.position(packet.ack)
    return stream.receive.position(packet.seq) == after and acked <= stream.send.sent + 1


def fin_is_acked(stream: Stream) -> bool:
    """Whether the peer has acknowledged our FIN."""
    send, before = stream.send, stream.delegated.state
    if before in _FIN_ACKED:
        return True
    if before in _FIN_SENT:
        return send.acked >= send.handed_over
    return send.fin_posted and send.acked > send.posted


def covers(packet: Packet, stream: Stream, position: int) -> bool:
    """Whether a sent segment carries what stands at ``position``, a byte or the FIN."""
    start = stream.send.position(packet.seq)
    return start <= position < start + packet.payload_length + bool(packet.flags & FIN)
