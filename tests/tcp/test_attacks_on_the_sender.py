"""The classic bugs of new TCPs, and what attackers made of them: what is sent, when and how much."""


import pytest
from attack_tools import DAY, HOUR, PLAIN, bounded, data, fragments, still_works
from tcp_harness import MASK, Impairments, Pair, Peer

from chimney.tcp import (
    NEVER,
    UNLIMITED,
    UNSET_SSTHRESH,
    Config,
    State,
)
from fuzz.work import Work

# 2. Tiny segments


@pytest.mark.parametrize("remote_mss", [0, 1, 8, 47])
@pytest.mark.parametrize("timestamps", [False, True])
def test_a_tiny_mss_is_an_attack(remote_mss, timestamps):
    peer = Peer(Config(timestamps=timestamps, remote_mss=remote_mss), cwnd=1 << 20)
    peer.conn.send(memoryview(data(60_000)))
    assert peer.conn.mss >= 36
    sent = peer.take()
    assert sum(s.length for s in sent) == 60_000 and sum(s.segments for s in sent) <= 60_000 // 36 + len(sent)


@pytest.mark.parametrize("mtu", [0, 1, 40, 68])
@pytest.mark.parametrize("ipv6", [False, True])
def test_a_tiny_path_mtu_is_one_too(mtu, ipv6):
    peer = Peer(Config(ipv6=ipv6))
    peer.conn.send(memoryview(data(3000)))
    peer.take()
    peer.conn.update_path_mtu(mtu)
    assert peer.conn.mss >= 36
    for _ in range(200):
        if peer.conn.acked == 3000:
            return
        for sent in peer.take() or peer.wait():
            peer.give(0, sent.seq + sent.length, ts=(1, sent.ts[0]))
    raise AssertionError("stuck")


# 3. Selective acknowledgements

ABSURD = [
    (0, 0), (5, 5), (700, 600), (-10, -5), (-5, 0), (0, 1), (2**31, 2**31 + 5), (-(2**31), 2**31 - 1), (1, 2**31),
    (1, 2**32 - 1), (100_000, 100_001), (2**31 - 1, 2**31), (14_600, 14_601), (1, 14_601),
]  # fmt: skip


@pytest.mark.parametrize("block", ABSURD)
@pytest.mark.parametrize("iss", [1000, MASK - 7000, 2**31 - 7000])
def test_absurd_blocks_change_nothing(block, iss):
    peer = Peer(PLAIN, iss=iss)
    peer.conn.send(memoryview(data(14_600)))
    peer.take()
    before = peer.conn.export(0)
    for _ in range(20):
        peer.give(sack=[block, block])
    peer.take()
    after = peer.conn.export(0)
    assert (after.snd_una, after.snd_max, after.rcv_nxt) == (before.snd_una, before.snd_max, before.rcv_nxt)
    peer.give(0, 14_600)
    assert peer.conn.acked == 14_600
    still_works(peer, 0, 14_600)


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
@pytest.mark.parametrize("mss", [48, 1460])
def test_thousands_of_tiny_blocks_cost_little(order, mss):
    """CVE-2019-11478 and CVE-2019-5599: neither what is kept nor the work for one segment may grow with them."""
    peer = Peer(Config(timestamps=False, remote_mss=mss, max_rt_us=UNLIMITED), snd_wnd=1 << 20, cwnd=1 << 20)
    peer.conn.send(memoryview(data(1 << 18)))
    sent = peer.take()
    work, most = Work(), 0
    for place in fragments(order):
        segment = peer.segment(sack=[(place, place + 1)])
        before = work.lines
        with work:
            peer.conn.process(segment, peer.now)
            while peer.conn.dispatch(peer.now) is not None:
                pass
        most = max(most, work.lines - before)
    bounded(peer, 20_000)
    assert most <= 40_000 and work.lines <= 600 * 4_000
    assert sent and peer.conn.acked == 0
    peer.give(0, 1 << 18)
    assert peer.conn.acked == 1 << 18


def test_four_blocks_of_which_each_reports_the_same():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(data(14_600)))
    peer.take()
    for _ in range(100):
        peer.give(sack=[(1460, 2920)] * 4)
    peer.take()
    peer.give(0, 14_600)
    assert peer.conn.acked == 14_600


