"""What has to be the same on both sides after each step, and within which tolerance.

The same, always: the state, what was received and acknowledged, the bytes that the application reads, the peer's
window, RST or none. If a segment is answered: the acknowledgement, the echoed timestamp, SACK and DSACK blocks, and the
right edge of our window, given the kernel's idea of how much memory there is (`EngineSide.edge`). How far has been
sent, if nothing is lost and no congestion window is in the way.
"""

import itertools

from tests.differential import known
from tests.differential.peer import CWR, ECE, FIN, RST
from tests.differential.terms import expect, signed

_CLOSED = "CLOSED"


def compare(play, kernel, engine):
    """Raises Difference if the outcomes of a step differ in what counts."""
    arrival = play.arrival
    for ends in known.ENDS if arrival else ():
        if ends(arrival):
            play.met.add(f"ended: {ends.__name__}")
            play.is_over = True
            return
    _note(play.met, kernel)
    _compare_views(kernel, engine)
    expect(
        kernel.data == engine.data,
        f"read: {len(kernel.data)} bytes from the kernel, {len(engine.data)} from the engine",
    )
    resets = [any(packet.flags & RST for packet in side.sent) for side in (kernel, engine)]
    expect(resets[0] == resets[1], f"RST: kernel {resets[0]}, engine {resets[1]}")
    if not (arrival and any(excuses(arrival) for excuses in known.ANSWERS)):
        for side, other, name in ((kernel, engine, "kernel"), (engine, kernel, "engine")):
            expect(other.sent or not any(map(_is_pure, side.sent)), f"answered only by the {name}")
        if kernel.sent and engine.sent and not resets[0]:
            _compare_answers(play, kernel, engine)
    _compare_progress(play, kernel, engine)


def _compare_views(kernel, engine):
    names = ["state", "reset", "received", "acked"]
    if kernel.view.state != _CLOSED:
        names.append("snd_wnd")
    for name in names:
        a, b = getattr(kernel.view, name), getattr(engine.view, name)
        expect(a == b, f"{name}: kernel {a}, engine {b}")


def _is_pure(packet):
    """Whether it carries nothing but an acknowledgement."""
    return not packet.data and not packet.flags & (FIN | RST)


def _compare_answers(play, kernel, engine):
    setup, fin_is_taken = play.setup, kernel.ack == play.book.end_of_fin
    expect(kernel.ack == engine.ack, f"acknowledged: kernel {kernel.ack}, engine {engine.ack}")
    # The kernel rounds up to what a segment can tell, and counts the peer's FIN.
    tolerance = (1 << setup.rcv_wscale) - 1 + fin_is_taken
    expect(abs(kernel.edge - engine.edge) <= tolerance, f"right edge: kernel {kernel.edge}, engine {engine.edge}")
    if setup.ecn:
        _compare_marks(play, kernel, engine)
    if setup.timestamps:
        echoes = [side.sent[-1].ts[1] for side in (kernel, engine)]
        expect(echoes[0] == echoes[1], f"TSecr: kernel {echoes[0]}, engine {echoes[1]}")
    # Data segments of the engine's carry none.
    tells = any(map(_is_pure, kernel.sent + engine.sent))
    if tells and play.arrival and not fin_is_taken:
        blocks = [_sack_blocks(play, side.sent) for side in (kernel, engine)]
        # Where the kernel sends data before that or after it, it says what it knows there, too.
        agree = all(_is_said(said, blocks[0]) for said in blocks[1]) and bool(blocks[0]) == bool(blocks[1])
        expect(agree, f"SACK: kernel {blocks[0]}, engine {blocks[1]}")


def _compare_marks(play, kernel, engine):
    """RFC 3168: what is echoed, whether the echo was heard, and what is ECN-capable."""
    echoes = [bool(side.sent[-1].flags & ECE) for side in (kernel, engine)]
    expect(echoes[0] == echoes[1], f"ECE: kernel {echoes[0]}, engine {echoes[1]}")
    data = [[packet for packet in side.sent if packet.data] for side in (kernel, engine)]
    if all(data):
        heard = [any(packet.flags & CWR for packet in packets) for packets in data]
        # New data is not new for both if one of them has got further.
        expect(heard[0] == heard[1] or play.tolerance, f"CWR: kernel {heard[0]}, engine {heard[1]}")
        capable = [{packet.ecn for packet in packets} for packets in data]
        expect(capable[0] == capable[1], f"codepoints: kernel {capable[0]}, engine {capable[1]}")


def _is_said(blocks, others):
    """Whether these blocks are among the others. A duplicate that what comes in between covers, is nothing to a kernel
    that can join what comes to what is there (docs/differences.md).
    """
    is_covered = len(blocks) > 1 and blocks[1][0] < blocks[0][0] and blocks[0][1] < blocks[1][1]
    return blocks in others or is_covered and blocks[1:] in others


def _sack_blocks(play, packets):
    """What SACK options say, in positions, each once: the kernel repeats it in every segment with data that follows.

    A FIN that waits behind a hole is the kernel's to mention (docs/differences.md).
    """
    said = []
    for packet in packets:
        blocks = []
        for block in packet.sack:
            left, right = (signed(seq - play.setup.irs) for seq in block)
            right -= right == play.book.end_of_fin
            if left != right:
                blocks.append((left, right))
        if blocks:
            said.append(blocks)
    return [blocks for blocks, _ in itertools.groupby(said)]


def _compare_progress(play, kernel, engine):
    """How far both have sent. What does not fit into the peer's window in a full segment, they treat differently, also
    where SACK blocks take room beside data (docs/differences.md); so they may stay apart for some time.
    """
    view, mss, distance = kernel.view, play.setup.mss, abs(kernel.max - engine.max)
    if view.state == _CLOSED or view.is_disturbed or view.is_cwnd_limited:
        play.tolerance = max(play.tolerance, distance)
        return
    has_less_room = play.setup.nagle and play.book.sacked
    if has_less_room or play.written + play.is_shut > view.acked + view.snd_wnd:
        play.tolerance = max(play.tolerance, mss, view.snd_wnd // 3)
    expect(distance <= play.tolerance, f"sent up to: kernel {kernel.max}, engine {engine.max}")


def _note(met, kernel):
    """What an example has met, for statistics."""
    view = kernel.view
    met.add(view.state)
    met.update(
        what
        for what, has_happened in (
            ("reset by the peer", view.reset),
            ("our window is closed", kernel.edge == view.received),
            ("the peer's window is closed", not view.snd_wnd),
            ("loss", view.is_disturbed),
            ("SACK sent", any(packet.sack for packet in kernel.sent)),
        )
        if has_happened
    )
