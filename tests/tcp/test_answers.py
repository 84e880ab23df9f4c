"""Who is answered, and how often: RFC 9293, 3.10.7.4 in every state, RFC 5961, RFC 7323 (PAWS), RFC 1337."""

import dataclasses

import pytest
from tcp_harness import Peer

from chimney.tcp import ACK, FIN, PSH, RST, SYN, Config, Event, State
from chimney.tcp.config import NEVER

PLAIN = Config(timestamps=False, quick_acks=0)
STAMPED = Config(quick_acks=0)
SYNCHRONISED = ("established", "fin-wait-1", "fin-wait-2", "close-wait", "closing", "last-ack")


def in_state(name, config=PLAIN):
    """A connection in that state, reached by what both sides send; the peer's next number, and what it acknowledges."""
    peer = Peer(config)
    seq = ack = 0
    if name in ("close-wait", "last-ack"):
        peer.give(0, flags=ACK | FIN)
        peer.take()
        seq = 1
    if name in ("fin-wait-1", "fin-wait-2", "closing", "last-ack", "time-wait"):
        peer.conn.close()
        peer.take()
    if name == "fin-wait-2":
        peer.give(0, 1)
        ack = 1
    if name == "closing":
        peer.give(0, 0, flags=ACK | FIN)
        peer.take()
        seq = 1
    if name == "time-wait":
        peer.give(0, 1, flags=ACK | FIN)
        peer.take()
        seq = ack = 1
    peer.conn.events.clear()
    assert State(peer.conn.state).name == name.upper().replace("-", "_")
    return peer, seq, ack


@pytest.mark.parametrize("name", [*SYNCHRONISED, "time-wait"])
@pytest.mark.parametrize("flags", [0, PSH, FIN])
def test_without_ack_a_segment_is_dropped_silently(name, flags):
    peer, seq, ack = in_state(name)
    peer.give(seq, ack, data=b"data", flags=flags)
    assert peer.take() == [] and peer.read() == b"" and peer.conn.events == []


@pytest.mark.parametrize("name", SYNCHRONISED)
@pytest.mark.parametrize("flags", [RST, RST | ACK])
def test_a_reset_at_the_left_edge_ends_the_connection(name, flags):
    peer, seq, ack = in_state(name)
    peer.give(seq, ack, flags=flags)
    assert peer.conn.state == State.CLOSED and peer.conn.events == [Event.RESET] and peer.take() == []


@pytest.mark.parametrize("name", SYNCHRONISED)
def test_a_reset_elsewhere_in_the_window_is_challenged_once(name):
    peer, seq, ack = in_state(name)
    for offset in (1, 1000, 60_000):
        peer.give(seq + offset, ack, flags=RST)
    assert len(peer.take()) == 1 and peer.conn.events == []
    assert peer.conn.keepalive.deadline - peer.now <= 300_000_000
    # An acceptable segment calms it, and the next one is challenged again.
    peer.give(seq, ack)
    assert peer.take() == []
    peer.give(seq + 1, ack, flags=RST)
    assert len(peer.take()) == 1


@pytest.mark.parametrize("name", [*SYNCHRONISED, "time-wait"])
@pytest.mark.parametrize("offset", [-1, 70_000])
def test_a_reset_beside_the_window_is_dropped(name, offset):
    peer, seq, ack = in_state(name)
    peer.give(seq + offset, ack, flags=RST)
    assert peer.take() == [] and peer.conn.events == []


@pytest.mark.parametrize("offset", [0, 1, 100])
def test_no_reset_ends_time_wait(offset):
    """RFC 1337."""
    peer, seq, ack = in_state("time-wait")
    peer.give(seq + offset, ack, flags=RST)
    assert peer.conn.state == State.TIME_WAIT and peer.conn.events == []


@pytest.mark.parametrize("name", SYNCHRONISED)
@pytest.mark.parametrize("challenge", [False, True])
def test_a_syn_at_the_left_edge(name, challenge):
    """The interface documents give the connection up, RFC 5961 challenges it like any other."""
    peer, seq, ack = in_state(name, dataclasses.replace(PLAIN, challenge_every_syn=challenge))
    peer.give(seq, ack, flags=SYN)
    if challenge:
        assert len(peer.take()) == 1 and peer.conn.events == []
    else:
        assert peer.conn.state == State.CLOSED and peer.conn.events == [Event.SYN]


