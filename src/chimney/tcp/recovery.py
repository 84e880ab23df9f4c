"""Loss recovery: in which state the sender is, what brings it there, and how it comes out again.

The states are those of Linux, and so are their numbers (TCP_INFO). OPEN: all is well. DISORDER: something is missing,
and may be late. CWR: the network told of congestion (RFC 3168). RECOVERY: losses are repaired (RFC 6675, RFC 6582).
LOSS: after a time-out (RFC 5681, 3.1), or when all has to be sent again for another reason. A state lasts until `high`
is acknowledged. In CWR and RECOVERY proportional rate reduction leads cwnd.

Without SACK a duplicate acknowledgement stands for a segment that has arrived, wherever it belongs.
"""

from chimney.tcp.congestion import CongestionControl
from chimney.tcp.flight import Flight
from chimney.tcp.frto import Frto
from chimney.tcp.prr import Prr
from chimney.tcp.rack import Rack
from chimney.tcp.statistics import Statistics
from chimney.tcp.timer import RetransmitTimer
from chimney.tcp.undo import Undo

OPEN = 0
DISORDER = 1
CWR = 2
RECOVERY = 3
LOSS = 4

_OPEN = 0
_DISORDER = 1
_CWR = 2
_RECOVERY = 3
_LOSS = 4
_MAX_REORDERING = 300


