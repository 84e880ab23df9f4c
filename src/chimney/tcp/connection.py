"""One TCP connection from ESTABLISHED to its end (RFC 9293, 3.10.4 to 3.10.8), without I/O and without a clock.

Read `process`, `dispatch` and `poll_at`; what they ask stands below them, or in the module of that concern. Times
are microseconds of a monotonic clock of the caller.
"""

from chimney.tcp.ack import AckPolicy
from chimney.tcp.config import NEVER, Config, Tcb
from chimney.tcp.events import Event
from chimney.tcp.keepalive import Keepalive
from chimney.tcp.ratelimit import RateLimiter
from chimney.tcp.receiver import Receiver
from chimney.tcp.segment import Segment
from chimney.tcp.sender import Sender
from chimney.tcp.seq import unwrap
from chimney.tcp.state import FIN_WAS_ACKED, OFFLOADABLE, Cause, State, after
from chimney.tcp.statistics import Statistics
from chimney.tcp.timestamps import Timestamps

_NEVER = NEVER
_FIN = 1
_SYN = 2
_RST = 4
_ACK = 16
_URG = 32
_CLOSED = int(State.CLOSED)
_FIN_WAIT_2 = int(State.FIN_WAIT_2)
_CLOSING = int(State.CLOSING)
_TIME_WAIT = int(State.TIME_WAIT)
_NOTHING_NEW = 0
_IN_ORDER = 1
_HOLE_FILLED = 2
_OUT_OF_ORDER = 3


