"""Segments that reach the host instead of the target (documents: 10.7, 16.4)."""

from __future__ import annotations

from chimney.conformance import wire
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, pattern, send
from chimney.conformance.world import World
from chimney.ndis.status import Status

_OPTIONS = b"\x94\x04\0\0"  # router alert (RFC 2113)


@scenario(delay_us=100, unfiltered=True)
def options_and_fragments(world: World) -> None:
    """Segments with IP options, and in fragments, come up the ordinary path; the host forwards them."""
    a, b = world.connect()
    b.reading = 1000
    exchange(a, b, 200)
    at = len(a.application)
    data = pattern(a, 900)
    a.application += data
    b.inject(b.frame(b.segment(at, data[:300], ack=200), options=_OPTIONS))
    world.settle()
    frame = b.frame(b.segment(at + 300, data[300:600], ack=200), identification=77)
    # The second fragment first.
    b.inject(*reversed(wire.fragments(frame, 160)))
    world.settle()
    # And one that is in order, and one too early, through the host.
    b.forward(b.segment(at + 800, data[800:], ack=200), b.segment(at + 600, data[600:800], ack=200))
    world.run(until=lambda: arrived(b))
    assert [status for _, status, _ in b.host.took("forward")] == [Status.SUCCESS] * 4


@scenario(delay_us=100)
def many_forwards(world: World) -> None:
    """Forward calls with several segments each, duplicates and acknowledgements among them."""
    a, b = world.connect()
    exchange(a, b, 200)
    b.reading = 1000
    at = len(a.application)
    data = pattern(a, 1000)
    a.application += data
    for offset in range(0, 1000, 250):
        piece = b.segment(at + offset, data[offset : offset + 250], ack=200)
        b.forward(piece, piece, b.segment(at, ack=200, push=False))
    world.run(until=lambda: arrived(b))
    assert len(b.host.took("forward")) == 12


@scenario(delay_us=100)
def forwards_that_end(world: World) -> None:
    """A forwarded RST: later segments are aborted. A terminate, an upload request and an abort behind a forward."""
    a, b = world.connect()
    c, d = world.connect(2000)
    e, f = world.connect(3000)
    g, h = world.connect(4000)
    first = b.forward(b.segment(0, b"some"), b.segment(4, flags=wire.RST | wire.ACK, push=False), b.segment(4, b"more"))
    waiting = d.forward(d.segment(0, b"not processed"))
    d.terminate()
    assert [nbl.status for nbl in waiting] == [Status.UPLOAD_IN_PROGRESS] and d.kept
    aborted = f.forward(f.segment(0, b"too late"))
    f.abort()
    urgent = h.forward(h.segment(0, b"urgent", urgent=1), h.segment(6, b"behind it"))
    world.run(until=lambda: not b.offloaded and not f.offloaded and not h.offloaded)
    assert [nbl.status for nbl in first] == [Status.SUCCESS, Status.SUCCESS, Status.REQUEST_ABORTED]
    assert aborted[0].status in (Status.SUCCESS, Status.REQUEST_ABORTED)
    assert urgent[1].status == Status.UPLOAD_IN_PROGRESS
    for end in (a, c, e, g):
        if end.offloaded:
            end.abort()
    world.run(until=lambda: not any(end.offloaded for end in (a, c, e, g)))


@scenario(delay_us=100)
def forwards_that_come_back(world: World) -> None:
    """Forwards that a terminate finds unprocessed: the host takes their data itself, before it offloads again."""
    a, b = world.connect()
    exchange(a, b, 200)
    b.reading = 0
    # The segments came on another interface: the link loses them, and the host has them.
    lost: list[bytes] = []

    def divert(name: str, frame: bytes) -> bool:
        lost.append(frame)
        return name == "a"

    world.network.drop_if = divert
    for size in (200, 400):
        send(a, size)
        world.poll()
    world.network.drop_if = None
    returned = b.forward(*[packet.payload for packet in map(wire.read_packet, reversed(lost)) if packet is not None])
    b.terminate()
    assert {nbl.status for nbl in returned} == {Status.UPLOAD_IN_PROGRESS}
    b.initiate()
    world.run(until=lambda: arrived(b) and len(a.host.took("send")) == 3)
    exchange(a, b, 300)
