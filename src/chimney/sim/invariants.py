"""What must be true at every moment of a run, and at its end, beyond what the doors see and the applications count.

Here the engines are looked into, and compared with what has really passed the doors. Positions are the doors': counted
from the initial sequence numbers, without wrap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chimney.host.connection import Connection, Owner
from chimney.sim.application import ChimneyApplication
from chimney.sim.case import OTHER, Side
from chimney.sim.coverage import unreachable
from chimney.sim.log import unwrapped
from chimney.sim.promptness import loses_unseen

if TYPE_CHECKING:
    from chimney.sim.machine import Machine
    from chimney.sim.world import World
    from chimney.target.objects import TcpObject
    from chimney.tcp import Connection as Engine

_CLOSED = 0
_FIN_RECEIVED = frozenset({"CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"})


class _Watched:
    """What was seen last of a connection with a chimney.

    una, nxt  its SND.UNA and RCV.NXT.
    tcp       the target's object for it; ``held`` is the difference between RCV.NXT and what that has in its memory or
              has delivered, which cannot change.
    """

    def __init__(self, machine: Machine, application: ChimneyApplication) -> None:
        self.machine = machine
        self.application = application
        self.una = 0
        self.nxt = 0
        self.tcp: TcpObject | None = None
        self.held = 0


class Invariants:
    """Looks at a world after each event, and at its end; what does not hold is told with `World.broken`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._knows_what_it_says = not loses_unseen(world.case)
        self._watched = {
            side: _Watched(world.machines[side], application)
            for side, application in world.applications.items()
            if isinstance(application, ChimneyApplication)
        }

    def after_event(self) -> None:
        """Something has happened."""
        for side, watched in self._watched.items():
            machine = watched.machine
            if machine.dead or machine.phase:
                continue
            target = machine.target
            tcp = next(iter(target.connections.values()), None) if target is not None else None
            if machine.sock.tcp is not None:
                if tcp is not None:
                    self._broken("one owner", f"{side}: both the kernel and the target have the connection")
                else:
                    self._look_into_kernel(side, watched)
            elif tcp is not None and tcp.engine.state != _CLOSED:
                self._look_into_target(side, watched, tcp)

    def restored(self, side: Side) -> None:
        """The kernel knows again what the peer may send. Soon it says so, and then a mistake cannot be seen."""
        watched = self._watched[side]
        model = watched.machine.sock.tcp
        assert model is not None
        if watched.machine.state != "CLOSED":
            nxt = unwrapped(model.receiver.nxt, self._world.case.iss[side == "a"], watched.nxt)
            self._check_window(side, nxt + model.receiver.window)

    def _look_into_kernel(self, side: Side, watched: _Watched) -> None:
        model = watched.machine.sock.tcp
        assert model is not None
        state = watched.machine.state
        watched.tcp = None
        if state == "CLOSED" or watched.application.connection.owner is not Owner.KERNEL:
            return
        nxt = self._compare(side, watched, model.sender.una, model.receiver.nxt)
        self._check_window(side, nxt + model.receiver.window)
        filled = sum(request.bytes_transferred for request in watched.application.connection.receives)
        held = watched.application.received + filled + len(model.receiver.unread)
        if held != nxt - (state in _FIN_RECEIVED):
            self._broken("ack truth", f"{side}: RCV.NXT is {nxt} in {state}, and {held} bytes are there to be read")

    def _look_into_target(self, side: Side, watched: _Watched, tcp: TcpObject) -> None:
        engine: Engine = tcp.engine
        nxt = self._compare(side, watched, engine.snd_una, engine.rcv_nxt)
        self._check_window(side, nxt + engine.rcv_wnd)
        held = nxt - engine.fin_received - tcp.delivery.delivered - tcp.delivery.buffered_bytes
        if watched.tcp is not tcp:
            watched.tcp, watched.held = tcp, held
        elif watched.held != held:
            self._broken("ack truth", f"{side}: {held - watched.held} bytes below RCV.NXT ({nxt}) are in no memory")
            watched.held = held

    def _compare(self, side: Side, watched: _Watched, una: int, nxt: int) -> int:
        """SND.UNA and RCV.NXT never go back, whoever has them, and agree with what has passed the doors. Returns the
        position of RCV.NXT.
        """
        world = self._world
        door, iss = world.doors[side], world.case.iss
        own, peer = (0, 1) if side == "a" else (1, 0)
        una = unwrapped(una, iss[own], watched.una)
        nxt = unwrapped(nxt, iss[peer], watched.nxt)
        if una < watched.una:
            self._broken("monotone SND.UNA", f"{side}: SND.UNA is {una}, after {watched.una}")
        if nxt < watched.nxt:
            self._broken("monotone RCV.NXT", f"{side}: RCV.NXT is {nxt}, after {watched.nxt}")
        said = world.doors[door.peer].facts.ack
        if una > said:
            self._broken("ack truth", f"{side}: SND.UNA is {una}, and the peer has acknowledged {said} only")
        if nxt > door.in_order:
            self._broken("ack truth", f"{side}: RCV.NXT is {nxt}, and only {door.in_order} have arrived")
        if nxt < door.facts.ack:
            self._broken("ack truth", f"{side}: RCV.NXT is {nxt}, and {door.facts.ack} have been acknowledged")
        watched.una, watched.nxt = una, nxt
        return nxt

    def _check_window(self, side: Side, edge: int) -> None:
        """Who believes to have offered more than the peer has heard of does not tell when there is really more, and the
        peer may wait for ever. What the scale cannot tell is forgiven.
        """
        world = self._world
        told = world.doors[side].facts.edge
        peer_goes_on = world.doors[side].heard.fin < 0
        if edge - told >= 1 << max(world.case.scale, 0) and told >= 0 and peer_goes_on and self._knows_what_it_says:
            self._broken("window truth", f"{side}: the window's right edge is {edge}, and the peer was told {told}")

    def at_end(self) -> None:
        """The run is over: every stack has been closed."""
        for side, application in self._world.applications.items():
            self._check_streams(side)
            self._check_reset(side)
            watched = self._watched.get(side)
            if watched is not None and not watched.machine.dead:
                assert isinstance(application, ChimneyApplication)
                self._check_requests(application)
                self._check_owner(side, application.connection)
                self._check_resources(side, watched.machine)
        for cell in sorted(self._world.cells):
            reason = unreachable(cell)
            if reason is not None:
                self._broken(
                    "coverage", f"{cell.event} in {cell.state} ({cell.phase}) was seen, which cannot be: {reason}"
                )

    def _check_streams(self, side: Side) -> None:
        """Nothing was sent that nobody has posted; and unless somebody broke it off, each stream is complete."""
        world = self._world
        application, peer = world.applications[side], world.applications[OTHER[side]]
        facts = world.doors[side].facts
        sent = facts.seq_end - (facts.fin >= 0)
        if sent > application.posted:
            self._broken(
                "streams", f"{side} has sent {sent} bytes, and its application has posted {application.posted}"
            )
        if world.broken_off:
            return
        if application.received != peer.posted:
            self._broken("streams", f"{side} has received {application.received} of {peer.posted} bytes")
        if facts.fin < 0:
            self._broken("streams", f"{side} has not closed its half")

    def _check_reset(self, side: Side) -> None:
        """Who resets a connection of which both halves are not closed tells the peer, unless that has reset it, too."""
        world = self._world
        door = world.doors[side]
        told = door.facts.rst or door.heard.rst or not self._knows_what_it_says
        if world.applications[side].resets and len(world.broken_off) == 1 and not told:
            self._broken("streams", f"{side} has reset the connection, and has not told the peer")

    def _check_requests(self, application: ChimneyApplication) -> None:
        """Every request has come back."""
        left = len(application.sends) + len(application.receives)
        if application.shut and not application.closed and not application.shutdown_done:
            left += 1
        if left:
            self._broken("completion", f"{left} requests of {application.side} have never completed")

    def _check_owner(self, side: Side, connection: Connection) -> None:
        """A closed stack has let the connection go."""
        if connection.owner is not Owner.APPLICATION:
            self._broken("one owner", f"the connection of {side} stays with the {connection.owner.value}")
        if connection.sends or connection.receives:
            self._broken("completion", f"the host stack of {side} has kept requests")

    def _check_resources(self, side: Side, machine: Machine) -> None:
        """Everything is back where it came from: state, memory, taps, and the socket."""
        kept: list[str] = []
        for driver in machine.drivers:
            if driver.call_entries or driver.offload_entries or driver.pending:
                kept.append(
                    f"{driver.name} has {driver.call_entries} calls, {driver.offload_entries} objects and"
                    f" {driver.pending} completions"
                )
        target = machine.target
        if target is not None:
            for what, count in (
                ("connections", len(target.connections)),
                ("paths", len(target.paths)),
                ("neighbors", len(target.neighbors)),
                ("lent lists", len(target.lent)),
                ("lists of its chimney pool", target.chimney_pool.outstanding),
                ("lists of its ordinary pool", target.ordinary_pool.outstanding),
            ):
                if count:
                    kept.append(f"the target has {count} {what}")
        if machine.taps:
            kept.append(f"{len(machine.taps)} taps are open")
        sock = machine.sock
        if sock.repair or not sock.hears:
            kept.append(f"the socket {'stays in repair mode' if sock.repair else 'hears nothing'}")
        if sock.descriptors > (sock.fileno() >= 0):
            kept.append("a descriptor of the socket stays open")
        for what in kept:
            self._broken("everything back", f"{side}: {what}")

    def _broken(self, kind: str, what: str) -> None:
        self._world.broken(kind, what)
