"""How connections end, one half after the other or at once, and snapshots of every state."""

import pytest

from chimney.sim.model import FIN, NEVER, RST
from tests.sim.model.hand import Hand, said


def test_the_active_side():
    hand = Hand()
    hand.write(b"abc")
    assert said(hand.shutdown()) == ["FA 3+0 ack 0"]
    assert hand.state == "FIN_WAIT1"
    with pytest.raises(BrokenPipeError):
        hand.tcp.send(b"x", hand.now)
    assert hand.give(ack=3) == []
    assert hand.state == "FIN_WAIT1"
    hand.give(ack=4)
    assert hand.state == "FIN_WAIT2" and hand.tcp.poll_at() == NEVER
    hand.give(0, b"late", ack=4)
    assert hand.read() == b"late"
    assert said(hand.give(4, flags=FIN, ack=4)) == ["A 4+0 ack 5"]
    assert hand.state == "TIME_WAIT"
    assert hand.read() == b""
    hand.wait(30_000_000)
    assert said(hand.give(4, flags=FIN, ack=4)) == ["A 4+0 ack 5"]
    hand.wait(59_999_999)
    assert hand.state == "TIME_WAIT", "a FIN that comes again restarts it"
    assert hand.wait(1) == []
    assert hand.state == "CLOSE"


def test_the_passive_side():
    hand = Hand()
    assert hand.give(0, b"abc", flags=FIN) == [], "the acknowledgement may wait for our FIN"
    assert hand.state == "CLOSE_WAIT"
    assert (hand.read(), hand.read()) == (b"abc", b"")
    assert said(hand.write(b"more")) == ["PA 0+4 ack 4"]
    assert said(hand.shutdown()) == ["FA 4+0 ack 4"]
    assert hand.state == "LAST_ACK"
    assert hand.give(4, ack=5) == []
    assert hand.state == "CLOSE" and hand.tcp.error is None
    assert hand.read() == b""
    with pytest.raises(OSError, match="not connected"):
        hand.tcp.shutdown(hand.now)


def test_both_at_once():
    hand = Hand()
    hand.shutdown()
    assert said(hand.give(0, flags=FIN, ack=0)) == ["A 1+0 ack 1"]
    assert hand.state == "CLOSING"
    hand.give(1, ack=1)
    assert hand.state == "TIME_WAIT"


def test_fin_and_acknowledgement_in_one():
    hand = Hand()
    hand.shutdown()
    assert said(hand.give(0, b"x", flags=FIN, ack=1)) == ["A 1+0 ack 2"]
    assert hand.state == "TIME_WAIT"


def test_a_lost_fin_is_sent_again():
    hand = Hand()
    hand.shutdown()
    assert said(hand.wait()) == ["FA 0+0 ack 0"]
    hand = Hand()
    hand.write(b"abc")
    hand.shutdown()
    assert said(hand.wait()) == ["FPA 0+3 ack 0"]


def test_a_fin_waits_for_the_window():
    hand = Hand(send_window=3)
    hand.tcp.send(b"abc", hand.now)
    assert said(hand.shutdown()) == ["PA 0+3 ack 0"]
    hand.give(ack=3, window=0)
    assert said(hand.wait()) == ["A 2+0 ack 0"]
    assert said(hand.give(ack=3, window=10)) == ["FA 3+0 ack 0"]


def test_a_fin_out_of_order_waits_for_what_is_before_it():
    hand = Hand()
    (sent,) = hand.give(3, b"def", flags=FIN)
    assert hand.state == "ESTABLISHED" and sent.sack == [(3, 6)]
    assert said(hand.give(0, b"abc")) == ["A 0+0 ack 7"]
    assert hand.state == "CLOSE_WAIT"
    assert hand.read() == b"abcdef"


def test_a_bare_fin_out_of_order_is_remembered():
    hand = Hand()
    hand.give(3, flags=FIN)
    hand.give(0, b"abc")
    assert hand.state == "CLOSE_WAIT"


