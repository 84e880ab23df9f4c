"""Leaving slow start before it overshoots: HyStart++ (RFC 9406), and the HyStart that Linux has.

Both compare the round-trip times of a round with what was known before: when a queue builds up, cwnd is large enough.
Positions are those of the send side, times in microseconds.
"""

_MIN_RTT_THRESH = 4_000
_MAX_RTT_THRESH = 16_000
_MIN_RTT_DIVISOR = 8
_N_RTT_SAMPLE = 8
_CSS_GROWTH_DIVISOR = 4
_CSS_ROUNDS = 5
_INFINITY = 2**62
_LOW_WINDOW = 16
_ACK_DELTA = 2_000


def tolerance(rtt: int) -> int:
    """An eighth of a round-trip time, but 4 ms at least and 16 ms at most (RFC 9406, 4.2 and 4.3)."""
    return max(_MIN_RTT_THRESH, min(rtt // _MIN_RTT_DIVISOR, _MAX_RTT_THRESH))


class SlowStartExit:
    """Never says that slow start should end; the base of those that do.

    divisor: by what the growth of slow start is divided now. initial_only: whether only a slow start whose end is
    unknown is watched, that is, the first one.
    """

    def __init__(self) -> None:
        self.divisor = 1
        self.initial_only = True

    def on_ack(self, rtt: int, min_rtt: int, cwnd: int, mss: int, una: int, nxt: int, now: int) -> bool:
        """An acknowledgement in slow start: whether slow start is to end with this cwnd.

        rtt: its sample, -1 if there is none; min_rtt: the smallest one known, 0 if none is.
        """
        return False

    def reset(self) -> None:
        """A time-out: what was observed is void."""
        self.divisor = 1


class HystartPlusPlus(SlowStartExit):
    """RFC 9406. Slow start and Conservative Slow Start (CSS) by turns, until CSS has lasted for five rounds, or the
    path is full.

    L, the limit of growth for each acknowledgement, is infinite: acknowledgements of merged frames cover up to 64 KB.
    """

    def __init__(self) -> None:
        SlowStartExit.__init__(self)
        self._window_end = -1
        self._round_start = 0
        self._last_round_min = _INFINITY
        self._round_min = _INFINITY
        self._recent_min = _INFINITY
        self._samples = 0
        self._css_baseline = _INFINITY
        self._css_rounds = 0
        self._full = _INFINITY
        self._looked_full = _INFINITY

    def on_ack(self, rtt: int, min_rtt: int, cwnd: int, mss: int, una: int, nxt: int, now: int) -> bool:
        """RFC 9406, 4.2, and `_looks_full`."""
        if una > self._window_end and self._round_ends(nxt, now):
            return True
        if rtt < 0:
            return False
        self._round_min = min(self._round_min, rtt)
        self._recent_min = min(self._recent_min, rtt)
        self._samples += 1
        if self._samples == _N_RTT_SAMPLE and self._round_min >= self._looked_full:
            return True
        if self._samples >= _N_RTT_SAMPLE and self._full == _INFINITY:
            if self.divisor > 1:
                self._resume_if_spurious()
            elif self._delay_grows():
                self._begin_css(self._round_min)
        if self._samples % _N_RTT_SAMPLE == 0:
            if self._full == _INFINITY and self._looks_full(min_rtt, now):
                self._full = self._recent_min
                self._begin_css(self._recent_min)
            self._recent_min = _INFINITY
        return False

    def reset(self) -> None:
        """A time-out: what was observed is void."""
        SlowStartExit.reset(self)
        self._window_end = -1
        self._last_round_min = self._round_min = self._recent_min = self._css_baseline = _INFINITY
        self._full = self._looked_full = _INFINITY
        self._samples = 0

    def _round_ends(self, nxt: int, now: int) -> bool:
        """More than a round is acknowledged, and the next one begins; whether it was the last one of CSS."""
        self._window_end = nxt
        self._round_start = now
        self._last_round_min = self._round_min
        self._round_min = self._recent_min = _INFINITY
        self._samples = 0
        self._looked_full = self._full
        self._full = _INFINITY
        if self.divisor == 1:
            return False
        self._css_rounds += 1
        return self._css_rounds >= _CSS_ROUNDS

    def _begin_css(self, baseline: int) -> None:
        self._css_baseline = baseline
        self._css_rounds = 0
        self.divisor = _CSS_GROWTH_DIVISOR

    def _delay_grows(self) -> bool:
        return self._last_round_min < _INFINITY and self._round_min >= self._last_round_min + tolerance(
            self._last_round_min
        )

    def _looks_full(self, min_rtt: int, now: int) -> bool:
        """Whether a round has been acknowledged for longer than the smallest round trip, and the delay has grown within
        it: then its window is more than the path holds, and the rest of it stands in a queue. It may be jitter, too;
        but a queue is still there when the next round begins, and then slow start ends.

        The RFC alone finds the queue in that round, which has doubled the window by then, and leaves slow start after
        five more: queues of less than several times what the path holds would overflow.
        """
        return now - self._round_start > min_rtt and self._recent_min >= self._round_min + tolerance(min_rtt)

    def _resume_if_spurious(self) -> None:
        """The delay fell below that at which CSS began: it had been jitter."""
        if self._round_min < self._css_baseline:
            self._css_baseline = _INFINITY
            self.divisor = 1


class Hystart(SlowStartExit):
    """The HyStart of Linux: slow start ends at once, on the first sign of a queue, and in every slow start.

    The sign is either that the smallest of more than eight samples of a round exceeds the smallest known by an
    eighth of it (4 to 16 ms), or that acknowledgements keep coming closely for half of the smallest round trip.
    """

    def __init__(self) -> None:
        SlowStartExit.__init__(self)
        self.initial_only = False
        self._found = False
        self._window_end = -1
        self._round_start = 0
        self._last_ack = 0
        self._round_min = _INFINITY
        self._samples = 0

    def on_ack(self, rtt: int, min_rtt: int, cwnd: int, mss: int, una: int, nxt: int, now: int) -> bool:
        """Looks for both signs, where there is a sample, and cwnd is 16 segments at least."""
        if self._found or rtt < 0 or cwnd < _LOW_WINDOW * mss:
            return False
        if una > self._window_end:
            self._window_end = nxt
            self._round_start = self._last_ack = now
            self._round_min = _INFINITY
            self._samples = 0
        self._found = self._train_is_long(min_rtt, now)
        self._round_min = min(self._round_min, rtt)
        if self._samples < _N_RTT_SAMPLE:
            self._samples += 1
        elif self._round_min > min_rtt + tolerance(min_rtt):
            self._found = True
        return self._found

    def reset(self) -> None:
        """A time-out: what was observed is void."""
        SlowStartExit.reset(self)
        self._found = False
        self._window_end = -1

    def _train_is_long(self, min_rtt: int, now: int) -> bool:
        if now - self._last_ack > _ACK_DELTA:
            return False
        self._last_ack = now
        return now - self._round_start > min_rtt // 2
