"""The bytes given to send, from SND.UNA on, in the caller's own memory."""

from bisect import bisect_right

_COMPACT = 512
# The link gathers the parts of a segment in one system call, which takes 1024 (IOV_MAX); headers need some.
_MAX_PARTS = 1000
_NOTHING = memoryview(b"")


class SendQueue:
    """Views in stream order, found by position in logarithmic time, released in constant time.

    `start` and `end` are the positions of the first kept byte and of the first byte not queued yet.
    """

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.gathered = 0
        self.pushed = False
        self._first = 0
        self._starts: list[int] = []
        self._views: list[memoryview] = []
        self._pushes: list[bool] = []
        self._ends: list[bool] = []

    def append(self, view: memoryview, push: bool, record_end: bool = False) -> None:
        """Queues the bytes of `view`, which stay the caller's until they are acknowledged.

        record_end: no segment holds bytes from both before and behind their end (MSG_EOR).
        """
        length = len(view)
        if length == 0:
            return
        self._starts.append(self.end)
        self._views.append(view)
        self._pushes.append(push)
        self._ends.append(record_end)
        self.end += length

    def release(self, position: int) -> None:
        """Forgets the bytes before `position`."""
        if position > self.end:
            position = self.end
        if position <= self.start:
            return
        self.start = position
        count = len(self._starts)
        first = self._first
        while first < count and (self._starts[first + 1] if first + 1 < count else self.end) <= position:
            self._views[first] = _NOTHING
            first += 1
        if first == count:
            self._starts.clear()
            self._views.clear()
            self._pushes.clear()
            self._ends.clear()
            first = 0
        elif first >= _COMPACT and first * 2 >= count:
            del self._starts[:first]
            del self._views[:first]
            del self._pushes[:first]
            del self._ends[:first]
            first = 0
        self._first = first

    def ends_at(self, position: int) -> bool:
        """Whether the byte before `position` is the last one of a send with push."""
        index = bisect_right(self._starts, position - 1, self._first) - 1
        following = self._starts[index + 1] if index + 1 < len(self._starts) else self.end
        return self._pushes[index] and following == position

    def gather(self, position: int, length: int) -> list[memoryview]:
        """Views of the bytes from `position` on, all of which are queued.

        `gathered` tells how many bytes they hold: `length`, or fewer at the end of a record, and if that would take too
        many views. `pushed` tells whether the last byte of a send with push is among them.
        """
        index = bisect_right(self._starts, position, self._first) - 1
        offset = position - self._starts[index]
        count = len(self._starts)
        left = length
        parts: list[memoryview] = []
        self.pushed = False
        while left > 0 and index < count and len(parts) < _MAX_PARTS:
            view = self._views[index]
            size = len(view) - offset
            if size <= left:
                parts.append(view[offset:] if offset else view)
                left -= size
                if self._pushes[index]:
                    self.pushed = True
                if self._ends[index]:
                    break
            else:
                parts.append(view[offset : offset + left])
                left = 0
            offset = 0
            index += 1
        self.gathered = length - left
        return parts