def test_a_fin_needs_no_room():
    hand = Hand(receive_buffer=1000)
    hand.give(0, bytes(1000))
    assert said(hand.give(1000, flags=FIN) or hand.wait()) == ["A 0+0 ack 1001"]
    assert hand.state == "CLOSE_WAIT"


def test_nothing_after_the_fin_counts():
    hand = Hand()
    hand.give(0, b"abc", flags=FIN)
    hand.give(4, b"def")
    assert (hand.read(), hand.read()) == (b"abc", b"")


def test_a_closed_socket_ends_by_itself_in_fin_wait_2():
    hand = Hand()
    assert said(hand.close()) == ["FA 0+0 ack 0"]
    hand.give(ack=1)
    assert hand.state == "FIN_WAIT2"
    assert hand.tcp.poll_at() == hand.now + 60_000_000
    hand.wait()
    assert hand.state == "CLOSE"


def test_closing_twice_is_closing_once():
    hand = Hand()
    hand.close()
    assert hand.close() == []
    assert hand.state == "FIN_WAIT1"


def test_closing_in_fin_wait_2_starts_the_wait():
    hand = Hand()
    hand.shutdown()
    hand.give(ack=1)
    hand.close()
    assert hand.tcp.poll_at() == hand.now + 60_000_000


@pytest.mark.parametrize("state", ["FIN_WAIT1", "FIN_WAIT2"])
def test_data_for_an_orphan_is_answered_with_a_reset(state):
    hand = Hand()
    hand.close()
    if state == "FIN_WAIT2":
        hand.give(ack=1)
    assert hand.state == state
    assert said(hand.give(0, b"too late", ack=1)) == ["R 1+0 ack None"]
    assert hand.state == "CLOSE"


def test_closing_with_unread_data_is_a_reset():
    hand = Hand()
    hand.give(0, b"abc")
    assert said(hand.close()) == ["RA 0+0 ack 3"]
    assert hand.state == "CLOSE"


@pytest.mark.parametrize(
    ("give", "expected"),
    [
        ([], ["RA 3+0 ack 0"]),
        ([{"flags": FIN}], ["RA 3+0 ack 1"]),
        (["shutdown"], ["RA 4+0 ack 0"]),
        (["shutdown", {"ack": 4}], ["RA 4+0 ack 0"]),
        (["shutdown", {"flags": FIN}], []),
        (["shutdown", {"flags": FIN, "ack": 4}], []),
        ([{"flags": FIN}, "shutdown"], []),
        ([{"flags": RST}], []),
    ],
)
def test_abort(give, expected):
    hand = Hand()
    hand.write(b"abc")
    for what in give:
        if what == "shutdown":
            hand.shutdown()
        else:
            hand.give(**what)
    hand.tcp.abort(hand.now)
    assert not expected or hand.tcp.poll_at() == 0
    assert said(hand.take()) == expected
    assert hand.state == "CLOSE" and hand.tcp.poll_at() == NEVER


def test_what_has_ended_answers_as_nobody():
    hand = Hand()
    hand.tcp.abort(hand.now)
    hand.take()
    assert said(hand.give(0, b"abc", ack=7)) == ["R 7+0 ack None"]
    assert hand.give(0, flags=RST) == []


@pytest.mark.parametrize(
    ("before", "error"), [([], ConnectionResetError), ([{"flags": FIN}], BrokenPipeError), (["shutdown"], None)]
)
def test_resets_in_other_states(before, error):
    hand = Hand()
    for what in before:
        if what == "shutdown":
            hand.shutdown()
        else:
            hand.give(**what)
    fins = any(what != "shutdown" for what in before)
    hand.give(int(fins), flags=RST)
    assert hand.state == "CLOSE"
    assert isinstance(hand.tcp.error, error or ConnectionResetError)
    if fins:
        assert hand.read() == b"", "the end of the stream had arrived"


def test_an_orphan_has_nobody_to_tell():
    hand = Hand()
    hand.close()
    hand.give(0, flags=RST)
    assert hand.state == "CLOSE" and hand.tcp.error is None


