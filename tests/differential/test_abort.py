"""An abort in every state that a connection can be in: whether an RST is sent, and with which numbers."""

import pytest

from tests.differential.actions import Abort, Script, Segment, Setup, Shutdown, Write
from tests.differential.peer import ACK, FIN
from tests.differential.play import Performance

FINISHED = Segment(flags=ACK | FIN, ack=("una", 0))
SITUATIONS = {
    "established": (),
    "data in flight": (Write(2500),),
    "data that waits for the window": (Segment(window=1200), Write(2500)),
    "data out of order": (Segment(seq=("next", 1000), length=500),),
    "the peer has closed": (FINISHED,),
    "we have closed": (Shutdown(),),
    "we have closed, with data in flight": (Write(2500), Shutdown()),
    "we have closed, and that is known": (Shutdown(), Segment()),
    "we have closed, the peer has closed": (FINISHED, Shutdown()),
    "both have closed at once": (Shutdown(), FINISHED),
}


@pytest.mark.parametrize("before", SITUATIONS.values(), ids=SITUATIONS)
def test_abort(wire, before):
    performance = Performance(
        wire, Script(Setup(timestamps=False, iss=2**32 - 2000), (*before, Abort())), literally=True
    )
    kernel, engine = performance.play()
    numbers = [[(packet.flags, packet.seq, packet.ack) for packet in side.sent] for side in (kernel, engine)]
    assert numbers[0] == numbers[1]
