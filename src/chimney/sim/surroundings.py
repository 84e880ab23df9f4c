"""What stands between a machine and its peer, and what the machine's kernel knows of it.

The next hops are the peer itself and some gateways, all of which lead to the peer as long as they work. The kernel has
a route by one of them, a table of their hardware addresses, and a path MTU that it has learnt; it learns late, or not
at all, and then believes what was true before. `SimKernelNetwork` is how a host asks and hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal

from chimney.host.icmp import IcmpMessage
from chimney.host.kernel_network import NeighborKey, NeighborState, NeighborView
from chimney.link.base import NEVER
from chimney.sim.icmp import too_big

if TYPE_CHECKING:
    from chimney.sim.machine import Machine

GATEWAYS = 4
"""Next hops of each machine, the peer included, which is number 0."""

DEVICE_INDEX = 1
"""The kernel's number of a machine's only network interface."""

UNKNOWN = b""
"""The hardware address of a next hop that has not told it."""

# Whoever does not answer is asked again, as often and with such pauses (RFC 4861, 10: MAX_UNICAST_SOLICIT and
# RetransTimer).
_SOLICITS = 3
_SOLICIT_US = 1_000_000
# A kernel whose own packets are not answered finds out by itself. Linux takes up to 40 s; peers are not that patient.
_NOTICES_US = 3_000_000
# How long proof of a neighbor counts (RFC 4861, 10: REACHABLE_TIME).
_REACHABLE_US = 30_000_000
# Linux forgets what it has learnt about a path after ten minutes.
_FORGETS_US = 600_000_000


@dataclass(slots=True)
class _Hop:
    """A next hop as it is. ``generation`` counts its hardware addresses."""

    address: bytes
    mac: bytes
    works: bool = True
    generation: int = 0


class Surroundings:
    """Of one machine.

    gateway      the next hop that the kernel's route goes by.
    plugged      whether the network interface has a link; ``addressed``: whether it has the connection's address.
    learnt       the path MTU that the kernel has learnt, 0: none; ``learnt_until``: when it forgets that.
    changed_at   when the kernel's mind has changed last; ``told``: there was news of that.
    heard        called when there is news; ``too_big_heard`` with what a router says of an offloaded connection.
    """

    def __init__(self, machine: Machine, own_mac: bytes, peer_mac: bytes, peer_address: bytes) -> None:
        self._machine = machine
        self._own_mac = own_mac
        self.gateway = 0
        self.plugged = True
        self.addressed = True
        self.learnt = 0
        self.learnt_until = NEVER
        self.changed_at = machine.clock()
        self.told = True
        self.heard: Callable[[], None] | None = None
        self._hops = [_Hop(peer_address, peer_mac)]
        for number in range(1, GATEWAYS):
            self._hops.append(_Hop(peer_address[:-1] + bytes([0xF0 + number]), self._mac(number, 0)))
        self._table = [hop.mac for hop in self._hops]
        self._confirmed_at = [machine.clock()] * GATEWAYS
        self._failed = [False] * GATEWAYS
        self._asking: set[int] = set()
        self._believed_wrongly = False
        self._too_big_told = False
        self._forgets_us = _FORGETS_US
        self.too_big_heard: Callable[[IcmpMessage], None] | None = None
        # What is going to happen: time, order, what.
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def _mac(self, number: int, generation: int) -> bytes:
        return b"\x06" + self._own_mac[-1:] + bytes([number]) + generation.to_bytes(3, "big")

    # What the kernel knows

    @property
    def routed(self) -> bool:
        """Whether the kernel has a route to the peer."""
        return self.plugged and self.addressed

    @property
    def next_hop(self) -> bytes:
        """The IP address of the next hop."""
        return self._hops[self.gateway].address

    @property
    def neighbor_mac(self) -> bytes:
        """The hardware address that the kernel knows of it, or `UNKNOWN`."""
        return self._table[self.gateway]

    @property
    def path_mtu(self) -> int:
        """What the kernel takes for the path MTU, in bytes."""
        mtu = self._machine.nic.mtu
        return min(mtu, self.learnt) if self.learnt else mtu

    def view(self, next_hop: bytes) -> NeighborView:
        """What the kernel thinks of a next hop."""
        number = self._number(next_hop)
        if number is None:
            return NeighborView(NeighborState.UNKNOWN, _REACHABLE_US)
        age = self._machine.clock() - self._confirmed_at[number]
        if number in self._asking:
            state = NeighborState.DOUBTED if self._table[number] else NeighborState.UNKNOWN
        elif not self._table[number]:
            state = NeighborState.FAILED if self._failed[number] else NeighborState.UNKNOWN
        else:
            state = NeighborState.REACHABLE if age < _REACHABLE_US else NeighborState.STALE
        return NeighborView(state, age)

    def confirm(self, next_hop: bytes) -> None:
        """The next hop works: somebody has proof."""
        number = self._number(next_hop)
        if number is not None:
            self._confirmed_at[number] = self._machine.clock()

    def _number(self, next_hop: bytes) -> int | None:
        return next((number for number, hop in enumerate(self._hops) if hop.address == next_hop), None)

    def _learns(self, what: str, news: bool = True) -> None:
        """The kernel has changed its mind."""
        machine = self._machine
        machine.world.note(machine.side, "net", f"the kernel learns: {what}")
        self.changed_at = machine.clock()
        self.told = news
        machine.kernel.mtu_changed(self.path_mtu)
        if news and self.heard is not None:
            self.heard()

    # What is

    def leads(self, mac: bytes) -> bool:
        """Whether frames to a hardware address reach the peer."""
        return any(hop.works and hop.mac == mac for hop in self._hops)

    # Time

    def next_at(self) -> int:
        """When something is going to happen; NEVER if nothing is."""
        return self._agenda[0][0] if self._agenda else NEVER

    def happen(self) -> bool:
        """Let one thing happen that is due; whether there was one."""
        if self.next_at() > self._machine.clock():
            return False
        heappop(self._agenda)[2]()
        return True

    def _later(self, microseconds: int, act: Callable[[], None]) -> None:
        """Now, if that is so: what happens first is not to depend on the process that is at work."""
        if not microseconds:
            act()
            return
        self._order += 1
        heappush(self._agenda, (self._machine.clock() + microseconds, self._order, act))

    # Changes

    def another_mac(self, moves_us: int, told_us: int) -> None:
        """The next hop gets another hardware address in ``moves_us``; the kernel is told in ``told_us``, not at all if
        that is negative.
        """
        number, hop = self.gateway, self._hops[self.gateway]
        hop.generation += 1
        mac = self._mac(number, hop.generation)
        network, peer = self._machine.network, self._machine.peer_nic

        def move() -> None:
            network.alias(peer, mac)
            hop.mac = mac

        self._later(moves_us, move)
        if told_us >= 0:
            self._later(told_us, lambda: self._told(number, mac))

    def _told(self, number: int, mac: bytes) -> None:
        if self.plugged:
            self._table[number] = mac
            self._failed[number] = not mac
            self._learns(f"{self._named(number)} has {mac.hex(':') if mac else 'not answered'}")

    def _named(self, number: int) -> str:
        return f"gateway {number}" if number else "the peer"

    def another_route(self, gateway: int, known: bool, old_works: bool) -> None:
        """The kernel's route goes by another next hop, which works. ``known``: whether its hardware address is."""
        old, new = self._hops[self.gateway], self._hops[gateway]
        if gateway == self.gateway:
            return
        old.works, new.works = old_works, True
        network = self._machine.network
        if gateway and not new.generation:
            new.generation = 1
            new.mac = self._mac(gateway, 1)
            network.alias(self._machine.peer_nic, new.mac)
        self.gateway = gateway
        self._table[gateway] = new.mac if known else UNKNOWN
        self._learns(f"the route goes by {self._named(gateway)}")

    def unplug(self, what: Literal["link", "address"], lasts_us: int) -> None:
        """The link, or the connection's address, is gone for so long."""
        if what == "link":
            self.plugged = False
            # What was learnt over a link that is down is forgotten.
            self._table = [UNKNOWN] * GATEWAYS
            self._failed = [False] * GATEWAYS
        else:
            self.addressed = False
        self._learns(f"the {what} is gone")
        self._later(lasts_us, lambda: self._plug(what))

    def _plug(self, what: Literal["link", "address"]) -> None:
        if what == "link" and not self.plugged:
            self.plugged = True
        elif what == "address" and not self.addressed:
            self.addressed = True
        else:
            return
        self._learns(f"the {what} is back")

    def too_big(self, frame: bytes, mtu: int, told_us: int, forgets_us: int) -> None:
        """A frame was lost because its packet is larger than ``mtu``: a router tells so in ``told_us``, not at all if
        that is negative, and the kernel forgets it after ``forgets_us`` (0: never). The kernel believes it of a
        connection that it has; of one that is offloaded it knows too little, and its host tells it.
        """
        message = too_big(frame, mtu)
        if told_us < 0 or self._too_big_told or message is None:
            return
        self._too_big_told = True

        def told() -> None:
            self._too_big_told = False
            self._forgets_us = forgets_us
            if not self.plugged:
                return
            # Who listens to ICMP hears it whatever the kernel makes of it.
            if self._machine.owner == "kernel":
                self.learn_mtu(mtu)
            if self.too_big_heard is not None:
                self.too_big_heard(message)

        self._later(max(told_us, 1), told)

    def learn_mtu(self, mtu: int) -> None:
        """The kernel believes that the path takes packets of ``mtu`` bytes; larger than what it knows is no news."""
        if not self.plugged or mtu >= self.path_mtu:
            return
        self.learnt = mtu
        self.learnt_until = self._machine.clock() + self._forgets_us if self._forgets_us else NEVER
        if self._forgets_us:
            self._later(self._forgets_us, self._forget)
        # No kernel tells of it.
        self._learns(f"the path takes {mtu} bytes", news=False)

    def _forget(self) -> None:
        if self.learnt and self.learnt_until <= self._machine.clock():
            self.learnt, self.learnt_until = 0, NEVER
            # Nobody is told of this: it was known before (RTA_CACHEINFO).
            self._learns(f"the path takes {self.path_mtu} bytes again, it supposes", news=False)

    def behave(self) -> None:
        """Everything is there, and the path takes packets of any size. What hardware addresses the kernel does not know
        nobody tells it.
        """
        for what in ("link", "address"):
            self._plug(what)
        if self.learnt:
            self.learnt, self.learnt_until = 0, NEVER
            self._learns(f"the path takes {self.path_mtu} bytes")

    def mtu_changed(self) -> None:
        """The network interface's MTU is another one."""
        self._learns(f"the interface takes {self._machine.nic.mtu} bytes")

    # The kernel's own packets, and what it asks for

    def macs(self) -> bytes | None:
        """The kernel has a packet for the peer: both hardware addresses, or None if it cannot leave."""
        if not self.routed:
            return None
        mac = self.neighbor_mac
        if not mac:
            self.ask(self.gateway)
            return None
        if self.leads(mac):
            self._confirmed_at[self.gateway] = self._machine.clock()
        elif not self._believed_wrongly:
            self._believed_wrongly = True
            self._later(_NOTICES_US, self._notice)
        return mac + self._own_mac

    def _notice(self) -> None:
        self._believed_wrongly = False
        if self.routed and self.neighbor_mac and not self.leads(self.neighbor_mac):
            self.ask(self.gateway)

    def ask(self, number: int) -> None:
        """Ask a next hop for its hardware address; the answer comes some time later."""
        if number not in self._asking:
            self._asking.add(number)
            self._solicit(number, _SOLICITS)

    def asks(self, next_hop: bytes) -> None:
        """The same, by its IP address; nothing if there is no such neighbor."""
        number = self._number(next_hop)
        if number is not None:
            self.ask(number)

    def _solicit(self, number: int, left: int) -> None:
        machine = self._machine
        hop, now = self._hops[number], machine.clock()
        cut_off = max(machine.nic.cut_off_until, machine.peer_nic.cut_off_until) > now
        if not left or not self.plugged:
            self._asking.discard(number)
            self._told(number, UNKNOWN)
        elif hop.works and not cut_off:
            self._later(2 * machine.network.delay_us + 1, lambda: self._answered(number))
        else:
            self._later(_SOLICIT_US, lambda: self._solicit(number, left - 1))

    def _answered(self, number: int) -> None:
        self._asking.discard(number)
        self._confirmed_at[number] = self._machine.clock()
        self._told(number, self._hops[number].mac)


class SimKernelNetwork:
    """Implements `chimney.host.kernel_network.KernelNetwork` on a machine's surroundings."""

    def __init__(self, machine: Machine) -> None:
        self._surroundings = machine.surroundings
        self._descriptor = machine.descriptor()
        self.readable = False
        self._surroundings.heard = self._heard

    def _heard(self) -> None:
        self.readable = True

    def fileno(self) -> int:
        return self._descriptor

    def read(self, neighbors: Container[NeighborKey]) -> bool:
        changed, self.readable = self.readable, False
        return changed

    def neighbor(self, key: NeighborKey) -> NeighborView:
        return self._surroundings.view(key[1])

    def probe(self, key: NeighborKey) -> None:
        if self._surroundings.plugged:
            self._surroundings.asks(key[1])

    def confirm(self, key: NeighborKey) -> None:
        self._surroundings.confirm(key[1])

    def close(self) -> None:
        self._surroundings.heard = None
        self.readable = False
