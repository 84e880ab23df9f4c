"""An engine with segments outstanding, and acknowledgements in segments instead of bytes."""

from tcp_harness import Peer

from chimney.tcp import Config

FULL = 1460
RTT = 10_000
ISS = [1000, 2**32 - 3 * FULL]


def engine(count=10, n_data=1000, iss=1000, cwnd=None, **kwargs):
    """An engine with `count` segments outstanding, sent at time 0."""
    options = {k: kwargs.pop(k) for k in list(kwargs) if hasattr(Config(), k)}
    config = Config(**{"timestamps": False, "snd_wscale": 8, "black_hole_detection": False, **options})
    cwnd = cwnd or count * FULL
    peer = Peer(config, iss=iss, cwnd=cwnd, ssthresh=cwnd, snd_wnd=39062 << 8, srtt_us=RTT, **kwargs)
    peer.conn.send(memoryview(bytes(n_data * FULL)))
    assert sum(s.segments for s in peer.take()) == count
    return peer


def ack(peer, una, *blocks, at=None):
    """An acknowledgement of `una` segments, with SACK blocks in segments."""
    if at is not None:
        peer.now = at
    peer.give(0, una * FULL, window=39062, sack=[(a * FULL, b * FULL) for a, b in blocks])


def again(peer):
    """Which segments leave now that had left before."""
    end = peer.conn.sender.flight.end
    spans = []
    for s in peer.take():
        if s.seq < end:
            spans += range(s.seq // FULL, s.seq // FULL + s.segments)
    return spans
