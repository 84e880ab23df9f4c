"""What the tests of attacks share: bytes, segments by hand, and what a connection keeps."""

import struct

from chimney.tcp import ACK, PSH, Config, State
from fuzz.work import kept

PLAIN = Config(timestamps=False)
FULL = 1460
DAY = 86_400_000_000
HOUR = 3_600_000_000


PATTERN = bytes(range(251)) * 1200


def data(size, first=0):
    return PATTERN[first % 251 :][:size]


def raw(peer, options=b"", payload=b"", *, offset=None, flags=ACK, urgent=0, window=65535):
    """A segment at RCV.NXT, header and all by hand."""
    padded = options.ljust(-(-len(options) // 4) * 4, b"\0")
    words = 5 + len(padded) // 4 if offset is None else offset
    header = struct.pack("!HHIIBBHHH", 1, 2, peer.conn.rcv_nxt, peer.conn.snd_una, words << 4, flags, window, 0, urgent)
    return memoryview(header + padded + payload)


def bounded(peer, elements):
    """Nothing but what the application gave, or has not fetched, may be kept beyond so many elements."""
    assert kept(peer.conn, frozenset({"queue", "received", "events", "config"}))[0] <= elements


def still_works(peer, at=0, ack=0):
    """The peer's next byte in sequence is taken, and acknowledged."""
    assert not peer.conn.stopped and peer.conn.state == State.ESTABLISHED
    peer.read()
    peer.give(at, ack, b"!", ACK | PSH)
    assert peer.read()[:1] == b"!"
    sent = peer.take() or peer.wait()
    assert sent[-1].ack > at


def fragments(order, count=600):
    """Blocks of one byte with a hole behind each: evenly, backwards, or from both ends."""
    places = [1 + 2 * n for n in range(count)]
    if order == "backwards":
        places.reverse()
    elif order == "shuffled":
        places = [places[n * 7 % count] for n in range(count)]
    return places
