"""What leaves: sizes, Nagle, windows, losses, timers."""

import pytest

from chimney.sim.model import NEVER
from tests.sim.model.hand import MSS, Hand, said


def test_sizes_follow_mss_mtu_and_options():
    def sizes(**settings):
        return len(Hand(**settings).write(bytes(10_000))[0].data)

    assert sizes() == 1460
    assert sizes(timestamps=True) == 1448
    assert sizes(mss=536) == 536
    assert sizes(ipv6=True) == 1440
    assert sizes(mtu=1280, ipv6=True, timestamps=True) == 1208
    hand = Hand(timestamps=True)
    hand.give(5000, b"abc", ts=(1, 1))
    assert len(hand.write(bytes(10_000))[0].data) == 1448 - 12, "a SACK block takes its part"


def test_a_smaller_mtu_counts_at_once():
    hand = Hand()
    hand.settings.mtu = 1000
    assert [len(s.data) for s in hand.write(bytes(2000))] == [960, 960, 80]


def test_slow_start_begins_with_ten_segments():
    hand = Hand()
    assert len(hand.write(bytes(30 * MSS))) == 10
    assert len(hand.give(ack=2 * MSS)) == 4
    assert len(hand.give(ack=4 * MSS)) == 4


def test_the_last_segment_is_pushed():
    assert said(Hand().write(bytes(MSS + 1))) == [f"A 0+{MSS} ack 0", f"PA {MSS}+1 ack 0"]


def test_nagle_keeps_back_what_is_small_while_something_is_in_flight():
    hand = Hand(nodelay=False)
    assert said(hand.write(b"a")) == ["PA 0+1 ack 0"]
    assert hand.write(b"b") == []
    assert hand.write(b"c") == []
    assert said(hand.give(ack=1)) == ["PA 1+2 ack 0"]
    assert hand.write(bytes(MSS - 1)) == []
    assert said(hand.write(b"de")) == [f"A 3+{MSS} ack 0"]


def test_nagle_does_not_keep_back_a_fin():
    hand = Hand(nodelay=False)
    hand.write(b"a")
    hand.write(b"b")
    assert said(hand.shutdown()) == ["FPA 1+1 ack 0"]


def test_small_pieces_of_a_large_window_are_not_sent():
    hand = Hand(send_window=4000)
    assert [len(s.data) for s in hand.write(bytes(10_000))] == [MSS, MSS]
    assert hand.give(ack=MSS, window=4000 - MSS) == []
    assert [len(s.data) for s in hand.give(ack=2 * MSS, window=4000)] == [MSS, MSS]


def test_half_of_the_largest_window_is_worth_sending():
    hand = Hand(send_window=1000)
    assert [len(s.data) for s in hand.write(bytes(2000))] == [1000]
    assert hand.give(ack=1000, window=499) == []
    assert [len(s.data) for s in hand.give(seq=0, ack=1000, window=500)] == [500]


def test_a_closed_window_is_probed_with_growing_patience():
    hand = Hand()
    hand.write(bytes(MSS))
    hand.give(ack=MSS, window=0)
    assert hand.tcp.poll_at() == NEVER
    assert hand.write(bytes(MSS)) == []
    times = []
    for _ in range(5):
        start = hand.now
        assert said(hand.wait()) == [f"A {MSS - 1}+0 ack 0"]
        times.append(hand.now - start)
        hand.give(ack=MSS, window=0)
    assert times[1:] == [2 * t for t in times[:-1]]
    assert 200_000 <= times[0] < 210_000
    assert said(hand.give(ack=MSS)) == [f"PA {MSS}+{MSS} ack 0"]
    hand.give(ack=2 * MSS, window=0)
    hand.write(b"x")
    hand.wait()
    assert hand.tcp.poll_at() - hand.now < 420_000, "patience is forgotten"


def test_probes_that_are_answered_go_on_for_ever_and_others_do_not():
    hand = Hand()
    hand.give(window=0)
    hand.write(b"x")
    for _ in range(40):
        hand.wait()
        hand.give(window=0)
    start = hand.now
    for _ in range(15):
        assert len(hand.wait()) == 1
    assert hand.wait() == []
    assert hand.now - start == 16 * 120_000_000
    with pytest.raises(TimeoutError):
        hand.write(b"x")
    assert hand.state == "CLOSE"


def test_after_a_while_a_small_window_is_used():
    hand = Hand()
    hand.give(1, b"x", window=100)
    assert hand.write(bytes(500)) == []
    assert [len(s.data) for s in hand.wait()] == [100]


def test_an_older_segment_does_not_take_back_the_window():
    hand = Hand()
    hand.give(100, b"x", window=50_000)
    hand.give(0, window=10)
    assert hand.tcp.sender.wnd == 50_000
    hand.give(100, window=0)
    assert hand.tcp.sender.wnd == 0
    hand.give(100, window=50_000)
    hand.give(100, window=40_000)
    assert hand.tcp.sender.wnd == 50_000, "windows do not shrink"
    hand.write(b"x")
    hand.give(0, window=10, ack=1)
    assert hand.tcp.sender.wnd == 10, "what acknowledges more is newer"


def test_time_outs_double_and_end():
    hand = Hand(srtt_us=10_000)
    hand.write(b"x")
    waits = []
    for _ in range(15):
        start = hand.now
        assert said(hand.wait()) == ["PA 0+1 ack 0"]
        waits.append(hand.now - start)
    assert waits[0] == 210_000
    assert waits[1:] == [min(2 * w, 120_000_000) for w in waits[:-1]]
    hand.wait()
    assert hand.state == "CLOSE" and hand.tcp.readable and hand.tcp.writable
    with pytest.raises(TimeoutError):
        hand.read()


