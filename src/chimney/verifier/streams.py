"""Whose every byte of an offloaded connection is: what was posted, what is on the wire, what was acknowledged, what was
delivered.

Positions are counted from the first byte of the books (`SendBook.origin`, `ReceiveBook.origin` as sequence numbers),
and do not wrap.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chimney.ndis.buffers import NetBufferList
from chimney.ndis.status import TcpConnectionState, UploadReason
from chimney.verifier.packets import ACK, FIN, RST, SYN, Packet

if TYPE_CHECKING:
    from chimney.ndis.crossing import Crossing
    from chimney.ndis.state import TcpDelegated
    from chimney.verifier.books import ObjectBook, Request

_HALF = 1 << 31
_MASK = 0xFFFFFFFF
# What begins so many bytes behind the window is not kept: no target takes it.
_FAR_BEYOND = 1 << 20
FIN_SENT = frozenset(
    {
        TcpConnectionState.FIN_WAIT_1,
        TcpConnectionState.FIN_WAIT_2,
        TcpConnectionState.CLOSING,
        TcpConnectionState.LAST_ACK,
    }
)
PEER_CLOSED = frozenset({TcpConnectionState.CLOSE_WAIT, TcpConnectionState.CLOSING, TcpConnectionState.LAST_ACK})


def distance(to: int, origin: int) -> int:
    """How far sequence number ``to`` lies behind ``origin``; negative if before it."""
    return ((to - origin + _HALF) & _MASK) - _HALF


class SendBook:
    """One direction, ours to the peer.

    ``origin`` is SND.UNA at the initiate. ``posted`` bytes have been posted; ``sent`` is the highest position that has
    been on the wire by host or target, ``sent_by_target`` by the target; ``acked`` the highest that an acknowledgement
    covered which reached the target, ``acked_surely`` one that it must have taken. A FIN takes the position behind the
    last byte; ``fin_posted`` once it is asked for.
    """

    def __init__(self, snd_una: int, snd_nxt: int, snd_max: int) -> None:
        self.origin = snd_una
        self.next = distance(snd_nxt, snd_una)
        self.sent = distance(snd_max, snd_una)
        self.handed_over = self.sent
        self.sent_by_target = 0
        self.posted = 0
        self.acked = 0
        self.acked_surely = 0
        self.fin_posted = False
        self.requests: list[Request] = []

    def position(self, seq: int) -> int:
        """The position of a sequence number near what is in flight."""
        # Asked a dozen times for each frame: `distance`, written out.
        acked = self.acked
        return acked + ((seq - self.origin - acked + _HALF) & _MASK) - _HALF

    def add(self, request: Request) -> None:
        """The bytes of a posted request follow those posted before."""
        request.start = self.posted
        self.posted += request.length
        request.end = self.posted
        self.requests.append(request)

    def bytes_at(self, start: int, length: int) -> bytes:
        """What was posted for these positions, as far as it is known (requests that are still pending)."""
        return b"".join(
            request.data(max(0, start - request.start), min(start + length, request.end) - max(start, request.start))
            for request in self.requests_at(start, length)
        )

    def requests_at(self, start: int, length: int) -> list[Request]:
        """The pending requests that have bytes at these positions, oldest first."""
        found = []
        for index in range(bisect_right(self.requests, start, key=lambda request: request.end), len(self.requests)):
            request = self.requests[index]
            if request.start >= start + length:
                break
            found.append(request)
        return found

    def forget(self, request: Request) -> None:
        """A request has left the target."""
        if request in self.requests:
            self.requests.remove(request)


class ReceiveBook:
    """The other direction.

    ``origin`` is the sequence number of the first byte that the target delivers: RCV.NXT less what was handed over.
    ``available`` bytes are there in sequence, ``delivered`` of them with the host; ``fin`` is the FIN's position.
    ``content`` holds the bytes from ``delivered`` on. ``unsure`` says that overlapping segments contradicted each
    other. ``acknowledged`` is the highest position (FIN included) that the peer has been told of, ``limit`` the end of
    the largest window it was told of, ``beyond`` the highest position that came in spite of that.
    """

    def __init__(self, rcv_nxt: int, rcv_wnd: int, buffered: bytes) -> None:
        self.origin = (rcv_nxt - len(buffered)) & _MASK
        self.handed_over = len(buffered)
        self.content = bytearray(buffered)
        self.delivered = 0
        self.fin: int | None = None
        self.unsure = False
        self.acknowledged = len(buffered)
        self.limit = len(buffered) + rcv_wnd
        self.beyond = 0
        self._waiting: dict[int, bytes] = {}

    @property
    def available(self) -> int:
        return self.delivered + len(self.content)

    @property
    def next(self) -> int:
        """The position of RCV.NXT: behind what is in sequence, and behind the FIN if that is."""
        available = self.delivered + len(self.content)
        return available + (self.fin is not None and available >= self.fin)

    def touches(self, position: int, length: int) -> bool:
        """Whether a segment has to be taken: it begins in the window, or reaches into it."""
        following = self.next
        if position < following:
            return position + length > following
        return position < self.limit or position == following

    @property
    def exact(self) -> bool:
        """Whether the target must have taken everything that is counted here: nothing came outside of its window."""
        return self.acknowledged >= self.beyond

    @property
    def held(self) -> int:
        """How many bytes have arrived, and have not been delivered."""
        return len(self.content) + sum(map(len, self._waiting.values()))

    @property
    def has_hole(self) -> bool:
        """Whether bytes wait behind a hole."""
        return bool(self._waiting)

    def position(self, seq: int) -> int:
        """The position of a sequence number near what is expected next."""
        available = self.delivered + len(self.content)
        return available + ((seq - self.origin - available + _HALF) & _MASK) - _HALF

    def arrive(self, position: int, data: bytes) -> None:
        """Bytes from the wire, or forwarded."""
        if not self._waiting and position == self.available:
            self.content += data
            return
        if data:
            known = self._waiting.get(position)
            if known is None or len(known) < len(data):
                self._waiting[position] = data
        if position > self.available:
            return
        for start in sorted(self._waiting):
            if start > self.available:
                break
            data = self._waiting.pop(start)
            overlap = self.available - start
            before = self.content[max(0, start - self.delivered) : max(0, start - self.delivered) + len(data)]
            if start >= self.delivered and before and not data.startswith(bytes(before)):
                self.unsure = True
            self.content += data[overlap:]

    def deliver(self, length: int) -> bytes:
        """The next ``length`` bytes, which go to the host now; fewer if the target has invented some."""
        with memoryview(self.content) as content:
            taken = bytes(content[:length])
        del self.content[:length]
        self.delivered += len(taken)
        return taken


@dataclass(slots=True, eq=False)
class Stream:
    """One connection during one stay at the target, the same at all boundaries it crosses.

    Crossings and packets that decide what is allowed are kept by name: ``reset`` (an acceptable RST came in),
    ``abort`` (a local abortive disconnect was asked for), ``rst_sent``, ``fin_received``, ``fin_sent``,
    ``disconnect_event``, ``abort_event``, ``mandatory`` (the first mandatory upload request, while it stands),
    ``terminate`` (called at the target) and ``terminated``, ``hardware_failure``, ``invalidated``. ``bottom`` is its
    object at the boundary above its target, until that ends. ``facts`` is for the checks' own notes.
    """

    label: str
    flow: tuple[bytes, int, bytes, int]
    delegated: TcpDelegated
    send: SendBook
    receive: ReceiveBook
    period: int = 0
    window_scale: int = 0
    reset: Packet | Crossing | None = None
    abort: Crossing | None = None
    rst_sent: Packet | None = None
    fin_received: Packet | Crossing | None = None
    fin_sent: Packet | None = None
    graceful: Crossing | None = None
    disconnect_event: Crossing | None = None
    abort_event: Crossing | None = None
    retrieves: list[tuple[Crossing, UploadReason]] = field(default_factory=list)
    mandatory: Crossing | None = None
    hardware_failure: Crossing | None = None
    invalidated: Crossing | None = None
    terminate: Crossing | None = None
    terminated: Crossing | None = None
    bottom: ObjectBook | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether something has ended it other than an upload: reset, local abort, hardware failure."""
        return (self.reset or self.abort or self.hardware_failure) is not None

    @property
    def peer_closed(self) -> bool:
        """Whether the peer's FIN has come, here or before the offload."""
        return self.fin_received is not None or self.delegated.state in PEER_CLOSED

    @property
    def leaving(self) -> bool:
        """Whether it is to be uploaded: asked for with a mandatory reason, or terminate called."""
        return (self.mandatory or self.terminate) is not None

    def stays(self) -> None:
        """Its path has got a valid neighbor: if that was all, its upload is not asked for any more (9.7, step 4)."""
        if all(reason is UploadReason.INVALID_STATE for _, reason in self.retrieves if reason.mandatory):
            self.mandatory = self.invalidated = None

    def segment_in(self, seq: int, ack: int, flags: int, data: bytes, crossing: Packet | Crossing) -> None:
        """A segment reached the target, from the wire or forwarded."""
        receive, send = self.receive, self.send
        position = receive.position(seq)
        if flags & RST:
            if self.reset is None and position == receive.next:
                self.reset = crossing
            return
        if flags & SYN or not flags & ACK:
            return
        if self.reset is None:
            covered = send.position(ack)
            if send.acked < covered <= send.posted + 1 + send.fin_posted:
                send.acked = covered
            # A segment that lies beside the window is dropped, with its acknowledgement (RFC 9293, 3.10.7.4).
            if send.acked_surely < covered <= send.acked and receive.touches(position, len(data)):
                send.acked_surely = covered
        if self.terminated is not None:
            return
        if -len(data) <= position - receive.available and position <= receive.limit + _FAR_BEYOND:
            if position + len(data) > receive.limit:
                receive.beyond = max(receive.beyond, position + len(data))
            receive.arrive(position, data)
            if flags & FIN and receive.fin is None:
                receive.fin = position + len(data)
        if receive.fin is not None and self.fin_received is None and receive.available >= receive.fin:
            self.fin_received = crossing

    def packet_out(self, packet: Packet) -> None:
        """A segment left the target."""
        send = self.send
        end = send.position(packet.seq) + packet.payload_length
        if packet.payload_length:
            send.sent = max(send.sent, end)
            send.sent_by_target = max(send.sent_by_target, end)
        if packet.flags & FIN and self.fin_sent is None:
            self.fin_sent = packet
        if packet.flags & RST and self.rst_sent is None:
            self.rst_sent = packet
        if packet.flags & ACK:
            receive = self.receive
            acknowledged = receive.position(packet.ack)
            receive.acknowledged = max(receive.acknowledged, acknowledged)
            receive.limit = max(receive.limit, acknowledged + (packet.window << self.window_scale))


def chain_bytes(nbls: list[NetBufferList]) -> bytes:
    """The used bytes of these lists, joined."""
    return b"".join(bytes(view) for nbl in nbls for view in nbl.first_net_buffer.views())
