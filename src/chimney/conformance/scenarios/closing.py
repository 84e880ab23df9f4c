"""How connections end: FIN and RST, from either side (documents: 10.5, 10.6, 13.6, chapter 15)."""

from __future__ import annotations

from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, pattern, send
from chimney.conformance.wire import ACK, RST
from chimney.conformance.world import World
from chimney.ndis.status import Status, TcpConnectionState, UploadReason

State = TcpConnectionState
_OK, _ABORTED = Status.SUCCESS, Status.REQUEST_ABORTED


@scenario(delay_us=100)
def graceful_close(world: World) -> None:
    """Last data and FIN without waiting; half-closed, it goes on the other way; TIME_WAIT goes up."""
    a, b = world.connect()
    a.reading = b.reading = 2000
    send(a, 500, 600)
    last = a.disconnect(pattern(a, 700))
    world.run(until=lambda: b.peer_closed and bool(a.host.took("disconnect")))
    assert last.status == _OK and last.tcp_offload_bytes_transferred == 700 and arrived(b)
    for _ in range(3):
        send(b, 900)
        world.run(duration=50_000)
    assert arrived(a)
    b.disconnect()
    world.run(until=lambda: not a.offloaded and not b.offloaded)
    assert a.delegated.state is State.TIME_WAIT and b.delegated.state is State.CLOSED


@scenario(delay_us=1000)
def fin_behind_data_in_flight(world: World) -> None:
    """A FIN in a segment of its own does not wait for the acknowledgement of the data before it."""
    a, b = world.connect()
    b.reading = 1000
    send(a, 500)
    world.run(duration=200)
    a.disconnect()
    world.run(until=lambda: b.peer_closed and arrived(b))


@scenario(delay_us=100)
def requests_at_the_end(world: World) -> None:
    """FIN finds a partly filled non-push request and empty ones; requests posted after the event have no state."""
    a, b = world.connect()
    pairs = b.receive(1000, 500, 0, push=False)
    send(a, 400)
    world.run(duration=50_000)
    a.disconnect()
    world.run(until=lambda: b.peer_closed)
    assert [(nbl.status, nbl.tcp_offload_bytes_transferred) for nbl, _ in pairs] == [(_OK, 400), (_OK, 0), (_OK, 0)]
    late = b.receive(100, 0)
    world.poll()
    assert [nbl.status for nbl, _ in late] == [Status.INVALID_STATE] * 2
    a.reading = 1000
    send(b, 300)
    b.disconnect(b"over")
    world.run(until=lambda: arrived(a, b) and not b.offloaded)


@scenario(delay_us=100)
def fin_behind_refused_data(world: World) -> None:
    """The end of the stream is indicated only when the application has taken all data before it."""
    a, b = world.connect()
    send(a, 800)
    a.disconnect(b"last")
    world.run(duration=100_000)
    assert b.host.took("indicate") and not b.peer_closed
    b.receive(500)
    world.run(duration=100_000)
    assert not b.peer_closed
    b.reading = 1000
    world.run(until=lambda: b.peer_closed and arrived(b))


@scenario(delay_us=500)
def abortive_close(world: World) -> None:
    """An abort with sends, receives and a graceful close outstanding; requests posted after it; the peer is told."""
    a, b = world.connect()
    exchange(a, b, 500)
    b.reading = 0
    receives = a.receive(100, 0)
    sends = [*send(a, 5000, 10)]
    a.disconnect(b"never")
    world.run(duration=100)
    abort = a.abort()
    late = send(a, 10)
    world.run(until=lambda: bool(b.host.took("INDICATE_ABORT")) and not a.offloaded)
    assert [nbl.status for nbl in sends + late] == [_ABORTED] * 3 and abort.status == _OK
    assert {nbl.status for nbl, _ in receives if nbl.tcp_offload_bytes_transferred == 0} >= {_ABORTED}
    world.run(until=lambda: not b.offloaded)


