"""Whatever the network and the applications do, both streams arrive; every segment is checked by `Side.check`."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.model.pipe import EngineEnd, Habits, Manners, ModelEnd, pipe

manners = st.builds(
    Manners,
    loss=st.sampled_from([0.0, 0.0, 0.02, 0.2]),
    duplicate=st.sampled_from([0.0, 0.0, 0.1]),
    reorder=st.sampled_from([0.0, 0.1, 0.5]),
    delay=st.sampled_from([0, 200, 50_000]),
    late=st.sampled_from([2, 2_000, 300_000]),
    silence=st.sampled_from([0, 0, 0, 5_000_000]),
    merge=st.booleans(),
    garbage=st.sampled_from([0.0, 0.0, 0.1]),
)
habits = st.builds(
    Habits,
    size=st.sampled_from([0, 1, 1447, 5_000, 40_000]),
    write=st.sampled_from([1, 100, 1448, 8192]),
    write_every=st.sampled_from([0, 0, 500, 30_000]),
    read=st.sampled_from([100, 3000, 65536]),
    read_every=st.sampled_from([0, 0, 1000, 250_000]),
    asleep=st.sampled_from([0, 0, 0, 5_000_000]),
    patient=st.booleans(),
).map(lambda h: h if h.write > 1 else dataclasses.replace(h, size=min(h.size, 300)))
starts = st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFF000, 0x7FFFF000, 12345])
buffers = st.sampled_from([200, 1000, 4096, 65536, 200_000])


@st.composite
def pipes(draw, ends):
    both = st.tuples
    pair = draw(both(habits, habits).filter(lambda h: not (h[0].patient and h[1].patient)))
    scale = draw(st.sampled_from([-1, 0, 7]))
    return pipe(
        pair,
        ends,
        draw(manners),
        draw(st.integers(0, 2**32)),
        draw(both(starts, starts)),
        draw(both(buffers, buffers)),
        draw(both(buffers, buffers)),
        draw(both(st.booleans(), st.booleans())),
        scale=scale,
        timestamps=draw(st.booleans()),
        sack=draw(st.booleans()),
        mss=draw(st.sampled_from([536, 1460, 8960])),
        mtu=draw(st.sampled_from([1280, 1500, 9000])),
        ipv6=draw(st.booleans()),
    )


@settings(max_examples=150)
@given(pipes((ModelEnd, ModelEnd)))
def test_streams_arrive_between_models(made):
    made.run()
    # What is left of it ends by itself.
    while made.step():
        pass
    assert made.a.end.state == made.b.end.state == "CLOSE"


@settings(max_examples=100)
@given(pipes((ModelEnd, ModelEnd)), st.integers(1, 40))
def test_streams_survive_restoring_at_any_moment(made, every):
    made.every = every
    made.run()


@settings(max_examples=60)
@given(pipes((ModelEnd, ModelEnd)), st.integers(1, 60), st.sampled_from([300, 576, 1280, 1400, 9000]))
def test_streams_arrive_when_the_mtu_changes(made, after, mtu):
    def change():
        if made.segments >= after:
            for side in (made.a, made.b):
                side.end.settings.mtu = mtu

    made.hook = change
    made.run()


@settings(max_examples=100)
@given(pipes((ModelEnd, ModelEnd)), st.integers(0, 60), st.booleans())
def test_an_abort_ends_both(made, after, gently):
    """What was received until then is what was sent; nobody tries for ever, and nobody gets what is not his."""
    made.aborted = True
    side = made.a

    def give_up():
        if made.segments >= after and not side.end.tcp.orphaned and side.end.tcp.state.name != "CLOSE":
            if gently:
                side.end.tcp.close(made.now)
            else:
                side.end.tcp.abort(made.now)
            side.gone = True

    made.hook = give_up
    while made.step():
        pass
    assert made.a.end.state == "CLOSE"
    # A lost RST is not sent again: who has nothing to send does not find out.
    deaf = made.b.end.tcp.sender
    assert made.b.end.state == "CLOSE" or deaf.una == deaf.write_seq
    for one, other in ((made.a, made.b), (made.b, made.a)):
        assert one.received == other.outgoing[: len(one.received)]


@pytest.mark.parametrize("ends", [(ModelEnd, EngineEnd), (EngineEnd, ModelEnd)], ids=["model-engine", "engine-model"])
def test_streams_arrive_between_model_and_engine(ends):
    @settings(max_examples=80)
    @given(pipes(ends))
    def arrive(made):
        made.run()

    arrive()


@settings(max_examples=60)
@given(pipes((ModelEnd, EngineEnd)), st.integers(1, 40))
def test_streams_survive_restoring_beside_an_engine(made, every):
    made.every = every
    made.run()
