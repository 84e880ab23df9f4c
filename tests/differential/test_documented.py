"""Where the engine is meant to differ from the kernel: each row of docs/differences.md, and what both really do.

If one of them changes its mind, a test fails here, and the row goes.
"""

import pytest

from tests.differential.actions import Read, Script, Segment, Setup, Shutdown, Write
from tests.differential.peer import ACK, CWR, ECE, FIN, RST, SYN, URG
from tests.differential.play import Performance
from tests.differential.terms import signed, theirs

CE = 3
SETUP = Setup()


def outcomes(wire, *steps, reader=True, **setup):
    """What the kernel and the engine did in the last of the steps."""
    script = Script(Setup(reads_at_once=reader, **setup), steps)
    return Performance(wire, script, literally=True).play()


def sacks(side):
    """The SACK blocks of what a side has sent, in positions."""
    return [[(signed(a - SETUP.irs), signed(b - SETUP.irs)) for a, b in p.sack] for p in side.sent if p.sack]


def states(*sides):
    return [side.view.state for side in sides]


def test_beyond_the_edge(wire):
    # Something waits to be read: the kernel refuses all of it, the engine takes what is in the window.
    beyond = Segment(seq=("edge", -500), length=1000)
    kernel, engine = outcomes(wire, Segment(length=1000), beyond, reader=False)
    assert sacks(kernel) == []
    assert sacks(engine) == [[(kernel.edge - 500, kernel.edge)]]


def test_beyond_the_edge_with_nothing_to_be_read(wire):
    # Nothing waits to be read: the kernel takes all of it.
    kernel, engine = outcomes(wire, Segment(seq=("edge", -500), length=1000), timestamps=False)
    assert sacks(kernel) == [[(19_500, 20_500)]]
    assert sacks(engine) == [[(19_500, 20_000)]]


def test_a_reset_in_the_window_again(wire):
    reset = Segment(seq=("next", 100), flags=RST)
    kernel, engine = outcomes(wire, reset)
    assert kernel.sent and engine.sent
    kernel, engine = outcomes(wire, reset, reset)
    assert kernel.sent and not engine.sent


def test_a_syn_at_the_next_byte(wire):
    kernel, engine = outcomes(wire, Segment(flags=SYN))
    assert states(kernel, engine) == ["ESTABLISHED", "CLOSED"]
    assert kernel.sent and not engine.sent


def test_a_syn_in_the_window_again(wire):
    syn = Segment(seq=("next", 100), flags=SYN)
    kernel, engine = outcomes(wire, syn)
    assert kernel.sent and engine.sent
    kernel, engine = outcomes(wire, syn, syn)
    assert kernel.sent and not engine.sent


def test_urgent_data(wire):
    kernel, engine = outcomes(wire, Segment(length=100, flags=ACK | URG, urgent=1))
    assert kernel.view.received == 100
    assert engine.view.received == 0


def test_a_reset_before_the_fin(wire):
    kernel, engine = outcomes(wire, Segment(flags=ACK | FIN), Segment(seq=("next", -1), flags=RST))
    assert states(kernel, engine) == ["CLOSED", "CLOSE_WAIT"]


def test_a_reset_behind_what_is_selectively_acknowledged(wire):
    late = Segment(seq=("next", 1000), length=1000)
    kernel, engine = outcomes(wire, late, Segment(seq=("next", 2000), flags=RST))
    assert states(kernel, engine) == ["CLOSED", "ESTABLISHED"]


@pytest.mark.parametrize(("place", "length"), [(("next", -2), 100), (("edge", 0), 0)])
def test_a_reset_beside_the_window(wire, place, length):
    kernel, engine = outcomes(wire, Segment(seq=place, length=length, flags=RST))
    assert kernel.sent and not engine.sent


def test_data_behind_the_fin(wire):
    kernel, engine = outcomes(wire, Segment(flags=ACK | FIN), Segment(seq=("next", -1), length=100))
    assert states(kernel, engine) == ["CLOSED", "CLOSE_WAIT"]
    assert [bool(packet.flags & RST) for packet in kernel.sent] == [True]


def test_an_acknowledgement_from_before_the_hand_over(wire):
    kernel, engine = outcomes(wire, Segment(length=100, ack=("una", -100)))
    assert (kernel.view.received, engine.view.received) == (0, 100)


def test_an_acknowledgement_that_was_overtaken(wire):
    kernel, engine = outcomes(wire, Segment(seq=("next", -100), ts=-5))
    assert not kernel.sent and engine.sent


def test_an_old_acknowledgement_that_tells_the_time(wire):
    acked = [Write(100), Segment(ts=0)]
    kernel, engine = outcomes(wire, *acked, Segment(length=100, ack=("una", -100), ts=7))
    assert kernel.sent[-1].ts[1] == SETUP.peer_clock
    assert engine.sent[-1].ts[1] == SETUP.peer_clock + 7


