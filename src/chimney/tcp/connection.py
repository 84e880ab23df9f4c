"""One TCP connection from ESTABLISHED to its end (RFC 9293, 3.10.4 to 3.10.8), without I/O and without a clock.

Read `process`, `dispatch` and `poll_at`; what they ask stands below them, or in the module of that concern. What a
connection consists of is in `parts`. Times are microseconds of a monotonic clock of the caller.
"""

from chimney.tcp.config import NEVER, Config, Tcb
from chimney.tcp.events import Event
from chimney.tcp.keepalive import Keepalive
from chimney.tcp.parts import Parts
from chimney.tcp.segment import Segment
from chimney.tcp.state import Cause, State, after

_NEVER = NEVER
_FIN = 1
_SYN = 2
_RST = 4
_ACK = 16
_URG = 32
_ECE = 64
_CLOSED = int(State.CLOSED)
_CLOSING = int(State.CLOSING)
_TIME_WAIT = int(State.TIME_WAIT)
_NOTHING_NEW = 0
_IN_ORDER = 1
_HOLE_FILLED = 2
_OUT_OF_ORDER = 3
_QUICK_FOR_CONGESTION = 2


class Connection(Parts):
    """A connection that was taken over.

    Nothing that arrives in a segment raises. `received` and `events` grow until the caller clears them.
    state: a State. acked: stream bytes that the peer has acknowledged since construction. stopped: nothing is processed
    or sent any more, and somebody else has to go on from the state as it is.
    """

    def __init__(self, config: Config, tcb: Tcb, now: int) -> None:
        """Raises ValueError for a state that cannot be taken over."""
        Parts.__init__(self, config, tcb, now)
        self.stopped = False
        self.window_update_at = NEVER
        self._sws_us = config.sws_prevention_us
        self._use_timestamps = config.timestamps
        self._use_sack = config.sack
        self._challenge_every_syn = config.challenge_every_syn
        self._dirty = True
        self._reset_pending = False
        self._unsaid = False
        self._close_called = False
        self._repeat_fin = False
        self._starved = False
        self._now = now
        window = self.receiver.window
        if not self.receiver.fin_received and window.edge - window.nxt < window.mss and window.update_is_due():
            # Whoever closed it was not asked to open it any more.
            self.ack_policy.at_once()

    # The three verbs.

    def process(self, segment: Segment, now: int) -> None:
        """Takes in one received segment (RFC 9293, 3.10.7.4)."""
        self.stats.segments_in += segment.segments
        if self.stopped or self.state == _CLOSED or not segment.flags & (_ACK | _RST | _SYN):
            return
        self._dirty = True
        self._now = now
        start = self.receiver.position(segment.seq)
        if self._is_old_duplicate(segment, start, now):
            return
        if not self._is_in_sequence(segment, start, now):
            return
        if segment.flags & (_RST | _SYN):
            self._on_reset_or_syn(segment, start, now)
            return
        ack = self.sender.position(segment.ack)
        if not self._is_ack_acceptable(ack, now):
            return
        if segment.flags & _URG:
            self._stop(Event.URGENT)
            return
        self._on_acceptable(segment, start, now)
        self._on_ack(segment, start, ack, now)
        if self.state == _TIME_WAIT:
            self._on_time_wait(segment, start, ack, now)
        elif segment.payload_length > 0 or segment.flags & _FIN:
            self._on_data(segment, start, now)

    def dispatch(self, now: int) -> Segment | None:
        """The next segment to be sent, None if there is none now; also runs the timers that have expired.

        To be called until it returns None.
        """
        if self._reset_pending:
            return self._next_reset(now)
        if not self.stopped and self.state != _CLOSED:
            self._run_timers(now)
        segment = None
        if not self.stopped and self.state != _CLOSED:
            segment = self._next_report(now)
            if segment is None:
                segment = self._next_from_sender(now)
            if segment is None:
                segment = self._next_keepalive(now)
            if segment is None and self.ack_policy.is_due(now):
                self.ack_policy.expire(now)
                segment = self._acknowledgement(now)
        if segment is None:
            self._dirty = False
            self.chrono.enter(self.sender.held_up_by(self._starved), now)
        return segment

    def poll_at(self) -> int:
        """When `dispatch` wants to be called; in the past: at once; NEVER: not before something happens."""
        if self._dirty:
            return 0
        if self.stopped or self.state == _CLOSED:
            return _NEVER
        return min(
            self.sender.deadline(),
            self.ack_policy.deadline,
            self.keepalive.deadline,
            self.fin_wait_2_at,
            self.window_update_at,
        )

    # What the owner does.

    def send(self, view: memoryview, push: bool = True, record_end: bool = False) -> None:
        """Queues bytes, which stay the caller's memory and unchanged until they are acknowledged.

        record_end: no segment goes on beyond their end (MSG_EOR).

        The first bytes queued after construction begin at SND.UNA, sent or not. Raises ValueError after `close`.
        """
        if self._close_called or self.fin_acked:
            raise ValueError("send() after close(): the FIN stands after the last byte that was queued")
        self.sender.queue.append(view, push, record_end)
        self._dirty = True

    def close(self) -> None:
        """Sends a FIN after everything that is queued. The state changes when it leaves."""
        if not self.fin_acked and self.state != _CLOSED:
            self.sender.fin_length = 1
        self._close_called = True
        self._dirty = True

    def abort(self, now: int, unsaid: bool = False) -> None:
        """Makes the next `dispatch` return an RST where RFC 9293, 3.10.5 wants one; the state is CLOSED then.

        ``unsaid``: what acknowledged something has not left. Then the RST does not acknowledge anything either.
        """
        if self.state != _CLOSED:
            self._reset_pending = True
            self._unsaid = unsaid
            self._dirty = True

    def consume(self, count: int) -> None:
        """The application has taken `count` received bytes, which makes room in the window."""
        window = self.receiver.window
        window.consume(count)
        if self.tuning.is_active():
            if self.tuning.rtt == 0 and self.sender.rtt.srtt > 0:
                # Without timestamps it is all there is.
                self.tuning.measured(self.sender.rtt.srtt)
            window.size = self.tuning.taken(count, self._now)
        if not self.receiver.fin_received and window.update_is_due():
            self.ack_policy.at_once()
            self._dirty = True
        elif self._sws_us > 0:
            self._dirty = True

    def set_initial_rcv_wnd(self, size: int) -> None:
        """Changes the size of the receive window, and tells the peer if that opens it."""
        self.receiver.window.size = self.tuning.size = size
        if self.receiver.window.may_advance():
            self.ack_policy.at_once()
            self._dirty = True

    def update_path_mtu(self, mtu: int) -> None:
        """The path takes packets of up to `mtu` bytes, IP header included."""
        self.sender.set_path_mtu(mtu)
        self._dirty = True

    def set_nagle(self, enabled: bool) -> None:
        """Switches Nagle's algorithm."""
        self.sender.nagle = enabled
        self._dirty = True

    def set_quick_ack(self, enabled: bool) -> None:
        """TCP_QUICKACK: whether acknowledgements are sent at once from here on, until events decide otherwise."""
        self.ack_policy.set_quick(enabled)
        self._dirty = True

    def set_starved(self, starved: bool) -> None:
        """Whether the application has more to send than there is room for in its buffer (for tcpi_sndbuf_limited)."""
        self._starved = starved
        self._dirty = True

    def set_keepalive(self, timeout: int, interval: int, probes: int, now: int) -> None:
        """Changes keepalive as Config has it, and restarts its timer."""
        self.keepalive = Keepalive(timeout, interval, probes, 0, -1, now)
        if self.state >= _TIME_WAIT:
            self.keepalive.deadline = NEVER
        self._dirty = True

    def set_parameters(
        self, ack_frequency: int, delayed_ack_us: int, max_retransmissions: int, dupack_threshold: int, sws_us: int
    ) -> None:
        """Changes these parameters of Config; timers that run keep their deadlines."""
        self.ack_policy.frequency = ack_frequency
        self.ack_policy.delay = delayed_ack_us
        self.sender.timer.max_count = max_retransmissions
        self.sender.recovery.set_threshold(dupack_threshold)
        self.sender.set_sws_prevention(sws_us)
        self._sws_us = sws_us
        self.window_update_at = NEVER
        self._dirty = True

    def flush_ack(self, now: int) -> Segment | None:
        """The acknowledgement that is owed, if any; afterwards none is, and none is delayed."""
        if self.state == _CLOSED or not self.ack_policy.is_owed():
            return None
        self.ack_policy.owed = 0
        return self._acknowledgement(now)

    # Receiving, in the order of the RFC.

    def is_plain(self, segment: Segment) -> bool:
        """Whether this is data, and nothing else, at RCV.NXT, and nothing is missing: what continues it, with the same
        header otherwise, may be given to `process` together with it, as one.
        """
        receiver = self.receiver
        return (
            segment.flags == _ACK
            and segment.payload_length > 0
            and not segment.sack_blocks
            and segment.seq == receiver.window.sequence(receiver.window.nxt)
            and receiver.fin_at < 0
            and not receiver.fin_received
            and not receiver.has_something_to_report()
        )

    def _is_old_duplicate(self, segment: Segment, start: int, now: int) -> bool:
        """RFC 7323, 5.3 R1. A segment without the option passes, as with Linux: some hosts leave it out."""
        if not segment.has_timestamp or not self._use_timestamps or segment.flags & _RST:
            return False
        if not self.timestamps.is_old(segment.ts_val, now) or self._is_overtaken_ack(segment, start):
            return False
        self.stats.paws_drops += 1
        if not segment.flags & _SYN:
            self._report(segment, start)
        self._answer_unexpected(segment, now)
        return True

    def _is_overtaken_ack(self, segment: Segment, start: int) -> bool:
        """Whether an old timestamp is the order of the network, and no old duplicate: Linux's exception to R1.

        A duplicate acknowledgement that is late by a time-out at most has neither data nor a window to tell that could
        be wrong; its SACK blocks tell of losses and of what came twice.
        """
        if segment.flags & (_ACK | _SYN) != _ACK or segment.length() > 0 or start != self.receiver.window.nxt:
            return False
        ack = self.sender.position(segment.ack)
        if ack != self.sender.una or self._is_newer(segment, start, ack):
            return False
        return self.timestamps.is_within(segment.ts_val, self.sender.rtt.rto())

    def _is_in_sequence(self, segment: Segment, start: int, now: int) -> bool:
        """RFC 9293, 3.10.7.4, first step; what is not is answered, an RST excepted."""
        receiver = self.receiver
        if segment.flags & _RST:
            return receiver.is_in_window(start)
        if receiver.is_acceptable(start, segment.length()):
            return True
        self.stats.unacceptable += 1
        if segment.flags & _SYN:
            if self.challenges.other(now):
                self.ack_policy.at_once()
            return False
        self._report(segment, start)
        self._answer_unexpected(segment, now)
        return False

    def _on_reset_or_syn(self, segment: Segment, start: int, now: int) -> None:
        """RFC 5961, 3 and 4, as the interface documents have it: exact matches count, near ones are challenged."""
        exact = start == self.receiver.window.nxt
        if segment.flags & _RST:
            if exact:
                # A peer that has forgotten a connection that is over: no request may fail for that (RFC 1337).
                if self.state != _TIME_WAIT:
                    self._finish(State.CLOSED, Event.RESET)
            elif self.challenges.reset():
                self._challenge(now)
        elif exact and not self._challenge_every_syn and self.state != _TIME_WAIT:
            self._finish(State.CLOSED, Event.SYN)
        elif self.challenges.syn(now):
            self._challenge(now)

    def _is_ack_acceptable(self, ack: int, now: int) -> bool:
        """RFC 5961, 5.2."""
        sender = self.sender
        if sender.una - sender.max_wnd <= ack <= sender.max:
            return True
        self.stats.bad_acks += 1
        if self.challenges.other(now):
            self.stats.challenge_acks += 1
            self.ack_policy.at_once()
        return False

    def _on_acceptable(self, segment: Segment, start: int, now: int) -> None:
        """The segment is the peer's, and of now."""
        self.challenges.calm()
        if segment.has_timestamp and start <= self.receiver.acknowledged and self._use_timestamps:
            self.timestamps.remember(segment.ts_val, now)
        if self.keepalive.deadline != _NEVER:
            self.keepalive.heard(now)
        if self.fin_wait_2_at != _NEVER:
            self.fin_wait_2_at = now + self.config.fin_wait_2_us

    def _on_ack(self, segment: Segment, start: int, ack: int, now: int) -> None:
        """RFC 9293, 3.10.7.4, fifth step."""
        sender = self.sender
        if ack < sender.una:
            if segment.sack_blocks:
                sender.on_ack(segment, ack, False, False, now)
            return
        self.ack_received_at = now
        is_newer = self._is_newer(segment, start, ack)
        if start > self.wl1:
            self.wl1 = start
        before = sender.delivered
        echoes = self.ecn.enabled and segment.flags & _ECE != 0
        # With nothing in flight an echo is of a window that has been reduced for it already.
        congested = echoes and sender.una < sender.max and self.ecn.is_news(ack, sender.max)
        sender.on_ack(segment, ack, is_newer, congested, now)
        if echoes:
            self.ecn.delivered_ce += sender.delivered - before
        if not self.fin_acked and sender.fin_is_acked():
            self.fin_acked = True
            self.events.append(int(Event.FIN_ACKED))
            self._move(Cause.FIN_ACKED, now)

    def _is_newer(self, segment: Segment, start: int, ack: int) -> bool:
        """Whether the window of the segment counts: SND.WL1 and SND.WL2 of RFC 9293, read as Linux does.

        A segment that acknowledges more is the latest, even if it is a retransmission with an old sequence number.
        """
        if ack > self.sender.una or start > self.wl1:
            return True
        window = segment.window << self.sender.scale
        return start == self.wl1 and (window > self.sender.wnd or window == 0)

    def _on_data(self, segment: Segment, start: int, now: int) -> None:
        """RFC 9293, 3.10.7.4, seventh and eighth steps; when to acknowledge is RFC 5681, 4.2."""
        receiver = self.receiver
        policy = self.ack_policy
        if receiver.is_old(start, segment.length()):
            self._report(segment, start)
            self._answer_unexpected(segment, now)
            return
        if receiver.fin_received:
            return
        verdict = receiver.accept(segment, start)
        if verdict == _IN_ORDER:
            policy.received(segment.segments, now, self.sender.rtt.rto())
        elif verdict == _OUT_OF_ORDER and not self._use_sack:
            policy.duplicates(segment.segments)
        elif verdict != _NOTHING_NEW:
            if verdict == _HOLE_FILLED:
                policy.advanced()
            policy.pending += 1
            policy.at_once()
        if receiver.duplicates:
            policy.at_once()
        if segment.payload_length > 0:
            self._on_payload(segment, now)
        if receiver.take_fin():
            policy.advanced()
            policy.pending += 1
            policy.at_once()
            self.events.append(int(Event.FIN_RECEIVED))
            self._move(Cause.FIN_RECEIVED, now)

    def _on_payload(self, segment: Segment, now: int) -> None:
        """What data in the window tells besides itself: congestion, and the round trip as the receiver sees it."""
        self.data_received_at = now
        self.stats.data_segments_in += segment.segments
        if self.ecn.enabled and self.ecn.received(segment):
            self.ack_policy.hurry_for(_QUICK_FOR_CONGESTION)
            self.ack_policy.at_once()
        is_full = self.tuning.is_full(segment.payload_length // segment.segments)
        if is_full and self.tuning.is_active() and segment.has_timestamp:
            measured = self.timestamps.round_trip(segment.ts_ecr, now)
            if measured >= 0:
                self.tuning.measured(measured)

    def _on_time_wait(self, segment: Segment, start: int, ack: int, now: int) -> None:
        """RFC 9293, 3.10.7.4: the peer may have missed our last acknowledgement; its own, repeated, tells nothing."""
        if segment.length() > 0 or start != self.receiver.window.nxt or ack != self.sender.una:
            self._answer_unexpected(segment, now)

    def _report(self, segment: Segment, start: int) -> None:
        """What is not taken may have come before (RFC 2883). Where both sides have closed, one answer to all has to do:
        the peer may forget the connection with the first one, and meet a second by an RST.
        """
        if self.state < _CLOSING:
            self.receiver.note_old(start, segment.payload_length)

    def _answer_unexpected(self, segment: Segment, now: int) -> None:
        """An acknowledgement for a segment that brings nothing; without data and FIN, not too often (RFC 5961, 7)."""
        if segment.payload_length > 0 or segment.flags & _FIN:
            self.ack_policy.hurry()
            self.ack_policy.at_once()
        elif self.challenges.other(now):
            self.ack_policy.at_once()

    def _challenge(self, now: int) -> None:
        """Asks the peer whether it meant it (RFC 5961), and makes sure that silence is noticed.

        In TIME_WAIT silence is what is expected.
        """
        self.stats.challenge_acks += 1
        self.ack_policy.at_once()
        if self.state != _TIME_WAIT:
            self.keepalive.suspect(now)

    # Timers.

    def _run_timers(self, now: int) -> None:
        sender = self.sender
        if self._sws_us > 0:
            self._run_window_timer(now)
        if sender.timer.deadline <= now and not sender.on_timer(now):
            self._stop(Event.TIMEOUT)
        elif self.fin_wait_2_at <= now:
            self._finish(State.CLOSED, Event.TIMEOUT)
        elif self.keepalive.deadline <= now:
            self._on_keepalive(now)

    def _run_window_timer(self, now: int) -> None:
        """The news of a window that has grown by little waits for some time, and then goes out all the same."""
        window = self.receiver.window
        if self.receiver.fin_received or not window.is_held_back():
            self.window_update_at = _NEVER
        elif self.window_update_at == _NEVER:
            self.window_update_at = now + self._sws_us
        elif self.window_update_at <= now:
            self.window_update_at = _NEVER
            window.forced = True
            self.ack_policy.at_once()

    def _on_keepalive(self, now: int) -> None:
        keepalive = self.keepalive
        if self.sender.una < self.sender.end() and not keepalive.suspicious:
            keepalive.postpone(now)
        elif not keepalive.is_exhausted():
            keepalive.is_due = True
        elif keepalive.suspicious:
            self._finish(State.CLOSED, Event.TIMEOUT)
        else:
            self._stop(Event.TIMEOUT)

    # States.

    def _move(self, cause: int, now: int) -> None:
        """Goes to the state that follows (RFC 9293, 3.3.2), and does what entering it entails."""
        state = after(self.state, cause)
        if state == State.TIME_WAIT:
            self._finish(state, Event.TIME_WAIT)
        elif state == State.CLOSED:
            self._finish(state, Event.CLOSED)
        elif state == State.FIN_WAIT_2 and self.config.fin_wait_2_us > 0:
            self.fin_wait_2_at = now + self.config.fin_wait_2_us
        elif state == State.CLOSING and cause == Cause.FIN_RECEIVED:
            self._repeat_fin = self.sender.una == self.sender.queue.end
        self.state = int(state)

    def _finish(self, state: int, event: int) -> None:
        """CLOSED or TIME_WAIT: no timer runs any more."""
        self.state = int(state)
        self.events.append(int(event))
        self.sender.timer.stop()
        self.keepalive.deadline = _NEVER
        self.fin_wait_2_at = _NEVER
        self.window_update_at = _NEVER

    def _stop(self, event: int) -> None:
        """Nothing is sent or processed any more; the state stays, and somebody else has to go on from it."""
        self.stopped = True
        self.events.append(int(event))

    # Sending.

    def _next_report(self, now: int) -> Segment | None:
        """Duplicate and selective acknowledgements go in segments of their own (RFC 5681, 3.2; RFC 2018, 4)."""
        if self.ack_policy.owed > 0 and self.receiver.has_something_to_report():
            return self._acknowledgement(now)
        return None

    def _next_from_sender(self, now: int) -> Segment | None:
        highest = self.sender.max
        segment = self.sender.next_segment(now)
        if segment is None:
            return None
        if segment.flags & _FIN:
            self._move(Cause.FIN_SENT, now)
        if segment.payload_length > 0:
            self.ack_policy.answered(now)
            self.stats.data_segments_out += segment.segments
        if self.ecn.enabled:
            if self.sender.recovery.reduced:
                self.ecn.reacted()
                self.sender.recovery.reduced = False
            self.ecn.mark(segment, self._is_new_data(segment, highest))
        return self._complete(segment, now)

    def _is_new_data(self, segment: Segment, highest: int) -> bool:
        """Whether a segment carries data beyond `highest` alone, which was the end of what was sent, into a window."""
        return segment.payload_length > 0 and self.sender.wnd > 0 and self.sender.position(segment.seq) >= highest

    def _next_keepalive(self, now: int) -> Segment | None:
        """RFC 9293, 3.8.4: a segment without data just before the window, which the peer has to answer."""
        if not self.keepalive.is_due:
            return None
        self.keepalive.probed(now)
        self.stats.keepalive_probes += 1
        segment = self._pure_ack(now)
        segment.seq = self.sender.sequence(self.sender.una - 1)
        return segment

    def _next_reset(self, now: int) -> Segment | None:
        """RFC 9293, 3.10.5."""
        self._reset_pending = False
        self._dirty = False
        wanted = self.state < _CLOSING
        self.state = _CLOSED
        if not wanted:
            return None
        self.stats.resets_out += 1
        acknowledged = self.receiver.acknowledged
        segment = self._pure_ack(now)
        # Nothing is acknowledged that was not before (disconnect.abort.stop-rx).
        segment.flags = _RST if self._unsaid else _RST | _ACK
        segment.ack = 0 if self._unsaid else self.receiver.window.sequence(acknowledged)
        segment.sack_blocks = []
        return segment

    def _acknowledgement(self, now: int) -> Segment:
        segment = self._pure_ack(now)
        if self._repeat_fin:
            self._add_fin(segment)
        return segment

    def _pure_ack(self, now: int) -> Segment:
        """A segment without data, with what there is to be said about the received data."""
        segment = Segment()
        segment.flags = _ACK
        segment.seq = self.sender.sequence(self._sequence_without_data())
        if self._use_sack and self.receiver.has_something_to_report():
            segment.sack_blocks = self.receiver.sack_blocks(3 if self._use_timestamps else 4)
        self.stats.acks_out += 1
        if self.ecn.enabled:
            self.ecn.mark(segment, False)
        self._complete(segment, now)
        if self.receiver.duplicates:
            self.ack_policy.at_once()
        return segment

    def _add_fin(self, segment: Segment) -> None:
        """The FINs have crossed, as far as we know: what acknowledges the peer's says ours once more, as BSD does it.

        If ours was lost, no time-out has to pass.
        """
        self._repeat_fin = False
        if self.state == _CLOSING and self.sender.wnd > 0:
            segment.seq = self.sender.sequence(self.sender.una)
            segment.flags |= _FIN
            segment.is_retransmission = True
            self.stats.retransmitted_segments += 1

    def _sequence_without_data(self) -> int:
        """The peer finds only numbers in its window acceptable, so the highest one sent, or the window's edge.

        What counts as sent may reach beyond that edge: the owner before could not tell what had left (SND.NXT).
        """
        sender = self.sender
        return min(sender.max, sender.una + sender.wnd)

    def _complete(self, segment: Segment, now: int) -> Segment:
        """Acknowledgement, window and timestamp are filled in when a segment leaves."""
        window = self.receiver.window
        segment.window = window.advertise()
        segment.ack = window.sequence(window.nxt)
        self.receiver.acknowledged = window.nxt
        if self._use_timestamps:
            segment.has_timestamp = True
            segment.ts_val = self.timestamps.value(now)
            segment.ts_ecr = self.timestamps.recent
        self.ack_policy.sent()
        self.stats.segments_out += segment.segments
        return segment
