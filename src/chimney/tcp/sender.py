"""The sending half: what may be sent now, and what an acknowledgement changes (RFC 9293, 3.8; RFC 5681).

Read `on_ack`, `next_segment`, `on_timer` and `deadline`. Positions: una <= nxt <= max. What lies between una and nxt is
in the flight; nxt is below max only after a hand-over, where bytes have possibly been sent by the owner before. The FIN
takes one position after the last byte of the queue.
"""

from chimney.tcp.algorithms import congestion_control
from chimney.tcp.black_hole import BlackHole
from chimney.tcp.config import Config, Tcb
from chimney.tcp.flight import Flight, Record
from chimney.tcp.pacing import Pacer
from chimney.tcp.persist import Persist
from chimney.tcp.rack import Rack
from chimney.tcp.recovery import Recovery
from chimney.tcp.rtt import RttEstimator
from chimney.tcp.sack import read_blocks
from chimney.tcp.segment import Segment
from chimney.tcp.send_queue import SendQueue
from chimney.tcp.seq import add, unwrap
from chimney.tcp.state import FIN_IS_QUEUED, State
from chimney.tcp.statistics import Statistics
from chimney.tcp.tail import TailProbe
from chimney.tcp.timer import RetransmitTimer
from chimney.tcp.timestamps import Timestamps
from chimney.tcp.usage import CwndUsage

_NEVER = 2**62
_FIN = 1
_PSH = 8
_ACK = 16
_OPEN = 0
_CWR = 2
_LEAST_MSS = 48
_OVERRIDE_US = 200_000
_LEAST_TRAIN = 4
_LEAST_RENEGING_US = 10_000
_TRAIN_US = 977
_LONG_PATH = 17