def test_an_orphan_gives_up_earlier():
    hand = Hand()
    hand.close()
    for _ in range(8):
        assert len(hand.wait()) == 1
    assert hand.wait() == []
    assert hand.state == "CLOSE"


def test_a_reset_ends_time_wait():
    hand = Hand()
    hand.shutdown()
    hand.give(0, flags=FIN, ack=1)
    hand.give(1, flags=RST)
    assert hand.state == "CLOSE" and hand.tcp.error is None


# Snapshots

STATES = {
    "ESTABLISHED": [],
    "CLOSE_WAIT": ["fin"],
    "FIN_WAIT1": ["shutdown"],
    "FIN_WAIT2": ["shutdown", "ack"],
    "CLOSING": ["shutdown", "fin"],
    "LAST_ACK": ["fin", "shutdown"],
    "TIME_WAIT": ["shutdown", "ack", "fin"],
}


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_a_connection_goes_on_from_any_state(state, restored):
    hand = Hand(timestamps=True)
    hand.write(b"abc")
    hand.give(0, b"unread", ts=(5, 0))
    fin = acked = 0
    for what in STATES[state]:
        if what == "shutdown":
            hand.shutdown()
        elif what == "ack":
            acked = 4
            hand.give(6, ack=4, ts=(6, 0))
        else:
            hand.give(6, flags=FIN, ack=acked, ts=(7, 0))
            fin = 1
    assert hand.state == state
    before = hand.tcp.snapshot(hand.now)
    if restored:
        hand.restore()
        after = hand.tcp.snapshot(hand.now)
        for name in ("retransmits", "total_retrans", "bytes_acked", "bytes_received", "snd_cwnd", "rto_us"):
            setattr(after, name, getattr(before, name))
        assert after == before
        assert hand.take() == []
    # What is not acknowledged is sent again, and what was not read can be.
    sent = hand.wait() if "WAIT2" not in state and state != "TIME_WAIT" else []
    if state in ("FIN_WAIT1", "CLOSING", "LAST_ACK"):
        assert [(s.flags, s.data) for s in sent] == [("FPA", b"abc")]
    elif state in ("ESTABLISHED", "CLOSE_WAIT"):
        assert [s.data for s in sent if s.data] == [b"abc"] or [s.data for s in hand.wait()] == [b"abc"]
    assert hand.read() == b"unread"
    assert hand.read() == (b"" if fin else None)
    if state in ("ESTABLISHED", "CLOSE_WAIT"):
        hand.shutdown()
    if not fin:
        hand.give(6, flags=FIN, ack=4, ts=(8, 0))
    hand.give(7, ack=4, ts=(9, 0))
    assert hand.state == ("CLOSE" if state in ("CLOSE_WAIT", "LAST_ACK") else "TIME_WAIT")


def test_the_largest_window_is_remembered():
    hand = Hand()
    hand.give(1, b"x", window=100)
    assert hand.write(bytes(500)) == []
    hand.restore()
    assert hand.take() == []
    assert len(hand.wait()[0].data) == 100


def test_the_timestamp_clock_goes_on():
    hand = Hand(timestamps=True, ts_offset=12345)
    first = hand.write(b"a")[0].segment.ts_val
    snapshot_at = hand.now
    hand.restore()
    hand.now += 3_000
    assert hand.write(b"b")[0].segment.ts_val == first + 3
    assert hand.tcp.timestamp(snapshot_at) == first


def test_what_was_not_sent_is_sent_and_what_counts_as_sent_is_waited_for():
    hand = Hand(send_window=3)
    hand.write(b"abc")
    hand.write(b"def")
    hand.restore(snd_wnd=100)
    assert said(hand.take()) == ["PA 3+3 ack 0"]
    assert said(hand.wait()) == ["PA 0+6 ack 0"]
    hand = Hand()
    hand.write(b"abc")
    hand.restore()
    assert hand.take() == [] and hand.tcp.poll_at() < NEVER
    hand.give(ack=3)
    assert hand.tcp.poll_at() == NEVER
