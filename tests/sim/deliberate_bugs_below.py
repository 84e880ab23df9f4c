"""Deliberate bugs below NDIS: the target, its engine, and intermediate drivers."""

from __future__ import annotations

from chimney.intermediate.base import IntermediateDriver
from chimney.intermediate.faulty import FaultyDriver
from chimney.ndis.buffers import iterate, link
from chimney.target.datapath import Datapath
from chimney.target.delivery import Delivery
from chimney.target.schedule import Schedule
from chimney.target.soft import SoftTarget
from chimney.tcp import reassembly
from chimney.tcp.config import NEVER
from chimney.tcp.connection import Connection as Engine
from chimney.tcp.persist import Persist
from chimney.tcp.reassembly import Reassembly
from chimney.tcp.receiver import Receiver
from chimney.tcp.sender import Sender
from chimney.tcp.state import State
from chimney.tcp.window import ReceiveWindow
from tests.sim.bug_hunt import bug

_RST = 4
_MASK = 0xFFFFFFFF

# The engine: what is sent


@bug("engine, offload")
def no_timer_after_the_initiate(patch):
    """The retransmission timer does not run for what was in flight when the connection came."""
    patch.set(Sender, "_resume_timer", lambda self, left, now: None)


@bug("engine, offload")
def no_persist_timer_after_the_initiate(patch):
    """A connection that comes with a closed window waits for ever if the update of the window is lost."""

    @patch(Sender, "__init__")
    def init(original, self, config, tcb, *others):
        original(self, config, tcb, *others)
        self.persist.came_closed = tcb.snd_wnd == 0

    @patch(Sender, "_update_window")
    def update_window(original, self, wnd, now):
        if wnd:
            self.persist.came_closed = False
        original(self, wnd, now)

    @patch(Persist, "take_probe")
    def take_probe(original, self):
        return original(self) and not self.came_closed


@bug("engine")
def acknowledgements_compared_as_numbers(patch):
    """An acknowledgement is old if its number is smaller: when SND.UNA is about to wrap, all new ones are."""

    @patch(Sender, "position")
    def position(original, self, ack):
        una = (self.base_seq + self.una) & _MASK
        return self.una - 1 if ack < una else original(self, ack)


@bug("engine")
def window_of_an_old_segment(patch):
    """SND.WL1 does not count: a segment that was overtaken takes the window back (tcpdirect#102)."""
    patch.set(Engine, "_is_newer", lambda self, segment, start, ack: True)


@bug("engine")
def compares_with_snd_nxt(patch):
    """Acknowledgements beyond SND.NXT are refused: after a time-out that went back, the late ones are (BSD before
    snd_max).
    """

    @patch(Engine, "_is_ack_acceptable")
    def is_ack_acceptable(original, self, ack, now):
        sender = self.sender
        return ack <= max(sender.resumes_at(), sender.una) and original(self, ack, now)


@bug("engine")
def fin_is_sent_once(patch):
    """A FIN that is lost is not sent again when nothing else is outstanding."""

    @patch(Sender, "on_timer")
    def on_timer(original, self, now):
        if self.una == self.queue.end < self.max and not self.persist.is_on:
            self.timer.stop()
            return True
        return original(self, now)


@bug("engine")
def timer_stops_at_the_tail(patch):
    """When all has been sent, any acknowledgement stops the retransmission timer: it takes the one for the last."""

    @patch(Sender, "_restart_timers")
    def restart_timers(original, self, ack, now):
        original(self, ack, now)
        if not self.persist.is_on and self.nxt == self.end():
            self.timer.stop()


@bug("engine")
def forgets_what_a_closed_window_refused(patch):
    """What was in flight when the window closed is not sent again when it opens, and no timer runs for it."""

    patch.set(Sender, "_go_back", lambda self, now: self.timer.stop())


@bug("engine")
def resets_what_is_established_only(patch):
    """The abort of a half-closed connection ends without an RST (RFC 9293, 3.10.5 wants one up to CLOSE-WAIT)."""

    @patch(Engine, "_next_reset")
    def next_reset(original, self, now):
        if self.state != State.ESTABLISHED:
            self.state = int(State.CLOSING)
        return original(self, now)


# The engine: what is received


@bug("engine")
def acknowledges_over_the_second_hole(patch):
    """When the first hole is filled, what is behind the second one counts as in sequence, too (RFC 9293: acknowledged
    before it is there).
    """

    @patch(Reassembly, "pop")
    def pop(original, self, position, received):
        reached = original(self, position, received)
        if self._blocks and reached > position:
            reached = original(self, self._blocks[0].start, received)
        return reached


@bug("engine")
def fin_beyond_a_hole(patch):
    """A FIN ends the stream as soon as it comes, if nothing else has come out of order."""

    @patch(Receiver, "take_fin")
    def take_fin(original, self):
        if self.fin_at > self.window.nxt and self.reassembly.is_empty():
            self.window.nxt = self.fin_at
        return original(self)


@bug("engine")
def trims_a_byte_too_few(patch):
    """Of a segment of which a part is old, the last old byte counts as new."""

    @patch(Receiver, "accept")
    def accept(original, self, segment, start):
        if start < self.window.nxt < start + segment.payload_length:
            start += 1
        return original(self, segment, start)


