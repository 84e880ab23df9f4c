"""Pacing: a window is spread over its round trip instead of leaving in one burst. Bytes, and times in microseconds.

The rate is twice cwnd per round trip in slow start, so that doubling is not held up, and 1.2 times cwnd per round
trip afterwards. What leaves together is what the rate gives in a millisecond, so that trains stay long. A path whose
round trip was ever shorter than two of these is not paced at all: a process cannot be woken so often and so exactly.

A process wakes up late, often by more than a short round trip. What was held and leaves late goes on as if it had left
in time, or else the rate would never be reached, cwnd never be full, and both shrink. What something else held back,
cwnd or an application that pauses, makes up for nothing.
"""

_NEVER = 2**62
_QUANTUM = 1_000
_SHORT = 2_000
_LEAST_SEGMENTS = 2
_UNPACED_SEGMENTS = 10
_SLOW_START_PERCENT = 200
_AVOIDANCE_PERCENT = 120
_MAX_RATE = 2**40


class Pacer:
    """deadline: when what is held may leave; never if nothing is.

    rate: bytes a second, 0 while no round trip is known or where pacing is off: nothing is held then.
    """

    def __init__(self, enabled: bool, mss: int) -> None:
        self.enabled = enabled
        self.mss = mss
        self.rate = 0
        self.deadline = _NEVER
        self._free_at = 0
        self._srtt = 0
        self._woken_at = -1
        self._unpaced = _UNPACED_SEGMENTS * mss

    def update(self, cwnd: int, srtt: int, in_slow_start: bool) -> None:
        """cwnd or the round trip has changed.

        A small window is no burst to speak of, and mostly the end of a series of losses: then srtt has pauses in it,
        and a rate made from it would hold back what acknowledgements ask for.
        """
        if 0 < srtt < _SHORT:
            self.enabled = False
        if not self.enabled or cwnd < _UNPACED_SEGMENTS * self.mss:
            self.rate = 0
        elif srtt > 0:
            self._srtt = srtt
            percent = _SLOW_START_PERCENT if in_slow_start else _AVOIDANCE_PERCENT
            self.rate = min(min(cwnd, _MAX_RATE) * percent * 10_000 // srtt, _MAX_RATE) + 1

    def is_held(self, now: int) -> bool:
        """Whether nothing may leave now; then `deadline` is when."""
        if self.rate == 0 or self._free_at <= now:
            if self.deadline != _NEVER:
                self._woken_at = now
                self.deadline = _NEVER
            return False
        if self.deadline == _NEVER and self._free_at - now <= _QUANTUM:
            return False
        self.deadline = self._free_at
        return True

    def allowance(self, now: int) -> int:
        """How many bytes may leave in one train: a millisecond's worth, but two segments at least."""
        if self.rate == 0 or self._unpaced > 0:
            return _NEVER
        return max(self.rate * _QUANTUM // 1_000_000, _LEAST_SEGMENTS * self.mss)

    def sent(self, count: int, now: int) -> None:
        """`count` bytes leave, and take their time.

        What was held makes up for all of its delay, up to a round trip; what nobody held back, up to half of its time.
        """
        if self._unpaced > 0:
            self._unpaced -= count
            return
        if self.rate == 0:
            return
        cost = count * 1_000_000 // self.rate
        if self._free_at < now:
            if self._woken_at == now:
                self._free_at = max(self._free_at, now - self._srtt)
            else:
                cost -= min(cost // 2, now - self._free_at)
                self._free_at = now
        self._free_at += cost