def test_a_peer_that_covers_everything_and_acknowledges_nothing_gets_it_again():
    """RFC 2018, 8: what is covered may be thrown away, and the time-out forgets it."""
    peer = Peer(Config(timestamps=False, max_rt_us=UNLIMITED))
    peer.conn.send(memoryview(data(4380)))
    peer.take()
    peer.give(sack=[(1, 4380)])
    got = set()
    for _ in range(30):
        for sent in peer.wait():
            got |= set(range(sent.seq, sent.seq + sent.length))
        if len(got) == 4380:
            break
        peer.give(0, next(n for n in range(4381) if n not in got))
    assert len(got) == 4380


def test_duplicates_reported_for_what_was_never_sent_take_no_reduction_back():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(data(29_200)))
    peer.take()
    cwnd = peer.conn.cwnd
    for n in range(1, 6):
        peer.give(0, 0, sack=[(1460, 1460 * (n + 1))])
    peer.take()
    for n in range(50):
        peer.give(0, 0, sack=[(-1000 - n, -900 - n), (1460, 8760)])
    assert peer.conn.sender.congestion.ssthresh < cwnd


# 7. Windows that go back


def test_an_overtaken_segment_does_not_take_the_window_back():
    """SND.WL1 and SND.WL2: the window of the segment that was sent last counts, whenever it arrives."""
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(data(100_000)))
    peer.take()
    peer.give(10, 2920, data(10), window=5000)
    peer.give(0, 1460, data(10), window=60_000)
    assert peer.conn.snd_wnd == 5000 and peer.conn.acked == 2920
    peer.give(20, 2920, window=7000)
    assert peer.conn.snd_wnd == 7000


@pytest.mark.parametrize("window", [0, 1, 1459, 1460, 4000])
def test_a_window_that_shrinks_below_what_is_under_way(window):
    """RFC 9293, 3.8.6, SHLD-14 to 16: nothing new is sent, nothing gets lost, no number becomes negative."""
    peer = Peer(Config(timestamps=False, max_rt_us=UNLIMITED))
    peer.conn.send(memoryview(data(50_000)))
    before = peer.take()
    top = max(s.seq + s.length for s in before)
    peer.give(0, 1460, window=window)
    for _ in range(12):
        for sent in peer.wait():
            assert not sent.rst and sent.length >= 0
            assert sent.length == 0 or sent.seq + sent.length <= max(top, 1460 + window) + 1
    for _ in range(400):
        if peer.conn.acked == 50_000:
            break
        for sent in peer.take() or peer.wait():
            top = max(top, sent.seq + sent.length)
        peer.give(0, top, data=b"", window=60_000)
    assert peer.conn.acked == 50_000


def test_a_window_that_opens_and_closes_with_each_segment():
    """What is lost to a closed window is no congestion, and the work stays small."""
    peer = Peer(Config(timestamps=False, max_rt_us=UNLIMITED))
    peer.conn.send(memoryview(data(200_000)))
    work = Work()
    with work:
        for n in range(500):
            peer.give(n, 0, b"x", window=0 if n % 2 else 65_535)
            peer.take()
    assert work.lines < 500 * 8_000 and peer.conn.state == State.ESTABLISHED
    bounded(peer, 2_000)
    assert peer.conn.sender.congestion.ssthresh == UNSET_SSTHRESH


# 11. Clocks, timers and arithmetic


def test_a_back_off_that_goes_on_for_ever_stays_at_its_maximum():
    peer = Peer(Config(timestamps=False, max_rt_us=UNLIMITED))
    peer.conn.send(memoryview(data(100)))
    peer.take()
    for _ in range(400):
        before = peer.now
        assert peer.wait() is not None
        assert 0 < peer.now - before <= peer.config.max_rto_us
    assert peer.conn.export(peer.now).retransmit_count == 255
    peer.give(0, 100)
    assert peer.conn.acked == 100
    peer.conn.send(memoryview(data(100)))
    peer.take()
    assert peer.conn.poll_at() - peer.now < 2_000_000