def test_the_first_time_out_without_a_measurement_is_a_second():
    hand = Hand(srtt_us=0)
    hand.write(b"x")
    assert hand.tcp.poll_at() == hand.now + 1_000_000
    hand.now += 30_000
    hand.give(ack=1)
    hand.write(b"y")
    assert hand.tcp.poll_at() == hand.now + 30_000 + 200_000


def test_what_is_sent_again_is_not_measured():
    hand = Hand(srtt_us=0)
    hand.write(b"x")
    hand.wait()
    hand.now += 5_000_000
    hand.give(ack=1)
    assert hand.tcp.snapshot(hand.now).srtt_us == 0


def test_after_a_time_out_everything_goes_again_slowly():
    hand = Hand()
    hand.write(bytes(5 * MSS))
    assert said(hand.wait()) == [f"A 0+{MSS} ack 0"]
    assert said(hand.give(ack=MSS)) == [f"A {MSS}+{MSS} ack 0", f"A {2 * MSS}+{MSS} ack 0"]
    # The rest had only been late.
    assert hand.give(ack=5 * MSS) == []
    assert hand.tcp.poll_at() == NEVER


def test_three_duplicates_bring_a_retransmission():
    hand = Hand(sack=False)
    hand.write(bytes(6 * MSS))
    assert hand.give() == hand.give() == []
    assert said(hand.give()) == [f"A 0+{MSS} ack 0"]
    assert hand.give() == []
    assert said(hand.give(ack=2 * MSS)) == [f"A {2 * MSS}+{MSS} ack 0"], "a partial acknowledgement: the next hole"
    assert hand.give(ack=6 * MSS) == []
    assert hand.tcp.snapshot(hand.now).total_retrans == 2


def test_a_fast_retransmission_is_not_measured():
    hand = Hand(sack=False, srtt_us=0)
    hand.write(bytes(6 * MSS))
    for _ in range(3):
        hand.give()
    hand.now += 5_000
    hand.give(ack=6 * MSS)
    assert hand.tcp.snapshot(hand.now).srtt_us == 0


def test_duplicates_of_what_a_time_out_sends_again_bring_no_retransmission():
    hand = Hand(sack=False)
    hand.write(bytes(6 * MSS))
    hand.wait()
    hand.give(ack=MSS)
    for _ in range(5):
        assert hand.give(ack=MSS) == []
    assert hand.tcp.snapshot(hand.now).total_retrans == 3


def test_what_is_no_duplicate_brings_none():
    hand = Hand(sack=False)
    hand.write(bytes(6 * MSS))
    for n in range(6):
        hand.give(n, b"x")
    for n in range(6):
        assert hand.give(6, window=50_000 + n) == []
    assert hand.tcp.snapshot(hand.now).total_retrans == 0


def test_what_the_peer_has_is_not_sent_again():
    hand = Hand()
    hand.write(bytes(9 * MSS))
    hand.give(sack=[(MSS, 2 * MSS)])
    hand.give(sack=[(3 * MSS, 4 * MSS), (MSS, 2 * MSS)])
    sent = hand.give(sack=[(5 * MSS, 6 * MSS), (3 * MSS, 4 * MSS), (MSS, 2 * MSS)])
    assert [s.seq for s in sent] == [0]
    assert [s.seq for s in hand.give(sack=[(6 * MSS, 7 * MSS)])] == [2 * MSS]
    assert [s.seq for s in hand.give(sack=[(7 * MSS, 8 * MSS)])] == [4 * MSS]
    assert hand.give(sack=[(8 * MSS, 9 * MSS)]) == []
    assert hand.give(ack=2 * MSS, sack=[(3 * MSS, 4 * MSS), (5 * MSS, 9 * MSS)]) == []
    assert hand.give(ack=9 * MSS) == []


def test_a_block_with_much_data_is_as_good_as_three():
    hand = Hand()
    hand.write(bytes(9 * MSS))
    assert [s.seq for s in hand.give(sack=[(MSS, 5 * MSS)])] == [0]


def test_nonsense_in_blocks_is_no_news():
    hand = Hand()
    hand.write(bytes(5 * MSS))
    for block in ((-MSS, 0), (5 * MSS, 6 * MSS), (2 * MSS, MSS), (MSS, MSS), (1 << 31, (1 << 31) + 5)):
        assert hand.give(sack=[block]) == []
    assert hand.tcp.sender.sacked == []


def test_a_peer_that_forgets_what_it_had_gets_it_again():
    hand = Hand()
    hand.write(bytes(3 * MSS))
    hand.give(sack=[(MSS, 3 * MSS)])
    assert [s.seq for s in hand.wait()] == [0]
    assert [s.seq for s in hand.give(ack=MSS)] == [MSS, 2 * MSS]


def test_the_send_buffer_is_finite():
    hand = Hand(send_buffer=1000)
    assert hand.tcp.send(bytes(3000), hand.now) == 1000
    assert not hand.tcp.writable
    assert hand.tcp.send(b"x", hand.now) == 0
    hand.take()
    hand.give(ack=400)
    assert hand.tcp.writable
    assert hand.tcp.send(memoryview(bytes(3000)), hand.now) == 400


def test_what_has_changed_counts_when_it_is_looked_at():
    hand = Hand(nodelay=False)
    hand.write(b"a")
    hand.write(b"b")
    hand.settings.nodelay = True
    assert hand.take() == []
    hand.tcp.look_again()
    assert said(hand.take()) == ["PA 1+1 ack 0"]


def test_leaving_repair_mode_asks_for_the_window():
    hand = Hand()
    hand.give(0, b"abc", window=50_000)
    hand.take()
    hand.tcp.probe_window(hand.now)
    assert said(hand.take()) == ["A -1+0 ack 3"]
    hand.give(3, window=60_000)
    assert hand.tcp.sender.wnd == 60_000
