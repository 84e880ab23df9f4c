"""Explicit congestion notification (RFC 3168), on both sides of a connection."""

import dataclasses

import pytest
from tcp_harness import Impairments, Pair, Peer

from chimney.tcp import ACK, CWR, ECE, Config
from chimney.tcp.segment import CE, ECT_0, NOT_ECT

WITH = Config(timestamps=False, ecn=True)
WITHOUT = Config(timestamps=False)
FULL = 1460


def give(peer, *args, ecn=ECT_0, **kwargs):
    segment = peer.segment(*args, **kwargs)
    segment.ecn = ecn
    peer.conn.process(segment, peer.now)


def sent(peer):
    """(ecn, ECE, CWR, payload) of all that leaves now."""
    found = []
    while (segment := peer.conn.dispatch(peer.now)) is not None:
        found.append((segment.ecn, bool(segment.flags & ECE), bool(segment.flags & CWR), segment.payload_length))
    return found


def test_new_data_is_ecn_capable_and_an_acknowledgement_is_not():
    peer = Peer(WITH)
    peer.conn.send(memoryview(bytes(100)))
    assert sent(peer) == [(ECT_0, False, False, 100)]
    give(peer, 0, 100, data=b"x")
    assert sent(peer) == [(NOT_ECT, False, False, 0)]


def test_what_is_sent_again_is_not_ecn_capable():
    peer = Peer(WITH)
    peer.conn.send(memoryview(bytes(100)))
    sent(peer)
    peer.now += 10_000_000
    assert sent(peer)[0] == (NOT_ECT, False, False, 100)


def test_a_probe_of_a_closed_window_is_not_ecn_capable():
    peer = Peer(WITH, snd_wnd=0)
    peer.conn.send(memoryview(bytes(100)))
    assert {packet[0] for packet in (sent(peer) or [])} <= {NOT_ECT}
    for _ in range(3):
        peer.now = max(peer.now, peer.conn.poll_at())
        assert {packet[0] for packet in sent(peer)} <= {NOT_ECT}


@pytest.mark.parametrize("config", [WITH, WITHOUT])
def test_a_mark_is_echoed_until_the_sender_has_reacted(config):
    peer = Peer(config)
    on = config.ecn
    give(peer, 0, data=b"a", ecn=CE)
    assert sent(peer) == [(NOT_ECT, on, False, 0)]
    give(peer, 1, data=b"b")
    assert sent(peer) == [(NOT_ECT, on, False, 0)]
    peer.conn.send(memoryview(b"data"))
    assert [packet[1] for packet in sent(peer)] == [on]
    give(peer, 2, 4, data=b"c", flags=ACK | CWR)
    peer.now += 100_000
    assert sent(peer) == [(NOT_ECT, False, False, 0)]


def test_a_mark_on_the_segment_with_cwr_counts_again():
    peer = Peer(WITH)
    give(peer, 0, data=b"a", ecn=CE)
    sent(peer)
    give(peer, 1, data=b"b", flags=ACK | CWR, ecn=CE)
    assert [packet[1] for packet in sent(peer)] == [True]


def test_marks_beside_the_window_and_on_acknowledgements_do_not_count():
    peer = Peer(WITH)
    give(peer, 0, ecn=CE)
    give(peer, 100_000, data=b"far", ecn=CE)
    give(peer, -100, data=b"old", ecn=CE)
    assert not peer.conn.ecn.echoing and not any(packet[1] for packet in sent(peer))


def test_the_begin_of_congestion_does_not_wait_for_the_delay():
    peer = Peer(dataclasses.replace(WITH, quick_acks=0))
    give(peer, 0, data=b"a")
    assert sent(peer) == []
    give(peer, 1, data=b"b")
    sent(peer)
    give(peer, 2, data=b"c", ecn=CE)
    assert sent(peer) == [(NOT_ECT, True, False, 0)]


def test_a_merged_frame_with_a_mark_counts_as_its_segments():
    peer = Peer(WITH)
    give(peer, 0, data=bytes(3000), segments=3, ecn=CE)
    assert peer.conn.ecn.received_ce == 3


def test_an_echo_reduces_the_window_once_and_the_next_new_data_says_so():
    peer = Peer(WITH, cwnd=20 * FULL, snd_wnd=1 << 20, max_snd_wnd=1 << 20)
    peer.conn.send(memoryview(bytes(100 * FULL)))
    sent(peer)
    before = peer.conn.cwnd
    said = []
    for number in range(1, 20):
        peer.now += 1000
        give(peer, 0, number * FULL, flags=ACK | ECE)
        said += sent(peer)
    assert 0.5 * before <= peer.conn.cwnd <= 0.75 * before
    new = [packet for packet in said if packet[3]]
    assert [packet[2] for packet in new] == [True] + [False] * (len(new) - 1)
    assert peer.conn.stats.retransmitted_segments == 0
    # The next window of data is another matter.
    reduced = peer.conn.cwnd
    for number in range(20, 24):
        peer.now += 1000
        give(peer, 0, number * FULL, flags=ACK | ECE)
        said += sent(peer)
    assert peer.conn.cwnd < reduced
    assert peer.conn.ecn.delivered_ce > 0


def test_without_ecn_an_echo_means_nothing():
    peer = Peer(WITHOUT, cwnd=20 * FULL, snd_wnd=1 << 20, max_snd_wnd=1 << 20)
    peer.conn.send(memoryview(bytes(100 * FULL)))
    sent(peer)
    give(peer, 0, FULL, flags=ACK | ECE)
    assert peer.conn.cwnd >= 20 * FULL


@pytest.mark.parametrize("merge", [False, True])
def test_two_engines_reduce_without_loss_where_a_router_marks(merge):
    """The stream is whole, cwnd stays small, and nothing is sent twice."""
    config = Config(ecn=True, initial_rcv_wnd=1 << 20, rcv_wscale=8, snd_wscale=8)
    pair = Pair(a=bytes(3_000_000), config=config, impairments=Impairments(mark=0.05, merge=merge))
    pair.transfer()
    sender = pair.a.conn
    assert sender.stats.retransmitted_segments == 0
    assert sender.ecn.delivered_ce > 10 and pair.b.conn.ecn.received_ce > 10
    assert sender.sender.congestion.ssthresh < 1 << 18
