"""Run to completion: a batch of frames in, the engines, completions and indications up, a batch of segments out (D2).

Connections with work to do stand in a queue and are served in turn, each for a few segments at a time; all others
cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from chimney.link.base import Frame, Link
from chimney.ndis.buffers import NetBufferList, net_buffer_list
from chimney.ndis.driver import Miniport
from chimney.ndis.state import MiniportOffloadBlockList, NeighborCached, NeighborConst, NeighborDelegated
from chimney.ndis.status import IndicateOffloadEvent, OffloadStateType, Status, TcpOffloadEvent, UploadReason
from chimney.target.config import TargetConfig
from chimney.target.frames import FrameReader
from chimney.target.objects import NeighborObject, TcpObject
from chimney.target.schedule import Schedule
from chimney.tcp.config import NEVER
from chimney.tcp.events import Event
from chimney.tcp.segment import RST, SYN, Segment, parse_segment
from chimney.tcp.state import State

_SUCCESS = int(Status.SUCCESS)
_UPLOAD_IN_PROGRESS = int(Status.UPLOAD_IN_PROGRESS)
_REQUEST_ABORTED = int(Status.REQUEST_ABORTED)
_INDICATE_RETRIEVE = int(TcpOffloadEvent.INDICATE_RETRIEVE)
_INDICATE_ABORT = int(TcpOffloadEvent.INDICATE_ABORT)
_RESET = int(Event.RESET)
_TIME_WAIT_ENTERED = int(Event.TIME_WAIT)
_RECEIVED_URGENT_DATA = int(UploadReason.RECEIVED_URGENT_DATA)
_UPLOAD_REQUESTED = int(UploadReason.UPLOAD_REQUESTED)
# Each of these ends the engine's work; the host finishes the connection.
_UPLOAD_REASONS = {
    int(Event.SYN): _UPLOAD_REQUESTED,
    int(Event.TIMEOUT): int(UploadReason.TIMEOUT_EXPIRATION),
    int(Event.URGENT): _RECEIVED_URGENT_DATA,
    int(Event.CLOSED): _UPLOAD_REQUESTED,
}
_TIME_WAIT = int(State.TIME_WAIT)
_RST = int(RST)
_SYN = int(SYN)
_CHECKSUM_OFFSET = 16
_VLAN_ID = 0x0FFF
_GROUP_BIT = 1
_RETRY_US = 500


class Refused:
    """A segment that the link had no room for."""

    def __init__(self, tcp: TcpObject, segment: Segment) -> None:
        self.tcp = tcp
        self.segment = segment


class Datapath(Miniport):
    """What a `SoftTarget` does between its downward calls and the link.

    connections  offloaded connections by the key of their frames (`frames.flow_key`).
    lent         lists of indications and BufferedData that are with the host.
    operations   state operations to be carried out.
    statistics   ``frames_in``; ``frames_passed_up`` of them on the ordinary path; ``frame_errors`` (bad checksum or
                 header); ``frames_dropped`` (another VLAN, or too many kept); ``frames_out``; ``link_errors``.
    """

    def __init__(self, name: str, link: Link, clock: Callable[[], int], config: TargetConfig) -> None:
        super().__init__(name)
        self.link = link
        self.clock = clock
        self.config = config
        self.connections: dict[bytes, TcpObject] = {}
        self.lent: set[NetBufferList] = set()
        self.operations: deque[Callable[[], None]] = deque()
        self.frames_in = 0
        self.frames_out = 0
        self.frames_passed_up = 0
        self.frame_errors = 0
        self.frames_dropped = 0
        self.link_errors = 0
        self.now = clock()
        self.busy = False
        self.schedule = Schedule()
        self._reader = FrameReader()
        self._active: deque[TcpObject] = deque()
        self._refused: Refused | None = None
        self._retry_at = NEVER
        self._waiting: list[TcpObject] = []
        self._emissions_per_turn = config.emissions_per_turn
        self._emissions_per_poll = config.emissions_per_poll
        self._stale_us = config.microseconds(config.nce_stale_ticks)

    # The event loop's side

    def poll(self, now: int, limit: int = 64) -> int:
        """Do what is due at ``now`` (microseconds), reading at most ``limit`` frames; returns how much was done.

        Raises RuntimeError when called from within an upcall.
        """
        if self.busy:
            raise RuntimeError(
                f"{self.name}.poll was called from within one of its own upcalls: return first, it goes on by itself"
            )
        self.busy = True
        try:
            self.now = now
            done = self.run_operations()
            done += self._expire()
            done += self._receive(limit)
            done += self._serve()
            return done
        finally:
            self.busy = False

    def flush(self, now: int) -> int:
        """Send what is due, without reading; from within an upcall it does nothing, for the poll under way does so at
        its end.
        """
        if self.busy:
            return 0
        self.busy = True
        try:
            self.now = now
            return self.run_operations() + self._serve()
        finally:
            self.busy = False

    def poll_at(self) -> int:
        """When `poll` is to be called next, even if no frame arrives: a time that may have passed already, or NEVER."""
        if self.operations or self._active:
            return self.now
        return min(self.schedule.next_at(), self._retry_at)

    @property
    def wants_write(self) -> bool:
        """Whether the link had no room, and will tell when it has: poll again when it is writable."""
        return self._refused is not None and self._retry_at == NEVER

    def run_operations(self) -> int:
        """Carry out the state operations that wait, those included that they bring about."""
        done = 0
        while self.operations:
            done += 1
            self.operations.popleft()()
        return done

    def touch(self, tcp: TcpObject) -> None:
        """The connection has something to do."""
        if not tcp.active:
            tcp.active = True
            self._active.append(tcp)

    # Frames in

    def _receive(self, limit: int) -> int:
        try:
            frames = self.link.receive(limit)
        except OSError:
            # The interface is down or gone: the host learns that from the interface itself (upload.media-loss).
            self.link_errors += 1
            return 0
        if not frames:
            return 0
        for frame in frames:
            self._frame(frame)
            if self.operations:
                self.run_operations()
        self.link.release()
        self.frames_in += len(frames)
        return len(frames)

    def _frame(self, frame: Frame) -> None:
        data = frame.data
        reader = self._reader
        if not reader.read(data):
            self.indicate_frame(data)
            return
        if not frame.checksum_ok and not reader.checksums_hold(data):
            self.frame_errors += 1
            return
        tcp = self.connections.get(reader.key)
        if tcp is None or tcp.terminating:
            self.indicate_frame(data)
            return
        neighbor = tcp.path.neighbor
        if data[:6] != neighbor.source_mac and not data[0] & _GROUP_BIT:
            self.indicate_frame(data)
            return
        vlan_id = neighbor.vlan_id
        if vlan_id and (frame.vlan < 0 or frame.vlan & _VLAN_ID != vlan_id):
            self.frames_dropped += 1
            return
        if not tcp.engine_done:
            start = reader.start
            segments = 1
            if frame.gso_size:
                payload = reader.end - start - (data[start + 12] >> 4) * 4
                segments = max(1, -(-payload // frame.gso_size))
            if self._segment(tcp, data[start : reader.end], segments):
                return
        self._keep_for_host(tcp, data)

    def _segment(self, tcp: TcpObject, view: memoryview, segments: int) -> bool:
        """Process one segment; False if it is the host's business instead."""
        segment = parse_segment(view, segments)
        if segment is None:
            self.frame_errors += 1
            return True
        engine = tcp.engine
        if segment.flags & _SYN and engine.state == _TIME_WAIT:
            return False
        engine.process(segment, self.now)
        if engine.received or engine.fin_received:
            self._deliver(tcp)
        if engine.events and not tcp.delivery.quiet:
            self._handle_events(tcp)
        self.touch(tcp)
        return not (tcp.engine_done and tcp.upload_reason == _RECEIVED_URGENT_DATA)

    def _deliver(self, tcp: TcpObject) -> None:
        """What the engine has received in sequence goes to the requests, or is indicated."""
        engine = tcp.engine
        delivery = tcp.delivery
        received = engine.received
        if received:
            for view, push in received:
                delivery.arrive(view, push, self.now)
            received.clear()
        if engine.fin_received:
            delivery.stream_ended = True
        delivery.run(self.now)
        if delivery.consumed:
            engine.consume(delivery.consumed)
            delivery.consumed = 0

    def _keep_for_host(self, tcp: TcpObject, data: memoryview) -> None:
        """A frame that only the host can deal with: at once, or after the terminate if that has been asked for."""
        if not tcp.upload_reason or not tcp.engine_done:
            self.indicate_frame(data)
        elif len(tcp.frames) < self.config.kept_frames:
            tcp.frames.append(bytes(data))
        else:
            self.frames_dropped += 1

    def indicate_frame(self, data: memoryview) -> None:
        """Pass a frame up the ordinary path."""
        self.frames_passed_up += 1
        self.handle.indicate_receive_net_buffer_lists(net_buffer_list(data))

    # Timers and turns

    def _expire(self) -> int:
        done = 0
        while True:
            tcp = self.schedule.pop_due(self.now)
            if tcp is None:
                return done
            done += 1
            tcp.delivery.on_timer(self.now)
            self.touch(tcp)

    def _serve(self) -> int:
        """Give every connection with work its turns, until nothing is left, the link is full, or the poll's share is
        used up.
        """
        if self._refused is not None:
            self._send_refused()
        done = 0
        share = self._emissions_per_poll
        while self._active and share > 0:
            tcp = self._active.popleft()
            tcp.active = False
            if not tcp.gone:
                share -= self._turn(tcp)
            done += 1
            if self.operations:
                self.run_operations()
        return done

    def _turn(self, tcp: TcpObject) -> int:
        """One connection's turn; returns its part of the poll's share."""
        delivery = tcp.delivery
        if delivery.quiet:
            return 1
        if tcp.forwards:
            self._process_forwards(tcp)
        if delivery.requests or delivery.buffered_bytes or tcp.engine.fin_received:
            self._deliver(tcp)
        self._complete_sends(tcp)
        if tcp.engine.events:
            self._handle_events(tcp)
        sent = self._dispatch(tcp)
        if tcp.engine.events:
            self._handle_events(tcp)
        self._plan(tcp)
        return sent + 1

    def _complete_sends(self, tcp: TcpObject) -> None:
        sending = tcp.sending
        if sending.bounce:
            # What has been reported as unacknowledged must not be acknowledged later.
            tcp.engine_done = True
            self.withdraw(tcp)
            sending.fail(sending.refusal)
            return
        acked = tcp.engine.acked
        if acked != tcp.acked_before:
            tcp.acked_before = acked
            tcp.path.neighbor.nic_reachable_at = self.now
            sending.complete()
        elif sending.disconnects or sending.sends:
            # A FIN, and requests without data, end without a change of the count.
            sending.complete()

    def _dispatch(self, tcp: TcpObject) -> int:
        """Send what the engine has to send, a few segments at most; returns how many."""
        if tcp.silent or (tcp.engine_done and tcp.abort_request is None):
            return 0
        if self._refused is not None:
            self._wait_for_link(tcp)
            return 0
        engine = tcp.engine
        sent = 0
        while sent < self._emissions_per_turn:
            segment = engine.dispatch(self.now)
            if segment is None:
                if tcp.abort_request is not None and self._refused is None:
                    # RFC 9293, 3.10.5: no RST where both sides have closed already.
                    self.complete_abort(tcp, _REQUEST_ABORTED)
                return sent
            sent += 1
            if not self.emit(tcp, segment):
                # Nothing else is sent meanwhile.
                self._refused = Refused(tcp, segment)
                self._plan_retry()
                self._wait_for_link(tcp)
                return sent
        self.touch(tcp)
        return sent

    def _plan(self, tcp: TcpObject) -> None:
        """When the connection's next turn is."""
        deadline = tcp.delivery.push_at
        if not tcp.silent and not tcp.engine_done and self._refused is None:
            deadline = min(deadline, tcp.engine.poll_at())
        if deadline < NEVER:
            self.schedule.add(tcp, deadline)

    # Frames out

    def emit(self, tcp: TcpObject, segment: Segment) -> bool:
        """Give a segment to the link, past whatever waits for it. False: the link has no room."""
        if self._stale_us:
            self._ask_whether_reachable(tcp.path.neighbor)
        template = tcp.template
        length = segment.payload_length
        gso_size = segment.mss if length > segment.mss else 0
        count = -(-length // gso_size) if gso_size else 1
        tcp_header = segment.header_bytes(tcp.local_port, tcp.remote_port)
        reset_status = _SUCCESS
        try:
            if not self.link.send(
                template.headers(tcp_header, length, count),
                segment.payload_parts,
                template.tcp_start,
                _CHECKSUM_OFFSET,
                gso_size,
                template.ipv6,
                template.vlan,
            ):
                return False
        except OSError:
            # As lost as on the wire: it is sent again, or the host hears of a timeout.
            self.link_errors += 1
            reset_status = _REQUEST_ABORTED
        else:
            self.frames_out += 1
        if segment.flags & _RST:
            self.complete_abort(tcp, reset_status)
        return True

    def _send_refused(self) -> None:
        waiting = self._refused
        if waiting is None or (self._retry_at != NEVER and self.now < self._retry_at):
            return
        if self.emit(waiting.tcp, waiting.segment):
            self._refused = None
            self._go_on()
        else:
            self._plan_retry()

    def _plan_retry(self) -> None:
        # A device's queue, unlike the link's own, does not tell when it has room again.
        self._retry_at = self.now + _RETRY_US if self.link.writable() else NEVER

    def _wait_for_link(self, tcp: TcpObject) -> None:
        if not tcp.waiting:
            tcp.waiting = True
            self._waiting.append(tcp)

    def _go_on(self) -> None:
        """The link is free: those that waited for it have their turns."""
        self._retry_at = NEVER
        waiting = self._waiting
        self._waiting = []
        for tcp in waiting:
            tcp.waiting = False
            self.touch(tcp)

    def withdraw(self, tcp: TcpObject) -> Segment | None:
        """Forget the segment of this connection that waits for the link, and return it; None if there is none."""
        waiting = self._refused
        if waiting is None or waiting.tcp is not tcp:
            return None
        self._refused = None
        self._go_on()
        return waiting.segment

    def _ask_whether_reachable(self, neighbor: NeighborObject) -> None:
        """Before sending: if neither side has had proof for too long, the host is asked (11.2, A18)."""
        now = self.now
        if now - neighbor.nic_reachable_at <= self._stale_us or now - neighbor.host_reachable_at <= self._stale_us:
            return
        ticks = self.config.ticks
        cached = NeighborCached(neighbor.destination_mac, ticks(now - neighbor.host_reachable_at) & 0xFFFFFFFF)
        block = MiniportOffloadBlockList(
            type=OffloadStateType.NEIGHBOR,
            const=NeighborConst(neighbor.const.dl_source_address, neighbor.const.vlan_id),
            cached=cached,
            delegated=NeighborDelegated(ticks(now - neighbor.nic_reachable_at) & 0xFFFFFFFF),
            status=Status.SUCCESS,
            ndis_offload_handle=neighbor.handle,
        )
        self.handle.offload_event_indicate(block, int(IndicateOffloadEvent.NEIGHBOR_REACHABILITY_QUERY))
        neighbor.host_reachable_at = now - self.config.microseconds(cached.host_reachability_delta)

    # Events, forwards and ends

    def _handle_events(self, tcp: TcpObject) -> None:
        events = list(tcp.engine.events)
        tcp.engine.events.clear()
        if not tcp.sending.bounce:
            tcp.sending.complete()
        for event in events:
            if event == _RESET:
                self._peer_reset(tcp)
            elif event == _TIME_WAIT_ENTERED:
                self.request_upload(tcp, _UPLOAD_REQUESTED, False)
            elif event in _UPLOAD_REASONS:
                self.request_upload(tcp, _UPLOAD_REASONS[event], True)

    def _peer_reset(self, tcp: TcpObject) -> None:
        """An acceptable RST: tell the host at once, and end every request (event.abort.sequence)."""
        tcp.engine_done = True
        self.withdraw(tcp)
        self.handle.tcp_offload_event_handler(tcp.handle, _INDICATE_ABORT, 0)
        tcp.sending.refusal = tcp.delivery.refusal = _REQUEST_ABORTED
        tcp.sending.fail(_REQUEST_ABORTED)
        tcp.delivery.fail(_REQUEST_ABORTED)
        self.complete_forwards(tcp, _REQUEST_ABORTED)

    def request_upload(self, tcp: TcpObject, reason: int, engine_done: bool) -> None:
        """Ask for the connection's upload for a mandatory reason: what is posted from now on is refused
        (upload.sends).
        """
        if tcp.sending.refusal == _REQUEST_ABORTED:
            return
        if tcp.silent:
            self.withdraw(tcp)
        tcp.upload_reason = reason
        if engine_done:
            tcp.engine_done = True
        tcp.sending.refusal = _UPLOAD_IN_PROGRESS
        if not tcp.delivery.refusal:
            tcp.delivery.refusal = _UPLOAD_IN_PROGRESS
        self.handle.tcp_offload_event_handler(tcp.handle, _INDICATE_RETRIEVE, reason)

    def complete_abort(self, tcp: TcpObject, status: int) -> None:
        """The RST is out, or will not go out: complete the abortive disconnect."""
        request = tcp.abort_request
        if request is not None:
            tcp.abort_request = None
            request.status = status
            request.tcp_offload_bytes_transferred = 0
            self.handle.tcp_offload_disconnect_complete(request)

    def _process_forwards(self, tcp: TcpObject) -> None:
        """Segments that the host received: processed like any other (A41), and completed in one list."""
        waiting = tcp.forwards
        tcp.forwards = []
        first: NetBufferList | None = None
        last: NetBufferList | None = None
        for nbl in waiting:
            if tcp.sending.refusal == _REQUEST_ABORTED:
                nbl.status = _REQUEST_ABORTED
            elif tcp.engine_done:
                nbl.status = _UPLOAD_IN_PROGRESS
            else:
                views = nbl.first_net_buffer.views()
                view = views[0] if len(views) == 1 else memoryview(b"".join(views))
                nbl.status = _SUCCESS if self._segment(tcp, view, 1) else _UPLOAD_IN_PROGRESS
            if last is None:
                first = nbl
            else:
                last.next = nbl
            last = nbl
        if first is not None:
            self.handle.tcp_offload_forward_complete(first)

    def complete_forwards(self, tcp: TcpObject, status: int) -> None:
        """End every forward that has not been processed."""
        waiting = tcp.forwards
        tcp.forwards = []
        for nbl in waiting:
            nbl.status = status
            self.handle.tcp_offload_forward_complete(nbl)