def test_the_window_of_older_data_with_newer_acknowledgement(wire):
    later = Segment(seq=("next", 100), ack=("una", 0), window=20_000)
    newer = Segment(seq=("next", 0), ack=("max", 0), window=999)
    kernel, engine = outcomes(wire, Write(100), later, newer, Segment(ack=("max", 0), window=20_000))
    assert (kernel.view.snd_wnd, engine.view.snd_wnd) == (20_000, 999)


def test_nagle(wire):
    kernel, engine = outcomes(wire, Write(1500), nagle=True, minshall=False, timestamps=False)
    assert (kernel.max, engine.max) == (1500, 1000)


def test_a_window_that_the_last_segment_does_not_fit_into(wire):
    kernel, engine = outcomes(wire, Segment(window=0), Segment(window=999), Write(1000), mss=536, timestamps=False)
    assert (kernel.max, engine.max) == (999, 536)


def test_a_fin_that_waits_for_the_window(wire):
    performance = Performance(wire, Script(Setup(snd_wnd=0), (Write(100), Shutdown())), literally=True)
    kernel, _ = performance.play()
    assert kernel.view.state == "FIN_WAIT_1"
    assert performance.engine.connection.state == 4  # ESTABLISHED


def test_a_fin_out_of_order(wire):
    kernel, engine = outcomes(wire, Segment(seq=("next", 500), length=100, flags=ACK | FIN))
    assert sacks(kernel) == [[(500, 601)]]
    assert sacks(engine) == [[(500, 600)]]


def test_a_duplicate_inside_of_what_is_joined(wire):
    # It depends on the room behind the kernel's copy of the first block.
    blocks = [Segment(seq=("next", 1000), length=1), Segment(seq=("next", 1050), length=1)]
    kernel, engine = outcomes(wire, *blocks, Segment(seq=("next", 1001), length=100))
    assert sacks(kernel) == [[(1000, 1101)]]
    assert sacks(engine) == [[(1050, 1051), (1000, 1101)]]


def test_sack_beside_data(wire):
    kernel, engine = outcomes(wire, Segment(seq=("next", 500), length=100), Write(100))
    assert sacks(kernel) == [[(500, 600)]]
    assert sacks(engine) == []


@pytest.mark.parametrize(
    "options",
    [b"\x13\x12" + bytes(16) + b"\x01\x01", b"\x08\x01" + bytes(18)],
    ids=["a signature", "a malformed list that may hold one"],
)
def test_options_where_signatures_are_looked_for(wire, options):
    kernel, engine = outcomes(wire, Segment(length=100, options=options, ts=None))
    assert (kernel.view.received, engine.view.received) == (0, 100)


def test_two_timestamps(wire):
    first = b"\x08\x0a" + (SETUP.peer_clock - 1000).to_bytes(4, "big") + bytes(4) + b"\x01\x01"
    kernel, engine = outcomes(wire, Segment(length=100, options=first, ts=1))
    assert (kernel.view.received, engine.view.received) == (100, 0)


def test_a_reduced_window_without_data(wire):
    marked, reduced = Segment(length=100, ecn=CE), Segment(flags=ACK | CWR)
    kernel, engine = outcomes(wire, marked, reduced, Write(100), ecn=True)
    assert [bool(side.sent[-1].flags & ECE) for side in (kernel, engine)] == [False, True]


def test_no_memory_for_what_fits_into_the_window(wire):
    bulk = [Segment(length=1000)] * 8
    kernel, engine = outcomes(wire, *bulk, reader=False, receive_buffer=4000)
    assert kernel.view.received < engine.view.received


def test_the_news_of_a_window_of_one_segment(wire):
    # The kernel closes its window by halves of the buffer, the engine waits for two segments.
    bulk = [Segment(length=1000)] * 5
    kernel, engine = outcomes(wire, *bulk, Read(1000), reader=False, rcv_wnd=6000, receive_buffer=8000)
    assert kernel.sent and not engine.sent


def test_two_fins(wire):
    # A FIN inside of what comes later was forged: for the kernel it is forgotten, for the engine it is the end.
    forged = Segment(seq=("next", 500), flags=ACK | FIN)
    kernel, engine = outcomes(wire, forged, Segment(length=1000))
    assert states(kernel, engine) == ["ESTABLISHED", "CLOSE_WAIT"]


def test_other_bytes_for_what_is_kept_already(wire):
    other = b"\xff" * 200
    first = Segment(seq=("next", 100), length=100)
    again = Segment(seq=("next", 50), length=200, data=other)
    kernel, engine = outcomes(wire, first, again, Segment(length=50))
    assert kernel.data[50:] == other
    assert engine.data[50:] == other[:50] + theirs(100, 100) + other[:50]
