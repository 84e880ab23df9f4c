"""What may be sent now (RFC 9293, 3.8; RFC 5681; RFC 6675, 4), and what a transmission entails.

Read `next_segment`; what it asks stands below it.
"""

from chimney.tcp.flight import Record
from chimney.tcp.segment import Segment
from chimney.tcp.sender_parts import SenderParts

_NEVER = 2**62
_PSH = 8
_ACK = 16
_OPEN = 0
_CWR = 2
_IDLE = 0
_BUSY = 1
_RWND_LIMITED = 2
_SNDBUF_LIMITED = 3
_LEAST_TRAIN = 4
_TRAIN_GAP_US = 1_000  # Linux: tcp_tso_should_defer


class Sending(SenderParts):
    """Chooses what leaves next."""

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
        if self.tail.deadline <= now:
            # Before new data: once the probe is out, the retransmission timer is not put off for it any more.
            segment = self._next_tail_probe(now)
        if self._urgent:
            # What is urgent does not wait for its time; if cwnd does not let it go, an acknowledgement will.
            self.pacer.deadline = _NEVER
        if segment is None and (self._urgent or not self.pacer.is_held(now)):
            segment = self._next_by_priority(now)
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
        if self.una == self.nxt and self.usage.starts(self.rtt.rto(), now):
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

    def held_up_by(self, starved: bool) -> int:
        """Nothing more can be sent now: the state of Chrono that this is. starved: the application has more to send."""
        if self.una >= self.end():
            return _IDLE
        cwnd_binds = self.recovery.in_flight() >= self.congestion.cwnd
        unsent = self.end() - self.nxt
        if unsent > 0:
            wnd_binds = self.una + self.wnd < self.nxt + min(unsent, self.mss)
            return _RWND_LIMITED if wnd_binds and not cwnd_binds else _BUSY
        return _SNDBUF_LIMITED if starved and not cwnd_binds else _BUSY

    # How much goes into one segment.

    def _length_to_send(self, start: int, data: int, allowed: int, cwnd_binds: bool, now: int) -> int:
        """How many of the `data` bytes from `start` on go into one segment, or train of segments; 0: wait."""
        burst = min(self.train, self.pacer.allowance(now))
        length = min(data, allowed, burst)
        if length <= 0:
            return 0
        again = start < self.max
        if cwnd_binds and length == allowed < data and self._train_may_grow(length, burst, now):
            return 0
        tail = length % self.mss
        if tail == 0 or again and not cwnd_binds:
            return length
        if length > self.mss:
            return length if length == data and not self._nagle_holds_the_end() else length - tail
        if self._nagle_holds() and not again:
            return 0
        if length == data:
            return length
        return length if not cwnd_binds and self._window_suffices(start, length, now) else 0

    def _train_may_grow(self, length: int, burst: int, now: int) -> bool:
        """Whether what cwnd lets through is little, while most of a large cwnd is under way and will be acknowledged.

        A longer train costs the link no more than a short one. Where acknowledgements do not come closely, and beyond
        what the path carries in a millisecond, it would be a burst: who sends bursts into a full queue loses more than
        others there.
        """
        if self.recovery.state != _OPEN or now - self.last_sent > _TRAIN_GAP_US:
            return False
        eighth = self.congestion.cwnd // 8
        return eighth >= _LEAST_TRAIN * self.mss and length < min(eighth, burst, self.carried)

    def _nagle_holds(self) -> bool:
        """RFC 9293, 3.7.4: a small segment waits while anything is unacknowledged; not if a FIN follows it.

        In Minshall's variant only small segments count.
        """
        return self.nagle and self.fin_length == 0 and self.una < (self.small_end if self.minshall else self.max)

    def _nagle_holds_the_end(self) -> bool:
        """Whether the end of a train waits, of which the other segments leave now."""
        return self._nagle_holds() or (self.nagle and self.fin_length == 0 and not self.minshall)

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

    # What a transmission entails.

    def _send(self, start: int, end: int, now: int) -> Segment:
        """[start, end) leaves, from nxt on."""
        again = start < self.max
        segment = self._build(start, end, now)
        self.nxt = start + segment.length()
        if self.nxt > self.max:
            self.max = self.nxt
        if segment.payload_length < segment.segments * self.mss:
            self.small_end = self.nxt
        self.flight.add(self.nxt, self.mss, segment.segments, now, again)
        newest = self.flight.newest
        if again and newest is not None and self.use_timestamps:
            newest.stamp = self.timestamps.value(now)
        self.override_at = _NEVER
        self._left(segment, self.nxt - start, now)
        self._arm_tail(now)
        in_flight = self.recovery.in_flight()
        limited = in_flight > self.congestion.cwnd - self.mss
        # What the peer's window or the pace holds back is no reason to give cwnd up.
        is_all = self.recovery.state == _OPEN and self.nxt >= self.queue.end
        self.usage.sent(self.una, self.nxt, limited, self.rtt.rto() if is_all else _NEVER, now)
        return segment

    def _repeat(self, record: Record, end: int, now: int) -> Segment:
        """`record`, up to `end`, leaves again."""
        start = record.start
        segment = self._build(start, end, now)
        end = start + segment.length()
        stamp = self.timestamps.value(now) if self.use_timestamps else -1
        self.flight.repeat(record, end, self.mss, stamp, now)
        self.usage.last_sent = now
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

    # Probes: of the tail of a flight, of the path MTU, of a closed window.

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

    def _may_probe_tail(self) -> bool:
        """Whether a probe that is due would leave: nothing is to be repeated before, and the window is open."""
        return self.wnd > 0 and self.una < self.nxt and self.nxt >= self.max and self.flight.pending == 0

    def _next_tail_probe(self, now: int) -> Segment | None:
        """RFC 8985, 7.3: one segment of new data, or the last one again."""
        self.tail.deadline = _NEVER
        if not self._may_probe_tail():
            return None
        data = self.queue.end - self.nxt
        window = self.una + self.wnd - self.nxt
        if data > 0 and window > 0:
            start = self.nxt
            segment = self._send(start, start + min(data, window, self.mss), now)
            if self.pushes_probes:
                # What the receiver has merged has one acknowledgement. If that is lost, the next one is delayed until a
                # second segment comes, which cwnd holds back; but Linux does not delay it where the first was pushed.
                segment.flags |= _PSH
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
        if segment.payload_length == self.mss:
            # A record that ends before makes it an ordinary segment.
            hole.probe_end = self.nxt
        self.mss = mss
        return segment

    def _next_window_probe(self, now: int) -> Segment | None:
        """RFC 9293, 3.8.6.1: one byte, or the FIN, at the left edge of a closed window, when the timer says so.

        Without data it stands before the window, so that the peer has to answer.
        """
        # Acknowledgements that come meanwhile may start it again: a peer that has taken its window back, maybe.
        self.rack.stop()
        if not self.persist.is_on:
            self.override_at = _NEVER
            self.tail.stop()
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
