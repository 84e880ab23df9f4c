"""A connection built anew inside the kernel, in any state that an established connection can reach.

The kernel restores ESTABLISHED only. A FIN or RST of the peer, and the acknowledgement of our FIN, are therefore
delivered once more by injection; our own FIN is queued by shutdown. What ended otherwise than in order: `ending`.

Sources: tcp(7), RFC 9293 (3.3.2), RFC 7323 (4.3); the rest was observed.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Sequence

from chimney.host.errors import UploadFailed
from chimney.host.linux import inject, nowhere
from chimney.host.linux import sockopts as so
from chimney.host.linux.buffers import Room, write_queue
from chimney.host.linux.dump import KernelState, TcpState, read_info, size_of

_TCP = so.IPPROTO_TCP
Connect = Callable[[int, bytes], None]
"""connect() of a descriptor to a sockaddr."""
_LARGEST_MAXSEG = 32767
_REPLAY_SECONDS = 0.5
# The hand-over waits as long as the round trip that it teaches: a long one is not worth it.
_LONGEST_LESSON_US = 1000
_REPLAY_PAUSE = 0.0002
_HAS_FIN = {TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.CLOSING, TcpState.TIME_WAIT, TcpState.CLOSE}
_FIN_ACKED = {TcpState.FIN_WAIT2, TcpState.TIME_WAIT, TcpState.CLOSE}


def restore(
    sock: socket.socket,
    state: KernelState,
    own_filter: so.Filter | None,
    meanwhile: Callable[[], Sequence[bytes]] | None = None,
    joined: Connect = nowhere.connect,
) -> tuple[list[memoryview], bool]:
    """Build the connection on a recycled socket in repair mode whose filter drops all; it lives when this returns.

    ``meanwhile`` hands over the IP packets that arrived while nobody answered: they are processed before anything that
    arrives now, or the peer would take the newer ones' acknowledgements for a loss of the older ones.
    ``joined`` is connect(), for who has something to do besides.
    Returns the bytes that did not fit into the send buffer, and whether a FIN has to follow them.
    Raises OSError, and UploadFailed when `state` or the outcome makes no sense.
    """
    sent, unsent = _split(state)
    rcv_nxt = (state.rcv_nxt - state.fin_received) & 0xFFFFFFFF
    snd_una = (state.snd_una - state.fin_acked) & 0xFFFFFFFF
    # Without a measured round trip the kernel waits 3 s for what is in flight. One byte that the peer has acknowledged
    # long ago is queued again in front, and its acknowledgement is replayed a round trip later.
    teach_rtt = bool(sent) and not state.fin_acked and 0 < state.srtt_us <= _LONGEST_LESSON_US
    copied_seq = (rcv_nxt - size_of(state.receive_queue)) & 0xFFFFFFFF
    connect(sock, state, (snd_una - teach_rtt) & 0xFFFFFFFF, copied_seq, joined)
    set_options(sock, state)
    if teach_rtt:
        lesson_ends = time.monotonic() + state.srtt_us / 1e6
        sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.SEND_QUEUE)
        # A segment of its own, or it would be acknowledged together with what follows.
        sock.send(b"\0", socket.MSG_EOR)
    unsent = fill_queues(sock, state, sent) + unsent
    set_window(sock, state, rcv_nxt)
    if teach_rtt:
        time.sleep(max(0.0, lesson_ends - time.monotonic()))
    _replay_silently(sock, state, rcv_nxt, snd_una, teach_rtt)

    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.ONLY_INJECTED.program)
    sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)
    shut = _close(sock, state, rcv_nxt, snd_una)
    sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_OFF)
    if meanwhile is not None:
        inject.packets(meanwhile())
    set_filter(sock, own_filter)
    sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_ON)
    _probe(sock)

    if state.state is TcpState.CLOSE:
        _verify(sock, state)
        return [], False
    unsent = _send(sock, unsent)
    if state.state in (TcpState.FIN_WAIT1, TcpState.LAST_ACK) and not unsent and not shut:
        _shut_sending(sock)
    _verify(sock, state)
    return unsent, bool(unsent) and state.fin_sent


def set_filter(sock: socket.socket, own_filter: so.Filter | None) -> None:
    """Give the socket the application's own filter back."""
    if own_filter is None:
        sock.setsockopt(so.SOL_SOCKET, so.SO_DETACH_FILTER, 0)
    else:
        sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, own_filter.program)


def _probe(sock: socket.socket) -> None:
    """Leave repair mode: by that an established socket tells the peer its window, and the answer tells the peer's, and
    what it has received.
    """
    sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_OFF_PROBE)


