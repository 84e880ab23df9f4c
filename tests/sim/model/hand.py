"""One ModelTcp and a peer that is played by hand, in offsets: 0 is each side's first byte."""

from chimney.sim.model import ACK, ModelTcp, Segment, Settings, build, parse
from chimney.sim.model.segment import MASK

ISS, IRS = 0xFFFFFF00, 0x7FFFFF00
NOW = 1_000_000_000
MSS = 1460


class Hand:
    """``tcp`` is under test; all quick acknowledgements are used up unless ``quick``."""

    def __init__(self, quick=False, tcp=None, **settings):
        values = {"timestamps": False, "scale": 0, "srtt_us": 1000, "receive_buffer": 60_000, "send_window": 60_000}
        self.settings = Settings(40000, 80, ISS, IRS, **(values | settings))
        self.now = NOW
        self.tcp = tcp or ModelTcp(self.settings, NOW)
        if not quick:
            self.tcp.receiver._quick = 0

    @property
    def state(self):
        return self.tcp.state.name

    def give(self, seq=0, data=b"", flags=0, ack=0, window=60_000, ts=None, sack=(), plain=False):
        """The peer's segment arrives; returns what is answered at once. ``plain``: without the flag ACK."""
        segment = Segment((IRS + seq) & MASK, (ISS + ack) & MASK, flags | (0 if plain else ACK), window, data)
        if ts is not None:
            segment.ts_val, segment.ts_ecr = ts
        segment.sack = tuple(((ISS + left) & MASK, (ISS + right) & MASK) for left, right in sack)
        self.tcp.arrives(parse(build(segment, 80, 40000)), self.now)
        return self.take()

    def take(self):
        """What is sent now."""
        sent = [Sent(segment) for segment in self.tcp.output(self.now)]
        assert self.tcp.output(self.now) == []
        return sent

    def write(self, data):
        assert self.tcp.send(data, self.now) == len(data)
        return self.take()

    def read(self, size=100_000):
        buffer = bytearray(size)
        count = self.tcp.receive_into(memoryview(buffer), self.now)
        return None if count < 0 else bytes(buffer[:count])

    def wait(self, microseconds=None):
        """Time goes on, by so much or to the next timer; returns what is sent then."""
        self.now = self.tcp.poll_at() if microseconds is None else self.now + microseconds
        return self.take()

    def shutdown(self):
        self.tcp.shutdown(self.now)
        return self.take()

    def close(self):
        self.tcp.close(self.now)
        return self.take()

    def restore(self, **changes):
        """Another one goes on from a snapshot."""
        snapshot = self.tcp.snapshot(self.now)
        for name, value in changes.items():
            setattr(snapshot, name, value)
        self.tcp = ModelTcp.restored(self.settings, snapshot, self.now)


class Sent:
    """A segment that was sent, in offsets; it compares as its letters and numbers."""

    def __init__(self, segment):
        self.segment = segment
        self.seq = _signed(segment.seq - ISS)
        self.ack = _signed(segment.ack - IRS) if segment.flags & ACK else None
        self.data = segment.payload
        self.flags = "".join(letter for bit, letter in enumerate("FSRPA") if segment.flags >> bit & 1)
        self.window = segment.window
        self.sack = [(_signed(left - IRS), _signed(right - IRS)) for left, right in segment.sack]

    def __repr__(self):
        return f"{self.flags} {self.seq}+{len(self.data)} ack {self.ack}"


def said(sent):
    """Segments as text, for comparing."""
    return [repr(segment) for segment in sent]


def _signed(number):
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)
