"""Tail loss probe (RFC 8985, 7): a loss at the end of a flight shows by one more segment, not by a time-out.

Times in microseconds.
"""

_NEVER = 2**62
_DELAYED_ACK_US = 200_000
_SLACK_US = 2_000


class TailProbe:
    """When to probe, and the probe that is outstanding, from `start` to `end`, -1 if there is none.

    repeated: whether the probe was a retransmission.
    """

    def __init__(self) -> None:
        self.deadline = _NEVER
        self.start = -1
        self.end = -1
        self.repeated = False

    def arm(self, now: int, srtt: int, is_single: bool, limit: int) -> None:
        """Schedules a probe, unless one is outstanding; at the latest in place of the time-out at `limit`.

        is_single: one segment is in flight, whose acknowledgement the peer may delay.
        """
        self.deadline = _NEVER
        if self.end >= 0 or srtt == 0:
            return
        self.deadline = min(now + 2 * srtt + (_DELAYED_ACK_US if is_single else _SLACK_US), limit)

    def sent(self, start: int, end: int, repeated: bool) -> None:
        """The probe leaves."""
        self.deadline = _NEVER
        self.start = start
        self.end = end
        self.repeated = repeated

    def is_reported(self, start: int, end: int) -> bool:
        """Whether [start, end), which the peer reports as a duplicate, is the probe that is outstanding."""
        return self.end >= 0 and self.repeated and end == self.end and start >= self.start

    def stop(self) -> None:
        """No probe is scheduled or outstanding."""
        self.deadline = _NEVER
        self.end = -1
