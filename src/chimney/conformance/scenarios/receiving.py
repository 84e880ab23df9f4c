"""Requests, indications and timers with time to spare after each step, so that what a target leaves undone shows
(documents: 10.2 to 10.4, 13.2).
"""

from __future__ import annotations

from chimney.conformance.end import End
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, pattern, send
from chimney.conformance.world import World
from chimney.target import TargetConfig


def _wait(world: World, seconds: float = 2) -> None:
    """Let time pass, with a look at the targets every tenth of a second."""
    for _ in range(int(10 * seconds)):
        world.run(duration=100_000)


def _unpushed(end: End, *sizes: int) -> None:
    """Segments for ``end`` without PSH, as if its peer had sent them; the peer itself does not know of them."""
    peer = end.peer
    for size in sizes:
        data = pattern(peer, size)
        end.arrives(len(peer.application), data, push=False)
        peer.application += data


@scenario(delay_us=100, config=TargetConfig(push_ticks=4000))
def requests_in_their_time(world: World) -> None:
    """Filled requests, pushed ones, and ones that the timer completes: each when it is due."""
    a, b = world.connect()
    b.receive(400, 400)
    send(a, 800)
    _wait(world)
    # Filled, and pushed.
    b.receive(200, 500)
    send(a, 300)
    _wait(world)
    b.receive(500)
    send(a, 100)
    _wait(world)
    # A non-push request waits for its last byte.
    b.receive(300, push=False)
    send(a, 200)
    _wait(world, 6)
    send(a, 100)
    _wait(world)
    # Several at once, in one list and in several.
    b.receive(50, 50, 50)
    b.receive(50)
    send(a, 200)
    _wait(world)
    # Nothing is pushed: the timer, which every segment starts anew, and which an expiry without data leaves alone.
    b.receive(1000)
    _wait(world, 5)
    assert len(b.host.took("receive")) == 10
    _unpushed(b, 100)
    _wait(world, 3)
    _unpushed(b, 100)
    _wait(world, 3)
    assert len(b.host.took("receive")) == 10
    _wait(world, 3)
    assert arrived(b) and len(b.host.took("receive")) == 11


@scenario(delay_us=100)
def indications_in_their_time(world: World) -> None:
    """Refused, appended, requested, left over, accepted: what waits goes on as soon as nothing stands against it."""
    a, b = world.connect()
    host = b.host
    for _ in range(2):
        send(a, 500)
        _wait(world)
    assert len(host.took("indicate")) == 1
    b.receive(600)
    _wait(world)
    b.receive(400)
    _wait(world)
    b.receive(300)
    send(a, 500)
    _wait(world)
    # What was left over has been refused, and is indicated again after a request of nothing.
    b.receive(0)
    _wait(world)
    assert len(host.took("indicate")) == 4
    # The answer to a refusal is a request, posted before it is given.
    b.receive(200)
    _wait(world)
    host.on["indicate"] = lambda handle: b.receive(500)
    send(a, 500)
    _wait(world)
    host.on.clear()
    assert arrived(b)
    host.answer = len
    for size in (300, 200):
        send(a, size)
        _wait(world)
    assert arrived(b)
    # Handed back and forth, with refused bytes.
    host.answer = lambda data: 0
    send(a, 300)
    _wait(world)
    b.terminate()
    assert arrived(b)


@scenario(delay_us=100)
def indications_with_requests(world: World) -> None:
    """Requests that are posted from within an accepted indication come before the next one."""
    a, b = world.ends()
    b.cached.rcv_indication_size = 256
    a.initiate(), b.initiate()
    # Much has been refused: it is indicated in pieces nevertheless.
    send(a, 20_000)
    _wait(world)
    b.host.answer = lambda data: 100
    b.receive(0)
    _wait(world)
    b.host.answer = len
    left = [800, 900]
    b.host.on["indicate"] = lambda handle: b.receive(left.pop()) if left else None
    b.receive(0)
    _wait(world)
    assert arrived(b) and not left


@scenario(delay_us=100)
def segments_within_upcalls(world: World) -> None:
    """Segments are forwarded from within a completion and an indication: they wait until it has returned."""
    a, b = world.connect()
    data = pattern(a, 1000)
    a.application += data

    def forward(what: str, at: int) -> None:
        def once(subject: object) -> None:
            b.host.on.clear()
            b.forward(b.segment(at, data[at : at + 200]))

        b.host.on[what] = once

    b.receive(200, 200)
    forward("receive", 200)
    b.arrives(0, data[:200])
    b.host.answer = len
    forward("indicate", 600)
    b.arrives(400, data[400:600])
    b.arrives(800, data[800:])
    _wait(world, 1)
    assert arrived(b)