def _close(sock: socket.socket, state: KernelState, rcv_nxt: int, snd_una: int) -> bool:
    """The FINs of a connection that is closing, before anything else leaves or is processed: it would take back the
    acknowledgement of the peer's FIN, and not understand one of ours. Returns whether ours was sent before.
    """
    if state.state in (TcpState.CLOSE_WAIT, TcpState.LAST_ACK):
        peer_says(state, rcv_nxt, snd_una, inject.FIN | inject.ACK)
        _verify(sock, state)
    sent = state.state in (TcpState.FIN_WAIT1, TcpState.LAST_ACK) and state.snd_nxt == state.write_seq
    if sent:
        if state.state is TcpState.FIN_WAIT1:
            # Only now is it established.
            _probe(sock)
            sock.setsockopt(_TCP, so.TCP_REPAIR, so.REPAIR_ON)
        sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.SEND_QUEUE)
        sock.shutdown(socket.SHUT_WR)
        sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.NO_QUEUE)
    return sent


def _split(state: KernelState) -> tuple[list[memoryview], list[memoryview]]:
    """The send queue's bytes as those sent already and those never sent."""
    fin = state.fin_sent and not state.fin_acked
    expected = ((state.write_seq - state.snd_una) & 0xFFFFFFFF) - fin
    queued = size_of(state.send_queue)
    if expected != queued:
        raise UploadFailed(f"the state has {queued} bytes to send, its sequence numbers say {expected}")
    sent = min((state.snd_nxt - state.snd_una) & 0xFFFFFFFF, queued)
    before: list[memoryview] = []
    after: list[memoryview] = []
    for view in state.send_queue:
        if sent:
            before.append(view[:sent])
        if len(view) > sent:
            after.append(view[sent:])
        sent = max(0, sent - len(view))
    return before, after


def connect(
    sock: socket.socket, state: KernelState, snd_una: int, copied_seq: int, joined: Connect = nowhere.connect
) -> None:
    """Make a recycled socket in repair mode an established one, whose queues start at these sequence numbers."""
    for queue, seq in ((so.SEND_QUEUE, snd_una), (so.RECEIVE_QUEUE, copied_seq)):
        sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, queue)
        sock.setsockopt(_TCP, so.TCP_QUEUE_SEQ, so.signed32(seq))
    nowhere.bind(sock.fileno(), state.local.sockaddr(sock.family))
    # Only connect computes the segment size from the path and the peer's limit, and only so does it know the limit.
    sock.setsockopt(_TCP, so.TCP_MAXSEG, min(state.mss_clamp, _LARGEST_MAXSEG))
    joined(sock.fileno(), state.remote.sockaddr(sock.family))
    sock.setsockopt(_TCP, so.TCP_MAXSEG, 0)


def set_options(sock: socket.socket, state: KernelState) -> None:
    """What the handshake had agreed on, and the timestamp clock."""
    options = struct.pack("II", so.TCPOPT_MAXSEG, state.mss_clamp)
    # Shifts of 0 where there is no scaling: connect has chosen a shift as if it were going to negotiate one.
    scales = state.snd_wscale | state.rcv_wscale << 16 if state.window_scaling else 0
    options += struct.pack("II", so.TCPOPT_WINDOW, scales)
    if state.sack:
        options += struct.pack("II", so.TCPOPT_SACK_PERMITTED, 0)
    if state.timestamps:
        options += struct.pack("II", so.TCPOPT_TIMESTAMP, 0)
    sock.setsockopt(_TCP, so.TCP_REPAIR_OPTIONS, options)
    if state.timestamps:
        # Bit 0 tells the kernel the clock's unit; the clock is rounded so that it never goes back.
        microseconds = state.timestamp_hz == 1_000_000
        ticks = state.timestamp | 1 if microseconds else (state.timestamp + 1) & ~1
        sock.setsockopt(_TCP, so.TCP_TIMESTAMP, so.signed32(ticks))


def fill_queues(sock: socket.socket, state: KernelState, sent: list[memoryview]) -> list[memoryview]:
    """The unread bytes, and those that count as sent; returns those of the latter that did not fit."""
    receive_room, send_room = Room(sock, so.RECEIVE_QUEUE), Room(sock, so.SEND_QUEUE)
    try:
        if state.receive_queue and write_queue(sock, so.RECEIVE_QUEUE, state.receive_queue, receive_room):
            raise UploadFailed(
                f"the {size_of(state.receive_queue)} unread bytes do not fit into the socket's receive buffer; read"
                " more before the upload, or raise net.core.rmem_max"
            )
        return write_queue(sock, so.SEND_QUEUE, sent, send_room) if sent else []
    finally:
        receive_room.restore()
        send_room.restore()


