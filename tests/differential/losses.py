"""A path that loses, repeats and delays, between a sending side and a peer that receives as RFC 2018 and 2883 say.

Both sides get a path and a peer of their own, with the same plan. What they send again, and when, is theirs; but with
so many segments on their way nobody has to wait for a timer, and nothing is sent again that has arrived.
"""

from dataclasses import dataclass

from tests.differential.peer import ACK, MASK, build
from tests.differential.terms import expect, ours, signed

_MANY = 2000


@dataclass(frozen=True)
class Plan:
    """What happens to segments, by their number in the stream of `count`, and to the peer's acknowledgements.

    lost, twice, late: at the first transmission; late: how many segments overtake it. lost_again: at the second one.
    """

    count: int = 20
    lost: frozenset = frozenset()
    lost_again: frozenset = frozenset()
    twice: frozenset = frozenset()
    late: tuple = ()
    lost_acks: frozenset = frozenset()


class Receiver:
    """The peer's receiving half, in positions of our stream."""

    def __init__(self):
        self.next = 0
        self.blocks = []
        self.duplicate = None

    def take(self, start, end):
        """A segment has come."""
        self.duplicate = (start, end) if self._has(start, end) else None
        if self.duplicate:
            return
        left, right, others = start, end, []
        for block in self.blocks:
            if block[1] < left or block[0] > right:
                others.append(block)
            else:
                left, right = min(left, block[0]), max(right, block[1])
        self.blocks = [(left, right), *others]
        while self.blocks and (first := min(self.blocks))[0] <= self.next:
            self.next = max(self.next, first[1])
            self.blocks.remove(first)

    def sack(self):
        """Blocks for the option: the duplicate, then the latest first."""
        return ([self.duplicate] if self.duplicate else []) + self.blocks[:3]

    def _has(self, start, end):
        return end <= self.next or any(left <= start and end <= right for left, right in self.blocks)


class Journey:
    """A side sends a stream over such a path; sent: transmissions (start, end) in their order."""

    def __init__(self, side, setup, plan):
        self._side, self._setup, self._plan = side, setup, plan
        self._receiver = Receiver()
        self._late = dict(plan.late)
        self._road = []
        self._waiting = []
        self._acks = 0
        self.sent = []
        self.lost = []

    @property
    def is_over(self):
        """Whether everything has arrived."""
        return self._receiver.next >= self._plan.count * self._setup.mss

    def again(self):
        """The transmissions that were not the first of their bytes."""
        seen, found = 0, []
        for start, end in self.sent:
            if start < seen:
                found.append((start, end))
            seen = max(seen, end)
        return found

    def run(self):
        """Until nothing is on its way any more, and nothing is about to be sent."""
        self._road = self._cut(self._side.write(ours(0, self._plan.count * self._setup.mss)))
        while self._road or self._waiting or (not self.is_over and self._wait()):
            expect(len(self.sent) < _MANY, f"{self._side.name}: it does not stop")
            segment = self._next()
            if segment is None:
                continue
            self._receiver.take(*segment)
            self._acks += 1
            if self._acks not in self._plan.lost_acks:
                self._road += self._cut(self._side.arrives(self._ack()))

    def _wait(self):
        """What may be late only is waited for by a sender that has seen that (RFC 8985, 6.2)."""
        self._road = self._cut(self._side.wait())
        return bool(self._road)

    def _next(self):
        """The segment that arrives next; None if it lets others pass first."""
        if not self._road or self._waiting and self._waiting[0][0] <= 0:
            return self._waiting.pop(0)[1]
        segment, late = self._road.pop(0)
        if late:
            self._waiting = sorted([*self._waiting, (late, segment)])
            return None
        self._waiting = [(left - 1, other) for left, other in self._waiting]
        return segment

    def _cut(self, packets):
        """The segments of trains that reach the path's end, some of them later."""
        road = []
        for packet in packets:
            start = signed(packet.seq - self._setup.iss)
            for at in range(0, len(packet.data), self._setup.mss):
                end = start + min(at + self._setup.mss, len(packet.data))
                road += self._set_out((start + at, end))
        return road

    def _set_out(self, segment):
        """What comes out at the other end, and how late: the segment, or nothing, or twice."""
        number, times = segment[0] // self._setup.mss, self.sent.count(segment)
        self.sent.append(segment)
        if times == 0 and number in self._plan.lost or times == 1 and number in self._plan.lost_again:
            self.lost.append(segment)
            return []
        if times > 0:
            return [(segment, 0)]
        return [(segment, self._late.get(number, 0))] * (1 + (number in self._plan.twice))

    def _ack(self):
        setup, receiver = self._setup, self._receiver
        blocks = receiver.sack() if setup.sack else []
        blocks = [((left + setup.iss) & MASK, (right + setup.iss) & MASK) for left, right in blocks]
        return build(setup.irs, setup.iss + receiver.next, ACK, setup.window >> setup.snd_wscale, sack=blocks)
