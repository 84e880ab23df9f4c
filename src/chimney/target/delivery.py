"""The delivery algorithm (13.2): received bytes go to posted requests first, else they are indicated; in order, once.

A target's downward calls only record; everything here runs from the target's poll, one connection at a time. So the
sole thing that can happen while an upcall is running is that requests are posted, and the loop that made the upcall
sees them afterwards.
"""

from __future__ import annotations

from collections import deque

from chimney.link.base import Frame
from chimney.ndis.buffers import (
    Mdl,
    NetBuffer,
    NetBufferList,
    NetBufferListPool,
    advance_net_buffer_data_start,
    copy_into_net_buffer,
)
from chimney.ndis.errors import Misuse
from chimney.ndis.handle import OffloadHandle
from chimney.ndis.library import MiniportHandle
from chimney.ndis.status import Status, TcpOffloadEvent
from chimney.tcp.config import NEVER

_SUCCESS = int(Status.SUCCESS)
_INVALID_STATE = int(Status.INVALID_STATE)
_UPLOAD_IN_PROGRESS = int(Status.UPLOAD_IN_PROGRESS)
_NOT_ACCEPTED = int(Status.OFFLOAD_DATA_NOT_ACCEPTED)
_PARTIALLY_ACCEPTED = int(Status.OFFLOAD_DATA_PARTIALLY_ACCEPTED)
_NO_MEMORY = memoryview(bytearray())
_LARGEST_PIECE = 1 << 16
_INDICATE_DISCONNECT = int(TcpOffloadEvent.INDICATE_DISCONNECT)


