"""Black holes and path MTU probes on a whole connection."""

import pytest
from tcp_harness import MSS, Impairments, Pair, Peer

from chimney.tcp import Config

FULL = 1460


def probing(sack=True, **kwargs):
    """A connection with segments of 600 bytes that is told of a larger path, and does not believe it."""
    config = Config(timestamps=False, sack=sack, path_mtu=640, mtu_probe_floor=512, snd_wscale=4)
    peer = Peer(config, cwnd=20_000, ssthresh=20_000, **kwargs)
    peer.conn.update_path_mtu(1500)
    peer.conn.send(memoryview(bytes(60_000)), True)
    return peer


def sent(peer):
    return [(s.seq, s.length) for s in peer.take()]


def sizes(peer):
    """The sizes of wire segments that are sent now."""
    return {min(s.length, s.length // s.segments + 1) for s in peer.take()}


def test_a_larger_path_is_probed_for_by_a_single_segment():
    peer = probing()
    first, second, *_ = sent(peer)
    assert first == (0, 986) and second[0] == 986
    peer.give(0, 3386, window=5000)
    assert peer.conn.sender.mss == 986
    # And the next one is on its way already.
    assert (986 + FULL) // 2 in {length for _, length in sent(peer)}


def test_a_probe_that_is_covered_has_arrived():
    peer = probing()
    peer.take()
    start = peer.conn.sender.nxt
    peer.give(0, start - 600, window=5000)
    assert peer.conn.sender.mss == 986
    (start, length), *_ = [each for each in sent(peer) if each[1] == (986 + FULL) // 2]
    peer.give(0, start - 600, window=5000, sack=[(start, start + length)])
    assert peer.conn.sender.mss == length
    peer.now += 1000
    peer.give(0, start + length, window=5000)
    assert peer.conn.sender.mss == length


@pytest.mark.parametrize("sack", [True, False])
def test_the_loss_of_a_probe_is_no_congestion(sack):
    peer = probing(sack)
    start = peer.conn.sender.nxt
    peer.take()
    cwnd, ssthresh = peer.conn.cwnd, peer.conn.sender.congestion.ssthresh
    for n in range(1, 5):
        peer.now += 1000
        peer.give(0, start, window=5000, sack=[(986, 986 + n * 600)] if sack else ())
    peer.now += 20_000
    repaired = [(at, length) for at, length in sent(peer) if at < 986]
    assert repaired[0][0] == 0 and sum(length for _, length in repaired) == 986
    assert peer.conn.cwnd >= cwnd and peer.conn.sender.congestion.ssthresh == ssthresh
    assert peer.conn.sender.mss == 600


def test_other_losses_beside_a_probe_are_congestion():
    peer = probing()
    peer.take()
    cwnd = peer.conn.sender.congestion.ssthresh
    for n in range(1, 6):
        peer.now += 1000
        peer.give(0, 0, window=5000, sack=[(986 + 1800, 986 + 1800 + n * 600)])
    peer.now += 20_000
    peer.take()
    assert peer.conn.sender.congestion.ssthresh < cwnd


def hole(pair, passes, since=0, until=2**62):
    """The path drops what is larger than `passes` bytes of payload, for a time."""
    pair.drop = lambda end, piece, now: piece.payload_length > passes and since <= now < until


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("passes", [1200, 1012, 600])
def test_a_black_hole_is_survived(sack, passes):
    pair = Pair(a=bytes(1_500_000), config=Config(sack=sack), impairments=Impairments(delay=10_000))
    hole(pair, passes)
    pair.transfer(limit=60_000_000)
    mss = pair.a.conn.sender.mss
    assert 0.4 * passes < mss <= passes


def test_the_size_comes_back_after_an_outage():
    pair = Pair(a=bytes(3_000_000), impairments=Impairments(delay=10_000))
    start = pair.now + 50_000
    pair.drop = lambda end, piece, now: start <= now < start + 2_500_000
    pair.transfer(limit=60_000_000)
    assert pair.a.conn.sender.mss == MSS


def test_a_black_hole_that_opens_later_is_found():
    pair = Pair(a=bytes(3_000_000), impairments=Impairments(delay=10_000))
    hole(pair, 1300, since=pair.now + 100_000)
    pair.transfer(limit=60_000_000)
    assert 1300 - 8 <= pair.a.conn.sender.mss <= 1300


def test_without_detection_segments_stay_as_they_are():
    pair = Pair(a=bytes(100_000), config=Config(black_hole_detection=False, max_retransmissions=5))
    hole(pair, 1200)
    with pytest.raises(AssertionError):
        pair.transfer(limit=60_000_000)
    assert pair.a.conn.sender.mss == MSS