@pytest.mark.parametrize("name", SYNCHRONISED)
def test_a_syn_elsewhere_in_the_window_is_challenged_every_three_seconds(name):
    peer, seq, ack = in_state(name)
    for _ in range(40):
        peer.give(seq + 10, ack, flags=SYN)
        peer.take()
        peer.now += 100_000
    assert peer.conn.stats.challenge_acks == 2 and peer.conn.events == []


@pytest.mark.parametrize("name", SYNCHRONISED)
def test_an_acknowledgement_of_what_was_never_sent_is_challenged_and_brings_nothing(name):
    """RFC 5961, 5.2; the TSval of such a segment does not count, either."""
    peer, seq, ack = in_state(name, STAMPED)
    before = peer.conn.timestamps.recent
    peer.give(seq, 5000, data=b"evil", ts=(99_999, 0))
    assert len(peer.take()) == 1 and peer.read() == b""
    assert peer.conn.timestamps.recent == before and peer.conn.stats.bad_acks == 1


def test_answers_to_forgeries_are_limited():
    peer, seq, ack = in_state("established")
    answers = 0
    for _ in range(1000):
        peer.give(seq, 5000)
        answers += len(peer.take())
        peer.give(seq + 100_000, ack)
        answers += len(peer.take())
        peer.now += 1000
    assert answers == 10


def test_two_connections_do_not_share_a_limit():
    first, second = Peer(PLAIN), Peer(PLAIN)
    for _ in range(20):
        first.give(0, 5000)
        first.take()
    second.give(0, 5000)
    assert len(second.take()) == 1


@pytest.mark.parametrize("name", ["close-wait", "last-ack", "closing", "time-wait"])
def test_the_fin_again_is_acknowledged_again(name):
    peer, seq, ack = in_state(name)
    for _ in range(3):
        peer.give(seq - 1, ack, flags=ACK | FIN)
        assert [sent.ack for sent in peer.take()] == [1]
    assert peer.conn.events == []


def test_the_fin_again_may_acknowledge_ours():
    peer, _, _ = in_state("closing")
    peer.give(0, 1, flags=ACK | FIN)
    assert peer.conn.state == State.TIME_WAIT and peer.conn.events == [Event.FIN_ACKED, Event.TIME_WAIT]
    assert len(peer.take()) == 1


def test_where_fins_cross_ours_goes_with_the_acknowledgement():
    peer = Peer(PLAIN)
    peer.conn.close()
    assert [(sent.seq, sent.fin) for sent in peer.take()] == [(0, True)]
    peer.give(0, 0, flags=ACK | FIN)
    assert [(sent.seq, sent.ack, sent.fin) for sent in peer.take()] == [(0, 1, True)]
    assert peer.conn.state == State.CLOSING and peer.conn.stats.retransmitted_segments == 1
    # Other acknowledgements in that state do not carry it.
    peer.give(0, 0, flags=ACK | FIN)
    assert [(sent.seq, sent.ack, sent.fin) for sent in peer.take()] == [(1, 1, False)]
    peer.give(1, 1)
    assert peer.conn.state == State.TIME_WAIT and peer.take() == []


def test_where_fins_cross_and_data_is_missing_too_only_the_acknowledgement_goes():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(b"data"))
    peer.conn.close()
    peer.take()
    peer.give(0, 0, flags=ACK | FIN)
    assert [(sent.seq, sent.ack, sent.fin) for sent in peer.take()] == [(5, 1, False)]


@pytest.mark.parametrize(
    ("offset", "ack", "data", "flags", "answers"),
    [
        (0, 1, b"", ACK, 0),  # its last acknowledgement
        (-1, 1, b"", ACK | FIN, 1),  # its FIN again
        (0, 1, b"", ACK | FIN, 1),
        (2, 1, b"", ACK, 1),
        (0, 0, b"", ACK, 1),
        (0, 1, b"late", ACK, 1),
        (70_000, 1, b"", ACK, 1),
        (0, 1, b"", SYN, 1),
        (4, 1, b"", SYN, 1),
    ],
)
def test_time_wait_answers_what_may_have_missed_its_last_word(offset, ack, data, flags, answers):
    peer, seq, _ = in_state("time-wait")
    peer.give(seq + offset, ack, data=data, flags=flags)
    assert len(peer.take()) == answers
    assert peer.conn.state == State.TIME_WAIT and peer.read() == b""


# Timestamps


def test_an_old_timestamp_is_dropped_and_answered():
    peer = Peer(STAMPED, ts_recent=1000)
    peer.give(0, data=b"old", ts=(998, 0))
    assert peer.read() == b"" and len(peer.take()) == 1 and peer.conn.stats.paws_drops == 1


