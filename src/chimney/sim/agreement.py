"""What the targets have of the network agrees with what the kernels say, soon after these have changed their minds.

A connection that goes on with an old hardware address or an old path MTU loses nothing: it waits, and what is lost is
sent again. So the streams do not show it; here the objects of the targets are looked at. Drivers that keep things back,
and targets that fail, may take their time: where there are such, nothing is expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.host.connection import Owner
from chimney.host.withdrawal import FIRST_PAUSE_US
from chimney.link.base import NEVER
from chimney.sim.case import SIDES, Case, Driver, Layer, Neighbor, PathMtu, Route, Side, Target, Unplug, Withdraw

if TYPE_CHECKING:
    from chimney.sim.world import World

# How long everything may take that costs no waiting, besides the time that a process takes to wake up.
_PATIENCE_US = 200_000
# What a kernel forgets it does not tell: somebody looks now and then.
_FORGETS_US = 11_000_000


class _Watched:
    """One side with a chimney.

    slack         how long its process may take to wake up.
    differs_at    since when the target and the kernel differ; NEVER if they do not.
    stays_up      the application has taken it up, and not down again.
    withdrawn_at  when the host has taken the connection up; ``good_at``: since when nothing keeps it there. NEVER: it
                  has not, or something does.
    """

    def __init__(self, slack: int) -> None:
        self.slack = slack
        self.differs_at = self.withdrawn_at = self.good_at = NEVER
        self.stays_up = False


class Agreement:
    """Watches a world, and tells it with `World.broken` what is not so."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._watched = {
            side: _Watched(world.case.host(side).latency_us + _PATIENCE_US)
            for side in SIDES
            if _is_judged(world.case, side)
        }

    def after_event(self) -> None:
        """Something has happened."""
        now = self._world.clock.now
        for side, watched in self._watched.items():
            if self._world.machines[side].dead:
                continue
            what = self._difference(side)
            if not what:
                watched.differs_at = NEVER
            else:
                watched.differs_at = min(watched.differs_at, now)
                since = max(watched.differs_at, self._world.machines[side].surroundings.changed_at)
                if now - since > watched.slack:
                    self._broken(side, what)
                    watched.differs_at = NEVER
            self._look_at_withdrawal(side, watched)
            if watched.stays_up and self._world.connections[side].owner is Owner.TARGET:
                self._broken(side, "goes down by itself, and its application has taken it up")
                watched.stays_up = False

    def withdrawn(self, side: Side) -> None:
        """The host takes the connection up."""
        watched = self._watched.get(side)
        if watched is not None and self._world.connections[side].owner is Owner.TARGET:
            watched.withdrawn_at = self._world.clock.now

    def decided(self, side: Side, up: bool = False) -> None:
        """The application has the connection moved (``up`` or not), or ends it: what the host wants does not count any
        more.
        """
        watched = self._watched.get(side)
        if watched is not None:
            watched.withdrawn_at = NEVER
            watched.stays_up = up

    def _difference(self, side: Side) -> str:
        """In what the target differs from the kernel; empty if in nothing that counts."""
        world, machine = self._world, self._world.machines[side]
        connection, target, kernel = world.connections[side], machine.target, machine.surroundings
        if connection.owner is not Owner.TARGET or target is None or world.busy_since(side) < NEVER:
            return ""
        tcp = next(iter(target.connections.values()), None)
        if tcp is None or tcp.engine_done or machine.state == "CLOSED":
            return ""
        path = tcp.path
        neighbor = path.neighbor
        invalid = tcp.silent or path.invalid or neighbor.invalid
        if tcp.upload_reason and not invalid:
            return ""
        if not kernel.routed:
            return "" if invalid else "sends, and the kernel has no route"
        if not kernel.neighbor_mac:
            return ""
        if invalid:
            return "sends nothing, and the kernel has a route"
        if neighbor.destination_mac != kernel.neighbor_mac:
            return (
                f"sends to {neighbor.destination_mac.hex(':')}, and the kernel would to {kernel.neighbor_mac.hex(':')}"
            )
        mtu = min(kernel.path_mtu, target.link.mtu)
        untold = not kernel.told and path.path_mtu < mtu and world.clock.now - kernel.changed_at < _FORGETS_US
        if path.path_mtu == mtu or untold:
            return ""
        return f"sends packets of {path.path_mtu} bytes, and the path takes {mtu}"

    def _look_at_withdrawal(self, side: Side, watched: _Watched) -> None:
        """What is withdrawn goes down again: the pauses between the attempts at most double."""
        world, machine, now = self._world, self._world.machines[side], self._world.clock.now
        connection = world.connections[side]
        if connection.owner is Owner.TARGET and now > watched.withdrawn_at + watched.slack:
            watched.withdrawn_at = NEVER
        able = (
            watched.withdrawn_at < NEVER
            and connection.owner is Owner.KERNEL
            and connection.error is None
            and machine.state in ("ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK")
            and machine.surroundings.routed
            and machine.surroundings.neighbor_mac
            and world.busy_since(side) == NEVER
        )
        if not able:
            watched.good_at = NEVER
            return
        watched.good_at = min(watched.good_at, now)
        waiting = world.stacks[side].withdrawals.find(connection)
        # Who has come down just now waits longer.
        pause = FIRST_PAUSE_US if waiting is None else max(FIRST_PAUSE_US, waiting.pause)
        pause = 2 * max(pause, watched.good_at - watched.withdrawn_at)
        if now - watched.good_at > pause + watched.slack:
            self._broken(side, f"does not go down again by itself, after {(now - watched.withdrawn_at) / 1e6:.1f} s")
            watched.withdrawn_at = NEVER

    def _broken(self, side: Side, what: str) -> None:
        self._world.broken("kernel's word", f"{side} {what}")


def _is_judged(case: Case, side: Side) -> bool:
    """Whether something changes around a side whose drivers and target are as they should be."""
    host = case.host(side)
    changes = any(
        isinstance(step, PathMtu) or (isinstance(step, Neighbor | Route | Unplug) and step.of == side)
        for step in case.steps
    )
    changes = changes or any(isinstance(step, Withdraw) and step.side == side for step in case.steps)
    plain = all(layer == Layer() for layer in host.layers)
    trouble = any(isinstance(step, Driver | Target) and step.side == side for step in case.steps)
    return host.chimney and changes and plain and not trouble
