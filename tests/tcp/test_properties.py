"""Whatever the network does: the streams are equal, and SND.UNA, RCV.NXT, right edge and TSval never go back.

The invariants themselves are checked for every segment, by `End.check` in the harness.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_harness import MSS, Impairments, Pair

from chimney.tcp import UNLIMITED, Config, Event

impairments = st.builds(
    Impairments,
    loss=st.sampled_from([0.0, 0.02, 0.15]),
    duplicate=st.sampled_from([0.0, 0.1]),
    reorder=st.sampled_from([0.0, 0.1, 0.5]),
    delay=st.sampled_from([0, 50, 5_000, 80_000]),
    jitter=st.sampled_from([0, 3_000]),
    extra=st.sampled_from([200, 20_000]),
    merge=st.booleans(),
)
configs = st.builds(
    Config,
    timestamps=st.booleans(),
    sack=st.booleans(),
    nagle=st.booleans(),
    congestion=st.sampled_from(["cubic", "reno"]),
    initial_rcv_wnd=st.sampled_from([1000, 3 * MSS, 65535, 1 << 20]),
    remote_mss=st.sampled_from([536, 1460, 8960]),
    path_mtu=st.sampled_from([1500, 9000]),
    max_reassembly_blocks=st.sampled_from([2, 256]),
    max_sack_blocks=st.sampled_from([2, 256]),
    max_rt_us=st.just(UNLIMITED),
    fin_wait_2_us=st.just(0),
)
starts = st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFF00, 2**32 - 40_000, 2**31 - 10_000])
sizes = st.sampled_from([0, 1, 1_000, 60_000, 120_000])


@st.composite
def pairs(draw):
    """A Pair whose two ends agree on options and scaling."""
    a = draw(configs)
    b = draw(configs)
    scale = draw(st.sampled_from([0, 7]))
    for one in (a, b):
        one.rcv_wscale, one.snd_wscale = scale, scale
        one.sack, one.timestamps = a.sack, a.timestamps
        if scale == 0:
            one.initial_rcv_wnd = min(one.initial_rcv_wnd, 65535)
    seed = draw(st.integers(0, 2**32))
    return Pair(
        seed,
        random.Random(seed).randbytes(draw(sizes)),
        random.Random(seed + 1).randbytes(draw(sizes)),
        iss=(draw(starts), draw(starts)),
        configs=(a, b),
        impairments=draw(impairments),
    )


@settings(max_examples=120)
@given(pairs())
def test_streams_arrive_and_connections_end(pair):
    pair.a.close_wanted = pair.b.close_wanted = True
    pair.run(lambda: pair.a.finished() and pair.b.finished(), limit=10 * 3_600_000_000)
    assert bytes(pair.b.received) == pair.a.outgoing
    assert bytes(pair.a.received) == pair.b.outgoing
    assert pair.a.conn.acked == len(pair.a.outgoing) and pair.b.conn.acked == len(pair.b.outgoing)
    assert pair.a.events.count(Event.FIN_RECEIVED) == pair.b.events.count(Event.FIN_RECEIVED) == 1


@settings(max_examples=100)
@given(pairs(), st.integers(1, 60))
def test_streams_survive_hand_overs_in_mid_flow(pair, every):
    pair.a.close_wanted = pair.b.close_wanted = True
    steps = 0

    def until():
        nonlocal steps
        steps += 1
        if steps % every == 0 and pair.handovers < 40:
            for end, other in pair.ends():
                owed = end.hand_over(pair.now)
                if owed is not None:
                    end.check(owed)
                    pair.transmit(end, other, owed)
            pair.handovers += 1
        return pair.a.finished() and pair.b.finished()

    pair.run(until, limit=10 * 3_600_000_000)
    assert bytes(pair.b.received) == pair.a.outgoing
    assert bytes(pair.a.received) == pair.b.outgoing