class Connection:
    """A connection that was taken over.

    Nothing that arrives in a segment raises. `received` and `events` grow until the caller clears them.
    state: a State. acked: stream bytes that the peer has acknowledged since construction.
    """

    def __init__(self, config: Config, tcb: Tcb, now: int) -> None:
        """Raises ValueError for a state that cannot be taken over."""
        if tcb.state not in OFFLOADABLE:
            raise ValueError(f"a connection in state {State(tcb.state).name} cannot be taken over")
        self.config = config
        self.state = int(tcb.state)
        self.events: list[int] = []
        self.stats = Statistics()
        self.timestamps = Timestamps(tcb.ts_time, config.ticks_per_second, tcb.ts_recent, tcb.ts_recent_age_us, now)
        self.sender = Sender(config, tcb, self.timestamps, self.stats, now)
        self.receiver = Receiver(config, tcb, self.sender.mss, self.stats)
        self.ack_policy = AckPolicy(config.ack_frequency, config.delayed_ack_us)
        self.keepalive = Keepalive(
            config.keepalive_us,
            config.keepalive_interval_us,
            config.keepalive_probes,
            tcb.keepalive_probe_count,
            tcb.keepalive_left_us,
            now,
        )
        self.fin_acked = tcb.state in FIN_WAS_ACKED
        self.fin_wait_2_at = NEVER
        if self.state == _FIN_WAIT_2 and config.fin_wait_2_us > 0:
            left = tcb.retransmit_left_us
            self.fin_wait_2_at = now + (left if left >= 0 else config.fin_wait_2_us)
        self.stopped = False
        self.window_update_at = NEVER
        self._sws_us = config.sws_prevention_us
        self._use_timestamps = config.timestamps
        self._use_sack = config.sack
        self._dirty = True
        self._reset_pending = False
        self._close_called = False
        self._wl1 = min(unwrap(tcb.snd_wl1, tcb.rcv_nxt, 0), 0)
        self._last_ack_sent = 0
        self._reset_challenged = False
        self._syn_limiter = RateLimiter(1, 3_000_000)
        self._limiter = RateLimiter(10, 1_000_000)

    # The three verbs.

    def process(self, segment: Segment, now: int) -> None:
        """Takes in one received segment (RFC 9293, 3.10.7.4)."""
        self.stats.segments_in += segment.segments
        if self.stopped or self.state == _CLOSED:
            return
        self._dirty = True
        start = self.receiver.position(segment.seq)
        if self._is_old_duplicate(segment, now):
            return
        if not self._is_in_sequence(segment, start, now):
            return
        if segment.flags & (_RST | _SYN):
            self._on_reset_or_syn(segment, start, now)
            return
        if not segment.flags & _ACK:
            return
        ack = self.sender.position(segment.ack)
        if not self._is_ack_acceptable(ack, now):
            return
        if segment.flags & _URG:
            self._stop(Event.URGENT)
            return
        self._on_acceptable(segment, start, now)
        self._on_ack(segment, start, ack, now)
        if segment.payload_length > 0 or segment.flags & _FIN:
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
                segment = self._pure_ack(now)
        if segment is None:
            self._dirty = False
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

    def send(self, view: memoryview, push: bool = True) -> None:
        """Queues bytes, which stay the caller's memory and unchanged until they are acknowledged.

        The first bytes queued after construction begin at SND.UNA, sent or not. Raises ValueError after `close`.
        """
        if self._close_called or self.fin_acked:
            raise ValueError("send() after close(): the FIN stands after the last byte that was queued")
        self.sender.queue.append(view, push)
        self._dirty = True

    def close(self) -> None:
        """Sends a FIN after everything that is queued. The state changes when it leaves."""
        if not self.fin_acked and self.state != _CLOSED:
            self.sender.fin_length = 1
        self._close_called = True
        self._dirty = True

    def abort(self, now: int) -> None:
        """Makes the next `dispatch` return an RST where RFC 9293, 3.10.5 wants one; the state is CLOSED then."""
        if self.state != _CLOSED:
            self._reset_pending = True
            self._dirty = True

    def consume(self, count: int) -> None:
        """The application has taken `count` received bytes, which makes room in the window."""
        self.receiver.window.consume(count)
        if not self.receiver.fin_received and self.receiver.window.update_is_due():
            self.ack_policy.at_once()
            self._dirty = True
        elif self._sws_us > 0:
            self._dirty = True

    def set_initial_rcv_wnd(self, size: int) -> None:
        """Changes the size of the receive window, and tells the peer if that opens it."""
        self.receiver.window.size = size
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

    def set_keepalive(self, timeout: int, interval: int, probes: int, now: int) -> None:
        """Changes keepalive as Config has it, and restarts its timer."""
        self.keepalive = Keepalive(timeout, interval, probes, 0, -1, now)
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
        return self._pure_ack(now)

    # Receiving, in the order of the RFC.

    def _is_old_duplicate(self, segment: Segment, now: int) -> bool:
        """RFC 7323, 5.3 R1. A segment without the option passes, as with Linux: some hosts leave it out."""
        if not segment.has_timestamp or not self._use_timestamps or segment.flags & _RST:
            return False
        if not self.timestamps.is_old(segment.ts_val, now):
            return False
        self.stats.paws_drops += 1
        self._answer_unexpected(segment, now)
        return True

    def _is_in_sequence(self, segment: Segment, start: int, now: int) -> bool:
        """RFC 9293, 3.10.7.4, first step; what is not is answered, an RST excepted."""
        receiver = self.receiver
        if segment.flags & _RST:
            return receiver.is_in_window(start)
        length = segment.payload_length
        if segment.flags & (_FIN | _SYN):
            length += (segment.flags & _FIN) + (segment.flags >> 1 & 1)
        if receiver.is_acceptable(start, length):
            return True
        self.stats.unacceptable += 1
        if segment.flags & _SYN:
            self.ack_policy.at_once()
            return False
        receiver.note_old(start, segment.payload_length)
        self._answer_unexpected(segment, now)
        if segment.flags & _FIN:
            self.ack_policy.at_once()
        return False

    def _on_reset_or_syn(self, segment: Segment, start: int, now: int) -> None:
        """RFC 5961, 3 and 4, as the interface documents have it: exact matches count, near ones are challenged."""
        exact = start == self.receiver.window.nxt
        if segment.flags & _RST:
            if exact:
                # A peer that has forgotten a connection that is over: no request may fail for that (RFC 1337).
                if self.state != _TIME_WAIT:
                    self._finish(State.CLOSED, Event.RESET)
            elif not self._reset_challenged:
                self._reset_challenged = True
                self._challenge(now)
        elif self.state == _TIME_WAIT:
            return
        elif exact:
            self._finish(State.CLOSED, Event.SYN)
        elif self._syn_limiter.allows(now):
            self._challenge(now)

    def _is_ack_acceptable(self, ack: int, now: int) -> bool:
        """RFC 5961, 5.2."""
        sender = self.sender
        if sender.una - sender.max_wnd <= ack <= sender.max:
            return True
        self.stats.bad_acks += 1
        if self._limiter.allows(now):
            self.stats.challenge_acks += 1
            self.ack_policy.at_once()
        return False

    def _on_acceptable(self, segment: Segment, start: int, now: int) -> None:
        """The segment is the peer's, and of now."""
        self._reset_challenged = False
        if segment.has_timestamp and start <= self._last_ack_sent and self._use_timestamps:
            self.timestamps.remember(segment.ts_val, now)
        if self.keepalive.deadline != _NEVER:
            self.keepalive.heard(now)
        if self.fin_wait_2_at != _NEVER:
            self.fin_wait_2_at = now + self.config.fin_wait_2_us

    def _on_ack(self, segment: Segment, start: int, ack: int, now: int) -> None:
        """RFC 9293, 3.10.7.4, fifth step."""
        sender = self.sender
        if ack < sender.una:
            return
        is_newer = self._is_newer(segment, start, ack)
        if start > self._wl1:
            self._wl1 = start
        sender.on_ack(segment, ack, is_newer, now)
        if not self.fin_acked and sender.fin_is_acked():
            self.fin_acked = True
            self.events.append(int(Event.FIN_ACKED))
            self._move(Cause.FIN_ACKED, now)

    def _is_newer(self, segment: Segment, start: int, ack: int) -> bool:
        """Whether the window of the segment counts: SND.WL1 and SND.WL2 of RFC 9293, read as Linux does.

        A segment that acknowledges more is the latest, even if it is a retransmission with an old sequence number.
        """
        if ack > self.sender.una or start > self._wl1:
            return True
        window = segment.window << self.sender.scale
        return start == self._wl1 and (window > self.sender.wnd or window == 0)

    def _on_data(self, segment: Segment, start: int, now: int) -> None:
        """RFC 9293, 3.10.7.4, seventh and eighth steps; when to acknowledge is RFC 5681, 4.2."""
        receiver = self.receiver
        policy = self.ack_policy
        if receiver.fin_received:
            return
        verdict = receiver.accept(segment, start)
        if verdict == _IN_ORDER:
            policy.received(segment.segments, now)
        elif verdict == _OUT_OF_ORDER and not self._use_sack:
            policy.duplicates(segment.segments)
        elif verdict != _NOTHING_NEW:
            if verdict == _HOLE_FILLED:
                policy.advanced()
            policy.pending += 1
            policy.at_once()
        if receiver.take_fin():
            policy.advanced()
            policy.pending += 1
            policy.at_once()
            self.events.append(int(Event.FIN_RECEIVED))
            self._move(Cause.FIN_RECEIVED, now)

    def _answer_unexpected(self, segment: Segment, now: int) -> None:
        """An acknowledgement for a segment that is not acceptable; without data, not too often (RFC 5961, 7)."""
        if segment.payload_length > 0 or self._limiter.allows(now):
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
        if self.sender.una < self.sender.max and not keepalive.suspicious:
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
            return self._pure_ack(now)
        return None

    def _next_from_sender(self, now: int) -> Segment | None:
        segment = self.sender.next_segment(now)
        if segment is None:
            return None
        if segment.flags & _FIN:
            self._move(Cause.FIN_SENT, now)
        return self._complete(segment, now)

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
        acknowledged = self._last_ack_sent
        segment = self._pure_ack(now)
        segment.flags = _RST | _ACK
        # Nothing is acknowledged that was not before (disconnect.abort.stop-rx).
        segment.ack = self.receiver.window.sequence(acknowledged)
        segment.sack_blocks = []
        return segment

    def _pure_ack(self, now: int) -> Segment:
        """A segment without data, with what there is to be said about the received data."""
        segment = Segment()
        segment.flags = _ACK
        segment.seq = self.sender.sequence(self._sequence_without_data())
        if self._use_sack and self.receiver.has_something_to_report():
            segment.sack_blocks = self.receiver.sack_blocks(3 if self._use_timestamps else 4)
        self.stats.acks_out += 1
        return self._complete(segment, now)

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
        self._last_ack_sent = window.nxt
        if self._use_timestamps:
            segment.has_timestamp = True
            segment.ts_val = self.timestamps.value(now)
            segment.ts_ecr = self.timestamps.recent
        self.ack_policy.sent()
        self.stats.segments_out += segment.segments
        return segment

    # What there is to see, and to hand on.

    @property
    def received(self) -> list[tuple[memoryview, bool]]:
        """In-order data and whether it was pushed, since the caller last cleared it.

        Views of the segment processed last are valid as long as its frame is; the others are the engine's memory.
        """
        return self.receiver.received

    @property
    def fin_received(self) -> bool:
        """Whether the peer's FIN has come in order: all data before it is, or was, in `received`."""
        return self.receiver.fin_received

    @property
    def acked(self) -> int:
        """Stream bytes acknowledged since construction; the FIN does not count."""
        return min(self.sender.una, self.sender.queue.end)

    @property
    def snd_una(self) -> int:
        """SND.UNA."""
        return self.sender.sequence(self.sender.una)

    @property
    def snd_nxt(self) -> int:
        """SND.NXT: the next byte to send, below `snd_max` where bytes have to be sent again."""
        return self.sender.sequence(self.sender.nxt)

    @property
    def snd_max(self) -> int:
        """The highest sequence number ever sent, plus one."""
        return self.sender.sequence(self.sender.max)

    @property
    def snd_wnd(self) -> int:
        """The peer's window in bytes."""
        return self.sender.wnd

    @property
    def rcv_nxt(self) -> int:
        """RCV.NXT."""
        return self.receiver.window.sequence(self.receiver.window.nxt)

    @property
    def rcv_wnd(self) -> int:
        """The window that was advertised, less what has arrived since, in bytes."""
        return self.receiver.window.edge - self.receiver.window.nxt

    @property
    def cwnd(self) -> int:
        """The congestion window in bytes."""
        return self.sender.congestion.cwnd

    @property
    def mss(self) -> int:
        """Payload bytes of a full segment."""
        return self.sender.mss

    def export(self, now: int) -> Tcb:
        """The state for the next owner, who must also get the bytes from SND.UNA on, and a FIN that was not sent.

        Out-of-order data is dropped: it was never acknowledged, except selectively.
        """
        sender = self.sender
        window = self.receiver.window
        deadline = self.fin_wait_2_at if self.state == _FIN_WAIT_2 else sender.timer.deadline
        return Tcb(
            state=self.state,
            rcv_nxt=self.rcv_nxt,
            rcv_wnd=self.rcv_wnd,
            snd_una=self.snd_una,
            snd_nxt=self.snd_nxt,
            snd_max=self.snd_max,
            snd_wnd=sender.wnd,
            max_snd_wnd=sender.max_wnd,
            snd_wl1=window.sequence(self._wl1),
            cwnd=sender.congestion.cwnd,
            ssthresh=sender.congestion.ssthresh,
            srtt_us=sender.rtt.srtt,
            rttvar_us=sender.rtt.rttvar,
            ts_recent=self.timestamps.recent,
            ts_recent_age_us=now - self.timestamps.recent_at,
            ts_time=self.timestamps.value(now),
            total_rt_us=sender.timer.total,
            dup_ack_count=min(sender.recovery.dup_acks, 255),
            snd_wnd_probe_count=min(sender.timer.probe_count, 255),
            keepalive_probe_count=min(self.keepalive.count, 255),
            keepalive_left_us=_left(self.keepalive.deadline, now),
            retransmit_count=min(sender.timer.count, 255),
            retransmit_left_us=_left(deadline, now),
            undelivered=window.undelivered,
        )


def _left(deadline: int, now: int) -> int:
    """What remains of a timer: -1 not running, 0 due now."""
    return -1 if deadline == NEVER else max(deadline - now, 0)
