"""The closed window (RFC 9293, 3.8.6.1): probing it, in intervals that double. Times in microseconds."""

from chimney.tcp.rtt import RttEstimator
from chimney.tcp.timer import RetransmitTimer


class Persist:
    """is_on: the window is closed, and the timer is for probing it. is_due: a probe is to be sent.

    as_linux: see Config.linux_window_probes. The limit is on probes without an answer (timer.count); the intervals
    go on doubling over those that had one (timer.probe_count).
    """

    def __init__(self, timer: RetransmitTimer, rtt: RttEstimator, as_linux: bool) -> None:
        self.timer = timer
        self.rtt = rtt
        self.as_linux = as_linux
        self.is_on = False
        self.is_due = False

    def start(self, now: int) -> None:
        """A round of probing begins; each one that was answered makes the next wait longer."""
        self.is_on = True
        self.is_due = False
        self.timer.count = 0
        self.timer.start(now, self.rtt.backed_off(self.timer.probe_count))

    def answered(self, now: int) -> None:
        """The peer says again that its window is closed."""
        timer = self.timer
        if not self.is_on or timer.count == 0:
            return
        if self.as_linux:
            timer.probe_count += timer.count
            timer.count = 0
        else:
            timer.probe_count += 1
            self.start(now)

    def expire(self, now: int) -> bool:
        """The timer expired; whether the limit allows a probe."""
        if not self.timer.expire_probe():
            return False
        timer = self.timer
        doublings = timer.probe_count + timer.count if self.as_linux else timer.count - 1
        timer.start(now, self.rtt.backed_off(doublings))
        self.is_due = True
        return True

    def take_probe(self) -> bool:
        """Whether a probe is due; it is not any more."""
        due = self.is_due
        self.is_due = False
        return due

    def stop(self) -> None:
        """The window is open, or there is nothing to send."""
        self.is_on = False
        self.is_due = False
        self.timer.stop()
        self.timer.count = 0
        self.timer.backoff = 0
        self.timer.probe_count = 0
