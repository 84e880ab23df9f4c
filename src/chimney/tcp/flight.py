"""What was sent and is not acknowledged: one record per transmission, with running totals.

Records lie side by side in stream order from `una` to `end`. Those that may still arrive are linked in the order of
their last transmission as well, which is what RFC 8985 looks at. A train of wire segments is one record until the
peer, or a new transmission, tells its segments apart; what the peer has covered selectively grows together again.
"""

from operator import attrgetter

from chimney.tcp.rack import Rack
from chimney.tcp.seq import lt

_COMPACT = 512
_MANY = 16_384
_BY_TIME = attrgetter("sent", "end")


class Record:
    """[start, end), sent at `sent` in `count` wire segments of at most `mss` bytes.

    is_sacked: the peer has covered it. is_lost: taken as lost. is_repeated: it was sent again, and that has not been
    taken as lost; was_repeated: it was ever sent again, or by somebody else. stamp: the TSval of the last repetition,
    -1 if not known. older, newer: its neighbours in time, while it may still arrive (is_listed).
    """

    def __init__(self) -> None:
        # Without arguments: making objects of them would take longer than all else here.
        self.start = 0
        self.end = 0
        self.mss = 0
        self.count = 0
        self.sent = 0
        self.stamp = -1
        self.is_sacked = False
        self.is_lost = False
        self.is_repeated = False
        self.was_repeated = False
        self.is_listed = False
        self.older: Record | None = None
        self.newer: Record | None = None


class Told:
    """What one acknowledgement told; bytes, positions and times, -1 for none.

    delivered: bytes that are new, cumulatively (acked) or selectively (sacked). packets: the same in wire segments.
    first_sent, last_sent: when the first and the last of what was acknowledged were sent, of those sent once only;
    first_sacked, last_sacked: the same of what was covered selectively. repeated: something that was sent again was
    acknowledged (Karn). original: something before `high`, sent once only, has arrived. lowest: the start of the first
    that was sent once only. before: what was the highest position covered before. longest: of the segments that have
    arrived. lost, lost_again: bytes newly taken as lost, and whether a repetition was. duplicate_start, duplicate_end:
    what the peer reports as a duplicate (RFC 2883). outstanding: what was in flight before. stamp: the newest TSval
    with which what was acknowledged has been sent again, -1 if that is not known of all of it.
    """

    def __init__(self) -> None:
        self.begin(0, -1, 0)

    def begin(self, high: int, before: int, outstanding: int) -> None:
        """The next acknowledgement."""
        self.high = high
        self.before = before
        self.outstanding = outstanding
        self.stamp = -1
        self.acked = 0
        self.sacked = 0
        self.delivered = 0
        self.packets = 0
        self.first_sent = -1
        self.last_sent = -1
        self.first_sacked = -1
        self.last_sacked = -1
        self.repeated = False
        self.original = False
        self.lowest = -1
        self.longest = 0
        self.lost = 0
        self.lost_again = False
        self.duplicate_start = -1
        self.duplicate_end = -1


