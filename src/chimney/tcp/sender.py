"""The sending half: what may be sent now, and what an acknowledgement changes (RFC 9293, 3.8; RFC 5681).

Positions: una <= nxt <= max. Normally nxt is max; it is below where bytes have to be sent again from nxt on, after a
time-out, a hand-over, or a closed window. The FIN takes one position after the last byte of the queue.
"""

from chimney.tcp.algorithms import congestion_control
from chimney.tcp.config import Config, Tcb
from chimney.tcp.recovery import Recovery
from chimney.tcp.rtt import RttEstimator
from chimney.tcp.segment import Segment
from chimney.tcp.send_queue import SendQueue
from chimney.tcp.seq import add, unwrap
from chimney.tcp.state import FIN_IS_QUEUED, State
from chimney.tcp.statistics import Statistics
from chimney.tcp.tail import TailProbe
from chimney.tcp.timer import RetransmitTimer
from chimney.tcp.timestamps import Timestamps
from chimney.tcp.undo import Undo

_NEVER = 2**62
_FIN = 1
_PSH = 8
_ACK = 16
_OPEN = 0
_FAST = 1
_LEAST_MSS = 48
_OVERRIDE_US = 200_000
_LEAST_TRAIN = 4


class Sender:
    """Queue, windows, congestion, loss recovery and timer of the sending half."""

    def __init__(self, config: Config, tcb: Tcb, timestamps: Timestamps, statistics: Statistics, now: int) -> None:
        self.statistics = statistics
        self.timestamps = timestamps
        self.use_timestamps = config.timestamps
        self.remote_mss = config.remote_mss
        self.ip_header = 40 if config.ipv6 else 20
        self.nagle = config.nagle
        self.scale = min(config.snd_wscale, 14) if config.window_scaling else 0
        self.mss = self._effective_mss(config.path_mtu)
        self.max_burst = max(config.max_burst_segment, self.mss)

        self.base_seq = tcb.snd_una
        self.una = 0
        self.nxt = max(unwrap(tcb.snd_nxt, tcb.snd_una, 0), 0)
        self.max = max(unwrap(tcb.snd_max, tcb.snd_una, 0), self.nxt)
        self.wnd = tcb.snd_wnd
        self.max_wnd = max(tcb.max_snd_wnd, tcb.snd_wnd)
        self.queue = SendQueue()
        self.fin_length = 1 if tcb.state in FIN_IS_QUEUED else 0

        self.congestion = congestion_control(config, tcb, self.mss)
        self.recovery = Recovery(
            config.sack, config.dupack_threshold, self.mss, config.max_sack_blocks, min(tcb.dup_ack_count, 255)
        )
        self.rtt = RttEstimator(tcb.srtt_us, tcb.rttvar_us, config.min_rto_us, config.max_rto_us)
        self.timer = RetransmitTimer(config.max_retransmissions, config.max_rt_us)
        self.timer.count = tcb.retransmit_count
        self.timer.total = tcb.total_rt_us
        self.timer.probe_count = tcb.snd_wnd_probe_count
        self.tail = TailProbe()
        self.undo = Undo()
        self.persisting = False
        self.probe_due = False
        self.set_sws_prevention(config.sws_prevention_us)
        self.override_at = _NEVER
        self.last_sent = now
        self._cwnd_limited = False
        self._reacted_at = 0
        self._timed_end = -1
        self._timed_at = 0
        self._resume_timer(tcb.retransmit_left_us if tcb.state != State.FIN_WAIT_2 else -1, now)

    def _resume_timer(self, left: int, now: int) -> None:
        if left >= 0:
            self.timer.start(now, left)
            self.persisting = self.wnd == 0
        elif self.nxt > 0 and self.wnd > 0:
            self.timer.start(now, self.rtt.backed_off(self.timer.count))

    # What is there.

    def end(self) -> int:
        """The position after all that is to be sent, FIN included."""
        return self.queue.end + self.fin_length

    def sequence(self, position: int) -> int:
        """The sequence number of `position`."""
        return add(self.base_seq, position)

    def position(self, ack: int) -> int:
        """The position of an acknowledgement number."""
        return unwrap(ack, add(self.base_seq, self.una), self.una)

    def fin_is_acked(self) -> bool:
        """Whether the acknowledgement covers our FIN."""
        return self.fin_length > 0 and self.una > self.queue.end

    def deadline(self) -> int:
        """When this half wants to be called next."""
        return min(self.timer.deadline, self.override_at, self.tail.deadline)

    def set_path_mtu(self, mtu: int) -> None:
        """Segments get another size; what is in flight and has become too large is sent again at once (RFC 1191)."""
        smaller = self._effective_mss(mtu) < self.mss
        self.mss = self._effective_mss(mtu)
        self.max_burst = max(self.max_burst, self.mss)
        self.congestion.set_mss(self.mss)
        self.recovery.mss = self.mss
        if smaller and self.nxt > self.una and not self.persisting:
            self._go_back()

    def set_sws_prevention(self, microseconds: int) -> None:
        """How long what is small is held back (Config.sws_prevention_us)."""
        self.override_us = microseconds or _OVERRIDE_US

    def _effective_mss(self, mtu: int) -> int:
        """RFC 6691: the options that every segment carries come out of the MSS. Tiny ones are an attack."""
        options = 12 if self.use_timestamps else 0
        return max(min(self.remote_mss, mtu - self.ip_header - 20) - options, _LEAST_MSS)

    # Acknowledgements.

    def is_duplicate(self, segment: Segment, ack: int) -> bool:
        """RFC 5681, 2: a duplicate acknowledgement, where SACK does not tell more."""
        return (
            ack == self.una
            and self.max > self.una
            and segment.payload_length == 0
            and not segment.flags & _FIN
            and segment.window << self.scale == self.wnd
        )

    def on_ack(self, segment: Segment, ack: int, is_newer: bool, now: int) -> None:
        """Takes in an acceptable acknowledgement of position `ack`, una <= ack <= max.

        is_newer: whether the segment is the latest one from the peer, so that its window counts.
        """
        recovery = self.recovery
        board = recovery.scoreboard
        newly = 0
        board.duplicate_reported = 0
        if recovery.sack:
            if segment.sack_blocks:
                newly = board.update(segment.sack_blocks, add(self.base_seq, self.una), self.una, self.max)
                duplicate = board.duplicate_reported
                if duplicate > 0 and self.undo.is_proved_by_duplicate(board.duplicate_start, duplicate):
                    self._undo(now)
        elif self.is_duplicate(segment, ack):
            newly = 1
        if ack > self.una:
            self._advance(segment, ack, now)
            if recovery.phase == _OPEN and recovery.is_lost(self.una):
                self._enter_recovery(now)
        elif newly > 0:
            self.statistics.duplicate_acks += 1
            if recovery.on_duplicate(self.una):
                self._enter_recovery(now)
            elif self._probe_tells_of_loss():
                self._enter_recovery(now)
                recovery.lose_below(board.last())
        elif ack == self.tail.end and segment.payload_length == 0 and segment.window << self.scale == self.wnd:
            self.tail.end = -1
        if recovery.phase == _FAST:
            recovery.measure(self.una, self.nxt)
        if is_newer:
            self._update_window(segment.window << self.scale, now)

    def _advance(self, segment: Segment, ack: int, now: int) -> None:
        acked = ack - self.una
        flight = self.nxt - self.una
        self.una = ack
        if self.nxt < ack:
            self.nxt = ack
        self.queue.release(ack)
        self._measure_rtt(segment, now)
        if self.tail.end >= 0:
            self._on_tail_acked(ack, flight, now)
        self.recovery.on_advance(ack, self.nxt, acked)
        if self.undo.is_proved_by_echo(segment):
            self._undo(now)
            # What had been under way still is; what was to be sent again even before that has not been.
            self.nxt = max(self.nxt, self._reacted_at)
            self.recovery.reset()
        congestion = self.congestion
        if self.recovery.phase != _FAST:
            limited = self._cwnd_limited or (congestion.cwnd < congestion.ssthresh and flight * 2 >= congestion.cwnd)
            congestion.on_ack(acked, limited, -1, self.rtt.srtt, self.una, self.nxt, now)
        if self.persisting:
            return
        self.timer.progress()
        if self.una < self.nxt:
            self.timer.start(now, self.rtt.rto())
        else:
            self.timer.stop()
        self._arm_tail(now)

    def _measure_rtt(self, segment: Segment, now: int) -> None:
        """RFC 6298, 3 and Karn: one segment in flight is timed, if it was sent once; else the echo tells."""
        if self._timed_end >= 0:
            if self.una >= self._timed_end:
                self.rtt.sample(now - self._timed_at)
                self._timed_end = -1
        elif self.use_timestamps and segment.has_timestamp and self._echo_is_fresh(segment):
            measured = self.timestamps.round_trip(segment.ts_ecr, now)
            if measured >= 0:
                self.rtt.sample(max(measured, 500_000 // self.timestamps.ticks_per_second))

    def _echo_is_fresh(self, segment: Segment) -> bool:
        """Out-of-order data and duplicates do not renew the echo, and the acknowledgement of what did can be lost.

        SACK blocks tell of both; without SACK nothing does, and after a time-out the echo is not to be trusted.
        """
        return not segment.sack_blocks if self.recovery.sack else self.timer.count == 0

    def _update_window(self, wnd: int, now: int) -> None:
        """RFC 9293, 3.10.7.4 (SND.WND), and what a window that closes or opens starts and ends."""
        before = self.wnd
        self.wnd = wnd
        if wnd > self.max_wnd:
            self.max_wnd = wnd
        if wnd == 0:
            if before > 0 or self.una >= self.end():
                self._stop_persisting()
            elif self.persisting and self.timer.count > 0:
                self.timer.probe_count += 1
                self._start_persisting(now)
        elif before == 0:
            if self.persisting:
                self._stop_persisting()
            if self.una < self.nxt:
                self._go_back()

    # Loss.

    def _enter_recovery(self, now: int) -> None:
        """RFC 6675, 5, step 4; RFC 6582, 3.2, step 2."""
        self.statistics.fast_retransmits += 1
        self._reacted_at = self.nxt
        self.congestion.on_congestion(self.nxt - self.una, now)
        self.congestion.end_recovery()
        self.recovery.enter(self.una, self.nxt, self.max)
        self._timed_end = -1
        self.tail.stop()
        self.undo.expect(True, self.use_timestamps)

    def on_timer(self, now: int) -> bool:
        """The retransmission timer expired. False: the limit is reached, and nothing more is to be sent."""
        if self.persisting:
            if self.una >= self.end():
                self._stop_persisting()
                return True
            if not self.timer.expire_probe():
                return False
            self.timer.start(now, self.rtt.backed_off(self.timer.count - 1))
            self.probe_due = True
            return True
        if self.una >= self.max:
            self.timer.stop()
            return True
        if not self.timer.expire(now):
            return False
        count = self.timer.count
        self.statistics.timeouts += 1
        self.congestion.on_timeout(self.nxt - self.una, now, count == 1)
        self.recovery.on_timeout(self.una, self.max, count)
        before = self.nxt
        self.nxt = self.una
        self._timed_end = -1
        self.tail.stop()
        if count == 1:
            self._reacted_at = before
            self.undo.expect(False, self.use_timestamps)
        self.timer.start(now, self.rtt.backed_off(count))
        return True

    def on_ecn_echo(self, now: int) -> None:
        """The peer reports congestion (RFC 3168, 6.1.2): what a loss does to cwnd, and nothing to send again."""
        if self.recovery.phase == _OPEN:
            self.congestion.on_congestion(self.nxt - self.una, now)
            self.congestion.end_recovery()

    def _go_back(self) -> None:
        """What is in flight has to be sent again, for another reason than congestion."""
        self.nxt = self.una
        self.recovery.reset()
        self._timed_end = -1
        self.timer.stop()
        self.tail.stop()

    def _undo(self, now: int) -> None:
        """Nothing had been lost."""
        self.statistics.spurious_recoveries += 1
        self.congestion.undo(now)
        if self.undo.is_fast:
            self.recovery.on_reordering()

    # Sending.

    def next_segment(self, now: int) -> Segment | None:
        """The next segment, without acknowledgement, window and options; None: nothing may be sent now."""
        if self.una >= self.end():
            self._cwnd_limited = False
            return None
        if self.wnd == 0:
            return self._next_probe(now)
        if self.recovery.phase != _FAST:
            segment = self._next_in_order(now)
            if segment is None and self.tail.deadline <= now:
                segment = self._next_tail_probe(now)
            return segment
        segment = self._next_lost(now)
        if segment is None and not self.recovery.forced:
            segment = self._next_in_order(now)
            if segment is None and self.recovery.find_doubtful(self.una):
                segment = self._repair(now)
        return segment

    def _next_lost(self, now: int) -> Segment | None:
        if not self.recovery.find_lost(self.una):
            self.recovery.forced = False
            return None
        return self._repair(now)

    def _repair(self, now: int) -> Segment | None:
        """Sends (a part of) the hole that was found, as far as cwnd allows."""
        recovery = self.recovery
        start = recovery.hole
        length = min(recovery.hole_end - start, self.max_burst)
        room = self.congestion.cwnd - recovery.pipe
        if recovery.forced and room < self.mss:
            room = self.mss
        if room < length:
            length = room
        if start + length < recovery.hole_end:
            length -= length % self.mss
        if length <= 0:
            self._cwnd_limited = True
            return None
        segment = self._build(start, length, now)
        end = start + length_of(segment)
        if start == self.una or not self.timer.is_running():
            self.timer.start(now, self.rtt.backed_off(self.timer.count))
        if end > self.nxt:
            self.nxt = end
        recovery.retransmitted(self.una, start, end, self.nxt)
        return segment

    def _next_in_order(self, now: int) -> Segment | None:
        """Sends from nxt on: new data, or what is to be sent again."""
        # The byte at una is missing, even if the peer has once covered it (RFC 2018, 8).
        if self.una < self.nxt < self.max and self.recovery.scoreboard.total > 0:
            self.nxt = self.recovery.scoreboard.hole_start(self.nxt)
        start = self.nxt
        data = self.queue.end - start
        window = self.una + self.wnd - start
        if data <= 0:
            self._cwnd_limited = False
            if data < 0 or self.fin_length == 0 or window < 1:
                return None
            return self._send(start, 0, now)
        if self.una == self.max and now - self.last_sent > self.rtt.rto():
            self.congestion.on_idle(now - self.last_sent, self.rtt.rto(), now)
            self.last_sent = now
        room = self.congestion.cwnd - self.recovery.in_flight(self.una, start)
        self._cwnd_limited = room < min(data, window)
        length = self._length_to_send(start, data, min(window, room), window > room, now)
        return self._send(start, length, now) if length > 0 else None

    def _length_to_send(self, start: int, data: int, allowed: int, cwnd_binds: bool, now: int) -> int:
        """How many of the `data` bytes from `start` on go into one segment, or train of segments; 0: wait."""
        length = min(data, allowed, self.max_burst)
        if length <= 0:
            return 0
        again = start < self.max
        if again and self.recovery.scoreboard.total > 0:
            hole = self.recovery.scoreboard.hole_end(start, start + length) - start
            if hole < length:
                return hole
        if cwnd_binds and length == allowed < data and self._train_may_grow(length):
            return 0
        tail = length % self.mss
        if tail == 0 or again and not cwnd_binds:
            return length
        if length > self.mss:
            return length if length == data and not self._nagle_holds() else length - tail
        if self._nagle_holds() and self.una < self.max and not again:
            return 0
        if length == data:
            return length
        return length if not cwnd_binds and self._window_suffices(start, length, now) else 0

    def _train_may_grow(self, length: int) -> bool:
        """Whether what cwnd lets through is little, while most of a large cwnd is under way and will be acknowledged.

        A longer train costs the link no more than a short one.
        """
        eighth = self.congestion.cwnd // 8
        return (
            self.recovery.phase == _OPEN and eighth >= _LEAST_TRAIN * self.mss and length < min(eighth, self.max_burst)
        )

    def _nagle_holds(self) -> bool:
        """RFC 9293, 3.7.4: a small segment waits while anything is unacknowledged; not if a FIN follows it."""
        return self.nagle and self.fin_length == 0

    def _window_suffices(self, start: int, length: int, now: int) -> bool:
        """Silly window avoidance (RFC 9293, 3.8.6.2.1): whether a part of a segment may leave.

        It may if it is half of the largest window ever seen, if it ends where a send ends, or if it has waited for long
        enough with nothing outstanding that could open the window.
        """
        if length * 2 >= self.max_wnd or now >= self.override_at or self.queue.ends_at(start + length):
            return True
        if self.una == self.nxt and self.override_at == _NEVER:
            self.override_at = now + self.override_us
        return False

    def _send(self, start: int, length: int, now: int) -> Segment:
        segment = self._build(start, length, now)
        sent = length_of(segment)
        self.nxt = start + sent
        self.recovery.pipe += sent
        self.override_at = _NEVER
        if not self.timer.is_running():
            self.timer.start(now, self.rtt.backed_off(self.timer.count))
        self._arm_tail(now)
        return segment

    # The tail of a flight.

    def _arm_tail(self, now: int) -> None:
        """RFC 8985, 7.2: a probe needs SACK to be of use, and nothing known to be missing."""
        recovery = self.recovery
        if recovery.sack and recovery.phase == _OPEN and recovery.scoreboard.total == 0 and self.una < self.nxt:
            is_single = self.nxt - self.una <= self.mss
            self.tail.arm(now, self.rtt.srtt, is_single, self.timer.deadline)
        else:
            self.tail.deadline = _NEVER

    def _next_tail_probe(self, now: int) -> Segment | None:
        """RFC 8985, 7.3: one segment of new data, or the last one again."""
        self.tail.deadline = _NEVER
        if self.recovery.phase != _OPEN or self.nxt < self.max or self.una >= self.nxt:
            return None
        data = self.queue.end - self.nxt
        window = self.una + self.wnd - self.nxt
        if data > 0 and window > 0:
            segment = self._send(self.nxt, min(data, window, self.mss), now)
            self.tail.sent(self.nxt, False)
        else:
            # What counts as sent may reach beyond the window: the owner before could not tell what had left.
            end = min(self.max, self.una + self.wnd)
            if end <= self.una:
                return None
            start = max(self.una, end - self.mss)
            segment = self._build(start, end - start, now)
            self.tail.sent(end, True)
        self.statistics.tail_probes += 1
        self.timer.start(now, self.rtt.backed_off(self.timer.count))
        return segment

    def _probe_tells_of_loss(self) -> bool:
        """Whether the probe has arrived, so that what was sent long before it and is missing is lost."""
        return self.recovery.phase == _OPEN and self.una < self.tail.end <= self.recovery.scoreboard.highest()

    def _on_tail_acked(self, ack: int, flight: int, now: int) -> None:
        """RFC 8985, 7.4.2: if a repeated probe was no duplicate, it has repaired a loss, which counts as one.

        An acknowledgement of just the probe does not tell: it may be the original's, and a duplicate then follows.
        """
        tail = self.tail
        duplicate = self.recovery.scoreboard.duplicate_reported > 0
        if ack < tail.end or (ack == tail.end and tail.repeated and not duplicate):
            return
        tail.end = -1
        if tail.repeated and not duplicate:
            self.congestion.on_congestion(flight, now)
            self.congestion.end_recovery()

    # The closed window.

    def _next_probe(self, now: int) -> Segment | None:
        """RFC 9293, 3.8.6.1: one byte, or the FIN, at the left edge of a closed window, when the timer says so."""
        if not self.persisting:
            self._start_persisting(now)
        if not self.probe_due:
            return None
        self.probe_due = False
        self.statistics.window_probes += 1
        return self._build(self.una, 1 if self.una < self.queue.end else 0, now)

    def _start_persisting(self, now: int) -> None:
        self.persisting = True
        self.probe_due = False
        self.override_at = _NEVER
        self.tail.stop()
        self.timer.count = 0
        self.timer.start(now, self.rtt.backed_off(self.timer.probe_count))

    def _stop_persisting(self) -> None:
        self.persisting = False
        self.probe_due = False
        self.timer.stop()
        self.timer.count = 0
        self.timer.probe_count = 0

    # Building.

    def _build(self, start: int, length: int, now: int) -> Segment:
        """A segment of `length` bytes from `start` on; the FIN joins it where it follows and fits the window."""
        queue = self.queue
        end = start + length
        data = min(end, queue.end) - start
        segment = Segment()
        segment.seq = add(self.base_seq, start)
        segment.flags = _ACK
        segment.mss = self.mss
        if data > 0:
            segment.payload_parts = queue.gather(start, data)
            data = queue.gathered
            segment.payload_length = data
            segment.segments = (data + self.mss - 1) // self.mss
            if queue.pushed:
                segment.flags |= _PSH
        if self.fin_length > 0 and start + data == queue.end and (self.una + self.wnd > queue.end or data == 0):
            segment.flags |= _FIN
        self._account(segment, start, start + length_of(segment), data, now)
        return segment

    def _account(self, segment: Segment, start: int, end: int, data: int, now: int) -> None:
        statistics = self.statistics
        self.last_sent = now
        if start < self.max:
            statistics.retransmitted_segments += segment.segments
            statistics.retransmitted_bytes += data
            self._timed_end = -1
            self.undo.retransmitted(start, end, self.timestamps.value(now))
        else:
            statistics.bytes_out += data
            if self._timed_end < 0 and self.recovery.phase == _OPEN:
                self._timed_end = end
                self._timed_at = now
        if end > self.max:
            self.max = end


def length_of(segment: Segment) -> int:
    """SEG.LEN (RFC 9293, 3.4) of a segment to be sent: payload and FIN."""
    return segment.payload_length + (segment.flags & _FIN)