class Sender:
    """Queue, windows, congestion, loss recovery and timers of the sending half."""

    def __init__(self, config: Config, tcb: Tcb, timestamps: Timestamps, statistics: Statistics, now: int) -> None:
        self.statistics = statistics
        self.timestamps = timestamps
        self.use_timestamps = config.timestamps
        self.remote_mss = config.remote_mss
        self.ip_header = 40 if config.ipv6 else 20
        self.nagle = config.nagle
        self.scale = min(config.snd_wscale, 14) if config.window_scaling else 0
        self.path_mtu = config.path_mtu
        self.black_hole = BlackHole(config.black_hole_detection, config.ipv6, 12 if config.timestamps else 0)
        self.mtu_probe_floor = config.mtu_probe_floor
        self.mss = self._effective_mss()
        self.max_burst = max(config.max_burst_segment, self.mss)

        self.base_seq = tcb.snd_una
        self.una = 0
        self.nxt = max(unwrap(tcb.snd_nxt, tcb.snd_una, 0), 0)
        self.max = max(unwrap(tcb.snd_max, tcb.snd_una, 0), self.nxt)
        self.wnd = tcb.snd_wnd
        self.max_wnd = max(tcb.max_snd_wnd, tcb.snd_wnd)
        self.queue = SendQueue()
        self.fin_length = 1 if tcb.state in FIN_IS_QUEUED else 0

        self.rtt = RttEstimator(tcb.srtt_us, tcb.rttvar_us, config.min_rto_us, config.max_rto_us, now)
        self.congestion = congestion_control(config, tcb, self.mss)
        self.usage = CwndUsage(self.congestion, config.slow_start_after_idle, now)
        self.pacer = Pacer(config.pacing, self.mss)
        self.timer = RetransmitTimer(config.max_retransmissions, config.max_rt_us)
        self.timer.count = self.timer.backoff = tcb.retransmit_count
        self.timer.total = tcb.total_rt_us
        self.timer.probe_count = tcb.snd_wnd_probe_count
        self.persist = Persist(self.timer, self.rtt, config.linux_window_probes)
        self.tail = TailProbe()
        self.rack = Rack(self.rtt)
        self.flight = Flight(config.max_sack_blocks, self.rack)
        self.recovery = Recovery(
            config.sack,
            config.dupack_threshold,
            self.mss,
            min(tcb.dup_ack_count, 255),
            self.flight,
            self.rack,
            self.congestion,
            self.timer,
            statistics,
        )
        self.delivered = 0
        self.train = self.max_burst
        self.min_train_segments = config.min_train_segments
        self._set_pace()
        # Whether what somebody else has sent ends with a small segment is not known.
        self.small_end = self.max
        self.probes_tail = config.tail_loss_probes
        self.set_sws_prevention(config.sws_prevention_us)
        self.override_at = _NEVER
        self.last_sent = now
        self._urgent = False
        if self.nxt > 0:
            # Somebody else has sent it, some time ago: it tells no round trip.
            self.flight.add(self.nxt, self.mss, (self.nxt + self.mss - 1) // self.mss, now, True)
        self._resume_timer(tcb.retransmit_left_us if tcb.state != State.FIN_WAIT_2 else -1, now)

    def _resume_timer(self, left: int, now: int) -> None:
        if left >= 0:
            self.timer.start(now, left)
            self.persist.is_on = self.wnd == 0
        elif self.nxt > 0 and self.wnd > 0:
            self.timer.start(now, self._time_out())

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

    def resumes_at(self) -> int:
        """SND.NXT for the next owner: after a time-out, the first byte that waits to be sent again."""
        record = self.flight.next_lost()
        return self.nxt if record is None else record.start

    def deadline(self) -> int:
        """When this half wants to be called next."""
        at = min(self.timer.deadline, self.override_at, self.tail.deadline)
        return min(at, self.rack.deadline, self.pacer.deadline)

    # Parameters that change.

    def set_path_mtu(self, mtu: int) -> None:
        """Segments get another size; what is in flight and has become too large is sent again at once (RFC 1191)."""
        before = self._room()
        self.path_mtu = mtu
        self.black_hole.on_path_mtu(before, self._allowed(), self.mtu_probe_floor)
        if self._adopt_mss() and not self.persist.is_on:
            self.recovery.on_smaller_mss()
            self._urgent = self.flight.pending > 0

    def set_sws_prevention(self, microseconds: int) -> None:
        """How long what is small is held back (Config.sws_prevention_us)."""
        self.override_us = microseconds or _OVERRIDE_US

    def _adopt_mss(self) -> bool:
        """Segments have the size that is effective now, from now on; whether that is a smaller one."""
        mss = self._effective_mss()
        smaller = mss < self.mss
        self.mss = self.recovery.mss = self.pacer.mss = mss
        self.max_burst = max(self.max_burst, mss)
        self.congestion.set_mss(mss)
        return smaller

    def _effective_mss(self) -> int:
        """RFC 6691: the options that every segment carries come out of the MSS. Tiny ones are an attack."""
        return max(self._room() - self.black_hole.options, _LEAST_MSS)

    def _room(self) -> int:
        """How many bytes of options and payload a segment carries at most."""
        return self.black_hole.mss(self._allowed())

    def _allowed(self) -> int:
        """What the peer and the path, as far as it has told, would take."""
        return min(self.remote_mss, self.path_mtu - self.ip_header - 20)

    # Acknowledgements.

    def on_ack(self, segment: Segment, ack: int, is_newer: bool, now: int) -> None:
        """Takes in an acceptable acknowledgement of position `ack`, at most max; below una only its SACK blocks count.

        is_newer: whether the segment is the latest one from the peer, so that its window counts.
        """
        recovery = self.recovery
        flight = self.flight
        told = flight.told
        told.begin(recovery.high, flight.highest)
        duplicates = 0
        self.rack.echo = -1
        if segment.has_timestamp and self.use_timestamps and segment.ts_ecr != 0:
            self.rack.echo = segment.ts_ecr
        if ack > self.una:
            self._advance(ack, now)
        elif not recovery.sack and self.is_duplicate(segment, ack):
            duplicates = segment.segments
        if recovery.sack and segment.sack_blocks:
            read_blocks(segment.sack_blocks, add(self.base_seq, self.una), ack, flight, now)
            self._on_duplicate_report()
        if told.sacked > 0 or duplicates > 0:
            self.statistics.duplicate_acks += 1
        rtt = self._measure_rtt(segment, now)
        if self._is_dubious(duplicates):
            recovery.on_ack(duplicates, self.rack.echo, now)
            self._hush_tail()
        self._on_tail_acked(segment, ack, now)
        self.delivered += told.packets
        if told.longest > 0 and self.black_hole.on_acked(told.longest, self.una, now):
            self._adopt_mss()
        self._adapt_cwnd(rtt, now)
        self._restart_timers(ack, now)
        if is_newer:
            self._update_window(segment.window << self.scale, now)

    def _advance(self, ack: int, now: int) -> None:
        self.una = ack
        if self.nxt < ack:
            self.nxt = ack
        if self.max < ack:
            self.max = ack
        self.queue.release(ack)
        self.flight.acknowledge(ack, now)
        if not self.persist.is_on:
            self.timer.progress()

    def is_duplicate(self, segment: Segment, ack: int) -> bool:
        """RFC 5681, 2: a duplicate acknowledgement, where SACK does not tell more."""
        return (
            ack == self.una
            and self.max > self.una
            and segment.payload_length == 0
            and not segment.flags & _FIN
            and segment.window << self.scale == self.wnd
        )

    def _is_dubious(self, duplicates: int) -> bool:
        """Whether the acknowledgement may change the state of recovery; most do not."""
        recovery = self.recovery
        told = self.flight.told
        return recovery.state != _OPEN or duplicates > 0 or told.sacked > 0 or told.duplicate_start >= 0

    def _on_duplicate_report(self) -> None:
        """RFC 2883: something has arrived twice."""
        told = self.flight.told
        if told.duplicate_end < 0:
            return
        self.statistics.duplicates_reported += 1
        self.recovery.undo.duplicate(told.duplicate_start, told.duplicate_end)
        if not self.tail.is_reported(told.duplicate_start, told.duplicate_end):
            self.rack.on_duplicate(self.una, self.nxt)

    def _measure_rtt(self, segment: Segment, now: int) -> int:
        """RFC 6298, 3 and Karn: what was sent once tells; else the echo does. Returns the sample, or -1."""
        told = self.flight.told
        rtt = least = -1
        if told.first_sent >= 0 and not told.repeated:
            rtt = now - told.first_sent
            least = now - told.last_sent
        elif told.first_sacked >= 0:
            rtt = now - told.first_sacked
            least = now - told.last_sacked
        elif told.acked > 0 and self.rack.echo >= 0 and self._echo_is_fresh(segment):
            rtt = self.timestamps.round_trip(segment.ts_ecr, now)
            if rtt >= 0:
                rtt = least = max(rtt, 500_000 // self.timestamps.ticks_per_second)
        if rtt >= 0:
            self.rtt.sample(rtt)
            self.rtt.note_least(least, now)
            if not self.persist.is_on:
                self.timer.backoff = 0
        return least

    def _echo_is_fresh(self, segment: Segment) -> bool:
        """Out-of-order data and duplicates do not renew the echo, and the acknowledgement of what did can be lost.

        SACK blocks tell of both; without SACK nothing does, and after a time-out the echo is not to be trusted.
        """
        return not segment.sack_blocks if self.recovery.sack else self.timer.backoff == 0

    def _adapt_cwnd(self, rtt: int, now: int) -> None:
        told = self.flight.told
        recovery = self.recovery
        congestion = self.congestion
        if recovery.is_reducing():
            recovery.lead_cwnd()
        elif told.acked > 0 or (told.delivered > 0 and recovery.reordering > recovery.threshold) or rtt >= 0:
            delivered = told.delivered if told.acked > 0 or recovery.reordering > recovery.threshold else 0
            limited = self.usage.is_limited()
            congestion.on_ack(delivered, limited, rtt, self.rtt.srtt, self.una, self.nxt, now)
        self._set_pace()

    def _set_pace(self) -> None:
        congestion = self.congestion
        self.pacer.update(congestion.cwnd, self.rtt.srtt, congestion.cwnd * 2 < congestion.ssthresh)
        self._size_trains()

    def _restart_timers(self, ack: int, now: int) -> None:
        """RFC 6298, 5.2 and 5.3."""
        told = self.flight.told
        if self.persist.is_on:
            return
        if self.una >= self.nxt:
            if told.acked > 0:
                self.timer.stop()
            self.rack.stop()
            self.tail.deadline = _NEVER
            return
        head = self.flight.head()
        if told.acked > 0:
            if head is not None and head.is_sacked:
                # The peer does not acknowledge what it has covered: it may have dropped it (RFC 2018, 8).
                self.timer.start(now, max(self.rtt.srtt // 2, _LEAST_RENEGING_US))
            else:
                self.timer.start(now, self._time_out())
            self._arm_tail(now)
        elif told.first_sacked >= 0 and head is not None and told.first_sacked < head.sent:
            self.timer.start(now, self._time_out())

    def _update_window(self, wnd: int, now: int) -> None:
        """RFC 9293, 3.10.7.4 (SND.WND), and what a window that closes or opens starts and ends."""
        before = self.wnd
        self.wnd = wnd
        if wnd > self.max_wnd:
            self.max_wnd = wnd
        if wnd == 0:
            if before > 0 or self.una >= self.end():
                self.persist.stop()
            else:
                self.persist.answered(now)
        elif before == 0:
            if self.persist.is_on:
                self.persist.stop()
            if self.una < self.nxt:
                self._go_back(now)

    def _go_back(self, now: int) -> None:
        """What is in flight has to be sent again, for another reason than congestion."""
        self.recovery.on_everything_lost(now)
        self.timer.stop()
        self.tail.stop()

    # Timers.

    def on_timer(self, now: int) -> bool:
        """The retransmission timer expired. False: the limit is reached, and nothing more is to be sent."""
        if self.persist.is_on:
            if self.una >= self.end():
                self.persist.stop()
                return True
            return self.persist.expire(now)
        if self.una >= self.max:
            self.timer.stop()
            return True
        if self.tail.deadline <= self.timer.deadline and self.wnd > 0:
            # RFC 8985, 7.2: the probe that goes now comes first.
            self.timer.start(now, self._time_out())
            return True
        if not self.timer.expire(now):
            return False
        self.statistics.timeouts += 1
        head = self.flight.head()
        length = head.end - head.start if head is not None else 0
        if self.black_hole.on_timeout(length, self.mss, self.timer.count):
            self._adopt_mss()
        self.recovery.on_timeout(now)
        self.tail.stop()
        self._urgent = True
        self.timer.start(now, self._time_out())
        return True

    def on_ecn_echo(self, now: int) -> bool:
        """RFC 3168, 6.1.2: the peer tells of congestion; whether cwnd is reduced for it, once per window of data."""
        if not self.recovery.on_congestion_echo(now):
            return False
        self.tail.stop()
        return True

    def _time_out(self) -> int:
        return self.rtt.backed_off(self.timer.backoff)

    # Sending.

    def next_segment(self, now: int) -> Segment | None:
        """The next segment, without acknowledgement, window and options; None: nothing may be sent now."""
        if self.una >= self.end() or self.wnd == 0:
            # Nothing waits for its time any more.
            self.pacer.deadline = _NEVER
            return None if self.una >= self.end() else self._next_window_probe(now)
        if self.rack.deadline <= now:
            self.recovery.on_reordering_timer(now)
            self._hush_tail()
        segment = None
        if self._urgent or not self.pacer.is_held(now):
            segment = self._next_by_priority(now)
        if segment is None and self.tail.deadline <= now:
            segment = self._next_tail_probe(now)
        return segment

    def _next_by_priority(self, now: int) -> Segment | None:
        """What is lost, then what is new (RFC 6675, 4, NextSeg); new data first where F-RTO wants it (RFC 5682)."""
        recovery = self.recovery
        if not recovery.may_repeat():
            return self._next_in_order(now)
        if recovery.frto.prefers_new():
            segment = self._next_in_order(now)
            if segment is not None:
                return segment
            if self.nxt <= recovery.high:
                recovery.frto.stop()
            else:
                recovery.frto.sent_new()
                return None
        return self._next_lost(now)

    def _next_lost(self, now: int) -> Segment | None:
        """Sends what is lost again, as far as the windows allow."""
        record = self.flight.next_lost()
        if record is None:
            return None
        start = record.start
        wanted = min(record.end, self.end()) - start
        room = self.congestion.cwnd - self.recovery.in_flight()
        length = min(wanted, self.train, self.pacer.allowance(now), room)
        if length < wanted:
            length -= length % self.mss
        length = min(length, self.una + self.wnd - start)
        if length <= 0:
            return None
        self._urgent = False
        return self._repeat(record, start + length, now)

    def _next_in_order(self, now: int) -> Segment | None:
        """Sends from nxt on: new data, or what has possibly been sent before a hand-over."""
        start = self.nxt
        data = self.queue.end - start
        window = self.una + self.wnd - start
        if data <= 0:
            if data < 0 or self.fin_length == 0 or window < 1:
                return None
            return self._send(start, start + 1, now)
        if self.una == self.max and self.usage.starts(self.rtt.rto(), now):
            self._set_pace()
        room = self.congestion.cwnd - self.recovery.in_flight() if not self.flight.is_full() else 0
        if self.black_hole.candidate > 0 and self._may_probe_mtu(start, data, window):
            return self._next_mtu_probe(start, now)
        cwnd_binds = room < min(data, window)
        length = self._length_to_send(start, data, min(window, room), cwnd_binds, now)
        if length > 0:
            end = start + length
            if end == self.queue.end and self.fin_length > 0 and length < window:
                end += 1
            return self._send(start, end, now)
        if cwnd_binds:
            self.usage.sent(self.una, self.nxt, True, _NEVER, now)
        return None

    def _may_probe_mtu(self, start: int, data: int, window: int) -> bool:
        """RFC 4821, 7.4: only new data, and only while nothing is missing."""
        recovery = self.recovery
        return (
            recovery.state == _OPEN
            and start == self.max
            and self.black_hole.is_due(self.mss, self.congestion.cwnd, recovery.in_flight(), data, window)
        )

    def _next_mtu_probe(self, start: int, now: int) -> Segment:
        """One segment that is larger than the others."""
        hole = self.black_hole
        mss = self.mss
        self.mss = hole.candidate - hole.options
        segment = self._send(start, start + self.mss, now)
        self.mss = mss
        hole.probe_end = self.nxt
        return segment

    def _length_to_send(self, start: int, data: int, allowed: int, cwnd_binds: bool, now: int) -> int:
        """How many of the `data` bytes from `start` on go into one segment, or train of segments; 0: wait."""
        burst = min(self.train, self.pacer.allowance(now))
        length = min(data, allowed, burst)
        if length <= 0:
            return 0
        again = start < self.max
        if cwnd_binds and length == allowed < data and self._train_may_grow(length, burst):
            return 0
        tail = length % self.mss
        if tail == 0 or again and not cwnd_binds:
            return length
        if length > self.mss:
            return length if length == data and not self._nagle_holds() else length - tail
        if self._nagle_holds() and not again:
            return 0
        if length == data:
            return length
        return length if not cwnd_binds and self._window_suffices(start, length, now) else 0

    def _size_trains(self) -> None:
        """A train is what the path carries in a millisecond, as Linux has it, and on a short path more.

        It has two segments at least, and takes up no more than half of cwnd, so that acknowledgements keep coming.
        """
        srtt = self.rtt.srtt
        if srtt == 0:
            return
        congestion = self.congestion
        percent = 200 if congestion.cwnd * 2 < congestion.ssthresh else 120
        count = max(congestion.cwnd, self.nxt - self.una) * percent // 100 * _TRAIN_US // srtt
        halvings = self.rtt.min_rtt() >> 9
        if halvings < _LONG_PATH:
            count += self.max_burst >> halvings
        mss = self.mss
        count = min(max(count, self.min_train_segments * mss), max(congestion.cwnd // 2, mss))
        self.train = min(count - count % mss, self.max_burst)

    def _train_may_grow(self, length: int, burst: int) -> bool:
        """Whether what cwnd lets through is little, while most of a large cwnd is under way and will be acknowledged.

        A longer train costs the link no more than a short one.
        """
        eighth = self.congestion.cwnd // 8
        return self.recovery.state == _OPEN and eighth >= _LEAST_TRAIN * self.mss and length < min(eighth, burst)

    def _nagle_holds(self) -> bool:
        """RFC 9293, 3.7.4: a small segment waits while another one is unacknowledged; not if a FIN follows it.

        That full-sized ones do not count is Minshall's variant, which Linux has: the end of a long write does not wait
        for a delayed acknowledgement.
        """
        return self.nagle and self.fin_length == 0 and self.una < self.small_end

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

    def _send(self, start: int, end: int, now: int) -> Segment:
        """[start, end) leaves, from nxt on."""
        again = start < self.max
        segment = self._build(start, end, now)
        self.nxt = start + length_of(segment)
        if self.nxt > self.max:
            self.max = self.nxt
        if segment.payload_length < segment.segments * self.mss:
            self.small_end = self.nxt
        self.flight.add(self.nxt, self.mss, segment.segments, now, again)
        self.override_at = _NEVER
        self._left(segment, self.nxt - start, now)
        self._arm_tail(now)
        state = self.recovery.state
        in_flight = self.recovery.in_flight()
        limited = in_flight > self.congestion.cwnd - self.mss
        self.usage.sent(self.una, self.nxt, limited, self.rtt.rto() if state == _OPEN else _NEVER, now)
        return segment

    def _repeat(self, record: Record, end: int, now: int) -> Segment:
        """`record`, up to `end`, leaves again."""
        start = record.start
        segment = self._build(start, end, now)
        end = start + length_of(segment)
        stamp = self.timestamps.value(now) if self.use_timestamps else -1
        self.flight.repeat(record, end, self.mss, stamp, now)
        self.recovery.undo.repeated(start, end, stamp)
        if start == self.una:
            self.timer.start(now, self._time_out())
        self._left(segment, end - start, now)
        return segment

    def _left(self, segment: Segment, count: int, now: int) -> None:
        """What every transmission of data entails."""
        self.recovery.prr.sent(count)
        self.pacer.sent(count, now)
        if not self.timer.is_running():
            self.timer.start(now, self._time_out())

    # The tail of a flight.

    def _arm_tail(self, now: int) -> None:
        """RFC 8985, 7.2: a probe needs SACK to be of use, and nothing known to be missing."""
        recovery = self.recovery
        calm = recovery.state == _OPEN or recovery.state == _CWR
        if recovery.sack and self.probes_tail and self.una < self.nxt and calm:
            self.tail.arm(now, self.rtt.srtt, self.flight.packets <= 1, self.timer.deadline)
        else:
            self.tail.deadline = _NEVER

    def _hush_tail(self) -> None:
        """What is known to be missing needs no probe; where it may be late, the reordering timer comes first."""
        if self.recovery.state > _CWR:
            self.tail.stop()
        elif self.rack.deadline != _NEVER:
            self.tail.deadline = _NEVER

    def _next_tail_probe(self, now: int) -> Segment | None:
        """RFC 8985, 7.3: one segment of new data, or the last one again."""
        self.tail.deadline = _NEVER
        if self.nxt < self.max or self.una >= self.nxt:
            return None
        data = self.queue.end - self.nxt
        window = self.una + self.wnd - self.nxt
        if data > 0 and window > 0:
            start = self.nxt
            segment = self._send(start, start + min(data, window, self.mss), now)
            self.tail.sent(start, self.nxt, False)
        else:
            record = self.flight.tail(self.mss)
            # What counts as sent may reach beyond the window: the owner before could not tell what had left.
            if record is None or record.end > self.una + self.wnd:
                return None
            segment = self._repeat(record, record.end, now)
            self.tail.sent(record.start, self.nxt, True)
        self.statistics.tail_probes += 1
        self.timer.start(now, self._time_out())
        return segment

    def _on_tail_acked(self, segment: Segment, ack: int, now: int) -> None:
        """RFC 8985, 7.4.2: if a repeated probe was no duplicate, it has repaired a loss, which counts as one.

        An acknowledgement of just the probe does not tell: it may be the original's, and a duplicate then follows.
        """
        tail = self.tail
        if tail.end < 0 or ack < tail.end:
            return
        told = self.flight.told
        if not tail.repeated or tail.is_reported(told.duplicate_start, told.duplicate_end):
            tail.end = -1
        elif ack > tail.end:
            tail.end = -1
            self.recovery.on_tail_loss(now)
        elif told.acked == 0 and told.sacked == 0 and segment.payload_length == 0:
            if segment.window << self.scale == self.wnd:
                tail.end = -1

    # The closed window.

    def _next_window_probe(self, now: int) -> Segment | None:
        """RFC 9293, 3.8.6.1: one byte, or the FIN, at the left edge of a closed window, when the timer says so.

        Without data it stands before the window, so that the peer has to answer.
        """
        if not self.persist.is_on:
            self.override_at = _NEVER
            self.tail.stop()
            self.rack.stop()
            self.persist.start(now)
        if not self.persist.take_probe():
            return None
        self.statistics.window_probes += 1
        if self.persist.as_linux:
            segment = Segment()
            segment.seq = self.sequence(self.una - 1)
            segment.flags = _ACK
            return segment
        segment = self._build(self.una, self.una + 1, now)
        self.max = max(self.max, self.una + 1)
        return segment

    # Building.

    def _build(self, start: int, end: int, now: int) -> Segment:
        """A segment of the bytes from `start` to `end`, which may be the position after the FIN, or fewer."""
        queue = self.queue
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
            # The receiver of a train shall not wait for more (GRO), as Linux does it.
            if queue.pushed or segment.segments > 1:
                segment.flags |= _PSH
        if end > queue.end and start + data == queue.end:
            segment.flags |= _FIN
        self.last_sent = now
        self._count(segment, start, data)
        return segment

    def _count(self, segment: Segment, start: int, data: int) -> None:
        statistics = self.statistics
        if start < self.max:
            segment.is_retransmission = True
            statistics.retransmitted_segments += segment.segments
            statistics.retransmitted_bytes += data
        else:
            statistics.bytes_out += data


def length_of(segment: Segment) -> int:
    """SEG.LEN (RFC 9293, 3.4) of a segment to be sent: payload and FIN."""
    return segment.payload_length + (segment.flags & _FIN)
