"""Sends that nobody passes on any more: a driver without memory, a target that wants the connection back (12.5)."""

from __future__ import annotations

from chimney.conformance.drivers import ShortDriver
from chimney.conformance.scenario import scenario
from chimney.conformance.steps import arrived, send
from chimney.conformance.world import World
from chimney.ndis.buffers import NetBufferList
from chimney.ndis.status import Status


@scenario(delay_us=500, drivers=[ShortDriver])
def a_driver_without_memory_for_sends(world: World) -> None:
    """A driver cannot remember a list of sends: the host takes the connection back, and sends them itself."""
    a, b = world.connect()
    driver = world.sides[0].drivers[0]
    assert isinstance(driver, ShortDriver)
    b.reading = 5000
    send(a, 2000)
    driver.short = True
    refused = send(a, 1000, 700, 300)
    driver.short = False
    world.run(until=lambda: not a.offloaded)
    assert [nbl.status for nbl in refused] == [Status.REQUEST_UPLOAD] + [Status.UPLOAD_REQUESTED] * 2
    a.initiate()
    send(a, 500)
    world.run(until=lambda: arrived(b))


@scenario(delay_us=500, drivers=[ShortDriver, ShortDriver])
def two_drivers_without_memory(world: World) -> None:
    """The lower one refuses, the upper one passes the refusal on; then the other way round."""
    a, b = world.connect()
    b.reading = 5000
    for driver in world.sides[0].drivers:
        assert isinstance(driver, ShortDriver)
        driver.short = True
        send(a, 400, 600)
        driver.short = False
        world.run(until=lambda: not a.offloaded)
        a.initiate()
        world.run(until=lambda: arrived(b))


@scenario(delay_us=500)
def sends_behind_an_upload_request(world: World) -> None:
    """What is posted after a mandatory upload request comes back at once, and goes on after the upload."""
    a, b = world.connect()
    b.reading = 5000
    late: list[NetBufferList] = []
    a.host.on["INDICATE_RETRIEVE"] = lambda handle: late.extend(send(a, 700, 300))
    send(a, 3000)
    a.side.runs_short_of("segment")
    send(b, 100)
    world.run(until=lambda: bool(a.host.took("INDICATE_RETRIEVE")))
    a.side.runs_short_of("")
    world.run(until=lambda: not a.offloaded)
    assert {nbl.status for nbl in late} == {Status.UPLOAD_IN_PROGRESS}
    del a.host.on["INDICATE_RETRIEVE"]
    a.initiate()
    a.reading = 100
    world.run(until=lambda: arrived(a, b))