def set_window(sock: socket.socket, state: KernelState, rcv_nxt: int) -> None:
    """What is known of both windows, at ``rcv_nxt``."""
    rcv_wup = rcv_nxt if _after(state.rcv_wup, rcv_nxt) else state.rcv_wup
    right_edge = state.rcv_wup + state.rcv_wnd
    # A FIN to be delivered once more must fit, as it did the first time.
    if _after(state.rcv_nxt, right_edge):
        right_edge = state.rcv_nxt
    snd_wl1 = rcv_nxt if _after(state.snd_wl1, rcv_nxt) else state.snd_wl1
    window = struct.pack(
        "=5I",
        snd_wl1,
        state.snd_wnd,
        max(state.max_window, state.snd_wnd),
        (right_edge - rcv_wup) & 0xFFFFFFFF,
        rcv_wup,
    )
    sock.setsockopt(_TCP, so.TCP_REPAIR_WINDOW, window)


def _replay_silently(sock: socket.socket, state: KernelState, rcv_nxt: int, snd_una: int, teach_rtt: bool) -> None:
    """What the peer has said already and will not say again. With the send queue selected, nothing is transmitted."""
    echo = (state.ts_recent, state.timestamp) if state.timestamps and state.ts_recent is not None else None
    closing = state.state is TcpState.CLOSING or state.fin_acked
    if not (teach_rtt or echo or closing):
        return
    sock.setsockopt(so.SOL_SOCKET, so.SO_ATTACH_FILTER, so.ONLY_INJECTED.program)
    sock.setsockopt(_TCP, so.TCP_REPAIR_QUEUE, so.SEND_QUEUE)
    # Acknowledgements leave even so: to a peer that has closed its end one more of them is a stray segment, and it
    # answers with an RST.
    with so.muted(sock, ipv6=len(state.local.address) == 16):
        if teach_rtt or echo:
            peer_says(state, rcv_nxt, snd_una, inject.ACK, echo)
        _replay_end(sock, state, rcv_nxt, snd_una)
        if closing:
            _verify(sock, state)
    # What was kept from leaving has left an error behind (IPv6), which is not the application's.
    sock.getsockopt(so.SOL_SOCKET, so.SO_ERROR)


def _replay_end(sock: socket.socket, state: KernelState, rcv_nxt: int, snd_una: int) -> None:
    if state.state is TcpState.CLOSE:
        peer_says(state, rcv_nxt, snd_una, inject.FIN | inject.ACK)
        sock.shutdown(socket.SHUT_WR)
        peer_says(state, state.rcv_nxt, state.snd_una, inject.ACK)
    elif state.state is TcpState.CLOSING or state.fin_acked:
        sock.shutdown(socket.SHUT_WR)
        if state.fin_acked:
            peer_says(state, rcv_nxt, state.snd_una, inject.ACK)
        if state.fin_received:
            peer_says(state, rcv_nxt, state.snd_una, inject.FIN | inject.ACK)


def peer_says(state: KernelState, seq: int, ack: int, flags: int, timestamp: tuple[int, int] | None = None) -> None:
    """Inject a bare segment of the peer's."""
    # Without a timestamp option unless its value is the peer's own: PAWS would drop a wrong one.
    window = min(state.snd_wnd >> state.snd_wscale, 0xFFFF)
    said = inject.segment(state.remote, state.local, seq, ack, flags, window, timestamp)
    inject.deliver([said], state.remote.address, state.local.address)


def _shut_sending(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        # The peer has reset the connection meanwhile: the application hears of it.
        if error.errno != errno.ENOTCONN:
            raise


def _send(sock: socket.socket, data: list[memoryview]) -> list[memoryview]:
    """Send what the socket has room for; returns the rest."""
    for index, view in enumerate(data):
        while view:
            try:
                view = view[sock.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                return [view, *data[index + 1 :]]
    return []


def _verify(sock: socket.socket, state: KernelState) -> None:
    """The peer may have moved the connection on, but never behind what was replayed.

    A busy kernel processes what was injected a little later, hence some patience.
    """
    allowed = set(TcpState)
    if state.fin_received:
        allowed &= _HAS_FIN
    if state.fin_acked:
        allowed &= _FIN_ACKED
    deadline = time.monotonic() + _REPLAY_SECONDS
    while (now := TcpState(read_info(sock).state)) not in allowed:
        if time.monotonic() > deadline:
            raise UploadFailed(
                f"the kernel restored {state.local} -> {state.remote} as {now.name} instead of {state.state.name}: did"
                " a firewall drop a segment on the loopback device?"
            )
        time.sleep(_REPLAY_PAUSE)


def _after(a: int, b: int) -> bool:
    return 0 < (a - b) & 0xFFFFFFFF < 1 << 31