class Delivery:
    """One connection's receive requests and undelivered bytes.

    requests         posted, oldest first; `head_filled` bytes of the first one are valid.
    buffered_bytes   in sequence, not delivered yet, and in the target's own memory (`_keep`).
    blocked          nothing is indicated until a request is posted (after a refusal, and for handed-over bytes).
    quiet            the initiate has not been completed: no upcalls.
    refusal          0, or the status with which requests end that are posted from now on, and with them all before
                     (recv.complete.fifo); `bounce` says that there are some.
    stream_ended     the peer's FIN is in sequence; `end_indicated` once the host has been told.
    delivered        bytes that have left, to whichever side, since the offload; `consumed` of them are not reported
                     to the engine yet.
    pushed_to        where the last PSH stood, counted like ``delivered``.
    push_at          when the push timer expires, NEVER if it is stopped.
    pool, lent       the chimney indication pool, and those of its NetBufferLists that are with the host.
    completed        requests that have been completed; `indications` that have been made, since the offload.
    """

    def __init__(
        self,
        handle: OffloadHandle,
        upcalls: MiniportHandle,
        lent: set[NetBufferList],
        pool: NetBufferListPool,
        push_us: int,
        indication_size: int,
    ) -> None:
        self.handle = handle
        self.upcalls = upcalls
        self.lent = lent
        self.pool = pool
        self.push_us = push_us
        self.indication_size = indication_size
        self.requests: deque[NetBufferList] = deque()
        self.head_filled = 0
        self.buffered_bytes = 0
        self.pushed_to = 0
        self.blocked = False
        self.quiet = False
        self.refusal = 0
        self.bounce = False
        self.stream_ended = False
        self.end_indicated = False
        self.delivered = 0
        self.consumed = 0
        self.push_at = NEVER
        self.completed = 0
        self.indications = 0
        self._first_full: NetBufferList | None = None
        self._last_full: NetBufferList | None = None
        # The first request's memory, where its bytes begin, and how many there are: not known (-1) or in pieces (0).
        self._memory = _NO_MEMORY
        self._room_at = 0
        self._room = -1
        # The pieces of memory that hold the buffered bytes, and where in the first one these begin. Behind them the
        # last piece, ``_tail``, has room for so many more.
        self._first: Mdl | None = None
        self._last: Mdl | None = None
        self._start = 0
        self._tail = _NO_MEMORY
        self._tail_room = 0

    def hand_over(self, net_buffer_list: NetBufferList | None) -> None:
        """Copy an initiate's BufferedData. It waits for requests, and is never indicated of our own accord
        (initiate.buffered.wait).
        """
        while net_buffer_list is not None:
            for view in net_buffer_list.first_net_buffer.views():
                self._keep(view)
            net_buffer_list = net_buffer_list.next
        # The application could have read it at any time: nothing is gained by waiting for the push timer.
        self.pushed_to = self.buffered_bytes
        self.blocked = self.buffered_bytes > 0

    def post(self, net_buffer_list: NetBufferList | None) -> None:
        """Queue requests; `run` serves them. Raises Misuse for memory that cannot be filled."""
        _check_writable(net_buffer_list)
        while net_buffer_list is not None:
            following = net_buffer_list.next
            net_buffer_list.next = None
            if not self.requests:
                self._begin(net_buffer_list)
            self.requests.append(net_buffer_list)
            net_buffer_list = following
        self.blocked = False
        self.bounce = self.refusal != 0

    def accept(self) -> None:
        """Perform requests again, those that wait to be refused included; after the end of the stream, none."""
        self.refusal = _INVALID_STATE if self.end_indicated else 0
        self.bounce = self.bounce and self.end_indicated

    def arrive(self, view: memoryview, push: bool, now: int) -> None:
        """Take in-sequence bytes, which are valid during the call alone: into requests, else into own memory. `run`
        goes on.
        """
        length = len(view)
        if not length:
            return
        if self.push_at != NEVER:
            self.push_at = now + self.push_us
        if push:
            self.pushed_to = self.delivered + self.buffered_bytes + length
        taken = 0
        if self.requests and not self.buffered_bytes and not self.quiet and not self.bounce:
            taken = self._fill(view)
        if taken < length:
            self._keep(view[taken:] if taken else view)

    def arrive_in_frames(self, frames: list[Frame], push: bool, now: int) -> None:
        """The same for what is in sequence and still in the frames that it came in."""
        length = 0
        for frame in frames:
            length += frame.end - frame.payload
        if self.push_at != NEVER:
            self.push_at = now + self.push_us
        if push:
            self.pushed_to = self.delivered + self.buffered_bytes + length
        for frame in frames:
            start = frame.payload
            if self.requests and not self.buffered_bytes and not self.quiet and not self.bounce:
                start += self._fill_from(frame)
            if start < frame.end:
                self._keep(frame.part(start, frame.end))

    def run(self, now: int) -> None:
        """Carry the algorithm to its end: complete, indicate, until nothing more can be done without the host."""
        if self.refusal == _UPLOAD_IN_PROGRESS:
            self._run(False)
            return
        self._run(True)
        if self.head_filled and self.requests and not self.quiet and not self.requests[0].tcp_receive_no_push:
            # It was not pushed.
            if self.push_at == NEVER:
                self.push_at = now + self.push_us

    def settle(self) -> None:
        """The same for a connection that goes back: a partly filled request is not completed for a push any more, nor
        while it is to go back (recv.complete.upload).
        """
        self._run(False)

    def _run(self, pushes: bool) -> None:
        if self.quiet:
            return
        if self.bounce:
            self.fail(self.refusal)
            return
        while True:
            self._place()
            if pushes and self._is_pushed():
                # Together with those that are full (delivery.combine).
                self._finish_head(_SUCCESS)
            if self._first_full is not None:
                self.push_at = NEVER
                self._complete_full()
            elif self.buffered_bytes:
                if self.requests or self.blocked:
                    break
                self._indicate()
            elif self.stream_ended:
                self._end_stream()
                return
            else:
                break

    def on_timer(self, now: int) -> None:
        """The push timer, if it has expired: complete a partly filled request in push mode (delivery.timer)."""
        if now < self.push_at:
            return
        self.push_at = NEVER
        if self.refusal == _UPLOAD_IN_PROGRESS:
            return
        if self.requests and self.head_filled and not self.requests[0].tcp_receive_no_push:
            self._finish_head(_SUCCESS)
            self._complete_full()
            self.run(now)

    def fail(self, status: int) -> None:
        """Complete every request with ``status``; what the first one holds is valid and counted."""
        self.push_at = NEVER
        self.bounce = False
        while self.requests:
            self._finish_head(status)
        self._complete_full()

    def take_buffered(self) -> NetBufferList | None:
        """The undelivered bytes as one list of the indication pool, for a terminate's BufferedData; None if there are
        none.
        """
        if not self.buffered_bytes:
            return None
        nbl = self._list_of(self.buffered_bytes)
        self.lent.add(nbl)
        self._drop(self.buffered_bytes)
        return nbl

    def _is_pushed(self) -> bool:
        """Whether the first request is partly filled, in push mode, and holds bytes up to a PSH or more."""
        if not self.head_filled or not self.requests or self.buffered_bytes:
            return False
        return not self.requests[0].tcp_receive_no_push and self.pushed_to > self.delivered - self.head_filled

    def _end_stream(self) -> None:
        """The peer has finished and every byte is delivered: end what waits for more (A10), and tell the host once."""
        self.fail(_SUCCESS)
        if self.end_indicated:
            return
        self.end_indicated = True
        if not self.refusal:
            self.refusal = _INVALID_STATE
        early = len(self.requests)
        self.upcalls.tcp_offload_event_handler(self.handle, _INDICATE_DISCONNECT, 0)
        # What was posted from within the completions came before the event.
        while early > 0:
            early -= 1
            self._finish_head(_SUCCESS)
        self._complete_full()

    def _place(self) -> None:
        """Move buffered bytes into requests."""
        while self.buffered_bytes and self.requests:
            piece = self._first
            assert piece is not None
            self._drop(self._fill(piece.view[self._start : self._start + self.buffered_bytes]))

    def _fill(self, view: memoryview) -> int:
        """Copy ``view`` into the requests as far as they go; returns how many bytes went. Full requests are set
        aside.
        """
        length = len(view)
        taken = 0
        while self.requests:
            request = self.requests[0]
            room = request.first_net_buffer.data_length - self.head_filled
            if room > 0:
                if taken == length:
                    break
                rest = view[taken:] if taken else view
                copied = copy_into_net_buffer(request.first_net_buffer, self.head_filled, rest)
                self.head_filled += copied
                taken += copied
                if copied < room:
                    break
            elif taken == length and length:
                # A zero-length request takes part only while there are bytes behind it to wake it (A15).
                break
            self._finish_head(_SUCCESS)
        self.delivered += taken
        self.consumed += taken
        return taken

    def _fill_from(self, frame: Frame) -> int:
        """As `_fill`, with the payload of a frame; most go to the middle of a request that is one piece of memory."""
        length = frame.end - frame.payload
        if self._room < 0:
            self._find_room()
        if self.head_filled + length >= self._room:
            return self._fill(frame.part(frame.payload, frame.end))
        at = self._room_at + self.head_filled
        self._memory[at : at + length] = frame.octets[frame.payload : frame.end]
        self.head_filled += length
        self.delivered += length
        self.consumed += length
        return length

    def _find_room(self) -> None:
        """Where the first request's bytes go, if they go to one piece of memory."""
        net_buffer = self.requests[0].first_net_buffer
        mdl = net_buffer.current_mdl
        self._room = 0
        if mdl is not None and net_buffer.current_mdl_offset + net_buffer.data_length <= mdl.byte_count:
            self._memory = mdl.view
            self._room_at = net_buffer.current_mdl_offset
            self._room = net_buffer.data_length

    def _begin(self, request: NetBufferList) -> None:
        """``request`` becomes the head: a non-push one may hold bytes already (A9)."""
        self.head_filled = request.tcp_offload_bytes_transferred if request.tcp_receive_no_push else 0
        if self.head_filled > request.first_net_buffer.data_length:
            self.head_filled = request.first_net_buffer.data_length

    def _finish_head(self, status: int) -> None:
        """Take the head off the queue and set it aside for completion, with what it holds."""
        request = self.requests.popleft()
        self._room = -1
        self._memory = _NO_MEMORY
        self.completed += 1
        request.status = status
        request.tcp_offload_bytes_transferred = self.head_filled
        advance_net_buffer_data_start(request.first_net_buffer, self.head_filled)
        if self._last_full is None:
            self._first_full = request
        else:
            self._last_full.next = request
        self._last_full = request
        self.head_filled = 0
        if self.requests:
            self._begin(self.requests[0])

    def _complete_full(self) -> None:
        head = self._first_full
        if head is not None:
            self._first_full = self._last_full = None
            self.upcalls.tcp_offload_receive_complete(head)

    def _indicate(self) -> None:
        size = self.buffered_bytes
        if self.indication_size and size > self.indication_size:
            size = self.indication_size
        nbl = self._list_of(size)
        self.indications += 1
        accepted = False
        try:
            status, consumed = self.upcalls.tcp_offload_receive_handler(self.handle, nbl, _SUCCESS)
            accepted = status == _SUCCESS
        finally:
            # Before anything else: the host may return what it has accepted from now on.
            if accepted:
                self.lent.add(nbl)
            else:
                self.pool.free(nbl)
        if accepted:
            consumed = size
        elif status not in (_NOT_ACCEPTED, _PARTIALLY_ACCEPTED):
            raise Misuse(
                "NdisTcpOffloadReceiveHandler",
                f"an indication was answered with {status:#x}",
                "accept it (SUCCESS), refuse it (OFFLOAD_DATA_NOT_ACCEPTED) or accept a part "
                "(OFFLOAD_DATA_PARTIALLY_ACCEPTED)",
                "indicate.refused",
            )
        else:
            if status == _NOT_ACCEPTED:
                consumed = 0
            if not 0 <= consumed <= size:
                raise Misuse(
                    "NdisTcpOffloadReceiveHandler",
                    f"{consumed} of {size} indicated bytes were consumed",
                    "tell how many of the indicated bytes are taken",
                    "indicate.partial",
                )
            self.blocked = not self.requests
        self._drop(consumed)
        self.delivered += consumed
        self.consumed += consumed

    def _list_of(self, size: int) -> NetBufferList:
        """A NetBufferList over the next ``size`` buffered bytes, which stay buffered.

        All of them are what is indicated as a rule, after each request that has taken some, and mostly refused: that
        must not take longer the more there are.
        """
        if size == self.buffered_bytes:
            return self.pool.allocate(NetBuffer(self._first, self._start, size))
        # The pieces themselves stay ours: what the host keeps must not lead to the rest.
        first: Mdl | None = None
        last: Mdl | None = None
        left = size
        start = self._start
        piece = self._first
        while left > 0 and piece is not None:
            mdl = Mdl(piece.view[start : start + left])
            if last is None:
                first = mdl
            else:
                last.next = mdl
            last = mdl
            left -= mdl.byte_count
            start = 0
            piece = piece.next
        return self.pool.allocate(NetBuffer(first, 0, size))

    def _drop(self, count: int) -> None:
        """Forget the next ``count`` buffered bytes."""
        self.buffered_bytes -= count
        if not self.buffered_bytes:
            # The host may have the pieces, in a list of all.
            self._first = self._last = None
            self._start = 0
            self._tail = _NO_MEMORY
            self._tail_room = 0
            return
        self._start += count
        piece = self._first
        while piece is not None and self._start >= piece.byte_count:
            self._start -= piece.byte_count
            following = piece.next
            # Whoever still knows a refused list must not hold all that comes after it.
            piece.next = None
            piece = following
        self._first = piece

    def _keep(self, view: memoryview) -> None:
        """Append a copy of ``view`` to the buffered bytes, in memory that is bounded by the bytes, whatever the number
        of segments that they come in: a piece is as large as what is buffered before it, up to a limit.
        """
        length = len(view)
        if self._tail_room:
            taken = min(length, self._tail_room)
            end = len(self._tail) - self._tail_room
            self._tail[end : end + taken] = view[:taken]
            self._tail_room -= taken
            self.buffered_bytes += taken
            if taken == length:
                return
            view = view[taken:]
            length -= taken
        size = min(self.buffered_bytes, _LARGEST_PIECE)
        if size > length:
            self._tail = memoryview(bytearray(size))
            self._tail[:length] = view
            self._tail_room = size - length
            piece = Mdl(self._tail.toreadonly())
        else:
            piece = Mdl(memoryview(bytes(view)))
        if self._last is None:
            self._first = piece
        else:
            self._last.next = piece
        self._last = piece
        self.buffered_bytes += length


def _check_writable(net_buffer_list: NetBufferList | None) -> None:
    while net_buffer_list is not None:
        nb = net_buffer_list.first_net_buffer
        missing = nb.data_length + nb.current_mdl_offset
        mdl = nb.current_mdl
        while mdl is not None:
            if mdl.view.readonly:
                _refuse("memory that is read-only", "wrap a bytearray or another writable buffer")
            missing -= mdl.byte_count
            mdl = mdl.next
        if missing > 0:
            _refuse(f"a NetBuffer that claims {missing} bytes more than its MDLs hold", "chain MDLs for all of them")
        net_buffer_list = net_buffer_list.next


def _refuse(what: str, remedy: str) -> None:
    raise Misuse("MiniportTcpOffloadReceive", what, remedy, "io.complete.nbl-shape")
