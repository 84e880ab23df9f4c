"""Data both ways."""

from __future__ import annotations

from chimney.conformance.scenario import scenario
from chimney.conformance.world import World


@scenario(delay_us=100)
def transfer(world: World) -> None:
    """Lists of sends and receives both ways, several MDLs and NetBuffers, and a graceful close."""
    a, b = world.connect()
    for end in (a, b):
        end.receive(3000, 500, 2000, 4500)
    for end in (a, b):
        end.send(b"a" * 3000, (b"b" * 100, b"c" * 300, b"d" * 100), [b"e" * 700, b"f" * 1300])
        end.send(b"g" * 4500)
    world.run(until=lambda: len(a.host.took("send")) == len(b.host.took("send")) == 4)
    for one, other in ((a, b), (b, a)):
        assert one.received == other.application
        one.disconnect()
    world.run(until=lambda: not (a.offloaded or b.offloaded))