class Recovery:
    """state, high: see above. dup_acks: duplicate acknowledgements since the last that was none.

    reordering: so many segments after a missing one tell of its loss, where time does not. holds: nothing that is lost
    is sent again before the next acknowledgement. reduced: cwnd was, and the peer has not been told (CWR).
    """

    def __init__(
        self,
        sack: bool,
        threshold: int,
        mss: int,
        dup_acks: int,
        flight: Flight,
        rack: Rack,
        congestion: CongestionControl,
        timer: RetransmitTimer,
        statistics: Statistics,
    ) -> None:
        self.sack = sack
        self.mss = mss
        self.dup_acks = dup_acks
        self.flight = flight
        self.rack = rack
        self.congestion = congestion
        self.timer = timer
        self.statistics = statistics
        self.prr = Prr()
        self.undo = Undo()
        self.frto = Frto()
        self.state = _OPEN
        self.high = 0
        self.holds = False
        self.reduced = False
        self._recover = -1
        # The reduction that stands was the network's own word.
        self._told = False
        self.set_threshold(threshold)

    def adopt_duplicates(self) -> None:
        """What the owner before has counted stands for segments in flight, and lasts no longer than these."""
        if not self.sack:
            self.dup_acks = min(self.dup_acks, max(self.flight.packets - 1, 0))
            self._settle()

    def set_threshold(self, threshold: int) -> None:
        """So many duplicate acknowledgements tell of a loss, until reordering is seen."""
        self.threshold = threshold
        self.reordering = threshold

    def in_flight(self) -> int:
        """The estimate of the bytes in the network."""
        count = self.flight.in_flight()
        if not self.sack and self.dup_acks > 0:
            count = max(count - self.dup_acks * self.mss, 0)
        return count

    def is_reducing(self) -> bool:
        """Whether proportional rate reduction leads cwnd."""
        return self.state == _CWR or self.state == _RECOVERY

    def may_repeat(self) -> bool:
        """Whether what is lost may be sent again now."""
        return self.flight.pending > 0 and not self.holds and not self.frto.waits()

    # What an acknowledgement changes.

    def on_ack(self, duplicates: int, echo: int, now: int) -> None:
        """Takes in what the flight was told, and `duplicates` duplicate acknowledgements without SACK.

        echo: the timestamp echo, -1 if there is none.
        """
        self.holds = False
        told = self.flight.told
        if not self.sack:
            self._count_duplicates(duplicates)
        self._note_reordering()
        self._end_state(echo, now)
        if self.state == _RECOVERY:
            if told.acked > 0 and self._is_late_partially(echo, now):
                return
            self._undo_by_duplicates(now)
            self._find_losses(now)
            if self.state != _RECOVERY:
                self._judge(now)
        elif self.state == _LOSS:
            self._on_ack_after_timeout(duplicates, echo, now)
            self._find_losses(now)
            if self.state == _OPEN or told.lost_again:
                self._judge(now)
        else:
            if self.state <= _DISORDER:
                self._undo_by_duplicates(now)
            self._find_losses(now)
            self._judge(now)

    def lead_cwnd(self) -> None:
        """Proportional rate reduction, after `on_ack`."""
        told = self.flight.told
        if told.delivered > 0:
            safe = told.acked > 0 and told.lost == 0
            congestion = self.congestion
            congestion.cwnd = self.prr.cwnd(told.delivered, safe, self.in_flight(), congestion.ssthresh, self.mss)

    def _end_state(self, echo: int, now: int) -> None:
        """The state may end when `high` is acknowledged; CWR when something beyond it is, which has told the peer."""
        una = self.flight.una
        if self.state == _CWR:
            if una > self.high:
                self.congestion.end_recovery()
                self.state = _OPEN
        elif self.state == _RECOVERY and una >= self.high:
            self.dup_acks = 0
            if self._is_proved(echo):
                self._undo(now)
            else:
                self.congestion.end_recovery()
            self.rack.on_recovery_end()
            self.state = _OPEN

    def _find_losses(self, now: int) -> None:
        """RFC 8985 with SACK, RFC 6582 without."""
        flight = self.flight
        if self.sack:
            if self.rack.take_advance():
                window = self.rack.window(self.state >= _RECOVERY, flight.sacked_packets >= self.reordering)
                self.rack.detect(flight, window, now)
        elif self.state == _RECOVERY:
            if flight.told.acked > 0:
                flight.lose_head(self.mss)
        elif self.state < _RECOVERY and self.dup_acks >= self.reordering and flight.una > self._recover:
            flight.lose_head(self.mss)

    def _judge(self, now: int) -> None:
        """Whether recovery begins, or what state there is without."""
        if self.flight.lost > 0:
            if not self._excuses_mtu_probe():
                self._enter(now)
        elif self.state != _CWR:
            self._settle()

    def _settle(self) -> None:
        """OPEN or DISORDER."""
        flight = self.flight
        if flight.repeated == 0:
            self.undo.clear_stamp()
        state = _OPEN
        if flight.sacked > 0 or flight.repeated > 0 or (self.dup_acks > 0 and not self.sack):
            state = _DISORDER
        if state != self.state:
            self.state = state
            self.high = flight.end

    def _enter(self, now: int) -> None:
        """RFC 6675, 5, step 4; RFC 6582, 3.2, step 2."""
        self.statistics.fast_retransmits += 1
        if self.state != _CWR:
            self._reduce(now)
        if self.flight.repeated == 0:
            self.undo.clear_stamp()
        self.undo.expect(self.flight.una)
        self.frto.stop()
        self.state = _RECOVERY
        self.high = self._recover = self.flight.end

    def _reduce(self, now: int) -> None:
        self._told = False
        self.reduced = True
        self.prr.begin(self.congestion.cwnd)
        self.congestion.on_congestion(self.flight.told.outstanding, now)

    # Other events.

    def on_reordering_timer(self, now: int) -> None:
        """RFC 8985, 6.2, step 5: what might have been late is lost."""
        flight = self.flight
        flight.begin(self.high)
        window = self.rack.window(self.state >= _RECOVERY, flight.sacked_packets >= self.reordering)
        self.rack.detect(flight, window, now)
        if flight.told.lost > 0 and self.state != _RECOVERY and not self._excuses_mtu_probe():
            self._enter(now)
            congestion = self.congestion
            congestion.cwnd = self.prr.cwnd(self.mss, False, self.in_flight(), congestion.ssthresh, self.mss)

    def on_timeout(self, now: int) -> None:
        """RFC 6298, 5.4 to 5.6, RFC 5681, 3.1: all that was not sent just now is lost; RFC 5682, 2.1, step 1."""
        flight = self.flight
        first = self.state <= _DISORDER or flight.una >= self.high or (self.state == _LOSS and self.timer.count == 1)
        outstanding = flight.end - flight.una
        is_new = self.state < _RECOVERY
        if self.state <= _DISORDER and flight.sacked_packets >= self.threshold:
            self.reordering = min(self.reordering, self.threshold)
        if is_new and flight.repeated == 0:
            self.undo.clear_stamp()
        self.dup_acks = 0
        flight.begin(self.high)
        # Once, a round trip may have been longer than any timer waits.
        flight.lose_all(now - min(self.rack.rtt, self.rack.estimator.max_rto))
        self.congestion.on_timeout(outstanding, now, first)
        self.congestion.cwnd = max(self.congestion.cwnd, flight.in_flight() + self.mss)
        if first:
            self._told = False
            self.reduced = True
            self.undo.expect(flight.una)
        self.state = _LOSS
        self.high = self._recover = flight.end
        self.holds = False
        if is_new or self.timer.count > 1:
            self.frto.begin()
        else:
            self.frto.stop()

    def on_everything_lost(self, now: int) -> None:
        """What is outstanding has to be sent again, for another reason than congestion: no window shrinks."""
        self.flight.lose_all(now)
        self._resend_without_congestion()

    def on_smaller_mss(self) -> None:
        """RFC 1191, 6.5: what was too large has not arrived."""
        self.flight.lose_longer(self.mss)
        if self.flight.pending > 0:
            self._resend_without_congestion()

    def _excuses_mtu_probe(self) -> bool:
        """RFC 4821, 7.6.2: a larger segment alone is lost, which tells of its size; smaller ones repeat it."""
        record = self.flight.next_lost()
        if record is None or record.mss <= self.mss or self.flight.lost > record.end - record.start:
            return False
        self._resend_without_congestion()
        return True

    def _resend_without_congestion(self) -> None:
        self.dup_acks = 0
        self.holds = False
        self.frto.stop()
        if self.state != _LOSS:
            if self.is_reducing():
                self.congestion.end_recovery()
            self.undo.forget()
            self.state = _LOSS
            self.high = self._recover = self.flight.end

    def on_congestion_echo(self, now: int) -> None:
        """RFC 3168, 6.1.2: once per window of data."""
        self.undo.forget()
        if self.state < _CWR:
            self._reduce(now)
            self._told = True
            self.state = _CWR
            self.high = self.flight.end

    def on_tail_loss(self, now: int) -> None:
        """RFC 8985, 7.4.2: a probe has repaired a loss, which counts as one."""
        if self.state < _CWR:
            self._reduce(now)
            self.congestion.end_recovery()

    # After a time-out.

    def _on_ack_after_timeout(self, duplicates: int, echo: int, now: int) -> None:
        """RFC 5682, 3.1; without an answer the conventional recovery goes on."""
        flight = self.flight
        told = flight.told
        frto = self.frto
        if told.acked > 0 and self._is_proved(echo):
            self._undo_timeout(now)
            return
        if frto.is_on():
            if told.original:
                self._undo_timeout(now)
                return
            if flight.end > self.high:
                if told.sacked > 0 or duplicates > 0 or (told.acked > 0 and frto.waits()):
                    frto.stop()
            elif told.acked > 0 and flight.una < self.high:
                self.high = flight.end
                frto.advance()
        if flight.una >= self.high:
            if self._is_proved(echo):
                self._undo(now)
            frto.stop()
            self.state = _OPEN

    def _undo_timeout(self, now: int) -> None:
        self.flight.find_again()
        self._undo(now)
        self.frto.stop()
        self.timer.progress()
        self.state = _OPEN

    # Taking back.

    def _is_proved(self, echo: int) -> bool:
        return self.undo.is_proved_by_duplicates() or self.undo.is_proved_by_echo(echo)

    def _undo(self, now: int) -> None:
        """Nothing had been lost; what the network has said (RFC 3168) is true all the same."""
        self.statistics.spurious_recoveries += 1
        congestion = self.congestion
        self.reduced = False
        if self._told:
            congestion.cwnd = max(congestion.cwnd, congestion.ssthresh)
        else:
            congestion.undo(now)
        self.undo.forget()
        self.rack.look_again()

    def _undo_by_duplicates(self, now: int) -> None:
        """All that was sent again was a duplicate (RFC 3708)."""
        if self.undo.is_proved_by_duplicates():
            if self.state == _RECOVERY:
                self.flight.find_again()
                self.state = _OPEN
            self._undo(now)

    def _is_late_partially(self, echo: int, now: int) -> bool:
        """The original of what was sent again has arrived, and not all that was sent before (RFC 3522).

        Then that was reordering. While something sent again is outstanding, nothing more is taken as lost: True.
        """
        if not self.undo.is_proved_by_echo(echo):
            return False
        self.rack.reorderings += 1
        if self.flight.repeated > 0:
            self.holds = True
            return True
        self.undo.clear_stamp()
        self.flight.find_again()
        self._undo(now)
        self._settle()
        return False

    # Reordering, and duplicates without SACK.

    def _note_reordering(self) -> None:
        """A hole was filled by what was sent once only: it was late by so many segments."""
        told = self.flight.told
        if told.lowest < 0 or told.lowest >= told.before or (self.state == _LOSS and not self.undo.is_possible()):
            return
        late = told.before - told.lowest
        if late > self.reordering * self.mss:
            self.reordering = min(-(-late // self.mss), _MAX_REORDERING)
        self.rack.reorderings += 1

    def _count_duplicates(self, duplicates: int) -> None:
        """Counts what has arrived out of order; an acknowledgement of a hole uses up what had been counted."""
        flight = self.flight
        told = flight.told
        if told.acked > 0:
            if told.repeated:
                # What was sent again may be all that has arrived now: the rest may have been there before.
                told.original = False
            segments = told.packets
            told.delivered = max(told.delivered - self.dup_acks * self.mss, min(self.mss, told.delivered))
            if self.state == _RECOVERY:
                self.dup_acks = min(max(self.dup_acks - max(segments - 1, 0), 0), max(flight.packets - 1, 0))
            else:
                self.dup_acks = 0
        elif duplicates > 0:
            self.dup_acks += duplicates
            told.delivered += duplicates * self.mss
            told.packets += duplicates
            limit = max(flight.packets - 1, 0)
            if self.dup_acks > limit:
                self.dup_acks = limit
                self.rack.reorderings += 1
