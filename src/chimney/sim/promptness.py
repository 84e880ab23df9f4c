"""Nobody waits without need: what has come is acknowledged, what may leave leaves, and a window that opens is told of.

TCP forgives: what a hand-over forgets, the peer says again after its time-out, and no byte is lost. So streams that are
right in the end do not show it; the time that passes does. Like the doors, this judges what is on the wire alone.
Positions are the doors'.

A hand-over may take long: while one is under way nothing is expected. What arrives out of order before its end may be
lost in it, since a kernel neither tells nor takes it; even if the gap has been closed before, for it may be the segment
that closes it which makes the target ask for the upload. A link that is full or takes no large packets loses what an
engine believes to have sent: of such runs nothing is expected at all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from chimney.host.connection import Owner
from chimney.link.base import NEVER
from chimney.sim.case import CHANGES, OTHER, SIDES, Case, Change, Driver, Garbage, Layer, Mtu, Side, Target, Window
from chimney.sim.log import unwrapped
from chimney.sim.model import ModelTcp

if TYPE_CHECKING:
    from chimney.sim.world import World
    from chimney.target.objects import TcpObject

# Within which all that costs no waiting is done, besides the time that a process takes to wake up.
_SLACK_US = 1_000
# Nobody delays an acknowledgement by more than 40 ms here, and no retransmission comes in less than 200 ms.
_PATIENCE_US = 100_000
# Whoever has data for a window that is closed asks for it after a retransmission time-out (RFC 9293, 3.8.6.1). For a
# restored kernel that does not know the round trip, that is 3 s, and 6 s more if it believes to have sent the data.
# Later probes may come more seldom.
_FIRST_PROBE_US = 10_000_000
_OPTIONS = 12
_MASK = 0xFFFFFFFF
_HALF = 0x80000000
# Where Linux sends no acknowledgement when it is told to: what is delayed when the connection leaves is not said.
_NO_QUICK_ACKS = frozenset({"FIN-WAIT-1", "FIN-WAIT-2", "CLOSING"})


class _Watched:
    """One side of the connection.

    slack     how long its process may take for what is to be done at once, in microseconds.
    nxt       how far the peer's stream has arrived, without what may have been lost in a hand-over.
    islands   what has arrived beyond that, out of order: [start, end].
    offered   a window that the peer has offered once.
    una, edge what the peer has surely said of our stream: it has all before the one, and welcomes all before the other.
    newest    where the newest segment began that was looked at: older ones do not tell of windows (SND.WL1).
    stamp     the latest timestamp that may count as TS.Recent, -1: none.
    arrived   when ``nxt`` became what, the latest last, and what without islands; so ``acked`` of ``una``.
    there     an acknowledgement that leaves must cover this; ``known``: what the peer is known to have.
    holder    the engine that has the connection; ``settled`` is when a hand-over was under way last.
    moving    one was when this was looked at last.
    owes_at   since when an acknowledgement is owed, NEVER if none is; so ``could_at`` for data that could leave,
              ``shut_at`` for a window that could open, and ``stuck_at`` for data that waits for the peer's window:
              nobody has ``asked`` for that since then, or somebody has.
    """

    def __init__(self, slack: int, buffer: int, offered: int) -> None:
        self.slack = slack
        self.buffer = buffer
        self.offered = offered
        self.nxt = 0
        self.una = 0
        self.edge = -1
        self.newest = 0
        self.stamp = -1
        self.islands: list[tuple[int, int]] = []
        self.arrived: deque[tuple[int, int, int]] = deque()
        self.acked: deque[tuple[int, int]] = deque()
        self.there = 0
        self.known = 0
        self.holder: ModelTcp | TcpObject | None = None
        self.settled = 0
        self.moving = False
        self.owes_at = self.could_at = self.shut_at = self.stuck_at = NEVER
        self.asked = False


class Promptness:
    """Watches the doors of a world, and tells it with `World.broken` when somebody waits without need."""

    def __init__(self, world: World) -> None:
        self._world = world
        case = world.case
        self._mss = case.mss - (_OPTIONS if case.timestamps else 0)
        self._expects = not loses_unseen(case)
        self._watched: dict[Side, _Watched] = {}
        for side in SIDES:
            host = case.host(side)
            buffer = min(host.receive_buffer, host.receive_window) if host.chimney else host.receive_buffer
            offered = case.host(OTHER[side]).receive_buffer
            self._watched[side] = _Watched(host.latency_us + _SLACK_US, buffer, min(offered, 0xFFFF))
        # What a driver refuses or keeps back may be what is to be sent.
        self._sends_freely = {side: _lets_sends_pass(case, side) for side in SIDES}
        # Who has no memory for what is to be forwarded loses it.
        self._forwards = {side: not any(layer.out_of_memory for layer in case.host(side).layers) for side in SIDES}

    def _is_unsettled(self, side: Side, watched: _Watched) -> bool:
        """Whether a hand-over is under way, or asked for, or has just been: then what is out of order may be lost."""
        world = self._world
        connection = world.connections.get(side)
        if connection is None:
            return False
        machine = world.machines[side]
        target = machine.target
        tcp = next(iter(target.connections.values()), None) if target is not None else None
        unsettled = bool(
            machine.phase
            or connection.owner in (Owner.OFFLOADING, Owner.UPLOADING)
            or (tcp is not None and (tcp.upload_reason or tcp.engine_done))
        )
        holder = machine.sock.tcp or tcp
        if unsettled or watched.moving or holder is not watched.holder:
            watched.moving = unsettled
            # A kernel that takes its time to restore a connection may ask in the middle of it.
            watched.asked = watched.asked and holder is watched.holder
            watched.holder = holder
            watched.settled = world.clock.now
            self._lose(side, watched)
            if machine.state in _NO_QUICK_ACKS:
                watched.owes_at = NEVER
        return unsettled

    def _lose(self, side: Side, watched: _Watched) -> None:
        """A hand-over loses what is out of order, and what was so until just before its process went to work."""
        watched.islands.clear()
        since = min(self._world.clock.now, self._world.busy_since(side)) - watched.slack
        for index, (at, nxt, alone) in enumerate(watched.arrived):
            if since < at and alone < nxt:
                watched.arrived = deque([*list(watched.arrived)[:index], (at, alone, alone)])
                watched.nxt = alone
                if self._world.doors[side].facts.ack >= alone:
                    watched.owes_at = NEVER
                return

    # What passes a door

    def arrives(self, side: Side, start: int, end: int, ack: int, edge: int, stamp: int) -> None:
        """A segment has reached a side, with [start, end) of the peer's stream; it acknowledges ours up to ``ack``, and
        welcomes all up to ``edge``. ``stamp``: its timestamp, -1 if it has none.
        """
        watched, now = self._watched[side], self._world.clock.now
        door = self._world.doors[side]
        limit = door.facts.edge
        unsettled = self._is_unsettled(side, watched)
        if stamp >= 0:
            if 0 <= watched.stamp and (stamp - watched.stamp) & _MASK >= _HALF:
                # An old duplicate, which is dropped (RFC 7323, 5.3).
                return
            if start <= door.in_order:
                watched.stamp = stamp
        if unsettled and not self._forwards[side]:
            return
        if ack < watched.una - watched.offered:
            # So late that it might be forged (RFC 5961, 5.2).
            return
        if (start >= door.in_order or end > door.in_order) and (start <= limit or limit < 0):
            # Others may not be acceptable: nobody looks at what they say (RFC 9293, 3.10.7.4).
            if edge == ack >= watched.una and start >= watched.newest:
                # Of segments of the same number the one that closes the window counts, even if it was overtaken.
                watched.edge = edge
            elif ack > watched.una or start >= watched.newest:
                watched.edge = max(watched.edge, edge)
            watched.newest = max(watched.newest, start)
            if ack > watched.una:
                watched.una = ack
                watched.acked.append((now, ack))
        # Nobody takes what is beyond the window.
        end = min(end, limit) if limit >= 0 else end
        if start > watched.nxt:
            if end > start and not unsettled:
                watched.islands.append((start, end))
        elif end > watched.nxt:
            watched.nxt = end
            self._join(watched)
            watched.arrived.append((now, watched.nxt, end))
            if watched.owes_at == NEVER:
                watched.owes_at = now

    def _join(self, watched: _Watched) -> None:
        while True:
            near = [island for island in watched.islands if island[0] <= watched.nxt]
            if not near:
                return
            watched.nxt = max(watched.nxt, *(end for _, end in near))
            watched.islands = [island for island in watched.islands if island not in near]

    def leaves(self, side: Side, start: int, end: int, acknowledged: int) -> None:
        """A segment of a side leaves, with [start, end) of its stream."""
        watched, now = self._watched[side], self._world.clock.now
        since = now - watched.slack
        unsettled = self._is_unsettled(side, watched)
        while watched.arrived and watched.arrived[0][0] <= since:
            watched.there = watched.arrived.popleft()[1]
        while watched.acked and watched.acked[0][0] <= since:
            watched.known = watched.acked.popleft()[1]
        if not unsettled and watched.settled <= since and self._is_judged(side):
            if acknowledged < watched.there:
                self._broken(
                    side, f"acknowledges {acknowledged} only, and all up to {watched.there} has been there for long"
                )
            if start < end <= watched.known:
                self._broken(side, f"sends {start} to {end} again, and has been told that the peer has it")
        self._look(side, watched)
        if start < max(end, self._world.doors[side].facts.seq_end):
            # Data, or a probe, which repeats a number: to be answered.
            watched.asked = True
        if acknowledged >= watched.nxt:
            watched.owes_at = NEVER

    # What time passes for

    def after_event(self) -> None:
        """Something has happened."""
        for side, watched in self._watched.items():
            self._look(side, watched)

    def was_busy(self, side: Side, took_time: bool) -> None:
        """The process of a side has done something, and still counts as busy. If that took time, it was a hand-over,
        whether it has begun or not; if not, it may have been one all the same.
        """
        watched = self._watched[side]
        if took_time:
            watched.settled = self._world.clock.now
            self._lose(side, watched)
        self._is_unsettled(side, watched)

    def _look(self, side: Side, watched: _Watched) -> None:
        """Whether a side has something to do, and for how long already."""
        now = min(self._world.clock.now, self._world.busy_since(side))
        if self._is_unsettled(side, watched):
            return
        door = self._world.doors[side]
        facts = door.facts
        application = self._world.applications[side]
        waits = application.posted - facts.seq_end
        could = stuck = False
        if 0 < waits and watched.una == facts.seq_end and self._sends_freely[side]:
            welcome = watched.edge - facts.seq_end >= min(waits, self._mss)
            could = welcome and self._believes_to_have_sent(side, watched) <= facts.seq_end
            stuck = not welcome and watched.edge >= 0
        watched.could_at = min(watched.could_at, now) if could else NEVER
        watched.stuck_at = min(watched.stuck_at, now) if stuck else NEVER
        watched.asked = watched.asked and stuck
        shut = (
            application.received == watched.nxt == door.in_order
            and 0 <= facts.edge < watched.nxt + watched.buffer // 4
            and door.heard.fin < 0
        )
        watched.shut_at = min(watched.shut_at, now) if shut else NEVER
        if not self._is_judged(side):
            return
        for what, at, patience in (
            ("does not acknowledge what has arrived", watched.owes_at, _PATIENCE_US),
            ("does not send what it could", watched.could_at, _PATIENCE_US),
            ("does not say that its window is open", watched.shut_at, _PATIENCE_US),
            ("does not ask whether the window is still closed", watched.stuck_at, _FIRST_PROBE_US),
        ):
            if at == NEVER or (patience == _FIRST_PROBE_US and watched.asked):
                continue
            if now - max(at, watched.settled) > watched.slack + patience:
                self._broken(side, f"{what}, for {patience // 1000} ms")
                watched.owes_at = watched.could_at = watched.shut_at = watched.stuck_at = NEVER
                return

    def _believes_to_have_sent(self, side: Side, watched: _Watched) -> int:
        """Up to where: what a dump says of SND.NXT is a guess, and its bytes wait for the retransmission timer."""
        holder = watched.holder or self._world.machines[side].sock.tcp
        if holder is None:
            return 0
        nxt = holder.sender.max if isinstance(holder, ModelTcp) else holder.engine.snd_nxt
        return unwrapped(nxt, self._world.case.iss[side == "b"], self._world.doors[side].facts.seq_end)

    def _is_judged(self, side: Side) -> bool:
        world = self._world
        return self._expects and not world.broken_off and world.machines[side].state not in ("CLOSED", "TIME-WAIT")

    def _broken(self, side: Side, what: str) -> None:
        self._world.broken("promptness", f"{side} {what}")


def loses_unseen(case: Case) -> bool:
    """Whether segments may be lost before they reach the door (an engine believes to have said what nobody hears), or
    may be damaged or forged, so that the door and the engine differ in what has arrived, or say what is taken back.
    """
    networks = [case.network, *(step.network for step in case.steps if isinstance(step, Change))]
    vices = any(network.bandwidth or network.corrupt for network in networks)
    dead = any(isinstance(step, Target) and step.what == "dies" for step in case.steps)
    return vices or dead or any(isinstance(step, (Mtu, Garbage, Window, *CHANGES)) for step in case.steps)


def _lets_sends_pass(case: Case, side: Side) -> bool:
    return all(layer == Layer() for layer in case.host(side).layers) and not any(
        isinstance(step, Driver) and step.side == side for step in case.steps
    )
