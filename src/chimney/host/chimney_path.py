"""The chimney: one connection's requests while a target owns it, from the initiate to the terminate's completion."""

from __future__ import annotations

from typing import Any

from chimney.host.edge import HostEdge
from chimney.host.kernel import TakenState
from chimney.host.objects import PathRecord, TcpRecord
from chimney.host.requests import ReceiveRequest, Request, SendRequest
from chimney.host.segments import KeptSegment
from chimney.host.trees import (
    initiate_tree,
    note_initiated,
    note_terminated,
    tcp_block_of,
    terminate_tree,
    unused_tree,
)
from chimney.ndis.buffers import NetBufferList, iterate, link, net_buffer_list
from chimney.ndis.state import ProtocolOffloadBlockList, TcpDelegated, TimerRemainder
from chimney.ndis.status import DisconnectFlags, Status, TcpConnectionState, TcpOffloadEvent, UploadReason

_SUCCESS = int(Status.SUCCESS)
_INVALID_STATE = int(Status.INVALID_STATE)
_REQUEST_UPLOAD = int(Status.REQUEST_UPLOAD)
_NOT_ACCEPTED = int(Status.OFFLOAD_DATA_NOT_ACCEPTED)
_GIVEN_BACK = frozenset({Status.UPLOAD_IN_PROGRESS, Status.REQUEST_UPLOAD, Status.UPLOAD_REQUESTED})
_DISCONNECT = int(TcpOffloadEvent.INDICATE_DISCONNECT)
_ABORT = int(TcpOffloadEvent.INDICATE_ABORT)
_RETRIEVE = int(TcpOffloadEvent.INDICATE_RETRIEVE)
_INVALID = int(UploadReason.INVALID_STATE)
_BACKLOG = int(TcpOffloadEvent.INDICATE_SEND_BACKLOG_CHANGE)
_MASK = 0xFFFFFFFF


