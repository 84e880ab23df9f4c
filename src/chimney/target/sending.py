"""Send requests over the engine's byte counts: data goes into the engine as it is, completion follows the
acknowledged bytes.
"""

from __future__ import annotations

from collections import deque

from chimney.ndis.buffers import NetBuffer, NetBufferList, advance_net_buffer_data_start, iterate
from chimney.ndis.errors import Misuse
from chimney.ndis.library import MiniportHandle
from chimney.ndis.status import Status
from chimney.tcp.connection import Connection

_SUCCESS = int(Status.SUCCESS)
_ROUNDS = 1000


class SendEntry:
    """A request in the queue: its bytes are those from ``start`` to ``end`` of the stream, counted from the offload."""

    def __init__(self, nbl: NetBufferList, start: int, end: int) -> None:
        self.nbl = nbl
        self.start = start
        self.end = end


class Sending:
    """One connection's send and graceful disconnect requests, oldest first.

    end       stream bytes queued since the offload, by so many `requests`. ``closed``: a FIN stands behind them.
    refusal   0, or the status with which requests end that are posted from now on, and with them all before
              (send.complete.order); `bounce` says that there are some.
    """

    def __init__(self, engine: Connection, upcalls: MiniportHandle) -> None:
        self.engine = engine
        self.upcalls = upcalls
        self.sends: deque[SendEntry] = deque()
        self.disconnects: deque[SendEntry] = deque()
        self.end = 0
        self.requests = 0
        self.closed = False
        self.refusal = 0
        self.bounce = False

    def post(self, net_buffer_list: NetBufferList | None) -> None:
        """Queue sends. Raises Misuse, and has queued none, for data behind a FIN, and for a list that describes more
        bytes than there are.
        """
        if net_buffer_list is not None and net_buffer_list.next is not None and not self.refusal:
            for nbl in iterate(net_buffer_list):
                _views(nbl)
        while net_buffer_list is not None:
            following = net_buffer_list.next
            net_buffer_list.next = None
            self.sends.append(self._take(net_buffer_list))
            net_buffer_list = following

    def disconnect(self, net_buffer_list: NetBufferList) -> None:
        """Queue a graceful disconnect: its data, and the FIN behind it. Raises as `post` does.

        A connection that was offloaded with a FIN behind its data takes one more disconnect, without data.
        """
        if self.closed and not self.disconnects and not net_buffer_list.data_length():
            # The FIN has come with the connection's state; this request waits for its acknowledgement.
            self.disconnects.append(SendEntry(net_buffer_list, self.end, self.end))
            self.bounce = self.refusal != 0
            return
        self.disconnects.append(self._take(net_buffer_list))
        if not self.refusal:
            self.closed = True
            self.engine.close()

    def complete(self) -> None:
        """Complete what the peer has acknowledged, in order (send.complete.success, disconnect.graceful.success)."""
        acked = self.engine.acked
        first: NetBufferList | None = None
        last: NetBufferList | None = None
        while self.sends and self.sends[0].end <= acked:
            entry = self.sends.popleft()
            _finish(entry, acked, _SUCCESS)
            if last is None:
                first = entry.nbl
            else:
                last.next = entry.nbl
            last = entry.nbl
        if first is not None:
            self.upcalls.tcp_offload_send_complete(first)
        if self.disconnects and self.engine.fin_acked and self.disconnects[0].end <= acked and not self.sends:
            entry = self.disconnects.popleft()
            _finish(entry, acked, _SUCCESS)
            self.upcalls.tcp_offload_disconnect_complete(entry.nbl)

    def fail(self, status: int) -> None:
        """Complete everything unfinished with ``status``: the first request may be acknowledged in part
        (send.complete.one-partial).
        """
        self.complete()
        self.bounce = False
        sends = self.take_unfinished(status)
        if sends is not None:
            self.upcalls.tcp_offload_send_complete(sends)
        self.fail_disconnects(status)

    def take_unfinished(self, status: int) -> NetBufferList | None:
        """Take every unfinished send out, in order: linked, with ``status``, counts and advanced data starts."""
        acked = self.engine.acked
        first: NetBufferList | None = None
        last: NetBufferList | None = None
        while self.sends:
            entry = self.sends.popleft()
            _finish(entry, acked, status)
            if last is None:
                first = entry.nbl
            else:
                last.next = entry.nbl
            last = entry.nbl
        return first

    def fail_disconnects(self, status: int) -> None:
        """Complete an unfinished graceful disconnect; the sends must be out before (disconnect.graceful.sends-first).

        Raises Misuse if the host never stops to ask for another one.
        """
        acked = self.engine.acked
        for _ in range(_ROUNDS):
            if not self.disconnects:
                return
            entry = self.disconnects.popleft()
            _finish(entry, acked, status)
            self.upcalls.tcp_offload_disconnect_complete(entry.nbl)
        raise Misuse(
            "MiniportTcpOffloadDisconnect",
            "the host answers every disconnect that comes back with another one",
            "finish the close yourself, when the connection has come back",
            "disconnect.host.no-reissue",
        )

    def _take(self, nbl: NetBufferList) -> SendEntry:
        """Give the list's bytes to the engine, the last of them to be pushed (send.psh); unless requests are refused.
        """
        length = nbl.data_length()
        entry = SendEntry(nbl, self.end, self.end + length)
        if self.refusal:
            self.bounce = True
            return entry
        if self.closed:
            raise Misuse(
                "MiniportTcpOffloadSend",
                "the sending half of this connection has been closed",
                "send before the graceful disconnect, or with it",
                "disconnect.graceful.order",
            )
        views = _views(nbl)
        left = len(views)
        for view in views:
            left -= 1
            self.engine.send(view, left == 0)
        self.end += length
        self.requests += 1
        return entry


def _views(nbl: NetBufferList) -> list[memoryview]:
    """The bytes of a request. Raises Misuse if its MDLs do not hold them."""
    views: list[memoryview] = []
    left = 0
    nb: NetBuffer | None = nbl.first_net_buffer
    while nb is not None:
        views += nb.views()
        left += nb.data_length
        nb = nb.next
    for view in views:
        left -= len(view)
    if left:
        raise Misuse(
            "MiniportTcpOffloadSend",
            f"a list describes {left} bytes more than its MDLs hold",
            "chain MDLs for all of them",
            "io.complete.nbl-shape",
        )
    return views


def _finish(entry: SendEntry, acked: int, status: int) -> None:
    """Status, count and data starts of a request that leaves (send.complete.bytes, send.complete.advance)."""
    nbl = entry.nbl
    count = min(max(acked - entry.start, 0), entry.end - entry.start)
    nbl.status = status
    nbl.tcp_offload_bytes_transferred = count
    nb: NetBuffer | None = nbl.first_net_buffer
    while nb is not None:
        delta = min(count, nb.data_length)
        advance_net_buffer_data_start(nb, delta)
        count -= delta
        nb = nb.next
