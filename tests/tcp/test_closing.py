"""The end of a connection: FINs in every order, RST, SYN, URG, and what outsiders may forge (RFC 9293, RFC 5961)."""

import pytest
from tcp_harness import Peer

from chimney.tcp import ACK, FIN, NEVER, RST, SYN, URG, Config, Connection, Event, State, Tcb

PLAIN = Config(timestamps=False)
F = ACK | FIN
CLOSABLE = [State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK]


def in_state(state, config=PLAIN, **tcb):
    """An engine that has taken over a connection in `state`; an unacknowledged FIN has been sent."""
    fin = state in (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
    return Peer(config, state=state, snd_nxt=int(fin), snd_max=int(fin), **tcb)


def test_the_active_side_closes():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(b"bye"))
    peer.conn.close()
    assert peer.conn.state == State.ESTABLISHED
    assert [(s.data, s.fin) for s in peer.take()] == [(b"bye", True)]
    assert peer.conn.state == State.FIN_WAIT_1 and peer.conn.acked == 0
    peer.give(0, 4)
    assert peer.conn.state == State.FIN_WAIT_2 and peer.conn.acked == 3 and peer.conn.fin_acked
    peer.give(0, 4, data=b"late", flags=F)
    assert peer.conn.state == State.TIME_WAIT and peer.read() == b"late"
    assert [(s.seq, s.ack) for s in peer.take()] == [(4, 5)]
    assert peer.conn.events == [Event.FIN_ACKED, Event.FIN_RECEIVED, Event.TIME_WAIT]
    assert peer.conn.poll_at() == NEVER


def test_time_wait_answers_a_repeated_fin():
    peer = in_state(State.FIN_WAIT_2)
    peer.give(0, flags=F)
    assert [s.ack for s in peer.take()] == [1]
    peer.give(0, flags=F)
    assert [s.ack for s in peer.take()] == [1]


def test_time_wait_does_not_answer_every_acknowledgement_or_two_would_answer_each_other_for_ever():
    peer = in_state(State.FIN_WAIT_2)
    peer.give(0, flags=F)
    peer.take()
    answers = 0
    for _ in range(100):
        peer.give(-1)
        answers += len(peer.take())
    assert answers == 10


def test_time_wait_is_not_given_up_because_nobody_answers():
    peer = in_state(State.FIN_WAIT_2)
    peer.give(0, flags=F)
    peer.take()
    peer.give(100, flags=RST)
    assert len(peer.take()) == 1 and peer.conn.poll_at() == NEVER


def test_time_wait_is_not_given_up_for_a_reset_either():
    """The peer has forgotten the connection, or a segment of an earlier one has met it (RFC 1337)."""
    peer = in_state(State.FIN_WAIT_2)
    peer.give(0, flags=F)
    peer.take()
    peer.conn.events.clear()
    peer.give(1, flags=RST)
    assert peer.conn.state == State.TIME_WAIT and peer.conn.events == [] and peer.take() == []


def test_the_passive_side_closes():
    peer = Peer(PLAIN)
    peer.give(0, flags=F)
    assert peer.conn.state == State.CLOSE_WAIT and [s.ack for s in peer.take()] == [1]
    peer.conn.send(memoryview(b"rest"))
    peer.conn.close()
    assert [(s.data, s.fin) for s in peer.take()] == [(b"rest", True)] and peer.conn.state == State.LAST_ACK
    peer.give(1, 5)
    assert peer.conn.state == State.CLOSED
    assert peer.conn.events == [Event.FIN_RECEIVED, Event.FIN_ACKED, Event.CLOSED]
    assert peer.take() == [] and peer.conn.poll_at() == NEVER


def test_both_close_at_once():
    peer = Peer(PLAIN)
    peer.conn.close()
    peer.take()
    peer.give(0, 0, flags=F)
    assert peer.conn.state == State.CLOSING and [s.ack for s in peer.take()] == [1]
    peer.give(1, 1)
    assert peer.conn.state == State.TIME_WAIT


def test_fin_and_its_acknowledgement_in_one_segment():
    peer = Peer(PLAIN)
    peer.conn.close()
    peer.take()
    peer.give(0, 1, flags=F)
    assert peer.conn.state == State.TIME_WAIT


