"""The sending half: what an acknowledgement changes, and what happens when a timer expires (RFC 9293, 3.8; RFC 5681).

Read `on_ack`, `next_segment` (in sending), `on_timer` and `deadline` (in sender_parts).
"""

from chimney.tcp.sack import read_blocks
from chimney.tcp.segment import Segment
from chimney.tcp.sending import Sending
from chimney.tcp.seq import add, lt

_NEVER = 2**62
_FIN = 1
_OPEN = 0
_LEAST_RENEGING_US = 10_000


class Sender(Sending):
    """Takes in acknowledgements, and time-outs."""

    def on_ack(self, segment: Segment, ack: int, is_newer: bool, congested: bool, now: int) -> None:
        """Takes in an acceptable acknowledgement of position `ack`, at most max; below una only its SACK blocks count.

        is_newer: whether the segment is the latest one from the peer, so that its window counts. congested: whether it
        tells of congestion (RFC 3168, 6.1.2), for which cwnd is to be reduced, and does not grow before.
        """
        recovery = self.recovery
        flight = self.flight
        told = flight.told
        flight.begin(recovery.high)
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
        if congested:
            recovery.on_congestion_echo(now)
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
        if self.statistics.duplicates_reported > self.statistics.retransmitted_segments:
            # The network has duplicated it: that tells nothing of reordering.
            return
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
        elif told.acked > 0 and self.rack.echo >= 0:
            rtt = self.timestamps.round_trip(segment.ts_ecr, now)
            if rtt >= 0:
                rtt = least = max(rtt, 500_000 // self.timestamps.ticks_per_second)
                # An old echo makes it too long; what is too long and still shorter than what was believed is better.
                if rtt >= self.rtt.srtt and not self._echo_is_fresh(segment):
                    rtt = least = -1
        if rtt >= 0:
            # The time-outs of a longer one would have come first, but for a machine that slept.
            longest = 2 * self._time_out()
            least = min(least, longest)
            self.rtt.sample(min(rtt, longest))
            self.rtt.note_least(least, now)
        if (rtt >= 0 or self._repetition_is_answered()) and not self.persist.is_on:
            self.timer.backoff = 0
        return least

    def _repetition_is_answered(self) -> bool:
        """Whether the echo is as new as what was sent again (RFC 7323, 4.1): the time-out was long enough for the path,
        even if the sample is not to be trusted.
        """
        told = self.flight.told
        return told.acked > 0 and told.stamp >= 0 and self.rack.echo >= 0 and not lt(self.rack.echo, told.stamp)

    def _echo_is_fresh(self, segment: Segment) -> bool:
        """Out-of-order data and duplicates do not renew the echo, and the acknowledgement of what did can be lost.

        SACK blocks tell of both; without SACK nothing does, and after a time-out the echo is not to be trusted.
        """
        return not segment.sack_blocks if self.recovery.sack else self.timer.backoff == 0

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

    def _adapt_cwnd(self, rtt: int, now: int) -> None:
        told = self.flight.told
        recovery = self.recovery
        congestion = self.congestion
        if recovery.is_reducing():
            recovery.lead_cwnd()
        elif told.acked > 0 or (told.delivered > 0 and recovery.reordering > recovery.threshold) or rtt >= 0:
            congestion.reorders = recovery.reordering > recovery.threshold
            delivered = told.delivered if told.acked > 0 or congestion.reorders else 0
            limited = self.usage.is_limited()
            if told.acked > 0:
                self.usage.acknowledged(now)
            congestion.on_ack(delivered, limited, rtt, self.rtt.srtt, self.una, self.nxt, now)
        self._set_pace()

    def _restart_timers(self, ack: int, now: int) -> None:
        """RFC 6298, 5.2 and 5.3."""
        told = self.flight.told
        if self.persist.is_on:
            self.rack.stop()
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
                self.timer.start(now, min(max(self.rtt.srtt // 2, _LEAST_RENEGING_US), self._time_out()))
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

    # Timers, and what the network tells.

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
        if self.tail.deadline <= self.timer.deadline and self._may_probe_tail():
            # RFC 8985, 7.2: the probe that goes now comes first.
            self.timer.start(now, self._time_out())
            return True
        head = self.flight.head()
        wait = max(self.rack.deadline - now, 0)
        if wait <= self._time_out() and head is not None and not head.is_sacked:
            # RFC 8985, 8: what may be late is found lost by its own timer; this one comes after that. But once, a round
            # trip may have been longer than any timer waits.
            self.timer.start(now, wait + self._time_out())
            return True
        if not self.timer.expire(now):
            return False
        self.statistics.timeouts += 1
        length = head.end - head.start if head is not None else 0
        if self.black_hole.on_timeout(length, self.mss, self.timer.count):
            self._adopt_mss()
        self.recovery.on_timeout(now)
        self.tail.stop()
        self._urgent = True
        self.timer.start(now, self._time_out())
        return True