@bug("engine")
def echoes_what_came_out_of_order(patch):
    """TS.Recent follows segments beyond Last.ACK.sent, too: what they have overtaken is dropped as old (RFC 1323
    before its erratum; RFC 7323, appendix G).
    """

    @patch(Engine, "_on_acceptable")
    def on_acceptable(original, self, segment, start, now):
        original(self, segment, start, now)
        if segment.has_timestamp and self._use_timestamps:
            self.timestamps.remember(segment.ts_val, now)


@bug("engine")
def any_reset_in_the_window(patch):
    """An RST anywhere in the window resets the connection (before RFC 5961)."""

    @patch(Engine, "_on_reset_or_syn")
    def on_reset_or_syn(original, self, segment, start, now):
        if segment.flags & _RST:
            start = self.receiver.window.nxt
        original(self, segment, start, now)


@bug("engine")
def window_moves_back(patch):
    """The right edge goes back by a unit of the field, and what rounding takes."""
    patch.set(ReceiveWindow, "_field_up_to_edge", lambda self: max((self.edge - self.nxt >> self.scale) - 1, 0))


@bug("engine")
def does_not_tell_of_the_open_window(patch):
    """When the application reads, a closed window opens, and the peer is not told."""
    patch.set(Engine, "consume", lambda self, count: self.receiver.window.consume(count))


@bug("engine")
def keeps_views_of_frames(patch):
    """What comes out of order is kept as a view of the frame, which the link uses again."""
    patch.set(reassembly, "bytes", memoryview, raising=False)


# The target


@bug("target, upload")
def owes_the_delayed_acknowledgement(patch):
    """The acknowledgement that is delayed when the terminate comes is not sent, and the kernel knows nothing of it."""
    patch.set(Engine, "flush_ack", lambda self, now: None)


@bug("target, upload")
def drops_frames_after_its_request(patch):
    """What arrives between a mandatory upload request and the terminate is not kept for the host."""

    @patch(Datapath, "_keep_for_host")
    def keep_for_host(original, self, tcp, data):
        if not tcp.upload_reason or not tcp.engine_done:
            original(self, tcp, data)


@bug("target, upload")
def forgets_buffered_data_at_the_end_of_the_stream(patch):
    """Undelivered bytes are not handed up when the peer's FIN has come behind them."""

    @patch(Delivery, "take_buffered")
    def take_buffered(original, self):
        return None if self.stream_ended else original(self)


@bug("target, upload")
def goes_on_after_the_terminate(patch):
    """The timers of a connection that was given back run on: two engines speak (passt: the source of a migration)."""

    @patch(SoftTarget, "detach")
    def detach(original, self, tcp):
        original(self, tcp)
        tcp.gone = tcp.terminating = False
        deadline = tcp.engine.poll_at()
        if deadline < NEVER:
            self.schedule.add(tcp, deadline)


@bug("target")
def completes_what_is_sent(patch):
    """A send completes when its last byte has left, not when the peer has it."""
    patch.set(Engine, "acked", property(lambda self: min(self.sender.max, self.sender.queue.end)))


@bug("target")
def acknowledges_before_it_has_a_place(patch):
    """Memory for a segment is asked for when the engine has counted it already."""

    @patch(Datapath, "_segment")
    def process(original, self, tcp, segment):
        allocate, self.allocate = self.allocate, None
        if segment.payload_length and allocate is not None and not allocate("segment"):
            tcp.engine.process(segment, self.now)
            tcp.engine.received.clear()
        taken = original(self, tcp, segment)
        self.allocate = allocate
        return taken


@bug("target")
def window_leaks(patch):
    """Bytes that waited for a request are not counted when they are taken: the window shrinks by them, for ever."""

    @patch(Delivery, "_place")
    def place(original, self):
        before = self.consumed
        original(self)
        self.consumed = before


@bug("target")
def deadlines_never_come_earlier(patch):
    """A connection that is scheduled is not scheduled earlier: a delayed acknowledgement waits for the other timers."""

    @patch(Schedule, "add")
    def add(original, self, tcp, deadline):
        if tcp.scheduled_at == NEVER:
            original(self, tcp, deadline)


# Intermediate drivers


@bug("driver")
def completes_twice(patch):
    """A driver that has kept a completion back delivers it twice."""

    @patch(FaultyDriver, "_keep")
    def keep(original, self, *kept):
        before = len(self.kept)
        original(self, *kept)
        if kept[0].nbl is not None and len(self.kept) > before:
            self.kept.append(kept[0])


@bug("driver")
def loses_the_last_of_merged_lists(patch):
    """A driver that links completed lists together forgets the last one."""

    @patch(IntermediateDriver, "complete")
    def complete(original, self, operation, net_buffer_list):
        lists = list(iterate(net_buffer_list))
        if isinstance(self, FaultyDriver) and len(lists) > 1:
            net_buffer_list = link(lists[:-1])
        original(self, operation, net_buffer_list)


@bug("driver")
def events_overtake_completions(patch):
    """A driver passes events up at once, before the completions that it has kept back."""

    @patch(FaultyDriver, "on_event")
    def on_event(original, self, entry, event_type, information):
        self.indicate_event(entry, event_type, information)


@bug("driver")
def loses_events_while_it_holds(patch):
    """A driver that keeps everything back for a while forgets the events among it."""

    @patch(FaultyDriver, "on_event")
    def on_event(original, self, entry, event_type, information):
        if not self.holding:
            original(self, entry, event_type, information)