def test_one_tick_is_no_difference():
    """The clocks of a host's processors may differ by that; what is echoed does not go back."""
    peer = Peer(STAMPED, ts_recent=1000)
    peer.give(0, data=b"new", ts=(999, 0))
    assert peer.read() == b"new" and peer.conn.timestamps.recent == 1000


def sending(**tcb):
    """A peer whose clock shows 1000, of whom 3 segments have not been acknowledged."""
    peer = Peer(STAMPED, ts_recent=1000, snd_wnd=65535, cwnd=14480, **tcb)
    peer.conn.send(memoryview(bytes(3 * 1448)))
    peer.take()
    return peer


def test_a_duplicate_acknowledgement_that_was_overtaken_tells_what_it_knows():
    peer = sending()
    peer.give(0, 0, ts=(995, 0), sack=[(1448, 2896)])
    assert peer.conn.stats.paws_drops == 0 and peer.conn.sender.flight.sacked > 0
    assert peer.conn.timestamps.recent == 1000


@pytest.mark.parametrize(
    "segment",
    [
        {"ack": 1448},
        {"data": b"x"},
        {"seq": 1},
        {"seq": -1},
        {"flags": ACK | FIN},
        {"window": 0},
        {"ts": (1000 - 211, 0)},
    ],
    ids=lambda segment: next(iter(segment)),
)
def test_what_could_be_wrong_news_was_not_overtaken(segment):
    peer = sending()
    peer.give(**{"ts": (995, 0), "sack": [(1448, 2896)], **segment})
    assert peer.conn.stats.paws_drops == 1 and peer.conn.sender.flight.sacked == 0 and peer.conn.snd_una == peer.iss


def test_after_24_days_an_old_timestamp_is_news():
    peer = Peer(STAMPED, ts_recent=1000)
    peer.now += 24 * 86400 * 1_000_000 + 1
    peer.give(0, data=b"new", ts=(7, 0))
    assert peer.read() == b"new" and peer.conn.timestamps.recent == 7


def test_a_peer_with_a_clock_of_microseconds_may_pause_for_an_hour():
    """Its timestamps have gone more than half the way round: 24 days are for clocks of milliseconds."""
    pause = 40 * 60 * 1_000_000
    peer = Peer(STAMPED, ts_recent=1000)
    peer.now += pause
    peer.give(0, data=b"new", ts=(1000 + pause, 0))
    assert peer.read() == b"new" and peer.conn.stats.paws_drops == 0


def test_a_timestamp_is_old_as_long_as_no_clock_can_have_wrapped():
    peer = Peer(STAMPED, ts_recent=1000)
    peer.now += 35 * 60 * 1_000_000
    peer.give(0, data=b"old", ts=(998, 0))
    assert peer.read() == b"" and peer.conn.stats.paws_drops == 1


def test_timestamps_wrap():
    peer = Peer(STAMPED, ts_recent=0xFFFFFFF0)
    peer.give(0, data=b"a", ts=(5, 0))
    assert peer.read() == b"a" and peer.conn.timestamps.recent == 5


def test_the_timestamp_to_echo_is_that_of_the_oldest_unacknowledged_segment():
    """RFC 7323, 4.3: delayed acknowledgements and holes do not shorten the peer's round trip."""
    peer = Peer(STAMPED, ts_recent=10)
    peer.give(0, data=b"a", ts=(20, 0))
    assert peer.conn.timestamps.recent == 20
    peer.give(1, data=b"b", ts=(30, 0))
    assert [sent.ts[1] for sent in peer.take()] == [20]
    peer.give(10, data=b"c", ts=(40, 0))
    assert [sent.ts[1] for sent in peer.take()] == [20]
    peer.give(2, data=b"d", ts=(50, 0))
    assert [sent.ts[1] for sent in peer.take()] == [50]


@pytest.mark.parametrize("echo", [1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_an_absurd_echo_does_not_poison_the_time_out(echo):
    peer = Peer(dataclasses.replace(STAMPED, sack=False), ts_time=500_000_000)
    peer.conn.send(memoryview(b"x"))
    peer.take()
    peer.wait()
    before = peer.conn.sender.rtt.srtt
    peer.give(0, 1, ts=(1, echo))
    assert peer.conn.acked == 1 and peer.conn.sender.rtt.srtt <= max(before * 2, 1_000_000)


def test_nothing_runs_on_where_nothing_is_owed():
    peer, _, _ = in_state("time-wait")
    assert peer.take() == [] and peer.conn.poll_at() == NEVER
