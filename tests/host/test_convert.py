"""What a dump says, in the documents' words, and what a terminate says, in the kernel's."""

import dataclasses
import socket

import pytest

from chimney.host.kernel import GivenState
from chimney.host.linux import convert
from chimney.host.linux.dump import Endpoint, KernelState, TcpInfo, TcpState
from chimney.ndis.state import TIMER_NOT_RUNNING
from chimney.ndis.status import TcpCachedFlags, TcpConnectionState, TcpConstFlags

NOW = 1_000_000_000


@pytest.fixture
def state():
    info = dict.fromkeys((field.name for field in dataclasses.fields(TcpInfo)), 0)
    info |= {
        "rto_us": 204_000,
        "snd_mss": 1448,
        "snd_cwnd": 10,
        "snd_ssthresh": 0x7FFFFFFF,
        "rtt_us": 40,
        "rttvar_us": 20,
    }
    return KernelState(
        family=socket.AF_INET,
        local=Endpoint(b"\x0a\x00\x00\x01", 80),
        remote=Endpoint(b"\x0a\x00\x00\x02", 4000),
        state=TcpState.ESTABLISHED,
        snd_una=0xFFFFFF00,
        snd_nxt=0x00000100,
        write_seq=0x00000300,
        rcv_nxt=0xFFFFFFF0,
        snd_wl1=0xFFFFFFE0,
        snd_wnd=65535,
        max_window=65535,
        rcv_wnd=0xF0 + 60160,
        rcv_wup=0xFFFFFF00,
        window_scaling=True,
        snd_wscale=7,
        rcv_wscale=8,
        sack=True,
        timestamps=True,
        ecn=False,
        mss_clamp=1460,
        timestamp=0xFFFFFFFF,
        timestamp_hz=1000,
        read_at=NOW,
        info=TcpInfo(**info),
        send_queue=[memoryview(bytes(0x400))],
        receive_queue=[memoryview(b"unread")],
    )


@pytest.fixture
def sock():
    with socket.socket() as made:
        yield made


def test_down(state, sock):
    taken = convert.taken(state, sock, 1 << 20, NOW)
    delegated = taken.delegated
    assert taken.const.flags == TcpConstFlags(7)
    assert (taken.const.snd_wind_scale, taken.const.rcv_wind_scale, taken.const.remote_mss) == (7, 8, 1460)
    assert taken.cached.flags == TcpCachedFlags.NAGLING_ENABLED
    assert taken.cached.initial_rcv_wnd == 1 << 20
    # From RCV.NXT to the right edge that was advertised last, over the wrap.
    assert delegated.rcv_wnd == 60160
    # Anything in the queue may have been sent.
    assert (delegated.snd_nxt, delegated.snd_max) == (0x100, 0x300)
    assert delegated.c_wnd == 14480 and delegated.ss_thresh == 0x7FFFFFFF
    assert delegated.s_rtt == 1 and delegated.rtt_var == 1
    assert delegated.retransmit.timeout_delta == 204
    assert b"".join(taken.send_data) == bytes(0x400) and b"".join(taken.unread) == b"unread"


def test_nothing_in_flight_runs_no_timer(state, sock):
    state.snd_nxt = state.snd_una
    assert convert.taken(state, sock, 1 << 20, NOW).delegated.retransmit.timeout_delta == TIMER_NOT_RUNNING


def test_without_a_round_trip_everything_is_sent_again(state, sock):
    state.info = dataclasses.replace(state.info, rtt_us=0)
    delegated = convert.taken(state, sock, 1 << 20, NOW).delegated
    assert (delegated.snd_nxt, delegated.snd_max) == (state.snd_una, state.write_seq)
    assert delegated.retransmit.timeout_delta == TIMER_NOT_RUNNING


def test_the_timestamp_clock_does_not_stand_still_during_the_hand_over(state, sock):
    state.read_at = NOW - 4_001
    ticks = (convert.taken(state, sock, 1 << 20, NOW).delegated.ts_time - state.timestamp) & 0xFFFFFFFF
    assert ticks == 5


