"""Run to completion: a batch of frames in, the engines, completions and indications up, a batch of segments out (D2).

Connections with work to do stand in a queue and are served in turn, each for a few segments at a time; all others
cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from chimney.link.base import Frame, Link
from chimney.ndis.buffers import Mdl, NetBuffer, NetBufferList, NetBufferListPool
from chimney.ndis.status import Status, UploadReason
from chimney.target.config import TargetConfig
from chimney.target.counters import Counters
from chimney.target.events import consider_backlog, handle_events, request_upload
from chimney.target.frames import FrameReader
from chimney.target.objects import TcpObject
from chimney.target.schedule import Schedule
from chimney.target.train import IN_FRAMES, Train, wire_segments
from chimney.target.transmission import Transmission
from chimney.tcp.config import NEVER
from chimney.tcp.segment import RST, SYN, Segment, parse_segment, read_header
from chimney.tcp.state import State

_SUCCESS = int(Status.SUCCESS)
_FAILURE = int(Status.FAILURE)
_UPLOAD_IN_PROGRESS = int(Status.UPLOAD_IN_PROGRESS)
_REQUEST_ABORTED = int(Status.REQUEST_ABORTED)
_RECEIVED_URGENT_DATA = int(UploadReason.RECEIVED_URGENT_DATA)
_CLOSED = int(State.CLOSED)
_ESTABLISHED = int(State.ESTABLISHED)
_CLOSE_WAIT = int(State.CLOSE_WAIT)
_CLOSING = int(State.CLOSING)
_TIME_WAIT = int(State.TIME_WAIT)
_SYN = int(SYN)
_RST = int(RST)
_VLAN_ID = 0x0FFF
_GROUP_BIT = 1
_ETHERNET_HEADER = 14
_CAREFUL_FRAMES = 32


class Datapath(Transmission):
    """What a `SoftTarget` does between its downward calls and the link.

    connections  offloaded connections by the key of their frames (`frames.flow_key`).
    lent         lists of indications and BufferedData that are with the host.
    chimney_pool, ordinary_pool  where the lists of indications and BufferedData, and those of frames on the ordinary
                 path, come from (reg.pools.two).
    ipv4, ipv6   what the statistics OIDs report.
    allocate     asked before anything is allocated that can run short, with its name: "neighbor", "path",
                 "connection", "transmit buffer", "receive buffer", "buffered data", "segment". False: there is none.
                 None: it is not asked. For tests.
    statistics   ``frames_in``; ``frames_passed_up`` of them on the ordinary path; ``frame_errors`` (bad checksum or
                 header: passed up, too); ``frames_dropped`` (another VLAN, or too many kept); ``frames_out``;
                 ``link_errors``.
    """

    def __init__(self, name: str, link: Link, clock: Callable[[], int], config: TargetConfig) -> None:
        super().__init__(name, link, clock, config)
        self.connections: dict[bytes, TcpObject] = {}
        self.lent: set[NetBufferList] = set()
        self.chimney_pool = NetBufferListPool(f"{name}: chimney receive indications")
        self.ordinary_pool = NetBufferListPool(f"{name}: ordinary receive indications")
        self.ipv4 = Counters()
        self.ipv6 = Counters()
        self.allocate: Callable[[str], bool] | None = None
        self.frames_in = 0
        self.frames_passed_up = 0
        self.frame_errors = 0
        self.frames_dropped = 0
        self.busy = False
        self.schedule = Schedule()
        self._reader = FrameReader()
        self._train = Train()
        self._active: deque[TcpObject] = deque()
        self.chores_at = NEVER

    def configure(self, config: TargetConfig) -> None:
        Transmission.configure(self, config)
        self._emissions_per_turn = config.emissions_per_turn
        self._emissions_per_poll = config.emissions_per_poll
        self._backlog = config.send_backlog
        self._counts_fragments = config.advice_ticks > 0 and config.fragments > 0

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
            if now >= self.chores_at:
                self.do_chores()
            done = self.run_operations()
            done += self._expire()
            if self.operations:
                # No train begins while operations wait: they may end its connection.
                done += self.run_operations()
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
        return min(self.schedule.next_at(), self.retry_at(), self.chores_at)

    def run_operations(self) -> int:
        """Carry out the state operations that wait, those included that they bring about."""
        done = 0
        while self.operations:
            done += 1
            self.operations.popleft()()
        return done

    def do_chores(self) -> None:
        """What is not any connection's, and was to be done at `chores_at`."""
        self.chores_at = NEVER

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
        train = self._train
        try:
            for frame in frames:
                self.frames_in += 1
                if train.segment is not None:
                    if train.take(frame):
                        continue
                    self._process_train()
                # Nothing waits by now, and a frame that begins a train makes no upcall: its connection stays what it is
                # until the train has been processed.
                self._frame(frame)
                if self.operations:
                    self.run_operations()
            if train.segment is not None:
                self._process_train()
        finally:
            if train.segment is not None:
                # The memory of its frames is the link's again.
                train.clear()
        self.link.release()
        return len(frames)

    def _frame(self, frame: Frame) -> None:
        """One received frame: to its connection, at once or as the first of a train, or up the ordinary path."""
        reader = self._reader
        if not reader.read(frame.octets):
            if reader.fragment and self._counts_fragments:
                self.count_fragment(bytes(frame.data[22:54] if reader.ipv6 else frame.data[26:34]))
            self.indicate_frame(frame.data)
            return
        if not frame.checksum_ok and not reader.checksums_hold(frame.data):
            self._indicate_corrupt_frame(frame.data)
            return
        tcp = self.connections.get(reader.key(frame))
        if tcp is None or tcp.terminating:
            self.indicate_frame(frame.data)
            return
        neighbor = tcp.path.neighbor
        if frame.part(0, 6) != neighbor.source_mac and not self._is_joined(frame.data):
            self.indicate_frame(frame.data)
            return
        vlan_id = neighbor.vlan_id
        if vlan_id and (frame.vlan < 0 or frame.vlan & _VLAN_ID != vlan_id):
            self.frames_dropped += 1
            return
        if tcp.engine_done:
            self._keep_for_host(tcp, frame.data)
            return
        segment = read_header(frame.octets, reader.start, reader.end, 1)
        if segment is None:
            self._indicate_corrupt_frame(frame.data)
            return
        segment.segments = wire_segments(segment.payload_length, frame.gso_size)
        segment.ecn = reader.ecn
        headers = reader.end - _ETHERNET_HEADER - segment.payload_length
        octets = headers * segment.segments + segment.payload_length
        if self.frames_in <= tcp.heard and not segment.flags & (_SYN | _RST):
            tcp.counters.in_segments += segment.segments
            tcp.counters.arrived(segment.segments, octets)
            return
        if not tcp.careful and self.allocate is None and tcp.engine.is_plain(segment):
            self._train.begin(tcp, segment, frame, reader.start, reader.end)
            return
        if segment.payload_length > 0:
            segment.payload = frame.part(reader.end - segment.payload_length, reader.end)
        if self._segment(tcp, segment):
            tcp.counters.arrived(segment.segments, octets)
        else:
            self._keep_for_host(tcp, frame.data)

    def _process_train(self) -> None:
        """Nothing more belongs to the train: it is a segment like any other."""
        train = self._train
        tcp = train.tcp
        segment = train.segment
        if tcp is None or segment is None:
            return
        train.close(tcp.engine.rcv_wnd)
        tcp.counters.arrived(segment.segments, train.headers * segment.segments + segment.payload_length)
        self._segment(tcp, segment)
        train.clear()
        if self.operations:
            self.run_operations()

    def _is_joined(self, data: memoryview) -> bool:
        """Whether a frame is to a group that the interface has joined, and so for us (tcp.rx-mac)."""
        return data[0] & _GROUP_BIT != 0 and bytes(data[:6]) in self.config.multicast_addresses

    def _segment(self, tcp: TcpObject, segment: Segment) -> bool:
        """Process one segment; False if it is the host's business instead."""
        engine = tcp.engine
        before = engine.state
        if segment.flags & _SYN and before == _TIME_WAIT:
            return False
        if self.allocate is not None and segment.payload_length and not self.allocate("segment"):
            request_upload(self, tcp, UploadReason.UPLOAD_REQUESTED, True)
            return False
        engine.process(segment, self.now)
        if engine.received or engine.fin_received:
            self._deliver(tcp)
        if engine.events:
            if before != engine.state:
                self.note_end(tcp, before)
            if not tcp.delivery.quiet:
                handle_events(self, tcp)
        self.touch(tcp)
        if tcp.engine_done and tcp.upload_reason == _RECEIVED_URGENT_DATA:
            return False
        tcp.counters.in_segments += segment.segments
        if segment.payload_length and engine.state < _CLOSING:
            # Afterwards the peer may forget the connection with the first answer, and meet the second by an RST.
            self._acknowledge_early(tcp)
        return True

    def _acknowledge_early(self, tcp: TcpObject) -> None:
        """One acknowledgement is enough for a batch of frames: each one costs as much as several frames. But where some
        are missing, every frame tells the peer more (RFC 2018, 4; RFC 5681, 4.2), a SACK option has no room for what a
        batch has to say, and acknowledgements are lost as well: then none waits for the end of the batch.
        """
        engine = tcp.engine
        if engine.ack_policy.owed != 1:
            # None, or several that the peer counts: these are sent one by one in any case.
            return
        if engine.receiver.has_something_to_report():
            tcp.careful = _CAREFUL_FRAMES
        elif tcp.careful:
            tcp.careful -= 1
        else:
            return
        if self.full or tcp.silent or tcp.engine_done or tcp.terminating or tcp.failed or tcp.delivery.quiet:
            return
        segment = engine.flush_ack(self.now)
        if segment is not None and not self.emit(tcp, segment):
            self.refuse(tcp, segment)

    def note_end(self, tcp: TcpObject, before: int) -> None:
        """A connection that has just been closed, although no side had done so in order, counts (ResetEstablished)."""
        if tcp.engine.state == _CLOSED and (before == _ESTABLISHED or before == _CLOSE_WAIT):
            tcp.counters.reset_established += 1

    def _deliver(self, tcp: TcpObject) -> None:
        """What the engine has received in sequence goes to the requests, or is indicated."""
        engine = tcp.engine
        delivery = tcp.delivery
        received = engine.received
        if received:
            # New data shows that our acknowledgements arrive (RFC 4861, 7.3.1).
            tcp.path.neighbor.nic_reachable_at = self.now
            for view, push in received:
                if view is IN_FRAMES:
                    delivery.arrive_in_frames(self._train.frames, push, self.now)
                else:
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
        if not tcp.upload_reason or not tcp.engine_done or tcp.engine.state == _CLOSED:
            self.indicate_frame(data)
        elif len(tcp.frames) < self.config.kept_frames:
            tcp.frames.append(bytes(data))
        else:
            self.frames_dropped += 1

    def indicate_frame(self, data: memoryview, status: int = _SUCCESS) -> None:
        """Pass a frame up the ordinary path; it is the host's during the call alone. ``status``: FAILURE if its
        checksum is known to be wrong.
        """
        self.frames_passed_up += 1
        nbl = self.ordinary_pool.allocate(NetBuffer(Mdl(data), 0, data.nbytes))
        nbl.status = status
        try:
            self.handle.indicate_receive_net_buffer_lists(nbl)
        finally:
            self.ordinary_pool.free(nbl)

    def _indicate_corrupt_frame(self, data: memoryview) -> None:
        """A wrong checksum, or a header that contradicts itself: the host's to judge and to count (stats.corrupt)."""
        self.frame_errors += 1
        self.indicate_frame(data, _FAILURE)

    def count_fragment(self, addresses: bytes) -> None:
        """A fragment of a datagram has been passed up; ``addresses`` as they stand in it."""

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
        done = 0
        if self.full:
            self.send_refused()
            done = self.run_operations()
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
        if delivery.quiet or tcp.terminating or tcp.failed:
            return 1
        if tcp.forwards:
            self._process_forwards(tcp)
        if delivery.requests or delivery.buffered_bytes or tcp.engine.fin_received:
            self._deliver(tcp)
        self._complete_sends(tcp)
        if tcp.engine.events:
            handle_events(self, tcp)
        sent = self._dispatch(tcp)
        if tcp.engine.events:
            handle_events(self, tcp)
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
            if self._backlog and self.now >= tcp.backlog_at:
                consider_backlog(self, tcp)
        elif sending.disconnects or sending.sends:
            # A FIN, and requests without data, end without a change of the count.
            sending.complete()

    def _dispatch(self, tcp: TcpObject) -> int:
        """Send what the engine has to send, a few segments at most; returns how many."""
        if tcp.silent or tcp.terminating or (tcp.engine_done and tcp.abort_request is None):
            return 0
        if self.full:
            self.wait_for_link(tcp)
            return 0
        engine = tcp.engine
        before = engine.state
        sent = 0
        while sent < self._emissions_per_turn:
            segment = engine.dispatch(self.now)
            if segment is None:
                break
            sent += 1
            if not self.emit(tcp, segment):
                # Nothing else is sent meanwhile.
                self.refuse(tcp, segment)
                self.wait_for_link(tcp)
                break
        else:
            self.touch(tcp)
        if sent and engine.state == _TIME_WAIT:
            # The peer may have sent its FIN again while we were busy, and forgets the connection with the first
            # answer: a second one would meet an RST. An answer that is lost is asked for once more.
            tcp.heard = self.frames_in + self.link.pending()
        if before != engine.state:
            self.note_end(tcp, before)
        if tcp.abort_request is not None and not self.full:
            # RFC 9293, 3.10.5: no RST where both sides have closed already.
            self.complete_abort(tcp, _REQUEST_ABORTED)
        return sent

    def _plan(self, tcp: TcpObject) -> None:
        """When the connection's next turn is."""
        deadline = tcp.delivery.push_at
        if not tcp.silent and not tcp.engine_done and not self.full:
            deadline = min(deadline, tcp.engine.poll_at())
        if deadline < NEVER:
            self.schedule.add(tcp, deadline)

    # Forwards

    def _process_forwards(self, tcp: TcpObject) -> None:
        """Segments that the host received: processed like any other (A41), and completed in one list."""
        waiting = tcp.forwards
        tcp.forwards = []
        first: NetBufferList | None = None
        last: NetBufferList | None = None
        for nbl in waiting:
            if tcp.sending.refusal == _REQUEST_ABORTED:
                nbl.status = _REQUEST_ABORTED
            elif tcp.engine_done or tcp.terminating:
                nbl.status = _UPLOAD_IN_PROGRESS
            else:
                views = nbl.first_net_buffer.views()
                view = views[0] if len(views) == 1 else memoryview(b"".join(views))
                segment = parse_segment(view, 1)
                # What is no segment is dropped, as from the wire; the host has judged it already.
                taken = segment is None or self._segment(tcp, segment)
                nbl.status = _SUCCESS if taken else _UPLOAD_IN_PROGRESS
            if last is None:
                first = nbl
            else:
                last.next = nbl
            last = nbl
        if first is not None:
            self.handle.tcp_offload_forward_complete(first)