def test_a_lost_fin_is_sent_again():
    peer = Peer(Config(timestamps=False, sack=False))
    peer.conn.close()
    peer.take()
    assert [(s.seq, s.fin) for s in peer.wait()] == [(0, True)]


@pytest.mark.parametrize("state", [State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK])
def test_a_fin_that_was_handed_over_is_after_the_chain(state):
    peer = Peer(PLAIN, state=state, snd_nxt=0, snd_max=4)
    peer.conn.send(memoryview(b"abc"))
    assert [(s.data, s.fin) for s in peer.take()] == [(b"abc", True)] and peer.conn.state == state
    peer.give(0, 4)
    assert peer.conn.fin_acked and peer.conn.acked == 3


def test_fin_wait_2_ends_by_itself():
    peer = Peer(PLAIN)
    peer.conn.close()
    peer.take()
    peer.give(0, 1)
    peer.take()
    assert peer.conn.poll_at() == 120_000_000
    peer.now = 60_000_000
    peer.give(0, 1, data=b"x")
    peer.take()
    peer.now = 100_000_000
    peer.take()
    assert peer.conn.export(peer.now).retransmit_left_us == 80_000_000
    assert peer.wait() == [] and peer.conn.state == State.CLOSED and peer.conn.events[-1] == Event.TIMEOUT


def test_half_closed_connections_go_on_receiving():
    peer = in_state(State.FIN_WAIT_2, Config(timestamps=False, fin_wait_2_us=0))
    for i in range(100):
        peer.now += 60_000_000
        peer.give(i, data=b"x")
        peer.take()
    assert peer.read() == b"x" * 100 and peer.conn.state == State.FIN_WAIT_2


def test_only_these_states_can_be_taken_over():
    for state in State:
        if state in CLOSABLE:
            assert Connection(PLAIN, Tcb(state=state), 0).state == state
        else:
            with pytest.raises(ValueError, match=state.name):
                Connection(PLAIN, Tcb(state=state), 0)


# RST.


@pytest.mark.parametrize("state", CLOSABLE)
def test_a_reset_at_rcv_nxt_ends_the_connection(state):
    peer = in_state(state)
    peer.give(0, flags=RST)
    assert peer.conn.state == State.CLOSED and peer.conn.events == [Event.RESET]
    assert peer.take() == [] and peer.conn.poll_at() == NEVER


@pytest.mark.parametrize("state", CLOSABLE)
def test_a_reset_elsewhere_in_the_window_is_challenged_once(state):
    peer = in_state(state)
    for seq in (1, 1000, 65534):
        peer.give(seq, flags=RST)
    assert [(s.ack, s.length) for s in peer.take() if not s.fin] == [(0, 0)] and peer.conn.state == state
    peer.give(0, peer.conn.snd_max - peer.iss - (state not in (State.ESTABLISHED,)) * 0)
    if peer.conn.state == state:
        peer.take()
        peer.give(7, flags=RST)
        assert len(peer.take()) == 1


@pytest.mark.parametrize("seq", [-1, 65535, -100_000, 10_000_000])
def test_a_reset_outside_the_window_is_ignored(seq):
    peer = Peer(PLAIN)
    peer.give(seq, flags=RST)
    assert peer.take() == [] and peer.conn.state == State.ESTABLISHED


def test_a_reset_at_rcv_nxt_counts_when_the_window_is_closed():
    peer = Peer(PLAIN, rcv_wnd=0)
    peer.give(0, flags=RST)
    assert peer.conn.events == [Event.RESET]


@pytest.mark.parametrize(
    ("state", "expected"),
    [(State.ESTABLISHED, 1), (State.FIN_WAIT_1, 1), (State.FIN_WAIT_2, 1), (State.CLOSE_WAIT, 1), (State.CLOSING, 0),
     (State.LAST_ACK, 0)],
)  # fmt: skip
def test_abort(state, expected):
    peer = in_state(state)
    peer.conn.abort(0)
    sent = peer.take()
    assert [(s.rst, s.length) for s in sent] == [(True, 0)] * expected
    assert peer.conn.state == State.CLOSED and peer.conn.poll_at() == NEVER
    peer.give(0, data=b"x")
    assert peer.take() == []


