"""TCP_INFO of a connection of the engine: names and units are the kernel's."""

import dataclasses

from tcp_harness import Impairments, Pair, Peer

from chimney.tcp import ACK, FIN, Config, State
from chimney.tcp.info import OPTION_ECN, OPTION_ECN_SEEN, OPTION_SACK, OPTION_TIMESTAMPS, OPTION_WINDOW_SCALING, info
from chimney.tcp.segment import ECT_0

PLAIN = Config(timestamps=False)
FULL = 1460


def test_windows_are_in_segments_and_times_in_microseconds():
    peer = Peer(PLAIN, cwnd=10 * FULL, ssthresh=7 * FULL, srtt_us=20_000, rttvar_us=5_000)
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_snd_cwnd, seen.tcpi_snd_ssthresh, seen.tcpi_snd_mss) == (10, 7, FULL)
    assert (seen.tcpi_rtt, seen.tcpi_rttvar, seen.tcpi_rto, seen.tcpi_ato) == (20_000, 5_000, 220_000, 40_000)
    assert seen.tcpi_pmtu == 1500 and seen.tcpi_rcv_ssthresh == 65535 and seen.tcpi_snd_wnd == 65535


def test_a_threshold_that_is_not_set_reads_as_the_kernels():
    assert info(Peer(PLAIN).conn, 0).tcpi_snd_ssthresh == 0x7FFFFFFF


def test_states_have_the_kernels_numbers():
    peer = Peer(PLAIN)
    assert info(peer.conn, 0).tcpi_state == 1
    peer.give(0, flags=ACK | FIN)
    assert peer.conn.state == State.CLOSE_WAIT and info(peer.conn, 0).tcpi_state == 8
    peer.conn.close()
    peer.take()
    assert info(peer.conn, 0).tcpi_state == 9
    peer.give(1, 1)
    assert info(peer.conn, 0).tcpi_state == 7


def test_options_are_those_of_the_handshake():
    assert info(Peer(PLAIN).conn, 0).tcpi_options == OPTION_SACK | OPTION_WINDOW_SCALING
    every = Config(ecn=True)
    expected = OPTION_TIMESTAMPS | OPTION_SACK | OPTION_WINDOW_SCALING | OPTION_ECN
    peer = Peer(every)
    assert info(peer.conn, 0).tcpi_options == expected
    segment = peer.segment(0, data=b"x")
    segment.ecn = ECT_0
    peer.conn.process(segment, 0)
    assert info(peer.conn, 0).tcpi_options == expected | OPTION_ECN_SEEN


def test_the_segments_of_both_directions_have_sizes_of_their_own():
    peer = Peer(Config(remote_mss=536))
    seen = info(peer.conn, 0)
    assert (seen.tcpi_snd_mss, seen.tcpi_rcv_mss, seen.tcpi_advmss) == (524, 524, 1448)
    peer.give(0, data=bytes(1448), ts=(1, 0))
    peer.give(1448, data=b"x", ts=(1, 0))
    seen = info(peer.conn, 0)
    assert (seen.tcpi_snd_mss, seen.tcpi_rcv_mss, seen.tcpi_advmss) == (524, 1448, 1448)


def test_what_is_in_flight_covered_lost_and_sent_again():
    peer = Peer(PLAIN, cwnd=20 * FULL)
    peer.conn.send(memoryview(bytes(10 * FULL)))
    peer.take()
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_unacked, seen.tcpi_sacked, seen.tcpi_lost, seen.tcpi_ca_state) == (10, 0, 0, 0)
    peer.now += 10_000
    for number in (2, 3, 4, 5):
        peer.give(0, 0, sack=[(FULL, number * FULL)])
    peer.take()
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_unacked, seen.tcpi_sacked, seen.tcpi_lost, seen.tcpi_ca_state) == (10, 4, 1, 3)
    assert (seen.tcpi_retrans, seen.tcpi_total_retrans, seen.tcpi_bytes_retrans) == (1, 1, FULL)
    assert seen.tcpi_delivered == 4
    peer.now += 10_000
    peer.give(0, 10 * FULL)
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_unacked, seen.tcpi_lost, seen.tcpi_retrans, seen.tcpi_bytes_acked) == (0, 0, 0, 10 * FULL)


def test_how_long_ago_is_in_milliseconds():
    peer = Peer(PLAIN)
    peer.now += 1_000_000
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_last_data_recv, seen.tcpi_last_ack_recv, seen.tcpi_last_data_sent) == (1000, 1000, 1000)
    peer.give(0, data=b"x")
    peer.now += 5_000
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_last_data_recv, seen.tcpi_last_ack_recv, seen.tcpi_last_data_sent) == (5, 5, 1005)
    peer.conn.send(memoryview(b"y"))
    peer.take()
    assert info(peer.conn, peer.now).tcpi_last_data_sent == 0


def test_what_the_time_is_spent_with():
    peer = Peer(PLAIN, cwnd=10 * FULL, snd_wnd=FULL, max_snd_wnd=1 << 16)
    peer.now += 1_000
    assert info(peer.conn, peer.now).tcpi_busy_time == 0
    peer.conn.send(memoryview(bytes(2 * FULL)))
    peer.take()
    peer.now += 3_000
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_busy_time, seen.tcpi_rwnd_limited, seen.tcpi_sndbuf_limited) == (3_000, 3_000, 0)
    peer.give(0, FULL)
    peer.take()
    peer.conn.set_starved(True)
    peer.take()
    peer.now += 2_000
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_busy_time, seen.tcpi_rwnd_limited, seen.tcpi_sndbuf_limited) == (5_000, 3_000, 2_000)
    peer.conn.set_starved(False)
    peer.give(0, 2 * FULL)
    peer.take()
    peer.now += 7_000
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_busy_time, seen.tcpi_rwnd_limited, seen.tcpi_sndbuf_limited) == (5_000, 3_000, 2_000)


def test_after_a_time_out_and_while_probing():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(b"x"))
    peer.take()
    while info(peer.conn, peer.now).tcpi_retransmits < 2:
        peer.wait()
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_ca_state, seen.tcpi_backoff, seen.tcpi_probes) == (4, 2, 0)
    assert seen.tcpi_rto == 4 * 210_000
    peer = Peer(PLAIN, snd_wnd=0)
    peer.conn.send(memoryview(b"x"))
    peer.take()
    while not peer.conn.stats.window_probes:
        peer.wait()
    seen = info(peer.conn, peer.now)
    assert (seen.tcpi_probes, seen.tcpi_retransmits) == (1, 0)


def test_counters_of_a_transfer_agree_on_both_sides():
    pair = Pair(a=bytes(300_000), impairments=Impairments(loss=0.02))
    pair.transfer()
    sender, receiver = info(pair.a.conn, pair.now), info(pair.b.conn, pair.now)
    assert receiver.tcpi_bytes_received == 300_000
    assert sender.tcpi_bytes_sent - sender.tcpi_bytes_retrans == 300_000
    assert sender.tcpi_data_segs_out >= receiver.tcpi_data_segs_in > 200
    assert sender.tcpi_total_retrans > 0 and receiver.tcpi_rcv_ooopack > 0
    assert 0 < sender.tcpi_min_rtt <= sender.tcpi_rtt
    assert all(isinstance(value, int) and value >= 0 for value in dataclasses.asdict(sender).values())
