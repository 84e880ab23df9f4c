"""What shows only when time passes: that something comes at all."""

from __future__ import annotations

from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, exchange, send
from chimney.conformance.wire import ACK, RST, read_packet
from chimney.conformance.world import World
from chimney.ndis.status import Status


@scenario(delay_us=100)
def acknowledged_after_all(world: World) -> None:
    """Forwarded data, and data behind our FIN, is acknowledged although nobody sends anything in return."""
    a, b = world.connect()
    exchange(a, b, 200)
    b.reading = 1000
    # It comes on another interface, all the times that it is sent.
    diverted: list[bytes] = []

    def divert(name: str, frame: bytes) -> bool:
        diverted.append(frame)
        return name == "a"

    world.network.drop_if = divert
    send(a, 300)
    world.poll()
    packet = read_packet(diverted[0])
    assert packet is not None
    b.forward(packet.payload)
    world.run(duration=8_000_000)
    world.network.drop_if = None
    a.reading = 1000
    a.disconnect()
    world.run(duration=1_000_000)
    send(b, 400)
    world.run(duration=3_000_000)
    b.disconnect(b"the end")
    world.run(duration=3_000_000)


@scenario(delay_us=100)
def sent_after_all(world: World) -> None:
    """The peer has closed; what is posted then is sent all the same."""
    a, b = world.connect()
    a.disconnect(b"over")
    b.reading = 100
    a.reading = 1000
    world.run(duration=1_000_000)
    send(b, 500, 500)
    world.run(duration=10_000_000)
    send(b, 500)
    world.run(duration=10_000_000)


@scenario(delay_us=100)
def aborted_after_all(world: World) -> None:
    """The peer resets the connection, with requests outstanding, and the host hears of it."""
    a, b = world.connect()
    sends = send(a, 300)
    a.receive(500)
    world.run(duration=10)
    a.arrives(0, flags=RST | ACK, push=False)
    world.run(duration=8_000_000)
    b.abort()
    world.run(duration=3_000_000)
    assert arrived(b) or sends[0].status == Status.REQUEST_ABORTED


@scenario(delay_us=100, bandwidth=10_000_000, send_buffer=6000)
def terminate_waits_for_the_link(world: World) -> None:
    """The acknowledgement that a terminate owes has to wait; what arrives until then goes up the ordinary path."""
    a, b = world.connect()
    c, d = world.connect(2000)
    a.reading = d.reading = 20_000
    send(b, 300)
    world.run(duration=500)
    # Another connection fills the link, and this one owes an acknowledgement.
    send(c, 14_000)
    world.poll()
    a.side.start("terminate_offload", a.terminate_tree())
    send(b, 700)
    world.run(until=lambda: bool(a.host.took("terminate")))
    assert a.kept, "a segment arrived during the terminate"
    a.initiate()
    world.run(until=lambda: arrived(a, d))
