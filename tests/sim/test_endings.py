"""What an application sees of the end of its connection, where somebody has broken off and no invariant can tell."""

import pytest

from chimney.sim.case import Abort, Case, Detach, Garbage, Host, Layer, Offload, Read, Send, Shutdown, Upload
from chimney.sim.world import World


def application(*steps, **host):
    """Side a's application, when it is all over."""
    world = World(Case(a=Host(chimney=True, **host), steps=(Read(at=0, side="a"), Offload(at=0), *steps)))
    world.play()
    assert world.findings == []
    return world.applications["a"]


@pytest.mark.parametrize(
    "host", [{}, {"gap_us": 200}, {"layers": (Layer(delay=1.0),)}], ids=["plain", "slow", "driver"]
)
@pytest.mark.parametrize("kind", ["rst-blind", "syn"])
@pytest.mark.parametrize("upload", [1001, 1200, 5000])
def test_a_reset_of_an_offloaded_connection_is_no_end_of_the_stream(host, kind, upload):
    """Whether the host hears of it from the target, or finds the connection closed when it takes it back."""
    seen = application(Garbage(at=1000, to="a", kind=kind, offset=-1), Upload(at=upload), **host)
    assert isinstance(seen.error, ConnectionResetError)
    assert not seen.end_of_stream and seen.received == 0


@pytest.mark.parametrize("upload", [1000, 1100, 1200, 1201, 5000])
def test_a_peer_that_aborts_has_not_ended_its_stream(upload):
    seen = application(Send(at=0, side="b", size=100), Abort(at=1000, side="b"), Upload(at=upload))
    assert isinstance(seen.error, ConnectionResetError)
    assert not seen.end_of_stream and seen.received == 100


@pytest.mark.parametrize("upload", [1000, 1201, 1400, 5000])
def test_a_connection_whose_streams_have_both_ended_was_not_reset(upload):
    seen = application(
        Shutdown(at=0, side="a"), Send(at=900, side="b", size=100), Detach(at=1000, side="b"), Upload(at=upload)
    )
    assert seen.error is None
    assert seen.end_of_stream and seen.received == 100 and seen.shutdown_done