class Flight:
    """The records, and in bytes: sacked, lost, repeated (see Record), pending (lost, and not repeated).

    packets: wire segments of all records, sacked_packets: of those covered. highest: the position after the last byte
    covered, -1 if none is. una: the first byte not acknowledged; end: after the last record.
    """

    def __init__(self, max_ranges: int, rack: Rack) -> None:
        self.max_ranges = max_ranges
        self.rack = rack
        self.told = Told()
        self.una = 0
        self.end = 0
        self.packets = 0
        self.sacked = 0
        self.sacked_packets = 0
        self.ranges = 0
        self.lost = 0
        self.repeated = 0
        self.pending = 0
        self.highest = -1
        self.oldest: Record | None = None
        self.newest: Record | None = None
        self._records: list[Record | None] = []
        self._first = 0
        self._hint = 0

    def in_flight(self) -> int:
        """The estimate of the bytes in the network (RFC 6675, 4, SetPipe)."""
        return self.end - self.una - self.sacked - self.lost + self.repeated

    def is_full(self) -> bool:
        """Whether there are so many records that nothing more is to be sent."""
        return len(self._records) - self._first >= _MANY

    # Sending.

    def add(self, end: int, mss: int, count: int, now: int, again: bool) -> None:
        """The bytes up to `end` were sent; again: perhaps not for the first time."""
        record = Record()
        record.start = self.end
        record.end = end
        record.mss = mss
        record.count = count
        record.sent = now
        record.was_repeated = again
        self._records.append(record)
        self._list(record)
        self.end = end
        self.packets += count

    def repeat(self, record: Record, end: int, mss: int, stamp: int, now: int) -> None:
        """The bytes of `record` up to `end` were sent again, with this TSval, in segments of `mss`."""
        if end < record.end:
            self._split(self._index(record.start), end)
        if not record.is_repeated:
            record.is_repeated = True
            self.repeated += record.end - record.start
            if record.is_lost:
                self.pending -= record.end - record.start
        record.was_repeated = True
        record.stamp = stamp
        record.sent = now
        if record.mss != mss:
            riding = _riding(record)
            record.mss = mss
            self._recount(record, riding)
        if record.is_listed:
            self._unlist(record)
        self._list(record)

    # What an acknowledgement changes.

    def begin(self, high: int) -> None:
        """The next acknowledgement, or timer; what it tells stands in `told`. high: see Recovery."""
        self.told.begin(high, self.highest, self.end - self.una)

    def acknowledge(self, una: int, now: int) -> None:
        """Everything before `una` has arrived."""
        records = self._records
        count = len(records)
        first = self._first
        self.told.acked += una - self.una
        while first < count:
            record = records[first]
            if record is None or record.start >= una:
                break
            if record.end > una:
                self._deliver(record, una, now)
                self._trim(record, una)
                break
            self._deliver(record, record.end, now)
            self.packets -= record.count
            if record.is_sacked:
                self.sacked_packets -= record.count
                self.ranges -= 1
            elif record.is_listed:
                self._unlist(record)
            records[first] = None
            first += 1
        if first == count:
            records.clear()
            first = 0
        elif first >= _COMPACT and first * 2 >= count:
            del records[:first]
            first = 0
        self._first = first
        self.una = una
        if self.end < una:
            self.end = una
        if self.highest <= una:
            self.highest = -1

    def cover(self, start: int, end: int, now: int) -> None:
        """The peer has [start, end), of which whole wire segments count."""
        records = self._records
        index = self._index(start)
        while index < len(records):
            record = records[index]
            if record is None or record.start >= end:
                return
            if record.is_sacked:
                index += 1
                continue
            left = record.start
            if start > left:
                left += -(-(start - left) // record.mss) * record.mss
            right = record.end
            if end < right:
                right = record.start + (end - record.start) // record.mss * record.mss
            if left >= right:
                index += 1
                continue
            if self.ranges >= self.max_ranges and not self._adjoins(index, left, end):
                return
            if left > record.start:
                self._split(index, left)
                index += 1
                continue
            if right < record.end:
                self._split(index, right)
            self._mark_sacked(record, now)
            index = self._join(index) + 1

    def uncover(self) -> None:
        """The peer has dropped what it had covered (RFC 2018, 8)."""
        for record in self._records:
            if record is not None and record.is_sacked:
                record.is_sacked = False
                record.was_repeated = True
                record.is_repeated = record.is_lost = False
        self.sacked = self.sacked_packets = self.ranges = 0
        self.highest = -1
        self._list_all()

    # Loss.

    def mark_lost(self, record: Record) -> None:
        """The last transmission of `record` is taken as lost."""
        if record.is_sacked or (record.is_lost and not record.is_repeated):
            return
        length = record.end - record.start
        if record.is_repeated:
            record.is_repeated = False
            self.repeated -= length
            self.told.lost_again = True
        if not record.is_lost:
            record.is_lost = True
            self.lost += length
        self.pending += length
        self.told.lost += length
        if record.is_listed:
            self._unlist(record)
        if record.start < self._hint:
            self._hint = record.start

    def lose_head(self, length: int) -> None:
        """The first `length` bytes are lost, where nothing tells more (RFC 6582); a larger segment is so as a whole."""
        record = self.head()
        if record is not None and not record.is_sacked:
            length = max(length, record.mss)
            if record.end - record.start > length:
                self._split(self._first, record.start + length)
            self.mark_lost(record)

    def lose_all(self, younger: int) -> None:
        """All that is not covered is lost; what was sent after the time `younger` may still arrive, the head excepted.

        A peer that has covered the head, and does not acknowledge it, has dropped it.
        """
        head = self.head()
        if head is not None and head.is_sacked:
            self.uncover()
        for record in self._records:
            if record is not None and (record is head or record.sent <= younger):
                self.mark_lost(record)

    def lose_longer(self, mss: int) -> None:
        """What was sent in segments of more than `mss` bytes is lost (RFC 1191, 6.5)."""
        for record in self._records:
            if record is not None and min(record.mss, record.end - record.start) > mss:
                self.mark_lost(record)

    def find_again(self) -> None:
        """Nothing is lost after all: everything not covered may still arrive."""
        for record in self._records:
            if record is not None:
                record.is_lost = False
        self.lost = self.pending = 0
        self._list_all()

    def next_lost(self) -> Record | None:
        """The first record that is lost and was not sent again since; None if there is none."""
        if self.pending == 0:
            return None
        records = self._records
        for index in range(self._index(self._hint), len(records)):
            record = records[index]
            if record is not None and record.is_lost and not record.is_repeated:
                self._hint = record.start
                return record
        return None

    def head(self) -> Record | None:
        """The first record."""
        return self._records[self._first] if self._first < len(self._records) else None

    def tail(self, length: int) -> Record | None:
        """The last wire segment (RFC 8985, 7.3), at most `length` bytes of it, as a record of its own.

        None if it is covered or lost. A FIN does not count in `length`.
        """
        if self._first == len(self._records):
            return None
        record = self._records[-1]
        if record is None or record.is_sacked or record.is_lost:
            return None
        at = max(record.start + (record.count - 1) * record.mss, record.end - length - _riding(record))
        if at > record.start:
            self._split(len(self._records) - 1, at)
            record = self._records[-1]
        return record

    # Beneath.

    def _deliver(self, record: Record, end: int, now: int) -> None:
        """`record`, up to `end`, is acknowledged cumulatively."""
        told = self.told
        length = end - record.start
        if record.was_repeated:
            if record.stamp < 0 or not told.repeated or (told.stamp >= 0 and lt(told.stamp, record.stamp)):
                told.stamp = record.stamp
            told.repeated = True
        if record.is_sacked:
            self.sacked -= length
            return
        told.delivered += length
        told.packets += record.count if end == record.end else _segments(length, record.mss)
        told.longest = max(told.longest, min(length, record.mss))
        if not record.was_repeated:
            if told.first_sent < 0:
                told.first_sent = record.sent
            told.last_sent = record.sent
            if told.lowest < 0:
                told.lowest = record.start
            if end <= told.high:
                told.original = True
        if record.is_lost:
            self.lost -= length
            if not record.is_repeated:
                self.pending -= length
        if record.is_repeated:
            self.repeated -= length
        self.rack.delivered(record, end, True, now)

    def _mark_sacked(self, record: Record, now: int) -> None:
        told = self.told
        length = record.end - record.start
        if record.is_lost:
            self.lost -= length
            if not record.is_repeated:
                self.pending -= length
        if record.is_repeated:
            self.repeated -= length
        told.delivered += length
        told.sacked += length
        told.packets += record.count
        told.longest = max(told.longest, min(length, record.mss))
        if not record.was_repeated:
            if told.first_sacked < 0 or record.sent < told.first_sacked:
                told.first_sacked = record.sent
            if record.sent > told.last_sacked:
                told.last_sacked = record.sent
            if told.lowest < 0 or record.start < told.lowest:
                told.lowest = record.start
            if record.end <= told.high:
                told.original = True
        self.rack.delivered(record, record.end, False, now)
        record.is_sacked = True
        record.is_lost = record.is_repeated = False
        if record.is_listed:
            self._unlist(record)
        self.sacked += length
        self.sacked_packets += record.count
        self.ranges += 1
        if record.end > self.highest:
            self.highest = record.end

    def _adjoins(self, index: int, start: int, end: int) -> bool:
        """Whether [start, end), which begins in the record at `index`, makes no new range: it touches a covered one."""
        records = self._records
        record = records[index]
        if index > self._first and record is not None and record.start == start:
            before = records[index - 1]
            if before is not None and before.is_sacked:
                return True
        for later in range(index + 1, len(records)):
            record = records[later]
            if record is None or record.start > end:
                return False
            if record.is_sacked:
                return True
        return False

    def _join(self, index: int) -> int:
        """The record at `index`, which is covered, grows together with covered neighbours; where it is then."""
        records = self._records
        if index > self._first:
            before = records[index - 1]
            if before is not None and before.is_sacked:
                self._absorb(index)
                index -= 1
        if index + 1 < len(records):
            after = records[index + 1]
            if after is not None and after.is_sacked:
                self._absorb(index + 1)
        return index

    def _absorb(self, index: int) -> None:
        """The record at `index` becomes part of the one before."""
        record = self._records[index]
        before = self._records[index - 1]
        if record is None or before is None:
            return
        before.end = record.end
        before.count += record.count
        before.was_repeated = before.was_repeated or record.was_repeated
        before.sent = max(before.sent, record.sent)
        self.ranges -= 1
        del self._records[index]

    def _split(self, index: int, at: int) -> None:
        """The record at `index` becomes two, the second one from `at` on."""
        record = self._records[index]
        if record is None:
            return
        rest = Record()
        rest.start = at
        rest.end = record.end
        rest.mss = record.mss
        rest.sent = record.sent
        rest.stamp = record.stamp
        rest.is_sacked = record.is_sacked
        rest.is_lost = record.is_lost
        rest.is_repeated = record.is_repeated
        rest.was_repeated = record.was_repeated
        riding = _riding(record)
        record.end = at
        self._recount(record, 0)
        self._recount(rest, riding)
        self._records.insert(index + 1, rest)
        if record.is_listed:
            rest.is_listed = True
            rest.older = record
            rest.newer = record.newer
            if rest.newer is None:
                self.newest = rest
            else:
                rest.newer.older = rest
            record.newer = rest

    def _trim(self, record: Record, start: int) -> None:
        riding = _riding(record)
        record.start = start
        self._recount(record, riding)

    def _recount(self, record: Record, riding: int) -> None:
        count = max(_segments(record.end - record.start - riding, record.mss), 1)
        self.packets += count - record.count
        if record.is_sacked:
            self.sacked_packets += count - record.count
        record.count = count

    def _index(self, position: int) -> int:
        """Where the first record that ends after `position` is."""
        records = self._records
        low = self._first
        high = len(records)
        while low < high:
            middle = (low + high) // 2
            record = records[middle]
            if record is not None and record.end <= position:
                low = middle + 1
            else:
                high = middle
        return low

    def _list(self, record: Record) -> None:
        """`record` is the last one that was sent."""
        newest = self.newest
        record.is_listed = True
        record.older = newest
        record.newer = None
        if newest is None:
            self.oldest = record
        else:
            newest.newer = record
        self.newest = record

    def _list_all(self) -> None:
        """Links all that may still arrive anew."""
        self.oldest = self.newest = None
        records = [r for r in self._records if r is not None and not r.is_sacked and (r.is_repeated or not r.is_lost)]
        for record in sorted(records, key=_BY_TIME):
            self._list(record)

    def _unlist(self, record: Record) -> None:
        older = record.older
        newer = record.newer
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        record.is_listed = False
        record.older = record.newer = None


def _segments(length: int, mss: int) -> int:
    return (length + mss - 1) // mss


def _riding(record: Record) -> int:
    """How many bytes of `record` take no room in its segments: one if a FIN rides on a full one."""
    return 1 if record.end - record.start > record.count * record.mss else 0