class ChimneyPath:
    """The switch's way through NDIS for one connection.

    ``initiated`` is the status of the TCP node once the initiate has completed (None before); ``left_over`` tells
    whether one that failed has offloaded the neighbor or the path all the same. ``terminating`` tells whether a
    terminate is under way, ``terminated`` is the last block of the one that succeeded. ``unread_below`` counts
    handed-over receive bytes that the application has not taken yet. ``outstanding`` send bytes are with the target,
    which prefers ``backlog`` (0: it has not said). ``upload_reason`` is the last mandatory one (0: none); ``lost``: the
    target has failed, and the connection's state with it. ``held``: the next hop has been invalidated, so that the
    target would refuse what is posted.
    """

    def __init__(self, connection: Any, edge: HostEdge, path: PathRecord) -> None:
        self.connection = connection
        self.edge = edge
        self.record = TcpRecord(self, path)
        self.initiated: Status | None = None
        self.left_over = False
        self.terminating = False
        self.terminated: ProtocolOffloadBlockList | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self.unread_below = 0
        self._first = 0
        self.backlog = 0
        self.outstanding = 0
        self.peer_closed = False
        self.reset = False
        self.held = False
        self.upload_reason = 0
        self.lost = False
        self._last_event = (0, 0)

    @property
    def has_enough(self) -> bool:
        """Whether the target has as many send bytes as it prefers (send.backlog.hint), or takes none at present."""
        return 0 < self.backlog <= self.outstanding or self.held

    @property
    def must_wait(self) -> bool:
        """Whether operations on the connection's objects are under way that a terminate has to wait for
        (terminate.host.control-drained).
        """
        path = self.record.path
        return bool(self.record.running or path.running or path.neighbor.running)

    # State operations

    def initiate(self, taken: TakenState, chained: list[SendRequest]) -> None:
        """NdisInitiateOffload; ``chained`` carries the send data that came out of the kernel."""
        delegated = taken.delegated
        self._first = delegated.rcv_nxt
        lists = [self._wrap(request) for request in chained]
        self.outstanding = sum(nbl.data_length() for nbl in lists)
        chain = link(lists)
        if lists:
            delegated.send_data_head, delegated.send_data_tail = lists[0], lists[-1]
        if taken.unread:
            delegated.buffered_data = net_buffer_list(*taken.unread)
            self.unread_below = delegated.buffered_data.data_length()
            # The kernel has received these; the target only delivers them, or hands them back.
            self.bytes_received = -self.unread_below
        # The target will not say again what the host knows: this FIN came before the hand-over.
        self.peer_closed = delegated.state in (
            TcpConnectionState.CLOSE_WAIT,
            TcpConnectionState.CLOSING,
            TcpConnectionState.LAST_ACK,
        )
        tree = initiate_tree(self.record, taken.const, taken.cached, delegated, chain)
        tree.protocol_reserved = self
        self._pin(1)
        self.edge.binding.initiate_offload(tree)

    def initiate_complete(self, tree: ProtocolOffloadBlockList) -> None:
        """The edge's call: the initiate of this connection has completed."""
        self._pin(-1)
        self.initiated = tcp_block_of(tree).status
        note_initiated(self.record, tree)
        if self.initiated != Status.SUCCESS:
            self.left_over = unused_tree(self.record) is not None
            self._forget_unused()

    def terminate(self) -> None:
        """NdisTerminateOffload, of the connection or of what is left of a refused initiate; once more if it has failed.
        """
        self.terminating = True
        left = unused_tree(self.record) if self.left_over else None
        tree = left or terminate_tree(self.record, blank_delegated())
        tree.protocol_reserved = self
        self._pin(1)
        self.edge.binding.terminate_offload(tree)

    def terminate_complete(self, tree: ProtocolOffloadBlockList) -> None:
        """The edge's call: delegated state, chain and buffered data are in the tree. If it has failed, everything is
        still where it was.
        """
        self.terminating = False
        self._pin(-1)
        block = tcp_block_of(tree)
        if block.status != _SUCCESS:
            return
        note_terminated(self.record, tree)
        self._forget_unused()
        for nbl in iterate(block.net_buffer_list_chain):
            nbl.next = None
            request: Any = nbl.protocol_reserved
            self.send_complete(request, nbl)
        self.terminated = block

    def _pin(self, by: int) -> None:
        """The objects of the tree have a part in an initiate or terminate: nothing is changed in them meanwhile."""
        path = self.record.path
        for record in (self.record, path, path.neighbor):
            record.pinned += by

    def _forget_unused(self) -> None:
        path = self.record.path
        self.edge.objects.forget_unused(path, path.neighbor)

    def take_buffered(self) -> list[memoryview]:
        """Copy the terminate's BufferedData, and return its lists to the target (terminate.buffered.return)."""
        assert self.terminated is not None
        delegated = self.terminated.delegated
        assert isinstance(delegated, TcpDelegated)
        if delegated.buffered_data is None:
            return []
        copies = []
        for nbl in iterate(delegated.buffered_data):
            copies.append(memoryview(b"".join(nbl.first_net_buffer.views())))
            self.bytes_received += copies[-1].nbytes
        self.edge.binding.offload_tcp_receive_return(delegated.buffered_data)
        delegated.buffered_data = None
        return copies

    def has_all(self, delegated: TcpDelegated) -> bool:
        """Whether the peer's FIN has been received, and all before it, when the target has given back ``delegated`` and
        its buffered data has been taken: what the application has not read yet has kept the target from telling.
        """
        received = (delegated.rcv_nxt - self._first) & _MASK
        return self.peer_closed or received == (self.bytes_received + 1) & _MASK

    # Requests

    def post_send(self, request: SendRequest) -> None:
        """NdisOffloadTcpSend of what the request still has to send."""
        nbl = self._wrap(request)
        self.outstanding += request.length - request.bytes_transferred
        self.edge.binding.offload_tcp_send(self.record.handle, nbl)

    def post_receive(self, request: ReceiveRequest) -> None:
        """NdisOffloadTcpReceive, unless the stream has ended already and nothing before it is still to come back."""
        if self.peer_closed and not self.unread_below and self.connection.receives[0] is request:
            self.connection.receive_done(request)
            return
        nbl = self._wrap(request)
        nbl.tcp_receive_no_push = not request.push
        self.edge.binding.offload_tcp_receive(self.record.handle, nbl)

    def post_disconnect(self, request: Request, flags: DisconnectFlags) -> None:
        """NdisOffloadTcpDisconnect without data."""
        self.edge.binding.offload_tcp_disconnect(self.record.handle, self._wrap(request), flags)

    def forward(self, segments: list[KeptSegment]) -> None:
        """NdisOffloadTcpForward of segments that reached the host while the initiate was under way."""
        lists = []
        for segment in segments:
            nbl = net_buffer_list(segment.tcp())
            # What must outlive the hand-over stands here: Scratch is the target's by now (bl.scratch).
            nbl.protocol_reserved = self, segment
            lists.append(nbl)
        head = link(lists)
        if head is not None:
            self.edge.binding.offload_tcp_forward(self.record.handle, head)

    def _wrap(self, request: Request) -> NetBufferList:
        nbl = net_buffer_list(request.remaining())
        nbl.protocol_reserved = request
        request.net_buffer_list = nbl
        return nbl

    # Completions, indications and events, as the edge hands them on

    def send_complete(self, request: SendRequest, nbl: NetBufferList) -> None:
        """A send came back: done, or to be gone on with by the kernel, or lost with its connection."""
        self.outstanding -= request.length - request.bytes_transferred
        request.bytes_transferred += nbl.tcp_offload_bytes_transferred
        self.bytes_sent += nbl.tcp_offload_bytes_transferred
        request.net_buffer_list = None
        status = nbl.status
        if status == _SUCCESS:
            self.connection.send_done(request)
            if self.backlog:
                self.connection.feed_soon()
        elif status in _GIVEN_BACK:
            self._given_back(nbl)
        else:
            self.connection.send_done(request, self.connection.target_error())

    def receive_complete(self, request: ReceiveRequest, nbl: NetBufferList) -> None:
        """A receive request came back; what bytes it holds are the application's, whatever the status."""
        count = nbl.tcp_offload_bytes_transferred
        request.bytes_transferred += count
        self.bytes_received += count
        self.unread_below = max(0, self.unread_below - count)
        request.net_buffer_list = None
        status = nbl.status
        if request.bytes_transferred or status in (_SUCCESS, _INVALID_STATE):
            self.connection.receive_done(request)
        elif status in _GIVEN_BACK:
            self._given_back(nbl)
        else:
            self.connection.receive_done(request, self.connection.target_error())

    def disconnect_complete(self, request: Request, nbl: NetBufferList) -> None:
        """The disconnect came back: done, or to be gone on with by the kernel."""
        request.net_buffer_list = None
        if nbl.status == _SUCCESS:
            self.connection.shutdown_done(request)
        elif nbl.status in _GIVEN_BACK:
            self._given_back(nbl)
        else:
            self.connection.shutdown_done(request, self.connection.target_error())

    def _given_back(self, nbl: NetBufferList) -> None:
        """The request is the kernel's to go on with; some driver may have had no memory for it, and wants it there."""
        if nbl.status == _REQUEST_UPLOAD:
            self.connection.upload_soon()

    def forward_complete(self, segment: KeptSegment, nbl: NetBufferList) -> None:
        """A forwarded segment came back; one that the target did not process is the host's (forward.complete.host)."""
        if nbl.status == Status.UPLOAD_IN_PROGRESS:
            self.connection.hand_over.keep(segment)

    def receive_indicate(self, nbl: NetBufferList) -> tuple[int, int]:
        """Data without a request: it stays with the target until the application posts one."""
        return _NOT_ACCEPTED, 0

    def event(self, event_type: int, information: int) -> None:
        """ProtocolTcpOffloadEvent for this connection."""
        if event_type == _DISCONNECT:
            self.peer_closed = True
        elif event_type == _ABORT:
            self.reset = True
            # No event comes between these two (hwfail.sequence).
            self.lost = self._last_event == (_RETRIEVE, int(UploadReason.HARDWARE_FAILURE))
            self.connection.upload_soon()
        elif event_type == _BACKLOG:
            self.backlog = information
            self.connection.feed_soon()
        elif event_type == _RETRIEVE:
            self.connection.figures.upload_reason = UploadReason(information).name
            if information == _INVALID:
                self._silenced()
            elif UploadReason(information).mandatory:
                self.upload_reason = information
                self.connection.upload_soon()
        self._last_event = event_type, information

    def _silenced(self) -> None:
        """The target sends nothing any more, since its next hop is invalid: if the host has said so, it knows what it
        waits for (9.7).
        """
        if not self.held:
            self.connection.withdraw("the target says that what the connection depends on is invalid")


def blank_delegated() -> TcpDelegated:
    """A delegated structure for the target to fill in."""
    return TcpDelegated(
        state=TcpConnectionState.CLOSED,
        rcv_nxt=0,
        rcv_wnd=0,
        snd_una=0,
        snd_nxt=0,
        snd_max=0,
        snd_wnd=0,
        max_snd_wnd=0,
        send_wl1=0,
        c_wnd=0,
        ss_thresh=0,
        s_rtt=0,
        rtt_var=0,
        ts_recent=0,
        ts_recent_age=0,
        ts_time=0,
        total_rt=0,
        dup_ack_count=0,
        snd_wnd_probe_count=0,
        keep_alive=TimerRemainder(),
        retransmit=TimerRemainder(),
    )