@scenario(delay_us=500)
def abort_of_undelivered_data(world: World) -> None:
    """An abort while data is refused, and while segments are on their way: nothing of them is acknowledged any more."""
    a, b = world.connect()
    send(b, 2000)
    world.run(duration=100_000)
    send(b, 3000)
    a.side.target.poll(world.clock())
    a.abort()
    world.run(until=lambda: not a.offloaded and not b.offloaded)


@scenario(delay_us=100)
def abort_then_terminate(world: World) -> None:
    """A terminate right behind an abort: the RST still leaves."""
    a, b = world.connect()
    send(a, 100)
    abort = a.abort()
    a.terminate()
    assert abort.status == _OK
    world.run(until=lambda: not b.offloaded)


@scenario(delay_us=100)
def abort_from_an_upcall(world: World) -> None:
    """An abort from within a receive indication: the RST does not wait for it."""
    a, b = world.connect()
    b.host.on["indicate"] = lambda handle: b.host.on.clear() or b.abort()  # type: ignore[func-returns-value]
    send(a, 100)
    world.run(until=lambda: not a.offloaded and not b.offloaded)
    assert a.aborted


@scenario(delay_us=500)
def reset_by_the_peer(world: World) -> None:
    """An acceptable RST with everything outstanding: told at once, requests are aborted, the host terminates."""
    a, b = world.connect()
    send(b, 300)
    world.run(duration=100_000)
    assert a.host.took("indicate"), "refused data does not hold up the event"
    sends = [*send(a, 2000, 1000)]
    world.run(duration=100)
    last = a.disconnect(b"never")
    a.inject(a.frame(a.segment(300, flags=RST | ACK, push=False)))
    world.clock.advance(500)
    forwards = a.forward(a.segment(300, b"more", ack=0))
    world.run(until=lambda: not a.offloaded)
    assert a.aborted and last.status == _ABORTED and {nbl.status for nbl in sends} == {_ABORTED}
    assert forwards[0].status == _ABORTED
    b.abort()
    world.run(until=lambda: not b.offloaded)


@scenario(delay_us=500)
def reset_with_receives(world: World) -> None:
    """An acceptable RST finds a receive partly filled, and empty ones of both modes."""
    a, b = world.connect()
    pairs = a.receive(1000, 500, push=False) + a.receive(0, 100)
    send(b, 600)
    world.run(duration=100_000)
    a.arrives(600, flags=RST | ACK, push=False)
    world.run(until=lambda: not a.offloaded)
    assert [nbl.status for nbl, _ in pairs] == [_ABORTED] * 4
    assert pairs[0][0].tcp_offload_bytes_transferred == 600 and arrived(a)
    b.abort()
    world.run(until=lambda: not b.offloaded)


@scenario(delay_us=100)
def resets_that_are_none(world: World) -> None:
    """An RST outside the window is dropped; one within it is challenged, and keepalive probes ask the peer."""
    a, b = world.connect()
    exchange(a, b, 500)
    a.arrives(500 + (1 << 20), flags=RST | ACK, push=False)
    a.arrives(400, flags=RST, push=False)
    for _ in range(3):
        a.arrives(510, flags=RST, push=False)
    assert not a.aborted
    world.run(duration=400_000_000)
    exchange(a, b, 500)
    # Challenged again, and this time the peer is gone.
    a.arrives(1010, flags=RST, push=False)
    world.network.drop_if = lambda name, frame: True
    world.run(until=lambda: not a.offloaded)
    assert a.host.took("INDICATE_RETRIEVE")
    world.network.drop_if = None


@scenario(delay_us=100)
def abort_after_an_upload_request(world: World) -> None:
    """Disconnects of either kind that arrive while the target has asked for the connection come back."""
    a, b = world.connect()
    c, d = world.connect(2000)
    for end in (a, c):
        end.side.target.request_retrieve(end.flow, UploadReason.UPLOAD_REQUESTED)
    abort, close = a.abort(), c.disconnect(b"bye")
    world.run(until=lambda: not a.offloaded and not c.offloaded)
    assert abort.status == close.status == Status.UPLOAD_IN_PROGRESS
    c.initiate()
    d.reading = 1000
    world.run(until=lambda: d.peer_closed and arrived(d))
    b.abort()
    world.run(until=lambda: not b.offloaded)