def test_the_reset_stands_after_all_that_was_sent():
    peer = Peer(PLAIN)
    peer.conn.send(memoryview(bytes(100)))
    peer.take()
    peer.conn.send(memoryview(bytes(100_000)))
    peer.conn.abort(0)
    assert [s.seq for s in peer.take()] == [100]


def test_the_reset_acknowledges_nothing_new():
    peer = Peer(PLAIN)
    peer.give(0, data=b"waits for the delayed acknowledgement")
    peer.conn.abort(0)
    assert [(s.rst, s.ack) for s in peer.take()] == [(True, 0)]


# SYN, URG, ACK.


def test_a_syn_at_rcv_nxt_ends_the_connection():
    peer = Peer(PLAIN)
    peer.give(0, flags=SYN)
    assert peer.conn.state == State.CLOSED and peer.conn.events == [Event.SYN] and peer.take() == []


def test_a_syn_in_the_window_is_challenged_every_three_seconds():
    peer = Peer(PLAIN)
    answers = []
    for _ in range(7):
        peer.give(5, flags=SYN)
        answers.append(len(peer.take()))
        peer.now += 1_000_000
    assert answers == [1, 0, 0, 1, 0, 0, 1]


def test_a_syn_outside_the_window_is_acknowledged():
    peer = Peer(PLAIN)
    peer.give(-5, flags=SYN)
    assert [s.ack for s in peer.take()] == [0]


def test_a_challenge_makes_sure_that_silence_is_noticed():
    peer = Peer(PLAIN)
    peer.give(5, flags=RST)
    peer.take()
    assert peer.conn.poll_at() == 300_000_000
    for _ in range(10):
        assert [(s.seq, s.length) for s in peer.wait()] == [(-1, 0)]
    assert peer.now == 309_000_000
    assert peer.wait() == [] and peer.conn.state == State.CLOSED and peer.conn.events == [Event.TIMEOUT]


def test_an_acceptable_segment_ends_the_suspicion():
    peer = Peer(PLAIN)
    peer.give(5, flags=RST)
    peer.take()
    peer.wait()
    peer.give(0, 0)
    peer.take()
    assert peer.conn.poll_at() == NEVER


def test_urgent_data_stops_the_engine_before_it():
    peer = Peer(PLAIN)
    peer.give(0, data=b"ab")
    peer.give(2, data=b"urgent", flags=ACK | URG)
    assert peer.conn.events == [Event.URGENT] and peer.read() == b"ab"
    peer.give(8, data=b"more")
    assert peer.take() == [] and peer.conn.poll_at() == NEVER and peer.read() == b""
    assert peer.conn.flush_ack(0).ack == peer.irs + 2 and peer.conn.export(0).rcv_nxt == peer.irs + 2


def test_unacceptable_urgent_data_is_discarded():
    peer = Peer(PLAIN)
    peer.give(-100, data=b"urgent", flags=ACK | URG)
    peer.give(0, 50, data=b"urgent", flags=ACK | URG)
    assert peer.conn.events == []


def test_an_acknowledgement_of_the_future_is_answered_and_dropped():
    peer = Peer(PLAIN)
    peer.give(0, 1, data=b"evil")
    assert [(s.seq, s.ack) for s in peer.take()] == [(0, 0)] and peer.read() == b""


def test_an_acknowledgement_of_the_far_past_is_answered_and_dropped():
    peer = Peer(PLAIN, max_snd_wnd=1000, snd_wnd=1000)
    peer.give(0, -1001, data=b"evil")
    assert peer.read() == b""
    peer.give(0, -1000, data=b"fine")
    assert peer.read() == b"fine"


def test_answers_to_nonsense_are_limited():
    peer = Peer(PLAIN)
    answers = 0
    for _ in range(1000):
        peer.give(-50_000)
        peer.give(0, 10_000)
        answers += len(peer.take())
    assert answers <= 10
    peer.now += 1_000_000
    peer.give(-50_000)
    assert len(peer.take()) == 1


def test_a_segment_without_ack_is_dropped():
    peer = Peer(PLAIN)
    peer.give(0, data=b"x", flags=0)
    assert peer.read() == b"" and peer.take() == []
