"""How much a socket takes before write() blocks: the accounting of Linux.

Linux counts memory, not bytes: the buffers in which data waits, each with its overhead. Whether there is room is asked
when a new one is begun, and so a write goes on to the end of it. Positions count from the first byte of the stream.
"""

from chimney.packetdrill.engine_config import SocketOptions
from chimney.packetdrill.settings import Settings

_OVERHEAD = 1280
"""Memory of a buffer besides its data, bytes."""
_LARGEST_TRAIN = 65_215
"""Data of a buffer at most, bytes: 64 KB without room for the headers."""
_SMALL_WINDOW = 512
_HEADERS = 640
_RECORD = 256
_RATE_SHIFT = 10
_RTT_SHIFT = 9


class SendBuffer:
    """The buffers of one connection. lacks_space: a writer was turned away, or waits."""

    def __init__(self, settings: Settings, options: SocketOptions, peer_mss: int) -> None:
        self._settings = settings
        self._options = options
        self._peer_mss = peer_mss
        self._expanded = 0
        self._ends: list[int] = []
        self._end = 0
        self._sent = 0
        self._acked = 0
        self._closed_at = -1
        self._extends = False
        self.lacks_space = False

    def limit(self) -> int:
        """SO_SNDBUF as the kernel reports it, bytes."""
        if self._options.sndbuf:
            return self._options.sndbuf * 2
        return max(self._settings.wmem[1], self._expanded)

    def expand(self, cwnd: int) -> None:
        """Makes room for two congestion windows (in segments), if the application has not chosen the size."""
        each = 1 << (self._peer_mss + _HEADERS - 1).bit_length()
        wanted = 2 * max(cwnd, self._settings.initcwnd, self._settings.reordering + 1) * (each + _RECORD)
        self._expanded = max(self._expanded, min(wanted, self._settings.wmem[2]))

    def appended(self, count: int, end_of_record: bool = False) -> None:
        """So many bytes were appended to the last buffer, or to a new one."""
        if self._extends:
            self._ends.pop()
        self._end += count
        self._ends.append(self._end)
        if end_of_record:
            self._closed_at = self._end

    def moved(self, sent: int, acked: int, train: int) -> None:
        """All bytes before `sent` have left, in trains of at most `train` bytes; those before `acked` are forgotten."""
        if sent > self._sent:
            cuts = set(self._ends)
            cuts.update(range(self._sent + train, sent, train))
            cuts.add(sent)
            self._ends = sorted(cuts)
            self._sent = sent
        if acked > self._acked:
            self._acked = acked
            self._ends = [end for end in self._ends if end > acked]

    def memory(self) -> int:
        """What the buffers take, bytes."""
        return self._end - self._acked + _OVERHEAD * len(self._ends)

    def unsent(self) -> int:
        """Bytes that have not left."""
        return self._end - self._sent

    def room(self, goal: int, lowat: int) -> int:
        """How many bytes may be written, and are to be told to `appended`, before asking again.

        goal: the size of a full buffer.
        """
        tail = self._tail()
        self._extends = 0 < tail < goal and self._closed_at != self._end
        if self._extends:
            return goal - tail
        if self.memory() >= self.limit() or self.unsent() >= lowat:
            return 0
        return goal

    def is_full(self, goal: int) -> bool:
        """Whether nothing more goes into the last buffer."""
        return self._tail() >= goal

    def is_writable(self, lowat: int) -> bool:
        """Whether a writer is told to go on: a third is free, and not too much waits to be sent."""
        memory = self.memory()
        return self.limit() - memory >= memory >> 1 and self.unsent() * 2 < lowat

    def _tail(self) -> int:
        """Bytes in the last buffer that have not left."""
        before = self._ends[-2] if len(self._ends) > 1 else self._acked
        return self._end - max(before, self._sent) if self._end > self._sent else 0


def full_buffer(mss: int, largest_window: int) -> int:
    """Bytes of a full buffer: whole segments, not more than half of the largest window that the peer ever had."""
    bound = largest_window >> 1 if largest_window > _SMALL_WINDOW else largest_window
    size = min(_LARGEST_TRAIN, max(bound, 68))
    return max(size - size % mss, mss)


def train_length(settings: Settings, mss: int, cwnd: int, srtt_us: int, slow_start: bool) -> int:
    """Bytes that leave as one train: what the pacing rate sends in a millisecond, more on very short paths."""
    ratio = settings.pacing_ss_ratio if slow_start else settings.pacing_ca_ratio
    rate = cwnd * 1_000_000 * ratio // (100 * max(srtt_us, 1))
    size = rate >> _RATE_SHIFT
    shift = srtt_us >> _RTT_SHIFT
    if shift < 32:
        size += 65_536 >> shift
    segments = max(min(size, 65_536) // mss, settings.min_tso_segs, 1)
    return segments * mss
