"""What must be true at every moment of a run, and at its end, beyond what the doors see and the applications count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.host.connection import Connection, Owner
from chimney.sim.application import Application, ChimneyApplication
from chimney.sim.case import OTHER, Side
from chimney.sim.coverage import unreachable

if TYPE_CHECKING:
    from chimney.sim.world import World


class Invariants:
    """Looks at a world after each event, and at its end; what does not hold is told with `World.broken`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def after_event(self) -> None:
        """Something has happened."""

    def at_end(self) -> None:
        """The run is over: every stack has been closed."""
        for application in self._world.applications.values():
            self._check_streams(application)
            if isinstance(application, ChimneyApplication) and not self._world.machines[application.side].dead:
                self._check_requests(application)
                self._check_owner(application.side, application.connection)
        for cell in sorted(self._world.cells):
            reason = unreachable(cell)
            if reason is not None:
                self._world.broken(
                    "coverage", f"{cell.event} in {cell.state} ({cell.phase}) was seen; said to be impossible: {reason}"
                )

    def _check_streams(self, application: Application) -> None:
        """Unless somebody broke it off, each stream has come to its end and is complete."""
        world = self._world
        peer = world.applications[OTHER[application.side]]
        if world.broken_off or application.received == peer.posted:
            return
        world.broken("streams", f"{application.side} has received {application.received} of {peer.posted} bytes")

    def _check_requests(self, application: ChimneyApplication) -> None:
        """Every request has come back."""
        left = len(application.sends) + len(application.receives)
        if application.shut and not application.shutdown_done and not application.closed:
            left += 1
        if left:
            self._world.broken("completion", f"{left} requests of {application.side} have never completed")

    def _check_owner(self, side: Side, connection: Connection) -> None:
        """A closed stack has let the connection go."""
        if connection.owner is not Owner.APPLICATION:
            self._world.broken("one owner", f"the {connection.owner.value} of {side} has kept the connection")
        if connection.sends or connection.receives:
            self._world.broken("completion", f"the host stack of {side} has kept requests")
