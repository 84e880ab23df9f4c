"""The books that are kept of a connection while a script is played: for the peer, and for each side."""

from tests.differential.peer import ACK, FIN, RST, SYN
from tests.differential.terms import expect, ours, signed, theirs

# Nearer than that, two positions belong to the same part of the stream.
_NEAR = 1 << 20


def _tolerate(condition, text):
    """Takes the place of `expect` where anything may happen."""


class Book:
    """What the peer knows, in positions: the landmarks of the places in a script.

    next, una, max, edge: as in the RFC, told from outside. top: the end of what the peer has sent. ts_val: its latest.
    """

    def __init__(self, setup):
        self.setup = setup
        self.next = self.top = self.una = self.max = self.wl1 = 0
        self.edge = setup.rcv_wnd
        self.widest = setup.window
        self.fin = None
        self.sacked = set()
        self.challenged = False
        self.ts_val = setup.peer_clock

    def peer_place(self, place):
        """A position in the peer's stream."""
        landmark, distance = place
        return {"start": 0, "next": self.next, "edge": self.edge, "top": self.top}[landmark] + distance

    def our_place(self, place):
        """A position in our stream."""
        landmark, distance = place
        return {"una": self.una, "max": self.max}[landmark] + distance

    def honest(self, start, length, flags):
        """Length and flags of a segment of a peer whose stream has one end, and nothing behind it."""
        end = start + length
        is_last = self.top <= end < self.top + _NEAR and not flags & (SYN | RST)
        if self.fin is None and flags & FIN and is_last:
            self.fin = end
        if 0 <= end - self.next < _NEAR:
            self.top = max(self.top, end)
        if self.fin is None or end < self.fin:
            return length, flags & ~FIN
        return max(self.fin - start, 0), flags if end == self.fin else flags & ~FIN

    def known_ack(self, ack, highest):
        """An acknowledgement that means the same to both.

        What only one of them has sent yet is not acknowledged; nor is what was sent before the hand-over, of which the
        kernel's restored socket knows nothing (docs/differences.md).
        """
        if self.max < ack <= highest:
            return self.max
        return 0 if self.una - self.widest <= ack < 0 else ack

    def timestamp(self, step):
        """The option of a segment; None without one."""
        if not self.setup.timestamps or step.ts is None:
            return None
        value = self.ts_val + step.ts
        if 0 < step.ts < _NEAR:
            self.ts_val = value
        return value, self.setup.clock + step.echo

    @property
    def end_of_fin(self):
        """The position after the peer's FIN; None if there is none yet."""
        return None if self.fin is None else self.fin + 1

    def note(self, arrival, kernel, our_max):
        """A step is over: `arrival`, if it was one, and what the kernel made of it."""
        view = kernel.view
        self.next, self.edge, self.una, self.max = view.received, kernel.edge, view.acked, our_max
        self.widest = max(self.widest, view.snd_wnd)
        self.sacked |= {signed(right - self.setup.irs) for packet in kernel.sent for _, right in packet.sack}
        if arrival and arrival.flags & (RST | SYN):
            self.challenged = True
        elif arrival and arrival.start <= self.edge:
            self.wl1 = max(self.wl1, arrival.start)


class Track:
    """One side's packets, checked one by one: what no stack may do, whatever the other does."""

    def __init__(self, side, setup, is_strict=True):
        self.expect = expect if is_strict else _tolerate
        self.side = side
        self.setup = setup
        self.ack = self.max = self.written = self.read = 0
        self.edge = setup.rcv_wnd
        self.room = setup.window
        self.ts_val = None

    def take(self, data):
        """The application has read `data`."""
        self.expect(data == theirs(self.read, len(data)), f"{self.side.name}: wrong bytes were read at {self.read}")
        self.read += len(data)

    def note(self, packet):
        """The side has sent a packet."""
        name, setup = self.side.name, self.setup
        if packet.flags & RST:
            return
        self.expect(packet.flags & ACK, f"{name}: a segment without an acknowledgement")
        self.expect(not packet.flags & SYN, f"{name}: a SYN")
        self._note_window(packet)
        self._note_data(packet)
        self.expect((packet.ts is not None) == setup.timestamps, f"{name}: timestamp option {packet.ts}")
        if packet.ts:
            self.expect(
                self.ts_val is None or signed(packet.ts[0] - self.ts_val) >= 0, f"{name}: its timestamp goes back"
            )
            self.ts_val = packet.ts[0]
        self.expect(not packet.sack or setup.sack, f"{name}: SACK was not negotiated")

    def _note_window(self, packet):
        name = self.side.name
        ack = signed(packet.ack - self.setup.irs)
        self.expect(ack >= self.ack, f"{name}: the acknowledgement goes back from {self.ack} to {ack}")
        edge = ack + (packet.window << self.setup.rcv_wscale)
        self.expect(edge >= self.edge, f"{name}: the right edge goes back from {self.edge} to {edge}")
        self.ack, self.edge = ack, edge

    def _note_data(self, packet):
        name = self.side.name
        start = signed(packet.seq - self.setup.iss)
        end = start + len(packet.data)
        self.expect(packet.data == ours(start, len(packet.data)), f"{name}: wrong bytes at {start}")
        self.expect(not packet.data or end <= self.written, f"{name}: {end} bytes sent of {self.written}")
        if packet.flags & FIN:
            self.expect(end == self.written, f"{name}: FIN at {end} instead of {self.written}")
            end += 1
        # A FIN may exceed the window by itself.
        self.expect(end <= max(self.max, self.room + 1), f"{name}: sends up to {end}, the window is up to {self.room}")
        self.max = max(self.max, end)
