"""RACK (RFC 8985, 6): what was sent long enough before something that has arrived is lost.

Long enough is a round trip and a reordering window, which adapts to what the path does. Times in microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.tcp.rtt import RttEstimator
from chimney.tcp.seq import lt

if TYPE_CHECKING:
    from chimney.tcp.flight import Flight, Record

_NEVER = 2**62
_SLACK_US = 2_000
_MOST_STEPS = 255
_PERSISTENCE = 16
_LOOKS = 16


class Rack:
    """sent, end, rtt: of the transmission that was made last among those that have arrived (6.2, step 2; the RFC's
    RACK.xmit_ts, RACK.end_seq, RACK.rtt).

    echo: the echo of the acknowledgement at hand, -1 if it has none. steps: the reordering window in quarters of the
    smallest round trip (RACK.reo_wnd_mult). deadline: when what may be late still is lost (6.2, step 5).
    reorderings: how often something was late.
    """

    def __init__(self, estimator: RttEstimator) -> None:
        self.estimator = estimator
        self.sent = -1
        self.end = 0
        self.rtt = 0
        self.echo = -1
        self.reorderings = 0
        self.steps = 1
        self.deadline = _NEVER
        self._advanced = False
        self._persist = 0
        self._round_end = -1

    def delivered(self, record: Record, end: int, in_order: bool, now: int) -> None:
        """`record` has arrived, at least up to `end` (6.2, steps 1 and 2).

        What was sent again tells nothing if it is the original that has arrived. The echo tells that for what is
        acknowledged cumulatively (in_order); data out of order does not renew it.
        """
        rtt = now - record.sent
        if record.was_repeated and (rtt < self.estimator.min_rtt() or (in_order and self._is_older(record))):
            if self.echo < 0 or record.stamp >= 0:
                return
            # We have never sent it: the owner before has, at about the same time as what is handed over with it.
            rtt = max(rtt, self.estimator.srtt)
        self._advanced = True
        self.rtt = rtt
        if record.sent > self.sent or (record.sent == self.sent and end > self.end):
            self.sent = record.sent
            self.end = end

    def window(self, in_recovery: bool, many: bool) -> int:
        """6.2, step 4: how late a segment may be. many: as many segments are covered as classic TCP waits for."""
        if self.reorderings == 0 and (in_recovery or many):
            return 0
        return min(self.estimator.min_rtt() // 4 * self.steps, self.estimator.srtt)

    def detect(self, flight: Flight, window: int, now: int) -> None:
        """6.2, step 5: marks what is lost, and sets the deadline for what may be."""
        self.deadline = _NEVER
        wait = 0
        looks = 0
        record = flight.oldest
        while record is not None and self._is_before(record):
            newer = record.newer
            left = record.sent + self.rtt + window - now
            if left <= 0:
                flight.mark_lost(record)
            else:
                wait = max(wait, left)
                looks += 1
                if looks >= _LOOKS:
                    # The others were sent before self.sent too.
                    wait = max(wait, self.sent + self.rtt + window - now)
                    break
            record = newer
        if wait > 0:
            self.deadline = now + wait + _SLACK_US

    def take_advance(self) -> bool:
        """Whether anything has arrived since the last call."""
        advanced = self._advanced
        self._advanced = False
        return advanced

    def look_again(self) -> None:
        """Everything is to be judged anew."""
        self._advanced = True

    def stop(self) -> None:
        """Nothing is outstanding."""
        self.deadline = _NEVER

    def on_duplicate(self, una: int, nxt: int) -> None:
        """6.2, step 4: the peer reports a duplicate, so the window was too small; it grows once per round trip."""
        self._end_round(una)
        if self._round_end < 0:
            self._round_end = nxt
            self.steps = min(self.steps + 1, _MOST_STEPS)
            self._persist = _PERSISTENCE

    def on_recovery_end(self) -> None:
        """6.2, step 4: after 16 recoveries without a duplicate the window is small again."""
        if self._persist > 0:
            self._persist -= 1
            if self._persist == 0:
                self.steps = 1

    def _end_round(self, una: int) -> None:
        if una >= self._round_end:
            self._round_end = -1

    def _is_older(self, record: Record) -> bool:
        """Whether the acknowledgement echoes something sent before `record` was sent again."""
        return self.echo >= 0 and record.stamp >= 0 and lt(self.echo, record.stamp)

    def _is_before(self, record: Record) -> bool:
        """RACK_sent_after of the RFC, turned round."""
        return record.sent < self.sent or (record.sent == self.sent and record.end < self.end)
