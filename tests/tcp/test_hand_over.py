"""Taking over and giving back: possibly sent bytes, windows, probes, and the state of export()."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_harness import MASK, Peer

from chimney.tcp import NEVER, Config, Connection, Segment, Tcb, parse_segment

PLAIN = Config(timestamps=False)
FULL = 1460


def data(size):
    return memoryview(bytes(i % 251 for i in range(size)))


def test_what_is_in_flight_is_not_sent_again_and_what_follows_is():
    peer = Peer(PLAIN, snd_nxt=1000, snd_max=1800)
    peer.conn.send(data(600))
    peer.conn.send(data(800))
    peer.conn.send(data(600))
    (sent,) = peer.take()
    assert (sent.seq, sent.length) == (1000, 1000) and peer.conn.stats.retransmitted_bytes == 800
    assert peer.conn.stats.bytes_out == 200
    assert peer.conn.snd_max - peer.iss == 2000


def test_acknowledgements_of_possibly_sent_bytes_are_taken():
    peer = Peer(PLAIN, snd_nxt=100, snd_max=1000)
    peer.conn.send(data(1000))
    peer.give(0, 700)
    assert peer.conn.acked == 700 and [(s.seq, s.length) for s in peer.take()] == [(700, 300)]


def test_the_retransmission_timer_starts_if_something_is_in_flight():
    peer = Peer(Config(timestamps=False, sack=False), snd_nxt=100, snd_max=100)
    peer.conn.send(data(100))
    assert peer.take() == [] and peer.conn.poll_at() == peer.conn.sender.rtt.rto()
    assert [(s.seq, s.length) for s in peer.wait()] == [(0, 100)]


def test_persist_mode_is_taken_over():
    peer = Peer(PLAIN, snd_wnd=0, snd_wnd_probe_count=2, retransmit_count=1, retransmit_left_us=5_000)
    peer.conn.send(data(100))
    assert peer.take() == [] and peer.conn.poll_at() == 5_000
    assert [s.length for s in peer.wait()] == [1]
    tcb = peer.conn.export(peer.now)
    assert (tcb.snd_wnd_probe_count, tcb.retransmit_count) == (2, 2)
    assert tcb.retransmit_left_us == 2 * peer.conn.sender.rtt.rto()


def test_a_persist_timer_that_was_taken_over_without_data_gives_nothing_up():
    peer = Peer(PLAIN, snd_wnd=0, retransmit_count=15, retransmit_left_us=5_000)
    assert peer.take() == [] and peer.wait() == []
    assert peer.conn.events == [] and peer.conn.poll_at() == NEVER
    peer.conn.send(data(100))
    assert [s.length for s in peer.wait()] == [1]


def test_an_idle_connection_exports_what_it_was_given():
    tcb = Tcb(
        state=7, rcv_nxt=5, rcv_wnd=40_000, snd_una=0xFFFFFFFF, snd_nxt=0xFFFFFFFF, snd_max=0xFFFFFFFF, snd_wnd=3000,
        max_snd_wnd=9000, snd_wl1=4, cwnd=14_600, ssthresh=20_000, srtt_us=123, rttvar_us=45, ts_recent=9,
        ts_recent_age_us=70, ts_time=99, dup_ack_count=1, keepalive_probe_count=1, keepalive_left_us=50,
    )  # fmt: skip
    peer_config = Config(keepalive_us=10)
    assert Connection(peer_config, tcb, 1_000).export(1_000) == tcb


def test_progress_shows_in_the_export():
    peer = Peer(PLAIN)
    peer.conn.send(data(3000))
    peer.take()
    peer.give(0, 1460, data=b"abc", window=500)
    tcb = peer.conn.export(10)
    assert (tcb.snd_una, tcb.snd_nxt, tcb.snd_max) == (peer.iss + 1460, peer.iss + 3000, peer.iss + 3000)
    assert (tcb.rcv_nxt, tcb.snd_wnd, tcb.max_snd_wnd, tcb.undelivered) == (peer.irs + 3, 500, 65535, 3)
    assert tcb.retransmit_left_us == peer.conn.sender.rtt.rto() - 10


def test_a_nonsensical_wl1_does_not_freeze_the_window():
    peer = Peer(PLAIN, snd_wnd=100, snd_wl1=50_000)
    peer.give(0, 0, window=2000)
    assert peer.conn.snd_wnd == 2000


def test_a_new_engine_has_nothing_to_say():
    peer = Peer(PLAIN)
    assert peer.conn.poll_at() == 0 and peer.take() == [] and peer.conn.poll_at() == NEVER


u32 = st.integers(0, MASK)
near = st.integers(-70_000, 70_000)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(near | u32, near | u32, st.integers(0, 255), st.integers(0, 65535), st.sampled_from([0, 1, 1460]),
                  st.none() | st.tuples(u32, u32), st.lists(st.tuples(near, near), max_size=3)),
        max_size=40,
    ),
    st.integers(4, 9),
    st.booleans(),
    st.sampled_from([0, MASK - 500]),
)  # fmt: skip
def test_no_segment_raises_or_breaks_the_state(script, state, sack, iss):
    fin = int(state in (5, 8, 9))
    peer = Peer(Config(sack=sack), state=state, iss=iss, irs=iss, snd_nxt=fin, snd_max=fin)
    if state in (4, 7):
        peer.conn.send(data(100_000))
    una = rcv = edge = 0
    for n, (at, ack, flags, window, size, ts, blocks) in enumerate(script):
        peer.give(at, ack, data(size), flags & ~6 if n % 3 else flags, window, 1, ts, blocks)
        for sent in peer.take():
            assert sent.ack >= rcv and sent.ack + sent.window >= edge
            rcv, edge = sent.ack, sent.ack + sent.window
        now_una = (peer.conn.snd_una - iss) & MASK
        assert una <= now_una <= 100_001
        una = now_una
        peer.conn.received.clear()
        tcb = peer.conn.export(peer.now)
        assert all(isinstance(v, int) for v in dataclasses.asdict(tcb).values())
        peer.now += 10_000


def test_payload_views_are_not_copied():
    peer = Peer(PLAIN)
    out = Segment()
    out.seq, out.ack, out.flags = peer.irs, peer.iss, 16
    frame = bytearray(out.header_bytes() + b"abc")
    peer.conn.process(parse_segment(memoryview(frame)), 0)
    frame[-1] = ord("x")
    assert bytes(peer.conn.received[0][0]) == b"abx"
