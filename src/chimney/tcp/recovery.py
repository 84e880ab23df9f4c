"""Loss recovery: what is in the network, what is lost, what to send again.

With SACK after RFC 6675, without it after RFC 5681 and RFC 6582 (NewReno). In both cases cwnd is compared with an
estimate of what is in the network, so nothing inflates cwnd: a duplicate acknowledgement without SACK takes one
segment off the estimate instead. Limited transmit (RFC 3042) follows from that.
"""

from chimney.tcp.scoreboard import Scoreboard

OPEN = 0
FAST = 1
LOSS = 2

_OPEN = 0
_FAST = 1
_LOSS = 2
_MAX_THRESHOLD = 64


class Recovery:
    """Positions are those of the send side: una is the first unacknowledged, nxt the next to send.

    phase: OPEN; FAST: fast recovery until `point` is acknowledged; LOSS: after a time-out, likewise.
    In FAST, [hole, hole_end) is what `find_lost` or `find_doubtful` found, high_rxt ends what was sent again, and
    pipe is the estimate of the bytes in the network (RFC 6675, 2 and 4).
    """

    def __init__(self, sack: bool, threshold: int, mss: int, max_ranges: int, dup_acks: int) -> None:
        self.sack = sack
        self.set_threshold(threshold)
        self.mss = mss
        self.scoreboard = Scoreboard(max_ranges)
        self.phase = _OPEN
        self.dup_acks = dup_acks
        self.point = 0
        self.high_rxt = 0
        self.pipe = 0
        self.hole = 0
        self.hole_end = 0
        self.forced = False
        self._lost = 0
        self._head_mark = -1

    def set_threshold(self, threshold: int) -> None:
        """So many duplicate acknowledgements tell of a loss."""
        self.threshold = threshold
        self._configured_threshold = threshold

    def in_flight(self, una: int, nxt: int) -> int:
        """The estimate of the bytes in the network."""
        if self.phase == _FAST:
            return self.pipe
        if self.scoreboard.total == 0 and self.dup_acks == 0:
            return nxt - una
        return nxt - una - self._delivered(una, nxt)

    def on_duplicate(self, una: int) -> bool:
        """A duplicate acknowledgement of `una`: whether fast recovery has to begin (RFC 5681, 3.2; RFC 6675, 5)."""
        if self.phase != _OPEN:
            if not self.sack and self.phase == _FAST:
                self.dup_acks += 1
            return False
        self.dup_acks += 1
        return self.dup_acks >= self.threshold or self.is_lost(una)

    def is_lost(self, una: int) -> bool:
        """Whether the scoreboard says that the byte at `una` is lost."""
        return self.scoreboard.total > 0 and self.scoreboard.lost_below(self.threshold, self.mss) > una

    def enter(self, una: int, nxt: int, limit: int) -> None:
        """Fast recovery begins; `limit` is the end of all that was ever sent. The first segment goes at any rate."""
        self.phase = _FAST
        self.point = limit
        self.high_rxt = una
        self.forced = True
        self._head_mark = -1
        self._lost = self.scoreboard.hole_end(una, min(una + self.mss, limit))
        self.measure(una, nxt)

    def lose_below(self, position: int) -> None:
        """In FAST: every byte before `position` that is not covered is known to be lost."""
        if position > self._lost:
            self._lost = position

    def measure(self, una: int, nxt: int) -> None:
        """Counts the pipe anew, in FAST, after an acknowledgement (RFC 6675, 4, SetPipe)."""
        if not self.sack:
            head = self.mss if self.high_rxt <= una else 0
            self.pipe = max(nxt - una - self._delivered(una, nxt) - head, 0)
            return
        board = self.scoreboard
        self._lost = max(self._lost, board.lost_below(self.threshold, self.mss))
        if self.high_rxt < una:
            self.high_rxt = una
        if self._head_is_lost_again():
            self._head_mark = -1
            self.high_rxt = una
            self.forced = True
        self.pipe = nxt - una - board.below(nxt)
        if self._lost > una:
            self.pipe -= self._lost - una - board.below(self._lost)
        if self.high_rxt > una:
            self.pipe += self.high_rxt - una - board.below(self.high_rxt)
        if self.pipe < 0:
            self.pipe = 0

    def find_lost(self, una: int) -> bool:
        """Whether lost bytes wait to be sent again, and where (RFC 6675, 4, NextSeg rule 1; RFC 6582, 3.2)."""
        if not self.sack:
            self.hole = una
            self.hole_end = min(una + self.mss, self.point)
            return self.high_rxt <= una < self.hole_end
        self.hole = self.scoreboard.hole_start(max(self.high_rxt, una))
        if self.hole >= self._lost:
            return False
        self.hole_end = self.scoreboard.hole_end(self.hole, self._lost)
        return True

    def find_doubtful(self, una: int) -> bool:
        """Whether there is a hole below what is covered that is not known to be lost (NextSeg rule 3)."""
        if not self.sack:
            return False
        self.hole = self.scoreboard.hole_start(max(self.high_rxt, una))
        if self.hole >= self.scoreboard.highest():
            return False
        self.hole_end = self.scoreboard.hole_end(self.hole, self.hole + self.mss)
        return True

    def retransmitted(self, una: int, start: int, end: int, nxt: int) -> None:
        """[start, end) was sent again, when everything before `nxt` had been sent."""
        self.forced = False
        self.pipe += end - start
        if end > self.high_rxt:
            self.high_rxt = end
        if start == una:
            self._head_mark = nxt

    def on_advance(self, una: int, nxt: int, acked: int) -> None:
        """`acked` bytes were acknowledged cumulatively, up to `una`: ends a phase, or goes on in it."""
        self.scoreboard.advance(una)
        if self.phase == _OPEN or una >= self.point:
            self.phase = _OPEN
            self.dup_acks = 0
        elif self.phase == _FAST:
            # If the hole that is the first one now was repaired before, what is sent from now on will tell of it.
            self._head_mark = nxt if self.high_rxt > una else -1
            if not self.sack:
                # RFC 6582, 3.2, step 5: the next segment goes at once; deflate by what was acknowledged, add one back.
                self.forced = True
                self.dup_acks = max(self.dup_acks + 1 - acked // self.mss, 0)

    def on_timeout(self, una: int, limit: int, count: int) -> None:
        """The timer expired for the `count`th time in a row: all that is not covered is to be sent again.

        The scoreboard is kept, unless the peer seems to have dropped what it had covered (RFC 2018, 8).
        """
        self.phase = _LOSS
        self.point = limit
        self.dup_acks = 0
        self.threshold = self._configured_threshold
        if count >= 3 or self.scoreboard.first() == una:
            self.scoreboard.clear()

    def reset(self) -> None:
        """Nothing is lost, as far as is known."""
        self.phase = _OPEN
        self.dup_acks = 0
        self.forced = False

    def on_reordering(self) -> None:
        """What seemed lost was late: more has to be seen before the next recovery (RFC 4653's idea, doubled)."""
        self.threshold = min(self.threshold * 2, max(_MAX_THRESHOLD, self.threshold))

    def _head_is_lost_again(self) -> bool:
        """Whether data sent after the first hole was repaired has been covered, and the hole is still there."""
        beyond = self.scoreboard.highest() - self._head_mark
        return self._head_mark >= 0 and beyond > (self.threshold - 1) * self.mss

    def _delivered(self, una: int, nxt: int) -> int:
        """Bytes between una and nxt that have left the network, as far as is known."""
        if self.sack:
            return self.scoreboard.below(nxt)
        return max(min(self.dup_acks * self.mss, nxt - una - self.mss), 0)