@pytest.mark.parametrize("count", [16, 64, 255])
@pytest.mark.parametrize("srtt", [0, 1, 60_000_000, 2**40])
def test_a_back_off_that_was_handed_over_does_not_overflow(count, srtt):
    config = Config(timestamps=False, max_rt_us=UNLIMITED)
    peer = Peer(config, retransmit_count=count, srtt_us=srtt, rttvar_us=srtt // 2, snd_nxt=100, snd_max=100)
    peer.conn.send(memoryview(data(100)))
    for _ in range(5):
        before = peer.now
        peer.wait()
        assert 0 <= peer.now - before <= config.max_rto_us
    peer.give(0, 100)
    assert peer.conn.acked == 100


@pytest.mark.parametrize("jump", [HOUR, DAY, 24 * DAY, 25 * DAY, 400 * DAY])
@pytest.mark.parametrize("timestamps", [False, True])
def test_a_machine_that_slept_for_days_goes_on(jump, timestamps):
    """A suspended virtual machine: the next call comes days later, with data outstanding both ways."""
    config = Config(timestamps=timestamps, max_rt_us=UNLIMITED, keepalive_us=HOUR * 2, keepalive_probes=9)
    pair = Pair(a=data(100_000), b=data(60_000), config=config)
    pair.run(lambda: pair.a.conn.acked > 20_000)
    pair.now += jump
    if timestamps:
        # Our clock has gone round, or further than half way: not backwards.
        for end in (pair.a, pair.b):
            end.check = lambda segment: None
    pair.transfer()
    assert pair.a.conn.cwnd < 1 << 24


@pytest.mark.parametrize("jump", [60_000_000, HOUR, 5 * DAY])
@pytest.mark.parametrize("pacing", [False, True])
def test_the_time_that_a_machine_slept_is_no_round_trip(jump, pacing):
    """It would be the one that segments are paced by from then on: megabytes took hours."""
    config = Config(max_rt_us=UNLIMITED, pacing=pacing, rcv_wscale=7, snd_wscale=7, initial_rcv_wnd=1 << 20)
    pair = Pair(a=data(300_000) * 4, config=config, impairments=Impairments(delay=20_000))
    pair.run(lambda: pair.a.conn.acked > 100_000)
    pair.flush()
    pair.now += jump
    start = pair.now
    pair.transfer()
    assert pair.now - start < 2_000_000 and pair.a.conn.sender.rtt.srtt < 200_000


@pytest.mark.parametrize("congestion", ["cubic", "reno"])
@pytest.mark.parametrize("cwnd", [1, 1460, 1 << 30, 2**31 - 1, 2**40])
@pytest.mark.parametrize("ssthresh", [0, 1, 2**31 - 1])
def test_congestion_windows_do_not_overflow(congestion, cwnd, ssthresh):
    """CUBIC's cube of a long time, a window of nonsense, an acknowledgement after days."""
    config = Config(timestamps=False, congestion=congestion, snd_wscale=14, max_rt_us=UNLIMITED)
    peer = Peer(config, cwnd=cwnd, ssthresh=ssthresh, snd_wnd=1 << 30)
    acked = 0
    for n in range(30):
        peer.conn.send(memoryview(data(65_000)))
        top = max([s.seq + s.length for s in peer.take()] or [acked])
        peer.now += 30 * DAY if n % 10 == 5 else 50_000
        before = peer.conn.cwnd
        if n % 9 == 8:
            peer.take()
        else:
            peer.give(0, top, window=60_000)
            acked = top
        assert 1 <= peer.conn.cwnd <= max(before, 1460) + 65_000 * 31 + 10 * 1460
        assert 0 <= peer.conn.sender.congestion.ssthresh <= 2**62


def test_a_coarse_clock_does_not_stall_recovery():
    """gVisor 14492: with ticks of 10 ms all of a flight seems to be sent, and acknowledged, at one moment."""
    impairments = Impairments(loss=0.03, delay=10_000, reorder=0.05, extra=10_000)
    pair = Pair(3, a=data(300_000), config=Config(max_rt_us=UNLIMITED), impairments=impairments)
    original = pair.step

    def step():
        pair.now = -(-pair.now // 10_000) * 10_000
        return original()

    pair.step = step
    start = pair.now
    pair.transfer()
    assert pair.now - start < 60_000_000


# 12. Spurious recovery


def test_neighbours_that_change_places_do_not_cost_the_window():
    """Tailscale 20893: uploads were five times slower over a path that swaps neighbours."""
    pair = Pair(5, a=data(300_000) * 4, impairments=Impairments(delay=10_000, reorder=0.05, extra=2_000))
    start = pair.now
    pair.transfer()
    swapped = pair.now - start
    pair = Pair(5, a=data(300_000) * 4, impairments=Impairments(delay=10_000))
    start = pair.now
    pair.transfer()
    assert swapped <= 3 * (pair.now - start)


# 13. Standing still


@pytest.mark.parametrize("window", [1, 40, 500, 1448, 1449, 2000, 4000])
@pytest.mark.parametrize("nagle", [False, True])
def test_small_windows_nagle_and_delayed_acknowledgements_do_not_wait_for_each_other(window, nagle):
    config = Config(nagle=nagle, initial_rcv_wnd=window, ack_frequency=2)
    size = min(20 * window, 20_000)
    pair = Pair(a=data(size), b=data(size), config=config, impairments=Impairments(delay=1_000))
    start = pair.now
    pair.transfer()
    # Each round may have to wait for a delayed acknowledgement, but not for a time-out.
    assert pair.now - start < 60 * 250_000


@pytest.mark.parametrize("sizes", [(1, 1), (1460, 1), (1, 1460, 1), (100, 100, 100)])
def test_writes_followed_by_a_read_wait_for_one_delayed_acknowledgement_at_most(sizes):
    """The classic: two small writes, Nagle here, a delayed acknowledgement there."""
    pair = Pair(a=b"", config=Config(nagle=True), impairments=Impairments(delay=100))
    total = 0
    for size in sizes:
        pair.a.outgoing += data(size, total)
        total += size
        pair.flush()
    start = pair.now
    pair.run(lambda: len(pair.b.received) == total)
    assert pair.now - start <= 50_000 * len(sizes)


def test_a_closed_window_is_probed_for_as_long_as_the_peer_answers():
    """RFC 9293, 3.8.6.1, MUST-37: days are nothing, whatever the limit of retransmissions is."""
    peer = Peer(Config(timestamps=False, max_retransmissions=3))
    peer.conn.send(memoryview(data(5000)))
    peer.take()
    peer.give(0, 1460, window=0)
    probes = 0
    while peer.now < 7 * DAY:
        for sent in peer.wait():
            probes += 1
            assert sent.length <= 1 and not sent.rst
        peer.give(0, 1460, window=0)
    assert peer.conn.events == [] and probes > 1000
    peer.give(0, 1460, window=65_535)
    assert sum(s.length for s in peer.take()) >= 3540


def test_a_lost_window_update_is_found_out():
    """The peer opens its window, and the segment that says so is lost: a probe asks again."""
    pair = Pair(a=data(30_000), config=Config(initial_rcv_wnd=4000))
    pair.b.reading = False
    pair.run(lambda: pair.b.unread == 4000)
    lost = []
    pair.drop = lambda end, piece, now: end is pair.b and not lost and not lost.append(piece)
    pair.b.reading = True
    pair.b.collect()
    pair.transfer()
    assert lost


def test_a_closed_window_without_data_needs_no_timer():
    peer = Peer(PLAIN)
    peer.give(0, 0, b"x", window=0)
    peer.take()
    peer.wait() if peer.conn.poll_at() < NEVER else None
    assert peer.conn.poll_at() == NEVER
    peer.conn.send(memoryview(data(10)))
    peer.take()
    assert peer.conn.poll_at() < NEVER


def test_a_path_that_takes_larger_segments_does_not_hold_up_what_is_lost():
    """A train of the old, small segments is less than one of the new ones."""
    config = Config(timestamps=False, path_mtu=88, max_rt_us=UNLIMITED, tail_loss_probes=False)
    peer = Peer(config, cwnd=480, snd_nxt=2500, snd_max=2500)
    peer.conn.send(memoryview(data(2500)))
    assert peer.take() == []
    peer.conn.update_path_mtu(1500)
    assert [(s.seq, s.length) for s in peer.take() + peer.wait()][:1] == [(0, 1460)]


def test_a_round_trip_of_days_makes_no_timer_wait_for_days():
    """The machine slept while something was under way; then the peer covers the head and does not acknowledge it."""
    peer = Peer(Config(timestamps=False, max_rt_us=UNLIMITED))
    peer.conn.send(memoryview(data(5840)))
    peer.take()
    peer.now += 5 * DAY
    peer.give(0, 1460)
    peer.take()
    peer.give(0, 1460, sack=[(2920, 4380)])
    peer.take()
    peer.give(0, 2920)
    peer.take()
    assert peer.now < peer.conn.poll_at() <= peer.now + peer.config.max_rto_us