@pytest.mark.parametrize("scaled", [True, False])
def test_the_window_offered_is_what_the_peer_can_be_told(state, sock, scaled):
    state.window_scaling = scaled
    state.rcv_wup, state.rcv_wnd = state.rcv_nxt, 30_000
    assert convert.taken(state, sock, 1 << 30, NOW).cached.initial_rcv_wnd == (0xFFFF << 8 if scaled else 0xFFFF)


def test_a_window_that_was_offered_is_not_taken_back(state, sock):
    state.rcv_wup, state.rcv_wnd = state.rcv_nxt, 5_000_000 - 5_000_000 % 256
    assert convert.taken(state, sock, 1 << 20, NOW).cached.initial_rcv_wnd == state.rcv_wnd + len(b"unread")


@pytest.mark.parametrize(("scaled", "window"), [(True, 256), (False, 25)])
def test_the_window_is_what_an_acknowledgement_that_follows_can_say(state, sock, scaled, window):
    """Of a delayed one, that leaves when the state has been read: rounded up to a unit of the scale, as Linux does."""
    state.window_scaling = scaled
    state.rcv_wup, state.rcv_wnd = state.rcv_nxt - 1000, 1025
    assert convert.taken(state, sock, 1 << 20, NOW).delegated.rcv_wnd == window


def test_a_buffer_that_the_application_chose_bounds_the_window(state, sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    state.rcv_wup, state.rcv_wnd = state.rcv_nxt, 30_000
    assert convert.taken(state, sock, 1 << 20, NOW).cached.initial_rcv_wnd == 100_000


def test_up(state, sock):
    delegated = convert.taken(state, sock, 1 << 20, NOW).delegated
    delegated.state = TcpConnectionState.FIN_WAIT_1
    delegated.snd_una, delegated.snd_max, delegated.rcv_nxt, delegated.rcv_wnd = 0x300, 0x400, 0x10, 777
    delegated.ts_recent = 99
    sent, unread = [memoryview(bytes(0xFF))], [memoryview(b"later")]
    back = convert.given(state, GivenState(delegated, sent, unread), NOW)
    assert back.state is TcpState.FIN_WAIT1
    assert (back.snd_una, back.snd_nxt, back.write_seq) == (0x300, 0x400, 0x400)
    assert (back.rcv_nxt, back.rcv_wup, back.rcv_wnd) == (0x10, 0x10, 777)
    assert back.send_queue == sent and back.receive_queue == unread and back.ts_recent == 99
    assert (back.local, back.remote, back.mss_clamp) == (state.local, state.remote, 1460)


def test_every_state_has_its_counterpart(state, sock):
    for documents in TcpConnectionState:
        if documents.offloadable or documents in (TcpConnectionState.TIME_WAIT, TcpConnectionState.CLOSED):
            delegated = convert.taken(state, sock, 1 << 20, NOW).delegated
            delegated.state = documents
            name = convert.given(state, GivenState(delegated), NOW).state.name
            assert name.replace("_", "") in (documents.name.replace("_", ""), "CLOSE")


@pytest.mark.parametrize(
    ("user_timeout", "idle", "interval", "probes"),
    [(0, 60, 10, 9), (65_000, 60, 10, 1), (95_000, 60, 10, 4), (30_000, 60, 10, 1), (1 << 30, 1, 1, 255)],
    ids=["TCP_KEEPCNT", "soon", "later", "before the first", "late"],
)
def test_a_user_timeout_limits_retransmissions_and_probes(state, sock, user_timeout, idle, interval, probes):
    """tcp(7): TCP_USER_TIMEOUT overrides keepalive's count."""
    for option, value in (
        (socket.TCP_KEEPIDLE, idle),
        (socket.TCP_KEEPINTVL, interval),
        (socket.TCP_KEEPCNT, 9),
        (socket.TCP_USER_TIMEOUT, user_timeout),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    cached = convert.taken(state, sock, 1 << 20, NOW).cached
    assert (cached.max_rt, cached.ka_probe_count) == (user_timeout, probes)
    assert (cached.ka_timeout, cached.ka_interval) == (idle * 1000, interval * 1000)
