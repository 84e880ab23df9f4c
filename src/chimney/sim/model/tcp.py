"""One TCP connection from ESTABLISHED on, as RFC 9293 (3.10) has it and as Linux shows it on the wire.

It is a model: what the simulator's kernels and peers run, written to be read and to be right, independent of the
engine. It does no I/O and has no clock: segments and the time (microseconds) come in, segments go out.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from chimney.host.linux.dump import TcpState
from chimney.link.base import NEVER
from chimney.sim.model.receiver import Receiver
from chimney.sim.model.segment import ACK, FIN, MASK, PSH, RST, SYN, Segment, reset_for, unwrap
from chimney.sim.model.sender import INFINITE, ORPHAN_RETRIES, Piece, Sender

ESTABLISHED = TcpState.ESTABLISHED
FIN_WAIT1 = TcpState.FIN_WAIT1
FIN_WAIT2 = TcpState.FIN_WAIT2
CLOSE_WAIT = TcpState.CLOSE_WAIT
CLOSING = TcpState.CLOSING
LAST_ACK = TcpState.LAST_ACK
TIME_WAIT = TcpState.TIME_WAIT
CLOSE = TcpState.CLOSE

TIME_WAIT_US = 60_000_000
MIN_MTU = 256
# Answers to empty segments that should not have come, so that two hosts do not answer each other for ever.
CHALLENGE_US = 500_000

_WRAP = 1 << 32
_BEFORE_FIN = (ESTABLISHED, CLOSE_WAIT)
_FIN_UNACKED = (FIN_WAIT1, CLOSING, LAST_ACK)
_PEER_CLOSED = (CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT)


@dataclass(slots=True)
class Settings:
    """What the handshake has settled, and the socket's options. ``nodelay`` and ``mtu`` may change at any time.

    iss          the first sequence number of our data; ``irs``: of the peer's. 32 bits.
    send_window  what the peer has offered in the handshake, in bytes (`offered` tells it).
    scale        window shift of both sides; -1: no scaling.
    mss          the largest segment that the peer takes, options included, and so do we.
    ts_offset    what our timestamp clock (1 ms) is ahead of the time.
    srtt_us      the round trip that the handshake has measured; 0: none.
    young        the connection has not been used yet: for some time acknowledgements will not be delayed.
    """

    local_port: int
    remote_port: int
    iss: int
    irs: int
    send_window: int = 65535
    scale: int = 7
    timestamps: bool = True
    sack: bool = True
    mss: int = 1460
    receive_buffer: int = 65536
    send_buffer: int = 65536
    nodelay: bool = True
    ts_offset: int = 0
    mtu: int = 1500
    ipv6: bool = False
    srtt_us: int = 0
    young: bool = True


def offered(receive_buffer: int) -> int:
    """The window that a host with such a buffer offers in its handshake: `Settings.send_window` of its peer."""
    return min(receive_buffer, 65535)


@dataclass(slots=True)
class Snapshot:
    """What a kernel tells about a connection. Sequence numbers are 32 bits, sizes bytes, cwnd and ssthresh segments.

    The meanings are those of `chimney.host.linux.dump.KernelState`. ``ts_recent`` is -1 if it is not known (a kernel
    does not tell it). rcv_wnd counts from rcv_wup.
    """

    state: TcpState
    snd_una: int
    snd_nxt: int
    write_seq: int
    rcv_nxt: int
    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int
    send_queue: bytes = b""
    receive_queue: bytes = b""
    timestamp: int = 0
    ts_recent: int = -1
    srtt_us: int = 0
    rttvar_us: int = 0
    rto_us: int = 0
    snd_mss: int = 0
    snd_cwnd: int = 0
    ssthresh: int = INFINITE
    retransmits: int = 0
    total_retrans: int = 0
    bytes_acked: int = 0
    bytes_received: int = 0


class ModelTcp:
    """A connection.

    After every call that may have changed something, call `output` for what is to be sent; and when `poll_at` has come.
    state      a TcpState; CLOSE: it is over.
    error      what the next `send` or `receive_into` raises, once, and what SO_ERROR would tell.
    orphaned   no application has it any more (`close`); it ends by itself.
    """

    def __init__(self, settings: Settings, now: int) -> None:
        """A connection right after its handshake. Raises ValueError if the receive buffer is less than a unit of the
        window, or the MTU leaves no room beside the options.
        """
        if settings.receive_buffer < 1 << max(settings.scale, 0):
            raise ValueError(f"a receive buffer of {settings.receive_buffer} bytes cannot be offered at all")
        if settings.mtu < MIN_MTU:
            raise ValueError(f"an MTU of {settings.mtu} bytes leaves no room beside the options: {MIN_MTU} at least")
        self.settings = settings
        self.state = ESTABLISHED
        self.error: OSError | None = None
        self.orphaned = False
        # One turn of the sequence space is added so that what is before the first byte is not negative.
        iss, irs = settings.iss + _WRAP, settings.irs + _WRAP
        mss = self._largest_payload()
        self.sender = Sender(iss, settings.send_window, irs, mss, settings.sack, settings.srtt_us)
        blocks = (3 if settings.timestamps else 4) if settings.sack else 0
        self.receiver = Receiver(irs, settings.receive_buffer, settings.scale, mss, blocks, settings.young)
        self._ts_offset = settings.ts_offset
        self._ending_at = NEVER
        self._challenged_at = -NEVER
        self._replies: list[Segment] = []
        self._bare_probe = False
        self._dirty = False

    # The application's side

    @property
    def readable(self) -> bool:
        """`receive_into` has something to say: data, the end, or an error."""
        return bool(
            self.receiver.unread or self.receiver.fin_received or self.state is CLOSE or self.error is not None
        )

    @property
    def writable(self) -> bool:
        """`send` would take something, or raise."""
        return (
            self.state not in _BEFORE_FIN
            or len(self.sender.queue) < self.settings.send_buffer
            or self.error is not None
        )

    def send(self, data: memoryview | bytes, now: int) -> int:
        """Queues as much of ``data`` as there is room for; returns how many bytes. Raises OSError as a socket does."""
        self._raise_error()
        if self.state not in _BEFORE_FIN:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        queue = self.sender.queue
        count = min(len(data), self.settings.send_buffer - len(queue))
        if count <= 0:
            return 0
        queue += data[:count]
        self._dirty = True
        return count

    def receive_into(self, buffer: memoryview, now: int) -> int:
        """Reads into ``buffer``; returns how many bytes, 0 at the end of the stream, -1 if there is nothing now.

        Raises OSError as a socket does, after what had arrived before.
        """
        unread = self.receiver.unread
        count = min(len(buffer), len(unread))
        if count:
            buffer[:count] = unread[:count]
            del unread[:count]
            if self.state is not CLOSE:
                self.receiver.was_read()
                self._dirty = True
            return count
        if unread:
            return -1  # the buffer is empty
        if self.receiver.fin_received:
            return 0
        self._raise_error()
        return 0 if self.state is CLOSE else -1

    def shutdown(self, now: int) -> None:
        """Closes the sending half; a second time does nothing. Raises OSError if the connection is over."""
        if self.state is CLOSE:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        self._close_sending()

    def abort(self, now: int) -> None:
        """Resets the connection: the peer is told if it may still believe in it."""
        if self.state in (ESTABLISHED, CLOSE_WAIT, FIN_WAIT1, FIN_WAIT2) or (
            self.state in _FIN_UNACKED and self.sender.max < self.sender.write_seq
        ):
            self._reply(RST | ACK, self.sender.acceptable_seq(), now)
        self.receiver.unread.clear()
        self._over()

    def close(self, now: int) -> None:
        """As close(2): the connection goes on by itself, orphaned; with unread data it is reset."""
        if self.orphaned:
            return
        self.orphaned = True
        self.error = None
        self.sender.retries_allowed = ORPHAN_RETRIES
        if self.state is CLOSE:
            return
        if self.receiver.unread:
            self.abort(now)
            return
        self._close_sending()
        if self.state is FIN_WAIT2:
            self._ending_at = now + TIME_WAIT_US

    def resize(self, buffer: int) -> None:
        """The receive buffer has another size from now on, in bytes."""
        self.receiver.resize(buffer)
        self._dirty = True

    def look_again(self) -> None:
        """Something was changed from outside: `output` finds out what may be sent now."""
        self._dirty = True

    def probe_window(self, now: int) -> None:
        """Asks the peer for its window, as Linux does when a socket leaves repair mode."""
        if self.state is ESTABLISHED:
            # Whatever the answer's sequence number is, its window counts.
            self.sender.wl1 = self.receiver.nxt - 1
            self._bare_probe = True
            self._dirty = True

    # Segments

    def arrives(self, segment: Segment, now: int) -> None:
        """Processes a segment, in any state. Its ports and checksum are right."""
        self._dirty = True
        if self.state is CLOSE:
            reply = reset_for(segment)
            if reply is not None:
                self._replies.append(reply)
            return
        receiver = self.receiver
        flags, payload = segment.flags, segment.payload
        size = len(payload)
        fin = bool(flags & FIN)
        seq = unwrap(segment.seq, receiver.nxt)
        end = seq + size + fin
        stamped = segment.ts_val >= 0 and self.settings.timestamps
        if stamped and not flags & RST and receiver.is_old(segment.ts_val):
            self._unacceptable(seq, size, fin, now)
            return
        edge = max(receiver.edge, receiver.nxt)
        if flags & RST:
            self._reset_arrives(seq, edge, now)
            return
        if end < receiver.acked or seq > edge:
            self._unacceptable(seq, size, fin, now)
            return
        if flags & SYN:
            self._challenge(now)
            return
        if not flags & ACK:
            return
        sender = self.sender
        ack = unwrap(segment.ack, sender.una)
        if ack > sender.max or ack < sender.una - sender.max_wnd:
            self._challenge(now)
            return
        if stamped:
            receiver.note_timestamp(seq, segment.ts_val)
        sender.acknowledge(ack, seq, segment.window << receiver.scale, segment.sack, end == seq, now)
        if 0 <= sender.fin_at < sender.una and self.state in _FIN_UNACKED:
            self._fin_acked(now)
            if self.state is CLOSE:
                return
        if end == seq:
            return
        if self.orphaned and seq + size > receiver.nxt and not receiver.fin_received:
            # Nobody is left to read it.
            self._replies.append(Segment(segment.ack, 0, RST, 0))
            self._over()
            return
        receiver.arrives(seq, payload, fin, now)
        if receiver.fin_received:
            self._fin_received(fin, now)

    def _reset_arrives(self, seq: int, edge: int, now: int) -> None:
        """RFC 9293, 3.10.7.4 (RFC 5961, 3)."""
        nxt = self.receiver.nxt
        if seq == nxt:
            if self.state is CLOSE_WAIT:
                self._fail(errno.EPIPE)
            elif self.state in (ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK):
                self._fail(errno.ECONNRESET)
            else:
                self._over()
        elif nxt < seq < edge:
            self._challenge(now)

    def _unacceptable(self, seq: int, size: int, fin: bool, now: int) -> None:
        """Outside of the window, or too old: the peer is told where we are."""
        if size or fin:
            self.receiver.duplicate(seq, seq + size)
        else:
            self._challenge(now)

    def _challenge(self, now: int) -> None:
        if now - self._challenged_at >= CHALLENGE_US:
            self._challenged_at = now
            self.receiver.ack_now = True

    def _reply(self, flags: int, seq: int, now: int, payload: bytes = b"") -> None:
        self._replies.append(self._segment(flags, seq, payload, now))
        self._dirty = True

    # States

    def _close_sending(self) -> None:
        if self.state is ESTABLISHED:
            self.state = FIN_WAIT1
        elif self.state is CLOSE_WAIT:
            self.state = LAST_ACK
        else:
            return
        self.sender.fin_at = self.sender.una + len(self.sender.queue)
        self._dirty = True

    def _fin_acked(self, now: int) -> None:
        self.sender.stop()
        if self.state is FIN_WAIT1:
            self.state = FIN_WAIT2
            if self.orphaned:
                self._ending_at = now + TIME_WAIT_US
        elif self.state is CLOSING:
            self._wait_time(now)
        else:
            self._over()

    def _fin_received(self, again: bool, now: int) -> None:
        """The peer's FIN is in sequence; ``again`` counts where it has been before."""
        receiver = self.receiver
        if self.state is ESTABLISHED:
            self.state = CLOSE_WAIT
        elif self.state is FIN_WAIT1:
            self.state = CLOSING
            receiver.ack_now = True
        elif self.state is FIN_WAIT2:
            self._wait_time(now)
            receiver.ack_now = True
        elif self.state is TIME_WAIT and again:
            self._ending_at = now + TIME_WAIT_US

    def _wait_time(self, now: int) -> None:
        self.state = TIME_WAIT
        self.sender.stop()
        self._ending_at = now + TIME_WAIT_US

    def _fail(self, number: int) -> None:
        if not self.orphaned:
            self.error = OSError(number, os.strerror(number))
        self._over()

    def _over(self) -> None:
        self.state = CLOSE
        self.sender.forget()
        self.receiver.ack_now = False
        self.receiver.delayed_at = NEVER
        self._bare_probe = False
        self._ending_at = NEVER

    def _raise_error(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    # What leaves

    def poll_at(self) -> int:
        """When `output` wants to be called; 0: at once; NEVER: not before something happens."""
        if self._dirty:
            return 0
        sender = self.sender
        return min(sender.rto_at, sender.probe_at, self.receiver.delayed_at, self._ending_at)

    def output(self, now: int) -> list[Segment]:
        """Everything that is to be sent now, each segment once; runs the timers that have expired."""
        if not self._dirty and now < self.poll_at():
            return []
        self._dirty = False
        out, self._replies = self._replies, []
        if self.state is CLOSE:
            return out
        sender, receiver = self.sender, self.receiver
        if now >= self._ending_at:
            self._over()
            return out
        largest = sender.mss = self._largest_payload()
        if now >= sender.rto_at:
            sender.timed_out(now)
        piece = None
        if now >= sender.probe_at:
            piece = sender.probe(self._room(largest), now)
            self._bare_probe |= piece is None
        if sender.failed:
            self._fail(errno.ETIMEDOUT)
            return out
        if self._bare_probe:
            self._bare_probe = False
            out.append(self._segment(ACK, sender.una - 1, b"", now))
        nodelay = self.settings.nodelay
        if sender.nxt < sender.write_seq or sender.resending:
            while True:
                if piece is None:
                    piece = sender.piece(self._room(largest), nodelay)
                    if piece is None:
                        break
                out.append(self._data(piece, now))
                piece = None
            sender.wait_for_window(now)
        if receiver.ack_now or now >= receiver.delayed_at:
            out.append(self._segment(ACK, sender.acceptable_seq(), b"", now))
        return out

    def _data(self, piece: Piece, now: int) -> Segment:
        start, count, fin = piece
        sender = self.sender
        offset = start - sender.una
        payload = bytes(sender.queue[offset : offset + count])
        flags = ACK
        if count and start + count == sender.end:
            flags |= PSH
        if fin:
            flags |= FIN
        sender.sent(piece, now)
        return self._segment(flags, start, payload, now)

    def _segment(self, flags: int, seq: int, payload: bytes, now: int) -> Segment:
        """A segment that tells where we are; what was owed to the peer is paid with it."""
        receiver = self.receiver
        window = receiver.offer()
        sack = receiver.sack()
        ts_val, ts_ecr = -1, 0
        if self.settings.timestamps:
            ts_val = self.timestamp(now)
            ts_ecr = max(receiver.ts_recent, 0)
        receiver.told(bool(payload), now)
        return Segment(seq & MASK, receiver.nxt & MASK, flags, window, payload, ts_val, ts_ecr, sack)

    def timestamp(self, now: int) -> int:
        """Our timestamp clock, 32 bits."""
        return (now // 1000 + self._ts_offset) & MASK

    def _largest_payload(self) -> int:
        """What fits into a segment without SACK blocks."""
        settings = self.settings
        return min(settings.mss, settings.mtu - (60 if settings.ipv6 else 40)) - (12 if settings.timestamps else 0)

    def _room(self, largest: int) -> int:
        """What fits into the next segment: SACK blocks take their part."""
        blocks = len(self.receiver.sack())
        return largest - (4 + 8 * blocks if blocks else 0)

    # Hand-over

    def snapshot(self, now: int) -> Snapshot:
        """The connection as a kernel shows it in repair mode; nothing changes."""
        sender, receiver = self.sender, self.receiver
        mss = sender.mss
        return Snapshot(
            state=self.state,
            snd_una=sender.una & MASK,
            snd_nxt=sender.max & MASK,
            write_seq=sender.write_seq & MASK,
            rcv_nxt=receiver.nxt & MASK,
            snd_wl1=sender.wl1 & MASK,
            snd_wnd=sender.wnd,
            max_window=sender.max_wnd,
            rcv_wnd=max(receiver.edge - receiver.acked, 0),
            rcv_wup=receiver.acked & MASK,
            send_queue=bytes(sender.queue),
            receive_queue=bytes(receiver.unread),
            timestamp=self.timestamp(now),
            ts_recent=receiver.ts_recent,
            srtt_us=sender.srtt,
            rttvar_us=sender.rttvar,
            rto_us=sender.rto,
            snd_mss=mss,
            snd_cwnd=max(sender.cwnd // mss, 1),
            ssthresh=INFINITE if sender.ssthresh == INFINITE else max(sender.ssthresh // mss, 2),
            retransmits=sender.retries,
            total_retrans=sender.retransmitted,
            bytes_acked=sender.bytes_acked,
            bytes_received=receiver.bytes_received,
        )

    @classmethod
    def restored(cls, settings: Settings, snapshot: Snapshot, now: int) -> ModelTcp:
        """A connection that goes on where a snapshot stands; what a kernel does not tell is lost.

        The sequence numbers in ``settings`` do not matter. What counts as sent waits for its acknowledgement, or
        for the retransmission timer.
        """
        self = cls(settings, now)
        state = snapshot.state
        self.state = state
        sender, receiver = self.sender, self.receiver
        sender.una = snapshot.snd_una + _WRAP
        sender.queue += snapshot.send_queue
        sender.nxt = sender.max = sender.recover = unwrap(snapshot.snd_nxt, sender.una)
        if state in _FIN_UNACKED:
            sender.fin_at = sender.una + len(sender.queue)
        elif state not in _BEFORE_FIN:
            sender.fin_at = sender.una - 1
        sender.recover = sender.una
        sender.wnd = snapshot.snd_wnd
        sender.max_wnd = max(snapshot.max_window, snapshot.snd_wnd)
        sender.restart(snapshot.srtt_us, snapshot.rttvar_us, now)
        receiver.restart(
            snapshot.rcv_nxt + _WRAP,
            snapshot.rcv_wup,
            snapshot.rcv_wnd,
            snapshot.receive_queue,
            snapshot.ts_recent,
            state in _PEER_CLOSED,
        )
        sender.wl1 = unwrap(snapshot.snd_wl1, receiver.nxt)
        self._ts_offset = (snapshot.timestamp - now // 1000) & MASK
        if state is TIME_WAIT:
            self._ending_at = now + TIME_WAIT_US
        self._dirty = True
        return self
