"""What both sides are described by: the streams' bytes, differences, and what a connection looks like from outside."""

from dataclasses import dataclass

from tests.differential.peer import MASK

_HALF = 1 << 31
_FLAGS = ((1, "F"), (2, "S"), (4, "R"), (8, "P"), (16, "."), (32, "U"), (64, "E"), (128, "W"))
_PEER_PERIOD, _OUR_PERIOD = 251, 241
_LONGEST = 1 << 16
_PEER_STREAM = bytes(i % _PEER_PERIOD for i in range(_PEER_PERIOD + _LONGEST))
_OUR_STREAM = bytes(i % _OUR_PERIOD for i in range(_OUR_PERIOD + _LONGEST))


class Difference(AssertionError):
    """The engine did what the kernel did not, or the other way round; the text tells the story."""


def expect(condition, text):
    """Raises Difference."""
    if not condition:
        raise Difference(text)


def signed(difference):
    """A difference of sequence numbers."""
    difference &= MASK
    return difference - (1 << 32) if difference >= _HALF else difference


def theirs(position, length):
    """Bytes of the peer's stream."""
    return _PEER_STREAM[position % _PEER_PERIOD :][:length]


def ours(position, length):
    """Bytes of our stream."""
    return _OUR_STREAM[position % _OUR_PERIOD :][:length]


@dataclass(frozen=True)
class View:
    """A connection. state: a name of RFC 9293. reset: ended by an RST, from whichever side. acked, received: bytes of
    the streams; a FIN counts as one.

    is_disturbed: something was lost, or may have been: what is sent then, and when, is congestion control's.
    is_cwnd_limited: it sends no more because of that, or because it waits to send a larger train.
    """

    state: str
    reset: bool
    acked: int
    received: int
    snd_wnd: int
    is_disturbed: bool = False
    is_cwnd_limited: bool = False

    def __str__(self):
        marks = " reset" * self.reset + " disturbed" * self.is_disturbed + " cwnd" * self.is_cwnd_limited
        return f"{self.state} acked {self.acked} received {self.received} snd_wnd {self.snd_wnd}{marks}"


def describe(packet, setup):
    """A packet in positions."""
    names = "".join(name for bit, name in _FLAGS if packet.flags & bit)
    sack = [(signed(a - setup.irs), signed(b - setup.irs)) for a, b in packet.sack]
    seq, ack = signed(packet.seq - setup.iss), signed(packet.ack - setup.irs)
    return f"{names} {seq}+{len(packet.data)} ack {ack} win {packet.window} sack {sack} ts {packet.ts}"
